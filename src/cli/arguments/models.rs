//! The arguments of the commands about models on the disk.

use clap::Args;

use crate::cli::inputs::Flags;

#[derive(Args)]
pub(in crate::cli) struct ListModelsArgs {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) flags: Flags,
}

#[derive(Args)]
pub(in crate::cli) struct PullArgs {
    /// ORG/NAME[:QUANT], ORG/NAME/FILE.gguf, or https://HOST/FILE.gguf#sha256=HEX
    pub(in crate::cli) name: String,
    /// Print JSON, one object a line
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) flags: Flags,
}

#[derive(Args)]
pub(in crate::cli) struct RemoveArgs {
    /// Names of models as `serve` and `pull` take them, or paths
    #[arg(required = true)]
    pub(in crate::cli) names: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    pub(in crate::cli) yes: bool,
    /// Show what would go, and remove nothing
    #[arg(long)]
    pub(in crate::cli) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) flags: Flags,
}

#[derive(Args)]
pub(in crate::cli) struct FitArgs {
    /// Name of a model as `serve` and `pull` take it, or a path
    pub(in crate::cli) name: String,
    /// Memory to compare with, such as 24GiB, in place of what is free on this machine
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) memory: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) flags: Flags,
}
