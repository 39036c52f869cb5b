//! Generates `docs/CONFIGURATION.md` from the table of settings. A test compares the file with this text.

use super::options::OPTIONS;
use std::fmt::Write as _;

/// Returns the text of `docs/CONFIGURATION.md`.
pub fn configuration_reference() -> String {
    let mut text = String::from(
        "# Configuration\n\n\
         Generated from `src/settings/options.rs`; `UPDATE_DOCS=1 cargo test --test it docs` rewrites it.\n\n\
         Every setting is an environment variable, a flag of the same name in kebab case (`MAX_QUEUE_SIZE` is\n\
         `--max-queue-size`) and a key under `server:` of the configuration file in lower case (`max_queue_size`).\n\
         The sources in order of precedence: flag, environment variable, configuration file, platform default, default.\n\n\
         Yes-or-no settings take `true`, `false`, `1`, `0`, `yes`, `no`, `on`, `off` in any case. Durations take\n\
         `300`, `300s`, `5m`, `2h`, `500ms`; sizes take `10485760`, `10MiB`, `10MB`. A value that cannot be parsed\n\
         is an error and is never replaced by the default: `llamagate check` prints all problems at once and exits with 78.\n\
         An empty variable counts as unset.\n\n\
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
        let default = if row.default.is_empty() { "-".to_owned() } else { format!("`{}`", row.default) };
        let aliases: String = row.aliases.iter().map(|alias| format!(" Alias: `{alias}`.")).collect();
        let _ = writeln!(text, "| `{}` | {default} | {} | {}{aliases} |", row.variable(), row.change, row.doc);
    }
    text
}
