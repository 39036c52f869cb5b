//! Parses the text of `llama-server --help`.
//!
//! Each option begins a line: its names, separated by commas, then its values, then two or more spaces and its text,
//! which later lines continue (`common_arg::to_string` in llama.cpp's `common/arg.cpp`).

/// Options that every llama-server has. A text without them is not its help.
const EXPECTED: [&str; 4] = ["--model", "--port", "--ctx-size", "--host"];

/// What comes before the names of templates in the text of an option.
const TEMPLATE_LIST: &str = "built-in templates:";

/// Spaces at the start of a line that may begin an option; the text of an option is indented further.
const INDENT: usize = 4;

/// The options of one llama-server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlamaHelp {
    options: Vec<LlamaOption>,
}

/// One option of llama-server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LlamaOption {
    /// Its names with dashes.
    pub(super) names: Vec<String>,
    /// The number of its values.
    pub(super) values: usize,
    /// What the help calls its values, such as `N` or `on,off`.
    value_text: String,
    /// Its text, on one line.
    pub(super) text: String,
}

impl LlamaHelp {
    /// Parses a help; `None` if the text is not the help of a llama-server.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut options: Vec<LlamaOption> = Vec::new();
        for line in text.lines() {
            if let Some(option) = LlamaOption::begin(line) {
                options.push(option);
            } else if let Some(option) = options.last_mut() {
                option.text.push(' ');
                option.text.push_str(line.trim());
            }
        }
        let help = Self { options };
        EXPECTED.iter().all(|name| help.has(name)).then_some(help)
    }

    /// Returns whether there is an option of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.option(name).is_some()
    }

    /// Returns whether there is an option of this name that has not been removed.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.option(name).is_some_and(|option| option.replacement().is_none())
    }

    /// Returns the values that an option takes, if its help lists them.
    pub(super) fn listed_values(&self, name: &str) -> Vec<&str> {
        let Some(option) = self.option(name) else { return Vec::new() };
        let list = match option.text.split_once(TEMPLATE_LIST) {
            Some((_, list)) => list.split("(env:").next().unwrap_or(list),
            None => option.value_text.as_str(),
        };
        list.split(',').map(str::trim).filter(|value| !value.is_empty()).collect()
    }

    /// Returns the number of an option's values; `None` if there is no option of this name.
    pub fn value_count(&self, name: &str) -> Option<usize> {
        self.option(name).map(|option| option.values)
    }

    pub(super) fn option(&self, name: &str) -> Option<&LlamaOption> {
        self.options.iter().find(|option| option.names.iter().any(|known| known == name))
    }

    /// Returns all names of all options.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.options.iter().flat_map(|option| option.names.iter().map(String::as_str))
    }

    /// Returns the option that an environment variable of llama-server sets, by its longest name.
    pub fn option_of_variable(&self, variable: &str) -> Option<&str> {
        let mark = format!("(env: {variable})");
        let option = self.options.iter().find(|option| option.text.contains(&mark))?;
        // Of `--slots, --no-slots` the variable sets the first.
        let positive = option.names.iter().filter(|name| !name.starts_with("--no-") && !name.starts_with("-no-"));
        positive.max_by_key(|name| name.len()).map(String::as_str)
    }
}

impl LlamaOption {
    /// Parses the first line of an option; `None` for any other line.
    fn begin(line: &str) -> Option<Self> {
        let rest = line.trim_start_matches(' ');
        if line.len() - rest.len() > INDENT {
            return None;
        }
        let mut names = Vec::new();
        let mut rest = rest;
        loop {
            let end = rest.find([' ', ',']).unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            if !is_name(name) {
                return None;
            }
            names.push(name.to_owned());
            match after.strip_prefix(',') {
                Some(more) => rest = more.trim_start_matches(' '),
                None => {
                    let (values, text) = split_values(after);
                    let (values, value_text) = (count_values(values), values.to_owned());
                    return Some(Self { names, values, value_text, text: text.to_owned() });
                }
            }
        }
    }

    /// Returns what the help says to use instead, if the option was removed and only its name is still known.
    pub(super) fn replacement(&self) -> Option<&str> {
        let (_, rest) = self.text.split_once("argument has been removed.")?;
        Some(rest.split("(env:").next().unwrap_or(rest).trim())
    }
}

fn is_name(word: &str) -> bool {
    let name = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain)
}

/// Splits what follows the names: values after a single space, then the text after two or more.
fn split_values(after: &str) -> (&str, &str) {
    let rest = after.strip_prefix(' ').unwrap_or(after);
    if rest.is_empty() || rest.starts_with(' ') {
        return ("", rest.trim());
    }
    rest.split_once("  ").map_or((rest.trim(), ""), |(values, text)| (values, text.trim()))
}

