//! Extracts the token counts from the JSON of a response while its bytes are forwarded.
//!
//! The JSON may be of any size and have its members in any order: it is not buffered. A count is read only from the object
//! that belongs to it, so generated text, which is in strings or deeper objects, is never taken for a count. A body that is
//! not JSON has no counts. `json_scanner.rs` scans the JSON; `counts.rs` says which members count.

use super::counts::{LONGEST_NAME, UsageFields, UsageName, UsageObject, UsageReport};
use crate::gateway::scan::json_scanner::{JsonScanner, JsonStep, NextMember};

/// Reads the counts of one response, or of an array of responses.
#[derive(Debug)]
pub(super) struct CountReader {
    scanner: JsonScanner<LONGEST_NAME>,
    /// The kinds of the objects that the scanner has entered, outermost first.
    open_objects: [UsageObject; 4],
    /// The name of the member that is being read.
    name: UsageName,
    /// The digits of the current count as far as they have been read.
    number: Option<u64>,
    fields: UsageFields,
    /// Whether the current response has a `message`; see [`UsageReport::is_opening`].
    is_opening: bool,
    /// The sum of the responses of the array that have ended.
    closed: UsageReport,
}

impl CountReader {
    /// Creates a reader at the beginning of a response.
    pub(super) fn new() -> Self {
        Self {
            scanner: JsonScanner::of_object_or_array(),
            open_objects: [UsageObject::Response; 4],
            name: UsageName::Unknown,
            number: None,
            fields: UsageFields::default(),
            is_opening: false,
            closed: UsageReport::default(),
        }
    }

    /// Returns the counts read so far, with those of a response that has not ended.
    pub(super) fn report(&self) -> UsageReport {
        if !self.scanner.is_array() {
            return self.current();
        }
        let mut report = self.closed;
        report.add(self.current());
        report
    }

    /// Reads the next bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.scanner.member(bytes) {
                Some(NextMember::Whole(member)) => {
                    bytes = &bytes[member.used..];
                    self.name = UsageName::of(member.name);
                    if self.name != UsageName::Unknown {
                        self.begin_value(member.value[0]);
                        self.end_value(&member.value[1..]);
                    }
                    continue;
                }
                Some(NextMember::Begins { first, used }) => {
                    bytes = &bytes[used..];
                    self.name = self.name_read();
                    self.begin_value(first);
                    continue;
                }
                None => {}
            }
            let (used, step) = self.scanner.step(bytes);
            let (read, rest) = bytes.split_at(used);
            bytes = rest;
            match step {
                Some(JsonStep::Name) => self.name = self.name_read(),
                Some(JsonStep::Begins(first)) => self.begin_value(first),
                Some(JsonStep::Ends) => self.end_value(read),
                // Of a single response the counts stay where they are: to add them up takes as long as to read a few.
                Some(JsonStep::Closes) if self.scanner.is_array() => {
                    self.closed.add(self.current());
                    self.fields = UsageFields::default();
                    self.is_opening = false;
                }
                None => self.add_digits(read),
                // After `Lost` there are no more steps; the counts read so far stay.
                Some(JsonStep::Opens | JsonStep::Closes | JsonStep::Lost) => {}
            }
        }
    }

    fn name_read(&self) -> UsageName {
        self.scanner.name_bytes().map_or(UsageName::Unknown, |name| UsageName::of(&name))
    }

    /// Starts a count, or enters an object that may hold counts. The scanner skips every other value.
    fn begin_value(&mut self, first: u8) {
        let level = self.scanner.level();
        let Some(object) = level.checked_sub(1).and_then(|at| self.open_objects.get(at)) else { return };
        match (first, self.name, object) {
            (b'0'..=b'9', UsageName::Count(field), object) if field.object() == *object => {
                self.number = Some(u64::from(first - b'0'));
            }
            // The response itself has `usage`, `timings`, `response` and `message`; these two have `usage` only.
            (
                b'{',
                UsageName::Object(inner @ (UsageObject::Wrapper | UsageObject::Usage | UsageObject::Timings)),
                UsageObject::Response,
            )
            | (b'{', UsageName::Object(inner @ UsageObject::Usage), UsageObject::Wrapper)
            | (b'{', UsageName::Object(inner @ UsageObject::Details), UsageObject::Usage) => {
                let Some(place) = self.open_objects.get_mut(level) else { return };
                *place = inner;
                self.scanner.enter();
                if inner == UsageObject::Wrapper {
                    self.is_opening = self.scanner.name_bytes().as_deref() == Some(b"message");
                }
            }
            _ => {}
        }
    }

    /// Ends a value with these last bytes.
    fn end_value(&mut self, last: &[u8]) {
        self.add_digits(last);
        if let (Some(count), UsageName::Count(field)) = (self.number.take(), self.name) {
            self.fields.set(field, count);
        }
    }

    /// Adds digits to the current count. A fraction or an exponent discards it.
    fn add_digits(&mut self, digits: &[u8]) {
        let Some(number) = self.number else { return };
        // A number may be split between two pieces, so its digits are added up one by one.
        self.number = digits.iter().try_fold(number, |number, byte| {
            let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
            Some(number.saturating_mul(10).saturating_add(digit))
        });
    }

    fn current(&self) -> UsageReport {
        self.fields.report(self.is_opening)
    }
}
