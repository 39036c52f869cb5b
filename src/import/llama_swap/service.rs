//! Keys of llama-swap that are not about one model.

use super::fields::SwapFields;
use super::model::ModelLists;
use crate::import::acceptance::{KeyPlace, set_or_leave_out};
use crate::import::draft::Draft;
use crate::import::section::{DraftSection, DraftValue};
use crate::settings::YamlNode;
use crate::settings::values::{LogLevel, Seconds, Value};

/// Keys that are converted here or elsewhere.
const CONVERTED: &[&str] = &[
    "models",
    "peers",
    "macros",
    "healthCheckTimeout",
    "logLevel",
    "startPort",
    "includeAliasesInList",
    "globalTTL",
    "groups",
    "matrix",
    "routing",
    "hooks",
    "apiKeys",
];

const LOGS: &str = "the access log has a line for each request, and each worker a log of its own: LOG_DIR";
const MEMORY: &str = "memory decides which models are loaded together: memory_budget, pinned";
const NO_PAGE: &str = "there is no web page; /metrics and /lb/stats have the numbers";

/// Keys without counterpart, each with what there is instead.
const WITHOUT_COUNTERPART: &[(&str, &str)] = &[
    ("logTimeFormat", "times in logs have the form of RFC 3339"),
    ("logToStdout", LOGS),
    ("logRequests", LOGS),
    ("metricsMaxInMemory", "/metrics has the sums of all requests since the start"),
    ("captureBuffer", "requests and answers are not recorded"),
    ("store", "nothing is recorded in a database; the access log is a file"),
    ("ui", NO_PAGE),
    ("performance", NO_PAGE),
    ("sendLoadingState", "SSE_HEARTBEAT sends comments while a request waits"),
    ("unloadTimeout", "a server that is unloaded has finished its requests, and is killed if it does not end"),
    ("profiles", "aliases name models; a reload of the file changes them"),
    ("selectors", "model_list, strategy and fallbacks choose between models"),
    ("upstream", "routes are those of docs/ROUTES.md; servers are not reached directly"),
];

/// Converts the keys, and returns what they say about single models.
pub(super) fn convert_service(fields: &SwapFields<'_>, draft: &mut Draft) -> ModelLists {
    let mut lists = ModelLists::default();
    convert_settings(fields, draft);
    convert_keys(fields, &mut draft.head);
    for (holder, key) in [("", "groups"), ("", "matrix")] {
        convert_grouping(fields, holder, key, &mut lists, &mut draft.head);
    }
    if let Some(YamlNode::Map(entries)) = fields.get("routing") {
        convert_routing(&SwapFields { entries }, &mut lists, &mut draft.head);
    } else if fields.get("routing").is_some() {
        draft.head.left_out("routing", "it is no mapping");
    }
    lists.preload = preloaded(fields, &mut draft.head);
    for (key, _) in fields.entries {
        if CONVERTED.contains(&key.as_str()) {
            continue;
        }
        // Keys with this beginning hold anchors of YAML.
        if key.starts_with("x-") {
            continue;
        }
        let reason = WITHOUT_COUNTERPART.iter().find(|(name, _)| name == key);
        draft.head.left_out(key, reason.map_or("it is not known here", |(_, reason)| *reason));
    }
    lists
}

/// A key, the setting that it becomes, and which texts are values of both.
type SettingRow = (&'static str, &'static str, fn(&str) -> bool);