/// Returns how many values a description of values means: `N` is one, `START END` two. A description in brackets, such
/// as `<tensor name pattern>=<buffer type>`, is one, whatever blanks it has.
fn count_values(values: &str) -> usize {
    let is_word = |word: &str| word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    match values.split_whitespace().count() {
        0 => 0,
        words if values.split_whitespace().all(is_word) => words,
        _ => 1,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Lines of the help of a current build.
    pub(crate) const CURRENT: &str = "\
----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version and build info
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
                                        (env: LLAMA_ARG_FLASH_ATTN)
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        whether to enable KV cache offloading (default: enabled)
                                        (env: LLAMA_ARG_KV_OFFLOAD)
-lm,   --load-mode MODE                 model loading mode (default: auto)
                                        - none: no special loading mode
                                        - mmap+mlock: mmap + force system to keep model in RAM rather than
                                        swapping or compressing
                                        
                                        (env: LLAMA_ARG_LOAD_MODE)
-ot,   --override-tensor <tensor name pattern>=<buffer type>,...
                                        override tensor buffer type
--control-vector-layer-range START END
                                        layer range to apply the control vector(s) to, start and end inclusive
-m,    --model FNAME                    model path to load
                                        (env: LLAMA_ARG_MODEL)
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
                                        (env: LLAMA_ARG_DRAFT_MAX)
--temp, --temperature N                 temperature (default: 0.80)
--fim-qwen-1.5b-default                 use default Qwen 2.5 Coder 1.5B
--host HOST                             IP addresses to listen on
                                        (env: LLAMA_ARG_HOST)
--port PORT                             port to listen (default: 9931)
                                        (env: LLAMA_ARG_PORT)
--threads-http N                        number of threads used to process HTTP requests (default: -1)
                                        (env: LLAMA_ARG_THREADS_HTTP)
--hf-token TOKEN                        Hugging Face access token
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
                                        (env: LLAMA_ARG_UI)
-j,    --json-schema SCHEMA             JSON schema to constrain generations
--jinja, --no-jinja                     whether to use jinja template engine for chat (default: enabled)
";

    /// Lines of the help of an older build.
    pub(crate) const OLDER: &str = "\
usage: llama-server [options]

options:

  -c, --ctx-size N          size of the prompt context
  --no-mmap                 do not memory-map model
  --mlock                   force system to keep model in RAM
  -m FNAME, --model FNAME
  -m, --model FNAME         model path
  --host HOST               ip address to listen (default: 127.0.0.1)
  --port PORT               port to listen
  -fa, --flash-attn         enable Flash Attention
";

    #[test]
    fn names_values_and_variables_are_read() {
        let help = LlamaHelp::parse(CURRENT).unwrap();
        for (name, values) in [
            ("-c", 1),
            ("--ctx-size", 1),
            ("--flash-attn", 1),
            ("--no-kv-offload", 0),
            ("-nkvo", 0),
            ("--override-tensor", 1),
            ("--control-vector-layer-range", 2),
            ("--usage", 0),
            ("--fim-qwen-1.5b-default", 0),
            ("--draft-max", 1),
            ("--no-webui", 0),
        ] {
            assert_eq!(help.option(name).map(|option| option.values), Some(values), "{name}");
        }
        assert!(!help.has("--no-mmap") && !help.has("-") && !help.has("- none:"));
        assert_eq!(help.option_of_variable("LLAMA_ARG_KV_OFFLOAD"), Some("--kv-offload"));
        assert_eq!(help.option_of_variable("LLAMA_ARG_UI"), Some("--webui"));
        assert_eq!(help.option_of_variable("LLAMA_ARG_NONE"), None);
        let removed = help.option("--draft-max").and_then(LlamaOption::replacement);
        assert_eq!(removed, Some("use --spec-draft-n-max or --spec-ngram-mod-n-max"));
        assert_eq!(help.option("-m").and_then(LlamaOption::replacement), None);
    }

    #[test]
    fn an_older_help_is_read_and_another_text_is_not() {
        let help = LlamaHelp::parse(OLDER).unwrap();
        assert!(help.has("--no-mmap") && help.has("--mlock") && !help.has("--load-mode"));
        assert_eq!(help.option("-fa").map(|option| option.values), Some(0));
        for text in ["", "usage: wrapper [--model X] [--port N]", "error: invalid argument: --help", "--model M\n"] {
            assert_eq!(LlamaHelp::parse(text), None, "{text}");
        }
    }
}
