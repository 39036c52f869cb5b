//! `peers` of llama-swap, as remote backends.

use super::fields::SwapFields;
use super::filters::convert_filters;
use super::macros::MacroScope;

use super::proxy::api_base;
use crate::import::acceptance::{KeyPlace, check_remote};
use crate::import::draft::DraftModel;
use crate::import::section::{DraftSection, DraftValue};
use crate::settings::YamlNode;

/// How a value refers to an environment variable.
const REFERENCE: &str = "os.environ/";

/// Converts all peers: one model for each name that a peer has.
pub(super) fn convert_peers(node: &YamlNode, scope: &MacroScope<'_>, head: &mut DraftSection) -> Vec<DraftModel> {
    let YamlNode::Map(peers) = node else {
        head.left_out("peers", "it is no mapping");
        return Vec::new();
    };
    let mut models = Vec::new();
    for (name, peer) in peers {
        match convert_peer(name, peer, scope, head) {
            Ok(converted) => models.extend(converted),
            Err(fault) => models.push(DraftModel::failed(&format!("peers.{name}"), fault)),
        }
    }
    models
}

fn convert_peer(
    name: &str,
    node: &YamlNode,
    scope: &MacroScope<'_>,
    head: &mut DraftSection,
) -> Result<Vec<DraftModel>, String> {
    let YamlNode::Map(entries) = node else { return Err("it is no mapping".to_owned()) };
    let fields = SwapFields { entries };
    let mut remote = DraftSection::of("api_base", DraftValue::Text(api_base(&scope.expand(&fields.text("proxy"))?)));
    check_remote(&remote).map_err(|fault| format!("proxy: {fault}"))?;
    if let Some(key) = fields.get("apiKey").and_then(YamlNode::scalar).filter(|key| !key.is_empty()) {
        let variable = scope.variable_of(&key);
        if variable.is_none() {
            remote.note(format!("the key is not copied: set {} for the service", variable_for(name)));
        }
        let variable = variable.unwrap_or_else(|| variable_for(name));
        remote.set("api_key", DraftValue::Text(format!("{REFERENCE}{variable}")));
    }
    let Some(YamlNode::List(models)) = fields.get("models") else { return Err("it has no list of models".to_owned()) };
    let filters = match fields.get("filters") {
        Some(node) => convert_filters(node, KeyPlace::Remote, Some(scope))?.section,
        None => DraftSection::default(),
    };
    for (key, _) in entries {
        match key.as_str() {
            "proxy" | "apiKey" | "models" | "filters" => {}
            "timeouts" => {
                let reason = "REQUEST_TIMEOUT, STREAM_IDLE_TIMEOUT and BACKEND_CONNECT_TIMEOUT are for all models";
                head.left_out(format!("peers.{name}.timeouts"), reason);
            }
            _ => head.left_out(format!("peers.{name}.{key}"), "it is not known here"),
        }
    }
    let mut converted = Vec::with_capacity(models.len());
    for model in models {
        match model.scalar() {
            Some(id) => {
                let id = scope.expand(&id)?;
                converted.push(DraftModel {
                    keys: filters.clone(),
                    remote: Some(remote.clone()),
                    ..DraftModel::of(&id)
                });
            }
            None => head.left_out(format!("an entry of peers.{name}.models"), "it is no name"),
        }
    }
    Ok(converted)
}

/// Returns the variable that is to hold the key of a peer.
fn variable_for(peer: &str) -> String {
    let name: String =
        peer.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("{name}_API_KEY")
}

#[cfg(test)]
mod tests {
    use super::super::macros::Macros;
    use super::*;
    use crate::settings::Environment;

    #[test]
    fn the_key_of_a_peer_is_named_and_never_copied() {
        let environment = Environment::from([("OPEN_KEY", "sesame")]);
        let macros = YamlNode::parse("{k: '${env.OPEN_KEY}'}").unwrap();
        let peers = "
a-b: {proxy: 'https://h/api', apiKey: sesame, models: [x/y, z]}
c: {proxy: 'http://h', apiKey: '${k}', models: [c], timeouts: {connect: 1}, filters: {stripParams: seed}}
d: {proxy: 'http://u:sesame@h', models: [d]}
";
        let mut head = DraftSection::default();
        let macros = Macros::read(Some(&macros), &environment, &mut head);
        let scope = macros.scope("", None, &mut head);
        let models = convert_peers(&YamlNode::parse(peers).unwrap(), &scope, &mut head);
        let ids: Vec<&str> = models.iter().map(|model| model.id.as_str()).collect();
        assert_eq!(ids, ["x/y", "z", "c", "peers.d"]);
        let value = |at: usize, key: &str| models[at].remote.as_ref().and_then(|remote| remote.get(key).cloned());
        assert_eq!(value(0, "api_base"), Some(DraftValue::text("https://h/api/v1")));
        assert_eq!(value(0, "api_key"), Some(DraftValue::text("os.environ/A_B_API_KEY")));
        assert_eq!(value(2, "api_key"), Some(DraftValue::text("os.environ/OPEN_KEY")));
        assert_eq!(models[2].keys.get("strip_params"), Some(&DraftValue::Words(vec!["seed".to_owned()])));
        assert!(models[3].fault.is_some() && head.left_out_count() == 1);
        assert!(!format!("{models:?}{head:?}").contains("sesame"));
    }
}
