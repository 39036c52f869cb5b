//! keyctl's command line: its subcommands, their options, and the checks of their values.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use llamagate::amount::Amount;
use llamagate::keys::expiry::{self, Expiry};
use llamagate::keys::parse;
use llamagate::keys::{Priority, Scope, is_model_name};

/// Manage the API keys of a llamagate gateway.
#[derive(Parser)]
#[command(name = "keyctl", version, max_term_width = 100, arg_required_else_help = true)]
pub(super) struct KeyctlArguments {
    /// The key file [default: AUTH_KEYS_FILE, else api_keys.txt in the data directory, as for the gateway]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// A file of variables in dotenv form that may set AUTH_KEYS_FILE or DATA_DIR [default: ENV_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) env_file: Option<PathBuf>,
    /// Say nothing but the result and errors
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Subcommand)]
pub(super) enum Verb {
    #[command(flatten)]
    OnKeyFile(KeyFileVerb),
    /// Show what a key has used, by day and model
    Usage {
        /// The key's name
        #[arg(long, value_parser = key_id)]
        name: String,
    },
}

/// A subcommand that reads or edits the key file.
#[derive(Subcommand)]
pub(super) enum KeyFileVerb {
    /// Make a key and print its secret, once
    Generate(Generate),
    /// Show all keys, without their secrets
    List {
        /// Print a JSON array instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Remove a key and all of its secrets
    Remove {
        /// The key's name
        #[arg(long, value_parser = key_id)]
        name: String,
    },
    /// Give a key a new secret with the same limits and print it, once
    Rotate(Rotate),
    /// Change the limits of a key, or when it ends
    Change(ChangedMembers),
    /// Read a secret from standard input and tell which key it is and whether it is valid
    Verify,
    /// Drop the lines of expired keys
    Prune,
}

#[derive(Args)]
pub(super) struct Generate {
    /// The key's name: 1-64 of A-Z a-z 0-9 _ -
    #[arg(long, value_parser = key_id)]
    pub(super) name: String,
    /// Requests per minute [default: the gateway's MAX_REQUESTS_PER_MINUTE]
    #[arg(long, value_name = "N")]
    pub(super) rate_limit: Option<NonZeroU32>,
    /// When it ends: a date (2027-01-01), a time from now (30d, 12h, 45m) or never
    #[arg(long, value_name = "WHEN", default_value = "never")]
    pub(super) expires: Expiry,
    /// What it may do, a comma list of inference, admin, metrics
    #[arg(long, value_name = "SCOPES", value_delimiter = ',', default_value = "inference")]
    pub(super) scope: Vec<Scope>,
    /// The only models it may use, a comma list [default: all]
    #[arg(long, value_name = "MODELS", value_delimiter = ',', value_parser = model_name)]
    pub(super) models: Option<Vec<String>>,
    /// Prompt and completion tokens per minute [default: unlimited]
    #[arg(long, value_name = "N")]
    pub(super) tokens_per_minute: Option<NonZeroU64>,
    /// Requests in flight at once [default: unlimited]
    #[arg(long, value_name = "N")]
    pub(super) max_concurrent: Option<NonZeroUsize>,
    /// Requests per day, in UTC [default: unlimited]
    #[arg(long, value_name = "N")]
    pub(super) requests_per_day: Option<NonZeroU64>,
    /// Prompt and completion tokens per day, in UTC [default: unlimited]
    #[arg(long, value_name = "N")]
    pub(super) tokens_per_day: Option<NonZeroU64>,
    /// Prompt and completion tokens per month, in UTC [default: unlimited]
    #[arg(long, value_name = "N")]
    pub(super) tokens_per_month: Option<NonZeroU64>,
    /// Cost per month by PRICE_PER_HOUR, such as 20 or 12.50 [default: unlimited]
    #[arg(long, value_name = "AMOUNT", value_parser = amount)]
    pub(super) cost_per_month: Option<Amount>,
    /// Tokens per day for each person behind the key [default: unlimited]
    #[arg(long, value_name = "N")]
    pub(super) person_tokens_per_day: Option<NonZeroU64>,
    /// Whose waiting requests get more turns: high, normal or low
    #[arg(long, value_name = "PRIORITY", default_value = "normal")]
    pub(super) priority: Priority,
    /// Let requests name the person behind them, by headers or in the body
    #[arg(long)]
    pub(super) trust_user_headers: bool,
    /// Store the secret itself and not only its hash
    #[arg(long)]
    pub(super) plain: bool,
}

#[derive(Args)]
pub(super) struct Rotate {
    /// The key's name
    #[arg(long, value_parser = key_id)]
    pub(super) name: String,
    /// How long the old secret stays valid: 24h, 45m, 7d
    #[arg(long, value_name = "SPAN", default_value = "0", value_parser = expiry::parse_span)]
    pub(super) overlap: Duration,
    /// When the new secret ends: a date, a time from now or never [default: as the old one]
    #[arg(long, value_name = "WHEN")]
    pub(super) expires: Option<Expiry>,
    /// Store the new secret itself and not only its hash
    #[arg(long)]
    pub(super) plain: bool,
}

#[derive(Args)]
pub(super) struct ChangedMembers {
    /// The key's name
    #[arg(long, value_parser = key_id)]
    pub(super) name: String,
    /// A member and its value, as in the key file: rate_limit=60, expires=30d, models=a,b (may be repeated)
    #[arg(long, value_name = "MEMBER=VALUE")]
    pub(super) set: Vec<String>,
    /// A member that goes back to its default (may be repeated)
    #[arg(long, value_name = "MEMBER", required_unless_present = "set")]
    pub(super) unset: Vec<String>,
}

fn key_id(text: &str) -> Result<String, &'static str> {
    if parse::is_key_id(text) { Ok(text.into()) } else { Err("a name is 1 to 64 of A-Z a-z 0-9 _ -") }
}

fn amount(text: &str) -> Result<Amount, String> {
    match text.parse() {
        Ok(amount) if amount > Amount::default() => Ok(amount),
        Ok(_) => Err("the amount is 0; leave the option out for no limit".into()),
        Err(error) => Err(format!("{error}")),
    }
}

fn model_name(text: &str) -> Result<String, &'static str> {
    let rule = "a model name is not empty and holds no spaces, commas or *";
    if is_model_name(text) { Ok(text.into()) } else { Err(rule) }
}
