use super::*;
use proptest::prelude::*;
use serde_json::json;

/// Method, route and body of a job with this input.
fn ask(input: &str) -> Result<(String, String, String), String> {
    let job = format!(r#"{{"id":"job-1","input":{input},"webhook":null,"batchId":"b"}}"#);
    let mut jobs = read_all(job.as_bytes()).unwrap();
    assert_eq!(jobs.len(), 1);
    let request = jobs.remove(0).unwrap().request?;
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(request.headers()["x-request-id"], "job-1");
    assert_eq!(request.headers().contains_key("content-type"), !request.body().is_empty());
    let body = String::from_utf8(request.body().to_vec()).unwrap();
    Ok((request.method().to_string(), request.uri().to_string(), body))
}

fn asked(method: &str, route: &str, body: &str) -> Result<(String, String, String), String> {
    Ok((method.into(), route.into(), body.into()))
}

#[test]
fn openais_clients_post_what_they_ask_and_get_what_they_look_at() {
    let body = r#"{"model": "m", "messages": [], "z": 1, "a": 1.0}"#;
    for (input, expected) in [
        (
            format!(r#"{{"openai_route":"/v1/completions","openai_input":{body}}}"#),
            asked("POST", "/v1/completions", body),
        ),
        (format!(r#"{{"openai_input":{body}}}"#), asked("POST", CHAT, body)),
        (format!(r#"{{"openai_route":null,"openai_input":{body}}}"#), asked("POST", CHAT, body)),
        (r#"{"openai_route":"/v1/models","openai_input":{}}"#.into(), asked("GET", "/v1/models", "")),
        (r#"{"openai_route":"/v1/models","openai_input":null}"#.into(), asked("GET", "/v1/models", "")),
        (r#"{"openai_route":"/v1/models"}"#.into(), asked("GET", "/v1/models", "")),
    ] {
        assert_eq!(ask(&input), expected, "{input}");
    }
    for bad in [r#"{"openai_input":{}}"#, r#"{"openai_route":7}"#, r#"{"openai_route":"http://elsewhere/v1"}"#] {
        assert!(ask(bad).is_err(), "{bad}");
    }
}

#[test]
fn any_route_can_be_asked_for() {
    for (input, expected) in [
        (r#"{"route":"/v1/rerank","body":{"q": 1}}"#, asked("POST", "/v1/rerank", r#"{"q": 1}"#)),
        (r#"{"route":"/v1/models"}"#, asked("GET", "/v1/models", "")),
        (r#"{"route":"/props?model=m","method":"get"}"#, asked("GET", "/props?model=m", "")),
        (r#"{"route":"/ping","method":"HEAD","body":{}}"#, asked("HEAD", "/ping", "")),
        (r#"{"route":"/v1/models/m/load","method":"POST"}"#, asked("POST", "/v1/models/m/load", "")),
    ] {
        assert_eq!(ask(input), expected, "{input}");
    }
    for bad in [r#"{"route":"/x","method":"DELETE"}"#, r#"{"route":null}"#, r#"{"route":"/x","method":1}"#] {
        assert!(ask(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_prompt_or_messages_alone_are_enough() {
    for (input, expected) in [
        (r#"{"prompt":"a"}"#, asked("POST", COMPLETIONS, r#"{"prompt":"a"}"#)),
        (
            r#"{"messages":[{"role":"user"}],"stream":true}"#,
            asked("POST", CHAT, r#"{"messages":[{"role":"user"}],"stream":true}"#),
        ),
        (
            r#"{"prompt":"a","sampling_params":{"max_tokens":5,"seed":1},"seed":2}"#,
            asked("POST", COMPLETIONS, r#"{"prompt":"a","seed":2,"max_tokens":5}"#),
        ),
        (r#"{"prompt":"a","sampling_params":null}"#, asked("POST", COMPLETIONS, r#"{"prompt":"a"}"#)),
    ] {
        assert_eq!(ask(input), expected, "{input}");
    }
    assert!(ask(r#"{"prompt":"a","sampling_params":[1]}"#).is_err());
}

#[test]
fn anything_else_is_refused_without_repeating_it() {
    for bad in [r#"{}"#, r#""s3cret""#, r#"["s3cret"]"#, r#"{"text":"s3cret"}"#, "null", "7"] {
        let why = ask(bad).unwrap_err();
        assert!(why.starts_with("The input") && !why.contains("s3cret"), "{bad}: {why}");
    }
}

#[test]
fn a_route_is_a_path_of_ours() {
    for good in ["/v1/models", "/v1/models/a%20b", "/x?y=/../z", "/a..b"] {
        assert!(checked(good.into()).is_ok(), "{good}");
    }
    let long = format!("/{}", "x".repeat(JOB_ROUTE));
    for bad in [
        "",
        "v1/models",
        "http://h/v1",
        "//h/v1",
        "/../x",
        "/a/../b",
        "/a/..",
        "/./a",
        "/%2e%2e/x",
        "/a%2F..",
        "/a\\b",
        "/a b",
        "/a\r\nX: y",
        "/a#b",
        "/ä",
        "*",
        &long,
    ] {
        assert!(checked(bad.into()).is_err(), "{bad}");
    }
}

#[test]
fn what_is_taken_is_one_job_or_a_list() {
    let one = json!({"id": "a", "input": {"prompt": "x"}});
    let ids = |text: &str| -> Vec<String> {
        read_all(text.as_bytes()).unwrap().into_iter().map(|job| job.map_or_else(str::to_owned, |job| job.id)).collect()
    };
    assert_eq!(ids(&one.to_string()), ["a"]);
    assert_eq!(
        ids(&json!([one, {"id": 7, "input": {}}, "x", {"id": "b", "input": {"prompt": "x"}}]).to_string()),
        ["a", MISSING, MISSING, "b"]
    );
    assert_eq!(ids("[]"), [""; 0]);
    assert!(read_all(b"{").is_err());
}

#[test]
fn a_job_without_an_id_cannot_be_answered_and_one_without_an_input_can() {
    assert_eq!(read_all(br#"{"input":{}}"#).unwrap().remove(0).unwrap_err(), MISSING);
    assert_eq!(read_all(br#"{"id":"","input":{}}"#).unwrap().remove(0).unwrap_err(), MISSING);
    let job = read_all(br#"{"id":"a"}"#).unwrap().remove(0).unwrap();
    assert_eq!((job.id.as_str(), job.request.unwrap_err().as_str()), ("a", MISSING));
    let long = json!({"id": "x".repeat(JOB_ID + 1), "input": {}}).to_string();
    assert!(read_all(long.as_bytes()).unwrap().remove(0).is_err());
}

proptest! {
    #[test]
    fn no_route_leads_elsewhere(route in "(/|//|http://|%2e|\\.|[a-z]|:|@|\\?|#|\\\\|%2f){0,12}") {
        if let Ok(route) = checked(route) {
            let uri: http::Uri = route.parse().unwrap();
            prop_assert!(uri.scheme().is_none() && uri.authority().is_none());
            prop_assert!(uri.path().starts_with('/') && !uri.path().split('/').any(|segment| segment == ".."));
        }
    }
}
