//! The one table of settings: name, type, default, what takes over a change, and meaning.
//!
//! A new setting is one row here. From the row come the environment variable (the name in capitals), the flag
//! (the name in kebab case), the key in the configuration file (the name itself), the typed field, `--help`,
//! `llamagate check`, what a reload says of a changed value, and `docs/CONFIGURATION.md`. How the text of a value is
//! read is the type's business (`values/`), and which source wins is `resolve.rs`'s.

use super::reader::Reader;
use super::values::{
    ByteSize, Context, ExtraArgs, GpuLayers, LogFormat, LogLevel, MemoryBudgetSetting, Origins, RunpodMode, Seconds,
    Strategy, Value, ZeroIsOff,
};
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

/// What makes the service take over a changed value of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A reload.
    Reload,
    /// The next start.
    Restart,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
        })
    }
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct OptionRow {
    /// The name in lower case, as in the configuration file.
    pub key: &'static str,
    /// The default as text; `$OTHER` stands for the resolved value of another setting. Empty: no default.
    pub default: &'static str,
    /// Other environment variables that mean the same, oldest last.
    pub aliases: &'static [&'static str],
    /// What makes the service take over a changed value.
    pub change: Change,
    /// What the setting does, in one sentence or two.
    pub doc: &'static str,
    /// The heading it stands under.
    pub group: &'static str,
    /// A yes-or-no setting, whose flag may stand without a value.
    pub is_bool: bool,
    /// Replaces what is secret in a text of this setting, for printing.
    pub masked: fn(&str) -> String,
}

impl OptionRow {
    /// The environment variable: `max_queue_size` is `MAX_QUEUE_SIZE`.
    pub fn variable(&self) -> String {
        self.key.to_ascii_uppercase()
    }

    /// The flag without its dashes: `max_queue_size` is `max-queue-size`.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }
}

/// Finds a row by its lower-case key.
pub fn row(key: &str) -> Option<&'static OptionRow> {
    OPTIONS.iter().find(|row| row.key == key)
}

const fn is_bool(type_name: &str) -> bool {
    matches!(type_name.as_bytes(), b"bool")
}

macro_rules! options {
    ($(
        $(#[doc = $group_doc:literal])+
        $group:ident $part:ident $title:literal {
            $( $key:ident: $type:ty = $default:literal $(alias $alias:literal)*, $change:ident, $doc:literal; )+
        }
    )+) => {
        $(
            $(#[doc = $group_doc])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $group { $( #[doc = $doc] pub $key: $type, )+ }
        )+

        /// Every setting, resolved and typed, in the groups that their users take.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $( $(#[doc = $group_doc])+ pub $part: $group, )+
        }

        /// The table, in the order of the documentation; a default may only refer to rows above it.
        pub const OPTIONS: &[OptionRow] = &[ $( $( OptionRow {
            key: stringify!($key),
            default: $default,
            aliases: &[ $( $alias ),* ],
            change: Change::$change,
            doc: $doc,
            group: $title,
            is_bool: is_bool(stringify!($type)),
            masked: <$type as Value>::masked,
        }, )+ )+ ];

        impl Settings {
            /// Reads every value before it gives up on any, so that all problems are reported together.
            pub(super) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
                $( $( let $key = reader.value::<$type>(stringify!($key)); )+ )+
                Some(Settings { $( $part: $group { $( $key: $key?, )+ }, )+ })
            }
        }
    };
}

