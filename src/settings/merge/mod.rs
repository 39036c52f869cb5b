//! Builds the catalogue from the models of the environment, of `models:` and of `model_list:`.
//!
//! Owns the checks that need all models: which entries describe the same model, names that clash, and fallbacks.
//!
//! - `companions.rs`: what goes with a model, against arguments and other names
//! - `doubts.rs`: settings of models that have no effect
//! - `located.rs`: the draft of one model, and what describes it
//! - `tiers.rs`: models of tiers, from environment variables
//! - `tests/`: tests of the merge with whole configurations

mod companions;
mod doubts;
mod located;
pub(super) mod tiers;

use std::collections::{BTreeMap, BTreeSet};

use super::catalogue::draft::ModelDraft;
use super::catalogue::{Catalogue, EVERY_MODEL, ModelSettings, PoolPlace, RemoteSettings, Start, TIERS};
use super::file::{Backend, FileModels, GroupAlias, ModelListEntry, check_name};
use super::notes::{FileNotes, LeftOutEntry, LeftOutReason, did_you_mean};
use super::options::Settings;
use super::problem::SettingProblem;
use super::values::{NamePattern, Strategy};
use crate::models::{ModelKind, Repository, StoreName};
use crate::settings::bounds::{MOST_ALIASES, MOST_MODELS, MOST_REMOTES};
use crate::settings::values::ServeModelsDir;
use companions::{adapter_names, check_adapter_names, check_arguments, is_adapter};
use doubts::doubts;
use located::LocatedDraft;
use tiers::FromEnvironment;

/// Builds the catalogue, and records problems and warnings in `notes`.
pub(super) fn assemble(
    settings: &Settings,
    from_environment: FromEnvironment,
    sections: FileModels,
    is_explicit: &dyn Fn(&str) -> bool,
    notes: &mut FileNotes,
) -> Catalogue {
    let files = &settings.files;
    let start = files.model_path.clone().map(|path| ("MODEL_PATH", Start::File(path)));
    let start = start.or_else(|| files.model_name.clone().map(|name| ("MODEL_NAME", Start::Named(name))));
    let is_any_named = start.is_some() || !from_environment.tiers.is_empty();
    let is_any_named = is_any_named || sections.has_models || sections.has_model_list;
    let mut drafts: Vec<LocatedDraft> = Vec::new();
    drafts.extend(start.map(|(variable, start)| LocatedDraft {
        location: variable.to_owned(),
        is_from_environment: true,
        id: None,
        draft: ModelDraft {
            aliases: names_beside_id(&start),
            start: Some(start),
            // Unlike a model of the file, it starts with the service.
            preload: Some(true),
            ..ModelDraft::default()
        },
    }));
    let FromEnvironment { tiers, sampling } = from_environment;
    let from_tier = |(location, id, draft)| LocatedDraft { location, is_from_environment: true, id: Some(id), draft };
    drafts.extend(tiers.into_iter().map(from_tier));
    let from_file = |(id, draft): (String, ModelDraft)| {
        let location = format!("models.{id}");
        LocatedDraft { location, is_from_environment: false, id: Some(id), draft }
    };
    drafts.extend(sections.models.into_iter().map(from_file));
    join_model_list(&mut drafts, &sections.entries, notes);
    let mut named: Vec<&str> = sections.aliases.iter().map(|alias| alias.model.as_str()).collect();
    named.extend(sections.fallbacks.iter().flat_map(|(_, _, names)| names).map(String::as_str));
    named.extend(sections.default_models.iter().map(|(_, name)| name.as_str()));
    add_named_by_pattern(&mut drafts, named);
    add_group_aliases(&mut drafts, &sections.aliases, notes);
    let has_shelf = match files.serve_models_dir {
        ServeModelsDir::Auto => !is_any_named,
        ServeModelsDir::Always => true,
        ServeModelsDir::Never => false,
    };
    name_only_model(&mut drafts, &settings.engine.extra_args.names, has_shelf, notes);
    check_names(&mut drafts, notes);
    let fallbacks = fallbacks(&drafts, sections.fallbacks, has_shelf, notes);
    let default_models = default_models(&drafts, sections.default_models, has_shelf, notes);
    if drafts.is_empty() && !has_shelf {
        notes.refuse_left_out();
    }
    // As with the settings of the table: for the file's models its own `defaults:` come first, for those of the
    // environment the variables do.
    let mut file_defaults = sections.defaults.clone();
    file_defaults.add_sampling(&sampling);
    let mut environment_defaults = ModelDraft { sampling, ..sections.defaults.without_explicit(is_explicit) };
    environment_defaults.add_sampling(&sections.defaults.sampling);
    let mut models = Vec::new();
    for mut model in drafts {
        let defaults = if model.is_from_environment { &environment_defaults } else { &file_defaults };
        let draft = std::mem::take(&mut model.draft);
        let finished = draft.into_model(model.id.clone(), defaults, settings);
        check_context(&model, &finished, settings, notes);
        check_arguments(&model, &finished, notes);
        models.push(finished);
    }
    let shelf = has_shelf.then(|| {
        let start = Some(Start::File(files.models_dir.clone()));
        let draft = ModelDraft { start, ..ModelDraft::default() };
        let location = "defaults".to_owned();
        let located = LocatedDraft { location, is_from_environment: false, id: None, draft: ModelDraft::default() };
        let model = draft.into_model(None, &environment_defaults, settings);
        check_context(&located, &model, settings, notes);
        model
    });
    notes.warnings.extend(doubts(&models, shelf.as_ref(), settings));
    Catalogue { models, fallbacks, default_models, shelf }
}

