//! What clients send.

use super::super::{
    EmbedDialect, EmbedFormat, EmbedInput, EmbedRequest, InputCut, PromptName, PromptRole, VectorEncoding,
    VectorNumber, WantedVectors, has_text_objects,
};
use super::{PATHS, parsed, refused};
use crate::dialect::ollama::KeepAlive;

fn text(text: &str) -> EmbedInput {
    EmbedInput::Text(text.to_owned())
}

/// The request of a client that says only what it must: one input `a` for the model `m`.
fn plain(dialect: EmbedDialect) -> EmbedRequest {
    EmbedRequest {
        model: Some("m".to_owned()),
        inputs: vec![text("a")],
        dimensions: None,
        cut: InputCut::Never,
        prompt: None,
        is_normalized: true,
        keep_alive: None,
        most_tokens: None,
        wanted: WantedVectors::DENSE,
        format: EmbedFormat {
            dialect,
            encodings: vec![VectorEncoding::FLOATS],
            is_list: true,
            dimensions_field: "dimensions",
        },
    }
}

fn packed(mut request: EmbedRequest, number: VectorNumber, is_base64: bool) -> EmbedRequest {
    request.format.encodings = vec![VectorEncoding { number, is_base64 }];
    request
}

fn prompted(mut request: EmbedRequest, field: &'static str, name: &str) -> EmbedRequest {
    request.prompt = Some(PromptName { field, name: name.to_owned() });
    request
}

fn check(path: &str, cases: Vec<(&str, EmbedRequest)>) {
    for (body, expected) in cases {
        assert_eq!(parsed(path, body), expected, "{path} {body}");
    }
}

