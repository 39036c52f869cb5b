//! Models of tiers from environment variables: `{TIER}_MODEL_PATH`, `{TIER}_BACKEND` and the like; and the default fields
//! of requests from variables without a tier, such as `TEMPERATURE`.
//!
//! Owns the names of these variables, and which setting of a model each one sets.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use crate::models::{ModelKind, id_of};
use crate::settings::bounds::MOST_REPLICAS;
use crate::settings::brought::aliases::{RERANKER_MODEL_NAME, RERANKER_WORKERS};
use crate::settings::catalogue::draft::ModelDraft;
use crate::settings::catalogue::{LoadMode, RemoteSettings, Start, TIERS};
use crate::settings::environment::Environment;
use crate::settings::file::{api_base, start_of};
use crate::settings::notes::FileNotes;
use crate::settings::problem::SettingProblem;
use crate::settings::reader::parse_without_controls;
use crate::settings::values::{BackendApi, Context, Dimensions, GpuLayers, Rejected, Value};

/// Suffixes after `{TIER}_` that apply to local models only.
const LOCAL_VARIABLES: &[&str] = &["N_CTX", "N_BATCH", "N_THREADS", "N_GPU_LAYERS", "USE_MMAP", "USE_MLOCK"];
/// Suffixes after `{TIER}_` that say something about the vectors of an embedding model.
const EMBEDDING_VARIABLES: &[&str] = &["EMBEDDING_MODE", "EMBEDDING_DIMENSION"];
/// Suffixes after `{TIER}_` that apply to any model, and the request fields that they set.
const SAMPLING_VARIABLES: &[(&str, &str)] = &[
    ("TEMPERATURE", "temperature"),
    ("TOP_P", "top_p"),
    ("TOP_K", "top_k"),
    ("MAX_TOKENS", "max_tokens"),
    ("REPEAT_PENALTY", "repeat_penalty"),
];

/// The suffix after `{TIER}_` that applies to remote backends only.
const BACKEND_API: &str = "BACKEND_API";

/// Values of `{TIER}_BACKEND` that mean llama.cpp.
const LLAMA_CPP: &[&str] = &["llama_cpp", "llama.cpp", "llamacpp", "llama-cpp", "gguf"];

/// Values of `{TIER}_BACKEND` that mean the server of MLX.
const MLX: &[&str] = &["mlx", "mlx_lm", "mlx-lm"];
/// The path at which MLX's server is probed.
const MLX_HEALTH: &str = "/health";

/// What the environment says about models.
pub(in crate::settings) struct FromEnvironment {
    /// The models of all tiers that it names: the naming variable, the id and the draft of each.
    pub(in crate::settings) tiers: Vec<(String, String, ModelDraft)>,
    /// Default fields of requests to all models: names and JSON values.
    pub(in crate::settings) sampling: Vec<(String, Option<String>)>,
}

/// Reads the variables of tiers, and those of the service about requests.
pub(in crate::settings) fn read(environment: &Environment, notes: &mut FileNotes) -> FromEnvironment {
    let tiers = TIERS.iter().filter_map(|(prefix, tier)| Tier { environment, prefix, tier }.read(notes)).collect();
    let field = |(variable, field): &(&str, &str)| {
        let text = environment.get(variable)?;
        match sampling_number(field, text) {
            Ok(number) => Some(((*field).to_owned(), Some(number))),
            Err(rejected) => {
                notes.problems.push(problem_with(variable, text, rejected));
                None
            }
        }
    };
    let sampling = SAMPLING_VARIABLES.iter().filter_map(field).collect();
    FromEnvironment { tiers, sampling }
}

fn problem_with(variable: &str, text: &str, rejected: Rejected) -> SettingProblem {
    SettingProblem {
        subject: format!("{variable}={text:?} (environment variable {variable})"),
        fault: format!("expected {}", rejected.allowed),
        hint: rejected.hint,
    }
}

/// The variables of one tier.
struct Tier<'a> {
    environment: &'a Environment,
    prefix: &'static str,
    tier: &'static str,
}

