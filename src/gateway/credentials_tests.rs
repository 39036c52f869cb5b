//! Which headers, query parameters and cookies count as a copy of the client's secret.

use super::*;

const SECRET: &str = "user-secret-0123456789";
/// `x:user-secret-0123456789`
const AS_PASSWORD: &str = "eDp1c2VyLXNlY3JldC0wMTIzNDU2Nzg5";
/// `user-secret-0123456789:`, with padding.
const AS_USER: &str = "dXNlci1zZWNyZXQtMDEyMzQ1Njc4OTo=";

fn head(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    headers
}

fn presented(value: &str) -> PresentedSecrets<'_> {
    PresentedSecrets::in_values([value.as_bytes()].into_iter())
}

#[test]
fn a_secret_is_read_from_every_key_header_and_every_scheme() {
    for value in [
        SECRET.to_owned(),
        format!("Bearer {SECRET}"),
        format!("bEARER   {SECRET} "),
        format!("Token {SECRET}"),
        format!("Token token=\"{SECRET}\""),
        format!("Bearer other, Bearer {SECRET}"),
        format!("Basic {AS_PASSWORD}"),
        format!("basic {AS_USER}"),
        format!("BASIC {}", AS_USER.trim_end_matches('=')),
    ] {
        for name in &KEY_HEADERS {
            assert!(is_key_header(name));
            let head = head(&[(name.as_str(), &value)]);
            let secrets = PresentedSecrets::of(&head);
            assert!(secrets.are_in(SECRET.as_bytes()), "{name}: {value}");
            assert!(!secrets.are_in(b"user-secret-987654321x") && !secrets.are_in(b""), "{name}: {value}");
        }
    }
}

#[test]
fn every_value_that_holds_a_presented_secret_is_removed_and_no_other() {
    let bearer = format!("Bearer {SECRET}");
    let secrets = presented(&bearer);
    for copy in [
        SECRET.to_owned(),
        format!("Bearer {SECRET}"),
        format!("Key {SECRET}"),
        format!("a, {SECRET}"),
        format!("{{\"api_key\":\"{SECRET}\"}}"),
        format!("https://host/?key={SECRET}&a=b"),
        format!("Basic {AS_PASSWORD}"),
        format!("basic {AS_USER}"),
        SECRET.replace('-', "%2d"),
        SECRET.replace('-', "%2D"),
    ] {
        let mut headers = head(&[("x-litellm-key", &copy), ("x-kept", "1"), ("x-litellm-key", "kept")]);
        secrets.strip_headers(&mut headers);
        assert_eq!(headers, head(&[("x-kept", "1"), ("x-litellm-key", "kept")]), "{copy}");
    }
    let harmless = [
        ("content-type", "application/json"),
        ("user-agent", "OpenAI/Python 1.0 with a name that is longer than any key of ours"),
        ("x-other", "user-secret-0123456780"),
        ("x-part", "user-secret"),
        ("authorization-scheme", "Bearer"),
    ];
    let mut headers = head(&harmless);
    secrets.strip_headers(&mut headers);
    assert_eq!(headers, head(&harmless));
}

#[test]
fn a_short_secret_is_removed_only_as_a_whole_part() {
    let head = head(&[("x-api-key", "pass"), ("authorization", "Basic dTpwdw==")]);
    let secrets = PresentedSecrets::of(&head);
    for copy in ["pass", "Bearer pass", "a, pass", "key=\"pass\"", "pw", "Basic YTpwdw=="] {
        assert!(secrets.are_in(copy.as_bytes()), "{copy}");
    }
    for harmless in ["passenger", "compass, bypass", "Basic", "dTo", "application/pass"] {
        assert!(!secrets.are_in(harmless.as_bytes()), "{harmless}");
    }
}

#[test]
fn only_the_cookie_with_the_secret_is_removed() {
    let secrets = presented(SECRET);
    for (cookies, left) in [
        (format!("a=1; key={SECRET}; b=2"), Some("a=1; b=2")),
        (format!("key=\"{SECRET}\""), None),
        (format!("a=1;key=Bearer%20{SECRET}"), Some("a=1")),
        ("a=1;b=2".to_owned(), Some("a=1;b=2")),
    ] {
        let mut headers = head(&[("cookie", &cookies)]);
        secrets.strip_headers(&mut headers);
        assert_eq!(headers.get("cookie").map(|value| value.to_str().unwrap()), left, "{cookies}");
    }
}

