//! Reads `litellm_params` of an entry of `model_list`: the backend, its key, and what is added to its requests.
//!
//! Owns what each key means, and which entries no backend here can serve. Source: LiteLLM's `types/router.py` for the
//! keys, `litellm_core_utils/get_llm_provider_logic.py` for the providers.

use std::cell::RefCell;
use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};
use serde_json::Value as Json;

use super::address::{api_base, check_api_path};
use super::fields::{NodeFields, read};
use super::known::{
    APIS, COHERE_AS_OPENAI, COMPATIBLE, FOREIGN, INFERRED, ON_THIS_MACHINE, RESERVED_HEADERS, WELL_KNOWN,
};
use super::models::sampling_field;
use super::node::YamlNode;
use super::unread_param::{ForeignParam, foreign_param};
use crate::settings::bounds::{MOST_REMOTE_HEADERS, REMOTE_KEY_LENGTH};
use crate::settings::catalogue::RemoteSettings;
use crate::settings::environment::Environment;
use crate::settings::notes::{FileNotes, LeftOutReason, did_you_mean, printable};
use crate::settings::values::{BackendApi, Secret, Value};

/// The prefix of a value that refers to an environment variable.
const REFERENCE: &str = "os.environ/";

/// The header in which OpenAI's client sends `organization`.
const ORGANIZATION_HEADER: &str = "openai-organization";

/// What values may refer to. Variables of the file take precedence over those of the environment, as in LiteLLM.
pub(super) struct References<'a> {
    pub(super) environment: &'a Environment,
    /// Names and values of `environment_variables:`.
    pub(super) from_file: Vec<(String, String)>,
    /// `credential_list`: the names and the values of each.
    pub(super) credentials: Vec<(String, Vec<(String, YamlNode)>)>,
    /// The names of `environment_variables:` that were read.
    pub(super) used: RefCell<BTreeSet<String>>,
}

impl References<'_> {
    /// Returns the value of a variable; one of the file may itself refer to an environment variable.
    fn get(&self, name: &str) -> Option<String> {
        let from_file = self.from_file.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        if from_file.is_some() {
            self.used.borrow_mut().insert(name.to_owned());
        }
        match from_file.map(|value| value.strip_prefix(REFERENCE).ok_or(value)) {
            Some(Ok(other)) => self.environment.get(other).map(str::to_owned),
            Some(Err(value)) => Some(value.to_owned()).filter(|value| !value.is_empty()),
            None => self.environment.get(name).map(str::to_owned),
        }
    }
}

/// The backend of an entry.
#[derive(Debug, Clone)]
pub(in crate::settings) enum Backend {
    /// A remote backend.
    Remote(RemoteSettings),
    /// The local model of that name if it exists, else the provider's own address, or the reason why there is none.
    ByName(Result<RemoteSettings, LeftOutReason>),
    /// None: no backend here can serve the entry, or it refers to a variable that is not set.
    LeftOut(LeftOutReason),
    /// None: a problem was recorded.
    Invalid,
}

/// The keys of `litellm_params`.
pub(super) struct Params<'a> {
    pub(super) fields: NodeFields<'a>,
    references: &'a References<'a>,
    /// The values of the credential that `litellm_credential_name` names.
    credential: &'a [(String, YamlNode)],
    /// The keys that refer to an environment variable that is not set, and its name.
    unset: RefCell<Vec<(String, String)>>,
}

/// The environment variables that an entry refers to and that are not set.
pub(super) struct UnsetVariables {
    reason: LeftOutReason,
    /// Whether a local model of that name needs none of them.
    is_for_remotes: bool,
}

impl UnsetVariables {
    /// Returns the backend of an entry that refers to these variables, in place of the one that was read without them.
    /// Problems of the entry in `notes` come first: a mistake beside an unset variable is one all the same.
    pub(super) fn backend(self, without: Backend, notes: &FileNotes) -> Backend {
        match without {
            Backend::Remote(_) | Backend::ByName(_) if !notes.problems.is_empty() => Backend::Invalid,
            Backend::ByName(_) if self.is_for_remotes => Backend::ByName(Err(self.reason)),
            Backend::Remote(_) | Backend::ByName(_) => Backend::LeftOut(self.reason),
            Backend::LeftOut(_) | Backend::Invalid => without,
        }
    }
}

