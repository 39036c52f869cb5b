//! What the application does for requests that no worker serves.
//!
//! - `model_removal.rs`: removes models from the disk, but for those in use
//! - `operator_api.rs`: connects the operator's routes with the parts that they report on
//! - `served_files.rs`: finds the file of a served model

pub(super) mod model_removal;
pub(super) mod operator_api;
pub(super) mod served_files;