/// Gives the only model the names of `--alias` in `EXTRA_ARGS`, as llama-server would: the first is its id, unless the
/// file names it already, and the others are aliases. Models of a shelf have the names of their files.
fn name_only_model(drafts: &mut [LocatedDraft], names: &[String], has_shelf: bool, notes: &mut FileNotes) {
    let Some(first) = names.first() else { return };
    let problem = |fault: String, hint: &str| SettingProblem {
        subject: "EXTRA_ARGS: --alias".to_owned(),
        fault,
        hint: Some(hint.to_owned()),
    };
    if let Some(fault) = names.iter().find_map(|name| check_name(name).err()) {
        notes.problems.push(problem(fault, "write --alias NAME"));
    }
    match drafts {
        [only] => {
            let mut names = names.iter();
            if only.is_from_environment {
                only.id = names.next().cloned();
            }
            only.draft.aliases.extend(names.cloned());
        }
        [] if has_shelf => notes.problems.push(problem(
            format!(
                "{first:?} names the only model, and every model below MODELS_DIR is served by the name of its file"
            ),
            "name the model with MODEL_NAME or MODEL_PATH too",
        )),
        // The missing model is reported later, with all that is missing.
        [] => {}
        drafts => notes.problems.push(problem(
            format!("{first:?} names the only model, and there are {} models", drafts.len()),
            "name each model under models: in llamagate.yaml, with aliases: for other names",
        )),
    }
}

/// Returns the names that clients may use for a model of a Hugging Face repository or of another program, besides its id.
fn names_beside_id(start: &Start) -> Vec<String> {
    match start {
        Start::Named(name) => match StoreName::parse(name) {
            Some(name) => name.names(),
            None => Repository::named(name).map_or_else(Vec::new, |repository| repository.names()),
        },
        Start::File(_) | Start::Command { .. } => Vec::new(),
    }
}

