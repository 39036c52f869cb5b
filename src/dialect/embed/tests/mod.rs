//! Requests and answers as known clients and workers write them, and bytes that mean nothing.

use proptest::prelude::*;

use super::super::AnswerId;
use super::{
    EmbedAnswer, EmbedRequest, VectorEncoding, VectorNumber, WorkerEmbedDialect, has_text_objects, parse, read_answer,
    shape, write,
};

mod answers;
mod requests;
mod workers;

/// Every path that has a dialect.
const PATHS: &[&str] = &[
    "/v1/embeddings",
    "/embeddings",
    "/v1/embed",
    "/v2/embed",
    "/embed",
    "/",
    "/embed_all",
    "/embed_sparse",
    "/similarity",
    "/api/embed",
    "/api/embeddings",
];

const DIALECTS: [WorkerEmbedDialect; 6] = [
    WorkerEmbedDialect::OpenAi,
    WorkerEmbedDialect::Tei,
    WorkerEmbedDialect::Cohere,
    WorkerEmbedDialect::Jina,
    WorkerEmbedDialect::Voyage,
    WorkerEmbedDialect::Ollama,
];

/// Reads a request that is meant to be good.
fn parsed(path: &str, body: &str) -> EmbedRequest {
    parse(path, body.as_bytes()).unwrap_or_else(|error| panic!("{path} {body}: {error}"))
}

/// Returns what is wrong with a request.
fn refused(path: &str, body: &str) -> String {
    match parse(path, body.as_bytes()) {
        Err(error) => error.message,
        Ok(request) => panic!("{path} {body} was read as {request:?}"),
    }
}

/// Writes an answer with the id `id-1`.
fn written(request: &EmbedRequest, answer: &EmbedAnswer) -> String {
    String::from_utf8(write(request, answer, &AnswerId { id: "id-1".to_owned(), created: 7 })).unwrap()
}

/// A value of JSON that a client might send in the wrong place.
fn values() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        Just("1e999".to_owned()),
        "[a-zA-Z ]{0,6}".prop_map(|text| format!("\"{text}\"")),
        prop::sample::select(vec!["float", "base64", "int8", "sparse", "NONE", "left"])
            .prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            (
                prop::sample::select(vec!["text", "content", "type", "source_sentence", "sentences", "float"]),
                inner.clone()
            )
                .prop_map(|(name, value)| format!("{{\"{name}\":{value}}}")),
        ]
    })
}

/// A request with members that some dialect knows.
fn bodies() -> impl Strategy<Value = String> {
    const NAMES: &[&str] = &[
        "model",
        "input",
        "inputs",
        "texts",
        "prompt",
        "dimensions",
        "output_dimension",
        "output_dtype",
        "embedding_type",
        "embedding_types",
        "encoding_format",
        "encoding_type",
        "truncate",
        "truncation",
        "truncation_direction",
        "normalized",
        "normalize",
        "task",
        "input_type",
        "prompt_name",
        "late_chunking",
        "images",
        "parameters",
        "return_sparse",
        "return_colbert",
        "return_colbert_vecs",
        "return_dense",
        "modality",
        "data",
        "embeddings",
        "usage",
        "meta",
    ];
    prop::collection::vec((prop::sample::select(NAMES.to_vec()), values()), 0..6).prop_map(|members| {
        let members = members.iter().map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(body in prop::collection::vec(any::<u8>(), 0..64), inputs in 0_usize..4) {
        has_text_objects(&body);
        for path in PATHS {
            let _ = parse(path, &body);
        }
        for dialect in DIALECTS {
            let _ = read_answer(dialect, &body, inputs);
        }
    }

    #[test]
    fn whatever_is_read_can_be_answered(body in bodies(), width in 1_usize..10) {
        has_text_objects(body.as_bytes());
        for dialect in DIALECTS {
            let _ = read_answer(dialect, body.as_bytes(), 1);
        }
        for path in PATHS {
            let Ok(request) = parse(path, body.as_bytes()) else { continue };
            prop_assert!(!request.inputs.is_empty());
            prop_assert!(!request.format.encodings.is_empty());
            let mut vectors = vec![vec![0.5; width]; request.inputs.len()];
            let is_too_wide = request.dimensions.is_some_and(|dimensions| dimensions > width);
            prop_assert_eq!(shape(&request, None, &mut vectors).is_err(), is_too_wide);
            let answer = EmbedAnswer { model: "m".to_owned(), vectors, ..EmbedAnswer::default() };
            let text = written(&request, &answer);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }

    #[test]
    fn floats_and_base64_say_the_same(vector in prop::collection::vec(-1.0_f32..=1.0, 1..20)) {
        let mut texts = Vec::new();
        for (format, encoding) in [("float", VectorEncoding::FLOATS), ("base64", VectorEncoding::BASE64)] {
            let request = parsed("/v1/embeddings", &format!(r#"{{"input":"a","encoding_format":"{format}"}}"#));
            prop_assert_eq!(&request.format.encodings, &vec![encoding]);
            let answer = EmbedAnswer { vectors: vec![vector.clone()], ..EmbedAnswer::default() };
            texts.push(written(&request, &answer));
        }
        for text in texts {
            let read = read_answer(WorkerEmbedDialect::OpenAi, text.as_bytes(), 1).unwrap();
            prop_assert_eq!(&read.vectors, &vec![vector.clone()]);
        }
    }
}

#[test]
fn each_number_type_has_the_name_by_which_it_is_found() {
    for number in
        [VectorNumber::Float, VectorNumber::Int8, VectorNumber::Uint8, VectorNumber::Binary, VectorNumber::Ubinary]
    {
        assert_eq!(VectorNumber::of(number.name()), Some(number));
    }
}
