//! llamagate: a gateway that launches, watches and restarts llama.cpp's `llama-server` and stands in front of it.

pub mod keys;
pub mod models;
pub mod platform;
pub mod refusal;
pub mod settings;
pub mod telemetry;
pub mod worker;
