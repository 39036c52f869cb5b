//! The errors of the document, from the table of refusals: one answer for each status and shape.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::gateway::routes::route::{Route, RouteAccess, RouteTarget};
use crate::refusal::{CODES, Shape};

/// The statuses that any route may have.
const OF_ALL: [u16; 2] = [431, 500];
const OF_KEYS: [u16; 3] = [401, 403, 429];
const OF_BODIES: [u16; 5] = [400, 408, 413, 415, 503];
const OF_WORKERS: [u16; 4] = [404, 502, 503, 504];
const OF_IDS: [u16; 3] = [400, 404, 409];

/// Returns the answers of refusals, by the names by which operations refer to them.
pub(super) fn responses() -> Map<String, Value> {
    let statuses: BTreeSet<u16> = CODES.iter().map(|(status, _)| *status).collect();
    let shapes = [Shape::OpenAi, Shape::Anthropic, Shape::Retrieval, Shape::Tei, Shape::Ollama];
    let each = shapes.iter().flat_map(|shape| statuses.iter().map(|status| (*shape, *status)));
    each.map(|(shape, status)| (response_name(shape, status), response(shape, status))).collect()
}

/// Returns the schemas of errors.
pub(super) fn schemas() -> Map<String, Value> {
    let codes: BTreeSet<&str> = CODES.iter().map(|(_, code)| *code).collect();
    let text = json!({"type": "string"});
    let error = json!({
        "type": "object",
        "required": ["message", "type", "code"],
        "properties": {
            "message": {"type": "string", "description": "one sentence"},
            "type": {"type": "string"},
            "param": {"type": ["string", "null"], "description": "the member of the request that is at fault"},
            "code": {"type": "string", "description": format!("one of {}; errors of a backend may have others",
                codes.into_iter().collect::<Vec<_>>().join(", "))},
        },
    });
    let object =
        |required: Value, properties: Value| json!({"type": "object", "required": required, "properties": properties});
    let reference = json!({"$ref": "#/components/schemas/ErrorFacts"});
    let all = [
        ("ErrorFacts", error),
        (schema_name(Shape::OpenAi), object(json!(["error"]), json!({"error": reference}))),
        (
            schema_name(Shape::Anthropic),
            object(
                json!(["type", "error"]),
                json!({"type": {"const": "error"}, "error": object(json!(["type", "message"]), json!({"type": text, "message": text}))}),
            ),
        ),
        (
            schema_name(Shape::Retrieval),
            object(json!(["detail"]), json!({"error": reference, "detail": text, "message": text})),
        ),
        (schema_name(Shape::Tei), object(json!(["error", "error_type"]), json!({"error": text, "error_type": text}))),
        (schema_name(Shape::Ollama), object(json!(["error"]), json!({"error": text}))),
    ];
    all.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// Returns the errors of a route: those that its kind can have.
pub(super) fn of_route(route: &Route) -> Map<String, Value> {
    let mut statuses = BTreeSet::from(OF_ALL);
    if route.access != RouteAccess::Open {
        statuses.extend(OF_KEYS);
    }
    if !matches!(route.method.as_str(), "GET") {
        statuses.extend(OF_BODIES);
    }
    match route.target {
        RouteTarget::Worker(_) => statuses.extend(OF_WORKERS),
        RouteTarget::Hub(_) => statuses.extend([400, 404, 502, 503]),
        _ if route.id_at.is_some() => statuses.extend(OF_IDS),
        RouteTarget::Keys(_) | RouteTarget::Usage(_) => statuses.extend([400, 404, 409, 503]),
        RouteTarget::Files(_) => statuses.extend([404, 409, 502]),
        RouteTarget::Models(_) => statuses.extend([400, 404]),
        _ => {}
    }
    let reference =
        |status: u16| json!({"$ref": format!("#/components/responses/{}", response_name(route.shape, status))});
    statuses.into_iter().map(|status| (status.to_string(), reference(status))).collect()
}

fn response(shape: Shape, status: u16) -> Value {
    let codes: BTreeSet<&str> = CODES.iter().filter(|(of, _)| *of == status).map(|(_, code)| *code).collect();
    let codes = codes.into_iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
    let schema = json!({"$ref": format!("#/components/schemas/{}", schema_name(shape))});
    let mut response = json!({"description": codes, "content": {"application/json": {"schema": schema}}});
    if matches!(status, 429 | 503) {
        response["headers"] = json!({"Retry-After": {"description": "seconds until a repetition may pass", "schema": {"type": "integer"}}});
    }
    response
}

fn response_name(shape: Shape, status: u16) -> String {
    format!("{}{status}", schema_name(shape))
}

fn schema_name(shape: Shape) -> &'static str {
    match shape {
        Shape::OpenAi => "Error",
        Shape::Anthropic => "AnthropicError",
        Shape::Retrieval | Shape::Voyage => "RetrievalError",
        Shape::Tei => "TeiError",
        Shape::Ollama => "OllamaError",
    }
}
