//! The serving threads: one for each CPU, each with a runtime of its own.
//!
//! A request lives on the core of its connection from its first byte to its last: the tasks that it spawns, its timers and
//! its connections to workers belong to the runtime of that core. So no thread hands a request over to another one. Which
//! requests there are is the gateway's business; everything that is no request runs on the main thread.
//!
//! - `bounds.rs`: how many serving threads there are, and what each takes
//! - `choice.rs`: which core serves the next connection
//! - `per_core.rs`: a value of its own for each core, such as a pool of connections
//! - `threads.rs`: starts and ends the threads

pub mod bounds;
mod choice;
mod per_core;
mod threads;

pub use bounds::count_of_machine;
pub use choice::{Cores, ServingCore};
pub use per_core::PerCore;
pub use threads::CoreThreads;
