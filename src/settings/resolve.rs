//! Resolves raw texts to [`Settings`].
//!
//! Owns the precedence (flag, environment variable, configuration file, platform default, default) and the list of
//! problems. The types in `values/` parse single texts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::aliases::{BroughtNames, LOAD_BALANCER};
use super::bounds::SHORT_SERVICE_KEY;
use super::catalogue::Catalogue;
use super::detected::{LOAD_BALANCER_PORT, LOAD_BALANCER_RULE, hub_cache, is_behind_runpod_load_balancer};
use super::environment::{Environment, is_executable};
use super::file::ConfigFile;
use super::merge::{self, tiers};
use super::options::{OPTIONS, OptionRow, Settings, row};
use super::problem::SettingProblem;
use super::reader::Reader;
use super::runpod;
use super::source::{Inputs, ValueSource};
use super::values::{Origins, Value};
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
#[derive(Debug)]
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

/// Resolves all settings and models.
///
/// # Errors
///
/// Returns all problems of all sources at once.
pub fn resolve(inputs: &Inputs, platform: &Platform) -> Result<Resolved, Vec<SettingProblem>> {
    let names = BroughtNames::read(&inputs.environment);
    let inputs = &Inputs { environment: names.environment.clone(), ..inputs.clone() };
    let file = file_path(inputs, platform).map(|path| ConfigFile::read(&path, &inputs.environment));
    resolve_with(inputs, platform, names, file.unwrap_or_default())
}

/// Resolves all settings and models, with `text` as the configuration file.
///
/// # Errors
///
/// Returns all problems of all sources at once.
#[cfg(feature = "test-support")]
pub(crate) fn resolve_text(inputs: &Inputs, platform: &Platform, text: &str) -> Result<Resolved, Vec<SettingProblem>> {
    let names = BroughtNames::read(&inputs.environment);
    let inputs = &Inputs { environment: names.environment.clone(), ..inputs.clone() };
    resolve_with(inputs, platform, names, ConfigFile::parse("llamagate.yaml".as_ref(), text, &inputs.environment))
}

/// Resolves all settings and models; the environment of `inputs` is that of `names`.
fn resolve_with(
    inputs: &Inputs,
    platform: &Platform,
    names: BroughtNames,
    mut file: ConfigFile,
) -> Result<Resolved, Vec<SettingProblem>> {
    let BroughtNames { environment: _, lines, mut warnings, problems: name_problems } = names;
    let mut problems = inputs.env_file_problems.clone();
    problems.append(&mut file.notes.problems);
    problems.extend(name_problems);
    let texts = texts(inputs, platform, &file);
    leave_out_model_list(inputs, &mut file, &mut warnings);

    let settings = Settings::read(&mut Reader { texts: &texts, problems: &mut problems });
    if let Some(settings) = &settings {
        problems.extend(contradictions(settings, &inputs.reserved_paths));
        warnings.extend(settings.exposures().map(|(_, warning)| warning));
        warnings.extend(cautions(settings, &inputs.environment));
    }
    // If a setting is invalid, the defaults stand in, so that problems of models are reported in the same run.
    let catalogue = settings.clone().or_else(defaults).map(|global| {
        let mut notes = std::mem::take(&mut file.notes);
        let from_environment = tiers::read(&inputs.environment, &mut notes);
        let is_explicit = |key: &str| {
            let source = texts.get(key).map(|(_, source)| source);
            matches!(source, Some(ValueSource::Flag | ValueSource::Variable(_) | ValueSource::EnvFile(_)))
        };
        let extra_args = global.engine.extra_args.warnings.iter();
        warnings.extend(extra_args.map(|warning| format!("EXTRA_ARGS: {warning}")));
        let sections = std::mem::take(&mut file.model_sections);
        let catalogue = merge::assemble(&global, from_environment, sections, &is_explicit, &mut notes);
        warnings.extend(notes.take_warnings());
        problems.append(&mut notes.problems);
        catalogue
    });
    match (settings, catalogue) {
        (Some(settings), Some(catalogue)) if problems.is_empty() => {
            let rows = OPTIONS.iter().filter_map(|row| {
                let (text, source) = texts.get(row.key)?;
                Some((row.key, (row.masked)(text), source.clone()))
            });
            let config_file = (!file.path.as_os_str().is_empty()).then(|| file.path.clone());
            let (rows, config) = (rows.collect(), Config { settings, catalogue });
            let included_files = file.included;
            Ok(Resolved { config_file, included_files, rows, config, brought_names: lines, warnings })
        }
        _ => Err(problems),
    }
}

