//! The catalogue, put together: models of the environment, of `models:` and of `model_list:`, and what they may be called.
//!
//! Owns what only all models together show: which entries are one model, names that clash, who is to take over from whom.
//!
//! - `tiers.rs`: models of tiers, from environment variables

pub(super) mod tiers;

use super::catalogue::draft::ModelDraft;
use super::catalogue::{Catalogue, ModelSettings, Start, known_id};
use super::file::{Backend, FileModels, ModelListEntry, Provider, check_name};
use super::notes::{FileNotes, did_you_mean};
use super::options::Settings;
use super::problem::SettingProblem;
use crate::models::{ModelKind, Repository};
use crate::settings::bounds::{MOST_ALIASES, MOST_MODELS, MOST_REMOTES};
use std::collections::{BTreeMap, BTreeSet};
use tiers::TIERS;

/// One model on its way into the catalogue.
struct Placed {
    /// Where it is described, such as `models.qwen3-4b` or `HEAVY_MODEL_PATH`.
    place: String,
    /// Whether the environment describes it.
    is_of_environment: bool,
    id: Option<String>,
    draft: ModelDraft,
}

impl Placed {
    /// Notes a problem with it: with a place in the file, or with a variable.
    fn problem(&self, notes: &mut FileNotes, fault: String, hint: Option<String>) {
        if self.is_of_environment {
            notes.problems.push(SettingProblem { subject: self.place.clone(), fault, hint });
        } else {
            notes.problem(&self.place, fault, hint);
        }
    }

    /// The id, where it can be told without a look at files.
    fn name(&self) -> Option<String> {
        known_id(self.id.as_deref(), self.draft.start.as_ref())
    }
}

/// Puts everything together. Whatever does not fit is noted.
pub(super) fn assemble(
    settings: &Settings,
    tiers: Vec<(String, String, ModelDraft)>,
    shelf: FileModels,
    is_explicit: &dyn Fn(&str) -> bool,
    notes: &mut FileNotes,
) -> Catalogue {
    let files = &settings.files;
    let start = files.model_path.clone().map(|path| ("MODEL_PATH", Start::File(path)));
    let start = start.or_else(|| files.model_name.clone().map(|name| ("MODEL_NAME", Start::Named(name))));
    let mut placed: Vec<Placed> = Vec::new();
    placed.extend(start.map(|(variable, start)| Placed {
        place: variable.to_owned(),
        is_of_environment: true,
        id: None,
        draft: ModelDraft {
            aliases: names_of(&start),
            start: Some(start),
            preload: Some(true),
            ..ModelDraft::default()
        },
    }));
    let of_tier = |(place, id, draft)| Placed { place, is_of_environment: true, id: Some(id), draft };
    placed.extend(tiers.into_iter().map(of_tier));
    let of_file = |(id, draft): (String, ModelDraft)| {
        let place = format!("models.{id}");
        Placed { place, is_of_environment: false, id: Some(id), draft }
    };
    placed.extend(shelf.models.into_iter().map(of_file));
    join(&mut placed, &shelf.entries, notes);
    name_aliases(&mut placed, &shelf.aliases, notes);
    check(&mut placed, notes);
    let fallbacks = fallbacks(&placed, shelf.fallbacks, notes);
    let of_environment = shelf.defaults.beneath(is_explicit);
    let mut models = Vec::new();
    for mut model in placed {
        let defaults = if model.is_of_environment { &of_environment } else { &shelf.defaults };
        let draft = std::mem::take(&mut model.draft);
        let finished = draft.model(model.id.clone(), defaults, settings);
        check_context(&model, &finished, settings, notes);
        models.push(finished);
    }
    Catalogue { models, fallbacks }
}

/// What clients may call a model that is named by its repository, beside the id that its file gives.
fn names_of(start: &Start) -> Vec<String> {
    match start {
        Start::Named(name) => Repository::named(name).map_or_else(Vec::new, |repository| repository.names()),
        Start::File(_) | Start::Command { .. } => Vec::new(),
    }
}

