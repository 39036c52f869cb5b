//! Bounds of settings, and those that several modules share. Other bounds stand with the module that uses them.

use std::time::Duration;

/// Most idle connections to one llama-server.
pub const UPSTREAM_IDLE_CONNECTIONS: usize = 32;

/// Time that connections get to finish what they are sending once everything else has stopped.
pub const CONNECTION_GRACE: Duration = Duration::from_secs(1);

/// Connections that the health port serves at once.
pub const HEALTH_CONNECTIONS: usize = 64;

/// Longest name of a model that a request may ask for, in bytes as it is written there.
pub const MODEL_NAME: usize = 1024;

/// Most bytes of a configuration file.
pub const CONFIG_FILE_SIZE: u64 = 1024 * 1024;

/// Most mappings and lists within each other in a configuration file.
pub const CONFIG_FILE_DEPTH: usize = 64;

/// Most pieces of a configuration file that its aliases (`*name`) may repeat.
pub const CONFIG_FILE_ALIASED: usize = 64 * 1024;

/// Most models that a configuration may list.
pub const MOST_MODELS: usize = 1024;

/// Most other names of one model.
pub const MOST_ALIASES: usize = 64;

/// Longest id or other name of a model, and longest name of a tier, in bytes.
pub const MODEL_NAME_LENGTH: usize = 256;

/// Most llama-servers that are started for one model.
pub const MOST_REPLICAS: u32 = 64;

/// Most remote backends of one model.
pub const MOST_REMOTES: usize = 256;

/// Requests in flight to a remote backend for which the configuration sets no limit.
pub const REMOTE_SLOTS: usize = 64;

/// Longest key of a remote backend, in bytes.
pub const REMOTE_KEY_LENGTH: usize = 8 * 1024;

/// Longest time in which a client that is being answered may read nothing, be it from its connection or from one HTTP/2
/// stream.
pub const CLIENT_WRITE_STALL: Duration = Duration::from_secs(60);

/// Time between two pings, where RunPod does not say.
pub const PING_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);

/// Longest time between two pings that it may ask for.
pub const PING_INTERVAL_LONGEST: Duration = Duration::from_secs(60 * 60);
