//! Prints values as YAML 1.2 that is read back as the same values.
//!
//! Owns when a text needs quotes. The order of keys and the comments between them are those of `draft.rs`.

use std::fmt::Write as _;

use serde_json::Value as Json;

/// Longest text that is shown in a comment, in characters.
const COMMENT_LENGTH: usize = 400;

/// Words that some reader of YAML takes for something else than a text.
const RESERVED: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n"];

/// Returns a text as a scalar: plain where no reader could take it for anything else, within double quotes otherwise.
pub(super) fn text(value: &str) -> String {
    if is_plain(value) { value.to_owned() } else { quoted(value) }
}

/// Returns a list of words on one line.
pub(super) fn words(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| text(word)).collect();
    format!("[{}]", words.join(", "))
}

/// Returns a JSON value on one line.
pub(super) fn json(value: &Json) -> String {
    match value {
        Json::String(value) => text(value),
        Json::Array(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(", ")),
        Json::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{}: {}", text(key), json(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

/// Returns a text as one line of a comment, cut where it is too long.
pub(super) fn comment(value: &str) -> String {
    let mut line = String::with_capacity(value.len());
    for c in value.chars().take(COMMENT_LENGTH) {
        if is_printable(c) {
            line.push(c);
        } else {
            line.extend(c.escape_unicode());
        }
    }
    if value.chars().nth(COMMENT_LENGTH).is_some() {
        line.push_str("...");
    }
    line
}

fn is_plain(value: &str) -> bool {
    let unsigned = value.trim_start_matches('-');
    let is_start = |c: char| c.is_ascii_alphabetic() || (c == '/' && unsigned.len() == value.len());
    unsigned.starts_with(is_start)
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !RESERVED.contains(&value.to_ascii_lowercase().as_str())
        // `inf` and `nan`.
        && value.parse::<f64>().is_err()
}

fn quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if is_printable(c) => quoted.push(c),
            c => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}

/// Returns whether a character may stand in a YAML file as it is. Line breaks of any kind may not: they would end a
/// comment.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::YamlNode;

    #[test]
    fn words_that_are_no_texts_in_yaml_get_quotes() {
        for word in
            ["on", "No", "1e3", "0x10", ".5", "", " a", "a b", "#a", "a: b", "- a", "-", "--", "---", "~", "nan"]
        {
            assert_eq!(text(word), format!("\"{word}\""), "{word}");
        }
        for word in ["-INF", "infinity", "{port}", "*a", "&a", "!a", "@a", "%a", "null", "2024-01-01", "a:1", "<<", "="]
        {
            assert_eq!(text(word), format!("\"{word}\""), "{word}");
        }
        for word in ["a.gguf", "/models/a-1.gguf", "--flash-attn", "-ngl", "vllm", "ORG/NAME"] {
            assert_eq!(text(word), word);
        }
    }

    #[test]
    fn a_comment_stays_on_its_line() {
        assert_eq!(comment("a\nb\r\u{85}\u{2028}"), "a\\u{a}b\\u{d}\\u{85}\\u{2028}");
        assert_eq!(comment(&"x".repeat(1000)).len(), COMMENT_LENGTH + 3);
    }

    proptest! {
        #[test]
        fn a_text_is_read_back_as_it_was(value in any::<String>(), word in "[-+.:#{}\\[\\],&*!|>'\"%@`~ 0-9eExno\\\\]{0,8}") {
            for value in [&value, &word] {
                let document = format!("{}: {}\n", text(value), words(&[value.clone(), "a".to_owned()]));
                let read = YamlNode::parse(&document).map(|node| node.json());
                prop_assert_eq!(read, Ok(serde_json::json!({value: [value, "a"]})), "{}", document);
            }
        }
    }
}
