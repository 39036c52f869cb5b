//! The resolved settings of models: one from the environment, or many from the configuration file.
//!
//! Owns the types that the rest of the program uses. `preflight` checks whether the model files exist and are valid.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use super::companions::CompanionSettings;
use super::pool::{PoolPlace, PoolRole};
use crate::models::{ModelKind, id_of, id_of_found, path_of_name};
use crate::settings::bounds::REMOTE_SLOTS;
use crate::settings::options::Engine;
use crate::settings::values::{BackendApi, Dimensions, HourlyPrice, ScoreSetting, Secret, Strategy};

/// The name that stands for every model in `fallbacks:`.
pub const EVERY_MODEL: &str = "*";

/// The tiers that have variables: prefix and name, in the order in which their models are listed.
pub(in crate::settings) const TIERS: &[(&str, &str)] = &[
    ("LIGHT", "light"),
    ("MEDIUM", "medium"),
    ("HEAVY", "heavy"),
    ("EMBEDDING", "embedding"),
    ("RERANKER", "reranker"),
];

/// Fields that only routes which generate text take. As defaults they are not added to other requests.
const GENERATION_FIELDS: &[&str] = &[
    "chat_template_kwargs",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "min_p",
    "n",
    "n_predict",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "repeat_penalty",
    "repetition_penalty",
    "response_format",
    "seed",
    "stop",
    "temperature",
    "tool_choice",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "verbosity",
];

/// All models, in the order of the configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Catalogue {
    /// The models.
    pub models: Vec<ModelSettings>,
    /// By the name of a model or tier: the models or tiers that take over, in this order, if it cannot serve.
    /// [`EVERY_MODEL`] stands for all that have no fallbacks of their own, and for unknown names.
    pub fallbacks: BTreeMap<String, Vec<String>>,
    /// By kind: the id or alias of the model that serves requests without a model's name.
    pub default_models: Vec<(ModelKind, String)>,
    /// The settings of each model that is found below `MODELS_DIR`; `None` if only the models above are served.
    pub shelf: Option<ModelSettings>,
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
    /// Other names that clients may use, and that no client is shown.
    pub hidden_aliases: Vec<String>,
    /// Whether the id is a pattern: the model then serves every name that matches it.
    pub is_wildcard: bool,
    /// The place among the models of its kind, if only entries of `model_list` describe it.
    pub pool: Option<PoolPlace>,
    /// Whether lists of models omit it; clients can still request it.
    pub unlisted: bool,
    /// What the scores of its reranker mean.
    pub scores: ScoreSetting,
    /// How a worker is chosen, if it differs from `ROUTING_STRATEGY`.
    pub strategy: Option<Strategy>,
    /// What an hour of a worker costs, if it differs from `PRICE_PER_HOUR`.
    pub price_per_hour: Option<HourlyPrice>,
    /// The changes to the JSON of its requests.
    pub rewrite: Rewrite,
    /// The workers that the gateway starts for it.
    pub local: Option<LocalSettings>,
    /// The remote backends that serve it.
    pub remotes: Vec<RemoteSettings>,
    /// The lengths of its vectors, if they are configured.
    pub dimensions: Option<Dimensions>,
    /// What is put before inputs by name, such as `query`; `None` means what is known of the model by its name.
    pub prompts: Option<Vec<(String, String)>>,
    /// What its reranker is asked to look for, in requests that do not say.
    pub instruction: Option<String>,
}

impl ModelSettings {
    /// Returns the id, or the id made of the file name; `None` if neither is known.
    pub fn known_id(&self) -> Option<String> {
        known_id(self.id.as_deref(), self.local.as_ref().map(|local| &local.start))
    }

