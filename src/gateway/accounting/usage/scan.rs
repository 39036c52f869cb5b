//! Reads the token counts out of an answer's JSON while its bytes go by.
//!
//! The JSON may have its fields in any order and be of any size: nothing is kept of it. A count is taken only from its own
//! place, so words of the model, which are strings or lie deeper, are never taken for one. What is no JSON has no counts.
//! How the JSON is scanned is up to `walk.rs`; which fields count, and for what, is up to `counts.rs`.

use super::counts::{LONGEST_NAME, UsageFields, UsageName, UsageObject, UsageReport};
use crate::gateway::scan::json_scanner::{JsonScanner, JsonStep};

/// Reads the counts of one answer, or of an array of answers.
#[derive(Debug)]
pub(super) struct CountReader {
    scanner: JsonScanner<LONGEST_NAME>,
    /// What the objects are that the scanner has entered, outermost first.
    places: [UsageObject; 3],
    name: UsageName,
    /// The count that is being read.
    number: Option<u64>,
    fields: UsageFields,
    /// Whether `usage` may stand in a `message`.
    opens: bool,
    /// The sum of the answers that are closed.
    closed: UsageReport,
}

impl CountReader {
    pub(super) fn new() -> Self {
        Self {
            scanner: JsonScanner::of_object_or_array(),
            places: [UsageObject::Response; 3],
            name: UsageName::Unknown,
            number: None,
            fields: UsageFields::default(),
            opens: false,
            closed: UsageReport::default(),
        }
    }

    /// Returns what has been read so far, of an answer that is still open too.
    pub(super) fn report(&self) -> UsageReport {
        let mut report = self.closed;
        report.add(self.current());
        report
    }

    /// Reads the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (used, step) = self.scanner.step(bytes);
            let (read, rest) = bytes.split_at(used);
            bytes = rest;
            match step {
                Some(JsonStep::Name) => self.name = self.scanner.raw_name().map_or(UsageName::Unknown, UsageName::of),
                Some(JsonStep::Begins(first)) => self.begin_value(first),
                Some(JsonStep::Ends) => {
                    self.add_digits(read);
                    if let (Some(count), UsageName::Count(field)) = (self.number.take(), self.name) {
                        self.fields.set(field, count);
                    }
                }
                Some(JsonStep::Closes) => {
                    self.closed.add(self.current());
                    self.fields = UsageFields::default();
                    self.opens = false;
                }
                None => self.add_digits(read),
                Some(JsonStep::Opens | JsonStep::Lost) => {}
            }
        }
    }

    fn begin_value(&mut self, first: u8) {
        let level = self.scanner.level();
        let Some(place) = level.checked_sub(1).and_then(|at| self.places.get(at)) else { return };
        match (first, self.name, place) {
            (b'0'..=b'9', UsageName::Count(field), place) if field.object() == *place => {
                self.number = Some(u64::from(first - b'0'));
            }
            (b'{', UsageName::Object(inner), UsageObject::Response)
            | (b'{', UsageName::Object(inner @ UsageObject::Usage), UsageObject::Wrapper) => {
                self.scanner.enter();
                self.places[level] = inner;
                if inner == UsageObject::Wrapper {
                    self.opens = self.scanner.raw_name() == Some(b"message");
                }
            }
            _ => {}
        }
    }

    /// Reads on in a number. A fraction or an exponent makes it no count.
    fn add_digits(&mut self, digits: &[u8]) {
        let Some(number) = self.number else { return };
        self.number = digits.iter().try_fold(number, |number, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            Some(number.saturating_mul(10).saturating_add(digit))
        });
    }

    fn current(&self) -> UsageReport {
        self.fields.report(self.opens)
    }
}
