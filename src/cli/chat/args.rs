//! The arguments of `llamagate chat`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::client::ClientArgs;

/// An example for each use.
const EXAMPLES: &str = "Examples:
  llamagate chat                              a conversation with the default model; /help tells the commands
  llamagate chat qwen3-4b \"Why is the sky blue?\"
  git diff | llamagate chat qwen3-4b \"Write a commit message for this:\"
  llamagate chat gemma-3 --image cat.jpg \"What is this?\"";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct ChatArgs {
    /// Name of the model as the service knows it [default: the one that the service chooses]
    pub(super) model: Option<String>,
    /// The only question; standard input follows it, if that is no terminal
    pub(super) question: Option<String>,
    /// System prompt
    #[arg(long, value_name = "TEXT")]
    pub(super) system: Option<String>,
    /// Picture for the (first) question: PNG, JPEG, GIF or WebP; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(super) image: Vec<PathBuf>,
    /// Most tokens of an answer
    #[arg(long, value_name = "N")]
    pub(super) max_tokens: Option<std::num::NonZeroU32>,
    /// Temperature
    #[arg(long, value_name = "T")]
    pub(super) temperature: Option<f64>,
    #[command(flatten)]
    pub(in crate::cli) client: ClientArgs,
}
