//! What a slot costs: an hour of all slots of a worker costs the price of an hour.

use std::time::Duration;

use crate::amount::Amount;

const NANOSECONDS_PER_HOUR: u128 = 3_600_000_000_000;

/// Returns what it costs, in billionths of a unit, to use one of `slots` slots for this time, rounded.
pub fn slot_cost(price_per_hour: Amount, time: Duration, slots: usize) -> u64 {
    let whole = u128::from(price_per_hour.nanos()).saturating_mul(time.as_nanos());
    let part = NANOSECONDS_PER_HOUR.saturating_mul(slots.max(1) as u128);
    u64::try_from(whole.saturating_add(part / 2) / part).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_slots_of_an_hour_cost_the_price_of_an_hour() {
        let price = Amount::from_nanos(2_000_000_000);
        let hour = Duration::from_secs(3600);
        assert_eq!(slot_cost(price, hour, 1), 2_000_000_000);
        assert_eq!(slot_cost(price, hour, 4) * 4, 2_000_000_000);
        assert_eq!(slot_cost(price, Duration::from_millis(9), 1), 5_000, "a short request is not free");
        assert_eq!(slot_cost(Amount::default(), hour, 1), 0);
        assert_eq!(slot_cost(Amount::from_nanos(u64::MAX), Duration::MAX, 0), u64::MAX);
    }
}
