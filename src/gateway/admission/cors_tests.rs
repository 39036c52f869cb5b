//! Tests of the CORS headers for each kind of origin.

use super::*;
use crate::settings::values::Value as _;

fn cors(setting: &str) -> Cors {
    Cors::new(&Origins::parse(setting).unwrap())
}

fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap())).collect()
}

fn appended(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::try_from(*value).unwrap());
    }
    headers
}

fn with_cors(setting: &str, origin: Option<&str>, mut headers: HeaderMap) -> HeaderMap {
    let origin = origin.map(|origin| HeaderValue::try_from(origin).unwrap());
    cors(setting).insert_headers(origin.as_ref(), &mut headers);
    let once = headers.clone();
    cors(setting).insert_headers(origin.as_ref(), &mut headers);
    assert_eq!(headers, once, "inserting twice changes nothing");
    headers
}

fn vary(headers: &HeaderMap) -> Vec<&str> {
    headers.get_all(VARY).iter().map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn disabled_cors_adds_no_headers() {
    assert_eq!(with_cors("", Some("https://a.example"), HeaderMap::new()), HeaderMap::new());
    let response =
        cors("").preflight(&map(&[("origin", "https://a.example"), ("access-control-request-method", "GET")]));
    assert_eq!((response.status(), response.headers().len()), (StatusCode::NO_CONTENT, 0));
    assert!(!cors("").is_enabled() && cors("*").is_enabled());
}

#[test]
fn a_star_allows_any_origin_but_never_credentials() {
    for origin in [None, Some("https://a.example"), Some("null")] {
        let headers = with_cors("*", origin, HeaderMap::new());
        assert_eq!(headers["access-control-allow-origin"], "*");
        assert!(!headers.contains_key("access-control-allow-credentials") && !headers.contains_key("vary"));
    }
}

#[test]
fn only_a_listed_origin_is_allowed() {
    let setting = "https://a.example, http://localhost:3000";
    for origin in ["https://a.example", "http://localhost:3000"] {
        let headers = with_cors(setting, Some(origin), HeaderMap::new());
        assert_eq!(headers["access-control-allow-origin"], origin);
        assert_eq!(headers["access-control-allow-credentials"], "true");
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("X-Request-Id, Retry-After") && exposed.contains("x-ratelimit-reset-tokens"));
        for name in ["x-llamagate-model", "x-llamagate-worker", "x-llamagate-attempts"] {
            assert!(exposed.split(", ").any(|exposed| exposed == name), "{name}");
        }
        assert_eq!(vary(&headers), ["Origin"]);
    }
    for other in [
        None,
        Some("null"),
        Some("https://A.example"),
        Some("https://a.example:443"),
        Some("https://a.example/"),
        Some("https://a.example.evil.example"),
        Some("http://a.example"),
        Some("*"),
        Some(""),
    ] {
        let headers = with_cors(setting, other, HeaderMap::new());
        assert_eq!((headers.len(), vary(&headers)), (1, vec!["Origin"]), "{other:?}");
    }
}

#[test]
fn the_origin_null_gets_no_credentials() {
    let headers = with_cors("null", Some("null"), HeaderMap::new());
    assert_eq!(headers["access-control-allow-origin"], "null");
    assert!(!headers.contains_key("access-control-allow-credentials"));
}

#[test]
fn vary_keeps_its_existing_names() {
    for (before, after) in [
        (vec![], vec!["Origin"]),
        (vec!["Accept-Encoding"], vec!["Accept-Encoding", "Origin"]),
        (vec!["Accept, origin"], vec!["Accept, origin"]),
        (vec!["X-Origin"], vec!["X-Origin", "Origin"]),
        (vec!["Accept", "ORIGIN"], vec!["Accept", "ORIGIN"]),
        (vec!["*"], vec!["*"]),
    ] {
        let lines: Vec<_> = before.iter().map(|value| ("vary", *value)).collect();
        assert_eq!(vary(&with_cors("https://a.example", None, appended(&lines))), after);
    }
}

#[test]
fn a_preflight_tells_a_listed_origin_the_allowed_methods_and_headers() {
    let request = map(&[
        ("origin", "https://a.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type, x-stainless-lang"),
        ("access-control-request-private-network", "true"),
    ]);
    let response = cors("https://a.example").preflight(&request);
    let headers = response.headers();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(headers["access-control-allow-origin"], "https://a.example");
    assert_eq!(headers["access-control-allow-methods"], "GET, HEAD, POST, PATCH, DELETE, OPTIONS");
    assert_eq!(headers["access-control-allow-headers"], "authorization,content-type, x-stainless-lang");
    assert_eq!(headers["access-control-max-age"], "7200");
    assert_eq!(headers["access-control-allow-credentials"], "true");
    assert_eq!(vary(headers), ["Origin", "Access-Control-Request-Headers"]);
    assert!(!headers.contains_key("access-control-allow-private-network"));

    let mut decorated = headers.clone();
    cors("https://a.example").insert_headers(request.get(ORIGIN), &mut decorated);
    assert_eq!(vary(&decorated), vary(headers), "the headers may be inserted into a preflight response, too");
}

#[test]
fn a_preflight_of_another_origin_gets_no_allow_header() {
    for origins in [&["https://b.example"][..], &["https://a.example", "https://a.example"], &[]] {
        let lines: Vec<_> = origins.iter().map(|origin| ("origin", *origin)).collect();
        let response = cors("https://a.example").preflight(&appended(&lines));
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!((response.headers().len(), vary(response.headers())), (1, vec!["Origin"]), "{origins:?}");
    }
}

#[test]
fn invalid_or_too_many_requested_headers_give_the_default_list() {
    let long = "x".repeat(PREFLIGHT_HEADER_NAMES + 1);
    for names in ["", "a,,b", "a b", "x-ä", "a;b", "a,", "\"a\"", &long] {
        let response = cors("*").preflight(&map(&[("origin", "x://y"), ("access-control-request-headers", names)]));
        assert_eq!(response.headers()["access-control-allow-headers"], REQUEST_HEADERS, "{names}");
        assert!(!response.headers().contains_key(VARY));
    }
    let longest = "x".repeat(PREFLIGHT_HEADER_NAMES);
    let response = cors("*").preflight(&map(&[("access-control-request-headers", &longest)]));
    assert_eq!(response.headers()["access-control-allow-headers"], longest);
}
