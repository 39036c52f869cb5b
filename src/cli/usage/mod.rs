//! `llamagate usage` and `llamagate audit`: what was used, and what administrators have done, from the file on this machine
//! or from a service over HTTP.
//!
//! - `audit.rs`: `llamagate audit`
//! - `over_http.rs`: whether a service is asked, and its answers, which come in pages
//! - `usage_command.rs`: `llamagate usage`

mod audit;
mod over_http;
mod usage_command;

pub(super) use audit::run as run_audit;
pub(super) use usage_command::run;
