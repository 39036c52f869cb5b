//! What each worker of a model is started with: its program, its variables, its log folder, and the memory that it is
//! estimated to need.
//!
//! Starts nothing: when workers begin and end is decided in `reconciler.rs`.

use std::path::PathBuf;

use crate::app::log_folder;
use crate::models::ModelKind;
use crate::models::estimate::{MemoryDemand, MemoryOptions, planned_bytes};
use crate::preflight::{CheckedModel, FoundCompanions, ModelFile};
use crate::settings::Environment;
use crate::settings::catalogue::{LocalSettings, ProjectorSetting, Start};
use crate::telemetry::files::LogFolder;
use crate::worker::{Need, Plan, Program};

/// Makes the plans of all workers.
pub(super) struct WorkerPlans {
    /// The variables of the service, of which workers inherit some.
    pub(super) environment: Environment,
    /// The log folder of llama-server; those of further workers are inside it.
    pub(super) logs: LogFolder,
    /// `INSTANCE_ID`
    pub(super) instance: String,
}

impl WorkerPlans {
    /// Returns the plan of one worker of a model. `is_alone` says that no other model is served.
    pub(super) fn plan(&self, checked: &CheckedModel, local: &LocalSettings, number: u32, is_alone: bool) -> Plan {
        let (program, environment, estimate) = match (&local.start, &checked.file) {
            (Start::Command { argv, health, model }, _) => {
                let program = Program::Command { argv: argv.clone(), health: health.clone(), model: model.clone() };
                (program, self.environment.for_command(), 0)
            }
            (Start::Named(_) | Start::File(_), file) => {
                let file = file.as_ref();
                let binary = file.map_or_else(PathBuf::new, |file| file.binary.clone());
                let path = file.map_or_else(PathBuf::new, |file| file.path.clone());
                // A reranker that answers with words has to generate one.
                let kind = checked.yes_no_answers().map_or(checked.kind, |_| ModelKind::Chat);
                let program = Program::LlamaServer { binary, file: path, kind };
                (program, self.environment.for_child(), file.map_or(0, |file| memory_need(file, local)))
            }
        };
        Plan {
            model: checked.id.clone(),
            number,
            program,
            engine: local.engine.clone(),
            load_mode: local.load_mode,
            projector: projector_to_pass(checked, local),
            companions: checked.file.as_ref().map(|file| file.companions.files.clone()).unwrap_or_default(),
            files: checked.files.clone(),
            gives_token_vectors: local.heads.is_some(),
            environment,
            // The first worker of the only model logs into the service's own folder.
            logs: if is_alone && number == 0 {
                self.logs.clone()
            } else {
                self.logs.subfolder(&log_folder::worker_log_dir_name(&checked.id, number))
            },
            instance: self.instance.clone(),
            preload: local.preload,
            pinned: local.pinned,
            need: local.memory.map_or(Need::Estimated(estimate), |bytes| Need::Configured(bytes.get())),
        }
    }
}

/// Returns the projector of a model, unless its own arguments name it already.
fn projector_to_pass(checked: &CheckedModel, local: &LocalSettings) -> Option<PathBuf> {
    let projector = checked.file.as_ref()?.projector.as_ref()?;
    let is_named = ProjectorSetting::of_arguments(&local.engine.extra_args.words).is_some();
    (!is_named).then(|| projector.path.clone())
}

/// Returns the estimated memory of a llama-server for this file and all that goes with it, in bytes.
fn memory_need(file: &ModelFile, local: &LocalSettings) -> u64 {
    let slots = local.engine.parallel.get() as u64;
    let context = u64::from(local.engine.ctx.0).saturating_mul(slots);
    let projector = file.projector.as_ref().map_or(0, |projector| projector.size_bytes);
    let FoundCompanions { size_bytes: adapters, draft, files, .. } = &file.companions;
    // llama-server itself refuses what has no meaning.
    let options = MemoryOptions::of_arguments(&local.engine.extra_args.words).unwrap_or_default();
    let demand = MemoryDemand { ctx_total: context, slots, options };
    let draft = draft.as_ref().map_or(0, |draft| {
        let ctx_total = files.speculative.ctx.map_or(context, |ctx| u64::from(ctx).saturating_mul(slots));
        let demand = MemoryDemand { ctx_total, slots, options: MemoryOptions::default() };
        planned_bytes(&draft.metadata, draft.size_bytes, &demand)
    });
    let model = planned_bytes(&file.model.metadata, file.model.size_bytes, &demand);
    model.saturating_add(projector).saturating_add(*adapters).saturating_add(draft)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{InspectedModel, Metadata, Projector};
    use crate::platform::Platform;
    use crate::settings::{Inputs, resolve_text};

    #[test]
    fn what_goes_with_a_model_counts_in_the_memory_that_it_needs() {
        let platform = Platform::plain("/nowhere".as_ref());
        let resolved = resolve_text(&Inputs::default(), &platform, "models: {m: {file: /m.gguf}}").unwrap();
        let local = resolved.config.catalogue.models[0].local.clone().unwrap();
        let model = InspectedModel { metadata: Metadata::default(), size_bytes: 1 << 30 };
        let mut file = ModelFile {
            path: "/m.gguf".into(),
            modified: None,
            model,
            binary: PathBuf::new(),
            projector: None,
            companions: FoundCompanions::default(),
        };
        let without = memory_need(&file, &local);
        file.projector =
            Some(Projector { path: "/p.gguf".into(), modified: None, size_bytes: 1 << 29, modalities: Vec::new() });
        assert_eq!(memory_need(&file, &local), without + (1 << 29));
        file.companions.size_bytes = 1 << 20;
        file.companions.draft = Some(InspectedModel { metadata: Metadata::default(), size_bytes: 1 << 28 });
        let demand = MemoryDemand { ctx_total: 4096, slots: 1, options: MemoryOptions::default() };
        let draft = planned_bytes(&Metadata::default(), 1 << 28, &demand);
        assert_eq!(memory_need(&file, &local), without + (1 << 29) + (1 << 20) + draft);
    }
}
