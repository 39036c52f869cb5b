//! Bounds of the composition: waits and lengths that no user needs to choose.

use std::time::Duration;

/// Time between two looks at whether the configuration file has changed.
pub(super) const CONFIG_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Looks in a row that do not find the configuration file before it is said to be gone.
pub(super) const CONFIG_GONE_LOOKS: u32 = 2;

/// Longest name that a folder of logs gets from a model's id, in bytes.
pub(super) const LOG_FOLDER_NAME: usize = 200;
