//! The agents: where each has its configuration, and what it needs in it.
//!
//! Keys stay in the environment, as `LLAMAGATE_KEY`, for every agent that can read them there.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use toml_edit::{DocumentMut, Item, Table, value};

use super::args::AgentName;
use super::{json_edit, yaml_edit};
use crate::settings::Environment;

/// What an agent is pointed at.
#[derive(Debug, Clone)]
pub(super) struct AgentTarget {
    /// The address of the service, without `/v1`.
    pub(super) base: String,
    pub(super) model: String,
    pub(super) key: Option<String>,
}

/// What stands in place of a key where an agent insists on one and the service needs none.
const NO_KEY: &str = "none";

impl AgentName {
    /// Returns the file of this user, or `None` if `HOME` is not set.
    pub(super) fn path(self, environment: &Environment) -> Option<PathBuf> {
        let home = |path: &str| environment.get("HOME").map(|home| Path::new(home).join(path));
        let below = |variable: &str, file: &str| environment.get(variable).map(|folder| Path::new(folder).join(file));
        match self {
            Self::Claude => below("CLAUDE_CONFIG_DIR", "settings.json").or_else(|| home(".claude/settings.json")),
            Self::Codex => below("CODEX_HOME", "config.toml").or_else(|| home(".codex/config.toml")),
            Self::Opencode => {
                below("XDG_CONFIG_HOME", "opencode/opencode.json").or_else(|| home(".config/opencode/opencode.json"))
            }
            Self::Aider => home(".aider.conf.yml"),
            Self::Continue => home(".continue/config.yaml"),
        }
    }

    /// Returns the configuration with what the agent needs for this service.
    ///
    /// # Errors
    /// A sentence that says why the configuration cannot be changed.
    pub(super) fn configure(self, text: &str, target: &AgentTarget) -> Result<String, String> {
        match self {
            Self::Claude => claude(text, target),
            Self::Codex => codex(text, target),
            Self::Opencode => opencode(text, target),
            Self::Aider => aider(text, target),
            Self::Continue => of_continue(text, target),
        }
    }

    /// Returns the command that starts the agent.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Opencode => "opencode",
            Self::Aider => "aider",
            Self::Continue => "cn",
        }
    }

    /// Whether the agent reads the key from `LLAMAGATE_KEY`.
    pub(super) fn reads_key_variable(self) -> bool {
        self != Self::Aider
    }
}

/// Claude Code speaks Anthropic's API. Its small model is asked for titles and summaries.
fn claude(text: &str, target: &AgentTarget) -> Result<String, String> {
    let mut text = json_edit::set(text, &["env", "ANTHROPIC_BASE_URL"], &json!(target.base))?;
    for name in ["ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL"] {
        text = json_edit::set(&text, &["env", name], &json!(target.model))?;
    }
    let helper = match target.key {
        Some(_) => "printenv LLAMAGATE_KEY".to_owned(),
        None => format!("echo {NO_KEY}"),
    };
    json_edit::set(&text, &["apiKeyHelper"], &json!(helper))
}

/// Codex speaks OpenAI's Responses API.
fn codex(text: &str, target: &AgentTarget) -> Result<String, String> {
    let parsed = text.parse::<DocumentMut>();
    let mut document = parsed.map_err(|error| format!("it is no TOML: {}", error.message()))?;
    document["model"] = value(target.model.as_str());
    document["model_provider"] = value("llamagate");
    let providers = document.entry("model_providers").or_insert_with(|| {
        let mut providers = Table::new();
        providers.set_implicit(true);
        Item::Table(providers)
    });
    let providers = providers.as_table_like_mut().ok_or("model_providers is no table")?;
    let provider = providers.entry("llamagate").or_insert(Item::Table(Table::new()));
    let provider = provider.as_table_like_mut().ok_or("model_providers.llamagate is no table")?;
    provider.insert("name", value("llamagate"));
    provider.insert("base_url", value(format!("{}/v1", target.base)));
    provider.insert("wire_api", value("responses"));
    match target.key {
        Some(_) => _ = provider.insert("env_key", value("LLAMAGATE_KEY")),
        None => _ = provider.remove("env_key"),
    }
    Ok(document.to_string())
}

/// opencode speaks OpenAI's chat API.
fn opencode(text: &str, target: &AgentTarget) -> Result<String, String> {
    let is_new = text.trim().is_empty();
    let text = match is_new {
        true => json_edit::set(text, &["$schema"], &json!("https://opencode.ai/config.json"))?,
        false => text.to_owned(),
    };
    let key = target.key.as_ref().map_or(NO_KEY, |_| "{env:LLAMAGATE_KEY}");
    let options = json!({"baseURL": format!("{}/v1", target.base), "apiKey": key});
    let members: [(&[&str], Value); 4] = [
        (&["provider", "llamagate", "npm"], json!("@ai-sdk/openai-compatible")),
        (&["provider", "llamagate", "options"], options),
        (&["provider", "llamagate", "models", &target.model], json!({})),
        (&["model"], json!(format!("llamagate/{}", target.model))),
    ];
    members.iter().try_fold(text, |text, (path, value)| json_edit::set(&text, path, value))
}

