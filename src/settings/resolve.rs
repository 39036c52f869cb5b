//! Resolves raw texts to [`Settings`].
//!
//! Owns the precedence (flag, environment variable, configuration file, platform default, default) and the list of
//! problems. The types in `values/` parse single texts, and `cross_checks.rs` judges them together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::brought::aliases::{LOAD_BALANCER, RERANKER_CONFIG_PATH};
use super::brought::{BroughtNames, FileFacts, other_programs_warnings};
use super::catalogue::Catalogue;
use super::cross_checks::{cautions, contradictions};
use super::detected::{
    LOAD_BALANCER_PORT, LOAD_BALANCER_RULE, hub_cache, is_behind_runpod_load_balancer, llama_server, lm_studio_models,
    ollama_models, rpc_server,
};
use super::environment::Environment;
use super::file::ConfigFile;
use super::merge::{self, tiers};
use super::options::{OPTIONS, OptionRow, Settings};
use super::problem::SettingProblem;
use super::reader::Reader;
use super::runpod;
use super::source::{Inputs, ValueSource};
use super::values::Value;
use crate::models::shown_name;
use crate::platform::Platform;

/// The configuration that the service runs with.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The settings of the whole service.
    pub settings: Settings,
    /// The models, each with its own settings.
    pub catalogue: Catalogue,
}

/// The resolved configuration, with the source of each value.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// The configuration file, if one was read.
    pub config_file: Option<PathBuf>,
    /// The files that it includes.
    pub included_files: Vec<PathBuf>,
    /// The typed settings and the models.
    pub config: Config,
    /// Key, printable text and source of every setting, in the table's order.
    pub rows: Vec<(&'static str, String, ValueSource)>,
    /// One line for each name of another server that was read as one of ours.
    pub brought_names: Vec<String>,
    /// Warnings: things that work but should be changed.
    pub warnings: Vec<String>,
}

/// The configuration as far as it can be read, and all that is wrong with it.
#[derive(Debug)]
pub struct Examined {
    /// What was read. Where a value is invalid, the default stands in for it; `None` only if that is invalid too.
    pub shown: Option<Resolved>,
    /// All problems of all sources.
    pub problems: Vec<SettingProblem>,
    /// Whether every file that may name models was read.
    pub are_files_read: bool,
}

/// Resolves all settings and models.
///
/// # Errors
///
/// Returns all problems of all sources at once.
pub fn resolve(inputs: &Inputs, platform: &Platform) -> Result<Resolved, Vec<SettingProblem>> {
    examine(inputs, platform).into_result()
}

/// Resolves all settings and models as far as possible.
pub fn examine(inputs: &Inputs, platform: &Platform) -> Examined {
    examine_with(inputs, platform, |inputs| read_file(inputs, platform))
}

/// Resolves all settings and models, with `text` as the configuration file.
///
/// # Errors
///
/// Returns all problems of all sources at once.
#[cfg(feature = "test-support")]
pub(crate) fn resolve_text(inputs: &Inputs, platform: &Platform, text: &str) -> Result<Resolved, Vec<SettingProblem>> {
    let parse = |inputs: &Inputs| ConfigFile::parse("llamagate.yaml".as_ref(), text, &inputs.environment);
    examine_with(inputs, platform, parse).into_result()
}

impl Examined {
    fn into_result(self) -> Result<Resolved, Vec<SettingProblem>> {
        match self.shown {
            Some(resolved) if self.problems.is_empty() => Ok(resolved),
            _ => Err(self.problems),
        }
    }
}

