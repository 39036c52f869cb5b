//! Asks our own loader whether it takes a value, so that no rule of the configuration file is written down twice.

use super::draft::{Draft, DraftModel};
use super::section::{DraftSection, DraftValue};
use crate::settings::examine_file_text;

/// Where a key is to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyPlace {
    /// A model with a `file`.
    File,
    /// A model with a `command`.
    Command,
    /// A model with a remote backend only.
    Remote,
    /// `defaults:`
    Defaults,
}

/// The id of the model that is asked about.
const PROBE: &str = "m";

/// Sets a key where the loader takes it with this value.
///
/// # Errors
///
/// Returns what the loader says against it.
pub(super) fn try_set(section: &mut DraftSection, place: KeyPlace, key: &str, value: DraftValue) -> Result<(), String> {
    check(place, key, &value)?;
    section.set(key, value);
    Ok(())
}

/// Sets a key where the loader takes it with this value, else leaves out what it came from, with the loader's reason.
pub(super) fn set_or_leave_out(
    section: &mut DraftSection,
    place: KeyPlace,
    (source, key): (&str, &str),
    value: DraftValue,
) {
    if let Err(reason) = try_set(section, place, key, value) {
        section.left_out(source, reason);
    }
}

/// Checks that the loader takes a key with this value.
///
/// # Errors
///
/// Returns what the loader says against it.
pub(super) fn check(place: KeyPlace, key: &str, value: &DraftValue) -> Result<(), String> {
    let mut keys = match place {
        KeyPlace::File => DraftSection::of("file", DraftValue::text("m.gguf")),
        KeyPlace::Command => {
            DraftSection::of("command", DraftValue::Words(["m", "{port}"].map(str::to_owned).to_vec()))
        }
        KeyPlace::Remote | KeyPlace::Defaults => DraftSection::default(),
    };
    // The loader takes the sizes of drafts only beside a draft model.
    if key == "speculative" {
        keys.set("draft", DraftValue::text("d.gguf"));
    }
    keys.set(key, value.clone());
    check_draft(&match place {
        KeyPlace::Defaults => Draft { defaults: keys, ..Draft::default() },
        KeyPlace::File | KeyPlace::Command | KeyPlace::Remote => of_model(keys, None),
    })
}

/// Checks that the loader takes an id.
///
/// # Errors
///
/// Returns what the loader says against it.
pub(super) fn check_id(id: &str) -> Result<(), String> {
    let keys = DraftSection::of("file", DraftValue::text("m.gguf"));
    check_draft(&Draft { models: vec![DraftModel { keys, ..DraftModel::of(id) }], ..Draft::default() })
}

/// Checks that the loader takes the `litellm_params` of a remote backend.
///
/// # Errors
///
/// Returns what the loader says against it.
pub(super) fn check_remote(remote: &DraftSection) -> Result<(), String> {
    check_draft(&of_model(DraftSection::default(), Some(remote.clone())))
}

fn of_model(keys: DraftSection, remote: Option<DraftSection>) -> Draft {
    Draft { models: vec![DraftModel { keys, remote, ..DraftModel::of(PROBE) }], ..Draft::default() }
}

fn check_draft(draft: &Draft) -> Result<(), String> {
    let (problems, _) = examine_file_text(&draft.print());
    match problems.into_iter().next() {
        None => Ok(()),
        Some(problem) => {
            // The location of the probe means nothing to a reader.
            let fault = problem.fault.split_once(": ").map_or(problem.fault.as_str(), |(_, fault)| fault);
            // The value may be a secret in the wrong place.
            let fault = fault.split_once(", found ").map_or(fault, |(fault, _)| fault);
            Err(match problem.hint {
                Some(hint) => format!("{fault}; {hint}"),
                None => fault.to_owned(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_decides_what_is_taken_and_where() {
        let number = |text: &str| DraftValue::Plain(text.to_owned());
        assert_eq!(check(KeyPlace::File, "ctx", &number("4096")), Ok(()));
        assert_eq!(check(KeyPlace::Defaults, "ctx", &number("4096")), Ok(()));
        assert!(check(KeyPlace::File, "ctx", &number("5")).unwrap_err().contains("from 32"));
        let fault = check(KeyPlace::File, "ttl", &DraftValue::text("sesame")).unwrap_err();
        assert!(fault.starts_with("expected ") && !fault.contains("sesame"), "{fault}");
        assert!(check(KeyPlace::Command, "ctx", &number("4096")).unwrap_err().contains("llama-server's"));
        assert!(check(KeyPlace::Defaults, "aliases", &DraftValue::Words(vec![])).is_err());
        assert!(check_id(" a").is_err() && check_id("a/b:c").is_ok());
        let remote = |base: &str| check_remote(&DraftSection::of("api_base", DraftValue::text(base)));
        assert!(remote("http://h/api/v1").is_ok());
        assert!(!remote("http://user:sesame@h").unwrap_err().contains("sesame"));
    }
}
