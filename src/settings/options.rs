//! The one table of settings: name, type, default, how a change takes effect, and meaning.
//!
//! A new setting is one row here. From the row come the environment variable (the name in capitals), the flag
//! (the name in kebab case), the key in the configuration file (the name itself), the typed field, `--help`,
//! `llamagate check`, what a reload reports about a changed value, and `docs/CONFIGURATION.md`. The types in `values/`
//! parse the texts of values; `resolve.rs` decides which source wins.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use super::reader::Reader;
use super::values::{
    AcmeBindingKey, AcmeContacts, AcmeDirectory, AcmeDomains, ByteSize, CacheMode, CollectorCompression,
    CollectorHeaders, CollectorProtocol, CollectorUrl, Context, DownloadConnections, ExtraArgs, GpuLayers, HostNames,
    HourlyPrice, HubEndpoint, HubToken, KeptTime, LimitsStoreAddress, LogFormat, LogLevel, MemoryBudgetSetting,
    Milliseconds, ModelStores, Networks, Origins, RunpodMode, SampledShare, Seconds, ServeModelsDir, ServiceAttributes,
    ServiceKey, Strategy, TraceExporter, TraceSampler, UsageFile, Value, ZeroIsOff,
};
use crate::models::{ModelPlaces, PlaceKind};

/// The name of the file of answers in `DATA_DIR`.
const CACHE_FILE: &str = "cache.db";

/// The default of `OTEL_SERVICE_NAME`.
pub const DEFAULT_SERVICE_NAME: &str = "llamagate";

/// How a changed value of a setting takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// After a reload.
    Reload,
    /// After a restart of the service.
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

/// The sources that may set a setting. An environment variable always may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// Flag, variable and configuration file.
    All,
    /// Not the configuration file, because the setting is needed before that is read.
    NoFile,
    /// Only the variable: other users of the machine can read the arguments of a process, and the setting is a secret.
    Variable,
}

/// One row of the table of settings.
#[derive(Debug, Clone, Copy)]
pub struct OptionRow {
    /// The name in lower case, as in the configuration file.
    pub key: &'static str,
    /// The default as text; `$OTHER` stands for the resolved value of another setting. Empty: no default.
    pub default: &'static str,
    /// The sources that may set it.
    pub sources: Sources,
    /// How a changed value takes effect.
    pub change: Change,
    /// What the setting does, in one or two sentences. The text of `--help` and of `docs/CONFIGURATION.md`.
    pub doc: &'static str,
    /// The heading of its group in `docs/CONFIGURATION.md`.
    pub group: &'static str,
    /// Whether it is a yes-or-no setting, whose flag may be given without a value.
    pub is_bool: bool,
    /// Returns the text of this setting with secrets replaced, for printing.
    pub masked: fn(&str) -> String,
}

impl OptionRow {
    /// Returns the name of the environment variable: `max_queue_size` is `MAX_QUEUE_SIZE`.
    pub fn variable(&self) -> String {
        self.key.to_ascii_uppercase()
    }

    /// Returns the flag without its leading dashes: `max_queue_size` is `max-queue-size`.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }
}

/// Returns the row of a lower-case key.
pub fn row(key: &str) -> Option<&'static OptionRow> {
    OPTIONS.iter().find(|row| row.key == key)
}

/// Returns whether a type written in the table is `bool`.
const fn is_bool(type_name: &str) -> bool {
    matches!(type_name.as_bytes(), b"bool")
}

macro_rules! sources {
    () => {
        Sources::All
    };
    ($sources:ident) => {
        Sources::$sources
    };
}

