//! The arguments of the commands about what was used and what administrators have done.

use clap::Args;

use crate::cli::client::RemoteArgs;
use crate::cli::inputs::Flags;

#[derive(Args)]
#[command(after_help = "Examples:
  llamagate usage --by month,person --from 2027-01-01
  llamagate usage --url http://gpu-box:8000 --json")]
pub(in crate::cli) struct UsageArgs {
    /// First day (2027-01-31) or time (2027-01-31T12:00:00Z), in UTC; an hour counts by its beginning
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) from: Option<String>,
    /// The day or time before which usage ends
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) to: Option<String>,
    /// Comma list of key, person, model, and one of hour, day and month [default: day,key,person,model]
    #[arg(long, value_name = "COLUMNS")]
    pub(in crate::cli) by: Option<String>,
    /// Only the key of this name
    #[arg(long, value_name = "KEY_ID")]
    pub(in crate::cli) name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) remote: RemoteArgs,
    #[command(flatten)]
    pub(in crate::cli) flags: Flags,
}

#[derive(Args)]
#[command(after_help = "Example:
  llamagate audit --limit 20")]
pub(in crate::cli) struct AuditArgs {
    /// Most acts that are shown
    #[arg(long, value_name = "N", default_value = "100")]
    pub(in crate::cli) limit: std::num::NonZeroU32,
    /// Print JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) remote: RemoteArgs,
    #[command(flatten)]
    pub(in crate::cli) flags: Flags,
}
