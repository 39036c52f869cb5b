//! Embeddings in every dialect that clients speak, with the real llama-server: what they send, what they read.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::accounts::access_log_line;
use super::support::{
    client::{Client, Response},
    gateway::{Gateway, USER},
    page_commands::{CommandOutput, run_page_where},
    remote::{Remote, Reply},
    wait::{REAL_MODEL_READY, eventually},
};

const OPENAI: &str = "/v1/embeddings";
/// The numbers of a vector of the test model.
const WIDTH: usize = 64;
/// Texts whose vectors differ.
const TEXTS: [&str; 2] = ["a small bird", "rain falls on the road"];

/// Models that differ in their settings only. The first one has a context that a test can fill.
const FLEET: &str = "
default_models: {embedding: embed}
models:
  embed: {file: tiny-embedding.gguf, ctx: 64, parallel: 2, prompts: {query: \"hello \", document: \"rain \", sts: \"the \"}}
  half: {file: tiny-embedding.gguf, dimensions: 32}
  listed: {file: tiny-embedding.gguf, dimensions: [8, 16]}
";

fn serving(config: &str) -> Gateway {
    let gateway = Gateway::builder().reals(config).start();
    gateway.wait_ready();
    gateway
}

#[track_caller]
fn ask(client: &Client, path: &str, body: &Value) -> Value {
    let answer = client.post_json(path, body);
    assert_eq!(answer.status(), 200, "{path} {:.200}: {}", body.to_string(), answer.text());
    answer.json()
}

#[track_caller]
fn refused(client: &Client, path: &str, body: &Value, status: u16) -> Response {
    let answer = client.post_json(path, body);
    assert_eq!(answer.status(), status, "{path} {:.200}: {}", body.to_string(), answer.text());
    answer
}

/// Returns the numbers of an array.
#[track_caller]
fn numbers(vector: &Value) -> Vec<f64> {
    let numbers = vector.as_array().unwrap_or_else(|| panic!("no vector: {vector}"));
    numbers.iter().map(|number| number.as_f64().unwrap_or_else(|| panic!("no number: {number}"))).collect()
}

/// Returns the bytes of a vector in base64.
#[track_caller]
fn bytes(text: &Value) -> Vec<u8> {
    STANDARD.decode(text.as_str().unwrap_or_else(|| panic!("no text: {text}"))).unwrap()
}

/// Returns the floats of a vector in base64.
#[track_caller]
fn floats(text: &Value) -> Vec<f64> {
    bytes(text).chunks(4).map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap()))).collect()
}

#[track_caller]
fn assert_same(one: &[f64], other: &[f64]) {
    assert_eq!(one.len(), other.len());
    let worst = one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-4, "they differ by {worst}");
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|number| number * number).sum::<f64>().sqrt()
}

/// Returns the first numbers of a vector, scaled to length 1.
fn cut(vector: &[f64], count: usize) -> Vec<f64> {
    let whole = length(&vector[..count]);
    vector[..count].iter().map(|number| number / whole).collect()
}

/// Returns the vectors that llama-server itself gives for these texts: the request passes untouched.
fn plain(client: &Client, model: &str, texts: &[&str]) -> Vec<Vec<f64>> {
    let answer = ask(client, OPENAI, &json!({"model": model, "input": texts}));
    answer["data"].as_array().unwrap().iter().map(|entry| numbers(&entry["embedding"])).collect()
}

