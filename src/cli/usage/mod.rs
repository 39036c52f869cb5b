//! `llamagate usage` and `llamagate audit`: what was used, and what administrators have done, from the file on this machine
//! or from a service over HTTP.
//!
//! - `audit.rs`: `llamagate audit`
//! - `pages.rs`: answers over HTTP that come in pages
//! - `usage_command.rs`: `llamagate usage`

mod audit;
mod pages;
mod usage_command;

pub(super) use audit::run as run_audit;
pub(super) use usage_command::run;

use std::collections::BTreeMap;

use super::client::{CallError, RemoteArgs, ServiceAddress, ServiceClient};
use super::inputs::{Flags, PLACE_FLAGS};
use crate::settings::Environment;

/// Returns a client, if the arguments or the environment name a service.
///
/// # Errors
/// [`CallError`] as for [`ServiceAddress::find`], and for a flag that has an effect on the file only.
fn client_of(
    remote: &RemoteArgs,
    flags: Flags,
    environment: Environment,
) -> Result<Result<ServiceClient, (BTreeMap<&'static str, String>, Environment)>, CallError> {
    if !ServiceAddress::is_named(remote, &environment) {
        return Ok(Err((flags.0, environment)));
    }
    if let Some(key) = flags.0.keys().find(|key| !PLACE_FLAGS.contains(key)) {
        let flag = key.replace('_', "-");
        return Err(CallError::Usage(format!("--{flag} has no effect on a service that is asked over HTTP")));
    }
    ServiceClient::new(ServiceAddress::find(remote, flags.0, environment)?).map(Ok)
}
