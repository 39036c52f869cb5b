//! Converts presets of llama-server's router (`--models-preset`).
//!
//! Owns which options a section has: its own, and those of `[*]` that it does not set. What becomes of an option is
//! decided in `server/arguments.rs`.

use super::acceptance::{KeyPlace, check};
use super::draft::{Draft, DraftModel};
use super::error::ImportError;
use super::ini::{self, DEFAULT_SECTION, IniSection};
use super::section::{DraftSection, DraftValue};
use super::server::{GivenOption, OptionName, ServerKeys, flag_of_key, is_true, translate};

/// The section for all models.
const GLOBAL_SECTION: &str = "*";
/// The key with the version of the format, which is always 1.
const VERSION: &str = "version";
/// What the format is called in messages.
const FORMAT: &str = "file of presets";

/// Converts the text of a file of presets.
///
/// # Errors
///
/// A line is not one of such a file, or there is no section for a model.
pub(super) fn convert(text: &str) -> Result<Draft, ImportError> {
    let sections = ini::parse(text).map_err(|fault| ImportError::Broken { format: FORMAT, fault })?;
    let mut draft = Draft::default();
    draft.head.note("requests need a key: keyctl generate --name NAME makes one; AUTH_ENABLED=false asks for none");
    let sections = last_of_each(sections, &mut draft.head);
    let global = match sections.iter().find(|section| section.name == GLOBAL_SECTION) {
        Some(section) => options(section, &mut draft.defaults),
        None => Vec::new(),
    };
    set_defaults(&global, &mut draft.defaults);
    for section in sections.iter().filter(|section| section.name != GLOBAL_SECTION) {
        let is_version = |(key, _): &(String, String)| key == VERSION;
        if section.name == DEFAULT_SECTION && section.keys.iter().all(is_version) {
            continue;
        }
        let model = convert_section(section, &global, &draft.defaults);
        draft.models.push(model);
    }
    if draft.models.is_empty() {
        return Err(ImportError::NoModels { format: FORMAT });
    }
    Ok(draft)
}

/// Of sections with the same name llama-server reads the last one alone.
fn last_of_each(sections: Vec<IniSection>, head: &mut DraftSection) -> Vec<IniSection> {
    let mut kept: Vec<IniSection> = Vec::with_capacity(sections.len());
    for section in sections {
        if let Some(at) = kept.iter().position(|known| known.name == section.name) {
            kept.remove(at);
            head.left_out(format!("[{}]", section.name), "the section stands there twice, and the last one counts");
        }
        kept.push(section);
    }
    kept
}

/// An option of a section.
#[derive(Debug, Clone)]
struct PresetOption {
    /// The key, as it was written.
    key: String,
    /// The main name.
    main: String,
    /// The argument that it becomes; `None` for a switch that is off and has no name for that.
    argument: Option<GivenOption>,
}

/// Returns the options of a section; of an option that is set twice the last one counts.
fn options(section: &IniSection, comments: &mut DraftSection) -> Vec<PresetOption> {
    let mut options: Vec<PresetOption> = Vec::new();
    for (key, value) in &section.keys {
        if key == VERSION {
            continue;
        }
        let main = OptionName::of_flag(&flag_of_key(key)).main;
        if let Some(at) = options.iter().position(|known| known.main == main) {
            let earlier = options.remove(at);
            comments.left_out(earlier.key, "it is set twice, and the last one counts");
        }
        options.push(PresetOption { key: key.clone(), main, argument: argument(key, value) });
    }
    options
}

/// Returns the arguments of options, in their order.
fn arguments<'a>(options: impl Iterator<Item = &'a PresetOption>) -> Vec<GivenOption> {
    options.filter_map(|option| option.argument.clone()).collect()
}

/// Returns what a key and its value mean as an argument.
fn argument(key: &str, value: &str) -> Option<GivenOption> {
    let spelled = flag_of_key(key);
    let name = OptionName::of_flag(&spelled);
    if !name.is_switch {
        return Some(GivenOption { name, spelled, values: vec![value.to_owned()] });
    }
    match (is_true(value), name.is_negated) {
        (true, _) => Some(GivenOption { name, spelled, values: Vec::new() }),
        (false, true) => {
            let (spelled, name) = (name.main.clone(), OptionName { is_negated: false, ..name });
            Some(GivenOption { name, spelled, values: Vec::new() })
        }
        (false, false) => {
            let spelled = name.off()?.to_owned();
            let name = OptionName { is_negated: true, ..name };
            Some(GivenOption { name, spelled, values: Vec::new() })
        }
    }
}

