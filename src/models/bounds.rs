//! Bounds on the models of a folder.

/// Most models that are served from one folder.
pub const MOST_SHELF_MODELS: usize = 1000;

/// Longest id of a model that is named after its file, in bytes.
pub const SHELF_ID_LENGTH: usize = 256;
