//! Whether a model fits into the memory of this machine, from its header alone: for the command line and over HTTP.
//!
//! Owns where the header comes from, and what is said. The numbers are those of `models/estimate/`.
//!
//! - `answer.rs`: what is said of a model: as text, and for serde
//! - `known_model.rs`: what is known of a model without its weights, on the disk or on the hub
//! - `machine.rs`: the memory and the settings that models are compared with

mod answer;
mod known_model;
mod machine;

pub use answer::{FitAnswer, FitVerdict};
pub use known_model::{KnownModel, ModelSource, NoFit};
pub use machine::FitMachine;
