//! `filters` of llama-swap: parameters that are removed from requests, or set in them.

use serde_json::Value as Json;

use super::macros::MacroScope;
use crate::import::acceptance::{KeyPlace, check, try_set};
use crate::import::section::{DraftSection, DraftValue};
use crate::settings::YamlNode;

/// What filters become.
#[derive(Debug, Default)]
pub(super) struct ConvertedFilters {
    /// `strip_params` and `sampling`, and comments.
    pub(super) section: DraftSection,
    /// The names of variants of the model.
    pub(super) aliases: Vec<String>,
}

/// Converts filters. A parameter that is set in every request is removed first, and then added by `sampling`.
///
/// # Errors
///
/// A macro is refused.
pub(super) fn convert_filters(
    node: &YamlNode,
    place: KeyPlace,
    scope: Option<&MacroScope<'_>>,
) -> Result<ConvertedFilters, String> {
    let mut filters = ConvertedFilters::default();
    let YamlNode::Map(entries) = node else {
        filters.section.left_out("filters", "it is no mapping");
        return Ok(filters);
    };
    let expand = |text: &str| scope.map_or_else(|| Ok(text.to_owned()), |scope| scope.expand(text));
    let mut stripped: Vec<String> = Vec::new();
    let mut sampling = serde_json::Map::new();
    for (key, value) in entries {
        match (key.as_str(), value) {
            (_, YamlNode::Null) => {}
            ("stripParams" | "strip_params", YamlNode::Text(names)) => {
                let names = expand(names)?;
                let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
                for name in names {
                    strip(name, place, &mut stripped, &mut filters.section);
                }
            }
            ("setParams", YamlNode::Map(params)) => {
                for (name, value) in params {
                    let value = expanded(value.json(), &expand)?;
                    match check_param(name, &value, place) {
                        Ok(()) => {
                            strip(name, place, &mut stripped, &mut filters.section);
                            sampling.insert(name.clone(), value);
                        }
                        Err(fault) => filters.section.left_out(format!("setParams.{name}"), fault),
                    }
                }
            }
            ("setParamsByID", YamlNode::Map(variants)) => {
                for (name, _) in variants {
                    filters.aliases.push(expand(name)?);
                }
                let reason = "its names are aliases, but parameters cannot depend on the name";
                filters.section.left_out("setParamsByID", reason);
            }
            _ => filters.section.left_out(format!("filters.{key}"), "it is not known here, or of another type"),
        }
    }
    set_all(&mut filters.section, place, stripped, sampling);
    Ok(filters)
}

fn set_all(
    section: &mut DraftSection,
    place: KeyPlace,
    stripped: Vec<String>,
    sampling: serde_json::Map<String, Json>,
) {
    if !sampling.is_empty() {
        section.note("setParams: strip_params removes what requests say, and sampling sets the value");
        if let Err(fault) = try_set(section, place, "sampling", DraftValue::Flow(Json::Object(sampling))) {
            section.left_out("setParams", fault);
            return;
        }
    }
    if !stripped.is_empty()
        && let Err(fault) = try_set(section, place, "strip_params", DraftValue::Words(stripped))
    {
        section.left_out("stripParams", fault);
    }
}

fn strip(name: &str, place: KeyPlace, stripped: &mut Vec<String>, section: &mut DraftSection) {
    if stripped.iter().any(|known| known == name) {
        return;
    }
    match check(place, "strip_params", &DraftValue::Words(vec![name.to_owned()])) {
        Ok(()) => stripped.push(name.to_owned()),
        Err(fault) => section.left_out(format!("stripParams {name}"), fault),
    }
}

/// Checks that a parameter may be removed from requests and set in them.
fn check_param(name: &str, value: &Json, place: KeyPlace) -> Result<(), String> {
    if value.is_null() {
        return Err("null sets nothing".to_owned());
    }
    check(place, "strip_params", &DraftValue::Words(vec![name.to_owned()]))?;
    let value = serde_json::Map::from_iter([(name.to_owned(), value.clone())]);
    check(place, "sampling", &DraftValue::Flow(Json::Object(value)))
}

/// Returns a value with the macros of its texts in place. A text that is a number or a yes or no after that is one.
fn expanded(value: Json, expand: &dyn Fn(&str) -> Result<String, String>) -> Result<Json, String> {
    Ok(match value {
        Json::String(text) if text.contains("${") => {
            let result = expand(&text)?;
            let is_macro = text.starts_with("${") && text.find('}') == Some(text.len() - 1);
            match YamlNode::parse(&result).map(|node| node.json()) {
                Ok(value @ (Json::Number(_) | Json::Bool(_))) if is_macro => value,
                _ => Json::String(result),
            }
        }
        Json::Array(items) => {
            Json::Array(items.into_iter().map(|item| expanded(item, expand)).collect::<Result<_, _>>()?)
        }
        Json::Object(members) => {
            let member = |(name, value)| Ok::<_, String>((name, expanded(value, expand)?));
            Json::Object(members.into_iter().map(member).collect::<Result<_, _>>()?)
        }
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(yaml: &str) -> (String, Vec<String>) {
        let filters = convert_filters(&YamlNode::parse(yaml).unwrap(), KeyPlace::File, None).unwrap();
        let mut text = String::new();
        filters.section.print(0, &mut text);
        (text, filters.aliases)
    }

    #[test]
    fn a_parameter_that_is_set_takes_the_place_of_that_of_the_request() {
        let (text, _) = converted("{stripParams: 'top_p, top_k,top_p', setParams: {temperature: 0.7, top_k: 5}}");
        assert!(text.contains("strip_params: [top_p, top_k, temperature]\n"), "{text}");
        assert!(text.contains("sampling: {temperature: 0.7, top_k: 5}\n"), "{text}");
    }

    #[test]
    fn what_a_request_needs_is_neither_removed_nor_set() {
        let (text, aliases) =
            converted("{stripParams: model, setParams: {messages: [], a: null}, setParamsByID: {x: {}}, y: 1}");
        for name in ["stripParams model", "setParams.messages", "setParams.a", "setParamsByID", "filters.y"] {
            assert!(text.contains(&format!("# left out: {name}: ")), "{name}: {text}");
        }
        assert!(!text.contains("sampling:") && !text.contains("strip_params:"), "{text}");
        assert_eq!(aliases, ["x"]);
    }
}
