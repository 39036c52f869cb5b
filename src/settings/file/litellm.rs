//! Reads `model_list:` of the configuration file, in LiteLLM's format.
//!
//! Owns single entries: each is a remote backend, or names a local model. `merge/mod.rs` decides which of the two an
//! entry without `api_base` is, and which entries describe the same model.

use std::num::{NonZeroU32, NonZeroUsize};

use super::address::api_base;
use super::fields::{NodeFields, read};
use super::known::{COMPATIBLE, ENTRY, FOREIGN, MODES, PARAMS, SAMPLING, WELL_KNOWN};
use super::models::{check_name, check_path, check_tier, sampling_field};
use super::node::YamlNode;
use crate::models::ModelKind;
use crate::settings::bounds::{REMOTE_KEY_LENGTH, REMOTE_SLOTS};
use crate::settings::catalogue::RemoteSettings;
use crate::settings::environment::Environment;
use crate::settings::notes::FileNotes;
use crate::settings::values::{Secret, Value, Weight};

/// The path at which a remote backend is probed unless its entry sets `health`. Every server with OpenAI's API has it.
pub(in crate::settings) const REMOTE_HEALTH: &str = "/v1/models";

/// The prefix of a value that refers to an environment variable.
const REFERENCE: &str = "os.environ/";

/// The variables to which values may refer. Those of the file take precedence, as in LiteLLM.
pub(super) struct Variables<'a> {
    pub(super) environment: &'a Environment,
    /// Names and values of `environment_variables:`.
    pub(super) from_file: Vec<(String, String)>,
}

impl Variables<'_> {
    /// Returns the value of a variable; one of the file may itself refer to an environment variable.
    fn get(&self, name: &str) -> Option<String> {
        let from_file = self.from_file.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        match from_file.map(|value| value.strip_prefix(REFERENCE).ok_or(value)) {
            Some(Ok(other)) => self.environment.get(other).map(str::to_owned),
            Some(Err(value)) => Some(value.to_owned()).filter(|value| !value.is_empty()),
            None => self.environment.get(name).map(str::to_owned),
        }
    }
}

/// One entry of `model_list`.
#[derive(Debug, Clone)]
pub(in crate::settings) struct ModelListEntry {
    /// The location of the entry, such as `model_list[0]`.
    pub(in crate::settings) location: String,
    /// `model_name`.
    pub(in crate::settings) name: String,
    /// `litellm_params.model`, including the provider.
    pub(in crate::settings) model: Option<String>,
    pub(in crate::settings) backend: Backend,
    pub(in crate::settings) kind: Option<ModelKind>,
    pub(in crate::settings) tier: Option<String>,
    pub(in crate::settings) weight: Option<f64>,
    pub(in crate::settings) priority: Option<u32>,
    pub(in crate::settings) sampling: Vec<(String, Option<String>)>,
}

/// The backend of an entry.
#[derive(Debug, Clone)]
pub(in crate::settings) enum Backend {
    /// A remote backend.
    Remote(RemoteSettings),
    /// The local model of that name if it exists, else the provider's public API if its URL is known.
    ByName(Option<Provider>),
    /// None: a problem was recorded.
    Invalid,
}

/// A provider with a well-known URL.
#[derive(Debug, Clone)]
pub(in crate::settings) struct Provider {
    pub(in crate::settings) remote: RemoteSettings,
    /// The variable that must hold its API key, if it is unset.
    pub(in crate::settings) missing_variable: Option<&'static str>,
}

/// Returns the entries in order. Entries of modes that this gateway does not serve are skipped with a warning.
pub(super) fn entries(
    node: &YamlNode,
    slots: Option<NonZeroUsize>,
    variables: &Variables<'_>,
    notes: &mut FileNotes,
) -> Vec<ModelListEntry> {
    match node {
        YamlNode::Null => Vec::new(),
        YamlNode::List(items) => {
            let indexed =
                |(i, item): (usize, &YamlNode)| entry(format!("model_list[{i}]"), item, slots, variables, notes);
            items.iter().enumerate().filter_map(indexed).collect()
        }
        _ => {
            notes.problem("model_list", "expected a list of models", None);
            Vec::new()
        }
    }
}