/// Each row of what clients send and read: the path, the request, and where its answer has the vectors of both texts.
#[test]
fn every_client_reads_its_own_answer() {
    let gateway = serving(FLEET);
    let client = gateway.client();
    let own = plain(&client, "half", &TEXTS);
    assert_eq!(own[0].len(), 32, "the default of the model is obeyed in a plain request");
    let own = plain(&client, "embed", &TEXTS);
    assert!(own[0].len() == WIDTH && (length(&own[0]) - 1.0).abs() < 1e-4);
    let objects = json!(TEXTS.map(|text| json!({"text": text})));
    let contents = json!(TEXTS.map(|text| json!({"content": [{"type": "text", "text": text}]})));
    let openai = ["/data/0/embedding", "/data/1/embedding"];
    let list = ["/embeddings/0", "/embeddings/1"];
    let by_type = ["/embeddings/float/0", "/embeddings/float/1"];
    let bare = ["/0", "/1"];
    for (path, body, places) in [
        (OPENAI, json!({"input": TEXTS, "user": "me"}), openai),
        (OPENAI, json!({"input": TEXTS, "dimensions": WIDTH}), openai),
        (OPENAI, json!({"input": TEXTS, "encoding_format": null}), openai),
        (OPENAI, json!({"input": objects}), openai),
        (
            OPENAI,
            json!({"input": objects, "task": "text-matching", "normalized": true, "late_chunking": false}),
            openai,
        ),
        (OPENAI, json!({"input": TEXTS, "embedding_type": "float", "truncate": true}), openai),
        (OPENAI, json!({"input": TEXTS, "input_type": null, "truncation": true, "output_dtype": "float"}), openai),
        (OPENAI, json!({"input": TEXTS, "output_dimension": WIDTH, "modality": "text"}), openai),
        ("/embeddings", json!({"input": TEXTS}), openai),
        ("/embeddings", json!({"input": TEXTS, "encoding_format": "float", "modality": "text"}), openai),
        ("/v1/embed", json!({"texts": TEXTS, "truncate": null}), list),
        ("/v1/embed", json!({"texts": TEXTS, "input_type": "classification", "embedding_types": ["float"]}), by_type),
        ("/v2/embed", json!({"texts": TEXTS, "input_type": "clustering", "embedding_types": ["float"]}), by_type),
        ("/v2/embed", json!({"inputs": contents, "input_type": "clustering", "embedding_types": ["float"]}), by_type),
        ("/embed", json!({"inputs": TEXTS}), bare),
        ("/embed", json!({"inputs": TEXTS, "normalize": true, "truncate": true, "prompt_name": null}), bare),
        ("/", json!({"inputs": TEXTS}), bare),
    ] {
        let mut body = body;
        body["model"] = json!("embed");
        let answer = ask(&client, path, &body);
        for (place, own) in places.iter().zip(&own) {
            assert_same(&numbers(answer.pointer(place).unwrap_or_else(|| panic!("{path} {body}: {answer}"))), own);
        }
    }
    the_members_beside_the_vectors_are_there(&client);
    let own_form = ask(&client, "/embeddings", &json!({"model": "embed", "content": TEXTS[0]}));
    assert_same(&numbers(&own_form[0]["embedding"][0]), &own[0]);
}

fn the_members_beside_the_vectors_are_there(client: &Client) {
    let openai = ask(client, OPENAI, &json!({"model": "embed", "input": TEXTS, "dimensions": 8}));
    assert_eq!((&openai["object"], &openai["model"]), (&json!("list"), &json!("embed")));
    assert_eq!(openai["data"][1]["index"], 1);
    let plain = ask(client, OPENAI, &json!({"model": "embed", "input": TEXTS}));
    assert_eq!(openai["usage"], plain["usage"]);
    let tokens = &plain["usage"]["prompt_tokens"];
    let v1 = ask(client, "/v1/embed", &json!({"model": "embed", "texts": TEXTS}));
    assert_eq!((&v1["response_type"], &v1["texts"]), (&json!("embeddings_floats"), &json!(TEXTS)));
    assert_eq!(
        (&v1["meta"]["api_version"]["version"], &v1["meta"]["billed_units"]["input_tokens"]),
        (&json!("1"), tokens)
    );
    let v2 = ask(client, "/v2/embed", &json!({"model": "embed", "texts": TEXTS, "input_type": "classification"}));
    assert_eq!(
        (&v2["response_type"], &v2["meta"]["api_version"]["version"]),
        (&json!("embeddings_by_type"), &json!("2"))
    );
    assert!(v2["id"].as_str().is_some_and(|id| !id.is_empty()));
    let similarity = json!({"source_sentence": TEXTS[0], "sentences": [TEXTS[1], TEXTS[0]]});
    let similarity = numbers(&ask(client, "/similarity", &json!({"inputs": similarity, "model": "embed"})));
    assert!(similarity[0] < 0.999 && (similarity[1] - 1.0).abs() < 1e-4, "{similarity:?}");
}

