//! Reads `models:` and `defaults:` of the configuration file.
//!
//! Owns the names of a model's keys; `catalogue/draft.rs` describes how to add one. `merge/mod.rs` checks whether the
//! names of several models clash.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::address::check_segments;
use super::companions::companions;
use super::embedding;
use super::fields::{NodeFields, read, texts};
use super::node::YamlNode;
use crate::models::ModelKind;
use crate::settings::bounds::{CONFIGURED_NAME_LENGTH, MOST_REPLICAS, PROMPT_LENGTH};
use crate::settings::catalogue::draft::{EngineDraft, ModelDraft};
use crate::settings::catalogue::{CompanionSettings, LoadMode, ProjectorSetting, Start};
use crate::settings::notes::FileNotes;
use crate::settings::values::{ArgumentsPlace, ByteSize, ExtraArgs, Rejected, Weight};

/// Fields that every request must set itself: they can neither have a default nor be removed.
const REQUIRED_FIELDS: &[&str] = &["model", "messages", "prompt", "input", "stream"];

/// Keys that `defaults:` refuses, because they belong to a single model.
pub(super) const SINGLE_MODEL_KEYS: &[&str] = &[
    "file",
    "mmproj",
    "heads",
    "lora",
    "draft",
    "speculative",
    "chat_template",
    "rpc",
    "command",
    "health",
    "served_model_name",
    "kind",
    "tier",
    "aliases",
    "memory",
    "dimensions",
    "prompts",
    "instruction",
    "weight",
    "priority",
];

/// The path at which a server started by `command:` is probed unless `health` is set.
const COMMAND_HEALTH: &str = "/health";

/// Reads `defaults:`.
pub(super) fn defaults(node: &YamlNode, notes: &mut FileNotes) -> ModelDraft {
    let mut fields = NodeFields::new("defaults", node, notes);
    for key in SINGLE_MODEL_KEYS {
        if fields.node(key).is_some() {
            notes.problem(&fields.at(key), "belongs to a single model", Some("set it under models:".to_owned()));
        }
    }
    let draft = read_shared(&mut fields, notes);
    fields.finish(&[], "defaults", notes);
    draft
}

/// Reads the models of `models:`, in order.
pub(super) fn models(node: &YamlNode, notes: &mut FileNotes) -> Vec<(String, ModelDraft)> {
    match node {
        YamlNode::Null => Vec::new(),
        YamlNode::Map(entries) => entries.iter().map(|(id, node)| (id.clone(), read_model(id, node, notes))).collect(),
        _ => {
            notes.problem("models", "expected a mapping from ids to models", None);
            Vec::new()
        }
    }
}

/// Reads the keys of one model.
fn read_model(id: &str, node: &YamlNode, notes: &mut FileNotes) -> ModelDraft {
    let mut fields = NodeFields::new(format!("models.{id}"), node, notes);
    if let Err(fault) = check_name(id) {
        notes.problem(&fields.location, fault, None);
    }
    let draft = read_keys(&mut fields, notes);
    fields.finish(&[], "models", notes);
    draft
}

/// Returns the names of all keys that a model has.
pub(super) fn keys() -> Vec<&'static str> {
    let mut unused = FileNotes::default();
    let mut fields = NodeFields::new("models", &YamlNode::Null, &mut unused);
    read_keys(&mut fields, &mut unused);
    fields.take_unread().1
}

