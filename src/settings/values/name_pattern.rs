//! Model names with `*`, as LiteLLM's wildcard entries have them.
//!
//! Source: LiteLLM's `router_utils/pattern_match_deployments.py`. Unlike there, a pattern must match the whole name.

/// A model name in which each `*` stands for any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(String);

impl NamePattern {
    /// Returns the pattern, if the name has a `*`.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        name.contains('*').then(|| Self(name.to_owned()))
    }

    /// Returns whether a name matches. At least one `*` must stand for a text that is not empty.
    #[must_use]
    pub fn has_match(&self, name: &str) -> bool {
        self.captures(name).is_some()
    }

    /// Returns the number of characters that are fixed. If several patterns match a name, the one with most is meant.
    #[must_use]
    pub fn fixed_length(&self) -> usize {
        self.0.bytes().filter(|byte| *byte != b'*').count()
    }

    /// Returns the backend's name for the model that a request calls `name`: `template` with the text that each `*`
    /// stands for. Returns `name` itself if it does not match, if there is no template, or if the template has fewer
    /// `*` than the pattern, but not none.
    #[must_use]
    pub fn fill(&self, template: Option<&str>, name: &str) -> String {
        let (Some(template), Some(texts)) = (template, self.captures(name)) else { return name.to_owned() };
        let parts: Vec<&str> = template.split('*').collect();
        if parts.len() > 1 && texts.len() >= parts.len() {
            return name.to_owned();
        }
        let mut texts = texts.into_iter();
        let mut filled = String::new();
        for (at, part) in parts.into_iter().enumerate() {
            if at > 0 {
                filled.push_str(texts.next().unwrap_or("*"));
            }
            filled.push_str(part);
        }
        filled
    }

    /// Returns the text that each `*` stands for. The first ones stand for as much as possible, as in a regular
    /// expression.
    fn captures<'a>(&self, name: &'a str) -> Option<Vec<&'a str>> {
        if name.len() <= self.fixed_length() {
            return None;
        }
        let (first, rest) = self.0.split_once('*')?;
        let mut left = name.strip_prefix(first)?;
        let mut parts = rest.split('*').rev();
        left = left.strip_suffix(parts.next().unwrap_or_default())?;
        let mut texts = Vec::new();
        // From the end, so that the texts before are as long as possible.
        for part in parts {
            let at = left.rfind(part)?;
            texts.push(&left[at + part.len()..]);
            left = &left[..at];
        }
        texts.push(left);
        texts.reverse();
        Some(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_gives_the_backends_name_as_in_litellm() {
        for (pattern, template, name, filled) in [
            ("*", None, "gpt-4o", "gpt-4o"),
            ("*", Some("*"), "openai/gpt-4o", "openai/gpt-4o"),
            ("*", Some("fixed"), "gpt-4o", "fixed"),
            ("openai/*", Some("*"), "openai/gpt-4o", "gpt-4o"),
            ("openai/*", None, "openai/gpt-4o", "openai/gpt-4o"),
            ("llmengine/*", Some("org/*"), "llmengine/foo", "org/foo"),
            ("e/fo::*::static::*", Some("fo::*::static::*"), "e/fo::bar::static::baz", "fo::bar::static::baz"),
            ("*meta.llama3*", Some("meta.llama3*"), "hello-world-meta.llama3-70b", "hello-world-meta.llama3-70b"),
            ("*-mini", Some("*-small"), "gpt-4o-mini", "gpt-4o-small"),
            ("*a*", Some("*+*"), "1a2a3", "1a2+3"),
            ("*", Some("ä*ß"), "é", "äéß"),
        ] {
            let pattern = NamePattern::of(pattern).unwrap();
            assert!(pattern.has_match(name));
            assert_eq!(pattern.fill(template, name), filled, "{pattern:?} {template:?}");
        }
    }

    #[test]
    fn a_pattern_matches_whole_names_only() {
        for (pattern, name) in [
            ("openai/*", "openai/"),
            ("openai/*", "azure/x"),
            ("openai/*", "my-openai/x"),
            ("*-mini", "gpt-4o-mini-2024"),
            ("a*a", "a"),
            ("a*a", "aa"),
            ("*", ""),
            ("*.*.*", "a.b"),
        ] {
            assert!(!NamePattern::of(pattern).unwrap().has_match(name), "{pattern} {name}");
        }
        assert_eq!(NamePattern::of("gpt-4o"), None);
    }

    proptest! {
        #[test]
        fn a_pattern_filled_with_itself_gives_the_name(pattern in "[ab*]{0,6}", name in "[abc]{0,8}") {
            let Some(parsed) = NamePattern::of(&pattern) else { return Ok(()) };
            if parsed.has_match(&name) {
                prop_assert_eq!(parsed.fill(Some(&pattern), &name), name);
            }
        }
    }
}
