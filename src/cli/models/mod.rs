//! `llamagate list`, `models`, `pull`, `rm` and `fit`: the models on this machine, and those that may come onto it.
//!
//! - `download_progress.rs`: shows how far a download is
//! - `fit.rs`: `llamagate fit`
//! - `list.rs`: `llamagate list`
//! - `list_models.rs`: `llamagate models`
//! - `pull.rs`: `llamagate pull`
//! - `remove.rs`: `llamagate rm`

mod download_progress;
mod fit;
mod list;
mod list_models;
mod pull;
mod remove;

pub(super) use fit::run as run_fit;
pub(super) use list::run as run_list;
pub(super) use list_models::run as run_list_models;
pub(super) use pull::run as run_pull;
pub(super) use remove::run as run_remove;
