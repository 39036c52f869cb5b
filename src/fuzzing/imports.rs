//! The invariants of `llamagate import`.

use super::REMOTE_KEY;
use crate::import::{ImportFormat, convert};
use crate::platform::Platform;
use crate::settings::{Environment, Inputs, resolve_text};

/// Checks `llamagate import`: no text makes it panic, and what a text is converted to is accepted by our own loader. The
/// first byte says what the text is taken for.
pub fn import(data: &[u8]) {
    let [format, text @ ..] = data else { return };
    let formats = [None, Some(ImportFormat::LlamaSwap), Some(ImportFormat::Presets)];
    let format = formats[usize::from(*format) % formats.len()];
    let environment = Environment::from([("REMOTE_KEY", REMOTE_KEY), ("FOLDER", "/models")]);
    let imported = match convert(&String::from_utf8_lossy(text), format, &environment) {
        Ok(imported) => imported,
        Err(error) => {
            assert!(!error.to_string().contains(REMOTE_KEY), "no key is shown");
            return;
        }
    };
    let text = &imported.text;
    assert!(!text.contains(REMOTE_KEY), "no key is copied from the environment");
    let count = |start: &str| text.lines().filter(|line| line.trim_start().starts_with(start)).count();
    assert_eq!(count("# left out: "), imported.left_out, "each is said: {text}");
    assert_eq!(count("# not converted: "), imported.failed.len(), "each is said: {text}");
    // The file may have no model that can be served.
    let environment = Environment::from([("REMOTE_KEY", REMOTE_KEY), ("MODEL_NAME", "the-own-model.gguf")]);
    let inputs = Inputs { environment, ..Inputs::default() };
    if let Err(problems) = resolve_text(&inputs, &Platform::plain("/nowhere".as_ref()), text) {
        panic!("{problems:#?} in\n{text}");
    }
}
