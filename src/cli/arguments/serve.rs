//! The arguments of a service: `serve`, `check`, and what `start` passes on.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args;

use crate::cli::inputs::{Flags, resolve_inputs};
use crate::models;
use crate::settings::{Environment, Inputs, SettingProblem};

#[derive(Args)]
pub(in crate::cli) struct ServeArgs {
    /// Model file: a path, a name under MODELS_DIR, or a name that `llamagate pull` takes
    pub(super) model: Option<String>,
    #[command(flatten)]
    pub(super) flags: Flags,
}

impl ServeArgs {
    /// Returns the values of settings that were given as flags.
    pub(in crate::cli) fn flags(&self) -> BTreeMap<&'static str, String> {
        self.flags.0.clone()
    }

    /// Returns the arguments as words of a command line.
    pub(in crate::cli) fn words(&self) -> Vec<String> {
        let flags = self.flags.0.iter().map(|(key, value)| format!("--{}={value}", key.replace('_', "-")));
        flags.chain(self.model.iter().cloned()).collect()
    }

    /// Returns MODEL as it was given.
    pub(in crate::cli) fn model(&self) -> Option<String> {
        self.model.clone()
    }

    /// Combines the arguments with the environment. MODEL is a path if a file of this name exists, or if it contains a
    /// slash and names no model on the network or of a store; otherwise it is a name under MODELS_DIR.
    pub(in crate::cli) fn into_inputs(self, environment: Environment) -> Inputs {
        let mut flags = self.flags.0;
        if let Some(model) = self.model {
            let is_name = models::RemoteName::parse(&model).is_ok() || models::StoreName::parse(&model).is_some();
            let is_path = Path::new(&model).is_file() || (model.contains('/') && !is_name);
            flags.remove(if is_path { "model_name" } else { "model_path" });
            flags.insert(if is_path { "model_path" } else { "model_name" }, model);
        }
        resolve_inputs(flags, environment)
    }
}

/// Says of a MODEL argument that means no model where it was looked up: unlike `MODEL_NAME`, it may be a file of the
/// current folder.
pub(in crate::cli) fn explain_model(model: Option<&str>, problems: Vec<SettingProblem>) -> Vec<SettingProblem> {
    // A name with the prefix of a store is no path. Of a name on the network the problem itself says what to do.
    let is_path = |model: &&str| models::StoreName::parse(model).is_none() && models::RemoteName::parse(model).is_err();
    let Some(model) = model.filter(is_path) else { return problems };
    let subject = format!("MODEL_NAME={model:?}");
    let is_absent = |problem: &SettingProblem| {
        let starts = ["there is no model ", "the models folder "];
        problem.subject == subject && starts.iter().any(|start| problem.fault.starts_with(start))
    };
    let explain = |problem: SettingProblem| {
        match is_absent(&problem) {
        false => problem,
        true => SettingProblem {
            subject: format!("MODEL {model:?}"),
            fault: format!("there is no file {:?} here, and {}", format!("./{model}"), problem.fault),
            hint: Some(
                "give the path of a .gguf file, or the name of one below MODELS_DIR; `llamagate list` names all that are here"
                    .to_owned(),
            ),
        },
    }
    };
    problems.into_iter().map(explain).collect()
}