/// Resolves all settings and models, with the configuration file that `read` returns for an environment in which the
/// names of other servers are read as ours.
fn examine_with(inputs: &Inputs, platform: &Platform, read: impl FnOnce(&Inputs) -> ConfigFile) -> Examined {
    let with = |names: &BroughtNames| Inputs { environment: names.environment.clone(), ..inputs.clone() };
    let mut file = read(&with(&BroughtNames::read(inputs, FileFacts::default())));
    let has_models = !file.model_sections.models.is_empty();
    let names = BroughtNames::read(inputs, FileFacts { is_present: file.is_present(), has_models });
    let inputs = &with(&names);
    let BroughtNames { environment: _, mut lines, mut warnings, problems: name_problems } = names;
    let mut problems = inputs.env_file_problems.clone();
    problems.append(&mut file.notes.problems);
    problems.extend(name_problems);
    let are_files_read = !file.is_unread && !inputs.is_env_file_unread;
    leave_out_model_list(inputs, &mut file);
    let texts = texts(inputs, platform, &file);
    let (settings, invalid) = read_or_stand_in(&texts, &mut problems);
    let Some(mut settings) = settings else { return Examined { shown: None, problems, are_files_read } };
    problems.extend(contradictions(&settings, &inputs.reserved_paths));
    if !["host", "auth_enabled", "cors_origins"].iter().any(|key| invalid.contains(key)) {
        warnings.extend(settings.exposures().map(|(_, warning)| warning));
    }
    warnings.extend(cautions(&settings, inputs, platform));
    warnings.extend(other_programs_warnings(&inputs.environment));
    // Without them it is not known which keys there are, and their lack would be a second report of the same.
    if ["auth_enabled", "auth_keys_file", "llamagate_api_key"].iter().any(|key| invalid.contains(key)) {
        (settings.access.auth_enabled, settings.access.metrics_auth_enabled) = (false, false);
    }
    let catalogue = catalogue(&settings, inputs, &texts, &mut file, (&mut problems, &mut warnings));
    let rows = OPTIONS.iter().filter_map(|row| {
        let (text, source) = texts.get(row.key)?;
        let shown = (row.masked)(text);
        // The address of a file may be signed.
        let shown = if row.key == "model_name" { shown_name(&shown) } else { shown };
        Some((row.key, shown, source.clone()))
    });
    // A name that turned out to have no effect was not read as anything.
    let has_no_effect = |name: &str| {
        let is_about = |warning: &str| warning.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '=']));
        warnings.iter().any(|warning| is_about(warning) && warning.contains(" has no effect"))
    };
    lines.retain(|line| !has_no_effect(line.name));
    let resolved = Resolved {
        config_file: file.is_present().then(|| file.path.clone()),
        included_files: file.included,
        rows: rows.collect(),
        config: Config { settings, catalogue },
        brought_names: lines.into_iter().map(|line| line.text).collect(),
        warnings,
    };
    Examined { shown: Some(resolved), problems, are_files_read }
}

/// Builds the catalogue, and adds to the problems and the warnings.
fn catalogue(
    settings: &Settings,
    inputs: &Inputs,
    texts: &Texts,
    file: &mut ConfigFile,
    (problems, warnings): (&mut Vec<SettingProblem>, &mut Vec<String>),
) -> Catalogue {
    let mut notes = std::mem::take(&mut file.notes);
    let from_environment = tiers::read(&inputs.environment, &mut notes);
    let is_explicit = |key: &str| {
        let source = texts.get(key).map(|(_, source)| source);
        matches!(source, Some(ValueSource::Flag | ValueSource::Variable(_) | ValueSource::EnvFile(_)))
    };
    let extra_args = settings.engine.extra_args.warnings.iter();
    warnings.extend(extra_args.map(|warning| format!("EXTRA_ARGS: {warning}")));
    let sections = std::mem::take(&mut file.model_sections);
    let catalogue = merge::assemble(settings, from_environment, sections, &is_explicit, &mut notes);
    warnings.extend(notes.take_warnings());
    problems.append(&mut notes.problems);
    catalogue
}

/// Text and source of every setting, by key.
type Texts = BTreeMap<&'static str, (String, ValueSource)>;

/// Parses all settings. In place of each invalid one stands its default, so that other problems are found in the same
/// run. Also returns the keys of the invalid ones.
fn read_or_stand_in(texts: &Texts, problems: &mut Vec<SettingProblem>) -> (Option<Settings>, Vec<&'static str>) {
    let mut invalid = Vec::new();
    if let Some(settings) = Settings::read(&mut Reader { texts, problems, invalid: &mut invalid }) {
        return (Some(settings), invalid);
    }
    let mut stand_ins = texts.clone();
    for row in OPTIONS.iter().filter(|row| invalid.contains(&row.key)) {
        stand_ins.insert(row.key, (expand(row.default, &stand_ins), ValueSource::Default));
    }
    let reader = &mut Reader { texts: &stand_ins, problems: &mut Vec::new(), invalid: &mut Vec::new() };
    (Settings::read(reader), invalid)
}

/// Returns the text and the source of every setting, by key.
fn texts(inputs: &Inputs, platform: &Platform, file: &ConfigFile) -> Texts {
    let mut texts: Texts = BTreeMap::new();
    for row in OPTIONS {
        let flag = inputs.flags.get(row.key).map(|text| (text.clone(), ValueSource::Flag));
        let chosen = flag
            .or_else(|| from_environment(row, &inputs.environment))
            .or_else(|| file.get(row.key).map(|text| (text.clone(), ValueSource::File(file.path.clone()))))
            .or_else(|| platform_default(row.key, inputs, platform, file, &texts))
            .unwrap_or_else(|| (expand(row.default, &texts), ValueSource::Default));
        texts.insert(row.key, chosen);
    }
    // MODEL_PATH wins over MODEL_NAME only within one source: the flag --model-name must override a MODEL_PATH from
    // the environment or the file.
    let is_named_by_flag = inputs.flags.contains_key("model_name") && !inputs.flags.contains_key("model_path");
    if is_named_by_flag && let Some(path) = texts.get_mut("model_path") {
        *path = (String::new(), ValueSource::Default);
    }
    texts
}

