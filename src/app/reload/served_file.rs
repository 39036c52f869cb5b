//! The files that a served model is served from, as removals and questions about it need them.

use std::path::{Path, PathBuf};

use crate::preflight::CheckedModel;
use crate::settings::options::Engine;

/// A model that is served, and the files that it is served from.
pub(in crate::app) struct ServedFile {
    pub(in crate::app) id: String,
    aliases: Vec<String>,
    /// `None` for a remote backend or a command.
    pub(in crate::app) path: Option<PathBuf>,
    /// The settings of its llama-server; `None` for a remote backend.
    pub(in crate::app) engine: Option<Engine>,
    /// Its projector, adapters, draft model and chat template.
    pub(in crate::app) companions: Vec<PathBuf>,
    /// The names of its adapters, as requests give them after those of the model.
    adapters: Vec<String>,
    /// Whether the configuration names it, so that the next start needs it.
    pub(in crate::app) is_named: bool,
}

impl ServedFile {
    /// Returns what a checked model is served from. `is_named` says whether the configuration names it.
    pub(super) fn of(model: &CheckedModel, is_named: bool) -> Self {
        let projector = model.file.iter().filter_map(|file| file.projector.as_ref()).map(|found| found.path.as_path());
        let companions = model.file.iter().flat_map(|file| file.companions.files.paths());
        let adapters = model.settings.local.iter().flat_map(|local| local.companions.adapter_names());
        Self {
            id: model.id.clone(),
            aliases: model.settings.aliases.clone(),
            path: model.file.as_ref().map(|file| file.path.clone()),
            engine: model.settings.local.as_ref().map(|local| local.engine.clone()),
            companions: projector.chain(companions).map(Path::to_owned).collect(),
            adapters: adapters.cloned().collect(),
            is_named,
        }
    }

    /// Returns whether this is the id or an alias.
    pub(in crate::app) fn has_name(&self, name: &str) -> bool {
        self.id == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Returns whether this is the name of one of its adapters.
    pub(in crate::app) fn has_adapter(&self, name: &str) -> bool {
        let parts = name.rsplit_once(':');
        parts.is_some_and(|(model, adapter)| self.has_name(model) && self.adapters.iter().any(|one| one == adapter))
    }
}
