//! The types of settings: how each parses its text, and the error for an invalid text.
//!
//! An invalid value is always an error; no type falls back to a default or to "off".
//!
//! - `acme/`: settings about certificates of a CA
//! - `backend_api.rs`: the API that a remote backend speaks
//! - `clients/`: settings about clients
//! - `dimensions.rs`: the lengths of a model's vectors
//! - `extra_args.rs`: `EXTRA_ARGS` and `args`
//! - `hub.rs`: `HF_ENDPOINT`, `HF_TOKEN` and `DOWNLOAD_CONNECTIONS`
//! - `limits_store.rs`: the address of the store for shared limits
//! - `masking.rs`: arguments as they may be printed
//! - `model_stores.rs`: `MODEL_STORES`
//! - `name_pattern.rs`: model names with `*`
//! - `scalars.rs`: yes or no, numbers, durations, sizes, words
//! - `scores.rs`: what the scores of a reranker mean
//! - `strategy.rs`: `ROUTING_STRATEGY`
//! - `traces.rs`: OpenTelemetry's variables
//! - `usage.rs`: `USAGE_DB`, `USAGE_KEEP` and `PRICE_PER_HOUR`
//! - `value.rs`: the trait of these types, and the error of parsing

mod acme;
mod backend_api;
mod clients;
mod dimensions;
mod extra_args;
mod hub;
mod limits_store;
mod masking;
mod model_stores;
mod name_pattern;
mod scalars;
mod scores;
mod strategy;
mod traces;
mod usage;
mod value;

pub use acme::{AcmeBindingKey, AcmeContacts, AcmeDirectory, AcmeDomains, is_of_this_machine};
pub use backend_api::BackendApi;
pub use clients::{HostNames, Networks, Origins, ServiceKey};
pub use dimensions::Dimensions;
pub use extra_args::ExtraArgs;
pub(crate) use extra_args::{ArgumentsPlace, takes_any_text};
pub use hub::{DownloadConnections, HubEndpoint, HubToken};
pub use limits_store::LimitsStoreAddress;
pub use masking::masked_arguments;
pub(crate) use masking::{dashed, is_secret, looks_like_an_option};
pub use model_stores::ModelStores;
pub use name_pattern::NamePattern;
pub(super) use scalars::Weight;
pub use scalars::{
    ByteSize, CacheMode, Context, GpuLayers, LONGEST_DURATION, LogFormat, LogLevel, MemoryBudgetSetting, RunpodMode,
    Seconds, Secret, ServeModelsDir, Zero, ZeroIsOff,
};
pub use scores::ScoreSetting;
pub use strategy::Strategy;
pub use traces::{
    CollectorCompression, CollectorHeaders, CollectorProtocol, CollectorUrl, Milliseconds, SampledShare,
    ServiceAttributes, TraceExporter, TraceSampler,
};
pub use usage::{HourlyPrice, KeptTime, UsageFile};
pub use value::{Rejected, Value};
