//! Changes of JSON that keep every byte that they do not concern, and events written with changed data.

use std::collections::HashMap;

use serde::de::IgnoredAny;

/// Writes an event with these data.
pub(super) fn write_event(name: Option<&str>, data: &[u8], out: &mut Vec<u8>) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    for line in data.split(|byte| *byte == b'\n') {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// Returns `whole` with `new` in place of `part`, which borrows from `whole`.
pub(super) fn replaced(whole: &[u8], part: &str, new: &str) -> Vec<u8> {
    let at = (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    let (before, rest) = whole.split_at(at.min(whole.len()));
    let after = rest.get(part.len()..).unwrap_or_default();
    [before, new.as_bytes(), after].concat()
}

/// Returns this JSON object with these members, given as JSON, in front of its own. Those that it has are left out.
pub(super) fn with_members(object: &str, members: &[(&str, String)]) -> String {
    let Ok(names) = serde_json::from_str::<HashMap<String, IgnoredAny>>(object) else { return object.to_owned() };
    let missing = members.iter().filter(|(name, _)| !names.contains_key(*name));
    let added: Vec<String> = missing.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let rest = object.trim_start().strip_prefix('{').unwrap_or_default();
    match (added.is_empty(), names.is_empty()) {
        (true, _) => object.to_owned(),
        (false, true) => format!("{{{}{rest}", added.join(",")),
        (false, false) => format!("{{{},{rest}", added.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_added_only_where_they_are_missing() {
        let members = [("a", "1".to_owned()), ("b", "[]".to_owned())];
        for (object, expected) in [
            ("{}", r#"{"a":1,"b":[]}"#),
            (r#" {"c":{"a":2}}"#, r#"{"a":1,"b":[],"c":{"a":2}}"#),
            (r#"{"b":null}"#, r#"{"a":1,"b":null}"#),
            (r#"{"\u0061":3,"b":4}"#, r#"{"\u0061":3,"b":4}"#),
            ("[1]", "[1]"),
            ("{\"a", "{\"a"),
        ] {
            assert_eq!(with_members(object, &members), expected);
        }
    }

    #[test]
    fn a_part_is_replaced_where_it_stands() {
        let whole = "xx{1}xx{1}";
        assert_eq!(replaced(whole.as_bytes(), &whole[7..10], "{}"), b"xx{1}xx{}");
    }

    #[test]
    fn data_of_several_lines_stay_data() {
        let mut out = Vec::new();
        write_event(Some("a"), b"1\n2", &mut out);
        write_event(None, b"3", &mut out);
        assert_eq!(out, b"event: a\ndata: 1\ndata: 2\n\ndata: 3\n\n");
    }
}