#[test]
fn requests_of_openai_and_infinity_are_read() {
    let one = || plain(EmbedDialect::OpenAi);
    let of = |inputs: Vec<EmbedInput>| EmbedRequest { inputs, ..one() };
    let tokens = |ids: &[u32]| EmbedInput::Tokens(ids.to_vec());
    check(
        "/v1/embeddings",
        vec![
            (r#"{"model":"m","input":"a","user":"u","unknown":{"x":1}}"#, one()),
            (r#"{"model":"m","input":["a"],"encoding_format":null,"dimensions":null}"#, one()),
            (r#"{"model":"m","input":"a","encoding_format":"float","embedding_type":"dense"}"#, one()),
            (r#"{"model":"m","input":"a","encoding_format":"base64"}"#, packed(one(), VectorNumber::Float, true)),
            (r#"{"model":"m","input":"a","dimensions":8}"#, EmbedRequest { dimensions: Some(8), ..one() }),
            (r#"{"model":"m","input":["a","\u00fc"]}"#, of(vec![text("a"), text("ü")])),
            (r#"{"model":"m","input":[1, 2]}"#, of(vec![tokens(&[1, 2])])),
            (r#"{"model":"m","input":[[1,2],[3]]}"#, of(vec![tokens(&[1, 2]), tokens(&[3])])),
            (r#"{"model":"m","input":["a",[3]]}"#, of(vec![text("a"), tokens(&[3])])),
            (r#"{"input":"a"}"#, EmbedRequest { model: None, ..one() }),
            (r#"{"model":"m","input":"a","modality":"text"}"#, one()),
        ],
    );
    assert_eq!(parsed("/embeddings", r#"{"model":"m","input":"a"}"#), one());
}

#[test]
fn requests_of_jina_are_read() {
    let one = || plain(EmbedDialect::OpenAi);
    check(
        "/v1/embeddings",
        vec![
            (r#"{"model":"m","input":[{"text":"a"}],"late_chunking":false}"#, one()),
            (r#"{"model":"m","input":["a"],"task":"retrieval.query"}"#, prompted(one(), "task", "retrieval.query")),
            (r#"{"model":"m","input":["a"],"normalized":false}"#, EmbedRequest { is_normalized: false, ..one() }),
            (r#"{"model":"m","input":["a"],"truncate":true}"#, EmbedRequest { cut: InputCut::End, ..one() }),
            (r#"{"model":"m","input":["a"],"embedding_type":"float","dimensions":8}"#, {
                EmbedRequest { dimensions: Some(8), ..one() }
            }),
            (r#"{"model":"m","input":["a"],"embedding_type":["base64"]}"#, packed(one(), VectorNumber::Float, true)),
            // OpenAI's SDK adds `encoding_format`, and would read packed bits as floats.
            (r#"{"model":"m","input":["a"],"embedding_type":"ubinary","encoding_format":"base64"}"#, {
                packed(one(), VectorNumber::Ubinary, false)
            }),
            (r#"{"model":"m","input":["a"],"embedding_type":"binary"}"#, packed(one(), VectorNumber::Binary, false)),
            // As LlamaIndex calls it.
            (r#"{"model":"m","input":["a"],"encoding_type":"binary"}"#, packed(one(), VectorNumber::Binary, false)),
        ],
    );
}

#[test]
fn requests_of_voyage_are_read() {
    let one = || plain(EmbedDialect::OpenAi);
    let cut = || EmbedRequest { cut: InputCut::End, ..one() };
    check(
        "/v1/embeddings",
        vec![
            (
                r#"{"model":"m","input":["a"],"input_type":null,"truncation":true,"output_dtype":"float","output_dimension":null}"#,
                cut(),
            ),
            (r#"{"model":"m","input":["a"],"input_type":"query"}"#, prompted(one(), "input_type", "query")),
            (r#"{"model":"m","input":["a"],"output_dtype":"int8","encoding_format":"base64"}"#, {
                packed(one(), VectorNumber::Int8, true)
            }),
            (r#"{"model":"m","input":["a"],"output_dtype":"ubinary","truncation":true}"#, {
                packed(cut(), VectorNumber::Ubinary, false)
            }),
            (r#"{"model":"m","input":["a"],"output_dimension":8}"#, {
                let mut request = EmbedRequest { dimensions: Some(8), ..one() };
                request.format.dimensions_field = "output_dimension";
                request
            }),
            (r#"{"model":"m","input":["a"],"output_dimension":8,"dimensions":8}"#, {
                EmbedRequest { dimensions: Some(8), ..one() }
            }),
        ],
    );
}

#[test]
fn requests_of_vllm_and_of_text_embeddings_inference_in_openais_form_are_read() {
    let one = || plain(EmbedDialect::OpenAi);
    let cut = |cut| EmbedRequest { cut, ..one() };
    check(
        "/v1/embeddings",
        vec![
            (r#"{"model":"m","input":"a","truncate_prompt_tokens":null,"truncation_side":"left"}"#, one()),
            (r#"{"model":"m","input":"a","truncate_prompt_tokens":-1}"#, cut(InputCut::End)),
            (r#"{"model":"m","input":"a","truncate_prompt_tokens":-1,"truncation_side":"left"}"#, cut(InputCut::Start)),
            (r#"{"model":"m","input":"a","truncate_prompt_tokens":8}"#, {
                EmbedRequest { most_tokens: Some(8), ..cut(InputCut::End) }
            }),
            (r#"{"model":"m","input":"a","truncate":true,"truncation_direction":"LEFT"}"#, cut(InputCut::Start)),
            (r#"{"model":"m","input":"a","truncate":"START","truncation_direction":"Left"}"#, cut(InputCut::Start)),
            (r#"{"model":"m","input":"a","normalize":false}"#, EmbedRequest { is_normalized: false, ..one() }),
        ],
    );
}

#[test]
fn sparse_and_colbert_vectors_are_asked_for() {
    let wanted = |wanted| EmbedRequest { wanted, ..plain(EmbedDialect::OpenAi) };
    let both = WantedVectors { sparse: true, ..WantedVectors::DENSE };
    check(
        "/v1/embeddings",
        vec![
            (r#"{"model":"m","input":"a","embedding_type":"dense","return_sparse":false}"#, {
                plain(EmbedDialect::OpenAi)
            }),
            (r#"{"model":"m","input":"a","embedding_type":"sparse","encoding_format":"base64"}"#, {
                wanted(WantedVectors::SPARSE)
            }),
            (r#"{"model":"m","input":"a","embedding_type":"colbert"}"#, wanted(WantedVectors::COLBERT)),
            (r#"{"model":"m","input":"a","return_sparse":true}"#, wanted(both)),
            (r#"{"model":"m","input":"a","return_sparse":true,"return_colbert":true}"#, {
                wanted(WantedVectors { colbert: true, ..both })
            }),
            (r#"{"model":"m","input":"a","return_dense":false,"return_sparse":true}"#, {
                wanted(WantedVectors { dense: false, ..both })
            }),
            (r#"{"model":"m","input":"a","encoding_format":"base64","return_dense":false,"return_sparse":true}"#, {
                packed(wanted(WantedVectors { dense: false, ..both }), VectorNumber::Float, true)
            }),
            (r#"{"model":"m","input":"a","embedding_type":"sparse","return_dense":true}"#, {
                wanted(WantedVectors { dense: true, ..WantedVectors::SPARSE })
            }),
            (r#"{"model":"m","input":"a","return_dense":true,"return_sparse":true,"return_colbert_vecs":true}"#, {
                wanted(WantedVectors { colbert: true, has_flag_names: true, ..both })
            }),
            (r#"{"model":"m","input":"a","return_sparse":true,"return_colbert_vecs":false}"#, {
                wanted(WantedVectors { has_flag_names: true, ..both })
            }),
        ],
    );
}

#[test]
fn requests_of_cohere_are_read() {
    let with = |dialect, encodings: Vec<VectorEncoding>| {
        let mut request = EmbedRequest { cut: InputCut::End, ..plain(dialect) };
        request.format.encodings = encodings;
        request.format.dimensions_field = "output_dimension";
        request
    };
    let floats = || vec![VectorEncoding::FLOATS];
    let of = |number| VectorEncoding { number, is_base64: false };
    let v1 = || with(EmbedDialect::CohereV1, floats());
    let v2 = || with(EmbedDialect::CohereV2, floats());
    check(
        "/v1/embed",
        vec![
            // LangChain.
            (r#"{"model":"m","texts":["a"],"input_type":"search_document","truncate":null}"#, {
                prompted(v1(), "input_type", "search_document")
            }),
            (r#"{"model":"m","texts":["a"],"embedding_types":null,"images":[],"priority":0}"#, v1()),
            (r#"{"model":"m","texts":["a"],"embedding_types":["float","float"]}"#, {
                with(EmbedDialect::CohereV1ByType, floats())
            }),
        ],
    );
    check(
        "/v2/embed",
        vec![
            (r#"{"model":"m","texts":["a"],"truncate":"NONE"}"#, EmbedRequest { cut: InputCut::Never, ..v2() }),
            (r#"{"model":"m","texts":["a"],"truncate":"START"}"#, EmbedRequest { cut: InputCut::Start, ..v2() }),
            (r#"{"model":"m","texts":["a"],"truncate":"END","output_dimension":8}"#, {
                EmbedRequest { dimensions: Some(8), ..v2() }
            }),
            (r#"{"model":"m","texts":["a"],"embedding_types":["int8","uint8","binary","ubinary","base64"]}"#, {
                let numbers = [VectorNumber::Int8, VectorNumber::Uint8, VectorNumber::Binary, VectorNumber::Ubinary];
                let mut encodings = numbers.map(of).to_vec();
                encodings.push(VectorEncoding::BASE64);
                with(EmbedDialect::CohereV2, encodings)
            }),
            (r#"{"model":"m","inputs":[{"content":[{"type":"text","text":"a"}]}]}"#, v2()),
            (r#"{"model":"m","inputs":[{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]}"#, {
                EmbedRequest { inputs: vec![text("a\nb")], ..v2() }
            }),
        ],
    );
}

#[test]
fn requests_of_text_embeddings_inference_are_read() {
    let one = |dialect| EmbedRequest { model: None, ..plain(dialect) };
    check(
        "/embed",
        vec![
            (r#"{"inputs":"a"}"#, one(EmbedDialect::TeiEmbed)),
            (r#"{"inputs":["a","b"],"truncate":false,"normalize":true}"#, {
                EmbedRequest { inputs: vec![text("a"), text("b")], ..one(EmbedDialect::TeiEmbed) }
            }),
            (r#"{"inputs":["a"],"truncate":true,"normalize":false,"dimensions":8,"prompt_name":"query"}"#, {
                let request = prompted(one(EmbedDialect::TeiEmbed), "prompt_name", "query");
                EmbedRequest { cut: InputCut::End, is_normalized: false, dimensions: Some(8), ..request }
            }),
            (r#"{"inputs":["a"],"truncate":true,"truncation_direction":"Left"}"#, {
                EmbedRequest { cut: InputCut::Start, ..one(EmbedDialect::TeiEmbed) }
            }),
        ],
    );
    check("/", vec![(r#"{"inputs":"a"}"#, one(EmbedDialect::TeiEmbed))]);
    let all = EmbedRequest { wanted: WantedVectors::TOKENS, is_normalized: false, ..one(EmbedDialect::TeiEmbedAll) };
    check("/embed_all", vec![(r#"{"inputs":"a"}"#, all)]);
    let sparse =
        EmbedRequest { wanted: WantedVectors::SPARSE, is_normalized: false, ..one(EmbedDialect::TeiEmbedSparse) };
    check("/embed_sparse", vec![(r#"{"inputs":["a"]}"#, sparse)]);
    let similarity =
        || EmbedRequest { inputs: vec![text("a"), text("b"), text("c")], ..one(EmbedDialect::TeiSimilarity) };
    let inputs = r#""inputs":{"source_sentence":"a","sentences":["b","c"]}"#;
    check(
        "/similarity",
        vec![
            (&format!("{{{inputs}}}"), similarity()),
            (&format!(r#"{{{inputs},"parameters":{{"truncate":true,"prompt_name":"p"}}}}"#), {
                EmbedRequest { cut: InputCut::End, ..prompted(similarity(), "prompt_name", "p") }
            }),
        ],
    );
}

#[test]
fn requests_of_ollama_are_read() {
    let one = |dialect| EmbedRequest { cut: InputCut::End, ..plain(dialect) };
    check(
        "/api/embed",
        vec![
            (r#"{"model":"m","input":"a","options":{"num_ctx":64},"keep_alive":"5m"}"#, {
                let keep_alive = Some(KeepAlive::For(std::time::Duration::from_secs(300)));
                EmbedRequest { keep_alive, ..one(EmbedDialect::OllamaEmbed) }
            }),
            (r#"{"model":"m","input":["a"],"truncate":false,"dimensions":8}"#, {
                EmbedRequest { cut: InputCut::Never, dimensions: Some(8), ..one(EmbedDialect::OllamaEmbed) }
            }),
            (r#"{"model":"m","input":["a"],"dimensions":0}"#, one(EmbedDialect::OllamaEmbed)),
        ],
    );
    let mut old = one(EmbedDialect::OllamaEmbeddings);
    old.format.is_list = false;
    check("/api/embeddings", vec![(r#"{"model":"m","prompt":"a"}"#, old)]);
}

#[test]
fn what_is_not_served_is_refused_by_name() {
    for (path, body, said) in [
        ("/v1/embeddings", r#"{"input":"a","late_chunking":true}"#, "late_chunking is not served here"),
        ("/v1/embeddings", r#"{"input":"a","return_multivector":true}"#, "return_multivector is not served here"),
        ("/v1/embeddings", r#"{"input":"a","modality":"image"}"#, "modality image is not served here"),
        ("/v1/embeddings", r#"{"input":["a",{"image":"data:"}]}"#, "input[1] must have a text"),
        ("/v1/embeddings", r#"{"input":[{"text":"a","image":"data:"}]}"#, "input[0] must have a text and nothing else"),
        ("/v1/embeddings", r#"{"input":"a","encoding_format":"bytes"}"#, "encoding_format must be float or base64"),
        ("/v1/embeddings", r#"{"input":"a","output_dtype":"int4"}"#, "output_dtype must be float, int8"),
        ("/v1/embeddings", r#"{"input":"a","embedding_type":"int4"}"#, "embedding_type must be float, base64"),
        (
            "/v1/embeddings",
            r#"{"input":"a","embedding_type":["float","binary"]}"#,
            "embedding_type must have one entry",
        ),
        ("/v1/embeddings", r#"{"input":"a","embedding_type":"sparse","dimensions":8}"#, "embedding_type sparse and"),
        ("/v1/embeddings", r#"{"input":"a","encoding_type":"int4"}"#, "encoding_type must be float, base64"),
        (
            "/v1/embeddings",
            r#"{"input":"a","return_dense":false,"return_sparse":true,"output_dtype":"int8"}"#,
            "return_dense false: these vectors have no dimensions",
        ),
        ("/v1/embeddings", r#"{"input":"a","return_dense":false}"#, "return_dense must be true, unless return_sparse"),
        (
            "/v1/embeddings",
            r#"{"input":"a","embedding_type":"dense","return_dense":false,"return_sparse":true}"#,
            "return_dense contradicts embedding_type",
        ),
        (
            "/v1/embeddings",
            r#"{"input":"a","embedding_type":"colbert","return_colbert_vecs":false}"#,
            "return_colbert_vecs contradicts embedding_type",
        ),
        ("/v2/embed", r#"{"texts":["a"],"images":["data:"]}"#, "images is not served here"),
        ("/v2/embed", r#"{"texts":["a"],"max_tokens":8}"#, "max_tokens is not served here"),
        ("/v2/embed", r#"{"texts":["a"],"priority":1}"#, "priority is not served here"),
        (
            "/v1/embeddings",
            r#"{"input":"a","truncate_prompt_tokens":0}"#,
            "truncate_prompt_tokens must be a whole number",
        ),
        ("/v1/embeddings", r#"{"input":"a","truncation_side":"up"}"#, "truncation_side must be left or right"),
        ("/api/embed", r#"{"input":"a","keep_alive":"banana"}"#, "keep_alive must be a number of seconds"),
        ("/api/embeddings", r#"{"prompt":"a","keep_alive":"banana"}"#, "keep_alive must be a number of seconds"),
        ("/v2/embed", r#"{"texts":["a"],"input_type":"image"}"#, "input_type image is not served here"),
        ("/v2/embed", r#"{"texts":["a"],"embedding_types":["int4"]}"#, "embedding_types may have float"),
        (
            "/v2/embed",
            r#"{"inputs":[{"content":[{"type":"image_url","image_url":{}}]}]}"#,
            "inputs[0] must have content",
        ),
        ("/v2/embed", r#"{"inputs":[{"content":[]}]}"#, "inputs[0] must have content"),
        ("/nothing", r#"{"input":"a"}"#, "no embeddings are served at /nothing"),
    ] {
        assert!(refused(path, body).contains(said), "{path} {body}: {}", refused(path, body));
    }
}

#[test]
fn what_contradicts_itself_is_refused_with_both_names() {
    for (path, body, said) in [
        (
            "/v1/embeddings",
            r#"{"input":"a","dimensions":8,"output_dimension":16}"#,
            "output_dimension is 16, but dimensions is 8",
        ),
        (
            "/v1/embeddings",
            r#"{"input":"a","output_dtype":"int8","embedding_type":"binary"}"#,
            "output_dtype is int8, but embedding_type is binary",
        ),
        ("/v1/embeddings", r#"{"input":"a","truncate":true,"truncation":false}"#, "truncation contradicts truncate"),
        (
            "/v1/embeddings",
            r#"{"input":"a","truncate":false,"truncate_prompt_tokens":-1}"#,
            "truncate_prompt_tokens contradicts truncate",
        ),
        (
            "/v1/embeddings",
            r#"{"input":"a","truncate":"END","truncation_side":"left"}"#,
            "truncate contradicts the side",
        ),
        (
            "/v1/embeddings",
            r#"{"input":"a","truncation_direction":"left","truncation_side":"right"}"#,
            "truncation_side contradicts truncation_direction",
        ),
        ("/v1/embeddings", r#"{"input":"a","normalized":true,"normalize":false}"#, "normalize contradicts normalized"),
        (
            "/v1/embeddings",
            r#"{"input":"a","embedding_type":"binary","encoding_type":"float"}"#,
            "encoding_type contradicts embedding_type",
        ),
        (
            "/v1/embeddings",
            r#"{"input":"a","task":"retrieval.query","input_type":"document"}"#,
            "task contradicts input_type",
        ),
        (
            "/v1/embeddings",
            r#"{"input":"a","normalized":false,"output_dtype":"int8"}"#,
            "normalized must be true for int8",
        ),
        ("/v2/embed", r#"{"texts":["a"],"inputs":[]}"#, "inputs cannot stand beside texts"),
    ] {
        assert!(refused(path, body).contains(said), "{path} {body}: {}", refused(path, body));
    }
}

#[test]
fn what_has_no_inputs_is_refused() {
    for (path, body, said) in [
        ("/v1/embeddings", r#"{"model":"m"}"#, "input is missing"),
        ("/v1/embeddings", r#"{"input":null}"#, "input is missing"),
        ("/v1/embeddings", r#"{"input":[]}"#, "input must not be empty"),
        ("/v1/embeddings", r#"{"input":7}"#, "input must be a string or an array"),
        ("/v1/embeddings", r#"{"input":["a",7]}"#, "input[1] must be a string"),
        ("/v1/embeddings", r#"{"input":["a",null]}"#, "input[1] must be a string"),
        ("/v1/embeddings", r#"{"input":[1,-2]}"#, "input must have token ids"),
        ("/v1/embeddings", r#"{"input":[[1],[1.5]]}"#, "input[1] must be an array of token ids"),
        ("/v1/embeddings", r#"{"input":[[]]}"#, "input[0] must be an array of token ids"),
        ("/v1/embeddings", r#"{"input":"a","dimensions":0}"#, "dimensions must be a whole number of at least 1"),
        ("/v2/embed", r#"{"model":"m"}"#, "texts is missing"),
        ("/v1/embed", r#"{"texts":[]}"#, "texts must not be empty"),
        ("/v1/embed", r#"{"texts":["a",1]}"#, "texts[1] must be a string"),
        ("/v1/embed", r#"{"texts":"a"}"#, "texts must be an array"),
        ("/embed", r#"{"input":"a"}"#, "inputs is missing"),
        ("/similarity", r#"{"inputs":"a"}"#, "inputs must be an object"),
        ("/similarity", r#"{"inputs":{"source_sentence":"a"}}"#, "sentences is missing"),
        ("/api/embed", r#"{"model":"m"}"#, "input is missing"),
        ("/api/embeddings", r#"{"model":"m"}"#, "prompt is missing"),
    ] {
        assert!(refused(path, body).contains(said), "{path} {body}: {}", refused(path, body));
    }
    for path in PATHS {
        assert!(refused(path, "[]").contains("a JSON object"), "{path}");
    }
    let many = format!(r#"{{"input":[{}"a"]}}"#, r#""a","#.repeat(crate::dialect::MOST_EMBED_INPUTS));
    assert_eq!(refused("/v1/embeddings", &many), "input has 16385 entries; 16384 are allowed");
}

#[test]
fn only_an_object_with_a_text_is_an_input_of_others() {
    for (input, expected) in [
        (r#"[{"text":"a"}]"#, true),
        (r#"["b",{"text":"a"}]"#, true),
        (r#"[{"content":[{"type":"image_url"}]}]"#, false),
        (r#"["{\"text\":1}"]"#, false),
        (r#"{"text":"a"}"#, false),
        ("", false),
    ] {
        assert_eq!(has_text_objects(input.as_bytes()), expected, "{input}");
    }
}

#[test]
fn names_of_prompts_mean_queries_and_documents() {
    let role = |name: &str| PromptName { field: "task", name: name.to_owned() }.role();
    for name in ["query", "search_query", "retrieval.query", "nl2code.query", "RETRIEVAL_QUERY"] {
        assert_eq!(role(name), Some(PromptRole::Query), "{name}");
    }
    for name in ["document", "search_document", "passage", "retrieval.passage", "code.passage"] {
        assert_eq!(role(name), Some(PromptRole::Document), "{name}");
    }
    for name in ["classification", "clustering", "text-matching", "queries", ""] {
        assert_eq!(role(name), None, "{name}");
    }
}
