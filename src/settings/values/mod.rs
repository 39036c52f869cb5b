//! The types of settings: how each reads its text, and what it says when it cannot.
//!
//! A value that cannot be understood is always an error; none falls back to a default or to "off".
//!
//! - `origins.rs`: `CORS_ORIGINS`
//! - `scalars.rs`: yes or no, numbers, durations, sizes, words, arguments
//! - `strategy.rs`: `ROUTING_STRATEGY`
//! - `value.rs`: the trait of all these types, and why a text is refused

mod origins;
mod scalars;
mod strategy;
mod value;

pub use origins::Origins;
pub(super) use scalars::Weight;
pub use scalars::{
    ByteSize, Context, ExtraArgs, GpuLayers, LONGEST_DURATION, LogFormat, LogLevel, MemoryBudgetSetting, RunpodMode,
    Seconds, Secret, Zero, ZeroIsOff,
};
pub use strategy::Strategy;
pub use value::{Rejected, Value};
