//! Generates `docs/CONFIGURATION.md` from the table of settings. A test compares the file with this text.

use std::fmt::Write as _;

use super::brought::aliases::aliases_of;
use super::brought::{ALIASES, AliasTarget};
use super::options::{OPTIONS, Sources};

/// Returns the text of `docs/CONFIGURATION.md`.
pub fn configuration_reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         Generated from `src/settings/options.rs`; `UPDATE_DOCS=1 cargo test --test it docs` rewrites it.\n\n\
         Every setting is an environment variable, a flag of the same name in kebab case (`MAX_QUEUE_SIZE` is\n\
         `--max-queue-size`) and a key under `server:` of the configuration file in lower case (`max_queue_size`).\n\
         The sources in order of precedence: flag, environment variable, variable of `ENV_FILE`, configuration file,\n\
         platform default, default.\n\n\
         Yes-or-no settings take `true`, `false`, `1`, `0`, `yes`, `no`, `on`, `off` in any case. Durations take\n\
         `300`, `300s`, `5m`, `2h`, `500ms`; sizes take `10485760`, `10MiB`, `10MB`. `10M` is `10MiB`, and `16k`\n\
         of `CTX` are 16384 tokens, as nginx, logrotate and Docker count. A value that cannot be parsed\n\
         is an error and is never replaced by the default: `llamagate check` prints all problems at once and exits with 78.\n\
         Blanks, carriage returns and line feeds around the value of a variable do not count, nor do a byte order mark or\n\
         quotes around the whole value, as `docker --env-file` and web forms deliver them. A variable with nothing else\n\
         counts as unset.\n\n\
         A changed value takes effect after a [reload](MODELS.md#reloading-the-configuration) or after a restart: see the\n\
         column \"change needs\".\n\n\
         To serve several models, describe them in the configuration file, where each has its own keys:\n\
         [MODELS.md](MODELS.md).\n",
    );
    let mut group = "";
    for row in OPTIONS {
        if row.group != group {
            group = row.group;
            let _ =
                write!(text, "\n## {group}\n\n| variable | default | change needs | meaning |\n|---|---|---|---|\n");
        }
        let only = match row.sources {
            Sources::All => "",
            Sources::NoFile => " Not in the configuration file.",
            Sources::Variable => " Only as a variable: other users of the machine can read flags.",
        };
        let default = if row.default.is_empty() { "-".to_owned() } else { format!("`{}`", row.default) };
        let aliases: Vec<String> = aliases_of(&row.variable()).map(|alias| format!("`{}`", alias.name)).collect();
        let aliases = match aliases.as_slice() {
            [] => String::new(),
            [alias] => format!(" Alias: {alias}."),
            several => format!(" Aliases: {}.", several.join(", ")),
        };
        let _ = writeln!(text, "| `{}` | {default} | {} | {}{only}{aliases} |", row.variable(), row.change, row.doc);
    }
    text.push_str(BROUGHT_NAMES);
    for row in ALIASES {
        let meaning = match row.target {
            AliasTarget::Variable(own) => format!("`{own}`"),
            AliasTarget::Described(meaning) => meaning.to_owned(),
            AliasTarget::Nothing(instead) => format!("nothing: {instead}"),
        };
        let remark = if row.remark.is_empty() { String::new() } else { format!("; {}", row.remark) };
        let _ = writeln!(text, "| `{}` | {meaning}{remark} |", row.name);
    }
    text
}

/// The heading and the introduction of the table of aliases.
const BROUGHT_NAMES: &str = "\n## Names of other servers\n\n\
    Environment variables that people bring along from other servers are read as ours; flags and keys of the\n\
    configuration file have no aliases. `llamagate check` has one line for each that is set (`N_CTX read as CTX`), or a\n\
    warning if it has no effect. If our own name is set too, it wins; of two aliases, the upper one. A flag wins over an\n\
    alias, and a name in the environment over one in `ENV_FILE`. [COMING_FROM.md](COMING_FROM.md) compares whole servers with this one.\n\n\
    | variable | read as |\n|---|---|\n";
