//! The arguments of the commands about a service in the background.

use clap::Args;

use super::serve::ServeArgs;
use crate::cli::inputs::PlaceFlags;

#[derive(Args)]
#[command(after_help = "Examples:
  llamagate start qwen3-4b.gguf
  llamagate restart             with the arguments it was started with")]
pub(in crate::cli) struct StartArgs {
    #[command(flatten)]
    pub(in crate::cli) serve: ServeArgs,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:
  llamagate stop          waits for the requests in flight, for DRAIN_TIMEOUT at most
  llamagate stop --now    cuts them")]
pub(in crate::cli) struct StopArgs {
    /// Cut the requests in flight
    #[arg(long)]
    pub(in crate::cli) now: bool,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) flags: PlaceFlags,
}

#[derive(Args)]
#[command(after_help = "Example:
  llamagate status        exits with 0 if a service runs, and with 3 if none does")]
pub(in crate::cli) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) flags: PlaceFlags,
}
