//! Where models lie on this machine.

use std::path::PathBuf;

/// The folders in which models are looked up by name, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelPlaces {
    /// `MODELS_DIR`
    pub models_dir: PathBuf,
    /// `HF_HUB_CACHE`
    pub hub_cache: PathBuf,
}
