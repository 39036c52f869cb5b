//! The types of settings: how each reads its text, and what it says when it cannot.
//!
//! A value that cannot be understood is always an error; none falls back to a default or to "off".
//!
//! - `origins.rs`: `CORS_ORIGINS`
//! - `scalars.rs`: numbers, durations, sizes, words, arguments

mod origins;
mod scalars;

pub use origins::Origins;
pub(super) use scalars::Weight;
pub use scalars::{
    Bytes, Context, ExtraArgs, GpuLayers, LONGEST_DURATION, LogFormat, LogLevel, MemoryBudget, Rejected, RunpodMode,
    Seconds, Secret, Value, Zero, ZeroIsOff,
};