/// Reads one entry; `None` after a problem was recorded, or if its mode is not served.
fn entry(
    location: String,
    node: &YamlNode,
    slots: Option<NonZeroUsize>,
    variables: &Variables<'_>,
    notes: &mut FileNotes,
) -> Option<ModelListEntry> {
    let mut fields = NodeFields::new(location.clone(), node, notes);
    let before = notes.problems.len();
    let name = fields.text("model_name", notes);
    match name.as_deref().map(check_name) {
        Some(Err(fault)) => notes.problem(&fields.at("model_name"), fault, None),
        // If the name has another type, `text` has already recorded a problem.
        None if before == notes.problems.len() && matches!(node, YamlNode::Map(_)) => {
            notes.problem(&fields.at("model_name"), "is missing", None);
        }
        _ => {}
    }
    // LiteLLM routes all matching names to such an entry; this gateway routes exact names only.
    if name.as_deref().is_some_and(|name| name.contains('*')) {
        let hint = Some("name each model in an entry of its own".to_owned());
        notes.problem(&fields.at("model_name"), "patterns are not supported", hint);
    }
    let weight = fields.value::<Weight>("weight", notes).map(|weight| weight.0);
    let priority: Option<u32> = fields.value("priority", notes);
    let rpm: Option<NonZeroU32> = fields.value("rpm", notes);
    let tpm: Option<NonZeroU32> = fields.value("tpm", notes);
    let health = fields.text("health", notes);
    if let Some(fault) = health.as_deref().and_then(|path| check_path(path).err()) {
        notes.problem(&fields.at("health"), fault, None);
    }
    let tier = fields.text("tier", notes);
    if let Some(fault) = tier.as_deref().and_then(|tier| check_tier(tier).err()) {
        notes.problem(&fields.at("tier"), fault, None);
    }
    let kind = kind(&fields.at("model_info"), fields.node("model_info"), notes);

    let mut params = Params {
        fields: NodeFields::new(
            fields.at("litellm_params"),
            fields.node("litellm_params").unwrap_or(&YamlNode::Null),
            notes,
        ),
        variables,
    };
    let model = params.text("model", notes);
    let rpm = params.value("rpm", notes).or(rpm);
    let tpm = params.value("tpm", notes).or(tpm);
    let slots = params.value("max_parallel_requests", notes).or(slots).map_or(REMOTE_SLOTS, NonZeroUsize::get);
    let health = health.unwrap_or_else(|| REMOTE_HEALTH.to_owned());
    let with_limits = |remote: RemoteSettings| RemoteSettings { rpm, tpm, slots, health, ..remote };
    let backend = match params.backend(model.as_deref(), notes) {
        Some(Backend::Remote(remote)) => Backend::Remote(with_limits(remote)),
        Some(Backend::ByName(Some(Provider { remote, missing_variable }))) => {
            Backend::ByName(Some(Provider { remote: with_limits(remote), missing_variable }))
        }
        other => other.unwrap_or(Backend::Invalid),
    };
    let params_weight = params.value::<Weight>("weight", notes).map(|weight| weight.0);
    let weight = weight.or(params_weight);
    let order: Option<u32> = params.value("order", notes);
    let sampling = params.sampling(notes);
    params.fields.finish(PARAMS, "model_list[].litellm_params", notes);
    fields.finish(ENTRY, "model_list[]", notes);
    let kind = kind?;
    let priority = priority.or(order);
    Some(ModelListEntry { location, name: name?, model, backend, kind, tier, weight, priority, sampling })
}

/// Returns the kind that `model_info.mode` names, `Some(None)` if it names none, and `None` if this gateway has no
/// routes for the mode.
fn kind(location: &str, node: Option<&YamlNode>, notes: &mut FileNotes) -> Option<Option<ModelKind>> {
    // `model_info` may contain any keys: LiteLLM passes them on to its clients.
    let Some(YamlNode::Map(entries)) = node else { return Some(None) };
    let mode = entries.iter().find(|(key, _)| key == "mode").and_then(|(_, value)| value.scalar()).unwrap_or_default();
    match mode.as_str() {
        "" => Some(None),
        "chat" | "completion" | "responses" => Some(Some(ModelKind::Chat)),
        "embedding" => Some(Some(ModelKind::Embedding)),
        "rerank" => Some(Some(ModelKind::Rerank)),
        other if MODES.contains(&other) => {
            notes.ignored.insert(format!("entries of model_list with model_info.mode {other}"));
            None
        }
        other => {
            let fault = format!("expected chat, completion, embedding or rerank, found {other:?}");
            notes.problem(&format!("{location}.mode"), fault, None);
            Some(None)
        }
    }
}

/// `litellm_params`, whose values may refer to environment variables.
struct Params<'a> {
    fields: NodeFields<'a>,
    variables: &'a Variables<'a>,
}

