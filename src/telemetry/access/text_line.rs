//! Writes a line of text straight into the memory in which lines wait: names, words, numbers, times and addresses.
//!
//! Every request has a line, and format strings cost several times as much. What has a length that the compiler knows is
//! stored at once; a call that copies it would cost more than the copy. Which fields a line has is in `mod.rs`.

use std::cell::Cell;
use std::fmt::Display;
use std::io::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::Offset;

/// Bytes of a time as a line has it: `1970-01-01T00:00:00.000Z`.
const TIME_LENGTH: usize = 24;

/// Where its milliseconds begin.
const MILLIS_AT: usize = 20;

/// The memory that a line is appended to.
pub(super) struct TextLine<'a>(pub(super) &'a mut Vec<u8>);

/// A second, and the time at which it begins as a line has it.
#[derive(Clone, Copy)]
struct ShownSecond {
    /// Since 1970.
    second: i64,
    text: [u8; TIME_LENGTH],
}

thread_local! {
    /// The second of the last line of this thread: that of the next line too, nearly always.
    static LAST_SECOND: Cell<ShownSecond> =
        const { Cell::new(ShownSecond { second: 0, text: *b"1970-01-01T00:00:00.000Z" }) };
}

impl TextLine<'_> {
    /// Appends a name, and a value as `write` does.
    #[inline(always)] // to know the length of the name
    pub(super) fn field<T>(&mut self, name: &str, value: T, write: impl FnOnce(&mut Self, T)) {
        self.text(name);
        write(self, value);
    }

    /// Appends a field whose value is `-` if there is none.
    #[inline(always)] // to know the length of the name
    pub(super) fn optional<T>(&mut self, name: &str, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.text(name);
        match value {
            Some(value) => write(self, value),
            None => self.text("-"),
        }
    }

    /// Appends a text as it is.
    #[inline(always)] // to know the length of a name
    pub(super) fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Appends a client's text without whitespace and control characters, so that a client cannot forge fields or lines.
    pub(super) fn safe_word(&mut self, word: &str) {
        if word.bytes().all(|byte| byte.is_ascii_graphic()) {
            return self.text(word);
        }
        self.0.extend(word.chars().map(|c| if c.is_ascii_graphic() { c as u8 } else { b'_' }));
    }

    /// Appends a number. Most are short.
    pub(super) fn number(&mut self, number: u64) {
        let digit = |unit| digit(number, unit);
        match number {
            0..10 => self.0.extend_from_slice(&[digit(1)]),
            10..100 => self.0.extend_from_slice(&[digit(10), digit(1)]),
            100..1000 => self.0.extend_from_slice(&[digit(100), digit(10), digit(1)]),
            _ => self.text(itoa::Buffer::new().format(number)),
        }
    }

    /// Appends microseconds as milliseconds, with up to three decimals.
    pub(super) fn millis(&mut self, micros: u64) {
        self.number(micros / 1000);
        let digit = |unit| digit(micros, unit);
        match micros % 1000 {
            0 => {}
            part if part.is_multiple_of(100) => self.0.extend_from_slice(&[b'.', digit(100)]),
            part if part.is_multiple_of(10) => self.0.extend_from_slice(&[b'.', digit(100), digit(10)]),
            _ => self.0.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]),
        }
    }

    /// Appends a time as RFC 3339 writes it, in UTC and with milliseconds.
    pub(super) fn time(&mut self, time: Timestamp) {
        let (second, nanos) = (time.as_second(), time.subsec_nanosecond());
        // Before 1970, a time is that much before a second.
        let (second, nanos) = if nanos < 0 { (second - 1, nanos + 1_000_000_000) } else { (second, nanos) };
        let mut shown = LAST_SECOND.get();
        if shown.second != second {
            shown = ShownSecond { second, text: text_of_second(time) };
            LAST_SECOND.set(shown);
        }
        let millis = u64::from(nanos.unsigned_abs() / 1_000_000);
        for (at, unit) in [(MILLIS_AT, 100), (MILLIS_AT + 1, 10), (MILLIS_AT + 2, 1)] {
            shown.text[at] = digit(millis, unit);
        }
        self.0.extend_from_slice(&shown.text);
    }

    /// Appends an address.
    pub(super) fn address(&mut self, address: IpAddr) {
        let IpAddr::V4(address) = address else { return self.shown(address) };
        for (at, part) in address.octets().into_iter().enumerate() {
            if at > 0 {
                self.text(".");
            }
            self.number(part.into());
        }
    }

    fn shown(&mut self, value: impl Display) {
        // Writing to memory cannot fail.
        let _ = write!(self.0, "{value}");
    }
}

/// Returns the beginning of the second that this time is in, as RFC 3339 writes it with milliseconds.
fn text_of_second(time: Timestamp) -> [u8; TIME_LENGTH] {
    let utc = Offset::UTC.to_datetime(time);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut write = |last: usize, part: u16| {
        let mut left = part;
        for digit in text[..=last].iter_mut().rev().take_while(|byte| byte.is_ascii_digit()) {
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
        }
    };
    write(3, utc.year().unsigned_abs());
    for (last, part) in [(6, utc.month()), (9, utc.day()), (12, utc.hour()), (15, utc.minute()), (18, utc.second())] {
        write(last, part.unsigned_abs().into());
    }
    text
}

/// Returns the digit of a number for this power of ten.
fn digit(number: u64, unit: u64) -> u8 {
    b'0' + (number / unit % 10) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut TextLine<'_>)) -> String {
        let mut bytes = Vec::new();
        write(&mut TextLine(&mut bytes));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn times_are_in_milliseconds_with_as_many_decimals_as_they_need() {
        for (micros, text) in
            [(0, "0"), (7, "0.007"), (50, "0.05"), (1_500, "1.5"), (12_000, "12"), (12_345_678, "12345.678")]
        {
            assert_eq!(written(|line| line.millis(micros)), text);
        }
    }

    #[test]
    fn times_of_one_second_differ_in_their_milliseconds() {
        for (millis, text) in [
            (1_800_000_000_007, "2027-01-15T08:00:00.007Z"),
            (1_800_000_000_120, "2027-01-15T08:00:00.120Z"),
            (1_800_000_001_000, "2027-01-15T08:00:01.000Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (-1_000, "1969-12-31T23:59:59.000Z"),
            (0, "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(written(|line| line.time(Timestamp::from_millisecond(millis).unwrap())), text);
        }
    }

    proptest! {
        #[test]
        fn numbers_times_and_addresses_are_written_as_rust_and_jiff_write_them(
            number in any::<u64>(),
            seconds in 0..253_402_207_200_i64,
            nanos in 0..1_000_000_000_i32,
            address in any::<IpAddr>(),
        ) {
            let time = Timestamp::new(seconds, nanos).unwrap();
            prop_assert_eq!(written(|line| line.number(number)), number.to_string());
            prop_assert_eq!(written(|line| line.time(time)), format!("{time:.3}"));
            prop_assert_eq!(written(|line| line.address(address)), address.to_string());
        }

        #[test]
        fn a_word_of_a_client_is_one_word(word in ".{0,300}") {
            let text = written(|line| line.safe_word(&word));
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert_eq!(text.len(), word.chars().count());
        }
    }
}