    /// Returns what the model is in the pool of its kind; `None` if no pool can have it. A local model is the last resort
    /// if `FALLBACK_TO_LOCAL` is set.
    pub fn pool_role(&self, fallback_to_local: bool) -> Option<PoolRole> {
        match self.pool {
            Some(_) => Some(PoolRole::Member),
            None => (fallback_to_local && self.local.is_some()).then_some(PoolRole::LastResort),
        }
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
        let Self {
            id,
            tier: _,
            aliases: _,
            hidden_aliases: _,
            is_wildcard: _,
            pool: _,
            unlisted: _,
            scores: _,
            strategy: _,
            price_per_hour: _,
            rewrite: _,
            kind,
            local,
            remotes,
            dimensions: _,
            prompts: _,
            instruction: _,
        } = self;
        let local = local.as_ref().map(|local| {
            // The projector that is chosen counts, not how it is chosen: `preflight` compares it.
            let LocalSettings {
                start,
                projector: _,
                heads,
                companions,
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
            // Whether there are any: what is in the files is applied here, and not by the workers.
            (start, heads.is_some(), companions, engine, load_mode, slots, replicas, pinned, memory)
        });
        (id, kind, remotes, local)
    }
}

/// Returns `id`, or the id made of the file name in `start`.
pub(in crate::settings) fn known_id(id: Option<&str>, start: Option<&Start>) -> Option<String> {
    let from_file = || match start? {
        Start::Named(name) => Some(id_of_found(name, path_of_name(name))),
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

/// Returns whether only routes that generate text take a field of this name.
pub fn is_generation_field(name: &str) -> bool {
    GENERATION_FIELDS.contains(&name) || name.starts_with("guided_")
}

/// Workers that the gateway starts, watches and stops.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalSettings {
    /// The program, and the model file.
    pub start: Start,
    /// Which multimodal projector llama-server gets.
    pub projector: ProjectorSetting,
    /// The files of the heads for sparse and ColBERT vectors.
    pub heads: Option<HeadFiles>,
    /// What else goes with the model.
    pub companions: CompanionSettings,
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

/// `mmproj`: which multimodal projector llama-server gets with a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProjectorSetting {
    /// The one beside the model, if there is one.
    #[default]
    Auto,
    /// None.
    Never,
    /// This file: an absolute path, or a name in the model's folder or under `MODELS_DIR`.
    File(PathBuf),
}

/// `heads`: the safetensors files of a model's heads: absolute paths, or names in the model's folder or under `MODELS_DIR`.
/// At least one of them is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeadFiles {
    /// The head for sparse vectors.
    pub sparse: Option<PathBuf>,
    /// The head for ColBERT vectors.
    pub colbert: Option<PathBuf>,
}

impl ProjectorSetting {
    /// Returns what llama-server's own arguments say about the projector, such as `--no-mmproj`; `None` if they say
    /// nothing.
    pub fn of_arguments(arguments: &[String]) -> Option<Self> {
        let mut words = arguments.iter();
        let (mut file, mut other) = (None, None);
        while let Some(word) = words.next() {
            match word.replace('_', "-").as_str() {
                // The last one counts.
                "--mmproj" | "-mm" => file = words.next().map(|path| Self::File(path.into())),
                "--no-mmproj" | "--no-mmproj-auto" | "--mmproj-url" | "-mmu" => other = Some(Self::Never),
                _ => {}
            }
        }
        file.or(other)
    }
}

/// A backend that runs outside of the gateway and is reached by URL.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteSettings {
    /// `http://` or `https://`, host, port and the path below which the API's routes are, which is `/v1` on most servers.
    /// Has no slash at the end.
    pub api_base: String,
    /// The API that it speaks.
    pub api: BackendApi,
    /// The API key that is sent to it.
    pub api_key: Option<Secret>,
    /// Names and values of headers that are set in each request to it. The names are in lower case.
    pub headers: Vec<(String, Secret)>,
    /// Names and JSON values of fields that are added if a request lacks them. They come before those of the model.
    pub fields: Vec<(String, String)>,
    /// The name of the model in requests to it, if it differs from the id. For a model whose id is a pattern, its `*`
    /// stand for the same text as those of the id.
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

impl RemoteSettings {
    /// Creates the settings of a backend with OpenAI's API at this address, with defaults for all others.
    pub fn at(api_base: String) -> Self {
        Self::speaking(BackendApi::OpenAi, api_base)
    }

    /// Creates the settings of a backend with this API at this address, with defaults for all others.
    pub fn speaking(api: BackendApi, api_base: String) -> Self {
        Self {
            api_base,
            api,
            api_key: None,
            headers: Vec::new(),
            fields: Vec::new(),
            model: None,
            rpm: None,
            tpm: None,
            slots: REMOTE_SLOTS,
            health: api.health().to_owned(),
            weight: 1.0,
            priority: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_that_name_a_projector_come_before_those_that_forbid_one_and_the_last_one_counts() {
        let file = |path: &str| Some(ProjectorSetting::File(path.into()));
        for (arguments, expected) in [
            ("", None),
            ("--jinja", None),
            ("--no-mmproj", Some(ProjectorSetting::Never)),
            ("--mmproj_url https://h/p.gguf", Some(ProjectorSetting::Never)),
            ("--mmproj a.gguf", file("a.gguf")),
            ("-mm a.gguf --jinja", file("a.gguf")),
            ("--mmproj a.gguf --no-mmproj-auto", file("a.gguf")),
            ("--no-mmproj-auto --mmproj a.gguf -mm b.gguf", file("b.gguf")),
        ] {
            let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            assert_eq!(ProjectorSetting::of_arguments(&words), expected, "{arguments}");
        }
    }
}