impl Params<'_> {
    fn text(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<String> {
        let text = self.fields.text(key, notes)?;
        self.resolved(key, text, notes)
    }

    fn value<T: Value>(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<T> {
        match self.fields.node(key)? {
            YamlNode::Text(text) => {
                let text = self.resolved(key, text.clone(), notes)?;
                read(&self.fields.at(key), &YamlNode::Text(text), notes)
            }
            node => read(&self.fields.at(key), node, notes),
        }
    }

    /// Replaces a reference `os.environ/NAME` by the value of the variable.
    fn resolved(&self, key: &str, text: String, notes: &mut FileNotes) -> Option<String> {
        let Some(name) = text.strip_prefix(REFERENCE) else { return Some(text) };
        let value = self.variables.get(name);
        if value.is_none() {
            let hint = Some(format!("set {name}, or remove the key"));
            notes.problem(&self.fields.at(key), format!("the environment variable {name} is not set"), hint);
        }
        value
    }

    /// Returns the backend that these keys describe, or `None` after a problem was recorded.
    fn backend(&mut self, model: Option<&str>, notes: &mut FileNotes) -> Option<Backend> {
        let before = notes.problems.len();
        let bases = ["api_base", "base_url"].map(|key| (key, self.text(key, notes)));
        let api_path = self.text("api_path", notes);
        if api_path.as_deref().is_some_and(|path| !path.is_empty() && check_path(path).is_err()) {
            let hint = Some("/ for a server whose routes are not below /v1".to_owned());
            notes.problem(&self.fields.at("api_path"), "expected a path such as /v1", hint);
        }
        let api_key = self.text("api_key", notes).map(|key| (self.fields.at("api_key"), key));
        if notes.problems.len() > before {
            return None;
        }
        let api_key = match api_key {
            Some((location, key)) => Some(check_key(&location, key, notes)?),
            None => None,
        };
        let provider = model.and_then(|model| model.split_once('/')).map(|(provider, _)| provider);
        let remote = |api_base: String, api_key: Option<Secret>| RemoteSettings {
            api_base,
            api_key,
            model: model.map(without_provider),
            rpm: None,
            tpm: None,
            slots: REMOTE_SLOTS,
            health: REMOTE_HEALTH.to_owned(),
            weight: 1.0,
            priority: 0,
        };
        let Some((key, base)) = bases.into_iter().find_map(|(key, base)| Some((key, base?))) else {
            let known = WELL_KNOWN.iter().find(|(name, _, _)| Some(*name) == provider);
            return Some(Backend::ByName(known.map(|(_, base, variable)| {
                let of_variable = || self.variables.get(variable).map(Secret);
                let api_key = api_key.or_else(of_variable);
                let missing_variable = if api_key.is_none() { Some(*variable) } else { None };
                Provider { remote: remote((*base).to_owned(), api_key), missing_variable }
            })));
        };
        if let Some(foreign) = provider.filter(|provider| FOREIGN.contains(provider)) {
            notes.problem(
                &self.fields.at("model"),
                format!("{foreign} speaks an API of its own, not OpenAI's"),
                Some("use openai/... if the server has OpenAI's API, or remove the entry".to_owned()),
            );
            return None;
        }
        // As in LiteLLM: Infinity's routes are not below /v1.
        let api_path = api_path.or_else(|| (provider == Some("infinity")).then(String::new));
        match api_base(&base, api_path.as_deref()) {
            Ok(base) => Some(Backend::Remote(remote(base, api_key))),
            Err(hint) => {
                let fault = "expected a URL such as http://server1:8000";
                notes.problem(&self.fields.at(key), fault, Some(hint.to_owned()));
                None
            }
        }
    }

    fn sampling(&mut self, notes: &mut FileNotes) -> Vec<(String, Option<String>)> {
        let mut found = Vec::new();
        for key in SAMPLING {
            let Some(node) = self.fields.node(key) else { continue };
            found.extend(sampling_field(&self.fields.location, key, node, notes));
        }
        found
    }
}

/// Returns the model's name without the provider, for the providers whose prefix LiteLLM removes too.
fn without_provider(model: &str) -> String {
    match model.split_once('/') {
        Some((provider, name)) if COMPATIBLE.contains(&provider) && !name.is_empty() => name.to_owned(),
        _ => model.to_owned(),
    }
}

/// Checks that a key can be sent in a header. A problem does not quote the key.
pub(in crate::settings) fn check_key(location: &str, key: String, notes: &mut FileNotes) -> Option<Secret> {
    if key.is_empty() || key.len() > REMOTE_KEY_LENGTH || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        let fault = format!("expected 1 to {REMOTE_KEY_LENGTH} visible ASCII characters");
        notes.problem(location, fault, Some("leave it out if the backend needs no key".to_owned()));
        return None;
    }
    Some(Secret(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_removed_where_litellm_removes_it() {
        for (model, name) in [
            ("openai/gpt-4o", "gpt-4o"),
            ("openai/facebook/opt-125m", "facebook/opt-125m"),
            ("hosted_vllm/x", "x"),
            ("BAAI/bge-reranker-v2-m3", "BAAI/bge-reranker-v2-m3"),
            ("gpt-4o", "gpt-4o"),
            ("openai/", "openai/"),
        ] {
            assert_eq!(without_provider(model), name);
        }
    }
}
