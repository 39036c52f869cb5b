use super::*;
use proptest::prelude::*;

fn through(pieces: &[&str], ending: StreamEnd) -> (Vec<String>, bool) {
    let mut watch = StreamWatcher::new(ending);
    let mut ready = VecDeque::new();
    for piece in pieces {
        watch.take(Bytes::copy_from_slice(piece.as_bytes()), &mut ready, |_, _| {});
    }
    (ready.iter().map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect(), watch.has_end_mark())
}

#[test]
fn whole_events_are_passed_on_unchanged() {
    let (out, ended) = through(&["data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"], StreamEnd::Done);
    assert_eq!(out, ["data: 1\n\n", "data: 2\n\n", "data: [DONE]\n\n"]);
    assert!(ended);
}

#[test]
fn half_an_event_is_held_until_its_end_arrives() {
    assert_eq!(through(&["data: 1\n\ndata: {\"hal"], StreamEnd::Done).0, ["data: 1\n\n"]);
    assert_eq!(
        through(&["data: {\"hal", "f\"}\n", "\ndata: 2\n\n"], StreamEnd::Done).0.concat(),
        "data: {\"half\"}\n\ndata: 2\n\n"
    );
    assert_eq!(through(&["data: 1\n", "\n"], StreamEnd::Done).0.concat(), "data: 1\n\n");
    assert_eq!(through(&["data: 1\r\n", "\r\n"], StreamEnd::Done).0.concat(), "data: 1\r\n\r\n");
    assert_eq!(through(&["data: 1\r\n", "\r", "\n"], StreamEnd::Done).0.concat(), "data: 1\r\n\r\n");
}

#[test]
fn an_error_event_of_llama_server_ends_a_stream_too() {
    assert!(through(&["data: {\"error\":{}}\n\n"], StreamEnd::Done).1);
    assert!(!through(&["data: {\"choices\":[]}\n\n"], StreamEnd::Done).1);
    assert!(
        !through(&["data: {\"content\":\"say data: [DONE] now\"}\n\n"], StreamEnd::Done).1,
        "the mark is text of the model"
    );
    assert!(through(&["data: {}\n\ndata: [DONE]\n\n"], StreamEnd::Done).1);
    assert!(through(&["event: message_stop\ndata: {}\n\n"], StreamEnd::MessageStop).1);
}

#[test]
fn the_end_of_a_stream_is_found_in_any_pieces() {
    for (stream, ending, error) in [
        ("data: {}\n\ndata: [DONE]\n\n", StreamEnd::Done, None),
        ("data: {}\r\n\r\ndata: [DONE]\r\n\r\n", StreamEnd::Done, None),
        ("data: {}\n\nevent: message_stop\ndata: {}\n\n", StreamEnd::MessageStop, None),
        (
            "data: {}\n\ndata: {\"error\":{\"message\":\"Compute error.\"}}\n\n",
            StreamEnd::Unmarked,
            Some(ComputeFailure::Confirmed),
        ),
        (
            "data: {}\n\nevent: error\ndata: {\"message\":\"Compute error.\"}\n\n",
            StreamEnd::MessageStop,
            Some(ComputeFailure::Confirmed),
        ),
    ] {
        let stream = Bytes::from_static(stream.as_bytes());
        for first in 1..stream.len() {
            for second in first + 1..stream.len() {
                let (mut watch, mut ready) = (StreamWatcher::new(ending), VecDeque::new());
                for piece in [0..first, first..second, second..stream.len()] {
                    watch.take(stream.slice(piece), &mut ready, |_, _| {});
                }
                watch.flush(&mut ready);
                assert!(watch.has_end_mark(), "{stream:?} {first} {second}");
                assert_eq!(watch.error(), error, "{stream:?} {first} {second}");
            }
        }
    }
}

#[test]
fn text_of_the_model_ends_no_stream_wherever_its_event_is_cut() {
    let event = "data: {\"content\":\"data: [DONE]\"}\n\n";
    for cut in 1..event.len() {
        assert!(!through(&[&event[..cut], &event[cut..]], StreamEnd::Done).1, "{cut}");
    }
}

#[test]
fn an_event_longer_than_the_bound_is_passed_on_in_pieces() {
    let long = "x".repeat(MAX_BUFFERED_EVENT + 1);
    assert_eq!(through(&[&long], StreamEnd::Done).0.concat(), long);
}

