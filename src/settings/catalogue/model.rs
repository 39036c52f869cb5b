//! The resolved settings of models: one from the environment, or many from the configuration file.
//!
//! Owns the types that the rest of the program uses. `preflight.rs` checks whether the model files exist and are valid.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use crate::models::{ModelKind, id_of};
use crate::settings::options::Engine;
use crate::settings::values::{Secret, Strategy};

/// All models, in the order of the configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalogue {
    /// The models.
    pub models: Vec<ModelSettings>,
    /// By the name of a model or tier: the models or tiers that take over, in this order, if it cannot serve.
    pub fallbacks: BTreeMap<String, Vec<String>>,
}

/// One model that clients can request, and all workers that serve it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelSettings {
    /// The id that clients use; `None` for the model of `MODEL_NAME` or `MODEL_PATH`, whose id comes from its file.
    pub id: Option<String>,
    /// The kind of requests that it serves; `None` means the kind in the GGUF file, or `chat` without a GGUF file.
    pub kind: Option<ModelKind>,
    /// `light`, `medium`, `heavy`, `embedding`, `reranker` or any other word.
    pub tier: Option<String>,
    /// Other names that clients may use.
    pub aliases: Vec<String>,
    /// Whether lists of models omit it; clients can still request it.
    pub unlisted: bool,
    /// How a worker is chosen, if it differs from `ROUTING_STRATEGY`.
    pub strategy: Option<Strategy>,
    /// The changes to the JSON of its requests.
    pub rewrite: Rewrite,
    /// The workers that the gateway starts for it.
    pub local: Option<LocalSettings>,
    /// The remote backends that serve it.
    pub remotes: Vec<RemoteSettings>,
    /// Length of its vectors where a request names none. Not obeyed yet: `preflight.rs` warns of it.
    pub dimensions: Option<NonZeroU32>,
}

impl ModelSettings {
    /// Returns the id, or the id made of the file name; `None` if neither is known.
    pub fn known_id(&self) -> Option<String> {
        known_id(self.id.as_deref(), self.local.as_ref().map(|local| &local.start))
    }

    /// Returns whether a change from `self` to `other` needs new workers and new connections to remote backends.
    /// Running workers can take over changes of aliases, tier, rewrites, listing and strategy, and local ones also of
    /// preload, weight and priority.
    pub fn workers_differ(&self, other: &Self) -> bool {
        self.worker_settings() != other.worker_settings()
    }

    /// Returns the settings whose changes running workers cannot take over.
    fn worker_settings(&self) -> impl PartialEq {
        // No `..`: a new field does not compile until it is decided here whether it needs new workers.
        let Self { id, tier: _, aliases: _, unlisted: _, strategy: _, rewrite: _, kind, local, remotes, dimensions: _ } =
            self;
        let local = local.as_ref().map(|local| {
            let LocalSettings {
                start,
                engine,
                load_mode,
                slots,
                replicas,
                preload: _,
                pinned,
                memory,
                weight: _,
                priority: _,
            } = local;
            (start, engine, load_mode, slots, replicas, pinned, memory)
        });
        (id, kind, remotes, local)
    }
}

/// Returns `id`, or the id made of the file name in `start`.
pub(in crate::settings) fn known_id(id: Option<&str>, start: Option<&Start>) -> Option<String> {
    let from_file = || match start? {
        Start::Named(name) => Some(id_of(Path::new(name))),
        Start::File(path) => Some(id_of(path)),
        Start::Command { .. } => None,
    };
    id.map(str::to_owned).or_else(from_file)
}

/// The changes to the JSON of a request before it is sent to a worker.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rewrite {
    /// Names and JSON values of fields that are added if a request lacks them, such as `("temperature", "0.7")`.
    pub sampling: Vec<(String, String)>,
    /// Names of fields that are removed from requests.
    pub strip_params: Vec<String>,
}

/// Workers that the gateway starts, watches and stops.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalSettings {
    /// The program, and the model file.
    pub start: Start,
    /// The settings of the group "llama-server", resolved for this model.
    pub engine: Engine,
    /// How llama-server keeps the model file in memory.
    pub load_mode: LoadMode,
    /// Most requests in flight per replica.
    pub slots: usize,
    /// The number of processes that are started.
    pub replicas: u32,
    /// Whether it starts with the service; otherwise the first request starts it.
    pub preload: bool,
    /// Whether it is never evicted to free memory for another model.
    pub pinned: bool,
    /// Memory that each replica needs, in bytes, if the configuration sets it.
    pub memory: Option<NonZeroU64>,
    /// The weight for the strategy `weighted-random`.
    pub weight: f64,
    /// The priority for the strategy `priority-failover`; the lowest number comes first.
    pub priority: u32,
}

/// How llama-server keeps a model file in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadMode {
    /// Whether it maps the file; `None` leaves that to llama-server.
    pub mmap: Option<bool>,
    /// Whether the memory is locked, so that it is never swapped out.
    pub mlock: bool,
}

/// The program that is started for a local model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// llama-server, with the GGUF file of this name under `MODELS_DIR`.
    Named(String),
    /// llama-server, with this GGUF file.
    File(PathBuf),
    /// Any server that speaks OpenAI's API.
    Command {
        /// Program and arguments; `{port}` is replaced by the port on 127.0.0.1 that the program must listen on.
        argv: Vec<String>,
        /// The path that is probed; it answers 200 when the program can serve.
        health: String,
        /// The name of the model in requests to it, if it differs from the id.
        model: Option<String>,
    },
}

/// A backend that runs outside of the gateway and is reached by URL.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteSettings {
    /// `http://` or `https://`, host, port and the path below which the API's routes are, which is `/v1` on most servers.
    /// Has no slash at the end.
    pub api_base: String,
    /// The API key that is sent to it.
    pub api_key: Option<Secret>,
    /// The name of the model in requests to it, if it differs from the id.
    pub model: Option<String>,
    /// Most requests per minute.
    pub rpm: Option<NonZeroU32>,
    /// Most tokens per minute.
    pub tpm: Option<NonZeroU32>,
    /// Most requests in flight.
    pub slots: usize,
    /// The path that health probes request.
    pub health: String,
    /// The weight for the strategy `weighted-random`.
    pub weight: f64,
    /// The priority for the strategy `priority-failover`; the lowest number comes first.
    pub priority: u32,
}