macro_rules! options {
    ($(
        $(#[doc = $group_doc:literal])+
        $group:ident $part:ident $title:literal {
            $( $key:ident: $type:ty = $default:literal $(from $sources:ident)?, $change:ident, $doc:literal; )+
        }
    )+) => {
        $(
            $(#[doc = $group_doc])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $group { $( #[doc = $doc] pub $key: $type, )+ }
        )+

        /// Every setting, resolved and typed, in one struct per group.
        #[derive(Debug, Clone, PartialEq)]
        pub struct Settings {
            $( $(#[doc = $group_doc])+ pub $part: $group, )+
        }

        /// The table, in the order of the documentation. A default may only refer to rows above its own.
        pub const OPTIONS: &[OptionRow] = &[ $( $( OptionRow {
            key: stringify!($key),
            default: $default,
            sources: sources!($($sources)?),
            change: Change::$change,
            doc: $doc,
            group: $title,
            is_bool: is_bool(stringify!($type)),
            masked: <$type as Value>::masked,
        }, )+ )+ ];

        impl Settings {
            /// Returns the settings, or `None` after at least one problem was recorded. Parses every value before it
            /// returns, so that all problems are reported together.
            pub(super) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
                // All `let` lines run before the first `?` below.
                $( $( let $key = reader.value::<$type>(stringify!($key)); )+ )+
                Some(Settings { $( $part: $group { $( $key: $key?, )+ }, )+ })
            }
        }
    };
}

options! {
    /// Which model is served, and where files live.
    Files files "Model and folders" {
        model_name: Option<String> = "", Reload, "GGUF file name under `MODELS_DIR`, or a model of the hub such as `ORG/NAME[:QUANT]`, which is downloaded if it is not in `HF_HUB_CACHE` (see DOWNLOADS.md). Without `MODEL_NAME`, `MODEL_PATH` and models in a configuration file, every model below `MODELS_DIR` is served.";
        model_path: Option<PathBuf> = "", Reload, "Full path to a GGUF file; takes precedence over `MODEL_NAME`.";
        data_dir: PathBuf = "", Restart, "Folder for models, keys and logs. Detected: the first folder that exists of `/runpod-volume`, `/workspace` and `/data`, else the user's data folder.";
        models_dir: PathBuf = "$DATA_DIR/models", Reload, "Folder of GGUF files.";
        serve_models_dir: ServeModelsDir = "auto", Reload, "`auto`: serve every model below `MODELS_DIR` under the name of its file if no model is named otherwise; `true`: also beside the models that are named; `false`: never. The same goes for the places of `MODEL_STORES`.";
        hf_hub_cache: PathBuf = "$DATA_DIR/huggingface-cache/hub", Reload, "Hugging Face cache in which `ORG/NAME[:QUANT]` is looked up, and into which models are downloaded. Detected: the first folder that exists of RunPod's `huggingface-cache/hub` in the data folder, `$HF_HOME/hub`, and `huggingface/hub` in the user's cache folder.";
        model_stores: ModelStores = "auto", Reload, "Places besides `MODELS_DIR` whose models are listed, and served where `SERVE_MODELS_DIR` serves it: `auto` = each of Hugging Face's cache, Ollama's store and LM Studio's folder that is there; `none`; or a comma list of `hub`, `ollama` and `lmstudio`. They are only read.";
        ollama_models: Option<PathBuf> = "", Reload, "Ollama's store. Detected: the first folder that exists of `.ollama/models` in the user's home folder and `/usr/share/ollama/.ollama/models`.";
        lm_studio_models: Option<PathBuf> = "", Reload, "LM Studio's folder of models. Detected: the first folder that exists of `models` in LM Studio's home folder, which `.lmstudio-home-pointer` in the user's home folder names, `.lmstudio/models` and `.cache/lm-studio/models` there.";
        env_file: Option<PathBuf> = "" from NoFile, Restart, "File of variables in dotenv form (see .env.example), read once at the start. A variable that the environment sets keeps its value.";
        config_file: Option<PathBuf> = "" from NoFile, Restart, "Configuration file; `$DATA_DIR/llamagate.yaml` if it exists.";
    }

    /// How models come over the network.
    Downloads downloads "Downloads" {
        hf_endpoint: HubEndpoint = "https://huggingface.co", Reload, "Address of the hub that models are downloaded from, or of a mirror of it.";
        hf_token: Option<HubToken> = "" from Variable, Reload, "Token of the hub, for private and gated repositories. It is sent to `HF_ENDPOINT` alone.";
        hf_token_path: Option<PathBuf> = "", Reload, "File that holds the token if `HF_TOKEN` is not set. Detected: where the hub's own tools keep it.";
        hf_hub_offline: bool = "false", Reload, "`true`: never ask the hub; only what is on the disk is used.";
        download_connections: DownloadConnections = "4", Reload, "Connections over which one file is downloaded.";
        download_retries: u32 = "20", Reload, "Tries in a row of each connection that may bring nothing before a download is given up; any progress begins the count again.";
        download_max_rate: ZeroIsOff<ByteSize> = "0", Reload, "Most bytes a second that downloads take; `0` = as many as come.";
    }

    /// Where the service listens.
    Listen listen "Listening" {
        host: std::net::IpAddr = "0.0.0.0", Restart, "Listen address of the gateway and the health port.";
        port: u16 = "8000", Restart, "Gateway port; `0` picks a free port and prints it. Behind RunPod's load balancer the default is 80.";
        port_health: u16 = "8001", Restart, "Health port; if it equals `PORT`, one listener serves both, and `0` picks a free port and prints it. Behind RunPod's load balancer the default is `PORT`.";
        port_file: Option<PathBuf> = "", Restart, "File to which the gateway's port is written once it listens; its folder is made if it is missing.";
        health_check_path: String = "/ping", Restart, "Additional path on the health port that answers like `/ping`. `/health`, `/livez` and `/readyz` are allowed; any other route of the gateway is refused.";
    }

    /// TLS on the gateway port.
    Tls tls "TLS" {
        tls_cert: Option<PathBuf> = "", Restart, "File of the certificate and its chain in PEM, for HTTPS on the gateway port (see TLS.md). It and the other files of TLS are looked at every 5 seconds; what cannot be used changes nothing.";
        tls_key: Option<PathBuf> = "", Restart, "File of the private key of `TLS_CERT` in PEM, without a password: PKCS#8, PKCS#1 or SEC1.";
        tls_self_signed: bool = "false", Restart, "Make a certificate in place of `TLS_CERT` and `TLS_KEY`, keep it in `$DATA_DIR/tls`, and print its fingerprint at the start. It is for `HOST`, the public address that the platform tells, `localhost` and `UI_HOSTS`.";
        tls_acme_domains: AcmeDomains = "", Reload, "Comma-separated list of DNS names such as `llm.example.org`, for which a certificate is got from a CA by ACME, kept in `$DATA_DIR/tls/acme`, and renewed (see TLS.md). The CA must reach `PORT` as port 443 of each name. The first name takes effect at the next start, and so does the removal of the last.";
        tls_acme_accept_terms: bool = "false", Restart, "You have read the terms of service of the CA and accept them. Without it nothing is ordered, and the start fails.";
        tls_acme_directory: AcmeDirectory = "https://acme-v02.api.letsencrypt.org/directory", Restart, "Address of the CA's directory; `http` only on this machine.";
        tls_acme_contact: AcmeContacts = "", Restart, "Comma-separated list of mail addresses that the CA may write to. It is told of a change with the next order.";
        tls_acme_ca: Option<PathBuf> = "", Restart, "File of certificate authorities in PEM that the address of `TLS_ACME_DIRECTORY` is trusted by, for a private CA; else those of this machine.";
        tls_acme_eab_kid: Option<String> = "", Restart, "Name of the key that the CA gave for its account (external account binding), if it asks for one.";
        tls_acme_eab_hmac_key: Option<AcmeBindingKey> = "" from Variable, Restart, "That key, in Base64 for URLs. It is used once, to open the account.";
        tls_acme_retry: Seconds = "5m", Restart, "Wait after an order that brought no certificate; twice as long after each further one, up to 6 hours, and longer if the CA asks for it.";
        tls_client_ca: Option<PathBuf> = "", Restart, "File of certificate authorities in PEM: clients must have a certificate of one of them (mTLS), besides their key.";
        tls_health: bool = "false", Restart, "Speak TLS on the health port too. With `PORT_HEALTH` = `PORT` both do.";
    }

    /// Which clients may call, how often, and from which web pages.
    Access access "Access" {
        auth_enabled: bool = "true", Restart, "Require an API key on inference routes.";
        auth_keys_file: PathBuf = "$DATA_DIR/api_keys.txt", Restart, "The API-key file (see AUTHENTICATION.md).";
        llamagate_api_key: Option<ServiceKey> = "" from Variable, Restart, "One API key without a file, with the key_id `env` and the scope `inference`; beside a key file it is one more key. 8 to 256 visible ASCII characters; placeholders such as `change-me-please` are refused.";
        max_requests_per_minute: NonZeroU32 = "100", Restart, "Requests per minute for each key whose line in the key file sets no limit.";
        limits_store: Option<LimitsStoreAddress> = "" from Variable, Restart, "Address of a Valkey or Redis server through which several replicas share the limits and budgets of keys, such as `valkey://user:password@host:6379/0`; `valkeys://` for TLS (see LIMITS.md); empty = each replica has its own.";
        limits_store_timeout: Milliseconds = "5", Restart, "Longest wait of a request for that server, in milliseconds, at most 2000; then the limits of this replica alone count for it.";
        metrics_auth_enabled: bool = "false", Restart, "Require a key with the scope `metrics` on `/metrics`.";
        cors_origins: Origins = "", Restart, "Comma-separated list of origins that browsers may call from; `*` = any; empty = off.";
        max_people: NonZeroUsize = "10000", Restart, "People behind keys with `trust_user_headers=true` that are remembered; further ones are booked together as `other`.";
        trusted_proxies: Networks = "", Restart, "Comma-separated list of addresses and networks, such as `10.0.0.0/8`, of the proxies in front. Their `X-Forwarded-For` or `Forwarded` names the client, for the limit of wrong keys and the access log.";
    }

    /// The page for browsers.
    Ui ui "Page for browsers" {
        ui_enabled: bool = "true", Restart, "Serve the page at `/ui/` (see PAGE.md), and lead browsers there from `/`.";
        ui_hosts: HostNames = "", Restart, "Comma-separated list of further names under which this machine is reached, such as `gpu.example.org`. With `AUTH_ENABLED=false`, the page and what is for operators are served only under an address, `localhost`, a private name, and these: a web page elsewhere may have chosen any other name (DNS rebinding).";
    }

    /// How many requests run at once, and how many wait.
    Queueing queue "Queue" {
        max_concurrent_requests: NonZeroUsize = "1", Reload, "Requests in flight per llama-server.";
        max_queue_size: ZeroIsOff<usize> = "0", Restart, "Requests that may wait per model; `0` = unlimited.";
        queue_timeout: ZeroIsOff<Seconds> = "0", Restart, "Longest wait in the queue; `0` = no separate limit.";
        max_priority_wait: Seconds = "60", Restart, "After this time in the queue a request counts as one of high priority.";
        sse_heartbeat: ZeroIsOff<Seconds> = "0", Restart, "Interval of SSE comments to a streaming client that waits for a slot; `0` = off. The first comment commits the response to status 200.";
    }

    /// How much a client may send, and how long each step may take.
    Limits limits "Limits and timeouts" {
        request_timeout: Seconds = "300s", Restart, "Longest time for a whole request; for a stream, for its first byte.";
        stream_idle_timeout: Seconds = "120s", Restart, "Longest silence between two chunks of a stream.";
        backend_connect_timeout: Seconds = "10s", Restart, "Longest wait for a connection to llama-server.";
        client_header_timeout: Seconds = "30s", Restart, "Longest time for a client to send its request head, from the opening of the connection or from the first byte of a later head.";
        client_idle_timeout: Seconds = "75s", Restart, "Longest time that a connection is kept open between two requests; longer than proxies and load balancers in front keep theirs (usually 60 s).";
        client_body_timeout: Seconds = "60s", Restart, "Longest silence while a request body arrives.";
        max_request_body_size: ByteSize = "10485760", Restart, "Largest request body; a larger one is refused with 413.";
        max_rerank_documents: NonZeroUsize = "1000", Restart, "Most documents of a request for scores; a request with more is refused with 400.";
        strict_parameters: bool = "true", Restart, "Refuse parameters such as `temperature` with 400 if they are not of the type or in the range that the API gives them (see PARAMETERS.md); `false` passes them on as they are.";
        max_headers: NonZeroUsize = "64", Restart, "Most header lines per request; a request with more is refused with 431.";
        max_header_line_size: ByteSize = "8192", Restart, "Longest header line; a longer one is refused with 431.";
        max_request_line_size: ByteSize = "8192", Restart, "Longest request line; a longer one is refused with 414.";
        max_connections: NonZeroUsize = "1024", Restart, "Most accepted connections, including idle ones; lowered if the limit on open files does not allow that many.";
    }

    /// Which answers are kept for the same request of later.
    Caching cache "Cache of answers" {
        cache: CacheMode = "off", Restart, "Keep answers and give them again to equal requests (see CACHE.md): `off`; `safe` = embeddings, scores, tokens, and text with temperature 0 or a seed; `all` = other text too.";
        cache_max_bytes: ByteSize = "256MiB", Restart, "Most bytes of the answers that are kept; those that were used longest ago leave first.";
        cache_max_size: ZeroIsOff<usize> = "0", Restart, "Most answers that are kept; `0` = as many as `CACHE_MAX_BYTES` holds.";
        cache_ttl: Seconds = "1h", Restart, "How long an answer is kept.";
        cache_persist_to_disk: bool = "false", Restart, "Keep answers in `$DATA_DIR/cache.db` too, so that a restart finds them again.";
        cache_shared: bool = "false", Restart, "Give an answer to other keys too than the one that it was made for.";
    }

    /// How llama-server is started and kept running.
    Engine engine "llama-server" {
        llama_server: Option<PathBuf> = "", Reload, "Path of the llama-server binary. Detected: on `PATH`, then beside the gateway, then `/app/llama-server`.";
        rpc_server: Option<PathBuf> = "", Restart, "Path of llama.cpp's rpc-server, for `llamagate rpc` (see RPC.md). Detected: `rpc-server` or `ggml-rpc-server` on `PATH`, then beside llama-server, beside the gateway, in `/app`, and where Debian's package `llama.cpp-tools-extra` puts it.";
        port_backend: u16 = "8080", Reload, "First port tried for llama-server, always on 127.0.0.1.";
        ngl: GpuLayers = "99", Reload, "Layers on the GPU (`--n-gpu-layers`); `0` = CPU only, `all` = all of them, `auto` = llama-server decides.";
        ctx: Context = "16384", Reload, "Context length per slot, in tokens; llama-server's total is this times `PARALLEL`.";
        parallel: NonZeroUsize = "$MAX_CONCURRENT_REQUESTS", Reload, "llama-server slots.";
        threads: usize = "0", Reload, "CPU threads; `0` = llama-server's own choice, or the number of whole CPUs if a control group or an affinity mask allows fewer CPUs than the machine has.";
        batch: usize = "0", Reload, "Tokens that llama-server takes in one step (`-b`); `0` = llama-server's own choice. An embedding or rerank model gets at least its context, because a longer input would be refused.";
        extra_args: ExtraArgs = "", Reload, "Additional llama-server arguments, split as a shell does; those that the gateway sets itself, and those that this llama-server does not know, are refused (see MODELS.md).";
        load_timeout: Seconds = "15m", Reload, "Longest model load without a sign of progress.";
        restart_limit: u32 = "5", Reload, "Restarts within `RESTART_WINDOW` before llama-server counts as failed.";
        restart_window: Seconds = "10m", Reload, "Time window in which restarts are counted.";
        hang_timeout: ZeroIsOff<Seconds> = "120s", Reload, "Restart a llama-server that processes requests but makes no progress for this long; `0` = off.";
        idle_unload: ZeroIsOff<Seconds> = "0", Reload, "Stop a llama-server that has been idle for this long; the next request starts it again; `0` = never.";
        prefetch: bool = "false", Reload, "Read the model file once before llama-server starts (for network volumes).";
        mock_backend: bool = "false", Reload, "Start no llama-server; inference routes answer 503 `backend_unavailable`.";
    }

    /// Which worker serves a request, and which models are loaded.
    Routing routing "Many models and workers" {
        memory_budget: MemoryBudgetSetting = "auto", Restart, "Memory that all loaded models together may use, such as `20GiB`: GPU memory if there is a GPU, else host memory; `auto` = all available memory.";
        max_wait_before_drain: Seconds = "30s", Restart, "How long a model that waits for memory leaves busy models alone; after that, one of them finishes its requests and is unloaded.";
        routing_strategy: Strategy = "least-busy", Reload, "How one of a model's workers is chosen: `least-busy`, `round-robin`, `weighted-random`, `simple-shuffle`, `latency-based-routing`, `priority-failover` or `prefix-affinity`.";
        num_retries: u32 = "3", Restart, "Most retries of a request that another worker can still serve.";
        retry_delay: Seconds = "1s", Restart, "Longest pause before a retry.";
        fallback_to_local: bool = "true", Reload, "Send requests to a model's own llama-server when none of its remote backends can serve, and those for a pool of `model_list` to the local models of its kind when none of the pool can.";
        wait_for_remotes: bool = "false", Reload, "Let requests wait in the queue while none of a model's remote backends answers, as they do while a model loads, and refuse none for that: for backends that are started because requests wait (see DEPLOYMENT.md).";
        list_aliases: bool = "false", Restart, "List the aliases of models as models of their own on `GET /v1/models`, for front ends that offer only ids.";
        ollama_api: bool = "true", Restart, "Serve Ollama's API (`/api/chat`, `/api/tags` and so on) beside the others.";
        health_check_interval: Seconds = "60s", Restart, "Time between two probes of a remote backend; 0 for none before a failure.";
        allowed_fails: NonZeroU32 = "3", Restart, "Consecutive failures after which a remote backend gets no requests for `COOLDOWN_TIME`.";
        cooldown_time: Seconds = "30s", Restart, "How long a remote backend gets no requests after `ALLOWED_FAILS` failures; then one request tests it.";
    }

    /// Start and shutdown of the whole service.
    Service service "Service" {
        drain_timeout: Seconds = "30s", Restart, "How long requests in flight may take to finish after SIGTERM.";
        shutdown_timeout: ZeroIsOff<Seconds> = "0", Restart, "Stop the whole service after this long without a request; `0` = never.";
        runpod_mode: Option<RunpodMode> = "", Restart, "`queue`: also take jobs from the queue of a RunPod endpoint (see DEPLOYMENT.md); `http`: take no jobs. Detected: `queue` if RunPod sets `RUNPOD_WEBHOOK_GET_JOB`.";
        debug_shell: bool = "false", Restart, "Print the resolved settings (secrets masked) and wait; start nothing.";
    }

    /// Where usage is recorded, and what it costs.
    Usage usage "Usage" {
        usage_db: UsageFile = "$DATA_DIR/usage.db", Restart, "SQLite file in which the usage of each key, person and model is recorded, and what administrators do (see USAGE.md); `off` = nowhere.";
        usage_keep: KeptTime = "400d", Restart, "How long usage is kept.";
        price_per_hour: HourlyPrice = "0", Restart, "What an hour of this machine costs, in any currency. A request costs its share of its worker's slots for the time that it held one; what is left is the cost of idling (see USAGE.md). A model may have a price of its own: `price_per_hour`.";
    }

    /// Whether spans of requests are sent to an OpenTelemetry collector.
    Traces traces "Traces" {
        otel_exporter_otlp_endpoint: Option<CollectorUrl> = "", Restart, "Address of an OpenTelemetry collector, such as `http://127.0.0.1:4318`, to which the spans of requests are sent (see TRACES.md); empty = nothing is traced.";
        otel_exporter_otlp_traces_endpoint: Option<CollectorUrl> = "", Restart, "The whole address for spans; empty = `/v1/traces` below `OTEL_EXPORTER_OTLP_ENDPOINT`.";
        otel_exporter_otlp_headers: Option<CollectorHeaders> = "" from Variable, Restart, "Headers that each export carries, such as `api-key=SECRET`; values are percent-encoded.";
        otel_exporter_otlp_traces_headers: Option<CollectorHeaders> = "" from Variable, Restart, "The same for spans alone.";
        otel_exporter_otlp_protocol: CollectorProtocol = "http/protobuf", Restart, "Protocol of the collector; `http/protobuf` is the only one.";
        otel_exporter_otlp_traces_protocol: CollectorProtocol = "$OTEL_EXPORTER_OTLP_PROTOCOL", Restart, "The same for spans alone.";
        otel_exporter_otlp_compression: CollectorCompression = "none", Restart, "`none`, or `gzip`.";
        otel_exporter_otlp_traces_compression: CollectorCompression = "$OTEL_EXPORTER_OTLP_COMPRESSION", Restart, "The same for spans alone.";
        otel_exporter_otlp_timeout: Milliseconds = "10000", Restart, "Longest time for one export with its repetitions, in milliseconds.";
        otel_exporter_otlp_traces_timeout: Milliseconds = "$OTEL_EXPORTER_OTLP_TIMEOUT", Restart, "The same for spans alone.";
        otel_service_name: String = "llamagate", Restart, "Name of this service in its traces.";
        otel_resource_attributes: ServiceAttributes = "", Restart, "Attributes of this service in its traces, such as `deployment.environment.name=test`.";
        otel_traces_sampler: TraceSampler = "parentbased_always_on", Restart, "Which requests are traced: `always_on`, `always_off`, `traceidratio` (the share of `OTEL_TRACES_SAMPLER_ARG`), or one of them with `parentbased_` before it: the caller decides, and this rule counts where it says nothing.";
        otel_traces_sampler_arg: SampledShare = "1", Restart, "Share of requests that are traced, from 0 to 1.";
        otel_traces_exporter: TraceExporter = "otlp", Restart, "`otlp`, or `none` to send no spans.";
        otel_sdk_disabled: bool = "false", Restart, "`true`: as if no collector were set.";
        otel_bsp_schedule_delay: Milliseconds = "5000", Restart, "Longest wait of a span for its export, in milliseconds.";
        otel_bsp_max_queue_size: NonZeroUsize = "2048", Restart, "Spans that may wait for their export; further ones are dropped and counted.";
        otel_bsp_max_export_batch_size: NonZeroUsize = "512", Restart, "Most spans of one export.";
    }

    /// Where logs are written, and in which format.
    Logs logs "Logs" {
        log_level: LogLevel = "info", Restart, "`error`, `warn`, `info`, `debug` or `trace`.";
        log_format: LogFormat = "text", Restart, "`text`, or `json` for one JSON object per line.";
        log_people: bool = "false", Restart, "Write the names of people behind keys to the access log; a hash of each name if not.";
        log_to_file: bool = "true", Restart, "Write log files. `false`: no folder is made and no file is written; the program's own log is on standard error only.";
        log_file: Option<PathBuf> = "", Restart, "File that the program's own log is written to as well; one JSON object per line if its name ends in `.jsonl`.";
        log_dir: PathBuf = "$DATA_DIR/logs", Restart, "Folder that contains all log folders.";
        log_name: String = "llama", Restart, "Name of the folder of llama-server's own logs.";
        worker_type: Option<String> = "", Restart, "Suffix of the folder name `LOG_NAME`: `coder` makes it `llama-coder`.";
        log_keep: NonZeroUsize = "20", Restart, "Number of newest log files kept per folder, parts included; for `LOG_FILE`, of its parts.";
        log_max_size: ZeroIsOff<ByteSize> = "100MiB", Restart, "Size at which a log file is continued in the next numbered part; `0` = never.";
        instance_id: String = "", Restart, "Identifier in log file names. Detected: `RUNPOD_POD_ID`, else `CONTAINER_ID`, else the host name.";
    }
}

impl Engine {
    /// Returns the context of all slots together, in tokens, or `None` if llama-server cannot count that many.
    /// llama-server keeps the total in a signed 32-bit integer.
    pub fn total_context(&self) -> Option<u32> {
        let slots = u32::try_from(self.parallel.get()).ok()?;
        self.ctx.0.checked_mul(slots).filter(|total| *total <= i32::MAX as u32)
    }
}

impl Settings {
    /// Whether the gateway port speaks TLS.
    pub fn has_tls(&self) -> bool {
        self.tls.tls_cert.is_some() || self.tls.tls_self_signed || !self.tls.tls_acme_domains.is_empty()
    }

    /// Whether what answers on the health port speaks TLS.
    pub fn has_health_tls(&self) -> bool {
        self.has_tls() && (self.tls.tls_health || self.has_shared_port())
    }

    /// Whether the gateway port is the health port too.
    pub fn has_shared_port(&self) -> bool {
        self.listen.port == self.listen.port_health && self.listen.port != 0
    }

    /// Returns the file in which answers outlive the service; `None` if they do not.
    pub fn cache_file(&self) -> Option<PathBuf> {
        self.cache.cache_persist_to_disk.then(|| self.files.data_dir.join(CACHE_FILE))
    }

    /// Returns the folders in which models are looked up by name.
    pub fn model_places(&self) -> ModelPlaces {
        let files = &self.files;
        let of_store = |kind: PlaceKind, folder: &Option<PathBuf>| {
            folder.clone().filter(|folder| files.model_stores.has(kind) && folder.is_dir())
        };
        ModelPlaces {
            models_dir: files.models_dir.clone(),
            hub_cache: files.hf_hub_cache.clone(),
            adopts_hub: files.model_stores.has(PlaceKind::Hub),
            ollama: of_store(PlaceKind::Ollama, &files.ollama_models),
            lm_studio: of_store(PlaceKind::LmStudio, &files.lm_studio_models),
            foreign: files.ollama_models.iter().chain(&files.lm_studio_models).cloned().collect(),
        }
    }
}