/// Returns the text and the source of every setting, by key.
fn texts(inputs: &Inputs, platform: &Platform, file: &ConfigFile) -> BTreeMap<&'static str, (String, ValueSource)> {
    let mut texts: BTreeMap<&'static str, (String, ValueSource)> = BTreeMap::new();
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
    let names = BroughtNames::read(&inputs.environment);
    let inputs = &Inputs { environment: names.environment, ..inputs.clone() };
    let file = file_path(inputs, platform).map(|path| ConfigFile::read(&path, &inputs.environment));
    let mut file = file.unwrap_or_default();
    let mut texts = texts(inputs, platform, &file);
    for row in OPTIONS.iter().filter(|row| !keys.contains(&row.key)) {
        texts.insert(row.key, (expand(row.default, &texts), ValueSource::Default));
    }
    // Problems of the file have its path as subject, and the location at the start of the fault.
    let is_about =
        |problem: &SettingProblem| keys.iter().any(|key| problem.fault.starts_with(&format!("server.{key}:")));
    let (mut problems, unrelated): (Vec<_>, Vec<_>) =
        std::mem::take(&mut file.notes.problems).into_iter().partition(is_about);
    let settings = Settings::read(&mut Reader { texts: &texts, problems: &mut problems });
    match settings {
        Some(settings) if problems.is_empty() => Ok((settings, unrelated)),
        _ => Err(problems),
    }
}

/// Returns the settings with the defaults of the table.
fn defaults() -> Option<Settings> {
    let mut texts = BTreeMap::new();
    for row in OPTIONS {
        texts.insert(row.key, (expand(row.default, &texts), ValueSource::Default));
    }
    Settings::read(&mut Reader { texts: &texts, problems: &mut Vec::new() })
}

/// Returns the path of the configuration file, if a setting names one or the default path exists.
fn file_path(inputs: &Inputs, platform: &Platform) -> Option<PathBuf> {
    let given = |key: &str, variable: &str| {
        inputs.flags.get(key).map(String::as_str).or_else(|| inputs.environment.get(variable)).map(PathBuf::from)
    };
    let data_dir = || given("data_dir", "DATA_DIR").unwrap_or_else(|| platform.data_dir.clone());
    given("config_file", "CONFIG_FILE").or_else(|| Some(data_dir().join("llamagate.yaml")).filter(|path| path.exists()))
}

/// Returns the text of a setting from its environment variable, which an alias may have set.
fn from_environment(row: &OptionRow, environment: &Environment) -> Option<(String, ValueSource)> {
    let variable = row.variable();
    let text = environment.get(&variable)?.to_owned();
    let name = environment.name_of(&variable).to_owned();
    let is_from_file = environment.is_from_file(&variable);
    Some((text, if is_from_file { ValueSource::EnvFile(name) } else { ValueSource::Variable(name) }))
}

/// Leaves `model_list:` out, with the aliases and fallbacks of its router, if `RERANKER_LOAD_BALANCER_ENABLED` says so.
fn leave_out_model_list(inputs: &Inputs, file: &mut ConfigFile, warnings: &mut Vec<String>) {
    // A value that is no yes or no is a problem that was already recorded.
    match inputs.environment.get(LOAD_BALANCER).map(bool::parse) {
        Some(Ok(false)) => {
            let sections = &mut file.model_sections;
            sections.entries.clear();
            sections.aliases.clear();
            let is_of_router =
                |location: &str| location.starts_with("router_settings") || location.starts_with("litellm");
            sections.fallbacks.retain(|(location, ..)| !is_of_router(location));
        }
        Some(Ok(true)) if !file.is_present() => {
            warnings.push(format!(
                "{LOAD_BALANCER} has no effect without a configuration file: set CONFIG_FILE=./reranker_config.yaml"
            ));
        }
        _ => {}
    }
}

/// Returns the detected text of a setting; `above` holds the resolved rows above it in the table.
fn platform_default(
    key: &str,
    inputs: &Inputs,
    platform: &Platform,
    file: &ConfigFile,
    above: &BTreeMap<&'static str, (String, ValueSource)>,
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
        // The file was read before all settings; this row only shows it.
        "config_file" if file.is_present() => detected(file.path.display().to_string(), "the file exists"),
        "llama_server" => {
            if let Some(path) = inputs.environment.find_program("llama-server") {
                return detected(path.display().to_string(), "on PATH");
            }
            let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("llama-server")));
            if let Some(path) = beside.filter(|path| is_executable(path)) {
                return detected(path.display().to_string(), "beside the gateway");
            }
            let image = PathBuf::from("/app/llama-server");
            if is_executable(&image) { detected(image.display().to_string(), "/app") } else { None }
        }
        _ => None,
    }
}

