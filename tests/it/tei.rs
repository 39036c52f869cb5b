//! What clients of text-embeddings-inference ask beside scores and embeddings: `/info` and `/tokenize`.

use serde_json::{Value, json};

use super::support::gateway::{Backend, Gateway};

#[test]
fn info_describes_the_only_model_without_a_key() {
    let gateway = Gateway::builder().backend(Backend::Real { model: "tiny-rerank.gguf" }).start_ready();
    let info = gateway.anonymous().get("/info");
    assert_eq!(info.status(), 200, "{}", info.text());
    let info = info.json();
    assert_eq!(info["model_id"], "tiny-rerank");
    assert_eq!(info["model_type"], json!({"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}));
    assert_eq!((&info["max_client_batch_size"], &info["max_concurrent_requests"]), (&json!(1000), &json!(1)));
    assert!(info["max_input_length"].as_u64().unwrap() > 0 && info["version"].is_string(), "{info}");

    let chat = Gateway::builder().start_ready().anonymous().get("/info");
    assert_eq!((chat.status(), &chat.json()["error_type"]), (404, &json!("Validation")), "{}", chat.text());
}

#[test]
fn of_several_models_info_describes_the_default_or_the_named_one() {
    let config = |defaults: &str| {
        format!(
            "models: {{e: {{file: tiny-embedding.gguf}}, r: {{file: tiny-rerank.gguf, aliases: [ranks]}}, \
             c: {{file: tiny-chat.gguf}}, u: {{file: tiny-rerank.gguf, unlisted: true}}}}\n{defaults}"
        )
    };
    let info = |gateway: &Gateway, query: &str| {
        let answer = gateway.anonymous().get(&format!("/info{query}"));
        let body = answer.json();
        (answer.status(), body["model_id"].as_str().or(body["error"].as_str()).unwrap().to_owned())
    };
    let gateway = Gateway::builder().reals(&config("")).start();
    let (status, words) = info(&gateway, "");
    assert!(status == 404 && words.contains("name one with ?model=ID") && words.ends_with("e, r"), "{words}");
    assert_eq!(info(&gateway, "?model=e"), (200, "e".to_owned()));
    assert_eq!(info(&gateway, "?model=ranks"), (200, "r".to_owned()));
    assert_eq!(
        gateway.anonymous().get("/info?model=e").json()["model_type"],
        json!({"embedding": {"pooling": "mean"}})
    );
    for other in ["?model=c", "?model=none", "?model=u"] {
        assert_eq!(info(&gateway, other).0, 404, "{other}");
    }
    let gateway = Gateway::builder().reals(&config("default_models: {embedding: e}")).start();
    assert_eq!(info(&gateway, ""), (200, "e".to_owned()));
}

/// Regression: Dify counts tokens before it embeds, and its request without a model was a 404 beside other models.
#[test]
fn tokens_of_no_named_model_are_those_of_the_model_that_info_describes() {
    let config = "models: {e: {file: tiny-embedding.gguf}, r: {file: tiny-rerank.gguf}}\n";
    for (defaults, served_by) in [("default_models: {embedding: e}", Some("e")), ("", None)] {
        let gateway = Gateway::builder().reals(&format!("{config}{defaults}")).start();
        let answer = gateway.client().post_json("/tokenize", &json!({"inputs": ["the small bird"]}));
        assert_eq!(answer.header("x-llamagate-model"), served_by, "{}", answer.text());
        match served_by {
            Some(_) => assert_eq!((answer.status(), answer.json()[0][0]["special"].as_bool()), (200, Some(true))),
            None => assert_eq!((answer.status(), &answer.json()["error_type"]), (404, &json!("Validation"))),
        }
    }
}

#[test]
fn tokens_are_given_in_the_form_that_the_body_asks_for() {
    let gateway = Gateway::builder().backend(Backend::Real { model: "tiny-rerank.gguf" }).start_ready();
    let ask = |body: &Value| gateway.client().post_json("/tokenize", body);
    let own = ask(&json!({"content": "the small bird", "add_special": true})).json();
    let ids = own["tokens"].as_array().unwrap_or_else(|| panic!("llama-server's own form: {own}"));

    let theirs = ask(&json!({"inputs": "the small bird"}));
    assert_eq!(theirs.status(), 200, "{}", theirs.text());
    let theirs = theirs.json();
    assert_eq!(theirs.as_array().unwrap().len(), 1, "a list for the only text: {theirs}");
    let tokens = theirs[0].as_array().unwrap();
    assert_eq!(tokens.iter().map(|token| token["id"].clone()).collect::<Vec<_>>(), *ids, "{theirs}");
    let special = |token: &Value| token["special"] == true && token["start"].is_null() && token["stop"].is_null();
    assert!(special(&tokens[0]) && special(tokens.last().unwrap()), "{theirs}");
    for token in &tokens[1..tokens.len() - 1] {
        let at = |name: &str| token[name].as_u64().unwrap() as usize;
        assert_eq!(&"the small bird"[at("start")..at("stop")], token["text"].as_str().unwrap(), "{theirs}");
        assert_eq!(token["special"], false);
    }

    let two = ask(&json!({"inputs": ["the small bird", "the"], "add_special_tokens": false})).json();
    assert_eq!((two.as_array().unwrap().len(), &two[0]), (2, &json!(tokens[1..tokens.len() - 1])), "{two}");
    let refused = ask(&json!({"inputs": ["a", 7]}));
    assert_eq!(
        (refused.status(), refused.json()),
        (400, json!({"error": "inputs[1] must be a string", "error_type": "Validation"}))
    );
    assert_eq!(gateway.anonymous().post_json("/tokenize", &json!({"inputs": "a"})).status(), 401);
}
