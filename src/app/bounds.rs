//! Bounds and names of the composition root that no user needs to choose.

use std::time::Duration;

/// Interval between two checks whether the configuration file has changed.
pub(super) const CONFIG_LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Consecutive checks that do not find the configuration file before its absence is logged.
pub(super) const CONFIG_GONE_LOOKS: u32 = 2;

/// Longest folder name that is derived from a model's id, in bytes. The number of a worker may be appended to it, and
/// file systems allow 255 bytes.
pub(super) const LOG_FOLDER_NAME: usize = 200;

/// The file below `DATA_DIR` with the memory that models used when they were loaded.
pub(super) const LEARNED_MEMORY_FILE: &str = "learned_memory.json";

/// Interval between two notes of which models were used.
pub(super) const LAST_USED_INTERVAL: Duration = Duration::from_secs(60);

/// The folder of rpc-server's logs in `LOG_DIR`.
pub(super) const RPC_LOG_FOLDER: &str = "rpc-server";

/// The folder in `DATA_DIR` in which rpc-server keeps large tensors, unless a variable names another one.
pub(super) const RPC_CACHE_FOLDER: &str = "rpc-cache";

/// The name of the rpc-server in reports and metrics, where those of a service have the ids of models.
pub(super) const RPC_WORKER: &str = "rpc-server";
