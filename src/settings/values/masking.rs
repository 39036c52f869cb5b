//! llama-server's arguments as they may be printed: a secret may be the value of any option, and even of a mistyped one.
//!
//! Owns what is hidden. How many values an option has is known from llama-server's own help, in `worker/arguments/`.

/// What stands for a hidden text.
const HIDDEN: &str = "***";

/// Options whose values are secrets.
const SECRET_ARGUMENTS: &[&str] = &["--hf-token", "-hft"];

/// Parts of an option's name that make its value a secret.
const SECRET_WORDS: &[&str] = &["api-key", "apikey", "password", "passwd", "secret", "credential", "auth"];

/// Returns arguments as a shell would take them, with everything hidden that may be a secret. `values_of` returns how
/// many values an option has; `None` if it is unknown, and then all that follows it up to the next option is hidden.
pub fn masked_arguments(words: &[String], values_of: impl Fn(&str) -> Option<usize>) -> String {
    let mut shown: Vec<String> = Vec::with_capacity(words.len());
    let mut rest = words.iter().map(String::as_str).peekable();
    while let Some(word) = rest.next() {
        let (name, has_value) = word.split_once('=').map_or((word, false), |(name, _)| (name, true));
        if !is_option_name(name) {
            shown.push(HIDDEN.to_owned());
            continue;
        }
        shown.push(if has_value { format!("{name}={HIDDEN}") } else { name.to_owned() });
        let option = dashed(name);
        match values_of(&option) {
            // A secret may begin with a dash; llama-server takes it as a value all the same.
            _ if is_secret(&option) && !has_value => shown.extend(rest.next().map(|_| HIDDEN.to_owned())),
            Some(values) => shown.extend(rest.by_ref().take(values).map(without_url_secrets)),
            None => {
                while rest.next_if(|next| !looks_like_an_option(next)).is_some() {
                    shown.push(HIDDEN.to_owned());
                }
            }
        }
    }
    shlex::try_join(shown.iter().map(String::as_str)).unwrap_or_else(|_| HIDDEN.to_owned())
}

/// Returns an option in the spelling of llama-server's table, which takes `_` for `-` in long options.
pub(crate) fn dashed(name: &str) -> String {
    if name.starts_with("--") { name.replace('_', "-") } else { name.to_owned() }
}

/// Whether a word begins like an option; a negative number does not.
pub(crate) fn looks_like_an_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-') && word.parse::<f64>().is_err()
}

/// Whether a word can be the name of an option, and nothing else.
fn is_option_name(word: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    looks_like_an_option(word) && word.chars().all(is_plain)
}

/// Returns whether the value of an option, in the spelling of [`dashed`], is a secret.
pub(crate) fn is_secret(option: &str) -> bool {
    SECRET_ARGUMENTS.contains(&option)
        || option.ends_with("-token")
        || SECRET_WORDS.iter().any(|word| option.contains(word))
}

/// Hides the user and the query of a URL, of which either may be a secret, wherever the URL stands in the value.
fn without_url_secrets(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    let (address, query) = rest.split_once('?').map_or((rest, ""), |(address, _)| (address, "?***"));
    // A password may hold a slash, so the last `@` counts.
    let address = address.rsplit_once('@').map_or_else(|| address.to_owned(), |(_, host)| format!("{HIDDEN}@{host}"));
    format!("{scheme}://{address}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the arguments as they are shown with a help that knows these options.
    fn shown(text: &str) -> String {
        let values = |option: &str| match option {
            "--jinja" => Some(0),
            "--temp" | "--mmproj-url" | "--hf-token" | "--chat-template" => Some(1),
            "--control-vector-layer-range" => Some(2),
            _ => None,
        };
        masked_arguments(&shlex::split(text).unwrap(), values)
    }

    #[test]
    fn secrets_of_mistyped_options_were_printed() {
        for text in [
            "--hf-tokn hf_abc --jinja",
            "--hf-tokn -1 hf_abc",
            "--hf-tokn=hf_abc",
            "--hf-token=hf_abc",
            "--hf_token -hf_abc",
            "-hft hf_abc",
            "--jinja hf_abc",
            "hf_abc",
            "'--hf-token hf_abc'",
            "--mmproj-url https://u:hf_abc@h/x",
            "--mmproj-url https://hf_abc@h/x",
            "--mmproj-url 'https://u:a/hf_abc@h/x?t=y'",
            "--mmproj-url 'https://h/x?token=hf_abc'",
            "--new-api_key hf_abc",
        ] {
            assert!(!shown(text).contains("hf_abc") && shown(text).contains("***"), "{text}: {}", shown(text));
        }
        assert_eq!(shown("--hf-tokn hf_abc --jinja"), "--hf-tokn '***' --jinja");
        assert_eq!(shown("--mmproj-url https://u:p@h/x"), "--mmproj-url 'https://***@h/x'");
    }

    #[test]
    fn values_of_known_options_are_shown() {
        for text in [
            "--temp -0.5 --jinja",
            "--control-vector-layer-range 1 -2 --temp 1",
            "--chat-template '{{ x }}'",
            "--mmproj-url https://h/x",
        ] {
            assert_eq!(shown(text), text);
        }
    }
}
