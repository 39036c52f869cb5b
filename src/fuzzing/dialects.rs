//! Invariants of the dialects: what clients send and workers answer.
//!
//! The first byte of an input chooses the path or the worker. The rest is the request of a client, and is read as the answer
//! of a worker too.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::dialect::embed::{
    self, EmbedAnswer, EmbedDialect, EmbedInput, EmbedRequest, WorkerEmbedCall, WorkerEmbedDialect,
};
use crate::dialect::ollama::{self, AnswerWriter, KeepAlive, Moment, OllamaForm};
use crate::dialect::rerank::{
    self, RerankAnswer, RerankRequest, RerankRoute, WorkerRerankDialect, WorkerRerankRequest,
};
use crate::dialect::{AnswerId, FieldError, MOST_EMBED_INPUTS, WorkerTokenCall, WorkerTokenDialect, tokenize};

/// Most documents of a request.
const MOST_DOCUMENTS: usize = 8;

/// The numbers of a vector of the model that answers.
const WIDTH: usize = 4;

pub(super) const RERANK_PATHS: [&str; 6] =
    ["/v1/rerank", "/v2/rerank", "/v1/reranking", "/v1/reranks", "/score", "/v1/ranking"];

pub(super) const EMBED_PATHS: [&str; 9] = [
    "/v1/embeddings",
    "/v1/embed",
    "/v2/embed",
    "/embed",
    "/embed_all",
    "/embed_sparse",
    "/similarity",
    "/api/embed",
    "/api/embeddings",
];

const EMBED_WORKERS: [WorkerEmbedDialect; 6] = [
    WorkerEmbedDialect::OpenAi,
    WorkerEmbedDialect::Tei,
    WorkerEmbedDialect::Cohere,
    WorkerEmbedDialect::Jina,
    WorkerEmbedDialect::Voyage,
    WorkerEmbedDialect::Ollama,
];

fn id() -> AnswerId {
    AnswerId { id: "id-1".to_owned(), created: 7 }
}

/// Returns the entry that a byte chooses.
fn chosen<T: Copy>(list: &[T], choice: u8) -> T {
    list[usize::from(choice) % list.len()]
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("what is written is JSON: {error}: {}", String::from_utf8_lossy(bytes)))
}

/// Checks that what is wrong with a request is said, and that a member is named where it is about one.
fn check_error(error: &FieldError) {
    assert!(!error.message.is_empty());
    assert!(error.field.as_ref().is_none_or(|field| error.message.contains(field.as_str())), "{error:?}");
}

/// Checks requests for scores: each document is scored once, the answer holds the best ones in order, and what is sent to a
/// worker says the same. The first byte chooses the path and whether it is Pinecone's client.
pub fn rerank(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    for documents in 0..3 {
        if let Ok(read) = rerank::read_answer(body, documents) {
            assert!(read.scores.len() == documents && read.scores.iter().all(|score| score.is_finite()));
        }
    }
    let path = chosen(&RERANK_PATHS, choice >> 1);
    let route = RerankRoute { path, is_pinecone: choice % 2 == 1, most_documents: MOST_DOCUMENTS };
    let request = match rerank::parse(&route, body) {
        Ok(request) => request,
        Err(error) => return check_error(&error),
    };
    assert_eq!(rerank::find_dialect(&route, body), Some(request.format.dialect));
    assert!((1..=MOST_DOCUMENTS).contains(&request.documents.len()) && request.top_n != Some(0));
    let mut called: Vec<usize> = request.calls().into_iter().flat_map(|call| call.documents).collect();
    called.sort_unstable();
    assert!(called.into_iter().eq(0..request.documents.len()), "each document is in one call");
    check_rerank_answer(&request);
    check_rerank_calls(&request);
}

