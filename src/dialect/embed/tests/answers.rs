//! What clients read.

use std::collections::BTreeMap;

use super::super::{EmbedAnswer, shape};
use super::{parsed, written};

/// The answer to inputs `a` and `b` of a model with three numbers a vector, which are normalised.
fn answer() -> EmbedAnswer {
    EmbedAnswer {
        model: "m".to_owned(),
        vectors: vec![vec![1.0, 0.0, 0.0], vec![0.0, -0.6, 0.8]],
        prompt_tokens: Some(7),
        ..EmbedAnswer::default()
    }
}

/// Answers a request for the inputs `a` and `b` with [`answer`].
fn answered(path: &str, body: &str) -> String {
    let request = parsed(path, body);
    let mut answer = answer();
    answer.vectors.truncate(request.inputs.len());
    shape(&request, None, &mut answer.vectors).unwrap_or_else(|error| panic!("{path} {body}: {error}"));
    written(&request, &answer)
}

#[test]
fn openai_s_clients_read_a_list_of_floats_or_base64() {
    let list = |one: &str, other: &str| {
        format!(
            concat!(
                r#"{{"object":"list","data":[{{"object":"embedding","index":0,"embedding":{}}},"#,
                r#"{{"object":"embedding","index":1,"embedding":{}}}],"#,
                r#""model":"m","usage":{{"prompt_tokens":7,"total_tokens":7}}}}"#
            ),
            one, other
        )
    };
    let input = r#""model":"m","input":["a","b"]"#;
    for (member, one, other) in [
        ("", "[1.0,0.0,0.0]", "[0.0,-0.6,0.8]"),
        (r#","encoding_format":"base64""#, r#""AACAPwAAAAAAAAAA""#, r#""AAAAAJqZGb/NzEw/""#),
        (r#","dimensions":2"#, "[1.0,0.0]", "[0.0,-1.0]"),
        (r#","output_dimension":2,"normalized":false"#, "[1.0,0.0]", "[0.0,-0.6]"),
        (r#","output_dtype":"int8""#, "[127,0,0]", "[0,-76,102]"),
        (r#","output_dtype":"uint8""#, "[255,128,128]", "[128,52,230]"),
        (r#","output_dtype":"binary""#, "[0]", "[-96]"),
        (r#","embedding_type":"ubinary""#, "[128]", "[32]"),
        (r#","output_dtype":"int8","encoding_format":"base64""#, r#""fwAA""#, r#""ALRm""#),
        (r#","output_dtype":"ubinary","encoding_format":"base64""#, r#""gA==""#, r#""IA==""#),
    ] {
        assert_eq!(answered("/v1/embeddings", &format!("{{{input}{member}}}")), list(one, other), "{member}");
    }
}

#[test]
fn an_unknown_number_of_tokens_is_zero_in_every_dialect() {
    let answer = EmbedAnswer { prompt_tokens: None, vectors: vec![vec![1.0]], ..answer() };
    let text = written(&parsed("/v1/embeddings", r#"{"input":"a"}"#), &answer);
    assert!(text.ends_with(r#""usage":{"prompt_tokens":0,"total_tokens":0}}"#), "{text}");
    let text = written(&parsed("/api/embed", r#"{"input":"a"}"#), &answer);
    assert_eq!(text, r#"{"model":"m","embeddings":[[1.0]],"prompt_eval_count":0}"#);
    let text = written(&parsed("/v2/embed", r#"{"texts":["a"]}"#), &answer);
    assert!(text.ends_with(r#""meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":0}}}"#), "{text}");
}

#[test]
fn sparse_and_colbert_vectors_stand_beside_dense_ones() {
    let answer = EmbedAnswer {
        vectors: vec![vec![1.0, 0.0]],
        sparse: Some(vec![BTreeMap::from([(1234, 0.82), (5678, 0.31)])]),
        colbert: Some(vec![vec![vec![0.6, 0.8], vec![1.0, 0.0]]]),
        ..answer()
    };
    let only = |sparse: bool, colbert: bool| EmbedAnswer {
        sparse: answer.sparse.clone().filter(|_| sparse),
        colbert: answer.colbert.clone().filter(|_| colbert),
        ..answer.clone()
    };
    let (sparse, rows) = (r#"{"1234":0.82,"5678":0.31}"#, "[[0.6,0.8],[1.0,0.0]]");
    for (member, answer, expected) in [
        (r#""return_sparse":true"#, only(true, false), format!(r#"[1.0,0.0],"sparse_embedding":{sparse}"#)),
        (
            r#""return_sparse":true,"return_colbert":true"#,
            only(true, true),
            format!(r#"[1.0,0.0],"sparse_embedding":{sparse},"colbert_embedding":{rows}"#),
        ),
        (r#""embedding_type":"sparse""#, only(true, false), sparse.to_owned()),
        (r#""embedding_type":"colbert""#, only(false, true), rows.to_owned()),
        (
            r#""embedding_type":"colbert","return_sparse":true,"return_dense":true"#,
            only(true, true),
            format!(r#"{rows},"dense_embedding":[1.0,0.0],"sparse_embedding":{sparse}"#),
        ),
        (
            r#""return_dense":false,"return_sparse":true"#,
            only(true, false),
            format!(r#"[],"sparse_embedding":{sparse}"#),
        ),
        (
            r#""return_sparse":true,"return_colbert_vecs":true"#,
            only(true, true),
            format!(r#"[1.0,0.0],"lexical_weights":{sparse},"colbert_vecs":{rows}"#),
        ),
    ] {
        let text = written(&parsed("/v1/embeddings", &format!(r#"{{"input":"a",{member}}}"#)), &answer);
        let expected = format!(r#""data":[{{"object":"embedding","index":0,"embedding":{expected}}}]"#);
        assert!(text.contains(&expected), "{member}: {text}");
    }
}

#[test]
fn cohere_s_clients_read_a_list_or_a_list_for_each_type() {
    let end = |version: &str| {
        format!(
            r#","texts":["a","b"],"meta":{{"api_version":{{"version":"{version}"}},"billed_units":{{"input_tokens":7}}}}}}"#
        )
    };
    let floats = "[[1.0,0.0,0.0],[0.0,-0.6,0.8]]";
    assert_eq!(
        answered("/v1/embed", r#"{"model":"m","texts":["a","b"]}"#),
        format!(r#"{{"id":"id-1","response_type":"embeddings_floats","embeddings":{floats}{}"#, end("1"))
    );
    let by_type = |embeddings: &str| {
        format!(r#"{{"id":"id-1","response_type":"embeddings_by_type","embeddings":{{{embeddings}}}"#)
    };
    assert_eq!(
        answered("/v1/embed", r#"{"model":"m","texts":["a","b"],"embedding_types":["float"]}"#),
        by_type(&format!(r#""float":{floats}"#)) + &end("1")
    );
    let inputs = r#""inputs":[{"content":[{"type":"text","text":"a"}]},{"content":[{"type":"text","text":"b"}]}]"#;
    for body in [r#"{"model":"m","texts":["a","b"]}"#.to_owned(), format!(r#"{{"model":"m",{inputs}}}"#)] {
        assert_eq!(answered("/v2/embed", &body), by_type(&format!(r#""float":{floats}"#)) + &end("2"));
    }
    let types = r#"["ubinary","binary","uint8","int8","float","base64"]"#;
    assert_eq!(
        answered("/v2/embed", &format!(r#"{{"model":"m","texts":["a","b"],"embedding_types":{types}}}"#)),
        by_type(concat!(
            r#""base64":["AACAPwAAAAAAAAAA","AAAAAJqZGb/NzEw/"],"#,
            r#""binary":[[0],[-96]],"#,
            r#""float":[[1.0,0.0,0.0],[0.0,-0.6,0.8]],"#,
            r#""int8":[[127,0,0],[0,-76,102]],"#,
            r#""ubinary":[[128],[32]],"#,
            r#""uint8":[[255,128,128],[128,52,230]]"#
        )) + &end("2")
    );
}

#[test]
fn clients_of_text_embeddings_inference_read_bare_arrays() {
    let body = r#"{"inputs":["a","b"]}"#;
    assert_eq!(answered("/embed", body), "[[1.0,0.0,0.0],[0.0,-0.6,0.8]]");
    assert_eq!(answered("/", r#"{"inputs":"a"}"#), "[[1.0,0.0,0.0]]");
    let sparse = EmbedAnswer {
        vectors: Vec::new(),
        sparse: Some(vec![BTreeMap::from([(3, 0.5), (70_000, 1.5)]), BTreeMap::new()]),
        ..answer()
    };
    assert_eq!(
        written(&parsed("/embed_sparse", body), &sparse),
        r#"[[{"index":3,"value":0.5},{"index":70000,"value":1.5}],[]]"#
    );
    let tokens = EmbedAnswer {
        vectors: Vec::new(),
        tokens: Some(vec![vec![vec![1.5, 2.0], vec![0.0, 1.0]], vec![vec![3.0, 4.0]]]),
        ..answer()
    };
    assert_eq!(written(&parsed("/embed_all", body), &tokens), "[[[1.5,2.0],[0.0,1.0]],[[3.0,4.0]]]");
    let similarity = EmbedAnswer { vectors: vec![vec![2.0, 0.0], vec![3.0, 4.0], vec![-1.0, 0.0]], ..answer() };
    let body = r#"{"inputs":{"source_sentence":"a","sentences":["b","c"]}}"#;
    assert_eq!(written(&parsed("/similarity", body), &similarity), "[0.6,-1.0]");
}

#[test]
fn ollama_s_clients_read_a_list_or_the_only_vector() {
    assert_eq!(
        answered("/api/embed", r#"{"model":"m","input":["a","b"]}"#),
        r#"{"model":"m","embeddings":[[1.0,0.0,0.0],[0.0,-0.6,0.8]],"prompt_eval_count":7}"#
    );
    assert_eq!(answered("/api/embeddings", r#"{"model":"m","prompt":"a"}"#), r#"{"embedding":[1.0,0.0,0.0]}"#);
}

#[test]
fn more_dimensions_than_the_model_has_are_refused_with_both_numbers() {
    for (path, body, said) in [
        ("/v1/embeddings", r#"{"input":"a","dimensions":4}"#, "dimensions is 4, but"),
        ("/v2/embed", r#"{"texts":["a"],"output_dimension":4}"#, "output_dimension is 4, but"),
        ("/api/embed", r#"{"input":"a","dimensions":4}"#, "dimensions is 4, but"),
    ] {
        let error = shape(&parsed(path, body), None, &mut [vec![1.0, 0.0, 0.0]]).unwrap_err();
        assert!(error.message.starts_with(said), "{error}");
        assert!(error.message.ends_with("have 3 numbers"), "{error}");
    }
}

#[test]
fn vectors_are_normalised_unless_the_client_wants_them_as_they_are() {
    let shaped = |body: &str, vector: &[f32]| {
        let mut vectors = [vector.to_vec()];
        shape(&parsed("/embed", body), None, &mut vectors).unwrap();
        let [vector] = vectors;
        vector
    };
    assert_eq!(shaped(r#"{"inputs":"a"}"#, &[3.0, 4.0]), [0.6, 0.8]);
    assert_eq!(shaped(r#"{"inputs":"a","normalize":false}"#, &[3.0, 4.0]), [3.0, 4.0]);
    assert_eq!(shaped(r#"{"inputs":"a","dimensions":1}"#, &[3.0, 4.0]), [1.0]);
    // Without a direction, and where squares of 32 bits would overflow or vanish.
    assert_eq!(shaped(r#"{"inputs":"a"}"#, &[0.0, 0.0]), [0.0, 0.0]);
    assert_eq!(shaped(r#"{"inputs":"a"}"#, &[3e38, 0.0]), [1.0, 0.0]);
    assert_eq!(shaped(r#"{"inputs":"a"}"#, &[0.0, -1e-40]), [0.0, -1.0]);
}
