//! `EXTRA_ARGS` and `args`: additional arguments for llama-server, and those that are refused or left out.
//!
//! Whether a llama-server knows an argument is checked against its own help, in `worker/dialect/`; the rules here hold
//! for every llama-server.

use super::masking::{dashed, looks_like_an_option, masked_arguments};
use super::value::{Rejected, Value};

/// Additional arguments for llama-server, already split.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtraArgs {
    /// The words of `EXTRA_ARGS` as they were given.
    pub given: Vec<String>,
    /// The words that llama-server gets.
    pub words: Vec<String>,
    /// The names that `--alias` gives to the model.
    pub names: Vec<String>,
    /// What works, but probably not as it was meant.
    pub warnings: Vec<String>,
}

/// Where arguments are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::settings) enum ArgumentsPlace {
    /// `EXTRA_ARGS`, for every model.
    Service,
    /// `args` of one model, or of `defaults:`.
    Model,
}

/// How the gateway treats an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArgumentRule {
    /// It is an error.
    Refused,
    /// It is left out, with a warning. The number of its values.
    LeftOut(usize),
    /// Its value names the model; llama-server gets the gateway's own name.
    NamesModel,
    /// Its value is the level of the log, which must show errors.
    LogLevel,
}

use ArgumentRule::{LeftOut, LogLevel, NamesModel, Refused};

const OWN_KEY: &str = "llama-server gets a key of its own; put clients' keys into AUTH_KEYS_FILE";
const OWN_MODEL: &str = "set MODEL_PATH or MODEL_NAME";
const OWN_CONTEXT: &str = "set CTX: it is the context of one slot, and llama-server's total is CTX times PARALLEL";
const OWN_MODELS: &str = "the gateway starts one llama-server per model itself";
const PLAIN_HTTP: &str = "llama-server speaks plain HTTP on 127.0.0.1";
const TOOLS: &str = "it would let any client run tools on this machine";
const PROGRAMS: &str = "it would start programs on this machine for any client";
const PRINTS: &str = "llama-server would print something and end; run llama-server itself for that";
const HIDES: &str = "the log would not say why llama-server fails; leave it out, its log files are bounded by LOG_KEEP";
const PRESET: &str = "it names another model and port; set MODEL_NAME=ORG/NAME";
const NO_ROUTE: &str = "the gateway does not open these routes";
const NO_ROUTER: &str = "the gateway starts one llama-server per model itself";
const NO_BROWSERS: &str = "clients never reach llama-server itself; set CORS_ORIGINS";
const NO_PAGE: &str = "the gateway does not serve llama-server's web page";
const REPOSITORY: &str = "the model is given by path; for a repository set MODEL_NAME=ORG/NAME";
const ALWAYS_ON: &str = "the gateway sets it itself";

