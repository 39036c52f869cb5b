//! Bounds of settings, and bounds that several modules share. Other bounds are in the module that uses them.

use std::time::Duration;

/// Connections to one llama-server that may be open beyond those that its requests in flight can use.
pub const UPSTREAM_IDLE_CONNECTIONS: usize = 32;

/// Most requests in flight to a model that need no slot, such as `/tokenize`. Each may take a connection to llama-server,
/// and the number of slots does not bound them.
pub const MAX_SLOTLESS_REQUESTS: usize = 32;

/// Time that open connections get to finish sending after everything else has stopped.
pub const CONNECTION_GRACE: Duration = Duration::from_secs(1);

/// Most connections that the health port serves at once.
pub const HEALTH_CONNECTIONS: usize = 64;

/// Longest model name in a request, in bytes of the JSON text, escapes included.
pub const MODEL_NAME: usize = 1024;

/// Most bytes of a configuration file.
pub const CONFIG_FILE_SIZE: u64 = 1024 * 1024;

/// Most bytes of a file of variables (`ENV_FILE`).
pub const ENV_FILE_SIZE: u64 = 1024 * 1024;

/// Most lines of one value within quotes in a file of variables; a chain of certificates has fewer.
pub const ENV_FILE_VALUE_LINES: usize = 1024;

/// Most lines of a file of variables that are reported one by one.
pub const ENV_FILE_PROBLEMS: usize = 20;

/// Most files that `include:` of a configuration file may name, with those that they include.
pub const MOST_INCLUDED_FILES: usize = 64;

/// Deepest nesting of mappings and lists in a configuration file.
pub const CONFIG_FILE_DEPTH: usize = 64;

/// Most YAML events of a configuration file that its aliases (`*name`) may replay; stops exponential expansion.
pub const CONFIG_FILE_ALIASED: usize = 64 * 1024;

/// Most models that a configuration may list.
pub const MOST_MODELS: usize = 1024;

/// Most aliases of one model.
pub const MOST_ALIASES: usize = 64;

/// Longest id or alias of a model, and longest name of a tier, in the configuration, in bytes.
pub const CONFIGURED_NAME_LENGTH: usize = 256;

/// Most lengths of vectors that the configuration of one model may name.
pub const MOST_DIMENSIONS: usize = 64;

/// Most prompts of one model.
pub const MOST_PROMPTS: usize = 64;

/// Longest prompt or instruction of a model, in bytes. It stands before each input of a request.
pub const PROMPT_LENGTH: usize = 1024;

/// Most LoRA adapters of one model.
pub const MOST_ADAPTERS: usize = 64;

/// Largest scale of an adapter, in either direction.
pub const LARGEST_SCALE: f32 = 100.0;

/// Most tokens that may be drafted at once.
pub const MOST_DRAFTED: u32 = 1024;

/// Most machines that compute for one model.
pub const MOST_RPC_SERVERS: usize = 64;

/// Largest file of a chat template, in bytes.
pub const CHAT_TEMPLATE_SIZE: u64 = 1 << 20;

/// Most llama-servers that are started for one model.
pub const MOST_REPLICAS: u32 = 64;

/// Most remote backends of one model.
pub const MOST_REMOTES: usize = 256;

/// Most requests in flight to a remote backend for which the configuration sets no limit.
pub const REMOTE_SLOTS: usize = 64;

/// Most headers that are added to a request to a remote backend.
pub const MOST_REMOTE_HEADERS: usize = 32;

/// Longest API key, and longest added header, of a remote backend, in bytes.
pub const REMOTE_KEY_LENGTH: usize = 8 * 1024;

/// Length of `LLAMAGATE_API_KEY`, in characters.
pub const SERVICE_KEY_LENGTH: std::ops::RangeInclusive<usize> = 8..=256;

/// `LLAMAGATE_API_KEY` is warned about if it is shorter than this, in characters.
pub const SHORT_SERVICE_KEY: usize = 16;

/// Longest time for which a client may read nothing of a response that is being sent, on a connection or on one HTTP/2
/// stream.
pub const CLIENT_WRITE_STALL: Duration = Duration::from_secs(60);

/// Time between two pings to RunPod if `RUNPOD_PING_INTERVAL` is not set.
pub const PING_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);

/// Longest accepted `RUNPOD_PING_INTERVAL`.
pub const PING_INTERVAL_LONGEST: Duration = Duration::from_secs(60 * 60);

/// Most connections over which one file is downloaded; hosts of large files limit them too.
pub const MOST_DOWNLOAD_CONNECTIONS: usize = 64;

/// Most names of one certificate of a CA. Let's Encrypt takes 100.
pub(super) const MOST_ACME_DOMAINS: usize = 100;

/// Most mail addresses of an account at a CA.
pub(super) const MOST_ACME_CONTACTS: usize = 10;

/// Longest accepted `LIMITS_STORE_TIMEOUT`.
pub const LONGEST_LIMITS_STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Shortest wait after an order at a CA that failed.
pub(super) const LEAST_ACME_RETRY: Duration = Duration::from_millis(100);

/// Longest wait after orders at a CA that failed, unless the CA asks for a longer one.
pub const MOST_ACME_RETRY: Duration = Duration::from_secs(6 * 3600);
