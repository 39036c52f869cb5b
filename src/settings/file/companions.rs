//! Reads the keys of a model for what goes with it: `lora`, `draft`, `speculative`, `chat_template` and `rpc`.
//!
//! Owns what each may hold. Whether the files are there is checked in `preflight/companions.rs`.

use std::ops::RangeInclusive;

use super::fields::{NodeFields, texts};
use super::node::YamlNode;
use crate::settings::bounds::{LARGEST_SCALE, MOST_ADAPTERS, MOST_DRAFTED, MOST_RPC_SERVERS};
use crate::settings::catalogue::{AdapterSetting, CompanionSettings, SpeculativeSetting};
use crate::settings::notes::FileNotes;

/// The tag that Ollama's clients add to a name without one.
const DEFAULT_TAG: &str = "latest";
/// Beginning of the ways to draft that need no file.
const NGRAM: &str = "ngram";
/// The way to draft with layers of the model itself.
const OWN_LAYERS: &str = "draft-mtp";

/// Reads these keys.
pub(super) fn companions(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> CompanionSettings {
    let companions = CompanionSettings {
        adapters: adapters(fields, notes),
        draft: name_of(fields, "draft", "expected the file or the name of a model", notes),
        speculative: speculative(fields, notes),
        chat_template: name_of(fields, "chat_template", "expected a file, or the name of a built-in template", notes),
        rpc: rpc(fields, notes),
    };
    check_drafting(&companions, fields, notes);
    companions
}

fn name_of(
    fields: &mut NodeFields<'_>,
    key: &'static str,
    wanted: &'static str,
    notes: &mut FileNotes,
) -> Option<String> {
    match fields.node(key)? {
        YamlNode::Text(text) if is_name(text) => Some(text.clone()),
        _ => {
            notes.problem(&fields.at(key), wanted, None);
            None
        }
    }
}

/// Returns whether a text can name a file.
fn is_name(text: &str) -> bool {
    !text.trim().is_empty() && !text.chars().any(char::is_control)
}

/// Reads `lora`: a list, or a single entry.
fn adapters(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Vec<AdapterSetting> {
    let location = fields.at("lora");
    let items = match fields.node("lora") {
        None => return Vec::new(),
        Some(YamlNode::List(items)) => items.as_slice(),
        Some(single) => std::slice::from_ref(single),
    };
    if items.len() > MOST_ADAPTERS {
        notes.problem(&location, format!("expected {MOST_ADAPTERS} adapters at most"), None);
        return Vec::new();
    }
    let mut adapters: Vec<AdapterSetting> = Vec::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        let location = format!("{location}[{at}]");
        let Some(adapter) = adapter(&location, item, notes) else { continue };
        let is_taken = adapter.name.is_some() && adapters.iter().any(|other| other.name == adapter.name);
        match is_taken {
            true => notes.problem(&format!("{location}.name"), "another adapter has this name", None),
            false => adapters.push(adapter),
        }
    }
    adapters
}

fn adapter(location: &str, item: &YamlNode, notes: &mut FileNotes) -> Option<AdapterSetting> {
    if let YamlNode::Text(file) = item
        && is_name(file)
    {
        return Some(AdapterSetting { file: file.clone(), scale: 1.0, name: None });
    }
    let YamlNode::Map(_) = item else {
        let hint = Some("write {file: NAME, scale: 1.0, name: NAME}; scale and name may be left out".to_owned());
        notes.problem(location, "expected a LoRA adapter", hint);
        return None;
    };
    let mut fields = NodeFields::new(location, item, notes);
    let file = name_of(&mut fields, "file", "expected the file or the name of an adapter", notes);
    let scale = match fields.node("scale") {
        None => Some(1.0),
        Some(node) => number(node, -LARGEST_SCALE..=LARGEST_SCALE),
    };
    if scale.is_none() {
        let fault = format!("expected a number from -{LARGEST_SCALE} to {LARGEST_SCALE}");
        notes.problem(&fields.at("scale"), fault, None);
    }
    let name = fields.text("name", notes);
    let name_fault = name.as_deref().and_then(|name| check_adapter_name(name).err());
    if let Some(fault) = &name_fault {
        notes.problem(&fields.at("name"), fault, None);
    }
    if file.is_none() && !notes.problems.iter().any(|problem| problem.fault.contains(&fields.at("file"))) {
        notes.problem(&fields.at("file"), "is missing", None);
    }
    fields.finish(&[], "models.lora", notes);
    Some(AdapterSetting { file: file?, scale: scale?, name }).filter(|_| name_fault.is_none())
}

/// Checks the name of an adapter, which follows that of its model and a colon; `merge/companions.rs` checks both together.
///
/// # Errors
///
/// Returns the rule that it breaks.
fn check_adapter_name(name: &str) -> Result<(), &'static str> {
    match name {
        DEFAULT_TAG => Err("Ollama's clients add :latest to the name of any model"),
        _ if name.contains(':') => Err("the name of an adapter must have no colon"),
        _ if name.is_empty() || name.trim() != name => Err("the name of an adapter must have no spaces at its ends"),
        _ => Ok(()),
    }
}