/// The arguments with a rule, by their names with dashes, each with the reason or what to do instead.
const RULES: &[(&[&str], ArgumentRule, &str)] = &[
    (&["--host"], Refused, "llama-server listens on 127.0.0.1 only; set HOST for the gateway"),
    (&["--port"], Refused, "set PORT for the gateway, PORT_BACKEND for llama-server"),
    (&["--reuse-port"], Refused, "a second llama-server on the port would take half of the requests"),
    (&["--api-key", "--api-key-file"], Refused, OWN_KEY),
    (&["--api-prefix"], Refused, "the gateway expects llama-server's routes without a prefix"),
    (&["--model", "-m"], Refused, OWN_MODEL),
    (&["--models-dir", "--models-preset"], Refused, OWN_MODELS),
    (&["--ctx-size", "-c"], Refused, OWN_CONTEXT),
    (&["--parallel", "-np"], Refused, "set PARALLEL"),
    (&["--n-gpu-layers", "--gpu-layers", "-ngl"], Refused, "set NGL"),
    (&["--threads", "-t"], Refused, "set THREADS"),
    (&["--no-slots"], Refused, "the gateway reads llama-server's progress from its slots"),
    (&["--props"], Refused, "it would let any client change the server"),
    (&["--sleep-idle-seconds"], Refused, "set IDLE_UNLOAD"),
    (&["--ssl-key-file", "--ssl-cert-file"], Refused, PLAIN_HTTP),
    (&["--tools", "--tools-runtime", "--agent", "-ag"], Refused, TOOLS),
    (&["--mcp-servers-config", "--mcp-servers-json"], Refused, PROGRAMS),
    (&["--ui-mcp-proxy", "--webui-mcp-proxy"], Refused, "it would let any client reach other servers from here"),
    (&["--help", "-h", "--usage", "--version", "--list-devices", "--cache-list", "-cl"], Refused, PRINTS),
    (&["--completion-bash"], Refused, PRINTS),
    (&["--log-disable"], Refused, HIDES),
    (&["--verbosity", "--log-verbosity", "-lv"], LogLevel, HIDES),
    (&["--embd-gemma-default", "--gpt-oss-20b-default", "--gpt-oss-120b-default"], Refused, PRESET),
    (&["--fim-qwen-1.5b-default", "--fim-qwen-3b-default", "--fim-qwen-7b-default"], Refused, PRESET),
    (&["--fim-qwen-7b-spec", "--fim-qwen-14b-spec", "--fim-qwen-30b-default"], Refused, PRESET),
    (&["--vision-gemma-4b-default", "--vision-gemma-12b-default"], Refused, PRESET),
    (&["--alias", "-a"], NamesModel, "the id under models: is its name; list other names under aliases:"),
    (&["--metrics", "--slots"], LeftOut(0), ALWAYS_ON),
    (&["--slot-save-path"], LeftOut(1), NO_ROUTE),
    (&["--models-max"], LeftOut(1), NO_ROUTER),
    (&["--models-autoload", "--no-models-autoload"], LeftOut(0), NO_ROUTER),
    (&["--cors-origins", "--cors-methods", "--cors-headers"], LeftOut(1), NO_BROWSERS),
    (&["--cors-credentials", "--no-cors-credentials"], LeftOut(0), NO_BROWSERS),
    (&["--ui", "--webui", "--no-ui", "--no-webui"], LeftOut(0), NO_PAGE),
    (&["--ui-config", "--webui-config", "--ui-config-file", "--webui-config-file", "--path"], LeftOut(1), NO_PAGE),
    (&["--hf-repo", "-hf", "-hfr", "--hf-file", "-hff"], LeftOut(1), REPOSITORY),
    (&["--model-url", "-mu", "--docker-repo", "-dr"], LeftOut(1), REPOSITORY),
];

/// Options whose value may be any text, even one that looks like an option.
const TEXT_OPTIONS: &[&str] = &[
    "--grammar",
    "--json-schema",
    "-j",
    "--chat-template",
    "--chat-template-kwargs",
    "--reverse-prompt",
    "-r",
    "--reasoning-budget-message",
    "--dry-sequence-breaker",
    "--samplers",
    "--logit-bias",
    "-l",
    "--tags",
];

/// What is allowed, as a noun phrase.
const ALLOWED: &str = "llama-server arguments as a shell would split them";

impl ExtraArgs {
    /// Checks arguments that are already split, and takes out those that llama-server must not get.
    ///
    /// # Errors
    ///
    /// Returns the first argument that is refused, with a hint.
    pub(in crate::settings) fn checked(arguments: Vec<String>, place: ArgumentsPlace) -> Result<Self, Rejected> {
        let mut checked = Self::default();
        let mut last_option = String::new();
        let mut rest = arguments.into_iter().peekable();
        while let Some(word) = rest.next() {
            if word.contains('\0') {
                return Err(Rejected::new(format!("{ALLOWED}, without NUL bytes")));
            }
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) if name.starts_with('-') => (name, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let option = dashed(name);
            let refused =
                |why: &str| Err(Rejected::new(format!("{ALLOWED}, without {}", escaped(name))).with_hint(why));
            match rule(&option) {
                Some((Refused, why)) => return refused(why),
                Some((NamesModel, why)) if place == ArgumentsPlace::Model => return refused(why),
                Some((NamesModel, _)) => {
                    let value = inline.or_else(|| rest.next_if(|next| !looks_like_an_option(next)));
                    let names = value.iter().flat_map(|value| value.split(',')).map(str::trim);
                    let names: Vec<String> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
                    if names.is_empty() {
                        return refused("it needs a name, such as --alias NAME");
                    }
                    checked.names.extend(names);
                }
                Some((LeftOut(values), why)) => {
                    // An option is not taken for a forgotten value: it would be lost.
                    for _ in inline.iter().count()..values {
                        rest.next_if(|next| !looks_like_an_option(next));
                    }
                    checked.warnings.push(format!("{} has no effect: {why}", escaped(name)));
                }
                Some((LogLevel, why)) => {
                    let level = inline.as_ref().or_else(|| rest.peek()).and_then(|level| leading_number(level));
                    if level.is_some_and(|level| level <= 0) {
                        return refused(why);
                    }
                    checked.words.push(word);
                }
                None => {
                    checked.warnings.extend(doubt(&word, &last_option));
                    if looks_like_an_option(&word) {
                        name.clone_into(&mut last_option);
                    }
                    let takes_text = TEXT_OPTIONS.contains(&option.as_str());
                    checked.words.push(word);
                    if let Some(value) = rest.next_if(|_| takes_text) {
                        if value.contains('\0') {
                            return Err(Rejected::new(format!("{ALLOWED}, without NUL bytes")));
                        }
                        checked.warnings.extend(lost_quotes(&value, &last_option));
                        checked.words.push(value);
                    }
                }
            }
        }
        Ok(checked)
    }
}

