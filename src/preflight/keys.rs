//! The key file: whether it can be used, and what is doubtful about it.

use super::bounds::MOST_BAD_LINES;
use crate::keys::{self, KeyFileError, Store};
use crate::settings::values::ServiceKey;
use crate::settings::{Resolved, SettingProblem, Settings, ValueSource};

/// Opens the keys of the file and of `LLAMAGATE_API_KEY`.
///
/// # Errors
///
/// There is no usable key, or the file cannot be read.
pub(super) fn open_keys(settings: &Settings) -> Result<Store, SettingProblem> {
    let service_key = settings.access.llamagate_api_key.as_ref().map(ServiceKey::reveal);
    Store::open(&settings.access.auth_keys_file, service_key).map_err(|error| {
        let or_variable = match error {
            KeyFileError::Missing { .. } => "; or set LLAMAGATE_API_KEY to a secret of your own",
            _ => "",
        };
        SettingProblem {
            subject: format!("AUTH_KEYS_FILE={:?}", settings.access.auth_keys_file.display().to_string()),
            fault: error.to_string(),
            hint: Some(error.hint() + or_variable),
        }
    })
}

/// Returns a warning if `AUTH_KEYS_FILE` is set to a file that does not exist, and `LLAMAGATE_API_KEY` lets the service
/// start without it. The default path may be missing without a word.
pub fn missing_key_file_warning(resolved: &Resolved) -> Option<String> {
    let access = &resolved.config.settings.access;
    let source = &resolved.rows.iter().find(|(key, ..)| *key == "auth_keys_file")?.2;
    let is_set = !matches!(source, ValueSource::Default | ValueSource::Platform(_));
    let is_used = access.auth_enabled && access.llamagate_api_key.is_some();
    (is_set && is_used && !access.auth_keys_file.exists()).then(|| {
        format!(
            "AUTH_KEYS_FILE={:?}: there is no such file, so LLAMAGATE_API_KEY is the only key; leave AUTH_KEYS_FILE out \
             if that is meant",
            access.auth_keys_file.display().to_string()
        )
    })
}

/// Returns warnings about the key file, if requests need keys: lines that are skipped, and a mode that lets other users
/// read it. Reads the file; a running service logs the same by itself.
pub fn key_file_warnings(settings: &Settings) -> Vec<String> {
    let access = &settings.access;
    if !access.auth_enabled && !access.metrics_auth_enabled {
        return Vec::new();
    }
    // A file that cannot be read is a problem of its own.
    let Ok((file, is_open)) = keys::read_with_mode(&access.auth_keys_file) else { return Vec::new() };
    let path = access.auth_keys_file.display();
    let mut warnings = Vec::new();
    if is_open {
        warnings.push(format!("other users can read or write the key file {path}; run: chmod 600 on it"));
    }
    let skipped = file.problems().map(|(line, problem)| format!("{path}: line {line} is skipped: {problem}"));
    warnings.extend(skipped.take(MOST_BAD_LINES));
    let more = file.problems().count().saturating_sub(MOST_BAD_LINES);
    if more > 0 {
        warnings.push(format!("{path}: {more} further lines are skipped"));
    }
    warnings
}