fn check_rerank_answer(request: &RerankRequest) {
    let scores = (0..request.documents.len()).map(|at| [0.25, 0.75, 0.5][at % 3]).collect();
    let answer = RerankAnswer { model: "m".to_owned(), scores, prompt_tokens: None };
    let written = rerank::write(request, &answer, &id()).unwrap_or_else(|error| panic!("{error}"));
    let written = json(&written);
    let names = ["results", "data", "rankings"];
    let list = names.iter().find_map(|name| written.get(name)).unwrap_or(&written).as_array();
    let entries = list.unwrap_or_else(|| panic!("no entries: {written}"));
    assert_eq!(entries.len(), request.documents.len().min(request.top_n.unwrap_or(usize::MAX)));
    let indices: std::collections::BTreeSet<_> = entries.iter().filter_map(|entry| entry["index"].as_u64()).collect();
    assert!(indices.len() == entries.len() && indices.iter().all(|index| *index < request.documents.len() as u64));
}

fn check_rerank_calls(request: &RerankRequest) {
    use WorkerRerankDialect::{Cohere, Infinity, Jina, Llama, Tei, Vllm, Voyage};
    let documents: Vec<&str> = request.documents.iter().map(|document| document.text.as_str()).collect();
    let asked = WorkerRerankRequest {
        model: "m",
        query: &request.query,
        documents: &documents,
        cut: request.cut,
        wants_raw_scores: request.wants_raw_scores,
        instruction: request.instruction.as_deref(),
    };
    for dialect in [Llama, Vllm, Tei, Cohere, Jina, Voyage, Infinity] {
        let route = RerankRoute { path: dialect.path(), is_pinecone: false, most_documents: MOST_DOCUMENTS };
        let written = dialect.write_request(&asked);
        let read = rerank::parse(&route, &written).unwrap_or_else(|error| panic!("{dialect:?}: {error}"));
        assert!(read.query == request.query && read.documents.iter().map(|one| &one.text).eq(&documents));
    }
}

/// Checks requests for embeddings: they have inputs and an encoding, and can be answered and sent to a worker. The first
/// byte chooses the path and the worker.
pub fn embed(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let worker = chosen(&EMBED_WORKERS, *choice);
    for inputs in 0..3 {
        if let Ok(read) = embed::read_answer(worker, body, inputs) {
            let width = read.vectors.first().map_or(0, Vec::len);
            assert!(read.vectors.len() == inputs && read.vectors.iter().all(|vector| vector.len() == width));
            assert!(read.vectors.iter().flatten().all(|number| number.is_finite()));
        }
    }
    embed::has_text_objects(body);
    let mut request = match embed::parse(chosen(&EMBED_PATHS, *choice), body) {
        Ok(request) => request,
        Err(error) => return check_error(&error),
    };
    assert!((1..=MOST_EMBED_INPUTS + 1).contains(&request.inputs.len()) && !request.format.encodings.is_empty());
    request.inputs.truncate(64);
    check_embed_answer(&request);
    let call = WorkerEmbedCall {
        model: "m",
        inputs: &request.inputs,
        cut: request.cut,
        prompt: request.prompt.as_ref(),
        is_normalized: request.is_normalized,
        dimensions: request.dimensions,
    };
    match embed::write_request(worker, &call) {
        Ok(written) => assert!(json(&written).is_object()),
        Err(error) => check_error(&error),
    }
}

fn check_embed_answer(request: &EmbedRequest) {
    let mut vectors = vec![vec![0.5; WIDTH]; request.inputs.len()];
    let is_too_wide = request.dimensions.is_some_and(|dimensions| dimensions > WIDTH);
    assert_eq!(embed::shape(request, None, &mut vectors).is_err(), is_too_wide);
    assert!(is_too_wide || vectors.iter().all(|vector| vector.len() == request.dimensions.unwrap_or(WIDTH)));
    let answer = EmbedAnswer { model: "m".to_owned(), vectors, ..EmbedAnswer::default() };
    let written = json(&embed::write(request, &answer, &id()));
    if request.format.dialect == EmbedDialect::OpenAi {
        assert_eq!(written["data"].as_array().map(Vec::len), Some(request.inputs.len()));
    }
    assert!(request.inputs.iter().all(|input| !matches!(input, EmbedInput::Tokens(ids) if ids.is_empty())));
}

