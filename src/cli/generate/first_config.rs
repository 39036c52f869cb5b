//! The text of a first configuration.

use super::args::Audience;

/// Returns the configuration. `model` is the id and the file of a model; without it, every model that is found is served.
/// The schema is the file of that name beside it.
pub(super) fn text(model: Option<(&str, &str)>, audience: Audience, schema: &str) -> String {
    let models = match model {
        Some((id, file)) => MODEL.replace("{id}", &quoted(id)).replace("{file}", &quoted(file)),
        None => NO_MODEL.to_owned(),
    };
    let server = match audience {
        Audience::Local => LOCAL,
        Audience::Network => NETWORK,
    };
    format!("# yaml-language-server: $schema={schema}\n{HEAD}\n{server}\n{models}{DEFAULTS}")
}

/// Returns a text as a YAML scalar in double quotes, which JSON's are too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

const HEAD: &str = "\
# The configuration of llamagate. `llamagate check --config FILE` tells what it means and starts nothing.
# Every setting is an environment variable and a flag, too; `llamagate serve --help` lists all.
";

const LOCAL: &str = "\
server:
  host: 127.0.0.1        # programs on this machine only,
  auth_enabled: false    # which need no key
  port: 8000
";

const NETWORK: &str = "\
server:
  host: 0.0.0.0          # every machine that reaches this one
  auth_enabled: true     # with a key: `keyctl generate --name NAME` makes one
  port: 8000
";

const MODEL: &str = "\
models:
  {id}:    # the name that clients use
    file: {file}
    # ctx: 16k           # tokens of context for each slot
    # parallel: 4        # requests at the same time
    # aliases: [default] # further names
";

const NO_MODEL: &str = "\
# Without models, every model below MODELS_DIR is served under a name of its own; `llamagate list` shows them.
# models:
#   qwen3-4b:            # the name that clients use
#     file: Qwen3-4B-Q4_K_M.gguf
";

const DEFAULTS: &str = "
# What holds for all models:
# defaults:
#   ttl: 15m             # unload a model that has been idle for this long
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{YamlNode, examine_file_text};

    /// Returns the text with the examples in its comments put into effect.
    fn with_examples(text: &str) -> String {
        let uncommented = |line: &str| match line.trim_start().strip_prefix("# ") {
            Some(rest) if !rest.starts_with(char::is_uppercase) && rest.contains(':') && !rest.contains('$') => {
                line.replacen("# ", "", 1)
            }
            Some(rest) if rest.starts_with("  ") => line.replacen("# ", "", 1),
            _ => line.to_owned(),
        };
        text.lines().map(|line| uncommented(line) + "\n").collect()
    }

    #[test]
    fn a_first_configuration_is_valid_with_and_without_its_examples() {
        for model in [None, Some(("qwen3: 4b \"x\"", "/models/a b.gguf"))] {
            for audience in [Audience::Local, Audience::Network] {
                let text = text(model, audience, "llamagate.schema.json");
                for text in [with_examples(&text), text] {
                    assert_eq!(examine_file_text(&text), (vec![], vec![]), "{text}");
                    assert!(matches!(YamlNode::parse(&text), Ok(YamlNode::Map(_))), "{text}");
                }
            }
        }
    }
}