impl<'a> Params<'a> {
    pub(super) fn new(
        location: String,
        node: &'a YamlNode,
        references: &'a References<'a>,
        notes: &mut FileNotes,
    ) -> Self {
        let mut params = Self {
            fields: NodeFields::new(location, node, notes),
            references,
            credential: &[],
            unset: RefCell::default(),
        };
        if let Some(name) = params.text("litellm_credential_name", notes) {
            match references.credentials.iter().find(|(known, _)| *known == name) {
                Some((_, values)) => params.credential = values,
                None => {
                    let hint = did_you_mean(&name, references.credentials.iter().map(|(known, _)| known.as_str()));
                    let fault = format!("credential_list has no {name:?}");
                    notes.problem(&params.fields.at("litellm_credential_name"), fault, hint);
                }
            }
        }
        params
    }

    /// Takes a key of the entry, or else of its credential.
    fn node(&mut self, key: &'static str) -> Option<&'a YamlNode> {
        let own = self.fields.node(key);
        own.or_else(|| self.credential.iter().find(|(known, _)| known == key).map(|(_, node)| node))
    }

    pub(super) fn text(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<String> {
        match self.node(key)? {
            YamlNode::Text(text) => self.resolved(key, text.clone()),
            YamlNode::Null => None,
            _ => {
                notes.problem(&self.fields.at(key), "expected a string", Some("put it into quotes".to_owned()));
                None
            }
        }
    }

    pub(super) fn value<T: Value>(&mut self, key: &'static str, notes: &mut FileNotes) -> Option<T> {
        match self.fields.node(key)? {
            YamlNode::Text(text) => {
                let text = self.resolved(key, text.clone())?;
                read(&self.fields.at(key), &YamlNode::Text(text), notes)
            }
            node => read(&self.fields.at(key), node, notes),
        }
    }

    /// Replaces a reference `os.environ/NAME` by the value of the variable; `None` if it is not set, which
    /// [`Self::unset`] tells.
    fn resolved(&self, key: &str, text: String) -> Option<String> {
        let Some(name) = text.strip_prefix(REFERENCE) else { return Some(text) };
        let value = self.references.get(name);
        if value.is_none() {
            self.unset.borrow_mut().push((key.to_owned(), name.to_owned()));
        }
        value
    }

    /// Returns the value as JSON, with all references in it resolved; `None` if a variable is not set.
    fn resolved_json(&self, key: &str, node: &YamlNode) -> Option<Json> {
        match node {
            YamlNode::Text(text) => self.resolved(key, text.clone()).map(Json::String),
            YamlNode::List(items) => {
                items.iter().map(|item| self.resolved_json(key, item)).collect::<Option<Vec<_>>>().map(Json::Array)
            }
            YamlNode::Map(entries) => {
                let resolved = |(name, node): &(String, YamlNode)| Some((name.clone(), self.resolved_json(key, node)?));
                entries.iter().map(resolved).collect::<Option<_>>().map(Json::Object)
            }
            other => Some(other.json()),
        }
    }

    /// Returns the variables that are not set, if there are any. Call it after all keys have been read.
    pub(super) fn unset(&self) -> Option<UnsetVariables> {
        let unset = self.unset.borrow();
        if unset.is_empty() {
            return None;
        }
        let faults: Vec<String> = unset
            .iter()
            .map(|(key, name)| format!("{key}: the environment variable {} is not set", printable(name)))
            .collect();
        let names: Vec<String> = unset.iter().map(|(_, name)| printable(name)).collect();
        let hint = format!("set {}, or remove what refers to it", names.join(", "));
        let reason = LeftOutReason { fault: faults.join(", "), hint, is_name_unknown: false };
        Some(UnsetVariables { reason, is_for_remotes: unset.iter().all(|(key, _)| key == "api_key") })
    }

    /// Returns the provider of `model`: `custom_llm_provider`, else its prefix, else the one that LiteLLM infers.
    pub(super) fn provider(&mut self, model: Option<&str>, notes: &mut FileNotes) -> Option<String> {
        if let Some(custom) = self.text("custom_llm_provider", notes) {
            return Some(custom);
        }
        match model?.split_once('/') {
            Some((prefix, _)) => {
                let is_known = COMPATIBLE.contains(&prefix) || FOREIGN.contains(&prefix);
                is_known.then(|| prefix.to_owned())
            }
            None => {
                let is_meant = |(beginning, _): &&(&str, &str)| model.is_some_and(|model| model.starts_with(beginning));
                INFERRED.iter().find(is_meant).map(|(_, provider)| (*provider).to_owned())
            }
        }
    }

    /// Returns the backend that these keys describe, without what is added to its requests. `api` is the API that the
    /// entry names; without it, the provider tells.
    pub(super) fn backend(
        &mut self,
        model: Option<&str>,
        provider: Option<&str>,
        api: Option<BackendApi>,
        notes: &mut FileNotes,
    ) -> Backend {
        let before = notes.problems.len();
        let has_base = ["api_base", "base_url"].iter().any(|key| self.fields.has(key));
        let bases = ["api_base", "base_url"].map(|key| (key, self.text(key, notes)));
        let api_path = self.text("api_path", notes);
        if let Some(fault) = api_path.as_deref().and_then(|path| check_api_path(path).err()) {
            let hint = Some("/ for a server whose routes are not below /v1".to_owned());
            notes.problem(&self.fields.at("api_path"), fault, hint);
        }
        let api_key = self.text("api_key", notes);
        if let Some(foreign) = provider.filter(|provider| FOREIGN.contains(provider)) {
            let reason = LeftOutReason {
                fault: format!("{foreign} speaks an API of its own, not OpenAI's"),
                hint: "if its server has OpenAI's API too, name it openai/... with an api_base".to_owned(),
                is_name_unknown: false,
            };
            return if has_base { Backend::LeftOut(reason) } else { Backend::ByName(Err(reason)) };
        }
        if notes.problems.len() > before {
            return Backend::Invalid;
        }
        let base = bases.into_iter().find_map(|(key, base)| Some((key, base?)));
        let api_key = match api_key {
            Some(key) => match check_key(&self.fields.at("api_key"), key, notes) {
                Some(key) => Some(key),
                None => return Backend::Invalid,
            },
            None => None,
        };
        let model = model.map(|model| without_provider(model, provider));
        let Some((key, base)) = base else {
            let remote = self.known_address(provider, api, api_key);
            return Backend::ByName(remote.map(|remote| RemoteSettings { model, ..remote }));
        };
        let is_like_openai = api.is_none() && base.contains(COHERE_AS_OPENAI);
        let api = if is_like_openai { BackendApi::OpenAi } else { api_of(provider, api) };
        match api_base(&base, api_path.as_deref().or(api.api_path())) {
            Ok(base) => Backend::Remote(RemoteSettings { api_key, model, ..RemoteSettings::speaking(api, base) }),
            Err(hint) => {
                let fault = "expected a URL such as http://server1:8000";
                notes.problem(&self.fields.at(key), fault, Some(hint.to_owned()));
                Backend::Invalid
            }
        }
    }

    /// Returns the backend at the provider's own address.
    ///
    /// # Errors
    ///
    /// The provider has no address of its own, or the variable that holds its API key is not set.
    fn known_address(
        &self,
        provider: Option<&str>,
        api: Option<BackendApi>,
        api_key: Option<Secret>,
    ) -> Result<RemoteSettings, LeftOutReason> {
        let at = |base: &str, api_key| RemoteSettings {
            api_key,
            ..RemoteSettings::speaking(api_of(provider, api), base.to_owned())
        };
        let local = ON_THIS_MACHINE.iter().find(|(name, _)| Some(*name) == provider);
        if let Some((_, base)) = local {
            return Ok(at(base, api_key));
        }
        let known = WELL_KNOWN.iter().find(|(name, _, _)| Some(*name) == provider);
        let Some((_, base, variable)) = known else {
            return Err(LeftOutReason {
                fault: "it has no api_base, and no local model has this name".to_owned(),
                hint: "set api_base, or name a model of models:".to_owned(),
                is_name_unknown: true,
            });
        };
        match api_key.or_else(|| self.references.get(variable).map(Secret)) {
            Some(key) => Ok(at(base, Some(key))),
            None => Err(LeftOutReason {
                fault: format!("it has no api_key, and {variable} is not set"),
                hint: format!("set {variable}, or api_key: os.environ/NAME"),
                is_name_unknown: false,
            }),
        }
    }

    /// Returns the headers that are set in each request, with their names in lower case.
    pub(super) fn headers(&mut self, notes: &mut FileNotes) -> Vec<(String, Secret)> {
        let mut headers: Vec<(String, Secret)> = Vec::new();
        if let Some(value) = self.text("organization", notes) {
            headers.push((ORGANIZATION_HEADER.to_owned(), Secret(value)));
        }
        // As in LiteLLM, `extra_headers` comes last and wins.
        for key in ["headers", "extra_headers"] {
            let Some(node) = self.fields.node(key) else { continue };
            let YamlNode::Map(entries) = node else {
                notes.problem(&self.fields.at(key), "expected a mapping from names to values", None);
                continue;
            };
            for (name, value) in entries {
                let location = format!("{}.{name}", self.fields.at(key));
                let Some((name, value)) = self.header(&location, name, value, notes) else { continue };
                headers.retain(|(known, _)| *known != name);
                headers.push((name, value));
            }
        }
        if headers.len() > MOST_REMOTE_HEADERS {
            let fault = format!("at most {MOST_REMOTE_HEADERS} headers are added to a request");
            notes.problem(&self.fields.at("extra_headers"), fault, None);
        }
        headers
    }

    fn header(&self, location: &str, name: &str, value: &YamlNode, notes: &mut FileNotes) -> Option<(String, Secret)> {
        let Ok(name) = HeaderName::try_from(name) else {
            notes.problem(location, "no header can have this name", None);
            return None;
        };
        if RESERVED_HEADERS.contains(&name.as_str()) {
            notes.problem(location, "the gateway sets this header itself", Some("leave it out".to_owned()));
            return None;
        }
        let Some(text) = value.scalar() else {
            notes.problem(location, "expected a single value", None);
            return None;
        };
        let value = self.resolved("extra_headers", text)?;
        if HeaderValue::try_from(&value).is_err() || value.len() > REMOTE_KEY_LENGTH {
            // The value is not quoted: it may be a secret.
            notes.problem(location, "no header can have this value", None);
            return None;
        }
        Some((name.as_str().to_owned(), Secret(value)))
    }

    /// Returns the fields that are added to requests that lack them: `extra_body`, and all keys that are neither LiteLLM's
    /// own nor llamagate's. Call it last, because it takes the keys that are left.
    pub(super) fn request_fields(&mut self, notes: &mut FileNotes) -> Vec<(String, Option<String>)> {
        let location = self.fields.location.clone();
        let extra_body = self.fields.node("extra_body");
        let (unread, read) = self.fields.take_unread();
        let (mut own, mut found) = (Vec::new(), Vec::new());
        for (key, node) in unread {
            match foreign_param(key, &read) {
                ForeignParam::WithoutEffect => {
                    notes.ignored.insert(format!("model_list[].litellm_params.{key}"));
                }
                ForeignParam::NotObeyed(hint) => {
                    notes.advice.insert(format!("model_list[].litellm_params.{key}"), hint.to_owned());
                }
                ForeignParam::Elsewhere(place) => {
                    notes.advice.insert(format!("model_list[].litellm_params.{key}"), place);
                }
                ForeignParam::Misspelt(known) => {
                    notes.problem(&format!("{location}.{key}"), "unknown key", Some(format!("did you mean {known}?")));
                }
                ForeignParam::Resembling(known) => {
                    let subject = printable(&notes.subject);
                    notes.warnings.push(format!(
                        "{subject}: {} is sent as a field of requests; did you mean {known}?",
                        printable(&format!("{location}.{key}"))
                    ));
                    own.push((key, node));
                }
                ForeignParam::RequestField => own.push((key, node)),
            }
        }
        let of_body: &[(String, YamlNode)] = match extra_body {
            None => &[],
            Some(YamlNode::Map(entries)) => entries,
            Some(_) => {
                notes.problem(&format!("{location}.extra_body"), "expected a mapping of fields", None);
                &[]
            }
        };
        let of_body = of_body.iter().map(|(key, node)| (key.as_str(), node));
        for (key, node) in own.into_iter().chain(of_body) {
            if found.iter().any(|(known, _)| known == key) {
                continue;
            }
            let Some(json) = self.resolved_json(key, node) else { continue };
            found.extend(sampling_field(&location, key, json, notes));
        }
        found
    }
}

/// Returns the API of a backend: the one that its entry names, else that of its provider.
fn api_of(provider: Option<&str>, named: Option<BackendApi>) -> BackendApi {
    let of_provider = || APIS.iter().find(|(name, _)| Some(*name) == provider).map(|(_, api)| *api);
    named.or_else(of_provider).unwrap_or_default()
}

/// Returns the model's name without its provider, for the providers whose prefix LiteLLM removes too.
fn without_provider(model: &str, provider: Option<&str>) -> String {
    match model.split_once('/') {
        Some((prefix, name)) if Some(prefix) == provider && COMPATIBLE.contains(&prefix) && !name.is_empty() => {
            name.to_owned()
        }
        _ => model.to_owned(),
    }
}

/// Checks that a key can be sent in a header. A problem does not quote the key.
fn check_key(location: &str, key: String, notes: &mut FileNotes) -> Option<Secret> {
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
        for (model, provider, name) in [
            ("openai/gpt-4o", Some("openai"), "gpt-4o"),
            ("openai/facebook/opt-125m", Some("openai"), "facebook/opt-125m"),
            ("hosted_vllm/x", Some("hosted_vllm"), "x"),
            ("BAAI/bge-reranker-v2-m3", None, "BAAI/bge-reranker-v2-m3"),
            ("openai/gpt-oss-20b", Some("groq"), "openai/gpt-oss-20b"),
            ("gpt-4o", Some("openai"), "gpt-4o"),
            ("openai/", Some("openai"), "openai/"),
        ] {
            assert_eq!(without_provider(model, provider), name);
        }
    }
}
