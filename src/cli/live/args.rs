//! The arguments of the commands that look at a service.

use clap::Args;

use crate::cli::client::ClientArgs;

#[derive(Args)]
#[command(after_help = "Example: llamagate ps --url http://gpu-box:8000")]
pub(in crate::cli) struct PsArgs {
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args)]
#[command(after_help = "Example: llamagate top")]
pub(in crate::cli) struct TopArgs {
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}

#[derive(Args)]
#[command(after_help = "Example: llamagate logs -f qwen3-4b")]
pub(in crate::cli) struct LogsArgs {
    /// The model whose log is shown, with @1 for its second worker [default: the only model]
    pub(in crate::cli) model: Option<String>,
    /// Show the access log
    #[arg(long, conflicts_with = "model")]
    pub(in crate::cli) access: bool,
    /// Go on with what is written from now on
    #[arg(long, short)]
    pub(in crate::cli) follow: bool,
    /// How many of the last lines are shown
    #[arg(long, short = 'n', value_name = "N", default_value = "200")]
    pub(in crate::cli) lines: u32,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}
