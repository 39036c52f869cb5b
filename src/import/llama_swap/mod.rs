//! Converts a configuration of llama-swap.
//!
//! Owns the sections of the file. Source: llama-swap's `config.example.yaml` and `config-schema.json`.
//!
//! - `command.rs`: command lines, and those of other servers than llama-server
//! - `fields.rs`: the keys of a mapping
//! - `filters.rs`: `filters`
//! - `macros.rs`: macros and environment variables
//! - `model.rs`: the keys of one model
//! - `peers.rs`: `peers`
//! - `proxy.rs`: addresses of servers
//! - `service.rs`: keys that are not about one model
//! - `start.rs`: what is started for a model, or where it is asked for

mod command;
mod fields;
mod filters;
mod macros;
mod model;
mod peers;
mod proxy;
mod service;
mod start;

use super::draft::Draft;
use super::error::ImportError;
use super::section::{DraftSection, DraftValue};
use crate::settings::{Environment, YamlNode};
use fields::SwapFields;
use macros::Macros;
use model::convert_model;

/// What the format is called in messages.
const FORMAT: &str = "configuration of llama-swap";

/// Returns whether a document looks like a configuration of llama-swap.
pub(super) fn is_llama_swap(node: &YamlNode) -> bool {
    let YamlNode::Map(entries) = node else { return false };
    let models = entries.iter().find(|(key, _)| key == "models").map(|(_, node)| node);
    let Some(YamlNode::Map(models)) = models else { return false };
    let has_cmd = |node: &YamlNode| matches!(node, YamlNode::Map(keys) if keys.iter().any(|(key, _)| key == "cmd"));
    models.iter().any(|(_, node)| has_cmd(node))
}

/// Converts the text of a configuration file.
///
/// # Errors
///
/// The text is no YAML, or has neither models nor peers.
pub(super) fn convert(text: &str, environment: &Environment) -> Result<Draft, ImportError> {
    let broken = |fault: String| ImportError::Broken { format: FORMAT, fault };
    let entries = match YamlNode::parse(text).map_err(broken)? {
        YamlNode::Map(entries) => entries,
        _ => return Err(broken("expected a mapping at the top level".to_owned())),
    };
    let fields = SwapFields { entries: &entries };
    let mut draft = Draft::default();
    let macros = Macros::read(fields.get("macros"), environment, &mut draft.head);
    let lists = service::convert_service(&fields, &mut draft);
    let mut programs: Vec<String> = Vec::new();
    match fields.get("models") {
        Some(YamlNode::Map(models)) => {
            for (id, node) in models {
                let converted = convert_model(id, node, &macros, &lists);
                programs.extend(converted.program);
                draft.models.push(converted.model);
            }
        }
        Some(_) => return Err(broken("expected a mapping under models".to_owned())),
        None => {}
    }
    if let Some(peers) = fields.get("peers") {
        let scope = macros.scope("", None, &mut draft.head);
        let peers = peers::convert_peers(peers, &scope, &mut draft.head);
        scope.remark(&mut draft.head);
        for peer in peers {
            if draft.models.iter().any(|model| model.id == peer.id) {
                draft.head.left_out(
                    format!("{} in peers", peer.id),
                    "another model has this name, and is the one that is asked",
                );
            } else {
                draft.models.push(peer);
            }
        }
    }
    if draft.models.is_empty() {
        return Err(ImportError::NoModels { format: FORMAT });
    }
    for (source, names) in [("hooks.on_startup.preload", &lists.preload), ("the members of groups", &lists.persistent)]
    {
        let unknown: Vec<&String> = names.iter().filter(|name| !has_name(&draft, name)).collect();
        for name in unknown {
            draft.head.left_out(format!("{name} in {source}"), "there is no such model");
        }
    }
    name_program(&mut programs, &mut draft.server);
    for name in macros.unused() {
        draft.head.left_out(format!("macros.{name}"), "nothing uses it");
    }
    Ok(draft)
}

fn has_name(draft: &Draft, name: &String) -> bool {
    draft.models.iter().any(|model| model.id == *name || model.aliases.contains(name))
}

/// Names the llama-server that starts the models, if its place is known and the same for all.
fn name_program(programs: &mut Vec<String>, server: &mut DraftSection) {
    programs.sort_unstable();
    programs.dedup();
    match programs.as_slice() {
        [program] if program.starts_with('/') && !program.contains("${") => {
            server.set("llama_server", DraftValue::text(program));
        }
        [] | [_] => {}
        programs => server.left_out(programs.join(", "), "one llama-server starts all models: LLAMA_SERVER names it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a value of another type than llama-swap has was dropped without a word.
    #[test]
    fn a_value_of_the_wrong_type_is_named() {
        let text = "
globalTTL: [1]
hooks: 1
routing: 1
macros: 1
groups: {g: 1}
includeAliasesInList: 1
models:
  a:
    cmd: llama-server --port ${PORT} -m /m/a.gguf
    proxy: [1]
    checkEndpoint: {a: 1}
    useModelName: [a]
    concurrencyLimit: [1]
    healthCheckTimeout: [1]
    capabilities: 1
    unlisted: 1
    aliases: 1
    env: 1
    ttl: [1]
    filters: 1
    macros: 1
";
        let printed = convert(text, &Environment::default()).unwrap().print();
        for key in ["globalTTL", "hooks", "routing", "macros", "groups.g", "includeAliasesInList"] {
            assert!(format!("\n{printed}").contains(&format!("\n# left out: {key}: ")), "{key}: {printed}");
        }
        let keys = ["proxy", "checkEndpoint", "useModelName", "concurrencyLimit", "healthCheckTimeout", "capabilities"];
        for key in keys.into_iter().chain(["unlisted", "aliases", "env", "ttl", "filters", "macros"]) {
            assert!(printed.contains(&format!("\n    # left out: {key}: ")), "{key}: {printed}");
        }
    }
}
