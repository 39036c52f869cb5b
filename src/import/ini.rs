//! Reads files of presets: sections in brackets, and keys with values.
//!
//! Owns the grammar. Source: `common/preset.cpp` of llama.cpp, where a value ends before `;` or `#`, and lines before the
//! first section belong to a section `default`.

/// The section of keys that stand before the first header.
pub(super) const DEFAULT_SECTION: &str = "default";

/// One section, with its keys in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IniSection {
    /// The text within the brackets.
    pub(super) name: String,
    /// Names and values.
    pub(super) keys: Vec<(String, String)>,
}

/// Reads all sections.
///
/// # Errors
///
/// Returns the first line that is none of a file of presets, with its column. It quotes no values.
pub(super) fn parse(text: &str) -> Result<Vec<IniSection>, String> {
    let mut sections: Vec<IniSection> = Vec::new();
    for (at, line) in lines(text).enumerate() {
        let fault = |column: usize, what: &str| format!("{what} at line {} column {column}", at + 1);
        let indent = line.chars().take_while(|c| is_blank(*c)).count();
        let content = line.trim_matches(is_blank);
        if content.is_empty() || content.starts_with([';', '#']) {
            continue;
        }
        if let Some(rest) = content.strip_prefix('[') {
            let Some((name, after)) = rest.split_once(']') else {
                return Err(fault(line.chars().count() + 1, "] is missing"));
            };
            let after = after.trim_start_matches(is_blank);
            let name = name.trim_matches(is_blank);
            if name.is_empty() || !(after.is_empty() || after.starts_with([';', '#'])) {
                return Err(fault(indent + 1, "expected a section such as [NAME]"));
            }
            sections.push(IniSection { name: name.to_owned(), keys: Vec::new() });
            continue;
        }
        let Some((key, value)) = content.split_once('=') else {
            return Err(fault(indent + 1, "expected a section such as [NAME], or KEY = VALUE"));
        };
        let key = key.trim_matches(is_blank);
        let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') || !key.chars().all(is_key) {
            return Err(fault(indent + 1, "expected the name of an option without its dashes"));
        }
        let value = value.split([';', '#']).next().unwrap_or_default().trim_matches(is_blank);
        if sections.is_empty() {
            sections.push(IniSection { name: DEFAULT_SECTION.to_owned(), keys: Vec::new() });
        }
        if let Some(section) = sections.last_mut() {
            section.keys.push((key.to_owned(), value.to_owned()));
        }
    }
    Ok(sections)
}

/// Returns whether a text is a file of presets with a section and a key. A list of YAML is none.
pub(super) fn is_ini(text: &str) -> bool {
    let has_header = |line: &str| line.trim_start_matches(is_blank).starts_with('[');
    lines(text).any(has_header)
        && parse(text).is_ok_and(|sections| sections.iter().any(|section| !section.keys.is_empty()))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.strip_prefix('\u{feff}').unwrap_or(text).split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_keys_and_comments_are_read() {
        let text = "\u{feff}version = 1 ; a comment\r\n\n[*]\n# c\nc = 4096\n[ a/b:Q8_0 ] ; x\n  model=/m x.gguf  # y\nempty =\n";
        let section = |name: &str, keys: &[(&str, &str)]| IniSection {
            name: name.to_owned(),
            keys: keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        let expected = [
            section("default", &[("version", "1")]),
            section("*", &[("c", "4096")]),
            section("a/b:Q8_0", &[("model", "/m x.gguf"), ("empty", "")]),
        ];
        assert_eq!(parse(text).unwrap(), expected);
        assert!(is_ini(text) && !is_ini("models:\n  a: {cmd: x}\n") && !is_ini("") && !is_ini("a = 1\n"));
    }

    #[test]
    fn a_broken_line_is_named_with_its_place_and_not_quoted() {
        for (text, place) in [
            ("[a]\n  oops sesame\n", "line 2 column 3"),
            ("\n[a\n", "line 2 column 3"),
            ("[]\n", "line 1 column 1"),
            ("[a] sesame\n", "line 1 column 1"),
            ("[a]\n--ctx = 1\n", "line 2 column 1"),
            ("[a]\n= 1\n", "line 2 column 1"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.ends_with(place) && !error.contains("sesame"), "{error}");
        }
    }
}
