//! Finds words that a llama-server would not take, before it is started with them.

use super::help::LlamaHelp;

/// Switches that newer builds replaced, and what to write there.
const REPLACED: &[(&str, &str)] =
    &[("--no-mmap", "--load-mode none"), ("--mlock", "--load-mode mlock"), ("--mmap", "--load-mode mmap")];

/// Least similarity of a name to be suggested.
const SIMILAR: f64 = 0.6;

/// Characters of a word that are shown at most.
const SHOWN: usize = 64;

/// What is wrong with one word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownArgument {
    /// The fault, with the word.
    pub fault: String,
    /// One suggestion.
    pub hint: Option<String>,
}

impl LlamaHelp {
    /// Returns the words that this llama-server would not take. A word after an option that has a value is its value,
    /// whatever it looks like.
    pub fn unknown_arguments(&self, words: &[String]) -> Vec<UnknownArgument> {
        let mut unknown = Vec::new();
        let mut rest = words.iter().map(String::as_str).peekable();
        let mut before = None;
        while let Some(word) = rest.next() {
            // llama-server takes `_` for `-` in long options.
            let name = if word.starts_with("--") { word.replace('_', "-") } else { word.to_owned() };
            let Some(option) = self.option(&name) else {
                unknown.push(self.explain(word, &name, before));
                // What follows may be its value, and a secret.
                while rest.next_if(|next| !looks_like_an_option(next)).is_some() {}
                continue;
            };
            before = Some(word);
            if let Some(replacement) = option.replacement() {
                unknown.push(UnknownArgument {
                    fault: format!("this llama-server no longer takes {word}"),
                    hint: (!replacement.is_empty()).then(|| replacement.to_owned()),
                });
            }
            for _ in 0..option.values {
                if rest.next().is_none() {
                    let hint = Some(format!("write {word} VALUE"));
                    unknown.push(UnknownArgument { fault: format!("{word} has no value"), hint });
                    break;
                }
            }
        }
        unknown
    }

    /// Explains an unknown word. `before` is the option before it.
    fn explain(&self, word: &str, name: &str, before: Option<&str>) -> UnknownArgument {
        let shown = shown(word);
        if !word.starts_with('-') {
            // The word itself may be a secret.
            let place = before.map_or_else(|| "the first word".to_owned(), |before| format!("what follows {before}"));
            let fault = format!("{place} is no argument of llama-server, nor the value of one");
            let hint = "put a value with blanks into quotes, after its option";
            return UnknownArgument { fault, hint: Some(hint.to_owned()) };
        }
        let fault = format!("this llama-server does not know the argument {shown}");
        if let Some((option, _)) = name.split_once('=').filter(|(option, _)| self.has(option)) {
            let hint = format!("llama-server wants the value in a word of its own: {option} VALUE");
            return UnknownArgument {
                fault: format!("this llama-server does not know {option}=..."),
                hint: Some(hint),
            };
        }
        if word.contains(char::is_whitespace) {
            let hint = "this is one argument with blanks: leave out the quotes around it";
            return UnknownArgument { fault, hint: Some(hint.to_owned()) };
        }
        let replaced = REPLACED.iter().find(|(old, _)| *old == name).map(|(_, new)| *new);
        let replaced = replaced.filter(|new| new.split(' ').next().is_some_and(|option| self.has(option)));
        let hint = replaced.or_else(|| self.nearest(name)).map(|similar| format!("did you mean {similar}?"));
        UnknownArgument { fault, hint }
    }