impl Tier<'_> {
    /// Returns the naming variable, the id and the draft of the tier's model, or `None` if no variable names one.
    fn read(&self, notes: &mut FileNotes) -> Option<(String, String, ModelDraft)> {
        let path: Option<PathBuf> = self.value("MODEL_PATH", notes);
        let backend = self.get("BACKEND");
        let url = backend.filter(|backend| backend.contains("://"));
        let mut draft = ModelDraft { tier: Some(self.tier.to_owned()), ..ModelDraft::default() };
        let is_any_of = |name: &str, known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(name));
        let is_mlx = backend.is_some_and(|name| is_any_of(name, MLX));
        if let Some(name) = backend.filter(|backend| url.is_none() && !is_mlx && !is_any_of(backend, LLAMA_CPP)) {
            self.problem("BACKEND", Rejected::new("llama_cpp, mlx, or the URL of a remote backend"), name, notes);
        }
        let name = path.as_deref().map(id_of);
        let api: Option<BackendApi> = self.value(BACKEND_API, notes);
        if url.is_none() && api.is_some() {
            self.warn_about(std::iter::once(BACKEND_API), "has no effect without the URL of a remote backend", notes);
        }
        match (url, &path) {
            (Some(url), _) => {
                self.warn_about(self.local_variables(), "has no effect on a remote backend", notes);
                let api = api.unwrap_or_default();
                match api_base(url, api.api_path()) {
                    Ok(api_base) => draft.remotes.push(RemoteSettings::speaking(api, api_base)),
                    // The URL may contain a password.
                    Err(hint) => {
                        draft.has_problem = true;
                        let rejected = Rejected::new("a URL such as http://server1:8000").with_hint(hint);
                        self.problem("BACKEND", rejected, "***", notes);
                    }
                }
                // A remote backend has no GGUF file that tells the kind.
                draft.kind = match self.tier {
                    "embedding" => Some(ModelKind::Embedding),
                    "reranker" => Some(ModelKind::Rerank),
                    _ => Some(ModelKind::Chat),
                };
            }
            (None, Some(path)) if is_mlx => {
                self.warn_about(LOCAL_VARIABLES.iter().copied(), "has no effect on MLX's server", notes);
                draft.start = Some(mlx_server(path));
                draft.replicas = self.replicas(notes);
            }
            (None, Some(path)) => {
                draft.start = Some(self.start_of_path(path));
                draft.replicas = self.replicas(notes);
                self.read_engine(&mut draft, notes);
            }
            (None, None) => {
                let ineffective = self
                    .local_variables()
                    .chain(EMBEDDING_VARIABLES.iter().copied())
                    .chain(SAMPLING_VARIABLES.iter().map(|(name, _)| *name))
                    .chain(["BACKEND"]);
                self.warn_about(ineffective, &format!("has no effect without {}_MODEL_PATH", self.prefix), notes);
                return None;
            }
        }
        self.read_embedding(&mut draft, is_mlx, notes);
        self.read_sampling(&mut draft, notes);
        let named_by = if path.is_some() { "MODEL_PATH" } else { "BACKEND" };
        let id = name.filter(|name| !name.is_empty()).unwrap_or_else(|| self.tier.to_owned());
        let variable = self.variable(named_by);
        Some((self.environment.name_of(&variable).to_owned(), id, draft))
    }

    /// Reads what the variables say about vectors.
    fn read_embedding(&self, draft: &mut ModelDraft, is_mlx: bool, notes: &mut FileNotes) {
        match self.value::<bool>("EMBEDDING_MODE", notes) {
            Some(true) => draft.kind = Some(ModelKind::Embedding),
            Some(false) if self.tier == "embedding" => {
                let decides = if draft.start.is_some() && !is_mlx { "the model file" } else { "the tier" };
                let why = format!("has no effect: {decides} tells the kind; set kind: under models: in llamagate.yaml");
                notes.warnings.push(format!("{}=false {why}", self.variable("EMBEDDING_MODE")));
            }
            _ => {}
        }
        draft.dimensions = self.value("EMBEDDING_DIMENSION", notes).map(Dimensions::Default);
    }

    /// Reads the default fields of requests.
    fn read_sampling(&self, draft: &mut ModelDraft, notes: &mut FileNotes) {
        for (variable, field) in SAMPLING_VARIABLES {
            let Some(text) = self.get(variable) else { continue };
            match sampling_number(field, text) {
                Ok(number) => draft.sampling.push(((*field).to_owned(), Some(number))),
                Err(rejected) => self.problem(variable, rejected, text, notes),
            }
        }
    }

    fn read_engine(&self, draft: &mut ModelDraft, notes: &mut FileNotes) {
        draft.engine.ctx = self.value::<Context>("N_CTX", notes);
        draft.engine.threads = self.value("N_THREADS", notes);
        draft.engine.ngl = self.value::<GpuLayers>("N_GPU_LAYERS", notes);
        draft.engine.batch = self.value::<NonZeroUsize>("N_BATCH", notes).map(NonZeroUsize::get);
        draft.load_mode =
            LoadMode { mmap: self.value("USE_MMAP", notes), mlock: self.value("USE_MLOCK", notes).unwrap_or_default() };
    }

    /// Returns the suffixes that apply to local models only.
    fn local_variables(&self) -> impl Iterator<Item = &'static str> + use<> {
        let workers = (self.prefix == "RERANKER").then_some(RERANKER_WORKERS);
        LOCAL_VARIABLES.iter().copied().chain(workers)
    }

    /// Returns the number of replicas, which only a name of another server sets.
    fn replicas(&self, notes: &mut FileNotes) -> Option<u32> {
        if self.prefix != "RERANKER" {
            return None;
        }
        let replicas = self.value::<NonZeroU32>(RERANKER_WORKERS, notes)?.get();
        if replicas > MOST_REPLICAS {
            let rejected = Rejected::new(format!("a whole number from 1 to {MOST_REPLICAS}"));
            self.problem(RERANKER_WORKERS, rejected, &replicas.to_string(), notes);
            return None;
        }
        Some(replicas)
    }

    /// Returns a path with a folder in it unchanged, and any other path as a name under `MODELS_DIR`.
    fn start_of_path(&self, path: &Path) -> Start {
        let is_name = self.environment.name_of(&self.variable("MODEL_PATH")) == RERANKER_MODEL_NAME;
        if path.components().count() > 1 && !is_name { Start::File(path.to_owned()) } else { start_of(path) }
    }

    fn variable(&self, name: &str) -> String {
        format!("{}_{name}", self.prefix)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.environment.get(&self.variable(name))
    }

    fn value<T: Value>(&self, name: &str, notes: &mut FileNotes) -> Option<T> {
        let text = self.get(name)?;
        parse_without_controls(text).map_err(|rejected| self.problem(name, rejected, text, notes)).ok()
    }

    fn problem(&self, name: &str, rejected: Rejected, text: &str, notes: &mut FileNotes) {
        let own = self.variable(name);
        notes.problems.push(problem_with(self.environment.name_of(&own), text, rejected));
    }

    fn warn_about<'b>(&self, names: impl Iterator<Item = &'b str>, why: &str, notes: &mut FileNotes) {
        for name in names.filter(|name| self.get(name).is_some()) {
            notes.warnings.push(format!("{} {why}", self.environment.name_of(&self.variable(name))));
        }
    }
}