#[test]
fn dimensions_cut_the_vectors_and_make_their_length_one_again() {
    let gateway = serving(FLEET);
    let client = gateway.client();
    let own = &plain(&client, "embed", &TEXTS[..1])[0];
    for count in [1, 8, WIDTH] {
        let body = json!({"model": "embed", "input": TEXTS[0], "dimensions": count});
        assert_same(&numbers(&ask(&client, OPENAI, &body)["data"][0]["embedding"]), &cut(own, count));
        let body = json!({"model": "embed", "input": TEXTS[0], "dimensions": count, "encoding_format": "base64"});
        assert_same(&floats(&ask(&client, OPENAI, &body)["data"][0]["embedding"]), &cut(own, count));
        let body =
            json!({"model": "embed", "texts": [TEXTS[0]], "output_dimension": count, "input_type": "image_search"});
        assert_same(&numbers(&ask(&client, "/v2/embed", &body)["embeddings"]["float"][0]), &cut(own, count));
        let body = json!({"model": "embed", "inputs": TEXTS[0], "dimensions": count});
        assert_same(&numbers(&ask(&client, "/embed", &body)[0]), &cut(own, count));
    }
    for (path, body, field) in [
        (OPENAI, json!({"model": "embed", "input": "a", "dimensions": WIDTH + 1}), "dimensions"),
        (OPENAI, json!({"model": "embed", "input": "a", "dimensions": 0}), "dimensions"),
        (OPENAI, json!({"model": "embed", "input": "a", "dimensions": 8, "output_dimension": 9}), "output_dimension"),
        ("/v2/embed", json!({"model": "embed", "texts": ["a"], "output_dimension": 999}), "output_dimension"),
        ("/embed", json!({"model": "embed", "inputs": "a", "dimensions": 65}), "dimensions"),
    ] {
        let answer = refused(&client, path, &body, 400).json();
        assert!(answer.to_string().contains(field), "{answer}");
    }
    // A model with a default, and one with a list, which allows its own length too.
    let asked = |model: &str, body: Value| {
        let mut body = body;
        body["model"] = json!(model);
        body["input"] = json!(TEXTS[0]);
        ask(&client, OPENAI, &body)["data"][0]["embedding"].clone()
    };
    assert_same(&numbers(&asked("half", json!({}))), &cut(own, 32));
    assert_same(&floats(&asked("half", json!({"encoding_format": "base64"}))), &cut(own, 32));
    assert_same(&numbers(&asked("half", json!({"dimensions": 40}))), &cut(own, 40));
    assert_eq!(ask(&client, "/embed", &json!({"model": "half", "inputs": "a"}))[0].as_array().unwrap().len(), 32);
    assert_same(&numbers(&asked("listed", json!({}))), own);
    assert_same(&numbers(&asked("listed", json!({"dimensions": 16}))), &cut(own, 16));
    assert_same(&numbers(&asked("listed", json!({"dimensions": WIDTH}))), own);
    let other = refused(&client, OPENAI, &json!({"model": "listed", "input": "a", "dimensions": 32}), 400).json();
    assert_eq!(
        (&other["error"]["code"], &other["error"]["param"]),
        (&json!("invalid_parameter"), &json!("dimensions"))
    );
    assert!(other["error"]["message"].as_str().is_some_and(|text| text.contains("8, 16")), "{other}");
}

#[test]
fn a_tier_has_a_default_length_of_its_vectors() {
    let model = super::support::gateway::test_models().join("tiny-embedding.gguf");
    let settings = [("EMBEDDING_EMBEDDING_DIMENSION", "16")];
    let gateway =
        Gateway::builder().reals("{}").set("EMBEDDING_MODEL_PATH", model.display()).set_all(&settings).start();
    let answer = ask(&gateway.client(), OPENAI, &json!({"model": "embedding", "input": "a"}));
    assert_eq!(answer["data"][0]["embedding"].as_array().unwrap().len(), 16);
    assert!(!gateway.output().contains("EMBEDDING_DIMENSION"), "{}", gateway.output());
}

