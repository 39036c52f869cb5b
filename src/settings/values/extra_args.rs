//! `EXTRA_ARGS` and `args`: additional arguments for llama-server, and those that are refused or left out.
//!
//! Whether a llama-server knows an argument is checked against its own help, in `worker/arguments/`; the rules here hold
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
pub(crate) enum ArgumentsPlace {
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
const PLAIN_HTTP: &str = "llama-server speaks plain HTTP on 127.0.0.1: set TLS_CERT and TLS_KEY of the gateway";
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

/// Options whose value is JSON.
const JSON_OPTIONS: &[&str] = &["--json-schema", "-j", "--chat-template-kwargs"];

/// Dashes of typography, and how a dash of an option is written in their place. Two of them are often made one.
const DASHES: &[(char, &str)] = &[
    ('\u{2010}', "-"),
    ('\u{2011}', "-"),
    ('\u{2013}', "--"),
    ('\u{2014}', "--"),
    ('\u{2015}', "--"),
    ('\u{2212}', "-"),
];

/// Quotes of typography.
const QUOTES: &[char] = &['\u{2018}', '\u{2019}', '\u{201a}', '\u{201c}', '\u{201d}', '\u{201e}', '\u{ab}', '\u{bb}'];

/// What is allowed, as a noun phrase.
const ALLOWED: &str = "llama-server arguments as a shell would split them";

impl ExtraArgs {
    /// Checks arguments that are already split, and takes out those that llama-server must not get.
    ///
    /// # Errors
    ///
    /// Returns the first argument that is refused, with a hint.
    pub(crate) fn checked(arguments: Vec<String>, place: ArgumentsPlace) -> Result<Self, Rejected> {
        let mut checked = Self::default();
        let mut last_option = String::new();
        let mut rest = arguments.into_iter().peekable();
        while let Some(word) = rest.next() {
            check_characters(&word)?;
            check_typography(&word)?;
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
                    let takes_text = takes_any_text(&option);
                    checked.words.push(word);
                    if let Some(value) = rest.next_if(|_| takes_text) {
                        check_characters(&value)?;
                        let is_json = JSON_OPTIONS.contains(&option.as_str());
                        let warn = if is_json { no_json } else { lost_quotes };
                        checked.warnings.extend(warn(&value, &last_option));
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
        if let Some(words) = json_list(text) {
            let line = shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default();
            let hint = format!("write them in one line, without brackets: {}", Self::masked(&line));
            return Err(Rejected::new(format!("{ALLOWED}, not as a list in JSON")).with_hint(hint));
        }
        let mut checked = Self { given: words.clone(), ..Self::checked(words, ArgumentsPlace::Service)? };
        if was_quoted {
            let quoted = "it is quoted as a whole; the outer quotes are taken off: write it without them";
            checked.warnings.insert(0, quoted.to_owned());
        }
        Ok(checked)
    }

    /// Carriage returns count as blanks.
    fn may_have_carriage_returns() -> bool {
        true
    }

    fn masked(text: &str) -> String {
        if let Some(words) = json_list(text) {
            return format!(
                "[{}]",
                Self::masked(&shlex::try_join(words.iter().map(String::as_str)).unwrap_or_default())
            );
        }
        // An unclosed quote makes it impossible to tell which word is the secret, so the whole text is masked.
        split(text).map_or_else(|| "***".to_owned(), |(words, _)| masked_arguments(&words, |_| None))
    }
}

/// Returns whether the word after this option is its value, whatever it looks like.
pub(crate) fn takes_any_text(option: &str) -> bool {
    TEXT_OPTIONS.contains(&option)
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
/// a shell would take for one argument; its quotes are removed first. A carriage return, which files of Windows have at
/// the ends of lines, is a line end. Also returns whether the quotes were removed; `None` if a quote is not closed.
fn split(text: &str) -> Option<(Vec<String>, bool)> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
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

/// Returns the items of a text that is a list of texts in JSON, as forms of platforms deliver it.
fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// Checks that a word has no control characters but tabs and line feeds.
///
/// # Errors
///
/// Returns what is allowed.
fn check_characters(word: &str) -> Result<(), Rejected> {
    let is_control = |c: char| c.is_control() && !matches!(c, '\t' | '\n');
    if word.contains(is_control) {
        Err(Rejected::new(format!("{ALLOWED}, without control characters")))
    } else {
        Ok(())
    }
}

/// Checks that a word does not begin with a dash or quote of typography, which web pages and word processors put in place
/// of those of the keyboard.
///
/// # Errors
///
/// Returns how to write the option.
fn check_typography(word: &str) -> Result<(), Rejected> {
    let unquoted = word.trim_matches(QUOTES);
    let dash = DASHES.iter().find_map(|(dash, plain)| Some((unquoted.strip_prefix(*dash)?, *plain)));
    let is_quoted_option = word.starts_with(QUOTES) && unquoted.starts_with('-');
    if dash.is_none() && !is_quoted_option {
        return Ok(());
    }
    let (rest, plain) = dash.unwrap_or((unquoted, ""));
    let written = format!("{plain}{}", rest.trim_start_matches(|c| DASHES.iter().any(|(dash, _)| *dash == c)));
    let name = written.split('=').next().unwrap_or_default();
    let rejected = Rejected::new(format!("{ALLOWED}, with the dashes and quotes of the keyboard"));
    Err(rejected.with_hint(format!("write {}", escaped(name))))
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
    if word.starts_with('{') && !is_template { no_json(word, option) } else { None }
}

/// Returns a warning about a value that should be JSON and is not. It shows no value, which may be a secret.
fn no_json(value: &str, option: &str) -> Option<String> {
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok();
    (!is_json).then(|| {
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
#[path = "extra_args_tests.rs"]
mod tests;
