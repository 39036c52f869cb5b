//! Which requests a gateway without keys accepts.

use super::*;
use crate::gateway::routes::lookup;
use crate::settings::values::Value;
use http::Request;

const CHAT: &str = "/v1/chat/completions";
const LOOPBACK: &str = "127.0.0.1";

/// Sends a request with these headers, `Host` among them, and returns the code of the refusal.
fn code(origins: &str, method: &str, path: &'static str, headers: &[(&str, &str)], client: &str) -> &'static str {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let route = lookup::find(&parts.method, path).unwrap();
    let guard = KeylessGuard::new(Origins::parse(origins).unwrap(), &own_hosts());
    guard.check(&parts, route, direct(client)).map_or_else(|refusal| refusal.code(), |()| "")
}

fn own_hosts() -> [String; 1] {
    ["box.example".to_owned()]
}

fn direct(client: &str) -> ClientAddress {
    ClientAddress { address: client.parse().unwrap(), proof: AddressProof::Connection }
}

/// Returns whether a request of this client, which a trusted proxy may have sent, is accepted.
fn is_accepted(method: &str, path: &'static str, headers: &[(&str, &str)], client: &str, proof: AddressProof) -> bool {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let route = lookup::find(&parts.method, path).unwrap();
    KeylessGuard::new(Origins::Off, &own_hosts())
        .check(&parts, route, ClientAddress { address: client.parse().unwrap(), proof })
        .is_ok()
}

#[test]
fn a_trusted_proxy_is_believed_about_the_client_and_the_host() {
    let page = [("host", "10.0.0.2:8000"), ("x-forwarded-host", "chat.example"), ("origin", "https://chat.example")];
    for (proof, expected) in
        [(AddressProof::Proxy, true), (AddressProof::Connection, false), (AddressProof::Unclear, false)]
    {
        assert_eq!(is_accepted("POST", CHAT, &page, "192.0.2.1", proof), expected, "{proof:?}");
    }
    let order = [("host", "127.0.0.1"), ("x-forwarded-for", "127.0.0.1")];
    assert!(is_accepted("POST", "/reload", &order, LOOPBACK, AddressProof::Proxy));
    assert!(!is_accepted("POST", "/reload", &order, "192.0.2.1", AddressProof::Proxy));
    assert!(
        !is_accepted("POST", "/reload", &order[..1], LOOPBACK, AddressProof::Unclear),
        "the proxy is on this machine"
    );
}

/// Regression: a page of any origin could chat, because only the response was withheld from it.
#[test]
fn a_page_of_another_origin_cannot_send_a_request() {
    let chat = |origins, headers: &[(&str, &str)]| code(origins, "POST", CHAT, headers, "192.0.2.1");
    let listed = "https://app.example.org";
    for (origin, host, expected) in [
        ("https://evil.example", "127.0.0.1:8000", "origin_not_allowed"),
        ("null", "127.0.0.1:8000", "origin_not_allowed"),
        ("", "127.0.0.1:8000", "origin_not_allowed"),
        ("http://127.0.0.1:3000", "127.0.0.1:8000", "origin_not_allowed"),
        ("http://localhost:8000", "127.0.0.1:8000", "origin_not_allowed"),
        ("http://box.example.evil.example:8000", "box.example:8000", "origin_not_allowed"),
        ("https://box.example", "box.example:8000", "origin_not_allowed"),
        ("http://evil.example:8000", "box.example:8000", "origin_not_allowed"),
        ("chrome-extension://abc", "abc", "origin_not_allowed"),
        ("https://app.example.org.evil.example", "x", "origin_not_allowed"),
        ("https://app.example.org:8443", "x", "origin_not_allowed"),
        (listed, "x", ""),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", ""),
        ("http://[::1]:8000", "[::1]:8000", ""),
        ("http://BOX.example:8000", "box.EXAMPLE:8000", ""),
        ("https://box.example", "box.example", ""),
        ("https://box.example", "box.example:443", ""),
        ("http://box.example", "box.example:80", ""),
    ] {
        assert_eq!(chat(listed, &[("host", host), ("origin", origin)]), expected, "{origin} to {host}");
        assert_eq!(chat("*", &[("host", host), ("origin", origin)]), "", "{origin} to {host}");
    }
    assert_eq!(chat("null", &[("host", "x"), ("origin", "null")]), "", "it is listed");
    assert_eq!(chat(listed, &[("origin", listed), ("origin", listed)]), "origin_not_allowed");
    assert_eq!(chat("", &[("host", "x")]), "", "no browser sent it");
}

#[test]
fn a_browser_that_sends_no_origin_still_tells_that_another_site_asks() {
    for (site, expected) in
        [("cross-site", "origin_not_allowed"), ("same-site", "origin_not_allowed"), ("same-origin", ""), ("none", "")]
    {
        let headers = [("host", "x"), ("sec-fetch-site", site)];
        assert_eq!(code("", "POST", CHAT, &headers, LOOPBACK), expected, "{site}");
        assert_eq!(code("*", "POST", CHAT, &headers, LOOPBACK), "", "{site}");
    }
    let listed = [("origin", "https://app.example.org"), ("sec-fetch-site", "cross-site")];
    assert_eq!(code("https://app.example.org", "POST", CHAT, &listed, LOOPBACK), "");
}

#[test]
fn reading_under_a_host_of_this_machine_is_left_to_cors() {
    let headers = [("host", "127.0.0.1"), ("origin", "https://evil.example:1"), ("sec-fetch-site", "cross-site")];
    for path in ["/v1/models", "/props", "/slots", "/lb/stats", "/metrics", "/health"] {
        for method in ["GET", "HEAD"] {
            assert_eq!(code("", method, path, &headers, "192.0.2.1"), "", "{method} {path}");
        }
    }
}

/// Regression: a page whose name server says that its name is this machine's could read what is for operators, because to
/// its browser it was no other site.
#[test]
fn a_page_that_gives_its_own_name_to_this_machine_is_refused() {
    let page =
        [("host", "evil.example:8000"), ("origin", "http://evil.example:8000"), ("sec-fetch-site", "same-origin")];
    let routes = [("GET", "/slots"), ("HEAD", "/slots"), ("GET", "/lb/stats"), ("GET", "/ui"), ("GET", "/ui/app.js")];
    for (method, path) in routes {
        for headers in [&page[..], &page[..1], &page[..2], &[("host", "")]] {
            assert_eq!(code("", method, path, headers, LOOPBACK), "origin_not_allowed", "{method} {path} {headers:?}");
        }
        assert_eq!(code("*", method, path, &page, LOOPBACK), "", "CORS_ORIGINS=* lets every page in");
        assert_eq!(code("http://evil.example:8000", method, path, &page, LOOPBACK), "", "it is listed");
        let names =
            ["localhost", "192.0.2.7:8000", "llamagate:8000", "box.example", "host.docker.internal", "[::1]:8000"];
        for host in names {
            assert_eq!(code("", method, path, &[("host", host)], "192.0.2.1"), "", "{method} {path} {host}");
        }
        assert_eq!(code("", method, path, &[], LOOPBACK), "", "a browser sends a Host");
    }
    for path in ["/", "/ping", "/health", "/api/hello", "/v1/models", "/props", "/metrics"] {
        assert_eq!(code("", "GET", path, &page, LOOPBACK), "", "{path} is served under any name");
    }
    for path in [CHAT, "/v1/embeddings", "/tokenize"] {
        assert_eq!(code("", "POST", path, &page, LOOPBACK), "", "{path} is served under any name");
    }
}

#[test]
fn a_trusted_proxy_decides_itself_which_hosts_it_serves() {
    let headers = [("host", "chat.example"), ("x-forwarded-for", "192.0.2.1")];
    for (proof, expected) in
        [(AddressProof::Proxy, true), (AddressProof::Connection, false), (AddressProof::Unclear, false)]
    {
        assert_eq!(is_accepted("GET", "/slots", &headers, "192.0.2.1", proof), expected, "{proof:?}");
    }
}

/// Regression: any page and any machine could unload models and reload the configuration.
#[test]
fn orders_come_from_programs_and_the_page_of_this_machine_only() {
    for path in ["/reload", "/v1/models/m/load", "/v1/models/m/unload"] {
        for (client, headers, expected) in [
            (LOOPBACK, &[("host", "127.0.0.1:8000")][..], ""),
            ("127.8.9.1", &[("host", "localhost:8000")], ""),
            ("::1", &[("host", "[::1]:8000")], ""),
            ("::ffff:127.0.0.1", &[("host", "app.LOCALHOST")], ""),
            (LOOPBACK, &[("host", "192.0.2.7")], ""),
            (LOOPBACK, &[("host", "localhost.")], ""),
            ("192.0.2.1", &[("host", "127.0.0.1")], "loopback_required"),
            ("::ffff:192.0.2.1", &[("host", "127.0.0.1")], "loopback_required"),
            ("2001:db8::1", &[("host", "127.0.0.1")], "loopback_required"),
            (LOOPBACK, &[("host", "evil.example:8000")], "loopback_required"),
            (LOOPBACK, &[("host", "localhost.evil.example")], "loopback_required"),
            (LOOPBACK, &[("host", "notlocalhost")], "loopback_required"),
            (LOOPBACK, &[("host", "127.0.0.1.nip.example")], "loopback_required"),
            (LOOPBACK, &[], "loopback_required"),
            (LOOPBACK, &[("host", "127.0.0.1"), ("x-forwarded-for", "127.0.0.1")], "loopback_required"),
            (LOOPBACK, &[("host", "127.0.0.1"), ("forwarded", "for=127.0.0.1")], "loopback_required"),
            (LOOPBACK, &[("host", "127.0.0.1"), ("x-real-ip", "127.0.0.1")], "loopback_required"),
            (LOOPBACK, &[("host", "127.0.0.1:8000"), ("origin", "http://127.0.0.1:8000")], ""),
            (LOOPBACK, &[("host", "localhost:8000"), ("origin", "http://localhost:8000")], ""),
            (LOOPBACK, &[("host", "127.0.0.1:8000"), ("origin", "http://127.0.0.1:3000")], "origin_not_allowed"),
            (LOOPBACK, &[("host", "127.0.0.1:8000"), ("origin", "http://localhost:8000")], "origin_not_allowed"),
            (LOOPBACK, &[("host", "evil.example"), ("origin", "http://evil.example")], "loopback_required"),
            ("192.0.2.1", &[("host", "192.0.2.7"), ("origin", "http://192.0.2.7")], "loopback_required"),
            (LOOPBACK, &[("host", "127.0.0.1"), ("origin", "null")], "origin_not_allowed"),
            (LOOPBACK, &[("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")], "origin_not_allowed"),
        ] {
            for origins in ["", "*"] {
                assert_eq!(code(origins, "POST", path, headers, client), expected, "{path} {client} {headers:?}");
            }
        }
    }
}

/// Regression: any page and any machine could make the gateway ask the hub, with the operator's token, or an address.
#[test]
fn a_look_at_the_hub_is_an_order_although_it_is_a_get() {
    let own = ("origin", "http://127.0.0.1:8000");
    for path in ["/hub/models", "/hub/models/o/n", "/fit"] {
        for (client, headers, expected) in [
            (LOOPBACK, &[("host", "127.0.0.1:8000")][..], ""),
            (LOOPBACK, &[("host", "127.0.0.1:8000"), ("sec-fetch-site", "same-origin")], ""),
            (LOOPBACK, &[("host", "127.0.0.1:8000"), own], ""),
            (LOOPBACK, &[("host", "127.0.0.1:8000"), ("sec-fetch-site", "cross-site")], "origin_not_allowed"),
            (LOOPBACK, &[("host", "127.0.0.1:8000"), ("origin", "https://evil.example")], "origin_not_allowed"),
            (LOOPBACK, &[("host", "evil.example:8000")], "loopback_required"),
            ("192.0.2.1", &[("host", "192.0.2.7:8000")], "loopback_required"),
        ] {
            for (method, origins) in [("GET", ""), ("GET", "*"), ("HEAD", "")] {
                assert_eq!(
                    code(origins, method, path, headers, client),
                    expected,
                    "{method} {path} {client} {headers:?}"
                );
            }
        }
    }
}

#[test]
fn over_http2_the_authority_is_the_requested_host() {
    let check = |path: &'static str, uri: &str, origin: Option<&str>| {
        let mut request = Request::post(uri);
        if let Some(origin) = origin {
            request = request.header(ORIGIN, origin);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let route = lookup::find(&Method::POST, path).unwrap();
        KeylessGuard::new(Origins::Off, &own_hosts()).check(&parts, route, direct(LOOPBACK)).is_ok()
    };
    assert!(check(CHAT, "http://box.example:8000/v1/chat/completions", Some("http://box.example:8000")));
    assert!(!check(CHAT, "http://box.example:8000/v1/chat/completions", Some("http://evil.example")));
    assert!(check("/reload", "http://localhost:8000/reload", None));
    assert!(!check("/reload", "http://evil.example:8000/reload", None));
}
