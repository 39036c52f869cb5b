//! What the operating system tells about processes and memory.
//!
//! - `linux/`: Linux

pub(crate) mod linux;
