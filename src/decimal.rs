//! Decimal digits of numbers, for what is written for every request: log lines and headers.

/// The most digits of a number.
pub const DIGITS: usize = 20;

/// Returns the digits of a number, which are written into `memory`: at least `least` of them, the first ones zeros.
pub fn digits(mut number: u64, least: usize, memory: &mut [u8; DIGITS]) -> &[u8] {
    *memory = [b'0'; DIGITS];
    let mut first = DIGITS;
    while number > 0 {
        first -= 1;
        memory[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    &memory[first.min(DIGITS.saturating_sub(least))..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_digits_are_those_that_rust_writes(number in any::<u64>(), least in 1..=DIGITS) {
            let text = |number, least| String::from_utf8(digits(number, least, &mut [0; DIGITS]).to_vec()).unwrap();
            prop_assert_eq!(text(number, least), format!("{number:0least$}"));
            prop_assert_eq!((text(0, 1), text(u64::MAX, 1)), ("0".to_owned(), u64::MAX.to_string()));
        }
    }
}
