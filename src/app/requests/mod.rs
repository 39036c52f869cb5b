//! What the application does for requests that no worker serves.
//!
//! - `operator_api.rs`: connects the operator's routes with the parts that they report on

pub(super) mod operator_api;
