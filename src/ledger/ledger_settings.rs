//! What the ledger is told when it starts.

use std::path::PathBuf;
use std::time::Duration;

use crate::amount::Amount;

/// Where the ledger is kept, how long, and what an hour of the machine costs.
#[derive(Debug, Clone)]
pub struct LedgerSettings {
    /// `USAGE_DB`
    pub path: PathBuf,
    /// `USAGE_KEEP`
    pub keep: Duration,
    /// `PRICE_PER_HOUR`
    pub price_per_hour: Amount,
}
