//! The settings of the commands that start no service.
//!
//! Owns which settings these commands read, in groups, and how problems and warnings about them are reported. A setting that
//! a command does not read may be wrong without stopping it.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::inputs::{detect_platform, resolve_inputs};
use super::output::{print_stderr, report_problems};
use crate::settings::options::Settings;
use crate::settings::{Environment, resolve_only};

/// Where models are that this program put there, or was given.
pub(super) const OWN_PLACES: &[&str] = &["data_dir", "models_dir", "hf_hub_cache"];

/// Where models of other programs are.
pub(super) const STORES: &[&str] = &["model_stores", "ollama_models", "lm_studio_models"];

/// Where usage is recorded.
pub(super) const USAGE: &[&str] = &["data_dir", "usage_db"];

/// Where a service on this machine listens, whether it speaks TLS, and with which key it may be asked.
pub(super) const SERVICE: &[&str] =
    &["data_dir", "host", "port", "tls_cert", "tls_key", "tls_self_signed", "tls_acme_domains", "llamagate_api_key"];

/// How models are downloaded.
pub(super) const DOWNLOADS: &[&str] = &[
    "hf_endpoint",
    "hf_token",
    "hf_token_path",
    "hf_hub_offline",
    "download_connections",
    "download_retries",
    "download_max_rate",
];

/// What a model is loaded for.
pub(super) const LOADS: &[&str] = &["ctx", "parallel", "max_concurrent_requests", "ngl", "extra_args", "memory_budget"];

/// Resolves the settings of these groups from the flags and the environment; all others keep their defaults. Prints the
/// warnings.
///
/// # Errors
///
/// A setting is wrong. The problems are printed already; the exit code says so.
pub(super) fn resolve_groups(
    flags: BTreeMap<&'static str, String>,
    environment: Environment,
    groups: &[&[&str]],
) -> Result<Settings, ExitCode> {
    let inputs = resolve_inputs(flags, environment);
    let platform = detect_platform(&inputs.environment);
    let (settings, warnings) =
        resolve_only(&inputs, &platform, &groups.concat()).map_err(|problems| report_problems(&problems))?;
    for warning in &warnings {
        print_warning(warning);
    }
    Ok(settings)
}

/// Prints a warning on standard error.
pub(super) fn print_warning(warning: &impl std::fmt::Display) {
    print_stderr(&format!("warning: {warning}\n"));
}
