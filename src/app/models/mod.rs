//! The models that are served: their workers, and what is said about them.
//!
//! - `description.rs`: what lists of models say about a model
//! - `form.rs`: what tells the configuration of a model from others
//! - `known_prompts.rs`: what must stand before the inputs of well-known embedding models
//! - `reconciler.rs`: the models that are served now, and what a reload changes about them
//! - `routing_policy.rs`: how the requests of a model are routed
//! - `worker_plan.rs`: what each worker of a model is started with

mod description;
mod form;
mod known_prompts;
pub(super) mod reconciler;
mod routing_policy;
mod worker_plan;