#[test]
fn vectors_come_in_the_number_types_of_the_vendors() {
    let gateway = serving(FLEET);
    let client = gateway.client();
    let own = &plain(&client, "embed", &TEXTS[..1])[0];
    let int8: Vec<f64> = own.iter().map(|number| (number * 127.0).round()).collect();
    let bits = |offset: f64| -> Vec<f64> {
        let byte = |eight: &[f64]| eight.iter().fold(0, |byte, number| byte * 2 + u8::from(*number > 0.0));
        own.chunks(8).map(|eight| f64::from(byte(eight)) - offset).collect()
    };
    let expected = BTreeMap::from([
        ("int8", int8.clone()),
        ("uint8", int8.iter().map(|number| number + 128.0).collect()),
        ("binary", bits(128.0)),
        ("ubinary", bits(0.0)),
    ]);
    let types: Vec<&str> = expected.keys().copied().chain(["float", "base64"]).collect();
    let by_type =
        json!({"model": "embed", "texts": [TEXTS[0]], "embedding_types": types, "input_type": "classification"});
    let by_type = [ask(&client, "/v1/embed", &by_type), ask(&client, "/v2/embed", &by_type)];
    for (name, expected) in &expected {
        let near = |found: &[f64]| {
            assert_eq!(found.len(), expected.len(), "{name}");
            let is_near =
                |(one, other): (&f64, &f64)| (one - other).abs() <= if name.contains("int8") { 1.0 } else { 0.0 };
            assert!(found.iter().zip(expected).all(is_near), "{name}: {found:?}, and not {expected:?}");
        };
        by_type.iter().for_each(|answer| near(&numbers(&answer["embeddings"][name][0])));
        for field in ["output_dtype", "embedding_type"] {
            let answer = ask(&client, OPENAI, &json!({"model": "embed", "input": TEXTS[0], field: name}));
            near(&numbers(&answer["data"][0]["embedding"]));
        }
        // As the client of Voyage asks, which reads the bytes as numbers of that type.
        let body = json!({"model": "embed", "input": TEXTS[0], "output_dtype": name, "encoding_format": "base64"});
        let packed = bytes(&ask(&client, OPENAI, &body)["data"][0]["embedding"]);
        let is_signed = matches!(*name, "int8" | "binary");
        let number = |byte: &u8| if is_signed { f64::from(byte.cast_signed()) } else { f64::from(*byte) };
        near(&packed.iter().map(number).collect::<Vec<f64>>());
    }
    for answer in &by_type {
        assert_same(&numbers(&answer["embeddings"]["float"][0]), own);
        assert_same(&floats(&answer["embeddings"]["base64"][0]), own);
    }
    let body = json!({"model": "embed", "input": TEXTS[0], "embedding_type": "base64"});
    assert_same(&floats(&ask(&client, OPENAI, &body)["data"][0]["embedding"]), own);
    for (path, body, field) in [
        (OPENAI, json!({"model": "embed", "input": "a", "output_dtype": "int4"}), "output_dtype"),
        (OPENAI, json!({"model": "embed", "input": "a", "embedding_type": "half"}), "embedding_type"),
        ("/v2/embed", json!({"model": "embed", "texts": ["a"], "embedding_types": ["int4"]}), "embedding_types"),
    ] {
        assert!(refused(&client, path, &body, 400).text().contains(field), "{body}");
    }
}