impl Value for ExtraArgs {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let (words, was_quoted) = split(text).ok_or_else(|| {
            Rejected::new(ALLOWED).with_hint("a quote is not closed, or the text ends with a backslash")
        })?;
        let mut checked = Self { given: words.clone(), ..Self::checked(words, ArgumentsPlace::Service)? };
        if was_quoted {
            let quoted = "it is quoted as a whole; the outer quotes are taken off: write it without them";
            checked.warnings.insert(0, quoted.to_owned());
        }
        Ok(checked)
    }

    fn masked(text: &str) -> String {
        // An unclosed quote makes it impossible to tell which word is the secret, so the whole text is masked.
        split(text).map_or_else(|| "***".to_owned(), |(words, _)| masked_arguments(&words, |_| None))
    }
}

/// Returns the rule of an option, and the reason for it.
fn rule(option: &str) -> Option<(ArgumentRule, &'static str)> {
    RULES.iter().find(|(names, ..)| names.contains(&option)).map(|(_, rule, why)| (*rule, *why))
}

/// Reads a level as llama-server does (`std::stoi`): a whole number, and what follows it is ignored. `None` if there is
/// none, which ends llama-server with an error.
fn leading_number(text: &str) -> Option<i64> {
    let text = text.trim_start();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let number: i64 = digits[..end].parse().ok()?;
    Some(if text.starts_with('-') { -number } else { number })
}

/// Splits a text as a shell does. Platforms that do not remove quotes deliver `"--jinja --temp 0.5"` with them, which
/// a shell would take for one argument; its quotes are removed first. Lines may end with CR LF. Also returns whether the
/// quotes were removed; `None` if a quote is not closed.
fn split(text: &str) -> Option<(Vec<String>, bool)> {
    let text = text.replace("\r\n", "\n");
    let text = text.trim();
    let words = shlex::split(text)?;
    let [word] = words.as_slice() else { return Some((words, false)) };
    let inner = ['"', '\''].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote));
    match inner {
        Some(inner) if word.starts_with('-') && word.contains(char::is_whitespace) => {
            let has_escapes = inner.contains("\\\"");
            Some((shlex::split(if has_escapes { word } else { inner })?, true))
        }
        _ => Some((words, false)),
    }
}

/// Returns a warning about a word that is probably not what was meant. It shows no value, which may be a secret.
fn doubt(word: &str, last_option: &str) -> Option<String> {
    if word.starts_with("--") && word.contains(char::is_whitespace) && !word.contains('=') {
        let option = escaped(word.split_whitespace().next().unwrap_or_default());
        return Some(format!(
            "\"{option} ...\" is one argument with blanks: leave out the quotes around it, or write each word as an item \
             of its own"
        ));
    }
    lost_quotes(word, last_option)
}

/// Returns a warning about the value of an option that looks like JSON without its quotes. A chat template may begin with
/// `{` too.
fn lost_quotes(word: &str, option: &str) -> Option<String> {
    let is_template = ["{{", "{%", "{#"].iter().any(|start| word.starts_with(start));
    let is_json = || serde_json::from_str::<serde::de::IgnoredAny>(word).is_ok();
    (word.starts_with('{') && !is_template && !is_json()).then(|| {
        format!(
            "the value of {} is no JSON: if it has lost its quotes, write it as '{{\"name\": value}}' in single quotes",
            escaped(option)
        )
    })
}

