//! Measurements beside the workloads.
//!
//! - `calls.rs`: system calls and context switches of a request
//! - `cores.rs`: two cores beside one
//! - `fleet.rs`: W11, one model among many
//! - `floods.rs`: W8, floods of refused requests
//! - `instructions.rs`: instructions per request
//! - `memory.rs`: memory, idle and with requests in flight
//! - `overload.rs`: W10, more requests than there are slots
//! - `soak.rs`: mixed traffic for a long time

pub(crate) mod calls;
pub(crate) mod cores;
pub(crate) mod fleet;
pub(crate) mod floods;
pub(crate) mod instructions;
pub(crate) mod memory;
pub(crate) mod overload;
pub(crate) mod soak;
