//! Warnings that need the model files: about models that work, but probably not as intended.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::bounds::MOST_NAMED;
use super::checked::{CheckedModel, CheckedModels, file_name};
use super::companion_report::{companion_warnings, own_fallbacks};
use crate::models::{BrokenProjector, KindContradiction, ModelKind};
use crate::settings::Config;
use crate::settings::catalogue::{Catalogue, EVERY_MODEL, LocalSettings, PoolRole, ProjectorSetting, Start};
use crate::settings::options::row;

impl CheckedModels {
    /// Returns warnings about models that work, but probably not as intended.
    pub fn warnings(&self, config: &Config) -> Vec<String> {
        let models = self.all();
        let mut warnings = warnings(&config.catalogue, &models);
        warnings.extend(broken_pools(config, &models));
        warnings.extend(idle_last_resorts(config, &models));
        warnings
    }
}

/// Returns warnings about configurations that work, but probably not as intended.
fn warnings(catalogue: &Catalogue, models: &[CheckedModel]) -> Vec<String> {
    let mut warnings = Vec::new();
    for model in models {
        for name in model.names() {
            if ["chat", "embeddings", "rerank"].contains(&&**name) {
                warnings.push(format!("the model {name:?} cannot be looked up: /v1/models/{name} is a list of models"));
            } else if name.ends_with("/load") || name.ends_with("/unload") {
                warnings.push(format!("the model {name:?} has a name that is a command at /v1/models/{name}"));
            }
        }
    }
    warnings.extend(models.iter().filter_map(doubtful_kind));
    warnings.extend(models.iter().filter_map(ineffective_dimensions));
    warnings.extend(models.iter().filter_map(ineffective_instruction));
    warnings.extend(unreachable_contexts(models));
    for model in models.iter().filter(|model| has_unknown_memory(model)) {
        warnings.push(format!(
            "models.{}: a `command` without `memory` counts as 0 in MEMORY_BUDGET until a load of it has been measured; \
             set `memory`",
            model.id
        ));
    }
    if catalogue.shelf.is_some() {
        // Without a shelf, an unknown name is a problem of the configuration.
        for (name, others) in &catalogue.fallbacks {
            let is_unknown = |name: &&String| *name != EVERY_MODEL && models_named(models, name).next().is_none();
            let unknown = others.iter().chain([name]).filter(is_unknown);
            warnings.extend(unknown.map(|other| format!("fallbacks.{name}: there is no model and no tier {other:?}")));
        }
        for (kind, name) in &catalogue.default_models {
            match models.iter().find(|model| model.has_name(name)) {
                None => warnings.push(format!("default_models.{kind}: there is no model {name:?}")),
                Some(model) if model.kind != *kind => {
                    warnings.push(format!("default_models.{kind}: the model {name:?} is for {}", model.kind));
                }
                Some(_) => {}
            }
        }
    }
    warnings.extend(projector_warnings(models));
    warnings.extend(companion_warnings(models));
    warnings.extend(own_fallbacks(models, &catalogue.fallbacks));
    for (name, others) in &catalogue.fallbacks {
        let kinds: Vec<ModelKind> = models_named(models, name).map(|model| model.kind).collect();
        for other in others {
            let mut found = models_named(models, other).peekable();
            let Some(kind) = found.peek().map(|model| model.kind) else { continue };
            if let Some(own) = kinds.first().filter(|_| !found.any(|model| kinds.contains(&model.kind))) {
                warnings.push(format!("fallbacks.{name}: {other} never takes over: its kind is {kind}, not {own}"));
            } else if name != EVERY_MODEL && models_named(models, other).all(|model| model.yes_no_answers().is_some()) {
                warnings.push(format!(
                    "fallbacks.{name}: {other} never takes over: it has no ranking head, and is asked in another way than others"
                ));
            }
            if lacks_heads(models, name) && has_heads(models, other) {
                warnings.push(format!(
                    "fallbacks.{name}: {other} never takes over: it has heads, so that its llama-server gives the vectors of \
                     tokens; name a model without heads"
                ));
            }
        }
    }
    warnings
}

/// Returns a warning for each kind whose models of `model_list` have priorities, but are no pool because of another model.
fn broken_pools(config: &Config, models: &[CheckedModel]) -> Vec<String> {
    let fallback_to_local = config.settings.routing.fallback_to_local;
    let mut warnings = Vec::new();
    for kind in BTreeSet::from_iter(models.iter().map(|model| model.kind.as_str())) {
        let of_kind = || models.iter().filter(|model| model.kind.as_str() == kind && !model.settings.is_wildcard);
        let has_default = config.catalogue.default_models.iter().any(|(of, _)| of.as_str() == kind);
        let has_priority = of_kind().any(|model| model.settings.pool.is_some_and(|place| place.priority.is_some()));
        let other = of_kind().find(|model| model.settings.pool_role(fallback_to_local).is_none());
        let Some(other) = other.filter(|_| has_priority && !has_default) else { continue };
        let reason = match &other.settings.local {
            Some(_) => "is local and FALLBACK_TO_LOCAL is false",
            None => "is not one of model_list alone",
        };
        warnings.push(format!(
            "requests for {kind} that name no model get 404, because the model {:?} {reason}; set default_models.{kind}",
            other.id
        ));
    }
    warnings
}