/// Adds the entries of `model_list` to the drafts. Entries of the same name are one model; an entry that names a local
/// model belongs to that model.
fn join_model_list(drafts: &mut Vec<LocatedDraft>, entries: &[ModelListEntry], notes: &mut FileNotes) {
    let is_local = |(_, model): &(usize, &LocatedDraft)| model.draft.start.is_some();
    let locals: Vec<(String, usize)> =
        drafts.iter().enumerate().filter(is_local).filter_map(|(at, model)| Some((model.name()?, at))).collect();
    let local = |name: &str| locals.iter().find(|(known, _)| known == name).map(|(_, at)| *at);
    // An entry without an `api_base` that names a local model decides for all entries of the same `model_name`, so
    // these are resolved before any entry is added.
    let mut targets: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| matches!(entry.backend, Backend::ByName(_))) {
        let Some(at) = find_local(entry, &local) else { continue };
        if targets.insert(&entry.name, at).is_some_and(|other| other != at) {
            notes.problem(
                &entry.location,
                format!("another entry of {:?} already names a different local model", entry.name),
                None,
            );
        }
    }
    for entry in entries {
        let (remote, is_local) = match remote_of(entry, &local, &locals, notes) {
            Found::Remote(remote) => (Some(remote), false),
            Found::Local => (None, true),
            Found::Problem => (None, false),
            Found::LeftOut(reason) => {
                let (location, name) = (entry.location.clone(), entry.name.clone());
                notes.left_out.push(LeftOutEntry { location, name, reason });
                continue;
            }
        };
        let target = targets.get(entry.name.as_str()).copied().or_else(|| local(&entry.name));
        let at = target.or_else(|| drafts.iter().position(|model| model.id.as_deref() == Some(entry.name.as_str())));
        let at = at.unwrap_or_else(|| {
            let is_wildcard = NamePattern::of(&entry.name).is_some();
            let pool = (!is_wildcard).then(PoolPlace::default);
            let draft = ModelDraft { is_wildcard, pool, ..ModelDraft::default() };
            let location = entry.location.clone();
            drafts.push(LocatedDraft { location, is_from_environment: false, id: Some(entry.name.clone()), draft });
            drafts.len() - 1
        });
        let id = drafts[at].name();
        let draft = &mut drafts[at].draft;
        if id.as_deref() != Some(entry.name.as_str()) && !draft.aliases.contains(&entry.name) {
            draft.aliases.push(entry.name.clone());
        }
        apply_entry(draft, entry, notes);
        if is_local {
            draft.weight = entry.weight.or(draft.weight);
            draft.priority = entry.priority.or(entry.order).or(draft.priority);
            add_fields(draft, entry);
        }
        draft.has_problem |= remote.is_none() && draft.start.is_none();
        draft.remotes.extend(remote.map(|mut remote| {
            let asked_as = remote.model.take().unwrap_or_else(|| entry.name.clone());
            remote.model = Some(asked_as).filter(|name| Some(name) != id.as_ref());
            remote.weight = entry.weight.unwrap_or(1.0);
            remote.priority = entry.priority.or(entry.order).unwrap_or(0);
            remote.fields =
                entry.fields.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
            remote
        }));
        if draft.remotes.len() > MOST_REMOTES {
            notes.problem(&entry.location, format!("a model has {MOST_REMOTES} remote backends at most"), None);
            draft.remotes.truncate(MOST_REMOTES);
        }
    }
}

/// What serves an entry of `model_list`.
enum Found {
    Remote(RemoteSettings),
    /// A local model.
    Local,
    /// Nothing here can: the entry is left out.
    LeftOut(LeftOutReason),
    /// A problem was recorded.
    Problem,
}

