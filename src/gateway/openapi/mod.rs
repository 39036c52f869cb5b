//! The description of the API in OpenAPI 3.1, `GET /openapi.json`: every route of the table, on both ports.
//!
//! Owns how a row of the table and what a family says about it become an operation. Paths, keys and errors come from the
//! tables of routes and refusals; only what a route takes and gives is written by hand.
//!
//! - `errors.rs`: errors, from the table of refusals
//! - `families.rs`: what routes take and give, read from `schemas/`

mod errors;
mod families;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::routes::route::{ID_PLACEHOLDER, Route, RouteAccess, RoutePort, RouteTarget};
use super::routes::table::ROUTES;
use families::{Family, OperationText};

const INTRODUCTION: &str = "\
One gateway in front of llama.cpp's llama-server: keys, limits, queues, many models.

Clients of OpenAI's, Anthropic's, Ollama's, Cohere's, Jina's, Voyage's, vLLM's and text-embeddings-inference's APIs find their \
own routes. `x-llamagate-scope` is the scope that a key needs, and `x-llamagate-ports` says where a route is served. HEAD is \
allowed where GET is. An id of a model may have slashes in a path. Members of a request that are not named here go to the \
model's server as they are.";

/// Returns the document.
pub(crate) fn openapi_document() -> &'static str {
    &DOCUMENT
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    // A test reads them all, so there is no other case.
    let families = families::read_all().unwrap_or_default();
    assemble(&families).to_string()
});

fn assemble(families: &[Family]) -> Value {
    let mut schemas = errors::schemas();
    schemas.extend(families.iter().flat_map(|family| family.schemas.clone()));
    let tags: Vec<Value> =
        families.iter().map(|family| json!({"name": family.tag, "description": family.about})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "llamagate",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": {"name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "/", "description": "the gateway's port (PORT)"}],
        "tags": tags,
        "paths": paths(families),
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "a key, as `keyctl` makes them"}},
            "responses": errors::responses(),
            "schemas": schemas,
        },
    })
}

fn paths(families: &[Family]) -> Map<String, Value> {
    let mut paths = Map::new();
    for route in ROUTES {
        let Some((family, text)) = families::find(families, &name_of(route)) else { continue };
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        let method = route.method.as_str().to_ascii_lowercase();
        match methods.get_mut(&method) {
            // The same path is another route on the other port.
            Some(operation) => add_port(operation, route),
            None => methods[method] = operation(route, family, text),
        }
    }
    paths
}

/// Returns the method and the path of a route, by which families know it.
fn name_of(route: &Route) -> String {
    format!("{} {}", route.method.as_str(), route.path)
}

fn operation(route: &Route, family: &Family, text: &OperationText) -> Value {
    let mut responses = errors::of_route(route);
    responses.extend(text.more.iter().map(|(status, about)| (status.clone(), json!({"description": about}))));
    responses.insert(text.status.unwrap_or(200).to_string(), success(text));
    let mut operation = json!({
        "operationId": operation_id(route),
        "tags": [family.tag],
        "summary": summary(route),
        "responses": responses,
        "x-llamagate-ports": ports(route),
    });
    let members = [
        ("parameters", parameters(route, text)),
        ("requestBody", request_body(text)),
        ("x-llamagate-scope", scope(route)),
        ("x-llamagate-model-kind", kind(route)),
        ("x-llamagate-example-query", example_query(text)),
        ("servers", (route.port == RoutePort::Health).then(health_server)),
    ];
    for (name, value) in members {
        if let Some(value) = value {
            operation[name] = value;
        }
    }
    operation["security"] = match route.access {
        RouteAccess::Open => json!([]),
        // With METRICS_AUTH_ENABLED only.
        RouteAccess::Metrics => json!([{}, {"bearer": []}]),
        RouteAccess::Key(_) | RouteAccess::AnyKey => json!([{"bearer": []}]),
    };
    operation
}

