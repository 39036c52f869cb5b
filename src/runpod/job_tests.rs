use proptest::prelude::*;
use serde_json::json;

use super::*;

/// Returns method, route and body of the request for a job with this input.
fn read_job(input: &str) -> Result<(String, String, String), String> {
    let job = format!(r#"{{"id":"job-1","input":{input},"webhook":null,"batchId":"b"}}"#);
    let mut jobs = read_all(job.as_bytes()).unwrap();
    assert_eq!(jobs.len(), 1);
    let http_request = jobs.remove(0).unwrap().request?;
    assert_eq!(http_request.version(), Version::HTTP_2);
    assert_eq!(http_request.headers()["x-request-id"], "job-1");
    assert_eq!(http_request.headers().contains_key("content-type"), !http_request.body().is_empty());
    let body = String::from_utf8(http_request.body().to_vec()).unwrap();
    Ok((http_request.method().to_string(), http_request.uri().to_string(), body))
}

fn request(method: &str, route: &str, body: &str) -> Result<(String, String, String), String> {
    Ok((method.into(), route.into(), body.into()))
}

#[test]
fn an_openai_input_becomes_a_post_and_a_route_alone_a_get() {
    let body = r#"{"model": "m", "messages": [], "z": 1, "a": 1.0}"#;
    for (input, expected) in [
        (
            format!(r#"{{"openai_route":"/v1/completions","openai_input":{body}}}"#),
            request("POST", "/v1/completions", body),
        ),
        (format!(r#"{{"openai_input":{body}}}"#), request("POST", CHAT, body)),
        (format!(r#"{{"openai_route":null,"openai_input":{body}}}"#), request("POST", CHAT, body)),
        (r#"{"openai_route":"/v1/models","openai_input":{}}"#.into(), request("GET", "/v1/models", "")),
        (r#"{"openai_route":"/v1/models","openai_input":null}"#.into(), request("GET", "/v1/models", "")),
        (r#"{"openai_route":"/v1/models"}"#.into(), request("GET", "/v1/models", "")),
    ] {
        assert_eq!(read_job(&input), expected, "{input}");
    }
    for bad in [r#"{"openai_input":{}}"#, r#"{"openai_route":7}"#, r#"{"openai_route":"http://elsewhere/v1"}"#] {
        assert!(read_job(bad).is_err(), "{bad}");
    }
}

/// Regression: the text of an object went on as it was, and llama-server missed `messages` in it.
#[test]
fn an_error_of_the_input_names_its_field() {
    for (input, start) in [
        (r#"{"openai_input":"{\"messages\":[]}"}"#, "openai_input is a string, and must be an object"),
        (r#"{"openai_route":"/v1/completions","openai_input":"{}"}"#, "openai_input is a string"),
        (r#"{"openai_input":""}"#, "openai_input is a string"),
        (r#"{"openai_input":[{"prompt":"s3cret"}]}"#, "openai_input is not an object"),
        (r#"{"openai_input":7}"#, "openai_input is not an object"),
        (r#"{"route":"/v1/completions","body":"{\"prompt\":\"s3cret\"}"}"#, "body is a string, and must be an object"),
        (r#"{"route":"/v1/completions","body":true}"#, "body is not an object"),
        (r#"{"openai_route":"v1/models"}"#, "openai_route is not a path"),
        (r#"{"openai_route":"v1/completions","openai_input":{"prompt":"s3cret"}}"#, "openai_route is not a path"),
        (r#"{"openai_route":["/v1/models"]}"#, "openai_route is not a string"),
        (r#"{"route":"v1/models"}"#, "route is not a path"),
    ] {
        let why = read_job(input).unwrap_err();
        assert!(why.starts_with(start) && !why.contains("s3cret"), "{input}: {why}");
    }
    let twice = read_job(r#"{"openai_route":"/v1/v1/models"}"#);
    assert_eq!(twice, request("GET", "/v1/v1/models", ""), "the gateway reads it as /v1/models");
}

#[test]
fn a_job_may_request_any_route() {
    for (input, expected) in [
        (r#"{"route":"/v1/rerank","body":{"q": 1}}"#, request("POST", "/v1/rerank", r#"{"q": 1}"#)),
        (r#"{"route":"/v1/models"}"#, request("GET", "/v1/models", "")),
        (r#"{"route":"/props?model=m","method":"get"}"#, request("GET", "/props?model=m", "")),
        (r#"{"route":"/ping","method":"HEAD","body":{}}"#, request("HEAD", "/ping", "")),
        (r#"{"route":"/v1/models/m/load","method":"POST"}"#, request("POST", "/v1/models/m/load", "")),
    ] {
        assert_eq!(read_job(input), expected, "{input}");
    }
    for bad in [r#"{"route":"/x","method":"DELETE"}"#, r#"{"route":null}"#, r#"{"route":"/x","method":1}"#] {
        assert!(read_job(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_prompt_or_messages_alone_are_a_request() {
    for (input, expected) in [
        (r#"{"prompt":"a"}"#, request("POST", COMPLETIONS, r#"{"prompt":"a"}"#)),
        (
            r#"{"messages":[{"role":"user"}],"stream":true}"#,
            request("POST", CHAT, r#"{"messages":[{"role":"user"}],"stream":true}"#),
        ),
        (
            r#"{"prompt":"a","sampling_params":{"max_tokens":5,"seed":1},"seed":2}"#,
            request("POST", COMPLETIONS, r#"{"prompt":"a","seed":2,"max_tokens":5}"#),
        ),
        (r#"{"prompt":"a","sampling_params":null}"#, request("POST", COMPLETIONS, r#"{"prompt":"a"}"#)),
    ] {
        assert_eq!(read_job(input), expected, "{input}");
    }
    assert!(read_job(r#"{"prompt":"a","sampling_params":[1]}"#).is_err());
}

#[test]
fn other_inputs_are_refused_without_being_quoted() {
    for bad in [r#"{}"#, r#""s3cret""#, r#"["s3cret"]"#, r#"{"text":"s3cret"}"#, "null", "7"] {
        let why = read_job(bad).unwrap_err();
        assert!(why.starts_with("The input") && !why.contains("s3cret"), "{bad}: {why}");
    }
}

#[test]
fn a_route_must_be_a_plain_path() {
    for good in ["/v1/models", "/v1/models/a%20b", "/x?y=/../z", "/a..b"] {
        assert!(checked_route("route", good.into()).is_ok(), "{good}");
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
        assert!(checked_route("route", bad.into()).is_err(), "{bad}");
    }
}

#[test]
fn a_poll_returns_one_job_or_a_list() {
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
    fn no_accepted_route_leads_to_another_host_or_directory(route in "(/|//|http://|%2e|\\.|[a-z]|:|@|\\?|#|\\\\|%2f){0,12}") {
        if let Ok(route) = checked_route("route", route) {
            let uri: http::Uri = route.parse().unwrap();
            prop_assert!(uri.scheme().is_none() && uri.authority().is_none());
            prop_assert!(uri.path().starts_with('/') && !uri.path().split('/').any(|segment| segment == ".."));
        }
    }
}