/// Reads all keys that a model has.
fn read_keys(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> ModelDraft {
    let mut draft = read_shared(fields, notes);
    let before = notes.problems.len();
    draft.start = read_start(fields, notes);
    draft.has_problem = notes.problems.len() > before;
    draft.projector = read_projector_setting(fields, notes);
    if draft.projector.is_some() && draft.start.is_none() && !draft.has_problem {
        let hint = Some("llama-server gets it, with the GGUF file under file".to_owned());
        notes.problem(&fields.at("mmproj"), "there is no file", hint);
    }
    draft.heads = embedding::heads(fields, notes);
    if draft.heads.is_some() && draft.start.is_none() && !draft.has_problem {
        let hint = Some("they are applied to what llama-server gives for the GGUF file under file".to_owned());
        notes.problem(&fields.at("heads"), "there is no file", hint);
    }
    draft.companions = companions(fields, notes);
    if draft.start.is_none() && !draft.has_problem {
        for key in draft.companions.keys() {
            let hint = Some("llama-server gets it, with the GGUF file under file".to_owned());
            notes.problem(&fields.at(key), "there is no file", hint);
        }
    }
    draft.kind = fields.value::<ModelKind>("kind", notes);
    draft.tier = fields.text("tier", notes).filter(|tier| {
        let fault = check_tier(tier).err();
        fault.inspect(|fault| notes.problem(&fields.at("tier"), fault, None)).is_none()
    });
    draft.aliases = fields.texts("aliases", notes).unwrap_or_default();
    draft.memory = fields.value::<ByteSize>("memory", notes).and_then(|bytes| NonZeroU64::new(bytes.0 as u64));
    draft.weight = fields.value::<Weight>("weight", notes).map(|weight| weight.0);
    draft.priority = fields.value("priority", notes);
    draft.dimensions = embedding::dimensions(fields, notes);
    draft.prompts = embedding::prompts(fields, notes);
    draft.instruction = read_instruction(fields, notes);
    // Only llama-server takes these settings; for a command they would silently have no effect.
    if matches!(draft.start, Some(Start::Command { .. })) {
        let companions = draft.companions.keys().map(|key| (key, true));
        for (key, is_set) in companions.chain([
            ("mmproj", draft.projector.is_some()),
            ("heads", draft.heads.is_some()),
            ("args", draft.engine.extra_args.is_some()),
            ("ctx", draft.engine.ctx.is_some()),
            ("ngl", draft.engine.ngl.is_some()),
            ("threads", draft.engine.threads.is_some()),
            ("batch", draft.engine.batch.is_some()),
            ("prefetch", draft.engine.prefetch.is_some()),
        ]) {
            if is_set {
                notes.problem(
                    &fields.at(key),
                    "is llama-server's, and this model has a command of its own",
                    Some("put the arguments of its server into command".to_owned()),
                );
            }
        }
    }
    draft
}

/// Reads the keys that both a model and `defaults:` take.
fn read_shared(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> ModelDraft {
    let replicas = fields.value::<NonZeroU32>("replicas", notes).map(NonZeroU32::get);
    if replicas.is_some_and(|replicas| replicas > MOST_REPLICAS) {
        notes.problem(&fields.at("replicas"), format!("expected {MOST_REPLICAS} at most"), None);
    }
    // No `..Default`: a new field does not compile until it is read here or left to `read_model`.
    ModelDraft {
        engine: EngineDraft {
            ngl: fields.value("ngl", notes),
            ctx: fields.value("ctx", notes),
            parallel: fields.value("parallel", notes),
            threads: fields.value("threads", notes),
            batch: fields.value("batch", notes),
            extra_args: arguments(fields, notes),
            load_timeout: fields.value("load_timeout", notes),
            restart_limit: fields.value("restart_limit", notes),
            restart_window: fields.value("restart_window", notes),
            hang_timeout: fields.value("hang_timeout", notes),
            idle_unload: fields.value("ttl", notes),
            prefetch: fields.value("prefetch", notes),
        },
        replicas,
        preload: fields.value("preload", notes),
        pinned: fields.value("pinned", notes),
        strategy: fields.value("strategy", notes),
        unlisted: fields.value("unlisted", notes),
        scores: fields.value("scores", notes),
        strip_params: strip_params(fields, notes),
        sampling: sampling(fields, notes),
        // Read by `read_model` alone: see SINGLE_MODEL_KEYS.
        start: None,
        projector: None,
        heads: None,
        companions: CompanionSettings::default(),
        kind: None,
        tier: None,
        aliases: Vec::new(),
        memory: None,
        weight: None,
        priority: None,
        // Set by other sources than these sections, or later.
        hidden_aliases: Vec::new(),
        is_wildcard: false,
        pool: None,
        remotes: Vec::new(),
        dimensions: None,
        prompts: None,
        instruction: None,
        has_problem: false,
        load_mode: LoadMode::default(),
    }
}

/// Reads `instruction`: what a reranker is asked to look for.
fn read_instruction(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<String> {
    let text = fields.text("instruction", notes)?;
    if text.len() > PROMPT_LENGTH {
        notes.problem(&fields.at("instruction"), format!("expected a text of at most {PROMPT_LENGTH} bytes"), None);
        return None;
    }
    Some(text)
}

/// Reads the keys that decide what is started: `file`, `command`, `health` and `served_model_name`.
fn read_start(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<Start> {
    let file = fields.node("file").and_then(|node| read::<PathBuf>(&fields.at("file"), node, notes));
    let command = fields.node("command").map(|node| words(&fields.at("command"), node, notes));
    let health: Option<String> = fields.text("health", notes);
    if let Some(fault) = health.as_deref().and_then(|path| check_path(path).err()) {
        notes.problem(&fields.at("health"), fault, None);
    }
    let model = fields.text("served_model_name", notes);
    if let Some(fault) = model.as_deref().and_then(|name| check_name(name).err()) {
        notes.problem(&fields.at("served_model_name"), fault, None);
    }
    match (file, command) {
        (Some(_), Some(_)) => {
            notes.problem(&fields.location, "has both file and command", Some("keep one of them".to_owned()));
            None
        }
        (None, None) => {
            if health.is_some() {
                let hint = "set the health of a remote backend in its entry of model_list".to_owned();
                notes.problem(&fields.at("health"), "there is no command", Some(hint));
            }
            if model.is_some() {
                let hint = "for a remote backend, set litellm_params.model in its entry of model_list".to_owned();
                notes.problem(&fields.at("served_model_name"), "there is no command", Some(hint));
            }
            None
        }
        (Some(file), None) => {
            if health.is_some() {
                notes.problem(&fields.at("health"), "llama-server is always probed at /health", None);
            }
            if model.is_some() {
                let hint = Some("list other names for clients under aliases".to_owned());
                notes.problem(&fields.at("served_model_name"), "does not apply to llama-server", hint);
            }
            if file.as_os_str().is_empty() {
                notes.problem(&fields.at("file"), "expected the name of a GGUF file", None);
                return None;
            }
            Some(start_of(&file))
        }
        (None, Some(argv)) => {
            let argv = argv?;
            let (program, arguments) = argv.split_first()?;
            if program.is_empty() || argv.iter().any(|word| word.contains('\0')) {
                notes.problem(&fields.at("command"), "expected a program and its arguments", None);
            } else if !arguments.iter().any(|word| word.contains("{port}")) {
                notes.problem(
                    &fields.at("command"),
                    "has no {port}",
                    Some("{port} is replaced by the port on 127.0.0.1 that the server must listen on".to_owned()),
                );
            }
            Some(Start::Command { argv, health: health.unwrap_or_else(|| COMMAND_HEALTH.to_owned()), model })
        }
    }
}

/// Reads `mmproj`: the file of a projector, or `none`.
fn read_projector_setting(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<ProjectorSetting> {
    let location = fields.at("mmproj");
    let node = fields.node("mmproj")?;
    let word = node.scalar().unwrap_or_default().to_ascii_lowercase();
    let hint = match (node, word.as_str()) {
        (YamlNode::Text(_), "none") => return Some(ProjectorSetting::Never),
        (_, "false" | "no" | "off") => Some("write none for a model without projector"),
        (_, "true" | "yes" | "on" | "auto") => Some("leave it out: the projector beside the model is found"),
        (YamlNode::Text(text), _) if !text.is_empty() => return Some(ProjectorSetting::File(text.into())),
        (YamlNode::Text(_), _) => None,
        (YamlNode::List(_) | YamlNode::Map(_), _) => Some("name one file"),
        _ => Some("put it into quotes"),
    };
    let fault = "expected the file of a multimodal projector, or none";
    notes.problem(&location, fault, hint.map(str::to_owned));
    None
}

/// Returns an absolute path unchanged, and any other path as a name under `MODELS_DIR`.
pub(in crate::settings) fn start_of(file: &Path) -> Start {
    match file.to_str() {
        Some(name) if !file.is_absolute() => Start::Named(name.to_owned()),
        _ => Start::File(file.to_owned()),
    }
}

/// Returns a command line: a list of words, or a string that is split as a shell does.
fn words(location: &str, node: &YamlNode, notes: &mut FileNotes) -> Option<Vec<String>> {
    let words = match node {
        YamlNode::Text(text) => shlex::split(text),
        YamlNode::List(items) => items.iter().map(YamlNode::scalar).collect(),
        _ => None,
    };
    let words = words.filter(|words| !words.is_empty());
    if words.is_none() {
        notes.problem(location, "expected a list of words, or a string that a shell can split", None);
    }
    words
}

/// Reads `args`.
fn arguments(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<ExtraArgs> {
    let node = fields.node("args")?;
    let location = fields.at("args");
    if matches!(node, YamlNode::List(items) if items.is_empty())
        || matches!(node, YamlNode::Text(text) if text.is_empty())
    {
        // An empty value clears the arguments of `defaults:` and of EXTRA_ARGS.
        return Some(ExtraArgs::default());
    }
    match ExtraArgs::checked(words(&location, node, notes)?, ArgumentsPlace::Model) {
        Ok(arguments) => {
            notes.warnings.extend(arguments.warnings.iter().map(|warning| format!("{location}: {warning}")));
            Some(arguments)
        }
        Err(Rejected { allowed, hint }) => {
            notes.problem(&location, format!("expected {allowed}"), hint);
            None
        }
    }
}

/// Reads `strip_params`.
fn strip_params(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<Vec<String>> {
    let node = fields.node("strip_params")?;
    let location = fields.at("strip_params");
    let names = texts(&location, node, notes)?;
    for name in &names {
        if REQUIRED_FIELDS.contains(&name.as_str()) || name.is_empty() {
            notes.problem(&location, format!("{name:?} cannot be removed: a request needs it"), None);
        }
    }
    Some(names)
}

/// Reads `sampling`.
fn sampling(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Vec<(String, Option<String>)> {
    let location = fields.at("sampling");
    match fields.node("sampling") {
        None => Vec::new(),
        Some(YamlNode::Map(entries)) => {
            entries.iter().filter_map(|(name, value)| sampling_field(&location, name, value.json(), notes)).collect()
        }
        Some(_) => {
            notes.problem(&location, "expected a mapping such as {temperature: 0.7}", None);
            Vec::new()
        }
    }
}

/// Returns the name and the JSON value of a request field that is added if a request lacks it; null gives no value.
pub(super) fn sampling_field(
    location: &str,
    name: &str,
    value: Json,
    notes: &mut FileNotes,
) -> Option<(String, Option<String>)> {
    if REQUIRED_FIELDS.contains(&name) || name.is_empty() {
        notes.problem(location, format!("{name:?} has no default: each request must set it"), None);
        return None;
    }
    Some((name.to_owned(), Some(value).filter(|value| !value.is_null()).map(|value| value.to_string())))
}

/// Checks that clients can request a model by this name.
///
/// # Errors
///
/// Returns the rule that the name breaks.
pub(in crate::settings) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > CONFIGURED_NAME_LENGTH {
        Err(format!("the name of a model must have 1 to {CONFIGURED_NAME_LENGTH} bytes"))
    } else if name.chars().any(char::is_control) || name.trim() != name {
        Err("the name of a model must have no control characters, and no spaces at its ends".to_owned())
    } else {
        Ok(())
    }
}

/// Checks that clients can request a tier by this name, alone or before a slash.
///
/// # Errors
///
/// Returns the rule that the name breaks.
pub(super) fn check_tier(name: &str) -> Result<(), String> {
    check_name(name).map_err(|fault| fault.replace("model", "tier"))?;
    if name.contains('/') { Err("the name of a tier must have no slash".to_owned()) } else { Ok(()) }
}

/// Checks that this is a path that can be sent in an HTTP request.
///
/// # Errors
///
/// Returns what is expected instead.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte));
    if !path.starts_with('/') || !is_plain {
        return Err("expected a path such as /health".to_owned());
    }
    check_segments(path.split('?').next().unwrap_or_default()).map_err(str::to_owned)
}
