//! One model of llama-swap: its keys, as keys of ours.

use super::fields::SwapFields;
use super::filters::convert_filters;
use super::macros::{MacroScope, Macros};
use super::start::ModelStart;
use crate::import::acceptance::{KeyPlace, check_remote, try_set};
use crate::import::draft::DraftModel;
use crate::import::section::{DraftSection, DraftValue};
use crate::settings::YamlNode;

/// Keys that are converted here.
const CONVERTED: &[&str] = &[
    "macros",
    "cmd",
    "env",
    "proxy",
    "checkEndpoint",
    "ttl",
    "useModelName",
    "filters",
    "aliases",
    "concurrencyLimit",
    "unlisted",
    "capabilities",
    "healthCheckTimeout",
];

/// Keys that have a single value.
const SCALARS: &[&str] = &["proxy", "checkEndpoint", "useModelName", "concurrencyLimit", "healthCheckTimeout"];

const SHOWN_BY_FILE: &str = "lists of models show what the file of the model says";

/// Keys without counterpart, each with what there is instead.
const WITHOUT_COUNTERPART: &[(&str, &str)] = &[
    ("cmdStop", "a server is ended with SIGTERM, and killed if it does not end"),
    ("name", SHOWN_BY_FILE),
    ("description", SHOWN_BY_FILE),
    ("metadata", SHOWN_BY_FILE),
    ("sendLoadingState", "SSE_HEARTBEAT sends comments while a request waits"),
    ("timeouts", "REQUEST_TIMEOUT, STREAM_IDLE_TIMEOUT and BACKEND_CONNECT_TIMEOUT are for all models"),
    ("unloadTimeout", "a server that is unloaded has finished its requests, and is killed if it does not end"),
    ("compat", "requests are passed on as they are"),
];

/// What the rest of the file says about models.
#[derive(Debug, Default)]
pub(super) struct ModelLists {
    /// Those that are loaded at the start.
    pub(super) preload: Vec<String>,
    /// Those that no other group unloads.
    pub(super) persistent: Vec<String>,
}

/// A converted model, and the program that starts it if that is a llama-server.
pub(super) struct SwapModel {
    pub(super) model: DraftModel,
    pub(super) program: Option<String>,
}

/// Converts a model.
pub(super) fn convert_model(id: &str, node: &YamlNode, macros: &Macros<'_>, lists: &ModelLists) -> SwapModel {
    let failed = |fault: String| SwapModel { model: DraftModel::failed(id, fault), program: None };
    let YamlNode::Map(entries) = node else { return failed("it is no mapping".to_owned()) };
    let fields = SwapFields { entries };
    let mut comments = DraftSection::default();
    let scope = macros.scope(id, fields.get("macros"), &mut comments);
    fields.leave_out_unlike_scalars(SCALARS, &mut comments);
    match ModelStart::read(&fields, &scope, comments) {
        Ok(start) => start.finish(id, &fields, &scope, lists),
        Err(fault) => failed(fault),
    }
}

impl ModelStart {
    fn finish(mut self, id: &str, fields: &SwapFields<'_>, scope: &MacroScope<'_>, lists: &ModelLists) -> SwapModel {
        let steps = [Self::take_health, Self::take_name, Self::take_filters, Self::take_aliases];
        for step in steps {
            if let Err(fault) = step(&mut self, fields, scope) {
                return SwapModel { model: DraftModel::failed(id, fault), program: None };
            }
        }
        self.take_ttl(fields);
        self.take_load_timeout(fields);
        self.take_limit(fields);
        self.take_capabilities(fields);
        match fields.get("unlisted") {
            None | Some(YamlNode::Bool(false)) => {}
            Some(YamlNode::Bool(true)) => self.set("unlisted", "unlisted", DraftValue::yes()),
            Some(_) => self.comments.left_out("unlisted", "it is neither true nor false"),
        }
        let is_in = |list: &[String]| list.iter().any(|name| name == id || self.aliases.contains(name));
        let (is_preloaded, is_persistent) = (is_in(&lists.preload), is_in(&lists.persistent));
        for (key, source, is_set) in
            [("preload", "hooks.on_startup.preload", is_preloaded), ("pinned", "persistent", is_persistent)]
        {
            if is_set && self.place == KeyPlace::Remote {
                self.comments.left_out(source, "a remote backend is not loaded from here");
            } else if is_set {
                self.set(source, key, DraftValue::yes());
            }
        }
        self.leave_out_others(fields);
        scope.remark(&mut self.comments);
        let mut keys = self.comments;
        keys.append(self.keys);
        let model = DraftModel { aliases: self.aliases, keys, remote: self.remote, ..DraftModel::of(id) };
        SwapModel { model, program: self.program }
    }

    fn set(&mut self, source: &str, key: &str, value: DraftValue) {
        // Comments come before all keys of a model.
        if let Err(fault) = try_set(&mut self.keys, self.place, key, value) {
            self.comments.left_out(source, fault);
        }
    }

    fn take_health(&mut self, fields: &SwapFields<'_>, scope: &MacroScope<'_>) -> Result<(), String> {
        let path = scope.expand(&fields.text("checkEndpoint"))?;
        match (path.as_str(), self.place) {
            ("", _) | ("/health", KeyPlace::File | KeyPlace::Command) => {}
            ("none", _) => {
                self.comments.left_out("checkEndpoint", "a server is always probed, at /health unless health is set")
            }
            (_, KeyPlace::Remote) => self.comments.left_out("checkEndpoint", "set health in its entry of model_list"),
            _ => self.set("checkEndpoint", "health", DraftValue::Text(path)),
        }
        Ok(())
    }

