//! Measurements beside the workloads.
//!
//! - `calls.rs`: system calls and context switches of a request
//! - `cores.rs`: two cores beside one
//! - `fleet.rs`: W11, one model among many
//! - `floods.rs`: W8, floods of refused requests
//! - `idle.rs`: 200 models without requests
//! - `instructions.rs`: instructions per request
//! - `memory.rs`: memory, idle, with requests and with streams
//! - `overload.rs`: W10, more requests than there are slots
//! - `soak.rs`: mixed traffic for a long time
//! - `start.rs`: how soon a gateway serves

pub(crate) mod calls;
pub(crate) mod cores;
pub(crate) mod fleet;
pub(crate) mod floods;
pub(crate) mod idle;
pub(crate) mod instructions;
pub(crate) mod memory;
pub(crate) mod overload;
pub(crate) mod soak;
pub(crate) mod start;
