//! `models:` and `defaults:` of the configuration file: one model's own keys.
//!
//! Owns the names of these keys; how one is added is said in `catalogue/draft.rs`. Whether names of several models
//! clash is seen in `shelf/mod.rs`.

use super::fields::{NodeFields, read, texts};
use super::node::YamlNode;
use crate::models::ModelKind;
use crate::settings::bounds::{MODEL_NAME_LENGTH, MOST_REPLICAS};
use crate::settings::catalogue::Start;
use crate::settings::catalogue::draft::{EngineDraft, ModelDraft};
use crate::settings::notes::FileNotes;
use crate::settings::values::{ByteSize, ExtraArgs, Rejected, Weight};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};

/// Fields of a request that make it what it is: they are neither given by default nor removed.
const ESSENTIAL: &[&str] = &["model", "messages", "prompt", "input", "stream"];

/// Keys of a model that `defaults:` does not take, because no two models share them.
const OF_ONE: &[&str] =
    &["file", "command", "health", "served_model_name", "kind", "tier", "aliases", "memory", "weight", "priority"];

/// The path that a server started by `command:` is probed at.
const HEALTH: &str = "/health";

/// `defaults:`, or nothing.
pub(super) fn defaults(node: &YamlNode, notes: &mut FileNotes) -> ModelDraft {
    let mut fields = NodeFields::of("defaults", node, notes);
    for key in OF_ONE {
        if fields.node(key).is_some() {
            notes.problem(&fields.at(key), "belongs to a single model", Some("say it under models:".to_owned()));
        }
    }
    let draft = shared(&mut fields, notes);
    fields.finish(&[], "defaults", notes);
    draft
}

/// Every model of `models:`, in order.
pub(super) fn models(node: &YamlNode, notes: &mut FileNotes) -> Vec<(String, ModelDraft)> {
    match node {
        YamlNode::Null => Vec::new(),
        YamlNode::Map(entries) => entries.iter().map(|(id, node)| (id.clone(), model(id, node, notes))).collect(),
        _ => {
            notes.problem("models", "expected a mapping from ids to models", None);
            Vec::new()
        }
    }
}

fn model(id: &str, node: &YamlNode, notes: &mut FileNotes) -> ModelDraft {
    let mut fields = NodeFields::of(format!("models.{id}"), node, notes);
    if let Err(fault) = check_name(id) {
        notes.problem(&fields.place, fault, None);
    }
    let mut draft = shared(&mut fields, notes);
    let before = notes.problems.len();
    draft.start = start(&mut fields, notes);
    draft.is_broken = notes.problems.len() > before;
    draft.kind = fields.value::<ModelKind>("kind", notes);
    draft.tier = fields.text("tier", notes).filter(|tier| {
        let fault = check_tier(tier).err();
        fault.inspect(|fault| notes.problem(&fields.at("tier"), fault, None)).is_none()
    });
    draft.aliases = fields.texts("aliases", notes).unwrap_or_default();
    draft.memory = fields.value::<ByteSize>("memory", notes).and_then(|bytes| NonZeroU64::new(bytes.0 as u64));
    draft.weight = fields.value::<Weight>("weight", notes).map(|weight| weight.0);
    draft.priority = fields.value("priority", notes);
    if matches!(draft.start, Some(Start::Command { .. })) {
        for (key, is_said) in [
            ("args", draft.engine.extra_args.is_some()),
            ("ctx", draft.engine.ctx.is_some()),
            ("ngl", draft.engine.ngl.is_some()),
            ("threads", draft.engine.threads.is_some()),
            ("prefetch", draft.engine.prefetch.is_some()),
        ] {
            if is_said {
                notes.problem(
                    &fields.at(key),
                    "is llama-server's, and this model has a command of its own",
                    Some("put what its server needs into command".to_owned()),
                );
            }
        }
    }
    fields.finish(&[], "models", notes);
    draft
}

