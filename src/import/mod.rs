//! Converts configurations of other programs into ours: llama-swap's `config.yaml`, and presets of llama-server's router.
//!
//! A pure core: text in, text out. Nothing is dropped in silence: what has no counterpart becomes a comment with the
//! reason, without its value, which may be a secret. `cli/import.rs` reads and writes the files.
//!
//! - `acceptance.rs`: asks our own loader whether it takes a value
//! - `draft.rs`: what comes out: sections and models, and how they are printed
//! - `error.rs`: why a file cannot be converted at all
//! - `ini.rs`: the grammar of presets
//! - `llama_swap/`: llama-swap's `config.yaml`
//! - `names.rs`: ids and aliases, each of which means one model
//! - `presets.rs`: presets of llama-server's router
//! - `section.rs`: keys in their order, and comments between them
//! - `server/`: llama-server's arguments, as keys of a model
//! - `yaml.rs`: values as YAML

mod acceptance;
mod draft;
mod error;
mod ini;
mod llama_swap;
mod names;
mod presets;
mod section;
mod server;
mod yaml;

use crate::settings::bounds::MOST_MODELS;
use crate::settings::{Environment, YamlNode};
use draft::{Draft, DraftModel};
pub(crate) use error::ImportError;

/// What a file to convert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ImportFormat {
    /// llama-swap's `config.yaml`.
    LlamaSwap,
    /// Presets of llama-server's router.
    Presets,
}

/// A converted file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Imported {
    /// The text of the new configuration file.
    pub(crate) text: String,
    /// How many models were converted.
    pub(crate) converted: usize,
    /// The models that could not be converted, each with the reason.
    pub(crate) failed: Vec<(String, String)>,
    /// How many other things have no counterpart.
    pub(crate) left_out: usize,
}

/// Converts the text of a file. Without `format` the content tells what it is. Variables of `environment` that the file
/// names are put in their places, except those that may hold a secret.
///
/// # Errors
///
/// The text is of neither program, cannot be read, or has no models or too many.
pub(crate) fn convert(
    text: &str,
    format: Option<ImportFormat>,
    environment: &Environment,
) -> Result<Imported, ImportError> {
    let format = format.map_or_else(|| recognize(text), Ok)?;
    let mut draft = match format {
        ImportFormat::LlamaSwap => llama_swap::convert(text, environment)?,
        ImportFormat::Presets => presets::convert(text)?,
    };
    if draft.models.len() > MOST_MODELS {
        return Err(ImportError::TooManyModels { found: draft.models.len(), most: MOST_MODELS });
    }
    names::settle_names(&mut draft.models);
    note_context(&mut draft);
    Ok(imported(&draft, format))
}

/// Says that a model without a context has ours, where a llama-server by itself would take that of the file.
fn note_context(draft: &mut Draft) {
    let is_without = |model: &DraftModel| model.keys.get("file").is_some() && model.keys.get("ctx").is_none();
    if draft.defaults.get("ctx").is_none() && draft.models.iter().any(is_without) {
        draft.head.note("a model without ctx has CTX tokens for each slot, and not the context that its file names");
    }
}

fn imported(draft: &Draft, format: ImportFormat) -> Imported {
    let mut text = String::new();
    let source = match format {
        ImportFormat::LlamaSwap => "a configuration of llama-swap",
        ImportFormat::Presets => "presets of llama-server",
    };
    section::print_comment(
        0,
        &format!("Converted from {source}. What has no counterpart here is {}.", section::LEFT_OUT),
        &mut text,
    );
    text.push_str(&draft.print());
    let failed: Vec<(String, String)> =
        draft.models.iter().filter_map(|model| Some((model.id.clone(), model.fault.clone()?))).collect();
    Imported { text, converted: draft.models.len() - failed.len(), failed, left_out: draft.left_out_count() }
}

/// Tells by the content what a file is.
fn recognize(text: &str) -> Result<ImportFormat, ImportError> {
    match YamlNode::parse(text) {
        Ok(node) if llama_swap::is_llama_swap(&node) => Ok(ImportFormat::LlamaSwap),
        _ if ini::is_ini(text) => Ok(ImportFormat::Presets),
        Ok(_) => Err(ImportError::UnknownFormat),
        // A broken file is read as what it most resembles, so that its fault is named.
        Err(_) => match (has_line(text, "models:"), has_line(text, "[")) {
            (true, _) => Ok(ImportFormat::LlamaSwap),
            (false, true) => Ok(ImportFormat::Presets),
            (false, false) => Err(ImportError::UnknownFormat),
        },
    }
}

fn has_line(text: &str, start: &str) -> bool {
    text.lines().any(|line| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_of(text: &str) -> Result<ImportFormat, ImportError> {
        recognize(text)
    }

    #[test]
    fn the_content_tells_the_format_and_a_broken_file_what_is_wrong_with_it() {
        assert_eq!(format_of("models: {a: {cmd: x}}"), Ok(ImportFormat::LlamaSwap));
        assert_eq!(format_of("[a]\nmodel = x\n"), Ok(ImportFormat::Presets));
        assert_eq!(format_of("[*]\nc = 1\n"), Ok(ImportFormat::Presets));
        for text in ["", "x", "models: {a: {file: x.gguf}}", "server: {port: 1}", "[1, 2]", "a = 1"] {
            assert_eq!(format_of(text), Err(ImportError::UnknownFormat), "{text}");
        }
        let fault = |text: &str| convert(text, None, &Environment::default()).unwrap_err().to_string();
        assert!(fault("models:\n  a: {cmd: x\n").contains("line "), "{}", fault("models:\n  a: {cmd: x\n"));
        assert!(fault("[a]\nmodel = x\noops\n").contains("line 3 column 1"));
        let forced = convert("[a]\n", Some(ImportFormat::LlamaSwap), &Environment::default());
        assert!(matches!(forced, Err(ImportError::Broken { .. })));
    }
}