/// Regression: one text that was too long was a 500 for the whole request, which clients repeated.
#[test]
fn a_text_that_is_too_long_is_named_or_cut_and_its_neighbours_stay() {
    let gateway = serving(FLEET);
    let client = gateway.client();
    let words: Vec<&str> = "hello rain bird road the".split(' ').cycle().take(300).collect();
    let long = words.join(" ");
    let texts = json!([TEXTS[0], long, TEXTS[1]]);
    let own = plain(&client, "embed", &TEXTS);
    for (path, body, name) in [
        (OPENAI, json!({"model": "embed", "input": texts, "dimensions": WIDTH}), "input[1]"),
        (OPENAI, json!({"model": "embed", "input": texts, "truncation": false}), "input[1]"),
        ("/v1/embed", json!({"model": "embed", "texts": texts, "truncate": "NONE"}), "texts[1]"),
        ("/embed", json!({"model": "embed", "inputs": texts}), "inputs[1]"),
        ("/embed", json!({"model": "embed", "inputs": texts, "truncate": false}), "inputs[1]"),
    ] {
        let answer = refused(&client, path, &body, 400);
        assert!(answer.text().contains(&format!("{name} has ")), "{}", answer.text());
    }
    // What is left: tokens from the beginning or the end, between those that the model puts around a text.
    let body = json!({"model": "embed", "content": long, "add_special": true});
    let tokens = numbers(&ask(&client, "/tokenize", &body)["tokens"]);
    let (first, last) = (&tokens[..1], &tokens[tokens.len() - 1..]);
    let end = [&tokens[..63], last].concat();
    let start = [first, &tokens[tokens.len() - 63..]].concat();
    let of_tokens = |tokens: &[f64]| {
        let ids: Vec<u32> = tokens.iter().map(|id| *id as u32).collect();
        numbers(&ask(&client, OPENAI, &json!({"model": "embed", "input": ids}))["data"][0]["embedding"])
    };
    let (end, start) = (of_tokens(&end), of_tokens(&start));
    for (path, body, place, expected) in [
        (OPENAI, json!({"input": texts, "truncate": true}), "/data/{}/embedding", &end),
        (OPENAI, json!({"input": texts, "truncation": true}), "/data/{}/embedding", &end),
        (OPENAI, json!({"input": texts, "truncate_prompt_tokens": -1}), "/data/{}/embedding", &end),
        (
            OPENAI,
            json!({"input": texts, "truncate_prompt_tokens": -1, "truncation_side": "left"}),
            "/data/{}/embedding",
            &start,
        ),
        ("/v1/embed", json!({"texts": texts}), "/embeddings/{}", &end),
        ("/v2/embed", json!({"texts": texts, "truncate": "END"}), "/embeddings/float/{}", &end),
        ("/v2/embed", json!({"texts": texts, "truncate": "START"}), "/embeddings/float/{}", &start),
        ("/embed", json!({"inputs": texts, "truncate": true}), "/{}", &end),
        ("/embed", json!({"inputs": texts, "truncate": true, "truncation_direction": "left"}), "/{}", &start),
    ] {
        let mut body = body;
        body["model"] = json!("embed");
        let answer = ask(&client, path, &body);
        let at = |index: &str| numbers(answer.pointer(&place.replace("{}", index)).unwrap());
        assert_same(&at("1"), expected);
        assert_same(&at("0"), &own[0]);
        assert_same(&at("2"), &own[1]);
    }
    // Exactly as many tokens as the context has is not too many.
    let whole = json!({"model": "embed", "content": "hello"});
    let each = ask(&client, "/tokenize", &whole)["tokens"].as_array().unwrap().len();
    let most = vec!["hello"; 62 / each].join(" ");
    ask(&client, OPENAI, &json!({"model": "embed", "input": most, "dimensions": 8}));
    // Ids of tokens are cut in the same way.
    let ids = json!(vec![5; 100]);
    let answer = refused(&client, OPENAI, &json!({"model": "embed", "input": [[5], ids], "dimensions": 8}), 400);
    assert!(answer.text().contains("input[1] has 100 tokens"), "{}", answer.text());
    let cut = ask(&client, OPENAI, &json!({"model": "embed", "input": [[5], ids], "truncate": true}));
    assert_eq!(cut["usage"]["prompt_tokens"], 65);
    // A request may want less than the context.
    let few = ask(&client, OPENAI, &json!({"model": "embed", "input": long, "truncate_prompt_tokens": 9}));
    assert_eq!(few["usage"]["prompt_tokens"], 9);
}

#[test]
fn token_ids_are_embedded_with_and_without_dimensions() {
    let gateway = serving(FLEET);
    let client = gateway.client();
    let ids = ask(&client, "/tokenize", &json!({"model": "embed", "content": TEXTS[0], "add_special": true}))["tokens"]
        .clone();
    let own = &plain(&client, "embed", &TEXTS[..1])[0];
    for input in [ids.clone(), json!([ids]), json!([ids, TEXTS[1]])] {
        let answer = ask(&client, OPENAI, &json!({"model": "embed", "input": input, "dimensions": 8}));
        assert_same(&numbers(&answer["data"][0]["embedding"]), &cut(own, 8));
        let answer = ask(&client, OPENAI, &json!({"model": "embed", "input": input}));
        assert_same(&numbers(&answer["data"][0]["embedding"]), own);
    }
}