/// Resolves only the settings of these keys and takes the defaults of the table for all others, so that an unrelated
/// configuration error does not hide a check. Returns the settings, and the unrelated problems.
///
/// # Errors
///
/// Returns the problems with these keys.
pub fn resolve_only(
    inputs: &Inputs,
    platform: &Platform,
    keys: &[&str],
) -> Result<(Settings, Vec<SettingProblem>), Vec<SettingProblem>> {
    let names = BroughtNames::read(inputs, FileFacts::default());
    let inputs = &Inputs { environment: names.environment, ..inputs.clone() };
    let mut file = read_file(inputs, platform);
    let mut texts = texts(inputs, platform, &file);
    for row in OPTIONS.iter().filter(|row| !keys.contains(&row.key)) {
        texts.insert(row.key, (expand(row.default, &texts), ValueSource::Default));
    }
    // Problems of the file have its path as subject, and the location at the start of the fault.
    let is_about =
        |problem: &SettingProblem| keys.iter().any(|key| problem.fault.starts_with(&format!("server.{key}:")));
    let (mut problems, unrelated): (Vec<_>, Vec<_>) =
        std::mem::take(&mut file.notes.problems).into_iter().partition(is_about);
    let settings = Settings::read(&mut Reader { texts: &texts, problems: &mut problems, invalid: &mut Vec::new() });
    match settings {
        Some(settings) if problems.is_empty() => Ok((settings, unrelated)),
        _ => Err(problems),
    }
}

/// Reads the configuration file, if a setting names one or the default path exists.
///
/// With `RERANKER_LOAD_BALANCER_ENABLED=false` the server of `RERANKER_CONFIG_PATH` does not look at that file, so it may
/// be missing.
fn read_file(inputs: &Inputs, platform: &Platform) -> ConfigFile {
    let Some(path) = file_path(inputs, platform) else { return ConfigFile::default() };
    let environment = &inputs.environment;
    let mut file = ConfigFile::read(&path, environment);
    let Some(text) = given(inputs, "config_file").filter(|_| file.is_unread) else { return file };
    let is_flag = inputs.flags.contains_key("config_file");
    let name = if is_flag { "CONFIG_FILE" } else { environment.name_of("CONFIG_FILE") };
    let read_as = if name == "CONFIG_FILE" { "" } else { " (read as CONFIG_FILE)" };
    let is_missing = path.try_exists().is_ok_and(|exists| !exists);
    if is_missing && name == RERANKER_CONFIG_PATH && is_model_list_off(inputs) {
        let mut without = ConfigFile::default();
        without
            .notes
            .warnings
            .push(format!("{name}={text:?} has no effect: there is no such file, and {LOAD_BALANCER} is false"));
        return without;
    }
    for problem in &mut file.notes.problems {
        problem.subject = format!("{name}={text:?}{read_as}");
        problem.hint.get_or_insert_with(|| match is_missing {
            true => format!("name a file that exists, or leave {name} out"),
            false => "it is a text file in YAML (see docs/MODELS.md)".to_owned(),
        });
    }
    file
}

/// Returns the text of a setting from its flag or its variable, by its lower-case key.
fn given<'a>(inputs: &'a Inputs, key: &str) -> Option<&'a str> {
    let flag = inputs.flags.get(key).map(String::as_str);
    flag.or_else(|| inputs.environment.get(&key.to_ascii_uppercase()))
}

/// Returns the path of the configuration file, if a setting names one or the default path exists.
fn file_path(inputs: &Inputs, platform: &Platform) -> Option<PathBuf> {
    let data_dir = || given(inputs, "data_dir").map_or_else(|| platform.data_dir.clone(), PathBuf::from);
    let named = given(inputs, "config_file").map(PathBuf::from);
    named.or_else(|| Some(data_dir().join("llamagate.yaml")).filter(|path| path.exists()))
}

/// Returns the text of a setting from its environment variable, which an alias may have set.
fn from_environment(row: &OptionRow, environment: &Environment) -> Option<(String, ValueSource)> {
    let variable = row.variable();
    let text = environment.get(&variable)?.to_owned();
    let name = environment.name_of(&variable).to_owned();
    let is_from_file = environment.is_from_file(&variable);
    Some((text, if is_from_file { ValueSource::EnvFile(name) } else { ValueSource::Variable(name) }))
}

