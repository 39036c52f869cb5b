use super::super::route;
use super::super::sse::Ending;
use super::super::sse_framer::SseFramer;
use super::super::stage::Shelf;
use super::*;
use crate::telemetry::metrics::TextFormat;
use http::Method;
use std::sync::Mutex;

/// Stands in for a key's budget.
#[derive(Default)]
struct Stub(Mutex<Vec<u64>>);

impl Charge for Stub {
    fn spend(&self, tokens: u64) {
        self.0.lock().unwrap().push(tokens);
    }
}

struct House {
    shelf: Shelf,
    stub: Arc<Stub>,
}

fn house() -> House {
    House { shelf: Shelf::new(), stub: Arc::default() }
}

impl House {
    /// A request that llama-server answers with these pieces.
    fn request(&self, path: &str, key: Option<&str>, status: u16, form: Form, pieces: &[&str]) {
        let mut record =
            Record::open(Arc::clone(&self.shelf.books), HeaderValue::from_static("r"), Method::POST, path.to_owned());
        let route = route::find(&Method::POST, path).unwrap();
        record.route = Some(route.path);
        record.counted = true;
        record.comes_from(key);
        record.is_for("m");
        record.charge = Some(Arc::<Stub>::clone(&self.stub));
        record.queued = Some(Duration::ZERO);
        record.is_answered(StatusCode::from_u16(status).unwrap(), route, form);
        let mut framer = SseFramer::new();
        for piece in pieces {
            let now = record.started;
            if let Some(tally) = record.tally() {
                if form == Form::Json {
                    tally.read(piece.as_bytes());
                } else if reads(tally, &mut framer, piece) {
                    record.record_text(now);
                }
            }
            record.sends(piece.len());
        }
    }

    fn has_series(&self, line: &str) {
        let text = self.shelf.books.metrics.text(TextFormat::Prometheus);
        assert!(text.lines().any(|known| known == line), "no {line} in {text}");
    }

    fn log(self) -> String {
        self.shelf.log()
    }
}

/// Reads a piece of a stream. Returns whether an event with text ends in it.
fn reads(tally: &mut Tally, framer: &mut SseFramer, piece: &str) -> bool {
    let (mut at, mut with_text) = (0, false);
    while let Some(step) = framer.next(piece.as_bytes(), &mut at) {
        with_text |= tally.read_step(&step);
    }
    with_text
}

const TEXT: &str = "data: {\"choices\":[{\"finish_reason\":null,\"delta\":{\"content\":\"a\"}}]}\n\n";
const END: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

#[test]
fn tokens_are_counted_logged_and_charged_once_when_the_record_closes() {
    let house = house();
    house.request("/v1/chat/completions", Some("alice"), 200, Form::Stream, &[TEXT, TEXT, TEXT, END]);
    house.request("/v1/chat/completions", Some("alice"), 200, Form::Stream, &[TEXT, TEXT]);
    house.request("/v1/embeddings", None, 200, Form::Json, &["{\"usage\":{\"prompt_tokens\":8}}"]);
    assert_eq!(*house.stub.0.lock().unwrap(), [7, 2, 8]);
    house.has_series("llamagate_prompt_tokens_total{model=\"m\",key=\"alice\"} 5");
    house.has_series("llamagate_completion_tokens_total{model=\"m\",key=\"alice\"} 4");
    house.has_series("llamagate_prompt_tokens_total{model=\"m\",key=\"none\"} 8");
    house.has_series("llamagate_inter_token_seconds_count{model=\"m\"} 3");
    house.has_series("llamagate_key_requests_total{key=\"alice\",status_class=\"2xx\"} 2");
    let log = house.log();
    let ends: Vec<_> = log.lines().map(|line| line.split_once(" prompt_tokens=").unwrap().1).collect();
    assert_eq!(ends, ["5 completion_tokens=2", "- completion_tokens=2", "8 completion_tokens=-"]);
}

#[test]
fn what_told_nothing_costs_nothing() {
    let house = house();
    let json = "{\"usage\":{\"prompt_tokens\":8}}";
    house.request("/v1/chat/completions", None, 500, Form::Json, &[json]);
    house.request("/v1/audio/transcriptions", None, 200, Form::Other, &[json]);
    house.request("/v1/chat/completions", None, 200, Form::Json, &["{\"choices\":[]}"]);
    assert!(house.stub.0.lock().unwrap().is_empty());
    assert!(!house.shelf.books.metrics.text(TextFormat::Prometheus).contains("tokens_total{"));
}

#[test]
fn a_stream_has_one_gap_less_than_pieces_with_text() {
    let mut tally = Tally::of_stream(Ending::Done);
    let mut framer = SseFramer::new();
    let with_text: Vec<bool> =
        [TEXT, ":\n\n", &TEXT[..20], &TEXT[20..], END].map(|piece| reads(&mut tally, &mut framer, piece)).into();
    assert_eq!(with_text, [true, false, false, true, false]);
}