/// Entries of one name are one model, and an entry that names a local model is that model.
fn join(placed: &mut Vec<Placed>, entries: &[ModelListEntry], notes: &mut FileNotes) {
    let is_local = |(_, model): &(usize, &Placed)| model.draft.start.is_some();
    let locals: Vec<(String, usize)> =
        placed.iter().enumerate().filter(is_local).filter_map(|(at, model)| Some((model.name()?, at))).collect();
    let local = |name: &str| locals.iter().find(|(known, _)| known == name).map(|(_, at)| *at);
    // Which model each name means: an entry without an address may say so for all of its name.
    let mut meant: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| matches!(entry.backend, Backend::ByName(_))) {
        let Some(at) = local_of(entry, &local) else { continue };
        if meant.insert(&entry.name, at).is_some_and(|other| other != at) {
            notes.problem(&entry.place, format!("{:?} already means another local model", entry.name), None);
        }
    }
    for entry in entries {
        let target = meant.get(entry.name.as_str()).copied().or_else(|| local(&entry.name));
        let at = target.or_else(|| placed.iter().position(|model| model.id.as_deref() == Some(entry.name.as_str())));
        let at = at.unwrap_or_else(|| {
            let draft = ModelDraft::default();
            let place = entry.place.clone();
            placed.push(Placed { place, is_of_environment: false, id: Some(entry.name.clone()), draft });
            placed.len() - 1
        });
        let id = placed[at].name();
        let draft = &mut placed[at].draft;
        if id.as_deref() != Some(entry.name.as_str()) && !draft.aliases.contains(&entry.name) {
            draft.aliases.push(entry.name.clone());
        }
        describe(draft, entry, notes);
        let remote = match &entry.backend {
            Backend::Remote(remote) => Some(remote.clone()),
            Backend::Broken => None,
            Backend::ByName(_) if local_of(entry, &local).is_some() => {
                draft.weight = entry.weight.or(draft.weight);
                draft.priority = entry.priority.or(draft.priority);
                None
            }
            Backend::ByName(Some(Provider { remote, missing: None })) => Some(remote.clone()),
            Backend::ByName(Some(Provider { missing: Some(variable), .. })) => {
                let hint = Some(format!("set {variable}, or say api_key: os.environ/NAME"));
                notes.problem(&format!("{}.litellm_params.api_key", entry.place), "is missing", hint);
                None
            }
            Backend::ByName(None) => {
                let known = entry.model.iter().chain([&entry.name]);
                let hint = known.filter_map(|name| did_you_mean(name, locals.iter().map(|(id, _)| id.as_str()))).next();
                let hint = hint.unwrap_or_else(|| "say api_base, or name a model of models:".to_owned());
                let place = format!("{}.litellm_params.api_base", entry.place);
                notes.problem(&place, "is missing, and no local model has this name", Some(hint));
                None
            }
        };
        draft.is_broken |= remote.is_none() && draft.start.is_none();
        draft.remotes.extend(remote.map(|mut remote| {
            let asked_as = remote.model.take().unwrap_or_else(|| entry.name.clone());
            remote.model = Some(asked_as).filter(|name| Some(name) != id.as_ref());
            remote.weight = entry.weight.unwrap_or(1.0);
            remote.priority = entry.priority.unwrap_or(0);
            remote
        }));
        if draft.remotes.len() > MOST_REMOTES {
            notes.problem(&entry.place, format!("a model has {MOST_REMOTES} remote backends at most"), None);
            draft.remotes.truncate(MOST_REMOTES);
        }
    }
}

/// The local model that an entry without an address means.
fn local_of(entry: &ModelListEntry, local: &dyn Fn(&str) -> Option<usize>) -> Option<usize> {
    let model = entry.model.as_deref();
    let bare = model.and_then(|model| model.split_once('/')).map(|(_, name)| name);
    [model, bare, Some(&entry.name)].into_iter().flatten().find_map(local)
}

/// What an entry says of the whole model.
fn describe(draft: &mut ModelDraft, entry: &ModelListEntry, notes: &mut FileNotes) {
    if let (Some(said), Some(kind)) = (draft.kind, entry.kind)
        && said != kind
    {
        let fault = format!("says {kind}, and another place says {said}");
        notes.problem(&format!("{}.model_info.mode", entry.place), fault, None);
    }
    draft.kind = draft.kind.or(entry.kind);
    if let (Some(said), Some(tier)) = (&draft.tier, &entry.tier)
        && said != tier
    {
        notes.problem(&format!("{}.tier", entry.place), format!("says {tier}, and another place says {said}"), None);
    }
    draft.tier = draft.tier.take().or_else(|| entry.tier.clone());
    for (name, value) in &entry.sampling {
        if !draft.sampling.iter().any(|(known, _)| known == name) {
            draft.sampling.push((name.clone(), value.clone()));
        }
    }
    if draft.start.is_none() && draft.kind.is_none() && draft.tier.is_none() {
        let model = entry.model.as_deref().unwrap_or_default();
        draft.kind = kind_by_name(&entry.name).or_else(|| kind_by_name(model));
    }
}

