//! Normalizes the URL of a remote backend to the form to which the rest of the program appends routes.

/// Ends of paths that are routes, which some users leave in the URL.
const ROUTES: [&str; 8] =
    ["/chat/completions", "/completions", "/embed", "/embeddings", "/rerank", "/responses", "/messages", "/models"];

/// Returns scheme, host, port and the path below which the routes of the API are, without a slash at the end. `added` is
/// what follows the URL's own path; without it, that is `/v1` after a URL that has no path, and nothing after any other.
///
/// # Errors
///
/// Returns a hint about what is wrong. It does not quote the URL, because that may contain a password.
pub(in crate::settings) fn api_base(text: &str, added: Option<&str>) -> Result<String, &'static str> {
    if text.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
        return Err("a URL has no spaces");
    }
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return Err("it must start with http:// or https://");
    }
    // The URL parser skips extra slashes and takes the next part as the host (WHATWG URL standard), so an empty host is
    // refused before it parses.
    if text.split('/').nth(2).is_none_or(|host| host.is_empty() || host.starts_with('\\')) {
        return Err("it must have a host, and a port, if any, from 1");
    }
    let url = url::Url::parse(text).map_err(|_| "this is not a valid URL")?;
    if !url.username().is_empty()
        || url.password().is_some()
        || text.split('/').nth(2).unwrap_or_default().contains('@')
    {
        return Err("put the key into api_key, not into the URL");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("leave out the query and the fragment (? or # and all that follows)");
    }
    if url.host_str().is_none_or(str::is_empty) || url.port() == Some(0) {
        return Err("it must have a host, and a port, if any, from 1");
    }
    // The parser has removed segments of dots.
    if check_segments(url.path()).is_err() {
        return Err("two hexadecimal digits must follow each %");
    }
    let path = url.path().trim_end_matches('/');
    if ROUTES.iter().any(|route| path.ends_with(route)) {
        return Err("leave out the route, such as /chat/completions: the gateway appends that of each request");
    }
    let added = match added {
        Some(added) => added.trim_end_matches('/'),
        // A path of its own leads to the API, as in LiteLLM.
        None if path.is_empty() => "/v1",
        None => "",
    };
    Ok(format!("{}{path}{added}", url.origin().ascii_serialization()))
}

/// Checks `api_path`: a path without a query, to which routes are appended. It may be empty, or a single slash.
///
/// # Errors
///
/// Returns what is expected instead.
pub(super) fn check_api_path(path: &str) -> Result<(), &'static str> {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte));
    if !is_plain || !path.is_empty() && !path.starts_with('/') {
        return Err("expected a path such as /v1, without a query");
    }
    check_segments(path)
}

/// Checks that a path means the same to all servers: it has no `.` or `..` as a segment, which some remove and others do
/// not, and `%` only before two hexadecimal digits.
///
/// # Errors
///
/// Returns the rule that the path breaks.
pub(super) fn check_segments(path: &str) -> Result<(), &'static str> {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let mut escapes = path.split('%').skip(1).map(str::as_bytes);
    if !escapes.all(|rest| is_digit(rest.first()) && is_digit(rest.get(1))) {
        return Err("expected two hexadecimal digits after each %");
    }
    let is_dots = |segment: &str| [".", ".."].contains(&&*segment.to_ascii_lowercase().replace("%2e", "."));
    if path.split('/').any(is_dots) { Err("expected a path without . and .. as segments") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_leads_to_the_api_and_only_a_bare_host_gets_v1() {
        for (text, base) in [
            ("http://server1:8000", "http://server1:8000/v1"),
            ("http://server1:8000/", "http://server1:8000/v1"),
            ("http://server1:8000/v1", "http://server1:8000/v1"),
            ("http://server1:8000/v1/", "http://server1:8000/v1"),
            ("HTTPS://API.Example.ORG:443/openai/v1", "https://api.example.org/openai/v1"),
            ("https://api.z.ai/api/paas/v4", "https://api.z.ai/api/paas/v4"),
            ("https://h/v1beta/openai/", "https://h/v1beta/openai"),
            ("https://h/api/v3", "https://h/api/v3"),
            ("https://h/v2.0", "https://h/v2.0"),
            ("https://h/client/v4/accounts/1/ai/v1", "https://h/client/v4/accounts/1/ai/v1"),
            ("https://h/v1/projects/p/endpoints/openapi", "https://h/v1/projects/p/endpoints/openapi"),
            ("https://h/inference", "https://h/inference"),
            ("http://[::1]:9/x//", "http://[::1]:9/x"),
        ] {
            assert_eq!(api_base(text, None).as_deref(), Ok(base), "{text}");
        }
        for (text, added, base) in [
            ("http://h:7997", "", "http://h:7997"),
            ("http://h:7997/", "/", "http://h:7997"),
            ("http://h/x", "/v2/", "http://h/x/v2"),
            ("http://h/v1", "", "http://h/v1"),
        ] {
            assert_eq!(api_base(text, Some(added)).as_deref(), Ok(base), "{text} {added}");
        }
    }

    #[test]
    fn invalid_addresses_are_refused() {
        for text in [
            "",
            "server1:8000",
            "ftp://a",
            "http://",
            "http:///x",
            "http://u@a",
            "http://u:p@a",
            "http://@a",
            "http://a?x",
            "http://a#x",
            "http://a b",
            "http://a:0",
            "http://a:99999",
            "http://a/v1/chat/completions",
            "http://a/rerank",
            "https://a/api/v3/embeddings/",
            "http://a/%zz",
            "http://a/x%",
            "http://a/v1%2",
            "http:a",
            "unix:/x",
        ] {
            assert!(api_base(text, None).is_err(), "{text}");
        }
    }

    /// Regression: the path with a query was accepted, and then no request could be sent.
    #[test]
    fn an_api_path_that_no_request_can_have_is_refused() {
        for path in ["", "/", "/v1", "/api/paas/v4", "/a%2Fb/", "/v1.5", "/..x"] {
            assert_eq!(check_api_path(path), Ok(()), "{path}");
        }
        for path in [
            "/a?b",
            "v1",
            "/a#b",
            "/a b",
            "/%zz",
            "/a%2",
            "/%",
            "/../x",
            "/x/..",
            "/./x",
            "/%2E%2e/x",
            "/.%2e",
            "\u{e9}",
        ] {
            assert!(check_api_path(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_normalized_address_parses_to_itself(text in "https?://[a-zA-Z0-9.\\[\\]:@-]{0,12}(/v1|/x|/|//|\\?|%2f){0,4}") {
            if let Ok(base) = api_base(&text, None) {
                prop_assert_eq!(api_base(&base, None), Ok(base.clone()));
                prop_assert!(!base.ends_with('/'));
            }
        }
    }
}
