//! The one table of names that users bring along from other servers: what each variable means here.
//!
//! Owns which variable of another server is read as which of ours, how its value is translated, and which known names
//! have no effect. `names.rs` applies the table, and decides which name wins. A name that is not in the table is
//! not mentioned: the environment of a process is full of variables for other programs.

use crate::settings::values::{Rejected, Value};

/// One name of another server.
pub struct AliasRow {
    /// The name of the variable.
    pub name: &'static str,
    /// What it sets here.
    pub target: AliasTarget,
    /// The variable of the rerank model alone that it sets in place of `target` where there are other models.
    pub(super) of_reranker: Option<&'static str>,
    /// Translates its value.
    pub(super) translate: fn(&str) -> Result<Translation, Rejected>,
    /// What the documentation says about its values, as a sentence without a stop; empty if they need no word.
    pub remark: &'static str,
    /// Whether it was a name of ours, which users should replace.
    pub(super) is_deprecated: bool,
}

/// What a name of another server sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AliasTarget {
    /// A variable of ours: one of the table of settings, or one of a tier.
    Variable(&'static str),
    /// Something that has no variable of its own, in words.
    Described(&'static str),
    /// Nothing: what to do instead.
    Nothing(&'static str),
}

/// The meaning of one value.
pub(super) enum Translation {
    /// The value as it stands.
    Same,
    /// Another value of the variable that the name sets.
    Text(&'static str),
    /// It asks for what happens anyway, which is this.
    AsIs(&'static str),
    /// It cannot be obeyed: why, and what to do instead.
    NoEffect(&'static str),
}

const fn variable(name: &'static str, own: &'static str) -> AliasRow {
    translated(name, own, |_| Ok(Translation::Same), "")
}

const fn translated(
    name: &'static str,
    own: &'static str,
    translate: fn(&str) -> Result<Translation, Rejected>,
    remark: &'static str,
) -> AliasRow {
    AliasRow { name, target: AliasTarget::Variable(own), of_reranker: None, translate, remark, is_deprecated: false }
}

/// Returns a row that sets `of_reranker` where there are other models than the rerank model.
const fn beside_others(row: AliasRow, of_reranker: &'static str) -> AliasRow {
    AliasRow { of_reranker: Some(of_reranker), ..row }
}

const fn described(name: &'static str, meaning: &'static str) -> AliasRow {
    judged(name, meaning, |_| Ok(Translation::Same), "")
}

const fn judged(
    name: &'static str,
    meaning: &'static str,
    translate: fn(&str) -> Result<Translation, Rejected>,
    remark: &'static str,
) -> AliasRow {
    let target = AliasTarget::Described(meaning);
    AliasRow { name, target, of_reranker: None, translate, remark, is_deprecated: false }
}

const fn no_effect(name: &'static str, instead: &'static str) -> AliasRow {
    let target = AliasTarget::Nothing(instead);
    AliasRow { name, target, of_reranker: None, translate: |_| Ok(Translation::Same), remark: "", is_deprecated: false }
}

/// The variable that switches `model_list:` off.
pub(in crate::settings) const LOAD_BALANCER: &str = "RERANKER_LOAD_BALANCER_ENABLED";

/// The variable that names the rerank model by its repository.
pub(in crate::settings) const RERANKER_MODEL_NAME: &str = "RERANKER_MODEL_NAME";

/// The variable that names the repository of the only model.
pub(in crate::settings) const HF_MODEL_REPO: &str = "HF_MODEL_REPO";

/// The variable that names the file of it.
pub(in crate::settings) const HF_MODEL_FILENAME: &str = "HF_MODEL_FILENAME";

/// The variable that names the configuration file.
pub(in crate::settings) const RERANKER_CONFIG_PATH: &str = "RERANKER_CONFIG_PATH";

/// The suffix after `RERANKER_` of the number of replicas of the rerank model.
pub(in crate::settings) const RERANKER_WORKERS: &str = "WORKERS";

/// The table. Of two names for one variable that are both set, the upper one wins.
pub const ALIASES: &[AliasRow] = &[
    variable("GATEWAY_PORT", "PORT"),
    AliasRow { is_deprecated: true, ..variable("BACKEND_PORT", "PORT_BACKEND") },
    variable("HUGGINGFACE_HUB_CACHE", "HF_HUB_CACHE"),
    // llama-cpp-python, and servers built on it.
    variable("N_CTX", "CTX"),
    translated("N_GPU_LAYERS", "NGL", gpu_layers, "`-1` is `all`"),
    variable("N_THREADS", "THREADS"),
    variable("N_BATCH", "BATCH"),
    variable("MODEL_DIR", "MODELS_DIR"),
    translated("VERBOSE", "LOG_LEVEL", verbose, "`true` is `debug`"),
    described("TEMPERATURE", "the default `temperature` of every model that sets none"),
    described("TOP_P", "the default `top_p` of every model that sets none"),
    described("TOP_K", "the default `top_k` of every model that sets none"),
    described("MAX_TOKENS", "the default `max_tokens` of every model that sets none"),
    described("REPEAT_PENALTY", "the default `repeat_penalty` of every model that sets none"),
    variable("API_TOKEN", "LLAMAGATE_API_KEY"),
    // A reranker for Sentence Transformers.
    variable("RERANKER_API_KEY", "LLAMAGATE_API_KEY"),
    variable("RERANKER_HOST", "HOST"),
    variable("RERANKER_PORT", "PORT"),
    variable(RERANKER_MODEL_NAME, "RERANKER_MODEL_PATH"),
    variable("RERANKER_MODEL_CACHE_DIR", "HF_HUB_CACHE"),
    variable("RERANKER_USE_OFFLINE_MODE", "HF_HUB_OFFLINE"),
    variable("RERANKER_MAX_LENGTH", "RERANKER_N_CTX"),
    beside_others(
        translated(
            "RERANKER_BATCH_SIZE",
            "BATCH",
            |_| Ok(Translation::Same),
            "where other models are named too, of the rerank model alone",
        ),
        "RERANKER_N_BATCH",
    ),
    beside_others(
        translated(
            "RERANKER_DEVICE",
            "NGL",
            device,
            "`cpu` is `0`, `cuda` the default; `mps` has no effect; where other models are named too, of the rerank model alone",
        ),
        "RERANKER_N_GPU_LAYERS",
    ),
    variable("RERANKER_LOG_LEVEL", "LOG_LEVEL"),
    judged(
        LOAD_BALANCER,
        "the switch of `model_list`",
        load_balancer,
        "`false` leaves it out, with what belongs to it",
    ),
    variable(RERANKER_CONFIG_PATH, "CONFIG_FILE"),
    described("RERANKER_WORKERS", "`replicas` of the rerank model"),
    no_effect("RERANKER_USE_FP16", "the quantisation of the GGUF file decides"),
    no_effect("OTEL_EXPORTER_OTLP_CERTIFICATE", "SSL_CERT_FILE names the authorities for all connections"),
    no_effect("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "SSL_CERT_FILE names the authorities for all connections"),
    no_effect("OTEL_BSP_EXPORT_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT bounds an export"),
    no_effect("OTEL_PROPAGATORS", "the headers of traces are W3C's traceparent and tracestate"),
    variable(HF_MODEL_REPO, "MODEL_NAME"),
    described(HF_MODEL_FILENAME, "the file of `HF_MODEL_REPO`, as in `MODEL_NAME=ORG/NAME/FILE.gguf`"),
    translated("ENABLE_CACHE", "CACHE", cache_switch, "`true` is `safe`, `false` is `off`"),
    variable("CACHE_TTL_SECONDS", "CACHE_TTL"),
];

fn gpu_layers(text: &str) -> Result<Translation, Rejected> {
    Ok(if text == "-1" { Translation::Text("all") } else { Translation::Same })
}

fn verbose(text: &str) -> Result<Translation, Rejected> {
    Ok(if bool::parse(text)? { Translation::Text("debug") } else { Translation::AsIs("the level stays as it is") })
}

fn load_balancer(text: &str) -> Result<Translation, Rejected> {
    Ok(match bool::parse(text)? {
        true => Translation::AsIs("it is read, as always when the configuration file has one"),
        false => Translation::AsIs("it is left out"),
    })
}

fn cache_switch(text: &str) -> Result<Translation, Rejected> {
    Ok(Translation::Text(if bool::parse(text)? { "safe" } else { "off" }))
}

fn device(text: &str) -> Result<Translation, Rejected> {
    match text.to_ascii_lowercase().as_str() {
        "cpu" => Ok(Translation::Text("0")),
        "cuda" | "cuda:0" | "gpu" | "auto" => Ok(Translation::AsIs("the GPU is used if there is one")),
        "mps" => Ok(Translation::NoEffect(
            "llama-server uses the GPU of a Mac by itself if it was built for it; set NGL=0 not to",
        )),
        other if other.strip_prefix("cuda:").is_some_and(|number| number.parse::<u8>().is_ok()) => {
            Ok(Translation::NoEffect("choose the GPU with CUDA_VISIBLE_DEVICES, or with EXTRA_ARGS=\"--device CUDA1\""))
        }
        _ => Err(Rejected::new("cuda, cpu or mps")),
    }
}

/// Returns the aliases of a variable of ours, in the order of the table.
pub(in crate::settings) fn aliases_of(own: &str) -> impl Iterator<Item = &'static AliasRow> {
    ALIASES.iter().filter(move |row| matches!(row.target, AliasTarget::Variable(variable) if variable == own))
}