/// Returns what serves an entry.
fn remote_of(
    entry: &ModelListEntry,
    local: &dyn Fn(&str) -> Option<usize>,
    locals: &[(String, usize)],
    notes: &mut FileNotes,
) -> Found {
    match &entry.backend {
        Backend::Remote(remote) => Found::Remote(remote.clone()),
        Backend::Invalid => Found::Problem,
        Backend::LeftOut(reason) => Found::LeftOut(reason.clone()),
        Backend::ByName(_) if find_local(entry, local).is_some() => Found::Local,
        Backend::ByName(Ok(remote)) => Found::Remote(remote.clone()),
        Backend::ByName(Err(reason)) => {
            let known = entry.model.iter().chain([&entry.name]).filter(|_| reason.is_name_unknown);
            let hint = known.filter_map(|name| did_you_mean(name, locals.iter().map(|(id, _)| id.as_str()))).next();
            match hint {
                // A name that is nearly that of a local model is a mistake of this file, and no entry of LiteLLM's.
                Some(hint) => {
                    let location = format!("{}.litellm_params.api_base", entry.location);
                    notes.problem(&location, "is missing, and no local model has this name", Some(hint));
                    Found::Problem
                }
                None => Found::LeftOut(reason.clone()),
            }
        }
    }
}

/// Returns the index of the local model that an entry without an `api_base` names, with or without the provider.
fn find_local(entry: &ModelListEntry, local: &dyn Fn(&str) -> Option<usize>) -> Option<usize> {
    let model = entry.model.as_deref();
    let bare = model.and_then(|model| model.split_once('/')).map(|(_, name)| name);
    [model, bare, Some(&entry.name)].into_iter().flatten().find_map(local)
}

/// Copies the settings of an entry that apply to the whole model: kind, tier, and the order of its backends.
fn apply_entry(draft: &mut ModelDraft, entry: &ModelListEntry, notes: &mut FileNotes) {
    if let (Some(earlier), Some(kind)) = (draft.kind, entry.kind)
        && earlier != kind
    {
        let fault = format!("is {kind} here and {earlier} in another place");
        notes.problem(&format!("{}.model_info.mode", entry.location), fault, None);
    }
    draft.kind = draft.kind.or(entry.kind);
    if let (Some(earlier), Some(tier)) = (&draft.tier, &entry.tier)
        && earlier != tier
    {
        notes.problem(
            &format!("{}.tier", entry.location),
            format!("is {tier} here and {earlier} in another place"),
            None,
        );
    }
    draft.tier = draft.tier.take().or_else(|| entry.tier.clone());
    if let Some(place) = draft.pool.as_mut()
        && let Some(priority) = entry.priority
    {
        place.priority = Some(place.priority.map_or(priority, |lowest| lowest.min(priority)));
    }
    // In LiteLLM `order` decides before the strategy does.
    if entry.order.is_some() {
        draft.strategy = draft.strategy.or(Some(Strategy::PriorityFailover));
    }
    if draft.start.is_none() && draft.kind.is_none() && draft.tier.is_none() {
        let model = entry.model.as_deref().unwrap_or_default();
        draft.kind = kind_by_name(&entry.name).or_else(|| kind_by_name(model));
    }
}

/// Adds the request fields of an entry that names a local model to those of the model.
fn add_fields(draft: &mut ModelDraft, entry: &ModelListEntry) {
    for (name, value) in &entry.fields {
        if !draft.sampling.iter().any(|(known, _)| known == name) {
            draft.sampling.push((name.clone(), value.clone()));
        }
    }
}

/// Adds a model for each of these names that only a pattern matches, so that aliases, fallbacks and defaults can name
/// it. It has the backends of the pattern.
fn add_named_by_pattern(drafts: &mut Vec<LocatedDraft>, names: Vec<&str>) {
    for name in names {
        if name == EVERY_MODEL || NamePattern::of(name).is_some() || drafts.iter().any(|model| model.has_name(name)) {
            continue;
        }
        let patterns = drafts.iter().filter(|model| model.draft.is_wildcard).filter_map(|model| {
            let pattern = NamePattern::of(model.id.as_deref()?).filter(|pattern| pattern.has_match(name))?;
            Some((pattern, model))
        });
        let Some((pattern, wildcard)) = patterns.max_by_key(|(pattern, _)| pattern.fixed_length()) else { continue };
        let pool = Some(PoolPlace::default());
        let mut draft = ModelDraft { is_wildcard: false, pool, aliases: Vec::new(), ..wildcard.draft.clone() };
        draft.kind = draft.kind.or_else(|| kind_by_name(name));
        for remote in &mut draft.remotes {
            let own = pattern.fill(remote.model.as_deref(), name);
            remote.model = Some(own).filter(|own| own != name);
        }
        let location = wildcard.location.clone();
        drafts.push(LocatedDraft { location, is_from_environment: false, id: Some(name.to_owned()), draft });
    }
}

