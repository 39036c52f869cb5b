//! The models that other programs have on this machine, and their names: read, and never written or deleted.
//!
//! A name that begins with `ollama:` or `lmstudio:` means such a model wherever a model may be named, and is never
//! downloaded.
//!
//! - `bounds.rs`: bounds on what is read of a store
//! - `error.rs`: why a name means no model of a store
//! - `lm_studio.rs`: finds models in LM Studio's folder
//! - `manifest.rs`: reads one manifest of Ollama
//! - `name.rs`: names with the prefix of a store
//! - `ollama.rs`: the models of Ollama's store
//! - `ollama_name.rs`: names of models as Ollama writes them

pub mod bounds;
pub(super) mod error;
pub(super) mod lm_studio;
pub mod manifest;
pub(super) mod name;
pub mod ollama;
pub mod ollama_name;

#[cfg(test)]
pub(super) mod sample;
#[cfg(test)]
mod tests;