/// Returns the command that serves a model with MLX's server, which calls the model by its path.
fn mlx_server(path: &Path) -> Start {
    let path = path.display().to_string();
    let argv = ["mlx_lm.server", "--model", &path, "--port", "{port}"].map(str::to_owned).to_vec();
    Start::Command { argv, health: MLX_HEALTH.to_owned(), model: Some(path) }
}

/// Returns the value of a request field as JSON writes it.
///
/// # Errors
///
/// Returns what is allowed, if it is no number or not one that OpenAI's API and llama-server take.
fn sampling_number(field: &str, text: &str) -> Result<String, Rejected> {
    let number = serde_json::from_str(text).ok();
    let number = number.or_else(|| text.parse().ok().and_then(serde_json::Number::from_f64));
    let number: serde_json::Number = number.ok_or_else(|| Rejected::new("a number"))?;
    let value = number.as_f64().unwrap_or(f64::NAN);
    let is_whole_from = |least: i64| number.as_i64().is_some_and(|whole| whole >= least);
    let (is_allowed, allowed) = match field {
        "temperature" => (value >= 0.0, "a number from 0"),
        "top_p" => ((0.0..=1.0).contains(&value), "a number from 0 to 1"),
        "repeat_penalty" => (value > 0.0, "a number above 0"),
        // llama-server takes -1 as all tokens of the vocabulary.
        "top_k" => (is_whole_from(-1), "a whole number from 0, or -1 for all"),
        // llama-server takes -1 as no limit.
        "max_tokens" => (is_whole_from(1) || number.as_i64() == Some(-1), "a whole number from 1, or -1 for no limit"),
        _ => (true, "a number"),
    };
    if is_allowed { Ok(number.to_string()) } else { Err(Rejected::new(allowed)) }
}
