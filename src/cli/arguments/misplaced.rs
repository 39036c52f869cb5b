//! A subcommand that was misspelt or given in the wrong place, and so was read as MODEL.

use std::path::Path;

use clap::Command;
use clap::error::ErrorKind;

use super::serve::ServeArgs;
use crate::cli::inputs::{detect_platform, resolve_inputs};
use crate::models;
use crate::models::list::printable;
use crate::settings::{Environment, resolve_only};

/// Most typing mistakes by which a word still looks like a subcommand.
pub(super) const LARGEST_TYPO: usize = 2;

/// Checks that MODEL is not a subcommand in the wrong place, or a word that is at most `distance` typing mistakes away
/// from one of `program`, unless there is such a model. So a mistyped `check` does not start a service.
///
/// # Errors
///
/// A usage error that names the subcommand.
pub(super) fn check_misplaced(
    serve: &ServeArgs,
    environment: &Environment,
    distance: usize,
    program: fn() -> Command,
) -> Result<(), clap::Error> {
    let Some(model) = serve.model.as_deref().filter(|model| !model.contains(['.', '/', ':'])) else { return Ok(()) };
    let mut program = program();
    let names = program.get_subcommands().map(|one| one.get_name().to_owned()).collect::<Vec<_>>();
    let mistakes = |name: &String| strsim::damerau_levenshtein(name, &model.to_ascii_lowercase());
    let nearest = names.iter().chain([&"help".to_owned()]).min_by_key(|name| mistakes(name)).cloned();
    let Some(name) = nearest.filter(|name| mistakes(name) <= distance && mistakes(name) < name.len()) else {
        return Ok(());
    };
    if Path::new(model).is_file() || has_model(serve, environment, model) {
        return Ok(());
    }
    let fault = format!("there is no model {:?}; did you mean: llamagate {name}", printable(model));
    Err(program.error(ErrorKind::InvalidSubcommand, fault))
}

/// Whether a file below `MODELS_DIR` has this name.
fn has_model(serve: &ServeArgs, environment: &Environment, name: &str) -> bool {
    let inputs = resolve_inputs(serve.flags.0.clone(), environment.clone());
    let settings = resolve_only(&inputs, &detect_platform(&inputs.environment), &["models_dir"]);
    settings.is_ok_and(|(settings, _)| models::resolve::resolve(&settings.files.models_dir, name).is_ok())
}
