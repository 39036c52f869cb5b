//! `USAGE_DB`, `USAGE_KEEP` and `PRICE_PER_HOUR`.

use std::path::PathBuf;
use std::time::Duration;

use super::scalars::parse_duration;
use super::value::{Rejected, Value};
use crate::amount::Amount;

/// `USAGE_DB`: the file of the usage ledger, or `None` for `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageFile(pub Option<PathBuf>);

impl Value for UsageFile {
    fn parse(text: &str) -> Result<Self, Rejected> {
        match text {
            "" => Err(Rejected::new("a path of a file, or off")),
            _ if text.eq_ignore_ascii_case("off") => Ok(Self(None)),
            _ => PathBuf::parse(text).map(|path| Self(Some(path))),
        }
    }
}

/// `USAGE_KEEP`: how long usage is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptTime(pub Duration);

/// The longest time that usage is kept: 100 years.
const LONGEST_KEPT: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// The shortest: the budget of a month needs it.
const SHORTEST_KEPT: Duration = Duration::from_secs(32 * 24 * 3600);

impl Value for KeptTime {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let kept = parse_duration(text).filter(|kept| (SHORTEST_KEPT..=LONGEST_KEPT).contains(kept));
        kept.map(Self).ok_or_else(|| Rejected::new("a time from 32d to 36600d such as 400d"))
    }
}

/// `PRICE_PER_HOUR`: what an hour of a worker costs, in units of any currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HourlyPrice(pub Amount);

/// The highest price: a million. Costs are counted in billionths, and their sums have to fit.
const HIGHEST_PRICE: Amount = Amount::from_nanos(1_000_000_000_000_000);

impl Value for HourlyPrice {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let price = text.parse().ok().filter(|price| *price <= HIGHEST_PRICE);
        price.map(Self).ok_or_else(|| Rejected::new("a number from 0 to 1000000 such as 1.99"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_meant_otherwise_is_refused() {
        assert_eq!(UsageFile::parse("off"), Ok(UsageFile(None)));
        assert_eq!(UsageFile::parse("/d/off"), Ok(UsageFile(Some("/d/off".into()))));
        assert!(UsageFile::parse("").is_err());
        assert_eq!(KeptTime::parse("400d"), Ok(KeptTime(Duration::from_secs(400 * 86_400))));
        for text in ["0", "31d", "36601d", "forever", ""] {
            assert!(KeptTime::parse(text).is_err(), "{text}");
        }
        assert_eq!(HourlyPrice::parse("1.99"), Ok(HourlyPrice(Amount::from_nanos(1_990_000_000))));
        for text in ["-1", "1e3", "1,99", "inf", "NaN", "1000001", "1000000.1", ""] {
            assert!(HourlyPrice::parse(text).is_err(), "{text}");
        }
    }
}
