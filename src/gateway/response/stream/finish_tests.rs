use super::*;
use crate::gateway::scan::sse_framer::{SseFramer, SseStep};
use proptest::prelude::*;

/// Returns whether the stream is finished, and what the last event that means something means.
fn read(pieces: &[&[u8]], stream_end: StreamEnd) -> (bool, EventMeaning) {
    let (mut framer, mut watch, mut meaning) = (SseFramer::new(), FinishWatch::new(stream_end), EventMeaning::Goes);
    for piece in pieces {
        let mut at = 0;
        while let Some(step) = framer.next(piece, &mut at) {
            match step {
                SseStep::Line(line) => watch.read_line(&line),
                SseStep::EventEnd(_) => match watch.end_event() {
                    EventMeaning::Goes => {}
                    other => meaning = other,
                },
                SseStep::LineFeed => {}
            }
        }
    }
    (watch.is_finished(), meaning)
}

const STREAMS: &[(&str, StreamEnd, bool, EventMeaning)] = &[
    (
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n",
        StreamEnd::Done,
        true,
        EventMeaning::Goes,
    ),
    (
        "data:{ \"choices\" : [ { \"finish_reason\" : \"length\" } ] }\r\n\r\n",
        StreamEnd::Done,
        true,
        EventMeaning::Goes,
    ),
    (
        "data: {\"choices\":[{\"finish_\\u0072eason\":\"stop\",\"\\u0069ndex\":0}]}\n\n",
        StreamEnd::Done,
        true,
        EventMeaning::Goes,
    ),
    ("data: {\"choices\":\ndata: [{\"finish_reason\":\"stop\"}]}\n\n", StreamEnd::Done, true, EventMeaning::Goes),
    (
        "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}\r\rdata: {\"choices\":[],\"usage\":{}}\r\r",
        StreamEnd::Done,
        true,
        EventMeaning::ReportsUsage,
    ),
    (
        "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}\n\ndata: {\"choices\":[{\"index\":0,\"finish_reason\":null}],\"usage\":{}}\n\n",
        StreamEnd::Done,
        true,
        EventMeaning::Goes,
    ),
    (
        "data: {\"choices\":[{\"index\":1}]}\n\ndata: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}]}\n\n",
        StreamEnd::Done,
        false,
        EventMeaning::Goes,
    ),
    (
        "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"},{\"index\":1,\"finish_reason\":\"length\"}]}\n\n",
        StreamEnd::Done,
        true,
        EventMeaning::Goes,
    ),
    ("data: {\"choices\":[{\"finish_reason\":null}]}\n\n", StreamEnd::Done, false, EventMeaning::Goes),
    ("data: {\"choices\":[{\"finish_reason\":\"\"}]}\n\n", StreamEnd::Done, false, EventMeaning::Goes),
    (
        "data: {\"choices\":[{\"delta\":{\"content\":\"\\\"finish_reason\\\":\\\"stop\\\"\"}}]}\n\n",
        StreamEnd::Done,
        false,
        EventMeaning::Goes,
    ),
    ("data: {\"choices\":[]}\n\n", StreamEnd::Done, false, EventMeaning::Goes),
    ("data: {\"code\": 500, \"error\": {\"message\": \"x\"}}\n\n", StreamEnd::Done, false, EventMeaning::Fails),
    ("data: {\"error\":{\"message\":\"x\"},\"choices\":[{}]}\n\n", StreamEnd::Done, false, EventMeaning::Fails),
    ("data: {\"error\":null,\"choices\":[{\"finish_reason\":null}]}\n\n", StreamEnd::Done, false, EventMeaning::Goes),
    (
        "data: {\"error\":\"\",\"choices\":[{\"finish_reason\":\"stop\"}]}\n\n",
        StreamEnd::Done,
        true,
        EventMeaning::Goes,
    ),
    ("data: {\"error\":{\"code\":0,\"message\":\"\"},\"choices\":[]}\n\n", StreamEnd::Done, false, EventMeaning::Goes),
    ("data: {\"error\":null,\"type\":\"ping\"}\n\n", StreamEnd::MessageStop, false, EventMeaning::Goes),
    ("data: {\"error\":\"x\"}\n\n", StreamEnd::MessageStop, false, EventMeaning::Fails),
    ("data: {\"error\":{\"message\":\"x\"}}\n\n", StreamEnd::ResponseDone, false, EventMeaning::Fails),
    ("data: {\"error\":{\"message\":\"x\"}}\n\n", StreamEnd::Unmarked, false, EventMeaning::Fails),
    // JSON as lax servers write it.
    (
        "data: {\"choices\":[{\"index\":\"0\",\"finish_reason\":\"stop\"}]}\n\n",
        StreamEnd::Done,
        true,
        EventMeaning::Goes,
    ),
    (
        "data: {\"choices\":[{\"index\":1.0},{\"index\":1,\"finish_reason\":\"stop\"}]}\n\n",
        StreamEnd::Done,
        true,
        EventMeaning::Goes,
    ),
    (
        "data: {\"choices\":[{\"logprobs\":[-Infinity,NaN,Infinity],\"text\":\"\\\"NaN\",\"finish_reason\":\"stop\"}]}\n\n",
        StreamEnd::Done,
        true,
        EventMeaning::Goes,
    ),
    ("data: {\"choices\":[{\"finish_reason\":\"stop\"}]}\n", StreamEnd::Done, false, EventMeaning::Goes),
    (
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
        StreamEnd::MessageStop,
        true,
        EventMeaning::Goes,
    ),
    (
        "data: {\"delta\":{\"stop_reason\":\"end_turn\"},\"type\":\"message_delta\"}\nevent: message_delta\n\n",
        StreamEnd::MessageStop,
        true,
        EventMeaning::Goes,
    ),
    (
        "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null}}\n\n",
        StreamEnd::MessageStop,
        false,
        EventMeaning::Goes,
    ),
    ("data: {\"type\" : \"message_stop\"}\n\n", StreamEnd::MessageStop, false, EventMeaning::Ends),
    ("data: {\"type\":\"error\",\"error\":{}}\n\n", StreamEnd::MessageStop, false, EventMeaning::Fails),
    ("data: {\"type\":\"response.completed\"}\n\n", StreamEnd::ResponseDone, false, EventMeaning::Ends),
    (
        "data: {\"type\":\"response.output_text.done\",\"delta\":\"x\"}\n\n",
        StreamEnd::ResponseDone,
        false,
        EventMeaning::Goes,
    ),
];