/// The keys that make sense for one model and for all.
fn shared(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> ModelDraft {
    let replicas = fields.value::<NonZeroU32>("replicas", notes).map(NonZeroU32::get);
    if replicas.is_some_and(|replicas| replicas > MOST_REPLICAS) {
        notes.problem(&fields.at("replicas"), format!("expected {MOST_REPLICAS} at most"), None);
    }
    // Every field is named, so that a new one is read here, or by `model` alone.
    ModelDraft {
        engine: EngineDraft {
            ngl: fields.value("ngl", notes),
            ctx: fields.value("ctx", notes),
            parallel: fields.value("parallel", notes),
            threads: fields.value("threads", notes),
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
        strip_params: strip_params(fields, notes),
        sampling: sampling(fields, notes),
        // Of one model: see OF_ONE.
        start: None,
        kind: None,
        tier: None,
        aliases: Vec::new(),
        memory: None,
        weight: None,
        priority: None,
        // Not from these sections.
        remotes: Vec::new(),
        is_broken: false,
        more_args: Vec::new(),
    }
}

fn start(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<Start> {
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
            notes.problem(&fields.place, "has both file and command", Some("keep one of them".to_owned()));
            None
        }
        (None, None) => {
            if health.is_some() {
                let hint = "health of a remote backend stands in its entry of model_list".to_owned();
                notes.problem(&fields.at("health"), "there is no command", Some(hint));
            }
            if model.is_some() {
                let hint = "litellm_params.model of its entry of model_list says it of a remote backend".to_owned();
                notes.problem(&fields.at("served_model_name"), "there is no command", Some(hint));
            }
            None
        }
        (Some(file), None) => {
            if health.is_some() {
                notes.problem(&fields.at("health"), "llama-server is always asked at /health", None);
            }
            if model.is_some() {
                let hint = Some("say other names for clients under aliases".to_owned());
                notes.problem(&fields.at("served_model_name"), "llama-server is not asked by name", hint);
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
                    Some("{port} stands for the port on 127.0.0.1 that the server is to listen on".to_owned()),
                );
            }
            Some(Start::Command { argv, health: health.unwrap_or_else(|| HEALTH.to_owned()), model })
        }
    }
}

/// An absolute path as it is, anything else as a name under `MODELS_DIR`.
pub(in crate::settings) fn start_of(file: &Path) -> Start {
    match file.to_str() {
        Some(name) if !file.is_absolute() => Start::Named(name.to_owned()),
        _ => Start::File(file.to_owned()),
    }
}

/// A command line: a list of words, or one text that is split as a shell does.
fn words(place: &str, node: &YamlNode, notes: &mut FileNotes) -> Option<Vec<String>> {
    let words = match node {
        YamlNode::Text(text) => shlex::split(text),
        YamlNode::List(items) => items.iter().map(YamlNode::scalar).collect(),
        _ => None,
    };
    let words = words.filter(|words| !words.is_empty());
    if words.is_none() {
        notes.problem(place, "expected a list of words, or a text as a shell would split it", None);
    }
    words
}

fn arguments(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<ExtraArgs> {
    let node = fields.node("args")?;
    let place = fields.at("args");
    if matches!(node, YamlNode::List(items) if items.is_empty())
        || matches!(node, YamlNode::Text(text) if text.is_empty())
    {
        return Some(ExtraArgs::default());
    }
    match ExtraArgs::checked(words(&place, node, notes)?) {
        Ok(arguments) => Some(arguments),
        Err(Rejected { allowed, hint }) => {
            notes.problem(&place, format!("expected {allowed}"), hint);
            None
        }
    }
}

fn strip_params(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Option<Vec<String>> {
    let node = fields.node("strip_params")?;
    let place = fields.at("strip_params");
    let names = texts(&place, node, notes)?;
    for name in &names {
        if ESSENTIAL.contains(&name.as_str()) || name.is_empty() {
            notes.problem(&place, format!("{name:?} cannot be removed: a request needs it"), None);
        }
    }
    Some(names)
}

fn sampling(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Vec<(String, Option<String>)> {
    let place = fields.at("sampling");
    match fields.node("sampling") {
        None => Vec::new(),
        Some(YamlNode::Map(entries)) => {
            entries.iter().filter_map(|(name, value)| sampled(&place, name, value, notes)).collect()
        }
        Some(_) => {
            notes.problem(&place, "expected a mapping such as {temperature: 0.7}", None);
            Vec::new()
        }
    }
}

/// One field for requests that do not have it.
pub(super) fn sampled(
    place: &str,
    name: &str,
    value: &YamlNode,
    notes: &mut FileNotes,
) -> Option<(String, Option<String>)> {
    if ESSENTIAL.contains(&name) || name.is_empty() {
        notes.problem(place, format!("{name:?} has no default: each request says it itself"), None);
        return None;
    }
    Some((name.to_owned(), Some(value).filter(|value| **value != YamlNode::Null).map(|value| value.json().to_string())))
}

/// Whether clients can ask for a model by this name.
pub(in crate::settings) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MODEL_NAME_LENGTH {
        Err(format!("the name of a model has 1 to {MODEL_NAME_LENGTH} bytes"))
    } else if name.chars().any(char::is_control) || name.trim() != name {
        Err("the name of a model has no control characters, and no spaces at its ends".to_owned())
    } else {
        Ok(())
    }
}

/// Whether clients can ask for a tier by this name, alone or before a slash.
pub(super) fn check_tier(name: &str) -> Result<(), String> {
    check_name(name).map_err(|fault| fault.replace("model", "tier"))?;
    if name.contains('/') { Err("the name of a tier has no slash".to_owned()) } else { Ok(()) }
}

/// Whether it is a path that can be asked for over HTTP.
pub(super) fn check_path(path: &str) -> Result<(), String> {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte));
    if path.starts_with('/') && is_plain { Ok(()) } else { Err("expected a path such as /health".to_owned()) }
}