/// Returns the name of an option without control characters.
fn escaped(name: &str) -> String {
    name.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        ExtraArgs::parse(text).unwrap().words
    }

    fn refusal(text: &str) -> Rejected {
        ExtraArgs::parse(text).expect_err(text)
    }

    #[test]
    fn extra_args_are_split_as_a_shell_does() {
        assert_eq!(words("--jinja --grammar 'root ::= \"a b\"'"), ["--jinja", "--grammar", "root ::= \"a b\""]);
        assert_eq!(words("--jinja\n  --temp 0.5\r\n"), ["--jinja", "--temp", "0.5"]);
        assert_eq!(words("--seed -1 --temp 0.5"), ["--seed", "-1", "--temp", "0.5"]);
        assert!(ExtraArgs::parse("--grammar 'open").is_err());
        assert!(ExtraArgs::checked(vec!["--grammar".into(), "a\0".into()], ArgumentsPlace::Service).is_err());
    }

    #[test]
    fn owned_arguments_were_taken_in_another_spelling() {
        for text in [
            "--host 0.0.0.0",
            "--api-key-file /k",
            "--api-key=x",
            "-m other.gguf",
            "--port=1",
            "--ctx_size 256",
            "--no_slots",
            "--api_key x",
            "--api_key_file=/x",
            "--sleep_idle_seconds 1",
            "--api_prefix /x",
            "--n_gpu-layers 3",
            "--ctx_size=1",
            "--reuse_port",
        ] {
            let rejected = refusal(text);
            let name = text.split([' ', '=']).next().unwrap();
            assert!(rejected.allowed.ends_with(&format!("without {name}")), "{text}: {rejected:?}");
            assert!(rejected.hint.is_some(), "{text} is refused with a reason");
        }
        assert!(refusal("-c 256").hint.unwrap().contains("CTX: it is the context of one slot"));
        assert_eq!(words("--backend_sampling"), ["--backend_sampling"], "other options may be written so");
    }

    #[test]
    fn arguments_that_start_programs_or_end_llama_server_were_taken() {
        for text in [
            "-ag",
            "--agent",
            "--mcp-servers-config /x",
            "--mcp-servers-json {}",
            "--mcp_servers_json {}",
            "--ui-mcp-proxy",
            "--webui-mcp-proxy",
            "--tools all",
            "--tools-runtime docker:x",
            "--version",
            "--help",
            "-h",
            "--usage",
            "--list-devices",
            "--list_devices",
            "-cl",
            "--cache-list",
            "--completion-bash",
            "--gpt-oss-20b-default",
            "--fim-qwen-7b-spec",
        ] {
            assert!(refusal(text).hint.is_some(), "{text}");
        }
        assert_eq!(words("--no-agent --no-ui-mcp-proxy"), ["--no-agent", "--no-ui-mcp-proxy"]);
    }

    #[test]
    fn a_log_without_the_cause_of_a_failure_was_allowed() {
        for text in [
            "--log-disable",
            "--log_disable",
            "-lv 0",
            "--verbosity 0",
            "--log-verbosity -1",
            "--log_verbosity 0",
            "-lv=0",
            "-lv -5",
            // llama-server reads the number before the first other character.
            "-lv 0.9",
            "-lv 0x0",
            "-lv ' 0'",
            "-lv +0",
            "-lv -1x",
            "-lv 0,5",
        ] {
            assert!(refusal(text).hint.unwrap().contains("would not say why"), "{text}");
        }
        for text in ["-lv 1", "--verbosity 4", "--log-file /x", "--log-jsonl", "-v", "--verbosity", "-lv 1.5", "-lv x"]
        {
            assert!(ExtraArgs::parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_value_is_no_argument() {
        for text in ["--grammar --host", "-r --version", "--reasoning-budget-message '-c is short'", "-j -m"] {
            assert!(ExtraArgs::parse(text).is_ok(), "{text}");
        }
        assert!(ExtraArgs::parse("--grammar --jinja --host x").is_err(), "only one word is the value");
    }

    #[test]
    fn harmless_arguments_ended_the_start() {
        for (text, kept, about) in [
            ("--metrics --jinja", &["--jinja"][..], "--metrics"),
            ("--slots", &[], "--slots"),
            ("--slot-save-path /x --jinja", &["--jinja"], "--slot-save-path"),
            ("--slot_save_path=/x --jinja", &["--jinja"], "--slot_save_path"),
            ("--slot-save-path --jinja", &["--jinja"], "--slot-save-path"),
            ("-hf -fa on", &["-fa", "on"], "MODEL_NAME=ORG/NAME"),
            ("--models-max -1", &[], "--models-max"),
            ("--models-max 2", &[], "--models-max"),
            ("--cors-origins * --temp 1", &["--temp", "1"], "CORS_ORIGINS"),
            ("--cors_credentials --temp 1", &["--temp", "1"], "CORS_ORIGINS"),
            ("--ui", &[], "web page"),
            ("-hf org/name:Q4 -fa on", &["-fa", "on"], "MODEL_NAME=ORG/NAME"),
            ("--hf_repo org/name", &[], "MODEL_NAME=ORG/NAME"),
            ("-mu http://x", &[], "MODEL_NAME=ORG/NAME"),
            ("-dr gemma3", &[], "MODEL_NAME=ORG/NAME"),
        ] {
            let ExtraArgs { words, warnings, .. } = ExtraArgs::parse(text).unwrap();
            assert_eq!(words, kept, "{text}");
            assert!(warnings.len() == 1 && warnings[0].contains(about), "{text}: {warnings:?}");
        }
    }

    #[test]
    fn an_alias_names_the_model_and_is_refused_for_a_single_model() {
        let named = ExtraArgs::parse("--alias 'gpt-4o, mine,' -a third --jinja").unwrap();
        assert_eq!(
            (named.names, named.words),
            (vec!["gpt-4o".into(), "mine".into(), "third".into()], vec!["--jinja".to_owned()])
        );
        let args = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let rejected = ExtraArgs::checked(args(&["--alias", "x"]), ArgumentsPlace::Model).unwrap_err();
        assert!(rejected.hint.unwrap().contains("models:"));
        for text in ["--alias", "--alias ''", "--alias=", "--alias ' , '", "--alias --jinja", "-a -fa on"] {
            assert!(refusal(text).hint.unwrap().contains("--alias NAME"), "{text}");
        }
        assert_eq!(ExtraArgs::parse("--alias=--odd").unwrap().names, ["--odd"]);
    }

    #[test]
    fn lost_or_kept_quotes_passed_in_silence() {
        for text in [
            "--chat-template-kwargs {enable_thinking:false}",
            "--chat-template-kwargs '{enable_thinking: false}'",
            "-j {type:object}",
            "--override-x {a",
        ] {
            let warnings = ExtraArgs::parse(text).unwrap().warnings;
            assert!(warnings.len() == 1 && warnings[0].contains("is no JSON"), "{text}: {warnings:?}");
        }
        for text in [
            "--chat-template-kwargs '{\"a\": false}'",
            "--chat-template '{% for x in y %}'",
            "--chat-template '{{ x }}'",
        ] {
            assert_eq!(ExtraArgs::parse(text).unwrap().warnings, [""; 0], "{text}");
        }
        let words_of = |word: &str| ExtraArgs::checked(vec![word.to_owned()], ArgumentsPlace::Model).unwrap();
        let warnings = words_of("--jinja --temp 0.5").warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("one argument with blanks"), "{warnings:?}");
    }

    #[test]
    fn arguments_in_quotes_as_a_whole_were_one_argument() {
        let kwargs = ["--jinja", "--chat-template-kwargs", "{\"a\":false}"];
        for (text, expected) in [
            ("\"--jinja --temp 0.5\"", &["--jinja", "--temp", "0.5"][..]),
            ("'--jinja --temp 0.5'", &["--jinja", "--temp", "0.5"]),
            ("\"--jinja --chat-template-kwargs '{\"a\":false}'\"", &kwargs),
            ("\"--jinja --chat-template-kwargs '{\\\"a\\\":false}'\"", &kwargs),
        ] {
            let ExtraArgs { words, warnings, .. } = ExtraArgs::parse(text).unwrap();
            assert_eq!(words, expected, "{text}");
            assert!(warnings.len() == 1 && warnings[0].contains("quoted as a whole"), "{text}: {warnings:?}");
        }
        for text in ["\"--jinja\"", "'--grammar' 'a b'", "\"a b\" --x \"c d\""] {
            assert_eq!(ExtraArgs::parse(text).unwrap().warnings, [""; 0], "{text}");
        }
        assert!(ExtraArgs::parse("\"--jinja --host 0.0.0.0\"").is_err());
    }

    #[test]
    fn secret_arguments_are_masked() {
        assert_eq!(ExtraArgs::masked("--hf-token hf_abc --jinja"), "--hf-token '***' --jinja");
        for text in [
            "--hf-token=hf_abc",
            "--hf-token 'hf_abc",
            "--hf_token hf_abc",
            "\"--hf-token hf_abc --jinja\"",
            "-hft hf_abc",
            "--api_key hf_abc",
            "--hf-tokn hf_abc",
            "--mcp-servers-json '{\"env\":{\"T\":\"hf_abc\"}}'",
        ] {
            assert!(!ExtraArgs::masked(text).contains("hf_abc"), "{text}");
        }
    }

    #[test]
    fn warnings_showed_values() {
        let of = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            ExtraArgs::checked(words, ArgumentsPlace::Model).unwrap().warnings
        };
        for words in [&["--hf-token hf_abc"][..], &["--x", "{t:hf_abc}"], &["-j", "{t:hf_abc}"], &["{t:hf_abc}"]] {
            let warnings = of(words);
            assert!(warnings.len() == 1 && !warnings[0].contains("hf_abc"), "{warnings:?}");
        }
    }
}
