//! Recognises an event that differs from an earlier one only in its text, as nearly all events of a stream do.
//!
//! What is known about the earlier event is then known about this one, and nothing in it has to be searched for. Used for
//! llama-server's own streams only, whose text is always the value of a string.

use memchr::memrchr;

use crate::gateway::bounds::EVENT_HEAD;

/// Bytes that are compared together.
const STRIDE: usize = 16;

/// What the data of an event without counts say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct EventMarkers {
    /// Whether the response is not finished.
    pub(super) is_unfinished: bool,
    /// Whether the event carries no text.
    pub(super) is_empty: bool,
}

/// The data of an event, and what they say.
#[derive(Debug, Default)]
pub(super) struct KnownEvent {
    data: Vec<u8>,
    markers: EventMarkers,
    /// Where its text stands, once another event has shown that.
    around_text: Option<AroundText>,
}

/// The lengths of what stands before the text of the known event, with the quote that begins it, and of what stands after
/// it, with the quote that ends it.
#[derive(Debug, Clone, Copy)]
struct AroundText {
    before: usize,
    after: usize,
}

impl KnownEvent {
    /// Replaces the event, unless this one is longer than [`EVENT_HEAD`].
    pub(super) fn replace(&mut self, data: &[u8], markers: EventMarkers) {
        if data.len() <= EVENT_HEAD {
            self.data.clear();
            self.data.extend_from_slice(data);
            (self.markers, self.around_text) = (markers, None);
        }
    }

    /// Returns what these data say, if they are those of the known event but for the value of one string, which is empty in
    /// neither. Notes where the text stands, for the next ones.
    pub(super) fn markers_of(&mut self, data: &[u8]) -> Option<EventMarkers> {
        if self.is_known_but_for_text(data) || self.data == data {
            return Some(self.markers);
        }
        let before = common_prefix(&self.data, data);
        let after = common_suffix(&self.data[before..], &data[before..]);
        let changed = [&self.data[before..self.data.len() - after], &data[before..data.len() - after]];
        // A quote could end the string, and a backslash could make the quote after it a part of the string.
        let is_plain = !changed.into_iter().flatten().any(is_mark) && !data[..before].ends_with(b"\\");
        let quote = memrchr(b'"', &data[..before])?;
        // Within a string a quote has a backslash before it, so this one begins a value. If it ends a text that ends with a
        // colon, no name is changed either.
        let is_empty = |data: &[u8]| data.get(quote + 1) == Some(&b'"');
        let is_value = data[..quote].ends_with(b":") && !is_empty(data) && !is_empty(&self.data);
        if !is_plain || !is_value {
            return None;
        }
        self.note_text(data, quote + 1);
        Some(self.markers)
    }

    /// Returns whether these data differ from the known event at most in its text, which is a plain one. Nearly all events
    /// are done with it, in a third of the time.
    fn is_known_but_for_text(&self, data: &[u8]) -> bool {
        let Some(AroundText { before, after }) = self.around_text else { return false };
        let Some(end) = data.len().checked_sub(after).filter(|end| *end > before) else { return false };
        data[..before] == self.data[..before]
            && data[end..] == self.data[self.data.len() - after..]
            && !data[before..end].iter().any(is_mark)
    }

    /// Notes where the text stands that begins at this offset of an event which differs from the known one in it only.
    fn note_text(&mut self, data: &[u8], begin: usize) {
        let length = data[begin..].iter().position(is_mark);
        // One with a backslash may go on after the next quote.
        let end = length.map(|length| begin + length).filter(|end| data[*end] == b'"');
        self.around_text = end.map(|end| AroundText { before: begin, after: data.len() - end });
    }
}

fn is_mark(byte: &u8) -> bool {
    matches!(byte, b'"' | b'\\')
}

/// Returns the number of bytes with which both begin.
fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    let strides = one.as_chunks::<STRIDE>().0.iter().zip(other.as_chunks::<STRIDE>().0);
    let begin = STRIDE * strides.take_while(|(one, other)| one == other).count();
    begin + one[begin..].iter().zip(&other[begin..]).take_while(|(one, other)| one == other).count()
}