/// Returns the kind that the name of a remote model suggests; such a model has no GGUF file to read it from.
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

/// Adds the aliases of `model_group_alias`.
fn add_group_aliases(drafts: &mut [LocatedDraft], aliases: &[GroupAlias], notes: &mut FileNotes) {
    for GroupAlias { location, alias, model, is_hidden } in aliases {
        if let Err(fault) = check_name(alias) {
            notes.problem(location, fault, None);
        }
        match drafts.iter_mut().find(|draft| draft.has_name(model)) {
            Some(draft) if draft.has_name(alias) => {}
            Some(draft) if *is_hidden => draft.draft.hidden_aliases.push(alias.clone()),
            Some(draft) => draft.draft.aliases.push(alias.clone()),
            None if notes.is_left_out(model) => notes.warnings.push(format!("{location}: {model:?} is left out")),
            None => notes.problem(location, format!("there is no model {model:?}"), None),
        }
    }
}

/// Records problems with names that clash, models without a worker, and counts above their bounds.
fn check_names(drafts: &mut [LocatedDraft], notes: &mut FileNotes) {
    if drafts.len() > MOST_MODELS {
        notes.problem("models", format!("there are {}, but at most {MOST_MODELS} are allowed", drafts.len()), None);
    }
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    // All ids are taken before any alias, so that a clash is reported at the alias.
    for model in drafts.iter() {
        let Some(id) = model.name() else { continue };
        if let Some(other) = taken.insert(id.clone(), model.location.clone()) {
            let hint = Some("give one of them another id under models:".to_owned());
            model.problem(notes, format!("the id {id:?} is also the id of {other}"), hint);
        }
    }
    for model in drafts.iter_mut() {
        let (id, mut seen) = (model.name(), BTreeSet::new());
        model.draft.aliases.retain(|alias| Some(alias) != id.as_ref() && seen.insert(alias.clone()));
        if model.draft.start.is_none() && model.draft.remotes.is_empty() && !model.draft.has_problem {
            let hint = "set file: NAME.gguf or command: [...], or add an entry with an api_base to model_list";
            model.problem(notes, "no worker serves this model".to_owned(), Some(hint.to_owned()));
        }
        if model.aliases().count() > MOST_ALIASES {
            model.problem(notes, format!("a model has {MOST_ALIASES} aliases at most"), None);
        }
        for alias in model.aliases() {
            if let Err(fault) = check_name(alias) {
                model.problem(notes, format!("alias {alias:?}: {fault}"), None);
            }
            if let Some(other) = taken.insert(alias.clone(), model.location.clone()) {
                model.problem(notes, format!("the alias {alias:?} is also a name of {other}"), None);
            }
        }
    }
    for model in drafts.iter() {
        check_adapter_names(model, &mut taken, notes);
    }
}

