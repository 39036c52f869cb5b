//! The llama-server: where it is, whether the configuration needs one, and whether it takes the arguments.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::settings::catalogue::{Catalogue, ModelSettings, ProjectorSetting, Start};
use crate::settings::{Config, SettingProblem, Settings, is_executable};
use crate::worker::{LlamaHelp, PROJECTOR_FLAG, UnknownArgument, UnknownCompanion};

/// Returns the llama-server that serves models of this configuration; `None` if none does, or it cannot be used.
pub fn llama_server(config: &Config) -> Option<PathBuf> {
    let binary = needs_llama_server(&config.catalogue).then(|| find_llama_server(&config.settings));
    binary.filter(|_| !config.settings.engine.mock_backend)?.ok()
}

/// Whether llama-server serves a model of this catalogue, or may do so once a file comes into the models folder.
pub(super) fn needs_llama_server(catalogue: &Catalogue) -> bool {
    catalogue.shelf.is_some() || catalogue.models.iter().any(|model| file_start(model).is_some())
}

/// Returns how a model is started, if llama-server serves it from a file.
pub(super) fn file_start(model: &ModelSettings) -> Option<&Start> {
    let start = &model.local.as_ref()?.start;
    (!matches!(start, Start::Command { .. })).then_some(start)
}

/// Returns the absolute path of llama-server.
///
/// # Errors
///
/// There is none, or `LLAMA_SERVER` names a file that cannot be executed.
pub(super) fn find_llama_server(settings: &Settings) -> Result<PathBuf, SettingProblem> {
    const LLAMA_SERVER: NeededProgram = NeededProgram {
        name: "llama-server",
        setting: "LLAMA_SERVER",
        hint: "install llama.cpp (brew install llama.cpp, your distribution's package, or a release build) and put \
               llama-server on PATH, or set LLAMA_SERVER",
        missing: "no llama-server was found on PATH, beside the gateway or in /app",
    };
    LLAMA_SERVER.find(settings.engine.llama_server.as_ref())
}

/// Returns the absolute path of rpc-server.
///
/// # Errors
///
/// There is none, or `RPC_SERVER` names a file that cannot be executed.
pub fn find_rpc_server(settings: &Settings) -> Result<PathBuf, SettingProblem> {
    const RPC_SERVER: NeededProgram = NeededProgram {
        name: "rpc-server",
        setting: "RPC_SERVER",
        hint: "it is a part of llama.cpp: take a release build, Debian's packages llama.cpp-tools-extra and \
               libggml0-backend-rpc, an image of this project, or a build of your own with -DGGML_RPC=ON, and set RPC_SERVER",
        missing: "no rpc-server was found on PATH, beside llama-server, beside the gateway or in /app",
    };
    RPC_SERVER.find(settings.engine.rpc_server.as_ref())
}

/// A program that has to be on this machine.
struct NeededProgram {
    name: &'static str,
    /// The setting of its path.
    setting: &'static str,
    /// Where to get it.
    hint: &'static str,
    /// What is said if no path was set or found.
    missing: &'static str,
}

impl NeededProgram {
    /// Returns its absolute path.
    ///
    /// # Errors
    ///
    /// There is no path, or no program there.
    fn find(&self, path: Option<&PathBuf>) -> Result<PathBuf, SettingProblem> {
        let hint = Some(self.hint.to_owned());
        let Some(path) = path else {
            return Err(SettingProblem { subject: self.setting.to_owned(), fault: self.missing.to_owned(), hint });
        };
        let fault = match path {
            path if path.is_dir() => format!("this is a folder, not a program: name the {} in it", self.name),
            path if !is_executable(path) => "there is no executable file of this name".to_owned(),
            // execvp runs a file that it does not recognise as a shell script, so check its first bytes.
            path if !is_program(path) => "this file is no program".to_owned(),
            // Absolute, because it may run in another working directory.
            path => return Ok(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
        };
        Err(SettingProblem { subject: format!("{}={:?}", self.setting, path.display().to_string()), fault, hint })
    }
}

/// Whether a file begins like an ELF program or a script with `#!`. A file that may be executed but not read counts
/// too.
fn is_program(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    match read {
        Ok(()) => start.starts_with(b"#!") || start == *b"\x7fELF",
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    }
}

/// Returns a problem for each argument that this llama-server would not take.
pub(super) fn unknown_arguments(config: &Config, help: &LlamaHelp) -> Vec<SettingProblem> {
    let Config { settings, catalogue } = config;
    let mut problems = Vec::new();
    let name = |model: &ModelSettings| format!("models.{}", model.known_id().unwrap_or_default());
    let named = catalogue.models.iter().filter(|model| file_start(model).is_some()).map(|model| (name(model), model));
    let of_shelf = catalogue.shelf.iter().map(|model| ("defaults".to_owned(), model));
    for (section, model) in named.chain(of_shelf) {
        let Some(local) = &model.local else { continue };
        let words = &local.engine.extra_args.words;
        let shared = &settings.engine.extra_args.words;
        let subject = match !shared.is_empty() && words.starts_with(shared) {
            true => "EXTRA_ARGS".to_owned(),
            false => format!("{section}.args"),
        };
        // A projector that is found without being configured is left out if llama-server takes none.
        if matches!(local.projector, ProjectorSetting::File(_)) && !help.has(PROJECTOR_FLAG) {
            problems.push(SettingProblem {
                subject: format!("{section}.mmproj"),
                fault: format!("this llama-server does not know the argument {PROJECTOR_FLAG}"),
                hint: Some("install a newer llama.cpp, or leave mmproj out".to_owned()),
            });
        }
        for UnknownCompanion { key, fault } in help.unknown_companions(&local.companions) {
            let hint = Some(format!("install another llama.cpp, or leave {key} out"));
            problems.push(SettingProblem { subject: format!("{section}.{key}"), fault, hint });
        }
        for UnknownArgument { fault, hint } in help.unknown_arguments(words) {
            let problem = SettingProblem { subject: subject.clone(), fault, hint };
            // Models share the arguments of EXTRA_ARGS.
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;
    use crate::settings::{Inputs, resolve_text};

    #[test]
    fn a_projector_that_is_configured_is_refused_for_a_build_that_takes_none() {
        let words = "--host H\n--port N\n-c, --ctx-size N\n-m, --model F\n";
        let (without, with) = (words.to_owned(), format!("{words}-mm, --mmproj F\n"));
        for (setting, help, subjects) in [
            ("mmproj: p.gguf", &without, &["models.m.mmproj"][..]),
            ("mmproj: p.gguf", &with, &[]),
            ("mmproj: none", &without, &[]),
            ("ctx: 64", &without, &[]),
            ("args: [--mmproj, p.gguf]", &without, &["models.m.args"]),
            ("args: [--mmproj, p.gguf]", &with, &[]),
        ] {
            let text = format!("models: {{m: {{file: m.gguf, {setting}}}}}");
            let resolved = resolve_text(&Inputs::default(), &Platform::plain("/nowhere".as_ref()), &text).unwrap();
            let problems = unknown_arguments(&resolved.config, &LlamaHelp::parse(help).unwrap());
            let found: Vec<&str> = problems.iter().map(|problem| problem.subject.as_str()).collect();
            assert_eq!(found, subjects, "{setting}");
        }
    }
}
