//! The table of llama-server's options that become something else than an argument.

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The GGUF file.
    File,
    /// A repository of the hub, with or without a quantisation.
    Repository,
    /// A file of that repository.
    RepositoryFile,
    /// The context of all slots together.
    Context,
    /// The number of slots.
    Slots,
    /// Layers on the GPU.
    Layers,
    /// A number of threads, where one below 0 is llama-server's choice.
    Threads,
    /// A key with the same value.
    SameValue(&'static str),
    /// A key with the same text.
    SameText(&'static str),
    /// A member of `speculative`.
    Drafting(&'static str),
    /// A key with a list of what commas separate.
    SameList(&'static str),
    /// LoRA adapters.
    Adapters,
    /// LoRA adapters, each with its scale.
    ScaledAdapters,
    /// The switch for the projector beside the model.
    ProjectorSwitch,
    /// The kind of the model.
    Kind(&'static str),
    /// Names of the model.
    Names,
    /// Seconds without a request after which the model is unloaded.
    Idle,
    /// Whether the model is loaded at the start.
    Preload,
    /// The port, which the gateway chooses.
    Port,
    /// An argument.
    Argument,
    /// Nothing, for this reason.
    Nothing(&'static str),
}

const BY_ADDRESS: &str = "a model by address is written as file: https://HOST/FILE.gguf#sha256=HEX";

/// Options by their main names. What is not here is an argument.
const TARGETS: &[(&str, Target)] = &[
    ("--model", Target::File),
    ("--hf-repo", Target::Repository),
    ("--hf-file", Target::RepositoryFile),
    ("--ctx-size", Target::Context),
    ("--parallel", Target::Slots),
    ("--n-gpu-layers", Target::Layers),
    ("--threads", Target::Threads),
    ("--batch-size", Target::SameValue("batch")),
    ("--mmproj", Target::SameValue("mmproj")),
    ("--mmproj-auto", Target::ProjectorSwitch),
    ("--embeddings", Target::Kind("embedding")),
    ("--reranking", Target::Kind("rerank")),
    ("--alias", Target::Names),
    ("--sleep-idle-seconds", Target::Idle),
    ("--load-on-startup", Target::Preload),
    ("--port", Target::Port),
    ("--lora", Target::Adapters),
    ("--lora-scaled", Target::ScaledAdapters),
    ("--model-draft", Target::SameText("draft")),
    ("--hf-repo-draft", Target::SameText("draft")),
    ("--draft-max", Target::Drafting("max")),
    ("--spec-draft-n-max", Target::Drafting("max")),
    ("--draft-n-min", Target::Drafting("min")),
    ("--spec-draft-n-min", Target::Drafting("min")),
    ("--draft-p-min", Target::Drafting("p_min")),
    ("--n-gpu-layers-draft", Target::Drafting("ngl")),
    ("--chat-template-file", Target::SameText("chat_template")),
    ("--rpc", Target::SameList("rpc")),
    ("--model-url", Target::Nothing(BY_ADDRESS)),
    ("--docker-repo", Target::Nothing("models come from Hugging Face's hub: file: ORG/NAME:QUANT")),
    (
        "--mmproj-url",
        Target::Nothing("the projector of a repository is downloaded with the model; others are named by mmproj"),
    ),
    ("--hf-token", Target::Nothing("set HF_TOKEN; a token is not written into a file")),
    ("--stop-timeout", Target::Nothing("SHUTDOWN_TIMEOUT is the time that the whole service has to stop")),
    ("--dedup-cache-models", Target::Nothing("models that are not named are not listed beside these")),
    ("--models-max", Target::Nothing("memory decides how many models are loaded together: MEMORY_BUDGET")),
];

/// Returns what becomes of an option, by its main name.
pub(super) fn target_of(main: &str) -> Target {
    TARGETS.iter().find(|(name, _)| *name == main).map_or(Target::Argument, |(_, target)| *target)
}
