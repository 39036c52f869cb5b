//! `llamagate start`, `stop`, `restart` and `status`: the service of this user on this machine.
//!
//! If there is a systemd user unit of the name `llamagate.service`, it decides what runs. Without one, the service runs in
//! the background, and is found by the note that it publishes ([`ServiceNote`](crate::service_note::ServiceNote)).
//!
//! - `earlier_start.rs`: how a service that runs was started
//! - `start.rs`: starts it, and waits until it listens
//! - `status.rs`: tells what runs
//! - `stop.rs`: stops it, and waits for its requests
//! - `unit.rs`: systemd's user unit

mod earlier_start;
mod start;
mod status;
mod stop;
mod unit;

pub(super) use start::{run_restart, run_start};
pub(super) use status::run as run_status;
pub(super) use stop::run as run_stop;
