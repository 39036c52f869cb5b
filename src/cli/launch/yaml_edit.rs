//! Sets keys of a YAML text and leaves the rest as it is, comments and order included.

use serde_json::Value;

use crate::settings::YamlNode;

/// What begins and ends the lines that belong to this program.
const BEGIN: &str = "# llamagate begins";
const END: &str = "# llamagate ends";

/// Reads a text that was changed, so that none is written that the agent could not read, or would read otherwise.
///
/// # Errors
/// A sentence that says why it is no mapping. It quotes no values.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let refused = |fault: &str| format!("it is not written as one key on a line, so nothing can be added: {fault}");
    let value = YamlNode::parse(text).map_err(|fault| refused(&fault))?.json();
    if value.is_object() { Ok(value) } else { Err(refused("it is no mapping")) }
}

/// Returns what ends the lines of a text.
fn line_end(text: &str) -> &'static str {
    if text.lines().next().is_some_and(|first| text[first.len()..].starts_with("\r\n")) { "\r\n" } else { "\n" }
}

/// Returns the text with this key at its top level set to a text.
pub(super) fn set_top_level(text: &str, key: &str, value: &str) -> String {
    let line = format!("{key}: {}{}", Value::from(value), line_end(text));
    let is_it = |found: &str| found.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':'));
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    match lines.iter().position(|found| is_it(found)) {
        Some(at) => {
            // A value of several lines goes as a whole.
            let rest = lines[at + 1..].iter().take_while(|line| line.starts_with([' ', '\t', '-'])).count();
            lines.splice(at..=at + rest, [line]);
        }
        None => {
            if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
                last.push_str(line_end(text));
            }
            lines.push(line);
        }
    }
    lines.concat()
}

/// Returns the text with this item in the list of this key at its top level, between marks. An item between marks is
/// replaced; others stay.
///
/// # Errors
/// A sentence, if the list is written in a form that cannot be added to.
pub(super) fn set_item(text: &str, key: &str, item: &[String]) -> Result<String, String> {
    let line_end = line_end(text);
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if let Some(last) = lines.last_mut().filter(|last| !last.ends_with('\n')) {
        last.push_str(line_end);
    }
    if let Some(begin) = lines.iter().position(|line| line.trim() == BEGIN) {
        let end = lines[begin..].iter().position(|line| line.trim() == END).ok_or("its mark has no end")? + begin;
        lines.drain(begin..=end);
    }
    let head = lines.iter().position(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')));
    let at = match head {
        None => {
            lines.push(format!("{key}:{line_end}"));
            lines.len()
        }
        Some(at) => {
            let rest = lines[at][key.len() + 1..].split('#').next().unwrap_or_default().trim();
            if rest == "[]" {
                lines[at] = format!("{key}:{line_end}");
            } else if !rest.is_empty() {
                return Err(format!("{key}: is not written as a list of lines"));
            }
            at + 1
        }
    };
    // As deep as the items that follow.
    let next = lines[at..].iter().find(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    let indent =
        next.filter(|line| line.trim_start().starts_with('-')).map_or(2, |line| line.len() - line.trim_start().len());
    let own = [BEGIN].into_iter().chain(item.iter().map(String::as_str)).chain([END]);
    let own: Vec<String> = own.map(|line| format!("{}{line}{line_end}", " ".repeat(indent))).collect();
    lines.splice(at..at, own);
    Ok(lines.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_at_the_top_level_is_set_once() {
        let before = "# mine\nmodel:\n  - old\n  - older\ndark-mode: true";
        let once = set_top_level(before, "model", "openai/a");
        assert_eq!(once, "# mine\nmodel: \"openai/a\"\ndark-mode: true");
        assert_eq!(set_top_level(&once, "model", "openai/a"), once);
        assert_eq!(set_top_level("a: 1", "b", "2"), "a: 1\nb: \"2\"\n");
        assert_eq!(set_top_level("model-x: 1\n", "model", "y"), "model-x: 1\nmodel: \"y\"\n");
    }

    #[test]
    fn an_item_is_added_to_a_list_and_replaced() {
        let item = |name: &str| vec![format!("- name: {name}"), "  model: m".to_owned()];
        let before = "name: mine\nmodels:\n  - name: other\n    model: o\nrules: []\n";
        let once = set_item(before, "models", &item("a")).unwrap();
        let expected = "name: mine\nmodels:\n  # llamagate begins\n  - name: a\n    model: m\n  # llamagate ends\n  - name: other\n    model: o\nrules: []\n";
        assert_eq!(once, expected);
        assert_eq!(set_item(&once, "models", &item("a")).unwrap(), once);
        assert_eq!(set_item(&once, "models", &item("b")).unwrap(), expected.replace("name: a", "name: b"));
        assert!(set_item("", "models", &item("a")).unwrap().starts_with("models:\n  # llamagate begins\n"));
        assert!(set_item("models: []\n", "models", &item("a")).unwrap().starts_with("models:\n  #"));
        assert!(set_item("models:\n- x\n", "models", &item("a")).unwrap().contains("\n- name: a\n"));
        assert!(set_item("models: [a]\n", "models", &item("a")).is_err());
    }

    /// All lines of a file of Windows once lost their ends when an item was added.
    #[test]
    fn lines_end_as_they_did() {
        let item = ["- name: a".to_owned()];
        let before = "a: 1\r\nmodels:\r\n  - name: b";
        let after = "a: 1\r\nmodels:\r\n  # llamagate begins\r\n  - name: a\r\n  # llamagate ends\r\n  - name: b\r\n";
        assert_eq!(set_item(before, "models", &item).unwrap(), after);
        assert_eq!(set_item(after, "models", &item).unwrap(), after);
        assert_eq!(set_top_level("a: 1\r\nb: 2", "c", "3"), "a: 1\r\nb: 2\r\nc: \"3\"\r\n");
        assert_eq!(set_top_level("a: 1\r\nb: 2\r\n", "a", "3"), "a: \"3\"\r\nb: 2\r\n");
        assert_eq!((line_end(""), line_end("a"), line_end("a\nb\r\n")), ("\n", "\n", "\n"));
    }

    #[test]
    fn a_text_that_is_no_mapping_is_told_without_its_values() {
        for text in
            ["{dark-mode: true}\nmodel: \"a\"\n", "\"model\": sk-b\nmodel: \"a\"\n", "- a\n", "a: [sk-b\n", "just text"]
        {
            let fault = read(text).unwrap_err();
            assert!(fault.starts_with("it is not written as one key on a line") && !fault.contains("sk-b"), "{fault}");
        }
        assert_eq!(read("---\n# mine\nmodel: \"a\"\n").unwrap(), serde_json::json!({"model": "a"}));
    }
}
