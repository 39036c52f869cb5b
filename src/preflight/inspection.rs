//! All problems with a configuration: those of settings, and those that the checks before a start find.

use super::checked::CheckedModels;
use super::models::models;
use super::ready::{Prepared, ready};
use crate::models::Shelf;
use crate::settings::{Environment, Examined, Resolved, SettingProblem};
use crate::worker::LlamaHelp;

/// Runs all checks on what was read, which is `resolved`. Where a setting is invalid, its default stands in.
///
/// # Errors
///
/// All problems: first those of settings, then those of models.
pub fn inspect(
    examined: &Examined,
    resolved: &Resolved,
    environment: &Environment,
    help: Option<&LlamaHelp>,
) -> Result<(Prepared, CheckedModels), Vec<SettingProblem>> {
    let config = &resolved.config;
    // The models may be named in the file that could not be read: that there is none would be a second report of that.
    let checked = match config.catalogue.models.is_empty() && !examined.are_files_read {
        true => Ok(CheckedModels::default()),
        false => models(config, environment, help, &mut Shelf::default()),
    };
    match (checked, ready(config, environment)) {
        (Ok(models), Ok(prepared)) if examined.problems.is_empty() => Ok((prepared, models)),
        (models, prepared) => {
            let of_settings = examined.problems.iter().cloned();
            let of_models = models.err().into_iter().flat_map(|unservable| unservable.problems);
            Err(of_settings.chain(of_models).chain(prepared.err().unwrap_or_default()).collect())
        }
    }
}
