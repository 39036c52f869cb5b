//! Models that the hub has, for people who choose one: found by words, and the quantisations of a repository.
//!
//! Owns what is asked and what is read of the answers. Nothing is asked again, because a person waits for it, and nothing is
//! written to the disk.
//!
//! - `answers.rs`: reads what the hub answers: pure
//! - `ask.rs`: asks the hub, within a time
//! - `details.rs`: the models of a repository, with their sizes

mod answers;
mod ask;
mod details;

pub use answers::{FoundRepository, SearchResult};
pub use ask::HubQuery;
pub use details::{FoundModel, RepositoryDetails};