#[test]
fn only_the_query_parameter_with_the_secret_is_removed() {
    let bearer = format!("Bearer {SECRET}");
    let secrets = presented(&bearer);
    let encoded = SECRET.replace('u', "%75").replace('-', "%2d");
    for (query, left) in [
        (format!("?key={SECRET}"), ""),
        (format!("?a=b&api_key={SECRET}&c=%20d"), "?a=b&c=%20d"),
        (format!("?a=b&key={encoded}"), "?a=b"),
        (format!("?token=Bearer+{SECRET}&a"), "?a"),
        (format!("?{SECRET}=1&a=b"), "?a=b"),
        (format!("?a=b;key={SECRET}&c=d"), "?c=d"),
        (format!("?a=b&&key={}", SECRET.to_uppercase()), "?a=b&&key=USER-SECRET-0123456789"),
        ("?a=%zz&&b".to_owned(), "?a=%zz&&b"),
    ] {
        let target = PathAndQuery::try_from(format!("/props{query}")).unwrap();
        assert_eq!(secrets.strip_query(target).as_str(), format!("/props{left}"), "{query}");
    }
    let spaced = presented("Bearer two words of a secret");
    let target = PathAndQuery::from_static("/props?a=two+words+of+a+secret&b=1");
    assert_eq!(spaced.strip_query(target).as_str(), "/props?b=1");
}

#[test]
fn a_key_is_read_from_every_key_header_in_which_it_is_not_empty() {
    for (lines, expected) in [
        (&[("authorization", "Bearer k1")][..], &["k1"][..]),
        (&[("authorization", "bearer  k1")], &["k1"]),
        (&[("authorization", "BEARER\tk1 ")], &["k1"]),
        (&[("authorization", "k1")], &["k1"]),
        (&[("authorization", "Bearerk1")], &["Bearerk1"]),
        (&[("x-api-key", "Bearer k1")], &["k1"]),
        (&[("authorization", "Bearer platform"), ("x-api-key", "k1")], &["k1", "platform"]),
        (&[("authorization", "Bearer k1"), ("api-key", "k2"), ("x-goog-api-key", "k3")], &["k2", "k3", "k1"]),
        (&[("authorization", "Bearer k1"), ("x-api-key", "")], &["k1"]),
        (&[("authorization", "Bearer"), ("x-api-key", " "), ("api-key", "Bearer  ")], &[]),
        (&[("x-api-key", "a"), ("x-api-key", "b"), ("x-api-key", "a")], &["a", "b"]),
        (&[("x-api-key", "a, Bearer b,, a")], &["a", "b"]),
        (&[("authorization", "Basic dTpw")], &["Basic dTpw"]),
        (&[], &[]),
    ] {
        assert_eq!(offered_keys(&head(lines)).iter().copied().collect::<Vec<_>>(), expected, "{lines:?}");
    }
    let many: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(offered_keys(&head(&[("x-api-key", &many.join(","))])).len(), OFFERED_KEYS);
    let mut unreadable = HeaderMap::new();
    unreadable.append("x-api-key", HeaderValue::from_bytes(b"\xff").unwrap());
    assert!(offered_keys(&unreadable).iter().eq([&UNREADABLE]));
}

/// Regression: a key that a client put into the path of a model came into the access log.
#[test]
fn a_path_for_the_logs_shows_no_secret() {
    let head = head(&[("x-api-key", "sk-0123456789abcdef"), ("authorization", "Bearer pass")]);
    let secrets = PresentedSecrets::of(&head);
    for (path, shown) in [
        ("/v1/models/sk-0123456789abcdef", "/v1/models/***"),
        ("/v1/models/x-sk-0123456789abcdef-y/load", "/v1/models/***/load"),
        ("/v1/models/%73k-0123456789abcde%66", "/v1/models/***"),
        ("/sk-0123456789abcdef", "/***"),
        ("sk-0123456789abcdef", "***"),
        ("/v1/models/pass", "/v1/models/***"),
        ("/v1/models/passes", "/v1/models/passes"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/", "/"),
        ("*", "*"),
    ] {
        assert_eq!(secrets.mask_path(path), shown);
    }
    let with_slash = presented("Bearer abcdefgh/01234567");
    assert_eq!(with_slash.mask_path("/v1/models/abcdefgh/01234567"), "/***");
}