/// Returns what a request does, without the marks of a page in Markdown.
fn summary(route: &Route) -> String {
    let about = route.about.split_once(" (see [").map_or(route.about, |(about, _)| about);
    about.replace('`', "")
}

/// Adds that an operation is another route's on the other port.
fn add_port(operation: &mut Value, route: &Route) {
    if let Some(ports) = operation["x-llamagate-ports"].as_array_mut() {
        ports.extend(ports_of(route).iter().map(|port| json!(port)));
    }
    operation["description"] = json!(format!("On the {} port: {}.", ports_of(route).join(" and the "), summary(route)));
}

fn ports(route: &Route) -> Value {
    json!(ports_of(route))
}

fn ports_of(route: &Route) -> &'static [&'static str] {
    match route.port {
        RoutePort::Gateway => &["gateway"],
        RoutePort::Health => &["health"],
        RoutePort::Both => &["gateway", "health"],
    }
}

fn health_server() -> Value {
    json!([{
        "url": "{scheme}://localhost:8001",
        "description": "the health port (PORT_HEALTH)",
        "variables": {"scheme": {"default": "http", "enum": ["http", "https"], "description": "https with TLS_HEALTH"}},
    }])
}

fn scope(route: &Route) -> Option<Value> {
    match route.access {
        RouteAccess::Open => None,
        RouteAccess::Key(scope) => Some(json!(scope.as_str())),
        RouteAccess::AnyKey => Some(json!("any")),
        RouteAccess::Metrics => Some(json!("metrics")),
    }
}

fn kind(route: &Route) -> Option<Value> {
    match route.target {
        RouteTarget::Worker(kind) => Some(json!(kind.map_or("any", |kind| kind.as_str()))),
        _ => None,
    }
}

/// Returns an id that is the same in each version, and a name in any language.
fn operation_id(route: &Route) -> String {
    let mut id = route.method.as_str().to_ascii_lowercase();
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    for word in words {
        id.push('_');
        id.push_str(word);
    }
    // `/embeddings` and `/` have different names from each other and from all else.
    if route.path == "/" { id + "_root" } else { id }
}

fn parameters(route: &Route, text: &OperationText) -> Option<Value> {
    let id = json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}});
    let in_path = route.path.contains(ID_PLACEHOLDER).then_some(id);
    let all: Vec<Value> = in_path.into_iter().chain(text.parameters.iter().cloned()).collect();
    (!all.is_empty()).then(|| Value::from(all))
}

fn request_body(text: &OperationText) -> Option<Value> {
    let (name, content_type) = match (&text.request, &text.form) {
        (Some(name), _) => (name, "application/json"),
        (None, Some(name)) => (name, "multipart/form-data"),
        (None, None) => return None,
    };
    let mut content = json!({"schema": reference(name)});
    if let Some(example) = text.example.as_ref().filter(|example| example.is_object()) {
        content["example"] = example.clone();
    }
    Some(json!({"required": !text.optional, "content": {content_type: content}}))
}

/// Returns the query with which a route that takes no body works as it stands.
fn example_query(text: &OperationText) -> Option<Value> {
    text.example.clone().filter(Value::is_string)
}

fn success(text: &OperationText) -> Value {
    let mut content = Map::new();
    if let Some(name) = &text.answer {
        content.insert("application/json".to_owned(), json!({"schema": reference(name)}));
    }
    if let Some(content_type) = &text.text {
        content.insert(content_type.clone(), json!({"schema": {"type": "string"}}));
    }
    for (name, content_type) in [(&text.events, "text/event-stream"), (&text.lines, "application/x-ndjson")] {
        if let Some(name) = name {
            content.insert(content_type.to_owned(), json!({"schema": reference(name)}));
        }
    }
    match text.empty || content.is_empty() {
        true => json!({"description": "done"}),
        false => json!({"description": "the answer", "content": content}),
    }
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

#[cfg(test)]
mod tests;