/// Sets the keys of `defaults:` that may stand there, with the comments on all options of `[*]`.
fn set_defaults(global: &[PresetOption], defaults: &mut DraftSection) {
    let ServerKeys { section, file, aliases } = translate(&arguments(global.iter()));
    for (key, value) in section.keys() {
        if check(KeyPlace::Defaults, key, value).is_ok() {
            defaults.set(key, value.clone());
        }
    }
    defaults.take_comments(section);
    if file.is_some() {
        defaults.note("[*] names a model: each section without one of its own has it");
    }
    if !aliases.is_empty() {
        defaults.left_out("alias", "a name means one model");
    }
}

fn convert_section(section: &IniSection, global: &[PresetOption], defaults: &DraftSection) -> DraftModel {
    let mut comments = DraftSection::default();
    let own = options(section, &mut comments);
    let is_own = |option: &&PresetOption| own.iter().any(|known| known.main == option.main);
    let inherited = global.iter().filter(|option| !is_own(option) && option.main != "--alias");
    let ServerKeys { section: keys, file, aliases } = translate(&arguments(inherited.chain(&own)));
    comments.take_comments(keys.without_comments_of(defaults));
    let file = file.unwrap_or_else(|| file_of_name(&section.name, &mut comments));
    let mut converted = comments;
    converted.set("file", DraftValue::Text(file));
    for (key, value) in keys.keys() {
        if defaults.get(key) != Some(value) {
            converted.set(key, value.clone());
        }
    }
    if defaults.get("args").is_some() && keys.get("args").is_none() {
        converted.set("args", DraftValue::Words(Vec::new()));
    }
    DraftModel { aliases, keys: converted, ..DraftModel::of(&section.name) }
}

/// Returns the file of a section that names none: a model of the hub, or one of `--models-dir`.
fn file_of_name(name: &str, comments: &mut DraftSection) -> String {
    if name.contains('/') {
        return name.to_owned();
    }
    comments.note("the section names no model: it is taken for one in the folder of models, MODELS_DIR");
    format!("{name}.gguf")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converted(text: &str) -> String {
        convert(text).unwrap().print()
    }

    #[test]
    fn defaults_hold_what_all_models_share_and_models_what_differs() {
        let text = converted(
            "version = 1\n[*]\nc = 8192\njinja = true\nLLAMA_ARG_N_GPU_LAYERS = 10\n[a]\nmodel = /m/a.gguf\nctx-size = 4096\n\
             load-on-startup = true\n[org/name:Q8_0]\nparallel = 2\nno-jinja = 1\n[plain]\nembeddings = on\n",
        );
        let expected = "\
# requests need a key: keyctl generate --name NAME makes one; AUTH_ENABLED=false asks for none
defaults:
  ngl: 10
  ctx: 8192
  args: [--jinja]
models:
  a:
    file: /m/a.gguf
    preload: true
    ctx: 4096
  \"org/name:Q8_0\":
    file: \"org/name:Q8_0\"
    parallel: 2
    ctx: 4096
    args: [--no-jinja]
  plain:
    # the section names no model: it is taken for one in the folder of models, MODELS_DIR
    file: plain.gguf
    kind: embedding
";
        assert_eq!(text, expected);
    }

    #[test]
    fn switches_that_are_off_and_sections_that_stand_twice_are_not_lost() {
        let text =
            converted("[*]\nswa-full = 1\n[a]\nm = a.gguf\n[a]\nm = b.gguf\nswa-full = off\nmmap = 0\nno-mmap = 0\n");
        assert!(text.contains("left out: [a]: "), "{text}");
        assert!(text.contains("left out: mmap: it is set twice"), "{text}");
        assert!(text.contains("file: b.gguf") && text.contains("args: [--mmap]"), "{text}");
    }

    #[test]
    fn a_file_without_models_is_an_error() {
        assert_eq!(convert("[*]\nc = 1\n").unwrap_err(), ImportError::NoModels { format: FORMAT });
        assert_eq!(convert("version = 1\n").unwrap_err(), ImportError::NoModels { format: FORMAT });
        assert!(convert("[a]\noops\n").unwrap_err().to_string().contains("line 2 column 1"));
    }
}
