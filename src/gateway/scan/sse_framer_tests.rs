use SseField::{Data, Event};
use WholeLine::{Blank, Line};
use proptest::prelude::*;

use super::*;

/// A line of a field, joined from its parts, or a blank line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum WholeLine {
    Line(SseField, Vec<u8>),
    Blank,
}

fn line(field: SseField, value: &str) -> WholeLine {
    Line(field, value.as_bytes().to_vec())
}

/// Returns the lines of a stream that arrives in these pieces. Checks all that the framer reports.
fn lines(pieces: &[&[u8]]) -> Vec<WholeLine> {
    let (mut framer, mut found, mut value) = (SseFramer::new(), Vec::new(), Vec::new());
    for piece in pieces {
        let (mut at, mut blank_follows) = (0, false);
        while let Some(step) = framer.next(piece, &mut at) {
            match step {
                SseStep::Line(part) => {
                    assert!(!blank_follows, "a blank line was announced");
                    assert_eq!(part.value, &piece[part.offset..][..part.value.len()]);
                    if part.begins {
                        value.clear();
                    }
                    value.extend_from_slice(part.value);
                    let kept = if part.begins && part.ends { value.len() } else { value.len().min(EVENT_HEAD) };
                    assert_eq!(part.head, &value[..kept]);
                    if part.ends {
                        found.push(Line(part.field, std::mem::take(&mut value)));
                    }
                    blank_follows = part.ends_event;
                }
                SseStep::EventEnd(end) => {
                    assert_eq!(end, at);
                    blank_follows = false;
                    found.push(Blank);
                }
                SseStep::LineFeed => assert_eq!((at, piece[0]), (1, b'\n')),
            }
        }
        assert_eq!((at, blank_follows), (piece.len(), false));
        assert!(framer.head_length() <= EVENT_HEAD);
    }
    found
}

/// Returns the lines of a whole stream by the letter of the standard. The last line counts only if it has ended.
fn lines_by_the_standard(stream: &[u8]) -> Vec<WholeLine> {
    let text = String::from_utf8_lossy(stream).replace("\r\n", "\n").replace('\r', "\n");
    let mut lines: Vec<&str> = text.strip_prefix('\u{feff}').unwrap_or(&text).split('\n').collect();
    lines.pop();
    let fields = lines.into_iter().filter_map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).as_bytes().to_vec();
        match name {
            _ if line.is_empty() => Some(Blank),
            "data" => Some(Line(Data, value)),
            "event" => Some(Line(Event, value)),
            _ => None,
        }
    });
    fields.collect()
}

#[test]
fn fields_are_read_by_the_standard() {
    for (stream, expected) in [
        ("data:[DONE]\n\n", vec![line(Data, "[DONE]"), Blank]),
        ("data: [DONE]\r\n\r\n", vec![line(Data, "[DONE]"), Blank]),
        ("data:  [DONE]\r\r", vec![line(Data, " [DONE]"), Blank]),
        ("event:message_stop\ndata: {}\n\n", vec![line(Event, "message_stop"), line(Data, "{}"), Blank]),
        ("data\nevent\rdata:\r\ndata: \n", vec![line(Data, ""), line(Event, ""), line(Data, ""), line(Data, "")]),
        ("\u{feff}data: a:b\n\n", vec![line(Data, "a:b"), Blank]),
        ("\u{feff}\u{feff}data: 1\n\n", vec![Blank]),
        ("\n\u{feff}data: 1\n\n", vec![Blank, Blank]),
        (": data: 1\nid: 1\nretry: 1\n\n", vec![Blank]),
        (" data: 1\nDATA: 1\ndata : 1\ndatas: 1\ndat: 1\neven: 1\ndevent: 1\n\n", vec![Blank]),
        ("\n\r\n\r\r\n", vec![Blank, Blank, Blank, Blank]),
        ("", vec![]),
    ] {
        assert_eq!(lines_by_the_standard(stream.as_bytes()), expected, "{stream:?}");
        for size in 1..=stream.len().max(1) {
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            assert_eq!(lines(&pieces), expected, "{stream:?} in pieces of {size}");
        }
    }
}

#[test]
fn a_line_in_one_piece_is_borrowed_and_the_beginning_of_a_split_line_is_kept() {
    let long = "x".repeat(2 * EVENT_HEAD);
    let stream = format!("data: {long}\n\n");
    let mut framer = SseFramer::new();
    let Some(SseStep::Line(line)) = framer.next(stream.as_bytes(), &mut 0) else { panic!("the framer reports a line") };
    assert_eq!((line.head.len(), line.head.as_ptr()), (long.len(), stream[6..].as_ptr()));
    assert!(line.ends_event);
    assert_eq!(framer.head_length(), 0);
    let pieces: Vec<&[u8]> = stream.as_bytes().chunks(100).collect();
    assert_eq!(lines(&pieces), [Line(Data, long.into_bytes()), Blank]);
}

#[test]
fn an_unfinished_line_is_reported_as_far_as_it_has_arrived() {
    let mut framer = SseFramer::new();
    for (piece, head, ends) in [("event: mess", "mess", false), ("age", "message", false), ("\r", "message", true)] {
        let Some(SseStep::Line(line)) = framer.next(piece.as_bytes(), &mut 0) else {
            panic!("the framer reports a line")
        };
        assert_eq!((line.field, line.head, line.ends), (Event, head.as_bytes(), ends));
    }
}

/// Generates valid and nearly valid streams.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        4 => prop::sample::select(vec!["data", "event", ":", ": ", "\n", "\r\n", "\r", "\n\n", "data: 1\n", "id: 1"]),
        1 => prop::sample::select(vec!["\u{feff}", " ", "x", "dat", "eve", "é"]),
    ];
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_stream_in_any_pieces_has_the_lines_of_the_standard(
        stream in stream(),
        cuts in prop::collection::vec(0..100_usize, 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &stream[ends[0]..ends[1]]).collect();
        prop_assert_eq!(lines(&pieces), lines_by_the_standard(&stream));
        prop_assert_eq!(lines(&[&stream]), lines_by_the_standard(&stream));
    }

    #[test]
    fn arbitrary_bytes_give_the_same_lines_however_they_are_cut(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        size in 1_usize..50,
    ) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        prop_assert_eq!(lines(&pieces), lines(&[&bytes]));
    }
}
