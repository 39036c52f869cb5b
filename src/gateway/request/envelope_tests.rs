use http::HeaderValue;

use super::*;

fn envelope_of(text: &str) -> Result<Envelope, Refusal> {
    Envelope::of(&RequestBody::from_pieces(&[text]))
}

fn model(text: &str) -> Option<String> {
    envelope_of(text).unwrap().model().map(str::to_owned)
}

fn reason(refused: Result<Envelope, Refusal>) -> String {
    match refused {
        Err(Refusal::BadRequest(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_model_of_a_body_is_the_one_that_a_backend_would_take() {
    for (body, expected) in [
        (r#"{"model":"m"}"#, Some("m")),
        (r#" { "n" : 1 , "model" : "org/m" } "#, Some("org/m")),
        (r#"{"mod\u0065l":"a\"\u00e9\ud83d\ude00\\"}"#, Some("a\"é😀\\")),
        (
            r#"{"messages":[{"model":"no"}],"metadata":{"model":"no"},"prompt":"\"model\":\"no\"","model":"m"}"#,
            Some("m"),
        ),
        (r#"{"Model":"m"}"#, Some("m")),
        (r#"{"model":""}"#, Some("")),
        (r#"{"model":null}"#, None),
        (r#"{"model":7}"#, None),
        (r#"{"model":["m"]}"#, None),
        (r#"{"models":"m"}"#, None),
        ("{}", None),
        (r#"["model","m"]"#, None),
        (r#"{"model":"m""#, None),
        (r#"{"model":"m"}}"#, None),
        ("", None),
    ] {
        assert_eq!(model(body).as_deref(), expected, "{body}");
    }
}

#[test]
fn a_body_that_is_not_an_object_is_unreadable() {
    for (body, known) in
        [("{}", true), ("[]", false), ("{\"a\":1}x", false), ("", false), ("{\"a\":{\"b\":/**/1}}", false)]
    {
        assert_eq!(envelope_of(body).unwrap().is_readable(), known, "{body}");
    }
    assert!(
        envelope_of("{\"model\":\"a\",\"model\":\"b\"").unwrap().members.is_empty(),
        "a body that is not JSON has no members"
    );
}

#[test]
fn an_ambiguous_body_is_refused() {
    for (body, name) in [
        (r#"{"model":"a","model":"b"}"#, "model"),
        (r#"{"model":"a","mod\u0065l":"b"}"#, "model"),
        (r#"{"model":"a","MODEL":"b"}"#, "model"),
        (r#"{"model":"a","x":{},"model":null}"#, "model"),
        (r#"{"stream":true,"stream":false}"#, "stream"),
    ] {
        assert_eq!(reason(envelope_of(body)), format!("the request has more than one \"{name}\""), "{body}");
    }
    let long = |length| format!("{{\"model\":\"{}\"}}", "x".repeat(length));
    assert_eq!(model(&long(MODEL_NAME)).unwrap().len(), MODEL_NAME);
    assert!(reason(envelope_of(&long(MODEL_NAME + 1))).contains("longer than"));
    assert!(reason(envelope_of(r#"{"model":"\ud800"}"#)).contains("no text"));
}

#[test]
fn an_object_has_a_bound_on_its_members() {
    let with = |members: usize| format!("{{{}}}", vec!["\"a\":1"; members].join(","));
    assert_eq!(envelope_of(&with(MOST_MEMBERS)).unwrap().members.len(), MOST_MEMBERS);
    assert!(reason(envelope_of(&with(MOST_MEMBERS + 1))).contains("members"));
}

#[tokio::test]
async fn the_stream_member_is_read_in_bodies_of_any_size_and_in_any_pieces() {
    let long = format!("{{\"prompt\": \"{}\", ", "x".repeat(3 * SCANNED_AT_ONCE));
    for start in ["{", &long] {
        for (end, asks) in [
            ("\"stream\": true}", Some(true)),
            ("\"stream\": false}", Some(false)),
            ("\"stream\": trues}", None),
            ("\"stream\": \"true\"}", None),
            ("\"stream\": 1}", None),
            ("\"Stream\": true}", None),
            ("\"n\": 1}", None),
            ("\"stream\": true", None),
        ] {
            let whole = format!("{start}{end}");
            for body in [RequestBody::from_pieces(&[&whole]), RequestBody::from_pieces(&[start, "", end])] {
                assert_eq!(Envelope::of_json(&body).await.unwrap().stream(), asks, "{end}");
            }
        }
    }
}

#[tokio::test]
async fn a_form_is_read_only_on_the_route_for_forms() {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("multipart/form-data; boundary=b"));
    let part =
        |name: &str, value: &str| format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
    let form = |parts: &[(&str, &str)]| {
        let parts: Vec<String> = parts.iter().map(|(name, value)| part(name, value)).collect();
        RequestBody::from_pieces(&[&parts.concat(), "--b--\r\n"])
    };
    let path = "/v1/audio/transcriptions";
    for (value, stream) in
        [("true", Some(true)), ("True", Some(true)), ("1", Some(true)), ("0", Some(false)), ("x", None)]
    {
        let body = form(&[("file", "RIFF\r\n{}"), ("model", "a \"b"), ("stream", value)]);
        let envelope = Envelope::read(path, &headers, &body).await.unwrap();
        assert_eq!(
            (envelope.model(), envelope.stream(), envelope.is_readable()),
            (Some("a \"b"), stream, true),
            "{value}"
        );
    }
    let twice = form(&[("model", "a"), ("Model", "b")]);
    assert!(reason(Envelope::read(path, &headers, &twice).await).contains("more than one"));
    let json = RequestBody::from_pieces(&["{\"model\":\"m\"}"]);
    assert!(!Envelope::read(path, &headers, &json).await.unwrap().is_readable());
    assert_eq!(Envelope::read("/v1/completions", &headers, &json).await.unwrap().model(), Some("m"));
    assert_eq!(Envelope::read(path, &HeaderMap::new(), &json).await.unwrap().model(), Some("m"));
}

#[test]
fn the_model_of_a_query_is_decoded() {
    for (query, expected) in [
        ("model=m", Some("m")),
        ("a=b&model=org%2Fm+x%20y&c", Some("org/m x y")),
        ("mod%65l=m", Some("m")),
        ("model", Some("")),
        ("models=m", None),
        ("", None),
        ("model=100%", Some("100%")),
        ("model=%zz%4", Some("%zz%4")),
    ] {
        assert_eq!(model_of_query(query).unwrap().as_deref(), expected, "{query}");
    }
    for query in ["model=a&model=b", "model=a&mode%6C=a", "model=a&Model=b", "model=%ff"] {
        assert!(model_of_query(query).is_err(), "{query}");
    }
}

#[test]
fn a_prompt_has_one_hash_for_each_prefix_length_that_it_reaches() {
    let seed = RandomState::new();
    let hashes = |key: &str, pieces: &[&str]| {
        let body = RequestBody::from_pieces(pieces);
        Envelope::of(&body).unwrap().prefix_hashes(&body, &seed, key)
    };
    let prompt =
        |length: usize, end: &str| format!("{{\"n\":1,\"prompt\":\"{}{end}\",\"model\":\"m\"}}", "x".repeat(length));
    for (length, count) in [(200, 0), (256, 1), (1021, 1), (1023, 2), (5000, 3), (20_000, 4), (100_000, 4)] {
        let text = prompt(length, "");
        let found = hashes("k", &[&text]);
        assert_eq!(found.len(), count, "{length}");
        assert_eq!(found, hashes("k", &[&text[..100], &text[100..150], "", &text[150..]]), "pieces do not matter");
        assert_eq!(found, hashes("k", &[&prompt(length, "y")])[..count], "what follows does not matter");
        if count > 0 {
            assert_ne!(found[0], hashes("other", &[&text])[0], "keys are kept apart");
            assert_ne!(found[0], hashes("k", &[&text.replacen("x", "z", 1)])[0]);
            let body = RequestBody::from_pieces(&[&text]);
            let another = Envelope::of(&body).unwrap().prefix_hashes(&body, &RandomState::new(), "k");
            assert_ne!(found[0], another[0], "hashes cannot be computed outside the process");
        }
    }
    // The system text precedes the messages in the prompt, so it precedes them in the hash, wherever it is in the body.
    let system = "s".repeat(300);
    let with = |system: &str, message: &str| {
        hashes("k", &[&format!("{{\"messages\":[\"{}\"],\"system\":\"{system}\"}}", message.repeat(800))])
    };
    let (first, same_system, other_system) = (with(&system, "a"), with(&system, "b"), with("short", "a"));
    assert_eq!((first.len(), first[0], first[1] == same_system[1]), (2, same_system[0], false));
    assert_ne!(first[0], other_system[0]);
    assert!(hashes("k", &["{\"tools\":\"", &system, "\"}"]).is_empty());
}