#[test]
fn errors_come_in_the_shape_of_the_dialect() {
    let gateway = serving(FLEET);
    let client = gateway.client();
    let error = |path: &str, body: Value, status| refused(&client, path, &body, status).json();
    let openai = error(OPENAI, json!({"model": "embed", "input": [], "dimensions": 8}), 400);
    assert_eq!((&openai["error"]["code"], &openai["error"]["param"]), (&json!("invalid_parameter"), &json!("input")));
    assert_eq!(openai["detail"], openai["error"]["message"], "for the clients of Voyage and Jina");
    for path in ["/v1/embed", "/v2/embed"] {
        assert_eq!(error(path, json!({"model": "embed"}), 400)["message"], "texts is missing");
        let images = json!({"model": "embed", "images": ["data:"], "input_type": "image"});
        assert!(error(path, images, 400)["message"].as_str().unwrap().contains("images"));
    }
    for path in ["/embed", "/", "/similarity"] {
        let tei = error(path, json!({"model": "embed"}), 400);
        assert_eq!(tei, json!({"error": "inputs is missing", "error_type": "Validation"}));
    }
    for (path, body) in [
        ("/embed_sparse", json!({"model": "embed", "inputs": "a"})),
        ("/embed_all", json!({"model": "embed", "inputs": "a"})),
    ] {
        assert!(error(path, body, 400)["error"].as_str().is_some_and(|text| text.contains("vectors")));
    }
    for body in [
        json!({"input": "a", "embedding_type": "sparse"}),
        json!({"input": "a", "return_colbert": true}),
        json!({"input": "a", "late_chunking": true}),
        json!({"input": [{"image": "x"}], "dimensions": 8}),
        json!({"input": "a", "modality": "image"}),
    ] {
        let mut body = body;
        body["model"] = json!("embed");
        error(OPENAI, body, 400);
    }
    let unknown = gateway.client_with("unknown-secret-0123456789").post_json("/embed", &json!({"inputs": "a"}));
    assert_eq!(unknown.status(), 401);
    assert!(unknown.json()["error"].is_string(), "{}", unknown.text());
    let unknown = gateway.anonymous().post_json("/v2/embed", &json!({"texts": ["a"]}));
    assert!(unknown.status() == 401 && unknown.json()["message"].is_string(), "{}", unknown.text());
}