/// Returns a warning for each reranker that would be the last resort of a pool, and cannot read what is written for others.
fn idle_last_resorts(config: &Config, models: &[CheckedModel]) -> Vec<String> {
    let is_in_pool = |role: PoolRole| {
        move |model: &&CheckedModel| {
            let own = model.settings.pool_role(config.settings.routing.fallback_to_local);
            model.kind == ModelKind::Rerank && own == Some(role)
        }
    };
    if !models.iter().any(|model| is_in_pool(PoolRole::Member)(&model)) {
        return Vec::new();
    }
    let idle = models.iter().filter(is_in_pool(PoolRole::LastResort)).filter(|model| model.yes_no_answers().is_some());
    let warning = |model: &CheckedModel| {
        format!(
            "the model {:?} has no ranking head, and takes over no requests for rerank that name no model: requests have to \
             name it",
            model.id
        )
    };
    idle.map(warning).collect()
}

/// Returns whether there are models of this name, and none has heads.
fn lacks_heads(models: &[CheckedModel], name: &str) -> bool {
    models_named(models, name).next().is_some() && models_named(models, name).all(|model| model.heads.is_none())
}

/// Returns whether there are models of this name, and all have heads.
fn has_heads(models: &[CheckedModel], name: &str) -> bool {
    models_named(models, name).next().is_some() && models_named(models, name).all(|model| model.heads.is_some())
}

/// Returns a warning if the file of a model cannot serve its kind, or gives answers that mean nothing.
fn doubtful_kind(model: &CheckedModel) -> Option<String> {
    let CheckedModel { id, kind, .. } = model;
    // A model that is named does not start with a contradiction; those below MODELS_DIR share their arguments.
    if let Some(contradiction) = model.kind_contradiction() {
        let KindContradiction { fault, hint } = contradiction;
        return Some(format!("the model {id:?} is for {kind}, but {fault}; {hint}"));
    }
    let (local, file) = (model.settings.local.as_ref()?, model.file.as_ref()?);
    let has_pooling = || {
        let is_named = local.engine.extra_args.words.iter().any(|word| word == "--pooling");
        is_named || file.model.metadata.pools_vectors()
    };
    match (kind, file.model.kind()) {
        (ModelKind::Rerank, _) if model.yes_no_answers().is_some() => None,
        (ModelKind::Embedding, ModelKind::Chat | ModelKind::Rerank) if !has_pooling() => Some(format!(
            "the model {id:?} has no pooling, so that llama-server refuses every request for embeddings: add --pooling \
             last (or mean) to EXTRA_ARGS, or args: [--pooling, last] to the model"
        )),
        (ModelKind::Rerank, _) if file.model.metadata.yes_no_answers().is_some() => Some(format!(
            "the model {id:?} has no ranking head, and remote backends beside it: the scores of its llama-server mean nothing; \
             give the file a name of its own under models:"
        )),
        (ModelKind::Rerank, ModelKind::Chat | ModelKind::Embedding) => Some(format!(
            "the model {id:?} has no ranking head: llama-server answers requests for rerank, but the scores mean nothing; \
             use the file of a reranker"
        )),
        _ => None,
    }
}

/// Returns a warning if lengths of vectors are configured that the model cannot have. `dimensions` of a model and
/// EMBEDDING_DIMENSION of its tier are the same setting.
fn ineffective_dimensions(model: &CheckedModel) -> Option<String> {
    let (dimensions, id) = (model.settings.dimensions.as_ref()?, &model.id);
    let named = |lengths: &[u32]| {
        let lengths: Vec<String> = lengths.iter().take(MOST_NAMED).map(u32::to_string).collect();
        format!("its dimensions (EMBEDDING_DIMENSION) {}", lengths.join(", "))
    };
    let all: Vec<u32> = dimensions.lengths().iter().map(|length| length.get()).collect();
    if model.kind != ModelKind::Embedding {
        return Some(format!("the model {id:?} has no vectors: {} have no effect", named(&all)));
    }
    let own = model.file.as_ref().and_then(|file| file.model.metadata.embedding_length)?;
    let too_long: Vec<u32> = all.into_iter().filter(|length| u64::from(*length) > own).collect();
    let has_too_long = !too_long.is_empty();
    has_too_long
        .then(|| format!("the vectors of the model {id:?} have {own} numbers: {} have no effect", named(&too_long)))
}

