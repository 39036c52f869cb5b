//! Amounts of money, in whatever currency the operator counts: billionths, so that sums are exact.

use std::fmt;
use std::str::FromStr;

/// Billionths of the unit.
const SCALE: u64 = 1_000_000_000;

/// Digits after the point that an amount may have.
const DECIMALS: usize = 9;

/// An amount of money that is not negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(u64);

impl Amount {
    /// Returns this many billionths.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the amount as a number, rounded.
    pub fn as_units(self) -> f64 {
        self.0 as f64 / SCALE as f64
    }

    /// Returns the amount in billionths.
    pub const fn nanos(self) -> u64 {
        self.0
    }
}

/// The error for a text that is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an amount is a number such as 12 or 0.44, with at most {DECIMALS} digits after the point")]
pub struct NotAnAmount;

impl FromStr for Amount {
    type Err = NotAnAmount;

    fn from_str(text: &str) -> Result<Self, NotAnAmount> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        if !is_number(whole) || !is_number(decimals) || decimals.len() > DECIMALS {
            return Err(NotAnAmount);
        }
        let whole: u64 = whole.parse().map_err(|_| NotAnAmount)?;
        let decimals: u64 = format!("{decimals:0<DECIMALS$}").parse().map_err(|_| NotAnAmount)?;
        let nanos = whole.checked_mul(SCALE).and_then(|nanos| nanos.checked_add(decimals));
        nanos.map(Self).ok_or(NotAnAmount)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / SCALE, self.0 % SCALE);
        if decimals == 0 {
            return write!(f, "{whole}");
        }
        let decimals = format!("{decimals:0DECIMALS$}");
        write!(f, "{whole}.{}", decimals.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_read_exactly_or_not_at_all() {
        for (text, nanos) in
            [("12", 12_000_000_000), ("0.44", 440_000_000), ("0.000000001", 1), ("1.50", 1_500_000_000), ("0", 0)]
        {
            assert_eq!(text.parse(), Ok(Amount::from_nanos(nanos)), "{text}");
        }
        for text in ["", ".5", "5.", "-1", "+1", "1e3", "0.0000000001", "1,5", "18446744074", "€5"] {
            assert_eq!(text.parse::<Amount>(), Err(NotAnAmount), "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_amount_is_written_as_it_is_read(nanos in any::<u64>()) {
            let amount = Amount::from_nanos(nanos);
            prop_assert_eq!(amount.to_string().parse(), Ok(amount));
        }
    }
}
