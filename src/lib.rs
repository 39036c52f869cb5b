//! llamagate: a gateway that launches, watches and restarts llama.cpp's `llama-server` and stands in front of it.
//!
//! Two journeys go through this house. **A request's journey** is in [`gateway`]: accept, limits, who is calling, may
//! they, wait in line, which worker, forward, the answer streams back, accounted. Read `gateway/pipeline.rs` first.
//! **A worker's journey** is in [`worker`]: start a process, is it well, its logs, restart or give up. They meet in
//! one place, the [`fleet`].
//!
//! | module | owns |
//! |---|---|
//! | [`app`] | the composition: what is started and stopped in which order |
//! | [`cli`] | subcommands and their exit codes |
//! | [`preflight`] | what must hold before anything is started: model, llama-server, keys |
//! | [`descriptors`] | the limit on open files, and who gets how many |
//! | [`settings`], [`platform`] | every name, default and bound; where we are |
//! | [`keys`] | the key file |
//! | [`models`] | model files |
//! | [`dial`] | connections to workers, TLS included |
//! | [`http_client`] | what the program asks for itself over HTTP |
//! | [`worker`] | llama-server processes, and backends that others run |
//! | [`fleet`] | who is ready |
//! | [`gateway`] | requests |
//! | [`runpod`] | jobs from the queue of a RunPod endpoint |
//! | [`operator`] | health, metrics, reload |
//! | [`refusal`] | every error that the gateway answers in its own name |
//! | [`rate_bucket`] | rate limits: how much of one is used |
//! | [`telemetry`] | metrics and logs |
//! | [`awake`] | time that counts only while this program runs |

pub mod app;
pub mod cli;
pub mod descriptors;
pub mod dial;
pub mod fleet;
#[cfg(feature = "test-support")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod http_client;
pub mod keys;
pub mod models;
pub mod operator;
pub mod pause_clock;
pub mod platform;
pub mod preflight;
pub mod rate_bucket;
pub mod refusal;
pub mod runpod;
pub mod settings;
pub mod telemetry;
pub mod worker;