/// Returns the number of bytes with which both end.
fn common_suffix(one: &[u8], other: &[u8]) -> usize {
    let strides = one.as_rchunks::<STRIDE>().1.iter().rev().zip(other.as_rchunks::<STRIDE>().1.iter().rev());
    let end = STRIDE * strides.take_while(|(one, other)| one == other).count();
    let rest = one[..one.len() - end].iter().rev().zip(other[..other.len() - end].iter().rev());
    end + rest.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARKERS: EventMarkers = EventMarkers { is_unfinished: true, is_empty: false };

    fn is_known(known: &str, data: &str) -> bool {
        let mut event = KnownEvent::default();
        event.replace(known.as_bytes(), MARKERS);
        event.markers_of(data.as_bytes()) == Some(MARKERS)
    }

    fn with(text: &str) -> String {
        format!(
            r#"{{"choices":[{{"finish_reason":null,"delta":{{"content":"{text}"}}}}],"created":1700000000,"id":"x"}}"#
        )
    }

    #[test]
    fn an_event_with_another_text_is_known() {
        for (one, other) in
            [("a", "b"), ("token 1", "token 12"), ("12", "2"), (r"a\n b", r"a\n c"), ("a", "a"), (":", "::")]
        {
            assert!(is_known(&with(one), &with(other)), "{one:?} {other:?}");
        }
    }

    #[test]
    fn an_event_that_differs_otherwise_is_not_known() {
        let known = with("a");
        for data in [
            known.replace("null", "\"stop\""),
            known.replace("content", "reasoning"),
            known.replace("\"a\"", "null"),
            known.replace("\"id\"", "\"usage\":{},\"id\""),
            known.replace("\"id\"", "\"timings\""),
            known.replace("1700000000", "1700000001"),
            with(""),
            with(r#"\""#),
            with(r"b\\"),
            String::new(),
        ] {
            assert!(!is_known(&known, &data), "{data}");
        }
        assert!(!is_known("", &known));
        assert!(!is_known(&with(r"a\n"), &with(r#"a\""#)), "its quote is a part of the text");
    }

    /// Regression: the first event with text after one without was taken for one without, and its token not counted.
    #[test]
    fn an_event_with_text_is_not_known_by_one_without() {
        assert!(!is_known(&with(""), &with("a")));
    }

    #[test]
    fn a_long_event_is_not_kept() {
        let long = with(&"x".repeat(EVENT_HEAD));
        assert!(!is_known(&long, &long));
    }

    proptest! {
        #[test]
        fn prefix_and_suffix_are_as_long_as_can_be(one in "[ab]{0,60}", other in "[ab]{0,60}") {
            let (one, other) = (one.as_bytes(), other.as_bytes());
            let prefix = one.iter().zip(other).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common_prefix(one, other), prefix);
            let suffix = one.iter().rev().zip(other.iter().rev()).take_while(|(a, b)| a == b).count();
            prop_assert_eq!(common_suffix(one, other), suffix);
        }

        /// Texts of a model that are taken for known have the same members as JSON.
        #[test]
        fn a_known_event_has_the_members_of_the_first(
            one in r#"[a"\\:,n{}]{0,8}"#,
            other in r#"[a"\\:,n{}]{0,8}"#,
        ) {
            let [one, other] = [one, other].map(|text| {
                let quoted = serde_json::to_string(&text).unwrap();
                with(&quoted[1..quoted.len() - 1])
            });
            if is_known(&one, &other) {
                let members = |text: &str| {
                    let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
                    value["choices"][0]["delta"]["content"] = "".into();
                    value
                };
                prop_assert_eq!(members(&one), members(&other));
            }
        }

        /// To know where the text stands changes nothing but the time.
        #[test]
        fn an_event_is_known_as_well_after_others(
            known in r#"[ab\:,n]{0,4}"#,
            shown in prop::collection::vec(r#"[ab\:,n]{0,4}"#, 0..4),
            data in r#"[ab"\:,n]{0,4}"#,
        ) {
            let mut event = KnownEvent::default();
            event.replace(with(&known).as_bytes(), MARKERS);
            for text in shown {
                event.markers_of(with(&text).as_bytes());
            }
            let data = with(&data);
            prop_assert_eq!(event.markers_of(data.as_bytes()) == Some(MARKERS), is_known(&with(&known), &data));
        }
    }
}
