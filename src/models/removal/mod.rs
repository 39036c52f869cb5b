//! Removes models from the disk: which files a model consists of, which of them may go, and in which order.
//!
//! Owns the plan and its execution. Which file a name means is decided in `models/resolve.rs`.
//!
//! - `contents.rs`: all files below a folder, within a bound
//! - `draft.rs`: what goes and what stays, while a plan is made
//! - `error.rs`: why a model is not removed
//! - `location.rs`: where a model lies, and what may be removed at all
//! - `open_files.rs`: which process uses a file
//! - `plan.rs`: the plan of a removal, for people and for serde
//! - `plain.rs`: models of the models folder
//! - `projectors.rs`: which projectors go with a model
//! - `repository.rs`: models of the hub's cache
//! - `steps.rs`: the steps of a removal, in an order that a kill cannot spoil
//! - `unfinished.rs`: downloads that did not come to their end

mod contents;
mod draft;
mod error;
mod location;
mod open_files;
mod plain;
mod plan;
mod projectors;
mod repository;
mod steps;
mod unfinished;

#[cfg(test)]
mod tests;

pub use draft::{KeptFile, RemovedFile, RemovedKind};
pub use error::RemovalError;
pub use plan::RemovalPlan;
