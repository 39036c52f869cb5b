//! The draft of one model, with what describes it.

use crate::settings::catalogue::draft::ModelDraft;
use crate::settings::catalogue::known_id;
use crate::settings::notes::FileNotes;
use crate::settings::problem::SettingProblem;

/// The draft of one model, with the location that describes it.
pub(super) struct LocatedDraft {
    /// The key or variable that describes it, such as `models.qwen3-4b` or `HEAVY_MODEL_PATH`.
    pub(super) location: String,
    /// Whether an environment variable or a flag describes it, not the file.
    pub(super) is_from_environment: bool,
    pub(super) id: Option<String>,
    pub(super) draft: ModelDraft,
}

impl LocatedDraft {
    /// Records a problem with this model, at its location in the file or with its variable.
    pub(super) fn problem(&self, notes: &mut FileNotes, fault: String, hint: Option<String>) {
        if self.is_from_environment {
            notes.problems.push(SettingProblem { subject: self.location.clone(), fault, hint });
        } else {
            notes.problem(&self.location, fault, hint);
        }
    }

    /// Returns the id, if it is known without reading model files.
    pub(super) fn name(&self) -> Option<String> {
        known_id(self.id.as_deref(), self.draft.start.as_ref())
    }

    /// Returns the aliases, the hidden ones too.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &String> {
        self.draft.aliases.iter().chain(&self.draft.hidden_aliases)
    }

    /// Returns whether this is the id or an alias of the model.
    pub(super) fn has_name(&self, name: &str) -> bool {
        self.name().as_deref() == Some(name) || self.aliases().any(|alias| alias == name)
    }
}