/// Reads `speculative`: a way to draft, or a mapping.
fn speculative(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> SpeculativeSetting {
    let location = fields.at("speculative");
    let node = match fields.node("speculative") {
        None => return SpeculativeSetting::default(),
        Some(YamlNode::Text(kind)) if is_kind(kind) => {
            return SpeculativeSetting { kind: Some(kind.clone()), ..SpeculativeSetting::default() };
        }
        Some(node @ YamlNode::Map(_)) => node,
        Some(_) => {
            let hint = Some("write {max: 16, min: 0}, or a way such as ngram-simple".to_owned());
            notes.problem(&location, "expected how tokens are drafted", hint);
            return SpeculativeSetting::default();
        }
    };
    let mut fields = NodeFields::new(location, node, notes);
    let kind = fields.text("type", notes);
    if kind.as_deref().is_some_and(|kind| !is_kind(kind)) {
        notes.problem(&fields.at("type"), "expected ways to draft, such as ngram-simple", None);
    }
    let mut count = |key: &'static str, most: u32| {
        let found = whole(fields.node(key)?).filter(|count| *count <= most);
        if found.is_none() {
            notes.problem(&fields.at(key), format!("expected a whole number from 0 to {most}"), None);
        }
        found
    };
    let (max, min, ctx) =
        (count("max", MOST_DRAFTED), count("min", MOST_DRAFTED), count("ctx", i32::MAX.unsigned_abs()));
    let p_min = fields.node("p_min").and_then(|node| {
        let found = number(node, 0.0..=1.0);
        if found.is_none() {
            notes.problem(&fields.at("p_min"), "expected a number from 0 to 1", None);
        }
        found
    });
    let ngl = fields.value("ngl", notes);
    if max.zip(min).is_some_and(|(max, min)| min > max) {
        notes.problem(&fields.at("min"), "is more than max", None);
    }
    fields.finish(&[], "models.speculative", notes);
    SpeculativeSetting { kind, max, min, p_min, ctx, ngl }
}

/// Returns whether this can be a list of ways to draft. Which there are, llama-server's help says.
fn is_kind(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    text.split(',').all(is_word)
}

/// Returns a number in this range, with as many digits as llama-server reads.
fn number(node: &YamlNode, range: RangeInclusive<f32>) -> Option<f32> {
    let YamlNode::Number(number) = node else { return None };
    number.to_string().parse().ok().filter(|number| range.contains(number))
}

/// Returns a whole number.
fn whole(node: &YamlNode) -> Option<u32> {
    let YamlNode::Number(number) = node else { return None };
    u32::try_from(number.as_u64()?).ok()
}

/// Records problems with settings of drafts that nothing drafts, and with ways to draft that lack their model.
fn check_drafting(companions: &CompanionSettings, fields: &NodeFields<'_>, notes: &mut FileNotes) {
    let CompanionSettings { draft, speculative, .. } = companions;
    let SpeculativeSetting { kind, max, min, p_min, ctx, ngl } = speculative;
    let kinds: Vec<&str> = kind.iter().flat_map(|kind| kind.split(',')).collect();
    let needs_file = |kind: &&&str| !kind.starts_with(NGRAM) && **kind != OWN_LAYERS && **kind != "none";
    if draft.is_none() {
        if let Some(kind) = kinds.iter().find(needs_file) {
            let hint = Some("name a small model with the same vocabulary under draft".to_owned());
            notes.problem(&fields.at("speculative"), format!("{kind} needs a draft model"), hint);
        }
        let has_sizes = max.is_some() || min.is_some() || p_min.is_some() || ctx.is_some() || ngl.is_some();
        if has_sizes && !kinds.contains(&OWN_LAYERS) {
            let hint = Some("name it under draft; for ngram ways, args take --spec-ngram-...".to_owned());
            notes.problem(&fields.at("speculative"), "its sizes are those of a draft model, and there is none", hint);
        }
    } else if !kinds.is_empty() && !kinds.iter().any(|kind| needs_file(&kind)) {
        let hint = Some("leave speculative.type or draft out".to_owned());
        notes.problem(&fields.at("draft"), format!("{} uses no draft model", kinds.join(",")), hint);
    }
}

