//! All problems with a configuration, those of settings and those that the checks before a start find.

use crate::preflight::{self, CheckedModels, Prepared};
use crate::settings::{Examined, Inputs, Resolved, SettingProblem};
use crate::worker::LlamaHelp;

/// Runs all checks on what was read, which is `resolved`. Where a setting is invalid, its default stands in.
///
/// # Errors
///
/// Returns all problems, those of settings first.
pub(super) fn inspect(
    examined: &Examined,
    resolved: &Resolved,
    inputs: &Inputs,
    help: Option<&LlamaHelp>,
) -> Result<(Prepared, CheckedModels), Vec<SettingProblem>> {
    let (config, environment) = (&resolved.config, &inputs.environment);
    // The models may be named in the file that could not be read: that there is none would be a second report of that.
    let found = match config.catalogue.models.is_empty() && !examined.are_files_read {
        true => preflight::ready(config, environment).map(|ready| (ready, CheckedModels::default())),
        false => preflight::inspect(config, environment, help),
    };
    if examined.problems.is_empty() {
        return found;
    }
    let of_settings = examined.problems.iter().cloned();
    Err(of_settings.chain(found.err().unwrap_or_default()).collect())
}
