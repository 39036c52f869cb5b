//! The description of the API: each of its examples is answered by the real llama-server as its schema says.

use serde_json::{Value, json};

use super::support::{
    client::{Client, Response},
    gateway::{ADMIN, Gateway},
};

/// One model of each kind, whose names stand in the examples.
pub(super) const MODELS: &str = "
models:
  chat-model: {file: tiny-chat.gguf}
  embedding-model: {file: tiny-embedding.gguf}
  rerank-model: {file: tiny-rerank.gguf}
";

fn start() -> Gateway {
    let gateway = Gateway::builder().reals(MODELS).start();
    gateway.wait_ready();
    gateway
}

fn document(gateway: &Gateway) -> Value {
    let answer = gateway.anonymous().get("/openapi.json");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.json()
}

/// An operation of the document.
struct Operation<'a> {
    method: String,
    path: &'a str,
    text: &'a Value,
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let items = document["paths"].as_object().unwrap().iter();
    items
        .flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, text)| Operation {
                method: method.to_ascii_uppercase(),
                path,
                text,
            })
        })
        .collect()
}

/// Sends the example of an operation, if it has one: a body, or a query.
fn try_example(client: &Client, operation: &Operation<'_>) -> Option<Response> {
    let body = &operation.text["requestBody"]["content"]["application/json"]["example"];
    if body.is_object() {
        return Some(client.send(&operation.method, operation.path, body.to_string().as_bytes()));
    }
    let query = operation.text["x-llamagate-example-query"].as_str()?;
    Some(client.send(&operation.method, &format!("{}?{query}", operation.path), b""))
}

/// Returns what is wrong with a value, by a schema of the document: types, required members, constants and choices.
fn faults(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return faults(document, document.pointer(reference.trim_start_matches('#')).unwrap(), value, place);
    }
    let mut found = Vec::new();
    if let Some(choices) = schema["anyOf"].as_array() {
        let all: Vec<Vec<String>> = choices.iter().map(|one| faults(document, one, value, place)).collect();
        if all.iter().all(|faults| !faults.is_empty()) {
            found.push(format!("{place}: none of the choices fits: {all:?}"));
        }
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        found.extend(faults(document, part, value, place));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| has_type(value, name)) {
        found.push(format!("{place}: {types:?} expected, {value}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{place}: {} expected, {value}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|choices| !choices.contains(value)) {
        found.push(format!("{place}: one of {} expected, {value}", schema["enum"]));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(name).is_none() {
            found.push(format!("{place}: {name} is missing"));
        }
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(member) = value.get(name) {
            found.extend(faults(document, schema, member, &format!("{place}.{name}")));
        }
    }
    if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
        for (index, item) in items.iter().enumerate() {
            found.extend(faults(document, schema, item, &format!("{place}[{index}]")));
        }
    }
    found
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("{other} is no type"),
    }
}

#[test]
fn each_example_is_answered_as_its_schema_says() {
    let gateway = start();
    let document = document(&gateway);
    let (mut tried, mut wrong) = (0, Vec::new());
    for operation in operations(&document) {
        let client = match operation.text["x-llamagate-ports"][0].as_str() {
            Some("health") => gateway.health(),
            _ => gateway.client_with(ADMIN),
        };
        let Some(answer) = try_example(&client, &operation) else { continue };
        let name = format!("{} {}", operation.method, operation.path);
        tried += 1;
        let Some(described) = operation.text["responses"].get(answer.status().to_string()) else {
            wrong.push(format!("{name}: status {} is not described: {}", answer.status(), answer.text()));
            continue;
        };
        if !(200..300).contains(&answer.status()) {
            wrong.push(format!("{name}: {} {}", answer.status(), answer.text()));
        } else if let Some(schema) = described.pointer("/content/application~1json/schema") {
            wrong.extend(faults(&document, schema, &answer.json(), &name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(tried > 60, "{tried} examples were tried");
}

#[test]
fn each_example_fits_the_schema_of_its_request() {
    let gateway = Gateway::builder().start();
    let document = document(&gateway);
    for operation in operations(&document) {
        let content = &operation.text["requestBody"]["content"]["application/json"];
        if content["example"].is_object() {
            let found = faults(&document, &content["schema"], &content["example"], operation.path);
            assert!(found.is_empty(), "{found:#?}");
        }
    }
}

#[test]
fn a_refusal_looks_as_it_is_described() {
    let gateway = Gateway::builder().start();
    let document = document(&gateway);
    for (path, body) in [
        ("/v1/chat/completions", json!({"messages": []})),
        ("/v1/messages", json!({"messages": []})),
        ("/v1/embeddings", json!({"input": "x"})),
        ("/embed", json!({"inputs": "x"})),
        ("/api/chat", json!({"model": "x"})),
        ("/keys", json!({"name": "x"})),
    ] {
        let refused = gateway.anonymous().post_json(path, &body);
        let place = format!("/paths/{}/post/responses/{}/$ref", path.replace('/', "~1"), refused.status());
        let described = document.pointer(&place).and_then(Value::as_str).unwrap_or_else(|| panic!("{place}"));
        let described = document.pointer(described.trim_start_matches('#')).unwrap();
        let schema = &described["content"]["application/json"]["schema"];
        let found = faults(&document, schema, &refused.json(), path);
        assert!(refused.status() == 401 && found.is_empty(), "{found:#?}");
    }
}

#[test]
fn the_document_needs_no_page_and_the_pages_of_it_do() {
    let gateway = Gateway::builder().set("UI_ENABLED", false).start();
    assert_eq!(gateway.anonymous().get("/openapi.json").status(), 200);
    for path in ["/docs", "/redoc", "/ui/docs/swagger-ui.js"] {
        assert_eq!(gateway.anonymous().get(path).status(), 404, "{path}");
    }
}

#[test]
fn the_pages_of_the_document_are_whole_and_packed() {
    let gateway = Gateway::builder().start();
    for (path, files) in
        [("/docs", ["swagger-ui.js", "swagger-ui.css", "start.js"].as_slice()), ("/redoc", &["redoc.js", "start.js"])]
    {
        let page = gateway.anonymous().get(path);
        assert_eq!((page.status(), page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
        for file in files {
            let file = format!("ui{path}/{file}");
            assert!(page.text().contains(&format!("\"{file}\"")), "{file}");
            let packed = gateway.anonymous().header("Accept-Encoding", "gzip").get(&format!("/{file}"));
            assert_eq!((packed.status(), packed.header("Content-Encoding")), (200, Some("gzip")), "{file}");
            let etag = packed.header("ETag").unwrap().to_owned();
            let again = gateway.anonymous().header("Accept-Encoding", "gzip").header("If-None-Match", &etag);
            assert_eq!(again.get(&format!("/{file}")).status(), 304, "{file}");
        }
    }
    let document = gateway.anonymous().get("/openapi.json");
    let again = gateway.anonymous().header("If-None-Match", document.header("ETag").unwrap());
    assert_eq!(again.get("/openapi.json").status(), 304);
}