#[test]
fn a_stream_is_finished_when_each_of_its_choices_is() {
    for (stream, stream_end, is_finished, meaning) in STREAMS {
        for cut in 0..stream.len() {
            let (first, second) = stream.as_bytes().split_at(cut);
            assert_eq!(read(&[first, second], *stream_end), (*is_finished, *meaning), "{stream:?} {cut}");
        }
        let bytes: Vec<&[u8]> = stream.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes, *stream_end), (*is_finished, *meaning), "{stream:?}");
    }
}

#[test]
fn a_text_that_is_no_utf_8_hid_the_end_of_a_stream() {
    let event = b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\xe4\"},\"finish_reason\":\"stop\"}]}\n\n";
    assert_eq!(read(&[event], StreamEnd::Done), (true, EventMeaning::Goes));
}

#[test]
fn only_numbers_that_are_not_json_are_replaced() {
    for (lax, strict) in [
        ("{\"a\":NaN,\"b\":[-Infinity,Infinity]}", "{\"a\":null,\"b\":[null,null]}"),
        ("{\"NaN\":\"-Infinity \\\" NaN\",\"b\":NaN}", "{\"NaN\":\"-Infinity \\\" NaN\",\"b\":null}"),
        ("\"\\", "\"\\"),
        ("NaN\\", "null\\"),
        ("{\"ä\":1}", "{\"ä\":1}"),
    ] {
        assert_eq!(strict_json(lax.as_bytes()), strict, "{lax}");
    }
}

#[test]
fn half_an_event_is_told_from_a_whole_one() {
    let half = |text: &str| {
        let (mut framer, mut watch, mut at) = (SseFramer::new(), FinishWatch::new(StreamEnd::Done), 0);
        while let Some(step) = framer.next(text.as_bytes(), &mut at) {
            match step {
                SseStep::Line(line) => watch.read_line(&line),
                SseStep::EventEnd(_) => _ = watch.end_event(),
                SseStep::LineFeed => {}
            }
        }
        watch.has_half_event()
    };
    for text in ["data: {\"a\":1}", "data: {\"a\":1}\n", "data: [DONE]", "", "data: {\n\n", "event: x", ": {"] {
        assert!(!half(text), "{text:?}");
    }
    for text in ["data: {", "data: {\"a\":1", "data: {\"a\":1}\n\ndata: {\"b\":\n"] {
        assert!(half(text), "{text:?}");
    }
}

#[test]
fn an_event_longer_than_the_bound_is_not_kept() {
    let mut long = b"data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"x\":\"".to_vec();
    long.resize(long.len() + READ_EVENT, b'x');
    long.extend_from_slice(b"\"}\n\ndata: {\"choices\":[{\"finish_reason\":null}]}\n\n");
    assert_eq!(read(&[&long], StreamEnd::Done), (false, EventMeaning::Goes));
    let many: String = (0..2 * MOST_CHOICES)
        .map(|index| format!("data: {{\"choices\":[{{\"index\":{index},\"finish_reason\":\"stop\"}}]}}\n\n"))
        .collect();
    assert!(read(&[many.as_bytes()], StreamEnd::Done).0);
}

proptest! {
    #[test]
    fn the_finish_of_a_stream_does_not_depend_on_its_pieces(
        at in 0..STREAMS.len(),
        cuts in proptest::collection::vec(0..200_usize, 0..8),
    ) {
        let (stream, stream_end, is_finished, meaning) = STREAMS[at];
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).chain([0, stream.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &stream.as_bytes()[ends[0]..ends[1]]).collect();
        prop_assert_eq!(read(&pieces, stream_end), (is_finished, meaning));
    }
}
