//! What the data of an event say by the names in them, found in one pass without reading their JSON.
//!
//! A search for names is enough: a name with its quotes cannot occur within a JSON string, where quotes are escaped, and a
//! string that is a value is not followed by a colon. Names that are written with escapes are not found; llama-server
//! writes none.

use memchr::memchr_iter;

use crate::gateway::routes::route::StreamEnd;

/// What is known about the data of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EventMarks {
    /// Whether they say that the response is not finished. Only the dialects without event names say so in their data.
    pub(super) is_unfinished: bool,
    /// Whether they say that they carry no text. Only those dialects say so too.
    pub(super) is_empty: bool,
    /// Whether they may hold counts. True too for a name that is no member of the event itself; a scan then finds no count.
    pub(super) may_report_usage: bool,
}

/// The names that tell something, each with the quote that ends it.
struct MarkNames {
    /// With a value that begins like this, the response is not finished.
    unfinished: Option<(&'static [u8], &'static [u8])>,
    /// With a value that begins like this, there is no text.
    empty: Option<(&'static [u8], &'static [u8])>,
    /// There may be counts.
    usage: &'static [&'static [u8]],
}

impl MarkNames {
    fn of(stream_end: StreamEnd) -> Self {
        match stream_end {
            StreamEnd::Done => Self {
                unfinished: Some((b"finish_reason\"", b"null")),
                empty: Some((b"role\"", b"\"")),
                usage: &[b"usage\"", b"timings\""],
            },
            StreamEnd::Unmarked => Self {
                unfinished: Some((b"stop\"", b"false")),
                empty: Some((b"content\"", b"\"\"")),
                usage: &[b"tokens_predicted\"", b"timings\"", b"usage\""],
            },
            StreamEnd::MessageStop | StreamEnd::ResponseDone => {
                Self { unfinished: None, empty: None, usage: &[b"usage\"", b"timings\""] }
            }
        }
    }
}

impl EventMarks {
    /// Reads the data of an event in a stream that ends like this.
    pub(super) fn of(stream_end: StreamEnd, data: &[u8]) -> Self {
        let names = MarkNames::of(stream_end);
        let mut marks = Self::default();
        for quote in memchr_iter(b'"', data) {
            let rest = &data[quote + 1..];
            marks.is_unfinished |= names.unfinished.is_some_and(|(name, value)| has_value(rest, name, value));
            marks.is_empty |= names.empty.is_some_and(|(name, value)| has_value(rest, name, value));
            marks.may_report_usage |= names.usage.iter().any(|name| begins(rest, name));
        }
        marks
    }
}

/// Returns whether what follows a quote is a member of this name whose value begins like this.
fn has_value(rest: &[u8], name: &[u8], value: &[u8]) -> bool {
    begins(rest, name) && {
        let after = rest[name.len()..].trim_ascii_start().strip_prefix(b":");
        after.is_some_and(|after| after.trim_ascii_start().starts_with(value))
    }
}

/// Returns whether these bytes begin with this name. Most differ in the first one already.
fn begins(rest: &[u8], name: &[u8]) -> bool {
    rest.first() == name.first() && rest.starts_with(name)
}

#[cfg(test)]
mod tests {
    use memchr::memmem;
    use proptest::prelude::*;

    use super::*;

    /// Reads the same data by a search of its own for each name.
    fn searched(stream_end: StreamEnd, data: &[u8]) -> EventMarks {
        let has = |name: &str| memmem::find(data, name.as_bytes()).is_some();
        let has_value = |name: &str, value: &str| {
            memmem::find_iter(data, name.as_bytes()).any(|at| {
                let rest = data[at + name.len()..].trim_ascii_start();
                rest.strip_prefix(b":").is_some_and(|rest| rest.trim_ascii_start().starts_with(value.as_bytes()))
            })
        };
        let may_report_usage = has("\"usage\"") || has("\"timings\"");
        match stream_end {
            StreamEnd::Done => EventMarks {
                is_unfinished: has_value("\"finish_reason\"", "null"),
                is_empty: has_value("\"role\"", "\""),
                may_report_usage,
            },
            StreamEnd::Unmarked => EventMarks {
                is_unfinished: has_value("\"stop\"", "false"),
                is_empty: has_value("\"content\"", "\"\""),
                may_report_usage: may_report_usage || has("\"tokens_predicted\""),
            },
            StreamEnd::MessageStop | StreamEnd::ResponseDone => {
                EventMarks { may_report_usage, ..EventMarks::default() }
            }
        }
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_a_search_for_each_name_finds(
            tokens in prop::collection::vec(
                prop::sample::select(vec![
                    "\"finish_reason\"", "\"role\"", "\"stop\"", "\"content\"", "\"usage\"", "\"timings\"",
                    "\"tokens_predicted\"", ":", " ", "null", "false", "\"", "\\\"", "{", ",", "usage", "\"\"", "\"finish_reason", "\u{e9}",
                ]),
                0..20,
            ),
        ) {
            let data = tokens.concat();
            for stream_end in [StreamEnd::Done, StreamEnd::Unmarked, StreamEnd::MessageStop, StreamEnd::ResponseDone] {
                prop_assert_eq!(EventMarks::of(stream_end, data.as_bytes()), searched(stream_end, data.as_bytes()));
            }
        }
    }
}
