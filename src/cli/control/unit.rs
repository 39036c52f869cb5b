//! systemd's user unit of the service.

use std::path::PathBuf;

use crate::cli::client::CallError;
use crate::settings::Environment;
use crate::worker::run_to_end;

/// The name of the unit.
pub(super) const UNIT: &str = "llamagate.service";

/// The unit of this user.
#[derive(Debug)]
pub(super) struct UserUnit {
    systemctl: PathBuf,
}

impl UserUnit {
    /// Returns the unit, if systemd runs for this user and has one.
    pub(super) fn find(environment: &Environment) -> Option<Self> {
        let unit = Self { systemctl: environment.find_program("systemctl")? };
        let found = run_to_end(&unit.systemctl, &["--user", "cat", UNIT], true);
        found.is_ok_and(|status| status.success()).then_some(unit)
    }

    /// Gives systemd an order about the unit and waits until it is carried out.
    ///
    /// # Errors
    /// [`CallError::Broken`] if systemd does not obey; it has said why.
    pub(super) fn order(&self, order: &str) -> Result<(), CallError> {
        let status = run_to_end(&self.systemctl, &["--user", order, UNIT], false);
        let status = status.map_err(|error| CallError::Broken(format!("systemctl cannot be run: {error}")))?;
        match status.success() {
            true => Ok(()),
            false => Err(CallError::Broken(format!("systemctl --user {order} {UNIT} has failed"))),
        }
    }
}
