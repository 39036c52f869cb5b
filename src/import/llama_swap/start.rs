//! What llama-swap starts for a model, or where else it asks for it: `cmd`, `env` and `proxy`.

use super::command::{is_llama_server, other_command, split_command};
use super::fields::SwapFields;
use super::macros::MacroScope;
use super::proxy::{ProxyTarget, proxy_target};
use crate::import::acceptance::{KeyPlace, check_remote};
use crate::import::section::{DraftSection, DraftValue};
use crate::import::server::{GivenOption, OptionName, ServerKeys, flag_of_variable, read_arguments, translate};
use crate::settings::YamlNode;

/// What is started or asked for a model, and its keys so far.
pub(super) struct ModelStart {
    pub(super) place: KeyPlace,
    pub(super) keys: DraftSection,
    pub(super) comments: DraftSection,
    pub(super) remote: Option<DraftSection>,
    pub(super) aliases: Vec<String>,
    pub(super) program: Option<String>,
}

impl ModelStart {
    /// Reads what is started: `cmd`, `proxy` and `env`.
    pub(super) fn read(
        fields: &SwapFields<'_>,
        scope: &MacroScope<'_>,
        mut comments: DraftSection,
    ) -> Result<Self, String> {
        let proxy = proxy_target(&scope.expand(&fields.text("proxy"))?);
        let port = match proxy {
            ProxyTarget::Elsewhere(api_base) => return Self::remote(fields, api_base, comments),
            ProxyTarget::Here { port, has_path } => {
                if has_path {
                    comments.left_out("the path of proxy", "routes of a server begin at /v1");
                }
                port
            }
        };
        let words = split_command(&fields.text("cmd"), scope)?;
        if words.is_empty() {
            return Err("it has no cmd".to_owned());
        }
        let variables = texts(fields.get("env"), scope, "env", &mut comments)?;
        if is_llama_server(&words) {
            return Self::llama_server(&words, &variables, comments);
        }
        let command = other_command(words, &variables, port, &mut comments)?;
        let keys = DraftSection::of("command", DraftValue::Words(command));
        Ok(Self { place: KeyPlace::Command, keys, comments, remote: None, aliases: Vec::new(), program: None })
    }

    fn remote(fields: &SwapFields<'_>, api_base: String, mut comments: DraftSection) -> Result<Self, String> {
        if fields.get("cmd").is_some() {
            comments.left_out("cmd", "proxy names another machine: nothing is started for it here");
        }
        if fields.get("env").is_some() {
            comments.left_out("env", "nothing is started for it here");
        }
        let remote = DraftSection::of("api_base", DraftValue::Text(api_base));
        check_remote(&remote).map_err(|fault| format!("proxy: {fault}"))?;
        let keys = DraftSection::default();
        let remote = Some(remote);
        Ok(Self { place: KeyPlace::Remote, keys, comments, remote, aliases: Vec::new(), program: None })
    }

    fn llama_server(words: &[String], variables: &[String], mut comments: DraftSection) -> Result<Self, String> {
        let mut options = options_of_variables(variables, &mut comments);
        options.extend(read_arguments(&words[1..], &mut comments));
        let ServerKeys { section, file, aliases } = translate(&options);
        let file = file.ok_or("its command names no model with -m or -hf")?;
        let mut keys = DraftSection::default();
        keys.set("file", DraftValue::Text(file));
        for (key, value) in section.keys() {
            keys.set(key, value.clone());
        }
        comments.take_comments(section);
        Ok(Self { place: KeyPlace::File, keys, comments, remote: None, aliases, program: words.first().cloned() })
    }
}

/// Returns llama-server's own variables as options; other variables of one model are left out.
fn options_of_variables(variables: &[String], comments: &mut DraftSection) -> Vec<GivenOption> {
    let mut options = Vec::new();
    for variable in variables {
        let Some((name, value)) = variable.split_once('=') else {
            comments.left_out("a line of env", "it is not NAME=VALUE");
            continue;
        };
        match flag_of_variable(name) {
            Some(spelled) => {
                let name = OptionName::of_flag(&spelled);
                let values = if name.is_switch { Vec::new() } else { vec![value.to_owned()] };
                options.push(GivenOption { name, spelled, values });
            }
            None => comments.left_out(
                format!("env {name}"),
                "a variable of the service reaches all llama-servers, if it is one for a GPU",
            ),
        }
    }
    options
}

/// Returns the texts of a list, with macros in place.
fn texts(
    node: Option<&YamlNode>,
    scope: &MacroScope<'_>,
    key: &str,
    comments: &mut DraftSection,
) -> Result<Vec<String>, String> {
    let items = match node {
        None => return Ok(Vec::new()),
        Some(YamlNode::List(items)) => items,
        Some(_) => {
            comments.left_out(key, "it is no list");
            return Ok(Vec::new());
        }
    };
    let mut list = Vec::with_capacity(items.len());
    for item in items {
        match item.scalar() {
            Some(text) => list.push(scope.expand(&text)?),
            None => comments.left_out(format!("an entry of {key}"), "it is no text"),
        }
    }
    Ok(list)
}