options! {
    /// Which model is served, and where files live.
    Files files "Model and folders" {
        model_name: Option<String> = "", Reload, "GGUF file name under `MODELS_DIR`, or `ORG/NAME[:QUANT]` of a repository in `HF_HUB_CACHE` (one of `MODEL_NAME`, `MODEL_PATH` or models in a configuration file is required).";
        model_path: Option<PathBuf> = "", Reload, "Full path to a GGUF file; wins over `MODEL_NAME`.";
        data_dir: PathBuf = "", Restart, "Folder for models, keys and logs. Detected: `/runpod-volume`, else `/workspace`, else `/data`, whichever is a folder first, else the user's data folder.";
        models_dir: PathBuf = "$DATA_DIR/models", Reload, "Folder of GGUF files.";
        hf_hub_cache: PathBuf = "$DATA_DIR/huggingface-cache/hub" alias "HUGGINGFACE_HUB_CACHE", Reload, "Hugging Face's cache, in which `ORG/NAME[:QUANT]` is looked for; nothing is downloaded. Detected: RunPod's `huggingface-cache/hub` in the data folder, else `$HF_HOME/hub`, else `huggingface/hub` in the user's cache folder, whichever is a folder first.";
        config_file: Option<PathBuf> = "", Restart, "Configuration file; `$DATA_DIR/llamagate.yaml` if it exists.";
    }

    /// Where the service listens.
    Listen listen "Listening" {
        host: std::net::IpAddr = "0.0.0.0", Restart, "Listen address of the gateway and the health port.";
        port: u16 = "8000" alias "GATEWAY_PORT", Restart, "Gateway port; `0` picks a free one and prints it. 80 behind RunPod's load balancer.";
        port_health: u16 = "8001", Restart, "Health port; the same as `PORT` means one listener for both, `0` picks a free one and prints it. The same as `PORT` behind RunPod's load balancer.";
        port_file: Option<PathBuf> = "", Restart, "File that receives the gateway's port once it listens.";
        health_check_path: String = "/ping", Restart, "Another path on the health port that answers like `/ping`, be it `/health`, `/livez` or `/readyz`; any other route is refused.";
    }

    /// Who may call, how often, from which pages.
    Access access "Access" {
        auth_enabled: bool = "true", Restart, "Ask for an API key on inference routes.";
        auth_keys_file: PathBuf = "$DATA_DIR/api_keys.txt", Restart, "The API-key file (see AUTHENTICATION.md).";
        max_requests_per_minute: NonZeroU32 = "100", Restart, "Requests a minute for each key whose own line sets no limit.";
        metrics_auth_enabled: bool = "false", Restart, "Ask for a key with the scope `metrics` on `/metrics`.";
        cors_origins: Origins = "", Restart, "Comma list of origins that browsers may call from; `*` = any; empty = off.";
    }

    /// How many requests run and wait.
    Queueing queue "Queue" {
        max_concurrent_requests: NonZeroUsize = "1", Reload, "Requests in flight per llama-server.";
        max_queue_size: ZeroIsOff<usize> = "0", Restart, "Requests that may wait per model; `0` = unlimited.";
        queue_timeout: ZeroIsOff<Seconds> = "0", Restart, "Longest wait in the queue; `0` = none of its own.";
        sse_heartbeat: ZeroIsOff<Seconds> = "0", Restart, "Interval of SSE comments to a streaming client that waits for a slot; `0` = off. Commits a 200 early.";
    }

    /// What a client may send, and how long anything may take.
    Limits limits "Limits and timeouts" {
        request_timeout: Seconds = "300s", Restart, "The whole request; for a stream, the time to its first byte.";
        stream_idle_timeout: Seconds = "120s", Restart, "Longest silence between two pieces of a stream.";
        backend_connect_timeout: Seconds = "10s", Restart, "Longest wait for a connection to llama-server.";
        client_header_timeout: Seconds = "30s", Restart, "Longest time for a client to send its request head.";
        client_body_timeout: Seconds = "60s", Restart, "Longest silence while a request body arrives.";
        max_request_body_size: ByteSize = "10485760", Restart, "Largest request body; more is refused with 413.";
        max_headers: NonZeroUsize = "64", Restart, "Most header lines of a request; more are refused with 431.";
        max_header_line_size: ByteSize = "8192", Restart, "Longest header line; a longer one is refused with 431.";
        max_request_line_size: ByteSize = "8192", Restart, "Longest request line; a longer one is refused with 414.";
        max_connections: NonZeroUsize = "1024", Restart, "Accepted connections, idle ones included; fewer where the limit on open files leaves no room for them.";
    }

    /// How llama-server is started and kept running.
    Engine engine "llama-server" {
        llama_server: Option<PathBuf> = "", Reload, "The llama-server binary; found on `PATH`, then beside the gateway, then `/app/llama-server`.";
        port_backend: u16 = "8080" alias "BACKEND_PORT", Reload, "First port tried for llama-server, always on 127.0.0.1.";
        ngl: GpuLayers = "99", Reload, "Layers on the GPU (`--n-gpu-layers`); `0` = CPU only, `auto` = llama-server decides.";
        ctx: Context = "16384", Reload, "Context length per slot, in tokens; llama-server's total is this times `PARALLEL`.";
        parallel: NonZeroUsize = "$MAX_CONCURRENT_REQUESTS", Reload, "llama-server slots.";
        threads: usize = "0", Reload, "CPU threads; `0` = llama-server's own choice, or as many as there are whole CPUs where a control group or an affinity mask allows fewer than the machine has.";
        extra_args: ExtraArgs = "", Reload, "More llama-server arguments, split as a shell does; those the gateway owns are refused.";
        load_timeout: Seconds = "15m", Reload, "Longest model load without a sign of progress.";
        restart_limit: u32 = "5", Reload, "Restarts within `RESTART_WINDOW` before llama-server counts as failed.";
        restart_window: Seconds = "10m", Reload, "The time in which restarts are counted.";
        hang_timeout: ZeroIsOff<Seconds> = "120s", Reload, "A llama-server that processes but makes no progress for so long is restarted; `0` = off.";
        idle_unload: ZeroIsOff<Seconds> = "0", Reload, "Stop an idle llama-server after so long; the next request starts it again; `0` = never.";
        prefetch: bool = "false", Reload, "Read the model file once before the start (network volumes).";
        mock_backend: bool = "false", Reload, "Start no llama-server; inference routes answer 503 `backend_unavailable`.";
    }

    /// Which worker serves a request, and which models are loaded.
    Routing routing "Many models and workers" {
        memory_budget: MemoryBudgetSetting = "auto", Restart, "What all loaded models together may use, such as `20GiB`: of the GPUs' memory where there is a GPU, else of the host's; `auto` = what is there.";
        max_wait_before_drain: Seconds = "30s", Restart, "How long a model that waits for memory leaves busy models alone; then one of them finishes what it serves and makes room.";
        routing_strategy: Strategy = "least-busy", Reload, "How one of a model's workers is chosen: `least-busy`, `round-robin`, `weighted-random`, `simple-shuffle`, `latency-based-routing`, `priority-failover` or `prefix-affinity`.";
        num_retries: u32 = "3", Restart, "Most further tries of a request that another worker may still serve.";
        retry_delay: Seconds = "1s", Restart, "Longest pause before such a try.";
        fallback_to_local: bool = "true", Reload, "Send requests to a model's own llama-server when none of its remote backends can serve.";
        health_check_interval: Seconds = "60s", Restart, "Time between two probes of a remote backend.";
        allowed_fails: NonZeroU32 = "3", Restart, "Failures in a row after which a remote backend is left alone for `COOLDOWN_TIME`.";
        cooldown_time: Seconds = "30s", Restart, "How long that is; then one request tries it.";
    }

    /// Start and end of the whole service.
    Service service "Service" {
        drain_timeout: Seconds = "30s", Restart, "How long requests in flight may finish after SIGTERM.";
        shutdown_timeout: ZeroIsOff<Seconds> = "0", Restart, "Stop the whole service after so long without a request; `0` = never.";
        runpod_mode: Option<RunpodMode> = "", Restart, "`queue`: also take jobs from the queue of a RunPod endpoint (see DEPLOYMENT.md); `http`: do not. Detected when not set: `queue` where RunPod sets `RUNPOD_WEBHOOK_GET_JOB`.";
        debug_shell: bool = "false", Restart, "Print the resolved settings (secrets masked) and wait; start nothing.";
    }

    /// Where logs go and how they look.
    Logs logs "Logs" {
        log_level: LogLevel = "info", Restart, "`error`, `warn`, `info`, `debug` or `trace`.";
        log_format: LogFormat = "text", Restart, "`text`, or `json` for one JSON object a line.";
        log_dir: PathBuf = "$DATA_DIR/logs", Restart, "Folder of all log folders.";
        log_name: String = "llama", Restart, "Folder of llama-server's own logs.";
        worker_type: Option<String> = "", Restart, "Suffix of that folder: `coder` makes it `llama-coder`.";
        log_keep: NonZeroUsize = "20", Restart, "Newest log files kept per folder.";
        instance_id: String = "", Restart, "Used in log file names; `RUNPOD_POD_ID`, else `CONTAINER_ID`, else the host name.";
    }
}

impl Engine {
    /// Tokens of all slots together; none if they are more than llama-server can count.
    pub fn total_context(&self) -> Option<u32> {
        let slots = u32::try_from(self.parallel.get()).ok()?;
        self.ctx.0.checked_mul(slots).filter(|total| *total <= i32::MAX as u32)
    }
}