/// Reads `rpc`: addresses with a port each.
fn rpc(fields: &mut NodeFields<'_>, notes: &mut FileNotes) -> Vec<String> {
    let location = fields.at("rpc");
    let Some(node) = fields.node("rpc") else { return Vec::new() };
    let Some(addresses) = texts(&location, node, notes) else { return Vec::new() };
    if addresses.len() > MOST_RPC_SERVERS {
        notes.problem(&location, format!("expected {MOST_RPC_SERVERS} machines at most"), None);
        return Vec::new();
    }
    for address in addresses.iter().filter(|address| !is_host_and_port(address)) {
        notes.problem(&location, format!("expected HOST:PORT, found {address:?}"), None);
    }
    addresses
}

/// Returns whether this is a host and a port. llama-server divides the text at its last colon, and lists at commas.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0) && port.bytes().all(|byte| byte.is_ascii_digit());
    !host.is_empty() && !host.starts_with('-') && host.bytes().all(is_plain) && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (CompanionSettings, Vec<String>) {
        let node = YamlNode::parse(text).unwrap();
        let mut notes = FileNotes::default();
        let mut fields = NodeFields::new("models.m", &node, &mut notes);
        let companions = companions(&mut fields, &mut notes);
        fields.finish(&[], "models", &mut notes);
        (companions, notes.problems.into_iter().map(|problem| problem.fault).collect())
    }

    #[test]
    fn everything_that_goes_with_a_model_is_read() {
        let (companions, problems) = read(
            "{lora: [a.gguf, {file: b.gguf, scale: -0.5, name: formal}], draft: Org/Small-GGUF:Q8_0, \
             speculative: {max: 8, min: 1, p_min: 0.75, ngl: 99}, chat_template: my.jinja, rpc: ['gpu1:50052']}",
        );
        assert_eq!(problems, Vec::<String>::new());
        let adapter = |file: &str, scale, name: Option<&str>| AdapterSetting {
            file: file.to_owned(),
            scale,
            name: name.map(str::to_owned),
        };
        assert_eq!(companions.adapters, [adapter("a.gguf", 1.0, None), adapter("b.gguf", -0.5, Some("formal"))]);
        assert_eq!(companions.draft.as_deref(), Some("Org/Small-GGUF:Q8_0"));
        let SpeculativeSetting { max, min, p_min, .. } = companions.speculative;
        assert_eq!((max, min, p_min), (Some(8), Some(1), Some(0.75)));
        assert_eq!(companions.keys().collect::<Vec<_>>(), ["lora", "draft", "speculative", "chat_template", "rpc"]);
        assert_eq!(read("{lora: a.gguf}").0.adapters, [adapter("a.gguf", 1.0, None)]);
        assert_eq!(read("{speculative: ngram-simple}").0.speculative.kind.as_deref(), Some("ngram-simple"));
        assert_eq!(read("{}").0.keys().count(), 0);
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, fault) in [
            ("{lora: 5}", "models.m.lora[0]: expected a LoRA adapter"),
            ("{lora: [{scale: 1}]}", "models.m.lora[0].file: is missing"),
            ("{lora: [{file: a, scale: x}]}", "models.m.lora[0].scale: expected a number"),
            ("{lora: [{file: a, scale: 1000}]}", "models.m.lora[0].scale: expected a number from -100 to 100"),
            ("{lora: [{file: a, name: 'x:y'}]}", "models.m.lora[0].name: the name of an adapter must have no colon"),
            ("{lora: [{file: a, name: latest}]}", "models.m.lora[0].name: Ollama's clients add :latest"),
            ("{lora: [{file: a, name: x}, {file: b, name: x}]}", "models.m.lora[1].name: another adapter"),
            ("{lora: [{file: a, scales: 1}]}", "models.m.lora[0].scales: unknown key"),
            ("{draft: ''}", "models.m.draft: expected the file or the name"),
            ("{draft: a, speculative: ngram-simple}", "models.m.draft: ngram-simple uses no draft model"),
            ("{speculative: draft-simple}", "models.m.speculative: draft-simple needs a draft model"),
            ("{speculative: {max: 4}}", "models.m.speculative: its sizes are those of a draft model"),
            ("{draft: a, speculative: {max: 1, min: 2}}", "models.m.speculative.min: is more than max"),
            ("{draft: a, speculative: {max: 1.5}}", "models.m.speculative.max: expected a whole number"),
            ("{draft: a, speculative: {p_min: 2}}", "models.m.speculative.p_min: expected a number from 0 to 1"),
            ("{speculative: 'N gram'}", "models.m.speculative: expected how tokens are drafted"),
            ("{chat_template: []}", "models.m.chat_template: expected a file"),
            ("{rpc: [gpu1]}", "models.m.rpc: expected HOST:PORT, found \"gpu1\""),
            ("{rpc: ['gpu1:0']}", "models.m.rpc: expected HOST:PORT"),
            ("{rpc: ['a,b:1']}", "models.m.rpc: expected HOST:PORT"),
        ] {
            let (_, problems) = read(text);
            assert!(problems.len() == 1 && problems[0].starts_with(fault), "{text}: {problems:?}");
        }
    }
}