#[test]
fn prompts_stand_before_inputs_that_say_what_they_are() {
    let gateway = serving(FLEET);
    let client = gateway.client();
    let prompted = |prompt: &str| plain(&client, "embed", &[&format!("{prompt}{}", TEXTS[0])])[0].clone();
    let (query, document, sts, none) = (prompted("hello "), prompted("rain "), prompted("the "), prompted(""));
    for (path, body, place, expected) in [
        (OPENAI, json!({"input": TEXTS[0], "input_type": "query"}), "/data/0/embedding", &query),
        (OPENAI, json!({"input": TEXTS[0], "input_type": "document"}), "/data/0/embedding", &document),
        (OPENAI, json!({"input": TEXTS[0], "task": "retrieval.query"}), "/data/0/embedding", &query),
        (OPENAI, json!({"input": TEXTS[0], "task": "retrieval.passage"}), "/data/0/embedding", &document),
        (OPENAI, json!({"input": TEXTS[0], "task": "classification"}), "/data/0/embedding", &none),
        (OPENAI, json!({"input": TEXTS[0]}), "/data/0/embedding", &none),
        ("/v2/embed", json!({"texts": [TEXTS[0]], "input_type": "search_query"}), "/embeddings/float/0", &query),
        ("/v1/embed", json!({"texts": [TEXTS[0]], "input_type": "search_document"}), "/embeddings/0", &document),
        ("/v1/embed", json!({"texts": [TEXTS[0]], "input_type": "clustering"}), "/embeddings/0", &none),
        ("/embed", json!({"inputs": TEXTS[0], "prompt_name": "sts"}), "/0", &sts),
        ("/embed", json!({"inputs": TEXTS[0], "prompt_name": "query"}), "/0", &query),
    ] {
        let mut body = body;
        body["model"] = json!("embed");
        assert_same(&numbers(ask(&client, path, &body).pointer(place).unwrap()), expected);
    }
    let unknown = refused(&client, "/embed", &json!({"model": "embed", "inputs": "a", "prompt_name": "other"}), 400);
    let message = unknown.json()["error"].as_str().unwrap().to_owned();
    assert!(message.contains("\"other\"") && message.contains("query, document, sts"), "{message}");
    refused(&client, "/embed", &json!({"model": "half", "inputs": "a", "prompt_name": "query"}), 400);
    refused(&client, OPENAI, &json!({"model": "embed", "input": [5], "input_type": "query"}), 400);
    // The prompt stays where the text is cut.
    let long = vec!["bird"; 300].join(" ");
    for cut in ["START", "END"] {
        let body = json!({"model": "embed", "texts": [long], "truncate": cut, "input_type": "search_query"});
        let whole = ask(&client, "/v1/embed", &body);
        let body = json!({"model": "embed", "content": format!("hello {long}"), "add_special": true});
        let tokens = numbers(&ask(&client, "/tokenize", &body)["tokens"]);
        let ids: Vec<u32> = tokens[..63].iter().chain(&tokens[tokens.len() - 1..]).map(|id| *id as u32).collect();
        let expected = ask(&client, OPENAI, &json!({"model": "embed", "input": ids}));
        assert_same(&numbers(&whole["embeddings"][0]), &numbers(&expected["data"][0]["embedding"]));
    }
}

#[test]
fn a_large_request_is_split_and_put_together_in_order() {
    let gateway = serving(FLEET);
    let client = gateway.client();
    // Each is another one: the digits of its place to the base of five are words.
    let word = |at: usize| ["hello", "rain", "bird", "road", "the"][at % 5];
    let texts: Vec<String> =
        (0..200).map(|at| [word(at), word(at / 5), word(at / 25), word(at / 125)].join(" ")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let own = plain(&client, "embed", &texts);
    let body = json!({"model": "embed", "input": texts, "dimensions": 16});
    let answer = ask(&client.clone().header("X-Request-Id", "many"), OPENAI, &body);
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), texts.len());
    for (at, (entry, own)) in data.iter().zip(&own).enumerate() {
        assert_eq!(entry["index"], at);
        assert_same(&numbers(&entry["embedding"]), &cut(own, 16));
    }
    let line = access_log_line(&gateway, "many");
    assert_eq!((&*line["status"], &*line["prompt_tokens"]), ("200", &*answer["usage"]["prompt_tokens"].to_string()));
    assert_eq!(line["model"], "embed");
    // One that is wrong fails all, and is named by its place in the whole request.
    let mut wrong: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
    wrong[150] = json!("bird ".repeat(500));
    let answer = refused(&client, OPENAI, &json!({"model": "embed", "input": wrong, "dimensions": 16}), 400);
    assert!(answer.text().contains("input[150] has "), "{}", answer.text());
    wrong[150] = json!([4_000_000]);
    let answer = refused(&client, OPENAI, &json!({"model": "embed", "input": wrong, "dimensions": 16}), 400);
    assert!(answer.text().contains("input[128] to input[191]"), "{}", answer.text());
}

#[test]
fn a_translated_request_is_charged_once_to_its_key() {
    let keys = format!("user:{USER}:2\n");
    let gateway = Gateway::builder().reals(FLEET).keys(&keys).start();
    gateway.wait_ready();
    let ask = || {
        let texts = vec![TEXTS[0]; 150];
        gateway
            .client()
            .post_json("/v2/embed", &json!({"model": "embed", "texts": texts, "input_type": "classification"}))
    };
    assert_eq!([ask().status(), ask().status(), ask().status()], [200, 200, 429]);
    assert!(ask().json()["message"].is_string());
}