/// Replaces `$NAME` at the start of a default by its resolved value; `NAME` is always a row further up in the table.
fn expand(default: &str, texts: &BTreeMap<&'static str, (String, ValueSource)>) -> String {
    let Some(rest) = default.strip_prefix('$') else { return default.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    let value = texts.get(name.to_ascii_lowercase().as_str()).map_or("", |(text, _)| text.as_str());
    // `DATA_DIR=/d/` must not give `/d//models`.
    format!("{}{tail}", value.strip_suffix('/').unwrap_or(value))
}

impl Settings {
    /// Returns a warning for each way in which others than the user can use the models without a key: its topic and its
    /// text.
    pub fn exposures(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
        let (host, access) = (self.listen.host, &self.access);
        let to_network = (!host.to_canonical().is_loopback()).then(|| {
            let text = format!(
                "AUTH_ENABLED=false and HOST={host}: every machine that reaches the port can use the models; set \
                 HOST=127.0.0.1, or AUTH_ENABLED=true with API keys"
            );
            ("open_to_network", text)
        });
        let to_pages = (access.cors_origins == Origins::Any).then(|| {
            let text = "AUTH_ENABLED=false and CORS_ORIGINS=*: every web page that a browser near this machine shows can \
                        use the models and read the responses; list the origins of your pages, or set AUTH_ENABLED=true \
                        with API keys";
            ("open_to_pages", text.to_owned())
        });
        let is_keyless = !access.auth_enabled;
        to_network.into_iter().chain(to_pages).filter(move |_| is_keyless)
    }
}

/// Returns warnings about settings that work, but probably not as intended.
fn cautions(settings: &Settings, environment: &Environment) -> Vec<String> {
    let mut warnings = Vec::new();
    let (access, logs) = (&settings.access, &settings.logs);
    if let Some(key) = &access.llamagate_api_key {
        let name = environment.name_of("LLAMAGATE_API_KEY");
        if !access.auth_enabled {
            warnings.push(format!("{name} has no effect: AUTH_ENABLED is false, so that no request needs a key"));
        }
        if key.is_short() {
            warnings.push(format!("{name} has fewer than {SHORT_SERVICE_KEY} characters and may be guessed"));
        }
    }
    if let Some(path) = logs.log_file.as_ref().filter(|_| !logs.log_to_file) {
        warnings.push(format!("LOG_FILE={:?} has no effect: LOG_TO_FILE is false", path.display().to_string()));
    }
    warnings
}

/// Returns the problems that the type of a single value cannot find: settings that contradict each other, and bad
/// paths and folder names.
fn contradictions(settings: &Settings, reserved_paths: &[&str]) -> Vec<SettingProblem> {
    let mut problems = Vec::new();
    let engine = &settings.engine;
    let in_flight = settings.queue.max_concurrent_requests;
    if engine.parallel < in_flight {
        problems.push(SettingProblem {
            subject: format!("PARALLEL={}", engine.parallel),
            fault: format!("expected at least MAX_CONCURRENT_REQUESTS, which is {in_flight}"),
            hint: Some("leave PARALLEL out: it follows MAX_CONCURRENT_REQUESTS".to_owned()),
        });
    }
    if engine.total_context().is_none() {
        problems.push(SettingProblem {
            subject: format!("CTX={} with PARALLEL={}", engine.ctx.0, engine.parallel),
            fault: "the total context is more than llama-server can count (2147483647 tokens)".to_owned(),
            hint: Some("CTX is the context of one slot".to_owned()),
        });
    }
    let path = &settings.listen.health_check_path;
    // A reserved path may have a part that stands for any text.
    let is_reserved =
        |reserved: &&str| reserved.split_once('{').map_or(*reserved == path, |(before, _)| path.starts_with(before));
    let fault = if !path.starts_with('/') {
        Some("expected a path that starts with /")
    } else if path.starts_with("/v1/") || reserved_paths.iter().any(is_reserved) {
        Some("this path is a route of the gateway, which it would hide if PORT_HEALTH equals PORT")
    } else {
        None
    };
    problems.extend(fault.map(|fault| {
        SettingProblem {
            subject: format!("HEALTH_CHECK_PATH={path:?}"),
            fault: fault.to_owned(),
            hint: path
                .starts_with('/')
                .then(|| "use /ping, /health, /livez, /readyz or a path that is no route of the gateway".to_owned()),
        }
    }));
    // Both names become one folder name; a slash or a leading dot could lead out of LOG_DIR or hide the folder.
    for (key, text) in
        [("log_name", Some(&settings.logs.log_name)), ("worker_type", settings.logs.worker_type.as_ref())]
    {
        let Some(text) = text else { continue };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.starts_with('.') || text.len() > 64 || !text.chars().all(allowed) {
            problems.push(SettingProblem {
                subject: format!("{}={text:?}", row(key).map_or_else(String::new, OptionRow::variable)),
                fault: "expected 1 to 64 letters, digits, '.', '_' or '-', not starting with '.'".to_owned(),
                hint: Some("it names a folder below LOG_DIR".to_owned()),
            });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::values::{GpuLayers, ZeroIsOff};

    fn resolve_with<const N: usize>(variables: [(&str, &str); N]) -> Result<Resolved, Vec<SettingProblem>> {
        let inputs = Inputs { environment: Environment::from(variables), ..Inputs::default() };
        resolve(&inputs, &Platform::plain(Path::new("/nowhere")))
    }

    #[test]
    fn defaults_are_those_of_the_table_and_follow_other_settings() {
        let settings = resolve_with([("MAX_CONCURRENT_REQUESTS", "3"), ("DATA_DIR", "/d/")]).unwrap().config.settings;
        assert_eq!(settings.listen.port, 8000);
        assert_eq!(settings.engine.ngl, GpuLayers::Count(99));
        assert_eq!(settings.engine.parallel.get(), 3);
        assert_eq!(settings.files.models_dir, Path::new("/d/models"));
        assert_eq!(settings.access.auth_keys_file, Path::new("/d/api_keys.txt"));
        assert_eq!(settings.queue.max_queue_size, ZeroIsOff(None));
        assert_eq!(settings.logs.instance_id, "host");
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_platform() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("llamagate.yaml"), "server:\n  port: 1\n  ctx: 64\n  instance_id: from-file\n")
            .unwrap();
        let mut inputs = Inputs { environment: Environment::from([("PORT", "2"), ("CTX", "96")]), ..Inputs::default() };
        inputs.flags.insert("port", "3".to_owned());
        let resolved = resolve(&inputs, &Platform::plain(dir.path())).unwrap();
        assert_eq!(resolved.config.settings.listen.port, 3);
        assert_eq!(resolved.config.settings.engine.ctx.0, 96);
        assert_eq!(resolved.config.settings.logs.instance_id, "from-file");
    }

    #[test]
    fn all_problems_are_reported_together_with_name_value_and_what_is_allowed() {
        let problems =
            resolve_with([("PORT", "http"), ("AUTH_ENABLED", "maybe"), ("QUEUE_TIMEOUT", "soon")]).unwrap_err();
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 3, "{text:?}");
        assert!(
            text.iter().any(|line| line.contains("PORT=\"http\"") && line.contains("whole number from 0 to 65535"))
        );
        assert!(text.iter().any(|line| line.contains("AUTH_ENABLED=\"maybe\"")));
    }

    #[test]
    fn aliases_are_taken_and_the_deprecated_one_warns() {
        let resolved = resolve_with([("GATEWAY_PORT", "9"), ("BACKEND_PORT", "10")]).unwrap();
        assert_eq!((resolved.config.settings.listen.port, resolved.config.settings.engine.port_backend), (9, 10));
        assert_eq!(resolved.warnings, ["BACKEND_PORT is deprecated: use PORT_BACKEND"]);
    }

    #[test]
    fn a_model_name_flag_beats_a_model_path_from_the_environment() {
        let mut inputs = Inputs { environment: Environment::from([("MODEL_PATH", "/a.gguf")]), ..Inputs::default() };
        inputs.flags.insert("model_name", "b.gguf".to_owned());
        let settings = resolve(&inputs, &Platform::plain(Path::new("/nowhere"))).unwrap().config.settings;
        assert_eq!(settings.files.model_path, None);
        assert_eq!(settings.files.model_name.as_deref(), Some("b.gguf"));
    }

    #[test]
    fn fewer_slots_than_requests_in_flight_is_a_contradiction() {
        let problems = resolve_with([("MAX_CONCURRENT_REQUESTS", "4"), ("PARALLEL", "2")]).unwrap_err();
        assert!(problems[0].subject.contains("PARALLEL"));
    }

    #[test]
    fn a_folder_name_cannot_leave_the_log_folder() {
        for name in ["../x", "a/b", ".hidden", ""] {
            if name.is_empty() {
                continue; // An empty variable counts as unset.
            }
            assert!(resolve_with([("WORKER_TYPE", name)]).is_err(), "{name}");
        }
    }

    #[test]
    fn every_default_in_the_table_is_valid_and_names_only_rows_above_it() {
        let mut above = Vec::new();
        for row in OPTIONS {
            if let Some(rest) = row.default.strip_prefix('$') {
                let name = rest.split('/').next().unwrap().to_ascii_lowercase();
                assert!(above.contains(&name), "{} refers to {name}", row.key);
            }
            above.push(row.key.to_owned());
        }
        resolve_with([]).unwrap();
    }
}
