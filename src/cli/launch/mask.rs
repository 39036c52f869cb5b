//! Secrets in a configuration, as it is shown: the values of names that look like those of secrets.

/// What a name of a secret contains, in lower case.
const SECRET_NAMES: [&str; 5] = ["key", "token", "secret", "password", "authorization"];

/// What `launch` writes itself under such a name: it says where the key is, and holds none.
const HARMLESS: [&str; 6] = [
    "LLAMAGATE_KEY",
    "printenv LLAMAGATE_KEY",
    "{env:LLAMAGATE_KEY}",
    "${{ secrets.LLAMAGATE_KEY }}",
    "echo none",
    "none",
];

/// Stands in place of a secret.
const MASK: &str = "***";

/// Returns the lines of a JSON, TOML or YAML text as they may be shown. There are as many as before. After the first name of a
/// secret, the rest of its line is masked, and with it the lines that belong to it by their indentation.
pub(super) fn lines(text: &str, key: Option<&str>) -> Vec<String> {
    // The indentation of a name whose value is in the lines that follow.
    let mut open: Option<usize> = None;
    let shown = text.lines().map(|line| {
        let body = line.trim_start();
        let indent = line.len() - body.len();
        let belongs = |name: usize| indent > name || (indent == name && body.starts_with("- "));
        if body.is_empty() {
            return line.to_owned();
        }
        if open.is_some_and(belongs) {
            return format!("{}{MASK}", &line[..indent]);
        }
        open = None;
        let Some(value) = start_of_secret(line) else { return line.to_owned() };
        let rest = line[value..].trim();
        let is_open = rest.is_empty() || rest.starts_with(['[', '{', '|', '>', '#', '&']);
        open = is_open.then_some(indent);
        match HARMLESS.contains(&unquoted(rest)) || matches!(rest, "" | "{" | "[") {
            true => line.to_owned(),
            false => format!("{} {MASK}", &line[..value]),
        }
    });
    let shown = shown.map(|line| key.map_or(line.clone(), |key| line.replace(key, MASK)));
    shown.collect()
}

/// Returns where the value of the first secret in this line begins.
fn start_of_secret(line: &str) -> Option<usize> {
    let separators = line.char_indices().filter(|(_, sign)| matches!(sign, ':' | '='));
    let mut separators = separators.map(|(at, _)| at);
    let is_secret = |at: &usize| {
        let name = line[..*at].trim_end().trim_end_matches(['"', '\'']);
        let name = name.rsplit([' ', '\t', '"', '\'', '{', '[', ',', ':', '=']).next().unwrap_or_default();
        let name = name.to_ascii_lowercase();
        SECRET_NAMES.iter().any(|secret| name.contains(secret))
    };
    separators.find(is_secret).map(|at| at + 1)
}

fn unquoted(value: &str) -> &str {
    let value = value.strip_suffix(',').unwrap_or(value);
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        lines(text, Some("the-new-one")).join("\n")
    }

    #[test]
    fn values_of_secrets_are_masked_in_every_format_and_nothing_else_is() {
        for (line, expected) in [
            ("openai-api-key: sk-old # mine", "openai-api-key: ***"),
            ("  \"apiKey\": \"sk-old\",", "  \"apiKey\": ***"),
            ("{\"theme\": \"dark\", \"A_TOKEN\":\"sk-old\", \"b\": 1}", "{\"theme\": \"dark\", \"A_TOKEN\": ***"),
            ("headers = { \"Authorization\" = \"Bearer sk-old\" }", "headers = { \"Authorization\" = ***"),
            ("client_secret = 'sk-old'", "client_secret = ***"),
            ("  - OPENAI_API_KEY=sk-old", "  - OPENAI_API_KEY= ***"),
            ("api-key: [a=sk-old,", "api-key: ***"),
            ("model: \"qwen\"", "model: \"qwen\""),
            ("apiBase: \"http://127.0.0.1/v1\"", "apiBase: \"http://127.0.0.1/v1\""),
            ("env_key = \"LLAMAGATE_KEY\"", "env_key = \"LLAMAGATE_KEY\""),
            ("\"apiKeyHelper\": \"printenv LLAMAGATE_KEY\",", "\"apiKeyHelper\": \"printenv LLAMAGATE_KEY\","),
            ("note: the-new-one", "note: ***"),
        ] {
            assert_eq!(shown(line), expected);
        }
    }

    #[test]
    fn lines_that_belong_to_the_name_of_a_secret_are_masked() {
        let list = "api-key:\n  - a=sk-old\n\n  - b=sk-old\nmodel: x";
        assert_eq!(shown(list), "api-key:\n  ***\n\n  ***\nmodel: x");
        assert_eq!(shown("api-key:\n- a=sk-old\nmodel: x"), "api-key:\n***\nmodel: x");
        assert_eq!(shown("key: |\n  sk-old\nmodel: x"), "key: ***\n  ***\nmodel: x");
        let object = "{\n  \"tokens\": {\n    \"a\": \"sk-old\"\n  },\n  \"b\": 1\n}";
        assert_eq!(shown(object), "{\n  \"tokens\": {\n    ***\n  },\n  \"b\": 1\n}");
    }

    proptest::proptest! {
        #[test]
        fn every_line_has_its_own(text in "[a:=\"{ \n,-é]{0,30}|key[: \n]{0,9}") {
            proptest::prop_assert_eq!(lines(&text, None).len(), text.lines().count());
        }
    }
}