/// Regression: members that only the backend knows were lost when the answer was cut here.
#[test]
fn a_remote_backend_gets_the_members_that_it_may_know() {
    let vectors = json!({"object": "list", "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3},
        "data": [{"object": "embedding", "index": 0, "embedding": [3.0, 4.0, 12.0]}]});
    let remote = Remote::start(Reply::Status(200, vectors));
    let config = format!(
        "models: {{prompted: {{kind: embedding, prompts: {{query: 'q: '}}}}}}\n\
         model_list:\n\
         - {{model_name: plain, litellm_params: {{api_base: '{url}'}}, model_info: {{mode: embedding}}}}\n\
         - {{model_name: prompted, litellm_params: {{api_base: '{url}'}}}}\n",
        url = remote.url()
    );
    let gateway = Gateway::builder().fakes(&config, &[]).start();
    eventually("the remote is found", REAL_MODEL_READY, || {
        let list = gateway.client().get("/v1/models").json();
        list["data"].as_array().unwrap().iter().all(|model| model["meta"]["state"] == "ready")
    });
    let sent = |body: Value| {
        let answer = ask(&gateway.client(), OPENAI, &body);
        let received = remote.received().pop().unwrap();
        (serde_json::from_str::<Value>(&received.body).unwrap(), answer)
    };
    let (body, answer) =
        sent(json!({"model": "plain", "input": "a", "input_type": "query", "dimensions": 2, "x": [1]}));
    let expected = json!({"model": "plain", "input": ["a"], "encoding_format": "base64", "input_type": "query",
        "dimensions": 2, "x": [1]});
    assert_eq!(body, expected);
    assert_same(&numbers(&answer["data"][0]["embedding"]), &[0.6, 0.8]);
    let (body, _) = sent(json!({"model": "prompted", "input": "a", "input_type": "query", "truncation": true}));
    let expected = json!({"model": "prompted", "input": ["q: a"], "encoding_format": "base64", "truncation": true});
    assert_eq!(body, expected);
    // Without a member that must be obeyed here, the request passes untouched.
    let untouched = json!({"model": "plain", "input": "a", "x": 1});
    assert_eq!(sent(untouched.clone()).0, untouched);
    // An answer that cannot be used is the backend's failure.
    remote.set_reply(Reply::Status(200, json!({"data": [{"index": 0, "embedding": [1.0, null]}]})));
    let broken = gateway.client().post_json(OPENAI, &json!({"model": "plain", "input": "a", "dimensions": 1}));
    assert_eq!((broken.status(), &broken.json()["error"]["code"]), (502, &json!("backend_error")));
}

/// Regression: sixteen calls at the same time could hold a gigabyte for one request.
#[test]
fn the_answers_to_all_parts_of_a_request_have_a_bound_together() {
    let data: Vec<Value> = (0..64).map(|at| json!({"index": at, "embedding": [3.0, 4.0]})).collect();
    let answer = |padding: usize| json!({"data": data, "padding": "x".repeat(padding)}).to_string();
    let reply = |padding: usize| Reply::whole(200, "Content-Type: application/json", answer(padding));
    let remote = Remote::start(reply(0));
    let config = format!(
        "model_list: [{{model_name: m, litellm_params: {{api_base: '{}'}}, model_info: {{mode: embedding}}}}]",
        remote.url()
    );
    let gateway = Gateway::builder().fakes(&config, &[]).start_ready();
    let ask = |parts: usize| {
        gateway.client().post_json(OPENAI, &json!({"model": "m", "input": vec!["a"; parts * 64], "dimensions": 1}))
    };
    assert_eq!(ask(5).status(), 200);
    // Each is within the bound of one answer; five are more than 256 MiB.
    remote.set_reply(reply(60 << 20));
    let refused = ask(5);
    assert_eq!((refused.status(), &refused.json()["error"]["code"]), (502, &json!("backend_error")));
    assert!(refused.text().contains("fewer inputs"), "{}", refused.text());
}

#[test]
fn every_command_of_the_page_about_embeddings_works() {
    let gateway = serving(FLEET);
    // Those about a model with heads are run in `embedding_heads`.
    for CommandOutput { command, text } in
        run_page_where("EMBEDDINGS.md", &gateway, 8, |block| !block.contains("bge-m3"))
    {
        assert!(serde_json::from_str::<Value>(&text).is_ok(), "{command}: {text}");
    }
}