/// Whether `RERANKER_LOAD_BALANCER_ENABLED` switches `model_list:` off. A value that is no yes or no is a problem that
/// is recorded elsewhere.
fn is_model_list_off(inputs: &Inputs) -> bool {
    inputs.environment.get(LOAD_BALANCER).is_some_and(|value| bool::parse(value) == Ok(false))
}

/// Leaves `model_list:` out, with what names its entries, if `RERANKER_LOAD_BALANCER_ENABLED` says so.
fn leave_out_model_list(inputs: &Inputs, file: &mut ConfigFile) {
    if !is_model_list_off(inputs) {
        return;
    }
    let sections = &mut file.model_sections;
    sections.has_model_list = false;
    let mut left_out: BTreeSet<String> = sections.entries.drain(..).map(|entry| entry.name).collect();
    for (id, draft) in &sections.models {
        left_out.remove(id);
        left_out.retain(|name| !draft.aliases.contains(name));
    }
    left_out.extend(sections.aliases.drain(..).map(|alias| alias.alias));
    let is_of_router = |location: &str| location.starts_with("router_settings") || location.starts_with("litellm");
    sections.fallbacks.retain(|(location, ..)| !is_of_router(location));
    let warnings = &mut file.notes.warnings;
    let mut is_left_out = |location: &str, name: &str| {
        let is_left_out = left_out.contains(name);
        if is_left_out {
            warnings.push(format!("{location}: {name:?} is left out with model_list"));
        }
        is_left_out
    };
    for (location, _, names) in &mut sections.fallbacks {
        names.retain(|name| !is_left_out(location, name));
    }
    sections.fallbacks.retain(|(location, name, _)| !is_left_out(location, name));
    sections.default_models.retain(|(kind, name)| !is_left_out(&format!("default_models.{kind}"), name));
}

/// Returns the detected text of a setting; `above` holds the resolved rows above it in the table.
fn platform_default(
    key: &str,
    inputs: &Inputs,
    platform: &Platform,
    file: &ConfigFile,
    above: &Texts,
) -> Option<(String, ValueSource)> {
    let detected = |text: String, rule: &str| Some((text, ValueSource::Platform(rule.to_owned())));
    match key {
        "data_dir" => detected(platform.data_dir.display().to_string(), &platform.data_dir_rule),
        "instance_id" => detected(platform.instance_id.clone(), &format!("platform {}", platform.kind)),
        "runpod_mode" if inputs.environment.get(runpod::GET_JOB_VARIABLE).is_some() => {
            detected("queue".to_owned(), &format!("{} is set", runpod::GET_JOB_VARIABLE))
        }
        "port" | "port_health" if is_behind_runpod_load_balancer(inputs, platform, file) => {
            let port = above.get("port").map_or(LOAD_BALANCER_PORT, |(text, _)| text);
            detected(port.to_owned(), LOAD_BALANCER_RULE)
        }
        "hf_hub_cache" => {
            let data_dir = above.get("data_dir").map(|(text, _)| Path::new(text));
            let cache = hub_cache(data_dir, platform, &inputs.environment)?;
            detected(cache.display().to_string(), "the folder exists")
        }
        "ollama_models" => {
            let folder = ollama_models(&inputs.environment)?;
            detected(folder.display().to_string(), "the folder exists")
        }
        "lm_studio_models" => {
            let folder = lm_studio_models(&inputs.environment)?;
            detected(folder.display().to_string(), "the folder exists")
        }
        "hf_token_path" => {
            let path = inputs.environment.hub_token_files().find(|path| path.is_file())?;
            detected(path.display().to_string(), "the file exists")
        }
        // The file was read before all settings; this row only shows it.
        "config_file" if file.is_present() => detected(file.path.display().to_string(), "the file exists"),
        "llama_server" => {
            let (path, rule) = llama_server(&inputs.environment)?;
            detected(path.display().to_string(), rule)
        }
        "rpc_server" => {
            let llama_server = above.get("llama_server").map(|(text, _)| Path::new(text));
            let (path, rule) = rpc_server(llama_server, &inputs.environment)?;
            detected(path.display().to_string(), rule)
        }
        _ => None,
    }
}

/// Replaces `$NAME` at the start of a default by its resolved value; `NAME` is always a row further up in the table.
fn expand(default: &str, texts: &Texts) -> String {
    let Some(rest) = default.strip_prefix('$') else { return default.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    let value = texts.get(name.to_ascii_lowercase().as_str()).map_or("", |(text, _)| text.as_str());
    // `DATA_DIR=/d/` must not give `/d//models`.
    format!("{}{tail}", value.strip_suffix('/').unwrap_or(value))
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
