use std::num::{NonZeroU32, NonZeroU64};

use http::Method;

use super::*;
use crate::gateway::admission::rate::Meters;
use crate::gateway::admission::ticks::LimitClock;
use crate::gateway::routes::lookup;
use crate::gateway::routes::route::StreamEnd;
use crate::gateway::scan::sse_framer::SseFramer;
use crate::gateway::testing::TestRecords;
use crate::keys::Key;
use crate::telemetry::metrics::TextFormat;

struct RecordFixture {
    records: TestRecords,
    meter: Meter,
}

/// The key is limited to one token a minute, so each token that it is charged is a minute of debt.
fn fixture() -> RecordFixture {
    let key = Key { tokens_per_minute: NonZeroU64::new(1), ..Key::named("alice") };
    let meter = Meters::new(LimitClock).meter_of(&key, NonZeroU32::MIN);
    RecordFixture { records: TestRecords::new(), meter }
}

impl RecordFixture {
    /// Records a request that llama-server answers with these pieces. Returns the tokens that the key is charged for it.
    fn request(&self, path: &str, key: Option<&str>, status: u16, kind: ContentKind, pieces: &[&str]) -> u64 {
        let before = self.charged();
        let mut record = Record::open(
            Arc::clone(&self.records.accounting),
            jiff::Timestamp::UNIX_EPOCH,
            HeaderValue::from_static("r"),
            Method::POST,
            path.to_owned().into(),
        );
        let route = lookup::find(&Method::POST, path).unwrap();
        record.route = Some(route.path);
        record.counted = true;
        record.set_key(key);
        record.set_model("m");
        record.meter = Some(self.meter.clone());
        record.queued = Some(Duration::ZERO);
        record.set_response(StatusCode::from_u16(status).unwrap(), route, kind, WorkerKind::Local);
        let mut framer = SseFramer::new();
        for piece in pieces {
            let now = record.started;
            if let Some(counter) = record.token_counter() {
                if kind == ContentKind::Json {
                    counter.read(piece.as_bytes());
                } else if read_piece(counter, &mut framer, piece) {
                    record.record_text(now);
                }
            }
            record.add_bytes_out(piece.len());
        }
        drop(record);
        self.charged() - before
    }

    /// Returns the tokens charged so far: minutes of debt, of which the first has begun to pass.
    fn charged(&self) -> u64 {
        let mut headers = HeaderMap::new();
        self.meter.insert_headers(&mut headers);
        let reset = headers["x-ratelimit-reset-tokens"].to_str().unwrap().strip_suffix('s').unwrap();
        let (minutes, seconds) = reset.split_once('m').unwrap_or(("0", reset));
        minutes.parse::<u64>().unwrap() + u64::from(seconds.parse::<f64>().unwrap() > 0.0)
    }

    fn assert_series(&self, line: &str) {
        let text = self.records.accounting.metrics.text(TextFormat::Prometheus);
        assert!(text.lines().any(|known| known == line), "no {line} in {text}");
    }

    fn log(self) -> String {
        self.records.log()
    }
}

/// Reads a piece of a stream. Returns whether an event with text ends in it.
fn read_piece(counter: &mut TokenCounter, framer: &mut SseFramer, piece: &str) -> bool {
    let (mut at, mut has_text) = (0, false);
    while let Some(step) = framer.next(piece.as_bytes(), &mut at) {
        has_text |= counter.read_step(&step);
    }
    has_text
}

const TEXT: &str = "data: {\"choices\":[{\"finish_reason\":null,\"delta\":{\"content\":\"a\"}}]}\n\n";
const END: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

#[test]
fn tokens_are_counted_logged_and_charged_once_when_the_record_closes() {
    let fixture = fixture();
    let charged = [
        fixture.request("/v1/chat/completions", Some("alice"), 200, ContentKind::Stream, &[TEXT, TEXT, TEXT, END]),
        fixture.request("/v1/chat/completions", Some("alice"), 200, ContentKind::Stream, &[TEXT, TEXT]),
        fixture.request("/v1/embeddings", None, 200, ContentKind::Json, &["{\"usage\":{\"prompt_tokens\":8}}"]),
    ];
    assert_eq!(charged, [7, 2, 8]);
    fixture.assert_series("llamagate_prompt_tokens_total{model=\"m\",key=\"alice\"} 5");
    fixture.assert_series("llamagate_completion_tokens_total{model=\"m\",key=\"alice\"} 4");
    fixture.assert_series("llamagate_prompt_tokens_total{model=\"m\",key=\"none\"} 8");
    fixture.assert_series("llamagate_inter_token_seconds_count{model=\"m\"} 3");
    fixture.assert_series("llamagate_key_requests_total{key=\"alice\",status_class=\"2xx\"} 2");
    let log = fixture.log();
    let ends: Vec<_> = log.lines().map(|line| line.split_once(" prompt_tokens=").unwrap().1).collect();
    assert_eq!(ends, ["5 completion_tokens=2", "- completion_tokens=2", "8 completion_tokens=-"]);
}

#[test]
fn a_response_without_counts_costs_nothing() {
    let fixture = fixture();
    let json = "{\"usage\":{\"prompt_tokens\":8}}";
    let charged = [
        fixture.request("/v1/chat/completions", None, 500, ContentKind::Json, &[json]),
        fixture.request("/v1/audio/transcriptions", None, 200, ContentKind::Other, &[json]),
        fixture.request("/v1/chat/completions", None, 200, ContentKind::Json, &["{\"choices\":[]}"]),
    ];
    assert_eq!(charged, [0; 3]);
    assert!(!fixture.records.accounting.metrics.text(TextFormat::Prometheus).contains("tokens_total{"));
}

#[test]
fn a_stream_has_one_gap_less_than_pieces_with_text() {
    let mut counter = TokenCounter::for_stream(StreamEnd::Done);
    let mut framer = SseFramer::new();
    let has_text: Vec<bool> =
        [TEXT, ":\n\n", &TEXT[..20], &TEXT[20..], END].map(|piece| read_piece(&mut counter, &mut framer, piece)).into();
    assert_eq!(has_text, [true, false, false, true, false]);
}