    /// Returns the most similar name that this llama-server knows. Only a similar long name is suggested for a long
    /// name: short ones are all similar.
    fn nearest(&self, name: &str) -> Option<&str> {
        let name = name.split('=').next().unwrap_or(name);
        let long = name.trim_start_matches('-');
        let similarity = |known: &str| strsim::jaro_winkler(long, known.trim_start_matches('-'));
        // `-temp` is a long option that has lost a dash.
        let known = self.names().filter(|known| known.starts_with("--") || long.len() <= 2);
        let best = known.map(|known| (similarity(known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
        best.filter(|(score, _)| *score >= SIMILAR).map(|(_, known)| known)
    }
}

/// Whether a word begins like an option; a negative number does not.
fn looks_like_an_option(word: &str) -> bool {
    word.starts_with('-') && word.parse::<f64>().is_err()
}

/// Returns an option as it may be printed: without what follows its name in the same word, which may be a secret, in
/// quotes if it has other characters than an option has, and not longer than [`SHOWN`].
fn shown(word: &str) -> String {
    let is_end = |c: char| c == '=' || c.is_whitespace();
    let name = word.split(is_end).next().unwrap_or(word);
    let short: String = name.chars().take(SHOWN).collect();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match (short.chars().all(is_plain), word.contains(char::is_whitespace)) {
        (true, false) => short,
        (_, true) => format!("{:?}", format!("{short} ...")),
        (false, false) => format!("{short:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::help::tests::{CURRENT, OLDER};
    use super::*;

    fn unknown(text: &str) -> Vec<UnknownArgument> {
        let words: Vec<String> = shlex::split(text).unwrap();
        LlamaHelp::parse(CURRENT).unwrap().unknown_arguments(&words)
    }

    #[test]
    fn an_unknown_argument_ended_every_start_of_llama_server() {
        for (text, fault, hint) in [
            ("--ctx-sise 1", "--ctx-sise", "did you mean --ctx-size?"),
            ("--flash_atn on", "--flash_atn", "did you mean --flash-attn?"),
            ("--no-mmap", "--no-mmap", "did you mean --load-mode none?"),
            ("--mlock", "--mlock", "did you mean --load-mode mlock?"),
            ("-temp 1", "-temp", "did you mean --temp?"),
            ("--temp=1", "--temp=...", "--temp VALUE"),
            ("--json-shema '{}'", "--json-shema", "did you mean --json-schema?"),
            ("--jinja hello", "what follows --jinja", "quotes"),
            ("hello", "the first word", "quotes"),
            ("'--jinja --temp 1'", "\"--jinja ...\"", "blanks"),
            ("--jinja --temp", "--temp has no value", "--temp VALUE"),
            ("--draft-max 3", "--draft-max", "use --spec-draft-n-max"),
            ("--jinjo", "--jinjo", "did you mean --jinja?"),
        ] {
            let found = unknown(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].fault.contains(fault), "{text}: {found:?}");
            assert!(found[0].hint.as_deref().unwrap_or_default().contains(hint), "{text}: {found:?}");
        }
        assert_eq!(unknown("--zzzzzz 1")[0].hint, None);
        assert_eq!(unknown("--ctx-sise 1 --jinja --jinjo").len(), 2, "all are reported");
    }

    #[test]
    fn known_arguments_and_their_values_are_taken() {
        for text in [
            "--jinja --temp -0.5 --flash_attn on",
            "-j --not-an-option -fa on",
            "--control-vector-layer-range 1 -2 --jinja",
            "--override-tensor 'a b=CPU' --no-kv-offload",
            "",
        ] {
            assert_eq!(unknown(text), [], "{text}");
        }
        let older = LlamaHelp::parse(OLDER).unwrap();
        assert_eq!(older.unknown_arguments(&["-fa".into(), "--no-mmap".into(), "--mlock".into()]), []);
        assert_eq!(older.unknown_arguments(&["-fa".into(), "on".into()]).len(), 1);
    }

    #[test]
    fn a_secret_after_an_unknown_argument_is_not_shown() {
        let found = unknown("--hf-tokens hf_secret --jinja");
        assert!(found.len() == 1 && !format!("{found:?}").contains("hf_secret"), "{found:?}");
        for text in ["--jinja hf_secret", "hf_secret", "'--hf-token hf_secret'", "'--hf-tokn=hf_secret x'"] {
            let found = unknown(text);
            assert!(found.len() == 1 && !format!("{found:?}").contains("hf_secret"), "{found:?}");
        }
        let found = unknown("--hf-token=hf_secret");
        assert!(!format!("{found:?}").contains("hf_secret"), "{found:?}");
        let found = unknown("--hf-tokens=hf_secret");
        assert!(!format!("{found:?}").contains("hf_secret"), "{found:?}");
    }
}
