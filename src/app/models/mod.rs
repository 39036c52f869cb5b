//! The models that are served: their workers, and what is said about them.
//!
//! - `description.rs`: what lists of models say about a model
//! - `form.rs`: what tells the configuration of a model from others
//! - `known_prompts.rs`: what must stand before the inputs of well-known embedding models
//! - `reconciler.rs`: the models that are served now, and what a reload changes about them

mod description;
mod form;
mod known_prompts;
pub(super) mod reconciler;
