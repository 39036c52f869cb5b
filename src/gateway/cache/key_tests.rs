//! What belongs to the key of a request, and what does not.

use bytes::Bytes;
use http::HeaderValue;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

const PARTS: KeyParts<'static> = KeyParts {
    key_id: Some("a"),
    secret: Some(&[1; 32]),
    path: "/v1/chat/completions",
    query: None,
    model: "m",
    revision: ModelRevision::numbered(1),
    requested_model: Some("m"),
    is_stream: false,
};

fn key_of(parts: &KeyParts<'_>, headers: &[(&'static str, &'static str)], pieces: &[&str]) -> Option<CacheKey> {
    let pieces = pieces.iter().map(|piece| Bytes::from((*piece).to_owned()));
    let body = RequestBody::default().with_pieces(pieces.collect());
    let envelope = Envelope::of(&body).unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    CacheKey::of(parts, &map, &envelope, &body)
}

fn key(body: &str) -> Option<CacheKey> {
    key_of(&PARTS, &[], &[body])
}

#[test]
fn each_part_of_a_key_counts() {
    let body = &["{}"];
    let mut keys = vec![key_of(&PARTS, &[], body)];
    for parts in [
        KeyParts { key_id: Some("b"), ..PARTS },
        KeyParts { key_id: None, ..PARTS },
        KeyParts { secret: Some(&[2; 32]), ..PARTS },
        KeyParts { secret: None, ..PARTS },
        KeyParts { path: "/v1/completions", ..PARTS },
        KeyParts { query: Some(""), ..PARTS },
        KeyParts { query: Some("a"), ..PARTS },
        KeyParts { model: "n", ..PARTS },
        KeyParts { revision: ModelRevision::default(), ..PARTS },
        KeyParts { requested_model: Some("alias"), ..PARTS },
        KeyParts { requested_model: None, ..PARTS },
        KeyParts { is_stream: true, ..PARTS },
    ] {
        keys.push(key_of(&parts, &[], body));
    }
    assert!(keys.iter().all(Option::is_some));
    for (at, key) in keys.iter().enumerate() {
        assert!(!keys[..at].contains(key), "{at}");
    }
}

#[test]
fn headers_count_unless_they_are_known_to_say_nothing_about_the_answer() {
    let with = |headers: &[(&'static str, &'static str)]| key_of(&PARTS, headers, &["{}"]);
    let none = with(&[]);
    for name in ["authorization", "x-api-key", "user-agent", "x-request-id", "cookie", "connection", "cache-control"] {
        assert_eq!(with(&[(name, "x")]), none, "{name}");
    }
    assert_eq!(
        with(&[("x-stainless-retry-count", "1"), ("sec-fetch-mode", "cors"), ("x-openwebui-user-id", "u")]),
        none
    );
    for name in ["accept", "range", "anthropic-version", "anthropic-beta", "openai-beta", "x-of-a-backend"] {
        assert_ne!(with(&[(name, "x")]), none, "{name}");
    }
    assert_eq!(with(&[("accept", "a"), ("x-y", "b")]), with(&[("x-y", "b"), ("accept", "a")]));
    assert_ne!(with(&[("x-y", "a"), ("x-y", "b")]), with(&[("x-y", "b"), ("x-y", "a")]));
    assert_ne!(with(&[("x-y", "ab")]), with(&[("x-ya", "b")]));
}

#[test]
fn members_that_have_no_part_in_an_answer_do_not_count() {
    let plain = key(r#"{"prompt":"a","n":1}"#);
    for same in [
        r#"{"prompt":"a","n":1,"stream":false}"#,
        r#"{"user":"u","prompt":"a","n":1}"#,
        r#"{"safety_identifier":"u","prompt_cache_key":"k","session_id":"s","prompt":"a","n":1}"#,
        r#" { "n" : 1 , "prompt" : "a" } "#,
        r#"{"\u0070rompt":"a","n":1}"#,
    ] {
        assert_eq!(key(same), plain, "{same}");
    }
    for other in [
        r#"{"prompt":"b","n":1}"#,
        r#"{"prompt":"a","n":2}"#,
        r#"{"prompt":"a"}"#,
        r#"{"prompt":"a","n":1,"stream":1}"#,
        r#"{"prompt":"a","n":1,"n":1}"#,
        r#"{"prompt":"a","n":1,"metadata":{"user":"u"}}"#,
    ] {
        assert_ne!(key(other), plain, "{other}");
    }
    assert_ne!(key(r#"{"n":1,"n":2}"#), key(r#"{"n":2,"n":1}"#), "servers differ in which they take");
    assert_eq!(key("[1]"), None);
    assert_eq!(key("{"), None);
}

/// Any JSON value of a few levels.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z\"\\\\\u{e4}]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

/// Returns an object with these members in this order, as text.
fn object(members: &[(String, Value)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", members.join(","))
}

proptest! {
    /// Two bodies have the same key exactly if they have the same members, wherever these stand, for any user, and
    /// in whatever pieces they came.
    #[test]
    fn a_key_depends_on_the_members_alone(
        one in prop::collection::btree_map("[a-d]{1,2}", value(), 0..5),
        other in prop::collection::btree_map("[a-d]{1,2}", value(), 0..5),
        user in value(),
        turn in 0_usize..5,
        cut in 0_usize..200,
    ) {
        let mut members: Vec<(String, Value)> = one.clone().into_iter().collect();
        let plain = key(&object(&members));
        members.push(("user".to_owned(), user));
        let length = members.len();
        members.rotate_left(turn % length);
        let text = object(&members);
        let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        prop_assert_eq!(key_of(&PARTS, &[], &[&text[..cut], &text[cut..]]), plain);
        let others: Map<String, Value> = other.clone().into_iter().collect();
        let others: Vec<(String, Value)> = others.into_iter().collect();
        prop_assert_eq!(key(&object(&others)) == plain, one == other);
    }
}
