//! The arguments of `llamagate import`.

use std::path::PathBuf;

use clap::Args;

use crate::import::ImportFormat;

#[derive(Args)]
pub(in crate::cli) struct ImportArgs {
    /// llama-swap's config.yaml, or the file of --models-preset
    pub(in crate::cli) file: PathBuf,
    /// File to write; - is standard output, the default
    #[arg(long, short, value_name = "PATH")]
    pub(in crate::cli) output: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// What FILE is, if its content does not tell
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) from: Option<ImportFormat>,
}