fn convert_settings(fields: &SwapFields<'_>, draft: &mut Draft) {
    let rows: &[SettingRow] = &[
        ("healthCheckTimeout", "load_timeout", |text| text.parse::<u64>().is_ok() && Seconds::parse(text).is_ok()),
        ("logLevel", "log_level", |text| LogLevel::parse(text).is_ok()),
        ("startPort", "port_backend", |text| text.parse::<u16>().is_ok_and(|port| port > 0)),
    ];
    for (source, key, is_valid) in rows {
        let Some(node) = fields.get(source) else { continue };
        let text = node.scalar().unwrap_or_default();
        match is_valid(&text) {
            true => draft.server.set(key, DraftValue::number(&text)),
            false => draft.server.left_out(*source, "its value is not one that is taken here"),
        }
    }
    match fields.get("includeAliasesInList") {
        None | Some(YamlNode::Bool(false)) => {}
        Some(YamlNode::Bool(true)) => draft.server.set("list_aliases", DraftValue::yes()),
        Some(_) => draft.server.left_out("includeAliasesInList", "it is neither true nor false"),
    }
    fields.leave_out_unlike_scalars(&["globalTTL"], &mut draft.defaults);
    if let Some(ttl) = fields.get("globalTTL").and_then(YamlNode::scalar).filter(|ttl| ttl != "0") {
        set_or_leave_out(&mut draft.defaults, KeyPlace::Defaults, ("globalTTL", "ttl"), DraftValue::number(&ttl));
    }
}

fn convert_keys(fields: &SwapFields<'_>, head: &mut DraftSection) {
    match fields.get("apiKeys") {
        Some(YamlNode::List(keys)) if !keys.is_empty() => {
            let count = keys.len();
            head.left_out(
                "apiKeys",
                format!("{count} keys are not copied: keyctl generate --name NAME makes one for each client"),
            );
        }
        Some(YamlNode::List(_)) | None => {
            head.note("requests need a key: keyctl generate --name NAME makes one; AUTH_ENABLED=false asks for none");
        }
        Some(_) => head.left_out("apiKeys", "it is no list; keyctl generate --name NAME makes a key"),
    }
}

/// Converts `groups` and `matrix`: models of a persistent group are pinned.
fn convert_grouping(fields: &SwapFields<'_>, holder: &str, key: &str, lists: &mut ModelLists, head: &mut DraftSection) {
    let Some(node) = fields.get(key) else { return };
    let (YamlNode::Map(groups), "groups") = (node, key) else {
        head.left_out(format!("{holder}{key}"), MEMORY);
        return;
    };
    for (name, group) in groups {
        let YamlNode::Map(entries) = group else {
            head.left_out(format!("{holder}groups.{name}"), "it is no mapping");
            continue;
        };
        let group = SwapFields { entries };
        let is_persistent = group.get("persistent") == Some(&YamlNode::Bool(true));
        if is_persistent && let Some(YamlNode::List(members)) = group.get("members") {
            lists.persistent.extend(members.iter().filter_map(YamlNode::scalar));
        }
        let reason = if is_persistent {
            "its models are pinned; apart from that, memory decides which are loaded together"
        } else {
            MEMORY
        };
        head.left_out(format!("{holder}groups.{name}"), reason);
    }
}

fn convert_routing(routing: &SwapFields<'_>, lists: &mut ModelLists, head: &mut DraftSection) {
    for (key, node) in routing.entries {
        let settings = match (key.as_str(), node) {
            ("router", YamlNode::Map(entries)) => SwapFields { entries }.get("settings"),
            _ => None,
        };
        match settings {
            Some(YamlNode::Map(entries)) => {
                for (key, _) in entries {
                    convert_grouping(&SwapFields { entries }, "routing.router.settings.", key, lists, head);
                }
            }
            _ => head.left_out(format!("routing.{key}"), "requests of a model are served in turn, fairly between keys"),
        }
    }
}

/// Returns the models of `hooks.on_startup.preload`.
fn preloaded(fields: &SwapFields<'_>, head: &mut DraftSection) -> Vec<String> {
    let mut names = Vec::new();
    let Some(YamlNode::Map(hooks)) = fields.get("hooks") else {
        if fields.get("hooks").is_some() {
            head.left_out("hooks", "it is no mapping");
        }
        return names;
    };
    for (hook, node) in hooks {
        let YamlNode::Map(actions) = node else {
            head.left_out(format!("hooks.{hook}"), "it is not known here");
            continue;
        };
        for (action, node) in actions {
            match (hook.as_str(), action.as_str(), node) {
                ("on_startup", "preload", YamlNode::List(items)) => {
                    names.extend(items.iter().filter_map(YamlNode::scalar));
                }
                _ => head.left_out(format!("hooks.{hook}.{action}"), "it is not known here"),
            }
        }
    }
    names
}
