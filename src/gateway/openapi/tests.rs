//! Each route has a schema, each schema is used, and each reference leads somewhere.

use std::collections::BTreeSet;

use super::*;
use crate::gateway::openapi::families::{Described, find, read_all};

fn families() -> Vec<Family> {
    read_all().unwrap_or_else(|problem| panic!("{problem}"))
}

fn document() -> Value {
    serde_json::from_str(openapi_document()).unwrap()
}

/// Returns all references in a value.
fn references(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(members) => members
            .iter()
            .flat_map(|(name, value)| match value.as_str().filter(|_| name == "$ref") {
                Some(reference) => vec![reference],
                None => references(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn each_route_has_a_schema() {
    let families = families();
    let missing: Vec<String> = ROUTES.iter().map(name_of).filter(|name| find(&families, name).is_none()).collect();
    assert!(missing.is_empty(), "write in src/gateway/openapi/schemas what these take and give: {missing:#?}");
}

#[test]
fn no_family_describes_a_route_that_is_none() {
    let routes: BTreeSet<String> = ROUTES.iter().map(name_of).collect();
    let mut seen = BTreeSet::new();
    for family in &families() {
        for (name, described) in &family.operations {
            assert!(routes.contains(name), "{name} of {} is no route", family.tag);
            assert!(seen.insert(name.clone()), "{name} is described twice");
            if let Described::As(other) = described {
                assert!(routes.contains(other), "{name} is as {other}, which is no route");
            }
        }
    }
}

#[test]
fn each_reference_leads_somewhere_and_each_schema_is_used() {
    let document = document();
    let used: BTreeSet<&str> = references(&document).into_iter().collect();
    for reference in &used {
        let place = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(place).is_some(), "{reference}");
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(used.contains(format!("#/components/schemas/{name}").as_str()), "{name} is not used");
    }
}

#[test]
fn schemas_have_one_name_and_operations_one_id() {
    let mut names = BTreeSet::new();
    for family in &families() {
        for name in family.schemas.keys() {
            assert!(names.insert(name.clone()), "{name} is defined twice");
        }
    }
    let document = document();
    let mut ids = BTreeSet::new();
    for operation in document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
    {
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{operation}");
        assert!(operation["responses"].as_object().unwrap().keys().any(|status| status.starts_with('2')));
    }
}

#[test]
fn summaries_are_plain_text() {
    let document = document();
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let summary = operation["summary"].as_str().unwrap();
            assert!(!summary.contains(['`', '[', ']']) && !summary.is_empty(), "{summary}");
        }
    }
}

#[test]
fn the_document_stays_small() {
    let length = openapi_document().len();
    println!("openapi.json: {length} bytes");
    assert!(length < 400_000, "{length}");
}