/// What a model is for that nobody can look into, if its name tells.
fn kind_by_name(name: &str) -> Option<ModelKind> {
    let name = name.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    if has(&["rerank", "cross-encoder"]) {
        Some(ModelKind::Rerank)
    } else if has(&["embed", "bge-", "e5-"]) {
        Some(ModelKind::Embedding)
    } else {
        None
    }
}

/// Puts in the other names of `model_group_alias`.
fn name_aliases(placed: &mut [Placed], aliases: &[(String, String, String)], notes: &mut FileNotes) {
    for (place, alias, target) in aliases {
        if let Err(fault) = check_name(alias) {
            notes.problem(place, fault, None);
        }
        let named = |model: &Placed| model.name().as_ref() == Some(target) || model.draft.aliases.contains(target);
        match placed.iter_mut().find(|model| named(model)) {
            Some(model) if model.draft.aliases.contains(alias) => {}
            Some(model) => model.draft.aliases.push(alias.clone()),
            None => notes.problem(place, format!("there is no model {target:?}"), None),
        }
    }
}

/// Names that clash, models that nobody serves, and too much of anything.
fn check(placed: &mut [Placed], notes: &mut FileNotes) {
    if placed.len() > MOST_MODELS {
        notes.problem("models", format!("there are {}, and at most {MOST_MODELS} are possible", placed.len()), None);
    }
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    for model in placed.iter() {
        let Some(id) = model.name() else { continue };
        if let Some(other) = taken.insert(id.clone(), model.place.clone()) {
            let hint = Some("give one of them another id under models:".to_owned());
            model.problem(notes, format!("the id {id:?} is that of {other} too"), hint);
        }
    }
    for model in placed.iter_mut() {
        let (id, mut own) = (model.name(), BTreeSet::new());
        model.draft.aliases.retain(|alias| Some(alias) != id.as_ref() && own.insert(alias.clone()));
        if model.draft.start.is_none() && model.draft.remotes.is_empty() && !model.draft.is_broken {
            let hint = "say file: NAME.gguf or command: [...], or give it an entry of model_list with an api_base";
            model.problem(notes, "nobody serves this model".to_owned(), Some(hint.to_owned()));
        }
        if model.draft.aliases.len() > MOST_ALIASES {
            model.problem(notes, format!("a model has {MOST_ALIASES} aliases at most"), None);
        }
        for alias in &model.draft.aliases {
            if let Err(fault) = check_name(alias) {
                model.problem(notes, format!("alias {alias:?}: {fault}"), None);
            }
            if let Some(other) = taken.insert(alias.clone(), model.place.clone()) {
                model.problem(notes, format!("the alias {alias:?} is a name of {other} too"), None);
            }
        }
    }
}

/// Who takes over from whom; each name is that of a model or a tier.
fn fallbacks(
    placed: &[Placed],
    said: Vec<(String, String, Vec<String>)>,
    notes: &mut FileNotes,
) -> BTreeMap<String, Vec<String>> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for model in placed {
        known.extend(model.name());
        known.extend(model.draft.tier.clone());
        known.extend(model.draft.aliases.iter().cloned());
    }
    let mut fallbacks = BTreeMap::new();
    for (place, name, names) in said {
        for unknown in names.iter().chain([&name]).filter(|name| !known.contains(*name)) {
            // These are said before there are such models.
            if TIERS.iter().any(|(_, tier)| tier == unknown) {
                notes.warnings.push(format!("{place}: no model has the tier {unknown}"));
                continue;
            }
            let hint = did_you_mean(unknown, known.iter().map(String::as_str));
            notes.problem(&place, format!("there is no model and no tier {unknown:?}"), hint);
        }
        if names.contains(&name) {
            notes.problem(&place, "names itself", None);
        }
        if fallbacks.insert(name.clone(), names).is_some() {
            notes.problem(&place, "is said at another place too", Some("keep one of them".to_owned()));
        }
    }
    fallbacks
}

/// The total context is a 32-bit number to llama-server.
fn check_context(placed: &Placed, model: &ModelSettings, settings: &Settings, notes: &mut FileNotes) {
    let Some(local) = model.local.as_ref().filter(|local| !matches!(local.start, Start::Command { .. })) else {
        return;
    };
    let (engine, of_all) = (&local.engine, &settings.engine);
    let is_own = (engine.ctx, engine.parallel) != (of_all.ctx, of_all.parallel);
    if is_own && engine.total_context().is_none() {
        let fault = format!(
            "{} tokens for each of {} slots are more than llama-server can count (2147483647)",
            engine.ctx.0, engine.parallel
        );
        placed.problem(notes, format!("ctx: {fault}"), Some("it is the context of one slot".to_owned()));
    }
}

#[cfg(test)]
mod tests;