#[test]
fn marks_are_recognised_as_the_standard_spells_them() {
    for (stream, ending, error) in [
        ("data:[DONE]\n\n", StreamEnd::Done, None),
        ("data: [DONE]\r\r", StreamEnd::Done, None),
        ("\u{feff}data: [DONE]\n\n", StreamEnd::Done, None),
        ("event:message_stop\ndata:{}\n\n", StreamEnd::MessageStop, None),
        ("event:response.completed\r\ndata:{}\r\n\r\n", StreamEnd::ResponseDone, None),
        ("event: response.incomplete\n\n", StreamEnd::ResponseDone, None),
        ("data:{\"error\":{}}\n\n", StreamEnd::Done, Some(ComputeFailure::NotApplicable)),
        ("event:error\ndata:{\"message\":\"Compute error.\"}\n\n", StreamEnd::Done, Some(ComputeFailure::Confirmed)),
        ("event:error\n\ndata: [DONE]\n\n", StreamEnd::Done, Some(ComputeFailure::NotApplicable)),
    ] {
        for cut in 0..stream.len() {
            let (mut watch, mut ready) = (StreamWatcher::new(ending), VecDeque::new());
            for piece in [&stream.as_bytes()[..cut], &stream.as_bytes()[cut..]] {
                watch.take(Bytes::copy_from_slice(piece), &mut ready, |_, _| {});
            }
            assert_eq!((watch.has_end_mark(), watch.error()), (true, error), "{stream:?} {cut}");
            assert_eq!(ready.iter().map(Bytes::len).sum::<usize>(), stream.len(), "{stream:?} {cut}");
        }
    }
    for other in ["data:  [DONE]\n\n", "dat: [DONE]\n\n", ": [DONE]\n\n", "event: [DONE]\n\n", " data: [DONE]\n\n"] {
        assert!(!through(&[other], StreamEnd::Done).1, "{other:?}");
    }
}

#[test]
fn an_event_that_only_reports_tokens_is_dropped_wherever_it_is_cut() {
    let (text, done) = ("data: {\"choices\":[{\"index\":0,\"delta\":{}}]}\n\n", "data: [DONE]\n\n");
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n";
    for (stream, expected) in [
        ([text, usage, done].concat(), [text, done].concat()),
        ([usage, text, usage, usage, done].concat(), [text, done].concat()),
        ([text, done, usage].concat(), [text, done].concat()),
        ([text, usage.trim_end()].concat(), text.to_owned()),
        ([text, usage.trim_end(), "\n"].concat(), text.to_owned()),
    ] {
        for line_end in ["\n", "\r\n", "\r"] {
            let (stream, expected) = (stream.replace('\n', line_end), expected.replace('\n', line_end));
            for first in 0..stream.len() {
                let (mut watch, mut ready) = (StreamWatcher::lenient(StreamEnd::Done, true), VecDeque::new());
                for piece in [&stream.as_bytes()[..first], &stream.as_bytes()[first..]] {
                    watch.take(Bytes::copy_from_slice(piece), &mut ready, |_, _| {});
                }
                watch.end(&mut ready);
                let out = String::from_utf8(ready.into_iter().flatten().collect()).unwrap();
                assert_eq!(out, expected, "{stream:?} {first}");
                assert_eq!(watch.buffered_length, 0, "{stream:?} {first}");
            }
        }
    }
}

#[test]
fn the_end_mark_counts_once_its_event_is_released() {
    let (mut watch, mut ready) = (StreamWatcher::new(StreamEnd::Done), VecDeque::new());
    watch.take(Bytes::from_static(b"data: 1\n\ndata: [DONE]\n"), &mut ready, |_, _| {});
    assert!(ready.len() == 1 && !watch.has_end_mark());
    watch.flush(&mut ready);
    assert!(ready.len() == 2 && watch.has_end_mark(), "the body has ended regularly");
    let (mut watch, mut ready) = (StreamWatcher::new(StreamEnd::Done), VecDeque::new());
    watch.take(Bytes::from_static(b"data: [DO"), &mut ready, |_, _| {});
    watch.take(Bytes::from_static(b"NE]"), &mut ready, |_, _| {});
    assert!(ready.is_empty() && !watch.has_end_mark());
    watch.flush(&mut ready);
    assert!(watch.has_end_mark());
}

/// Texts that are streams, or nearly.
fn stream() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        2 => proptest::sample::select(vec!["\n", "\n\n", "\r\n", "\r", "x", " ", "data: ", "event:"]),
        1 => proptest::sample::select(vec!["[DONE]", "error", "{\"error\":", "\"message\":\"Compute error.\""]),
    ];
    proptest::collection::vec(token, 0..16).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn the_end_of_a_stream_does_not_depend_on_its_pieces(text in stream(), cuts in proptest::collection::vec(0..60_usize, 0..6)) {
        let seen = |cuts: &[usize]| {
            let (mut watch, mut ready) = (StreamWatcher::new(StreamEnd::Done), VecDeque::new());
            for ends in cuts.windows(2) {
                watch.take(Bytes::copy_from_slice(&text.as_bytes()[ends[0]..ends[1]]), &mut ready, |_, _| {});
            }
            let released: Vec<u8> = ready.drain(..).flatten().collect();
            let before_the_end = (watch.has_end_mark(), watch.error());
            watch.flush(&mut ready);
            (released, before_the_end, watch.has_end_mark(), watch.error())
        };
        let mut all: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        all.sort_unstable();
        prop_assert_eq!(seen(&all), seen(&[0, text.len()]));
    }

    #[test]
    fn no_byte_is_lost_or_changed(pieces in proptest::collection::vec("[a\n\r]{0,6}", 0..20)) {
        let mut watch = StreamWatcher::new(StreamEnd::Done);
        let mut ready = VecDeque::new();
        for piece in &pieces {
            watch.take(Bytes::copy_from_slice(piece.as_bytes()), &mut ready, |_, _| {});
        }
        watch.flush(&mut ready);
        let out: Vec<u8> = ready.iter().flat_map(|piece| piece.to_vec()).collect();
        prop_assert_eq!(out, pieces.concat().into_bytes());
    }
}