/// Returns a warning if an instruction is configured that the model is not asked with.
fn ineffective_instruction(model: &CheckedModel) -> Option<String> {
    let is_ignored = model.settings.instruction.is_some() && model.yes_no_answers().is_none();
    is_ignored.then(|| {
        format!(
            "models.{}.instruction has no effect: only rerankers of the architecture qwen3 without a ranking head are asked \
             with one",
            model.id
        )
    })
}

/// Returns a warning for each `CTX` that was set to more tokens than llama-server gives a slot of some model. The default
/// of `CTX` is for every model, and is no wish for a long context.
fn unreachable_contexts(models: &[CheckedModel]) -> Vec<String> {
    let default = row("ctx").and_then(|row| row.default.parse::<u32>().ok());
    let mut short: BTreeMap<u32, Vec<(&str, u64)>> = BTreeMap::new();
    for model in models {
        let (Some(local), Some(file)) = (&model.settings.local, &model.file) else { continue };
        let wanted = local.engine.ctx.0;
        let trained = file.model.metadata.context_length.filter(|trained| (1..u64::from(wanted)).contains(trained));
        // These change what llama-server takes for the trained context.
        let stretches = |word: &String| {
            let word = word.replace('_', "-");
            ["--rope-", "--yarn-", "--override-kv"].iter().any(|start| word.starts_with(start))
        };
        if let Some(trained) = trained.filter(|_| Some(wanted) != default)
            && !local.engine.extra_args.words.iter().any(stretches)
        {
            short.entry(wanted).or_default().push((&model.id, trained));
        }
    }
    let warning = |(wanted, models): (u32, Vec<(&str, u64)>)| {
        let named: Vec<String> =
            models.iter().take(MOST_NAMED).map(|(id, trained)| format!("{id:?} ({trained})")).collect();
        let more = models.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!(
            "CTX={wanted} is more than the trained context of {}{more}: llama-server reserves memory for it, but takes \
             no more than the trained tokens; set CTX to them",
            named.join(", ")
        )
    };
    short.into_iter().map(warning).collect()
}

/// Returns warnings about projectors that are there and not used.
fn projector_warnings(models: &[CheckedModel]) -> Vec<String> {
    let names = |paths: &[PathBuf]| paths.iter().map(|path| file_name(path)).collect::<Vec<_>>().join(", ");
    let mut warnings = Vec::new();
    let mut unused: BTreeSet<&PathBuf> = models.iter().flat_map(|model| &model.unused_projectors).collect();
    for model in models {
        if !model.tied_projectors.is_empty() {
            warnings.push(format!(
                "the model {:?} gets no multimodal projector: {} suit it equally well; keep one of them, or set mmproj: of the model in llamagate.yaml",
                model.id,
                names(&model.tied_projectors)
            ));
        }
        let used = model.file.iter().filter_map(|file| file.projector.as_ref()).map(|projector| &projector.path);
        for path in used.chain(&model.passed_over_projectors).chain(&model.tied_projectors) {
            unused.remove(path);
        }
        let Some(local) = &model.settings.local else { continue };
        let is_overridden = ProjectorSetting::of_arguments(&local.engine.extra_args.words).is_some();
        if is_overridden && local.projector != ProjectorSetting::Auto {
            warnings.push(format!("models.{}.mmproj has no effect: args or EXTRA_ARGS name the projector", model.id));
        }
    }
    let broken: BTreeSet<&BrokenProjector> = models.iter().flat_map(|model| &model.broken_projectors).collect();
    warnings.extend(broken.into_iter().map(|BrokenProjector { path, fault, hint }| {
        let name = file_name(path);
        format!(
            "{name} is no projector of the model beside it, which gets no images or sound from it: it {fault}; {hint}"
        )
    }));
    warnings.extend(unused.into_iter().map(|path| {
        format!(
            "the multimodal projector {} is not used: by its name or its width it belongs to no model beside it; set mmproj: of a model in llamagate.yaml",
            file_name(path)
        )
    }));
    warnings
}

/// Whether nothing tells how much memory a model needs before it has been loaded.
fn has_unknown_memory(model: &CheckedModel) -> bool {
    let is_unknown = |local: &LocalSettings| matches!(local.start, Start::Command { .. }) && local.memory.is_none();
    model.settings.local.as_ref().is_some_and(is_unknown)
}

/// Returns the models that this name means: the one with this id or alias, or all of a tier.
fn models_named<'a>(models: &'a [CheckedModel], name: &'a str) -> impl Iterator<Item = &'a CheckedModel> {
    models.iter().filter(move |model| {
        let is_of_tier = model.settings.tier.as_deref().is_some_and(|tier| tier.eq_ignore_ascii_case(name));
        is_of_tier || model.has_name(name)
    })
}
