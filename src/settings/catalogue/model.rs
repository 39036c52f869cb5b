//! The models that are served, as the configuration describes them: one from the environment, or many from the file.
//!
//! Owns the types that the rest of the program takes. Where their values come from is `file.rs`'s and the environment's
//! business; whether the files exist and are any good is decided in `preflight.rs`.

use crate::models::{ModelKind, id_of};
use crate::settings::options::Engine;
use crate::settings::values::{Secret, Strategy};
use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

/// Every model, in the order in which they are listed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalogue {
    /// The models.
    pub models: Vec<ModelSettings>,
    /// Which models or tiers take over, in this order, when the model or tier of this name cannot serve.
    pub fallbacks: BTreeMap<String, Vec<String>>,
}

/// One model that clients can ask for, and all who serve it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ModelSettings {
    /// The id that clients use; none for the one from `MODEL_NAME` or `MODEL_PATH`, whose file gives it.
    pub id: Option<String>,
    /// What it is for; none means that the GGUF file says it, and `chat` where there is none.
    pub kind: Option<ModelKind>,
    /// `light`, `medium`, `heavy`, `embedding`, `reranker` or any other word.
    pub tier: Option<String>,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Whether lists leave it out; it can be asked for all the same.
    pub unlisted: bool,
    /// How a worker is chosen, where that differs from `ROUTING_STRATEGY`.
    pub strategy: Option<Strategy>,
    /// What is changed in requests for it.
    pub rewrite: Rewrite,
    /// What the gateway starts for it.
    pub local: Option<LocalSettings>,
    /// Who else serves it.
    pub remotes: Vec<RemoteSettings>,
}

impl ModelSettings {
    /// The id, or what the file's name makes of it; none where nothing is known of either.
    pub fn known_id(&self) -> Option<String> {
        known_id(self.id.as_deref(), self.local.as_ref().map(|local| &local.start))
    }

    /// Whether a change from `self` to `other` means that workers have to be started anew, and remote backends met anew.
    /// Names, tier, rewrites, lists and strategy can change beneath running workers; so can, of local ones, preloading,
    /// weight and priority.
    pub fn workers_differ(&self, other: &Self) -> bool {
        self.of_workers() != other.of_workers()
    }

    /// Returns the settings that running workers cannot take over.
    fn of_workers(&self) -> impl PartialEq {
        // Without `..`, so that it is decided for a new setting too.
        let Self { id, tier: _, aliases: _, unlisted: _, strategy: _, rewrite: _, kind, local, remotes } = self;
        let local = local.as_ref().map(|local| {
            let LocalSettings { start, engine, slots, replicas, preload: _, pinned, memory, weight: _, priority: _ } =
                local;
            (start, engine, slots, replicas, pinned, memory)
        });
        (id, kind, remotes, local)
    }
}

/// The id, or what the name of the file that is started makes of it.
pub(in crate::settings) fn known_id(id: Option<&str>, start: Option<&Start>) -> Option<String> {
    let of_file = || match start? {
        Start::Named(name) => Some(id_of(Path::new(name))),
        Start::File(path) => Some(id_of(path)),
        Start::Command { .. } => None,
    };
    id.map(str::to_owned).or_else(of_file)
}

/// What is changed in the JSON of a request before it goes to a worker.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rewrite {
    /// Names and JSON values of fields for requests that do not have them, such as `("temperature", "0.7")`.
    pub sampling: Vec<(String, String)>,
    /// Names of fields that are removed.
    pub strip_params: Vec<String>,
}

/// Workers that the gateway starts, watches and stops.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalSettings {
    /// What is started.
    pub start: Start,
    /// How it runs: the settings of the group "llama-server", as they hold for this model.
    pub engine: Engine,
    /// Requests in flight per replica.
    pub slots: usize,
    /// How many are started.
    pub replicas: u32,
    /// Whether it starts with the service; else with the first request.
    pub preload: bool,
    /// Whether it is never stopped to make room for another.
    pub pinned: bool,
    /// Bytes that each replica needs, where the configuration says so.
    pub memory: Option<NonZeroU64>,
    /// For `weighted-random`.
    pub weight: f64,
    /// For `priority-failover`: the lowest comes first.
    pub priority: u32,
}

/// What is started for a local model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// llama-server, with the GGUF file of this name under `MODELS_DIR`.
    Named(String),
    /// llama-server, with this GGUF file.
    File(PathBuf),
    /// Any server that speaks OpenAI's API.
    Command {
        /// Program and arguments; `{port}` stands for the port on 127.0.0.1 that it is to listen on.
        argv: Vec<String>,
        /// The path that answers 200 when it can serve.
        health: String,
        /// The name that it knows the model by, where that differs from the id.
        model: Option<String>,
    },
}

/// A backend that somebody else runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteSettings {
    /// `http://` or `https://`, host, port and the path before `/v1`, without a slash at the end.
    pub api_base: String,
    /// The key that it asks for.
    pub api_key: Option<Secret>,
    /// The name that it knows the model by, where that differs.
    pub model: Option<String>,
    /// Requests a minute that may be sent to it.
    pub rpm: Option<NonZeroU32>,
    /// Tokens a minute that it may be asked for.
    pub tpm: Option<NonZeroU32>,
    /// Requests in flight.
    pub slots: usize,
    /// The path that is probed.
    pub health: String,
    /// For `weighted-random`.
    pub weight: f64,
    /// For `priority-failover`: the lowest comes first.
    pub priority: u32,
}