/// Returns the fallbacks by name; every name must be that of a model or a tier. With a shelf, whose models are not known
/// yet, `preflight` warns about names that nothing has.
fn fallbacks(
    drafts: &[LocatedDraft],
    configured: Vec<(String, String, Vec<String>)>,
    has_shelf: bool,
    notes: &mut FileNotes,
) -> BTreeMap<String, Vec<String>> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for model in drafts {
        known.extend(model.name());
        known.extend(model.draft.tier.clone());
        known.extend(model.aliases().cloned());
        known.extend(adapter_names(model));
    }
    let mut fallbacks = BTreeMap::new();
    for (location, name, mut names) in configured {
        let left_out: Vec<String> =
            names.extract_if(.., |name| !known.contains(name) && notes.is_left_out(name)).collect();
        notes.warnings.extend(left_out.iter().map(|name| format!("{location}: {name:?} is left out")));
        if name != EVERY_MODEL && !known.contains(&name) && notes.is_left_out(&name) {
            notes.warnings.push(format!("{location}: {name:?} is left out"));
            continue;
        }
        if let Some(pattern) = names.iter().find(|name| NamePattern::of(name).is_some()) {
            notes.problem(&location, format!("{pattern:?} is a pattern"), Some("name a model".to_owned()));
            continue;
        }
        let is_known = |name: &&String| has_shelf || known.contains(*name) || *name == EVERY_MODEL;
        for unknown in names.iter().chain([&name]).filter(|name| !is_known(name)) {
            // Fallbacks may name the five standard tiers before a model has one of them.
            if TIERS.iter().any(|(_, tier)| tier == unknown) {
                notes.warnings.push(format!("{location}: no model has the tier {unknown}"));
                continue;
            }
            let hint = did_you_mean(unknown, known.iter().map(String::as_str));
            notes.problem(&location, format!("there is no model and no tier {unknown:?}"), hint);
        }
        if names.contains(&name) {
            notes.problem(&location, "names itself", None);
        }
        if is_adapter(drafts, &name) {
            let hint = Some("set them for the model".to_owned());
            notes.problem(&location, format!("{name:?} is an adapter, which has the fallbacks of its model"), hint);
        }
        if let Some(adapter) = names.iter().find(|other| name == EVERY_MODEL && is_adapter(drafts, other)) {
            let hint = Some("name its model".to_owned());
            notes.problem(&location, format!("{adapter:?} is an adapter, and serves no unknown names"), hint);
        }
        if fallbacks.insert(name.clone(), names).is_some() {
            notes.problem(&location, "is set in another place too", Some("keep one of them".to_owned()));
        }
    }
    fallbacks
}

/// Returns the default models; each name must be the id or an alias of a model, as with [`fallbacks`].
fn default_models(
    drafts: &[LocatedDraft],
    configured: Vec<(ModelKind, String)>,
    has_shelf: bool,
    notes: &mut FileNotes,
) -> Vec<(ModelKind, String)> {
    for (kind, name) in &configured {
        let location = format!("default_models.{kind}");
        if is_adapter(drafts, name) {
            notes.problem(&location, format!("{name:?} is an adapter"), Some("name its model".to_owned()));
            continue;
        }
        match drafts.iter().find(|model| model.has_name(name)) {
            // The kind of a model file is known only when it is read; `preflight` checks it then.
            Some(model) => {
                if let Some(is) = model.draft.kind.filter(|is| is != kind) {
                    notes.problem(&location, format!("the model {name:?} is for {is}"), None);
                }
            }
            None if has_shelf => {}
            None => {
                let known: Vec<String> = drafts.iter().filter_map(LocatedDraft::name).collect();
                let hint = did_you_mean(name, known.iter().map(String::as_str));
                notes.problem(&location, format!("there is no model {name:?}"), hint);
            }
        }
    }
    configured
}

/// Records a problem if the total context is more than llama-server's 32-bit counter takes.
fn check_context(located: &LocatedDraft, model: &ModelSettings, settings: &Settings, notes: &mut FileNotes) {
    let Some(local) = model.local.as_ref().filter(|local| !matches!(local.start, Start::Command { .. })) else {
        return;
    };
    let (engine, global) = (&local.engine, &settings.engine);
    // The same total from the settings of the whole service is reported once, in `resolve.rs`.
    let is_own = (engine.ctx, engine.parallel) != (global.ctx, global.parallel);
    if is_own && engine.total_context().is_none() {
        let fault = format!(
            "{} tokens for each of {} slots are more than llama-server can count (2147483647)",
            engine.ctx.0, engine.parallel
        );
        located.problem(notes, format!("ctx: {fault}"), Some("it is the context of one slot".to_owned()));
    }
}

#[cfg(test)]
mod tests;