/// Checks requests and answers in Ollama's dialect: what is sent to a worker is an object without a member twice, and
/// whatever events a worker sends become lines of JSON, of which only the last one says that it is. The first byte chooses
/// the path; the lines of the input are the events.
pub fn ollama(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let (path, form) = chosen(&[("/api/chat", OllamaForm::Chat), ("/api/generate", OllamaForm::Generate)], *choice);
    match ollama::parse(path, body) {
        Ok(request) => {
            assert_eq!(request.form, form);
            if let Some((path, written)) = request.body("m\"1") {
                let members: Map<String, Value> = serde_json::from_slice(&written).unwrap_or_default();
                assert!(path.starts_with('/') && members["model"] == "m\"1");
                crate::dialect::Fields::parse(&written).unwrap_or_else(|error| panic!("{error}"));
            }
            let _: Option<KeepAlive> = request.keep_alive;
        }
        Err(error) => check_error(&error),
    }
    let _ = ollama::read_shown(body).inspect_err(check_error);
    let now = Moment { at: Timestamp::UNIX_EPOCH, elapsed: Duration::from_secs(1) };
    let mut whole = Vec::new();
    if AnswerWriter::new(form, "m").write_whole(body, now, &mut whole).is_ok() {
        assert!(json(&whole)["done"] == true);
    }
    let (mut writer, mut out) = (AnswerWriter::new(form, "m"), Vec::new());
    for event in body.split(|byte| *byte == b'\n') {
        writer.write_event(event, now, &mut out);
    }
    writer.write_end(now, &mut out);
    let lines: Vec<Value> = out.split_inclusive(|byte| *byte == b'\n').map(json).collect();
    let is_last = |line: &Value| line["done"] == true || line.get("error").is_some();
    assert_eq!(lines.iter().position(is_last), Some(lines.len() - 1), "one line is the last");
}

/// Checks requests for tokens and llama-server's answers to them: each token of the answer has a place within its text, or
/// none, and places do not go back. The first line of the input is the request, the second an answer.
pub fn tokens(data: &[u8]) {
    let (body, answer) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let texts = match tokenize::parse(body) {
        Ok(request) => request.map_or_else(Vec::new, |request| request.inputs),
        Err(error) => return check_error(&error),
    };
    let dialects = [WorkerTokenDialect::Llama, WorkerTokenDialect::Vllm, WorkerTokenDialect::Tei];
    for (text, dialect) in texts.iter().flat_map(|text| dialects.map(|dialect| (text, dialect))) {
        let call = WorkerTokenCall::Tokens { text, add_special: true, with_pieces: true, parse_special: None };
        assert!(json(&dialect.write_request(&call, "m")).is_object());
        let _ = (dialect.read_ids(answer), dialect.read_text(answer), dialect.read_tokens(answer));
    }
    let Ok(read) = WorkerTokenDialect::Llama.read_tokens(answer.trim_ascii()) else { return };
    for text in texts.iter().map(String::as_str).chain(["Grüße aus Köln", ""]) {
        for plain in [None, Some(read.clone())] {
            let written = json(&tokenize::write(&[(text, read.clone(), plain)]));
            let mut from = 0;
            for token in written[0].as_array().into_iter().flatten() {
                let (Some(start), Some(stop)) = (token["start"].as_u64(), token["stop"].as_u64()) else { continue };
                let found: String =
                    text.chars().skip(start as usize).take(stop.saturating_sub(start) as usize).collect();
                assert!(from <= start && start < stop && token["text"] == found, "{token} of {text:?}");
                from = stop;
            }
        }
    }
}