    fn take_name(&mut self, fields: &SwapFields<'_>, scope: &MacroScope<'_>) -> Result<(), String> {
        let name = scope.expand(&fields.text("useModelName"))?;
        match &mut self.remote {
            _ if name.is_empty() => {}
            // The provider before the slash keeps a name with slashes whole.
            Some(remote) => remote.set("model", DraftValue::Text(format!("openai/{name}"))),
            None => self.set("useModelName", "served_model_name", DraftValue::Text(name)),
        }
        Ok(())
    }

    fn take_filters(&mut self, fields: &SwapFields<'_>, scope: &MacroScope<'_>) -> Result<(), String> {
        let Some(node) = fields.get("filters") else { return Ok(()) };
        let filters = convert_filters(node, self.place, Some(scope))?;
        self.aliases.extend(filters.aliases);
        self.comments.take_comments(filters.section.clone());
        for (key, value) in filters.section.keys() {
            self.keys.set(key, value.clone());
        }
        Ok(())
    }

    fn take_aliases(&mut self, fields: &SwapFields<'_>, scope: &MacroScope<'_>) -> Result<(), String> {
        let Some(YamlNode::List(items)) = fields.get("aliases") else {
            if fields.get("aliases").is_some() {
                self.comments.left_out("aliases", "it is no list");
            }
            return Ok(());
        };
        for item in items {
            let YamlNode::Map(entries) = item else {
                match item.scalar() {
                    Some(alias) => self.aliases.push(scope.expand(&alias)?),
                    None => self.comments.left_out("an entry of aliases", "it is no name"),
                }
                continue;
            };
            let alias = SwapFields { entries };
            self.aliases.push(scope.expand(&alias.text("id"))?);
            for (key, value) in entries {
                match (key.as_str(), value) {
                    ("id", _) | ("unlisted", YamlNode::Bool(false)) => {}
                    ("unlisted", _) => {
                        self.comments.left_out("aliases[].unlisted", "see model_group_alias of router_settings");
                    }
                    _ => self.comments.left_out(format!("aliases[].{key}"), "an alias is a name alone"),
                }
            }
        }
        Ok(())
    }

    fn take_ttl(&mut self, fields: &SwapFields<'_>) {
        match fields.get("ttl") {
            None => {}
            Some(node) if node.json() == -1 => {}
            Some(_) if self.place == KeyPlace::Remote => {
                self.comments.left_out("ttl", "a remote backend is not unloaded from here");
            }
            Some(node) => self.set("ttl", "ttl", DraftValue::number(&node.scalar().unwrap_or_default())),
        }
    }

    fn take_load_timeout(&mut self, fields: &SwapFields<'_>) {
        let seconds = fields.get("healthCheckTimeout").and_then(YamlNode::scalar).filter(|seconds| seconds != "0");
        match seconds {
            None => {}
            Some(_) if self.place == KeyPlace::Remote => {
                self.comments.left_out("healthCheckTimeout", "a remote backend is not loaded from here");
            }
            Some(seconds) => self.set("healthCheckTimeout", "load_timeout", DraftValue::number(&seconds)),
        }
    }

    /// Reads `concurrencyLimit`. Each slot of a llama-server has a context of its own, so more slots would make that of
    /// each smaller.
    fn take_limit(&mut self, fields: &SwapFields<'_>) {
        let Some(limit) = fields.get("concurrencyLimit").and_then(YamlNode::scalar).filter(|limit| limit != "0") else {
            return;
        };
        match self.place {
            KeyPlace::File if self.keys.get("ctx").is_some() || self.keys.get("parallel").is_some() => {
                self.comments.left_out(
                    "concurrencyLimit",
                    "parallel is the number of slots, each with a context of its own; further requests wait",
                );
            }
            KeyPlace::Remote | KeyPlace::Defaults => self.set_remote_limit(&limit),
            KeyPlace::File | KeyPlace::Command => {
                self.set("concurrencyLimit", "parallel", DraftValue::number(&limit));
            }
        }
    }

    fn set_remote_limit(&mut self, limit: &str) {
        let Some(remote) = &mut self.remote else { return };
        let mut with = remote.clone();
        with.set("max_parallel_requests", DraftValue::number(limit));
        match check_remote(&with) {
            Ok(()) => *remote = with,
            Err(fault) => self.comments.left_out("concurrencyLimit", fault),
        }
    }

    fn take_capabilities(&mut self, fields: &SwapFields<'_>) {
        let Some(YamlNode::Map(entries)) = fields.get("capabilities") else {
            if fields.get("capabilities").is_some() {
                self.comments.left_out("capabilities", "it is no mapping");
            }
            return;
        };
        for (key, value) in entries {
            if key == "reranker" && *value == YamlNode::Bool(true) {
                self.set("capabilities.reranker", "kind", DraftValue::text("rerank"));
            } else {
                self.comments.left_out(format!("capabilities.{key}"), SHOWN_BY_FILE);
            }
        }
    }

    fn leave_out_others(&mut self, fields: &SwapFields<'_>) {
        for (key, _) in fields.entries {
            if CONVERTED.contains(&key.as_str()) {
                continue;
            }
            let reason = WITHOUT_COUNTERPART.iter().find(|(name, _)| name == key);
            self.comments.left_out(key, reason.map_or("it is not known here", |(_, reason)| *reason));
        }
    }
}