/// Aider asks through LiteLLM, which takes the API from the beginning of the model's name.
fn aider(text: &str, target: &AgentTarget) -> Result<String, String> {
    let values = [
        ("model", format!("openai/{}", target.model)),
        ("openai-api-base", format!("{}/v1", target.base)),
        ("openai-api-key", target.key.as_deref().unwrap_or(NO_KEY).to_owned()),
    ];
    let set = |text: String, (name, value): &(&str, String)| yaml_edit::set_top_level(&text, name, value);
    let text = values.iter().fold(text.to_owned(), set);
    let read = yaml_edit::read(&text)?;
    match values.iter().find(|(name, value)| read[name] != *value) {
        Some((name, _)) => Err(format!("{name} cannot be set in it: write it as one key on a line")),
        None => Ok(text),
    }
}

/// Continue speaks OpenAI's chat API.
fn of_continue(text: &str, target: &AgentTarget) -> Result<String, String> {
    let quoted = |text: &str| Value::from(text).to_string();
    let text = match text.trim().is_empty() {
        true => "name: llamagate\nversion: 0.0.1\nschema: v1\n",
        false => text,
    };
    let key = target.key.as_ref().map_or(NO_KEY, |_| "${{ secrets.LLAMAGATE_KEY }}");
    let item = [
        format!("- name: {}", quoted(&format!("{} (llamagate)", target.model))),
        "  provider: openai".to_owned(),
        format!("  model: {}", quoted(&target.model)),
        format!("  apiBase: {}", quoted(&format!("{}/v1", target.base))),
        format!("  apiKey: {key}"),
        "  roles: [chat, edit, apply]".to_owned(),
    ];
    let text = yaml_edit::set_item(text, "models", &item)?;
    let read = yaml_edit::read(&text)?;
    let is_it = |model: &Value| model["model"] == target.model && model["apiBase"] == format!("{}/v1", target.base);
    match read["models"].as_array().is_some_and(|models| models.iter().any(is_it)) {
        true => Ok(text),
        false => Err("no model can be added to it: write models: as a list of lines".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(key: Option<&str>) -> AgentTarget {
        let (base, model) = ("http://127.0.0.1:8000".to_owned(), "qwen3".to_owned());
        AgentTarget { base, model, key: key.map(str::to_owned) }
    }

    const AGENTS: [AgentName; 5] =
        [AgentName::Claude, AgentName::Codex, AgentName::Opencode, AgentName::Aider, AgentName::Continue];

    #[test]
    fn a_second_time_changes_nothing_and_a_key_is_written_only_where_nothing_else_works() {
        for agent in AGENTS {
            for key in [None, Some("a-secret-key")] {
                let once = agent.configure("", &target(key)).unwrap();
                assert_eq!(agent.configure(&once, &target(key)).unwrap(), once, "{agent:?}");
                assert!(once.contains("127.0.0.1:8000") && once.contains("qwen3"), "{once}");
                assert_eq!(once.contains("a-secret-key"), key.is_some() && !agent.reads_key_variable(), "{once}");
            }
        }
    }

    #[test]
    fn what_the_user_has_written_stays() {
        for (agent, text, kept) in [
            (AgentName::Claude, "{\n  \"theme\": \"dark\",\n  \"env\": {\"A\": \"1\"}\n}\n", "\"theme\": \"dark\""),
            (AgentName::Codex, "# mine\nmodel = \"gpt\" # old\n\n[tui]\nx = 1\n", "# mine\n"),
            (AgentName::Codex, "[model_providers.other]\nname = \"o\"\n", "[model_providers.other]\nname = \"o\"\n"),
            (AgentName::Opencode, "{\n  // mine\n  \"share\": \"disabled\"\n}\n", "// mine"),
            (AgentName::Aider, "dark-mode: true\nmodel: gpt\n", "dark-mode: true\n"),
            (AgentName::Continue, "models:\n  - name: other\n    model: o\n", "  - name: other\n    model: o\n"),
        ] {
            let after = agent.configure(text, &target(None)).unwrap();
            assert!(after.contains(kept), "{after}");
        }
        assert!(AgentName::Codex.configure("a = [", &target(None)).unwrap_err().starts_with("it is no TOML"));
    }

    /// Once a second `model` was written, or text behind the end of the mapping.
    #[test]
    fn yaml_that_cannot_be_added_to_line_by_line_is_refused() {
        for (agent, text) in [
            (AgentName::Aider, "{dark-mode: true}\n"),
            (AgentName::Aider, "\"model\": gpt\n"),
            (AgentName::Aider, "- a list\n"),
            (AgentName::Continue, "{name: mine}\n"),
            (AgentName::Continue, "\"models\":\n  - name: other\n"),
            (AgentName::Continue, "models:\n  name: other\n"),
        ] {
            let refused = agent.configure(text, &target(None));
            let fault = refused.expect_err(text);
            assert!(fault.starts_with("it is not written as one key on a line"), "{text}: {fault}");
        }
        assert!(AgentName::Aider.configure("# all is commented out\n", &target(None)).is_ok());
    }
}
