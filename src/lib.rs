//! llamagate: a gateway that launches, watches and restarts llama.cpp's `llama-server` and stands in front of it.
//!
//! The code has two halves. [`gateway`] handles requests: it accepts them, checks key and limits, queues them, leases a
//! worker, forwards the request, streams the response back and accounts for it. Read `gateway/pipeline.rs` first.
//! [`worker`] runs the backends: it starts a process, probes it, keeps its logs, and restarts it or gives it up. The
//! two halves meet only in [`fleet`], which knows the workers of each model and leases them to requests.
//!
//! | module | owns |
//! |---|---|
//! | [`amount`] | amounts of money |
//! | [`app`] | the composition root: what is started and stopped, and in which order |
//! | [`blocking_pool`] | work that would hold a serving thread |
//! | [`cli`] | subcommands and their exit codes |
//! | [`content_coding`] | content codings: what is packed with gzip, deflate or zstd is unpacked within bounds |
//! | [`cores`] | the serving threads, each with a runtime of its own |
//! | [`descriptors`] | the limit on open files, and how many of them client connections get |
//! | [`dial`] | connections to workers, over TCP and TLS |
//! | [`download`] | models that come over the network: the hub, ranges, parts, hashes |
//! | [`embedding_heads`] | the heads of BGE-M3: read from files, applied to the vectors of tokens |
//! | [`file_replacement`] | files that are replaced as a whole |
//! | [`fit`] | whether a model fits into memory, from its header alone |
//! | [`fleet`] | models, their workers, and the leases on workers that requests get |
//! | [`gateway`] | client connections and requests, from the socket to the access log |
//! | [`hex`] | bytes as hexadecimal digits |
//! | [`file_identity`] | which file lies under a name |
//! | [`file_lock`] | locks of files that several programs or machines may want to write |
//! | [`http_client`] | the HTTP client for the program's own requests, such as probes |
//! | `import` | configurations of other programs, converted into ours |
//! | [`keys`] | the API key file: grammar, lookup, reload, edits by `keyctl` |
//! | [`ledger`] | what each key, person and model has used, and what administrators have done, in a file |
//! | [`models`] | model files: GGUF metadata, names, listing, memory estimate |
//! | [`operator`] | the operator's routes: health, readiness, metrics, reload |
//! | `os` | what the operating system tells and does in ways of its own |
//! | [`pause_clock`] | a clock that stands still while the program is paused |
//! | [`platform`] | detection of RunPod, Vast.ai and containers, and the defaults that follow |
//! | [`preflight`] | checks before the start: model files, programs, keys, file descriptors |
//! | [`rate_bucket`] | rate limit arithmetic: how much of a limit is used |
//! | [`refusal`] | every error response that the gateway itself produces |
//! | [`retry_after`] | when a busy server wants to be asked again |
//! | [`runpod`] | jobs from the queue of a RunPod endpoint |
//! | [`service_note`] | where a running service listens and which process it is, for commands on its machine |
//! | [`settings`] | every setting: name, default, bounds, and where its value comes from |
//! | [`shared_limits`] | limits of keys that replicas share through a Valkey or Redis server |
//! | [`sqlite_file`] | SQLite files: made, migrated, and told from those of other programs |
//! | [`telemetry`] | metrics, access log, program log and log files |
//! | [`tls`] | the certificate that clients see, and how it is followed |
//! | [`traces`] | the spans of requests, and their export to an OpenTelemetry collector |
//! | [`worker`] | llama-server processes and remote backends |
//! | `fuzzing` | the invariants that the fuzz targets and their tests check; built only with `test-support` |

pub mod amount;
pub mod app;
pub mod blocking_pool;
mod boxed;
pub mod cli;
pub mod content_coding;
pub mod cores;
pub mod descriptors;
pub mod dial;
pub mod dialect;
pub mod download;
pub mod embedding_heads;
pub mod file_identity;
pub mod file_lock;
pub mod file_replacement;
pub mod fit;
pub mod fleet;
#[cfg(feature = "test-support")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod hex;
pub mod http_client;
mod import;
pub mod keys;
pub mod ledger;
pub mod models;
pub mod operator;
mod os;
pub mod pause_clock;
pub mod platform;
pub mod preflight;
pub mod rate_bucket;
pub mod refusal;
pub mod retry_after;
pub mod runpod;
pub mod service_note;
pub mod settings;
pub mod shared_limits;
mod short_value;
pub mod sqlite_file;
pub mod telemetry;
pub mod tls;
pub mod traces;
pub mod worker;
