//! Which projector goes with a model: its own, unless another model beside it could use the same one.

use std::path::{Path, PathBuf};

use super::draft::RemovalDraft;
use crate::models::check::content_other_than_model;
use crate::models::companions::choice::{has_projector_name, projector_of};
use crate::models::companions::names::{has_companion_name, has_draft_name};
use crate::models::companions::projector::{find_projector, may_belong};
use crate::models::folder_walk::walk;
use crate::models::gguf;
use crate::models::split::parts_of;

/// The files among which a model's projector is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProjectorScope<'a> {
    /// The folder of the model alone.
    Folder(&'a Path),
    /// A snapshot of a repository, with all its folders.
    Snapshot(&'a Path),
}

/// Returns the projector that goes with the model at `model`, if one does. One that stays is noted in the draft.
pub(super) fn projector_to_remove(
    model: &Path,
    scope: ProjectorScope<'_>,
    draft: &mut RemovalDraft,
) -> Option<PathBuf> {
    // Of a projector that is named itself nothing else goes.
    if has_projector_name(model) {
        return None;
    }
    let found = find_projector(model, &gguf::read(model).ok()?).found.map(|found| found.path);
    let projector = found.or_else(|| named_projector(model, scope))?;
    match other_user(&projector, model, scope) {
        None => Some(projector),
        Some(other) => {
            draft.keep(projector, format!("may be used by {}", other.display()));
            None
        }
    }
}

/// Returns the projector that a download has brought with the model.
fn named_projector(model: &Path, scope: ProjectorScope<'_>) -> Option<PathBuf> {
    let ProjectorScope::Snapshot(snapshot) = scope else { return None };
    let files = walk(snapshot).ok()?.models;
    projector_of(model.strip_prefix(snapshot).ok()?, &files).map(|found| snapshot.join(found))
}

/// Returns the name of another model that could use the projector.
fn other_user(projector: &Path, model: &Path, scope: ProjectorScope<'_>) -> Option<PathBuf> {
    let (ProjectorScope::Folder(folder) | ProjectorScope::Snapshot(folder)) = scope;
    let own = parts_of(model);
    let is_beside = |path: &PathBuf| match scope {
        ProjectorScope::Folder(_) => path.parent() == Some(Path::new("")),
        ProjectorScope::Snapshot(_) => true,
    };
    // What cannot be read could be anything.
    let Ok(below) = walk(folder) else { return Some(folder.to_owned()) };
    below.models.into_iter().filter(is_beside).find(|path| {
        let path = folder.join(path);
        !own.contains(&path) && path != projector && is_model(&path) && may_belong(projector, &path)
    })
}

/// Returns whether the file may be a model that can have a projector.
fn is_model(path: &Path) -> bool {
    let is_companion = has_companion_name(path) || has_draft_name(path);
    !is_companion
        && gguf::peek(path)
            .ok()
            .is_none_or(|found| content_other_than_model(&found.architecture, found.general_type.as_deref()).is_none())
}
