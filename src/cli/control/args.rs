//! The arguments of `llamagate stop` and `llamagate status`.

use clap::Args;

use crate::cli::inputs::PlaceFlags;

#[derive(Args)]
#[command(after_help = "Example:
  llamagate stop          waits for the requests in flight, for DRAIN_TIMEOUT at most
  llamagate stop --now    cuts them")]
pub(in crate::cli) struct StopArgs {
    /// Cut the requests in flight
    #[arg(long)]
    pub(super) now: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(in crate::cli) flags: PlaceFlags,
}

#[derive(Args)]
#[command(after_help = "Example:
  llamagate status        exits with 0 if a service runs, and with 3 if none does")]
pub(in crate::cli) struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(in crate::cli) flags: PlaceFlags,
}
