//! What goes with a model, against everything else that is configured: arguments that say the same, and names that clash.

use std::collections::BTreeMap;

use super::located::LocatedDraft;
use crate::settings::catalogue::ModelSettings;
use crate::settings::file::check_name;
use crate::settings::notes::FileNotes;

/// Arguments of llama-server that say what a key of a model says too.
const SAME: [(&str, &[&str]); 5] = [
    (
        "lora",
        &[
            "--lora",
            "--lora-scaled",
            "--lora-init-without-apply",
            "--cache-ram",
            "-cram",
            "--cache-prompt",
            "--cache-idle-slots",
        ],
    ),
    ("draft", &["--model-draft", "-md", "--spec-draft-model", "--hf-repo-draft", "-hfd", "-hfrd", "--spec-draft-hf"]),
    (
        "speculative",
        &[
            "--spec-type",
            "--spec-draft-n-max",
            "--draft-max",
            "--draft",
            "--draft-n",
            "--spec-draft-n-min",
            "--draft-min",
            "--draft-n-min",
            "--spec-draft-p-min",
            "--draft-p-min",
            "--ctx-size-draft",
            "-cd",
            "--spec-draft-ngl",
            "-ngld",
            "--gpu-layers-draft",
            "--n-gpu-layers-draft",
        ],
    ),
    ("chat_template", &["--chat-template", "--chat-template-file"]),
    ("rpc", &["--rpc"]),
];

/// Records a problem with each key of what goes with this model that its arguments contradict.
pub(super) fn check_arguments(located: &LocatedDraft, model: &ModelSettings, notes: &mut FileNotes) {
    let Some(local) = &model.local else { return };
    for key in local.companions.keys() {
        let same = SAME.iter().filter(|(known, _)| *known == key).flat_map(|(_, flags)| flags.iter());
        let flags: Vec<&str> = same.copied().chain(drafting_type(key)).collect();
        let mut words = local.engine.extra_args.words.iter();
        if let Some(word) = words.find(|word| flags.contains(&word.replace('_', "-").as_str())) {
            let hint = Some(format!("keep one of them: {key}, or the argument"));
            located.problem(notes, format!("{key}: EXTRA_ARGS or args has {word} too"), hint);
        }
    }
}

/// Returns the argument for the way to draft, which `draft` sets too.
fn drafting_type(key: &str) -> Option<&'static str> {
    (key == "draft").then_some("--spec-type")
}

/// Records a problem with each name of an adapter, after that of its model, that another model has. `taken` has the place
/// of each name that is taken.
pub(super) fn check_adapter_names(model: &LocatedDraft, taken: &mut BTreeMap<String, String>, notes: &mut FileNotes) {
    for full in adapter_names(model) {
        if let Err(fault) = check_name(&full) {
            model.problem(notes, format!("lora: {full:?}: {fault}"), None);
        }
        if let Some(other) = taken.insert(full.clone(), model.location.clone()) {
            let hint = Some("give the adapter another name".to_owned());
            model.problem(notes, format!("lora: the adapter {full:?} has a name of {other}"), hint);
        }
    }
}

/// Returns whether one of these models has an adapter of this name.
pub(super) fn is_adapter(models: &[LocatedDraft], name: &str) -> bool {
    models.iter().any(|model| adapter_names(model).iter().any(|adapter| adapter == name))
}

/// Returns the names by which requests ask for adapters of this model: after its id, and after each of its aliases.
pub(super) fn adapter_names(model: &LocatedDraft) -> Vec<String> {
    let bases: Vec<String> = model.name().into_iter().chain(model.aliases().cloned()).collect();
    let adapters = model.draft.companions.adapter_names();
    adapters.flat_map(|adapter| bases.iter().map(move |base| format!("{base}:{adapter}"))).collect()
}
