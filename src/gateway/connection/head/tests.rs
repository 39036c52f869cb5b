use proptest::prelude::*;

use super::*;
use crate::gateway::bounds::HEAD_SIZE;

const LIMITS: HeadLimits = HeadLimits { request_line: 100, header_line: 80, headers: 5 };

/// Returns the framing of a good head, or the status of the refusal.
fn framing_or_status(raw: impl AsRef<[u8]>) -> Result<Framing, u16> {
    check(raw.as_ref(), &LIMITS).map_err(|refusal| refusal.status().as_u16())
}

/// Checks a good request with one more header line.
fn check_with_line(line: &str) -> Result<Framing, u16> {
    framing_or_status(format!("POST /v1/x HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n"))
}

#[test]
fn a_good_head_gives_the_framing_of_its_body() {
    assert_eq!(framing_or_status("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(Framing::None));
    assert_eq!(
        framing_or_status("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        Ok(Framing::None),
        "one empty line before it"
    );
    assert_eq!(framing_or_status("GET / HTTP/1.0\r\n\r\n"), Ok(Framing::None), "HTTP/1.0 needs no Host");
    assert_eq!(framing_or_status("GET / HTTP/1.0\r\nContent-Length: 3\r\n\r\n"), Ok(Framing::Length(3)));
    assert_eq!(check_with_line("Content-Length: 0"), Ok(Framing::None));
    assert_eq!(check_with_line("content-length:\t 007 "), Ok(Framing::Length(7)));
    assert_eq!(check_with_line("Content-Length: 7\r\nContent-Length: 7"), Ok(Framing::Length(7)));
    assert_eq!(check_with_line("TRANSFER-ENCODING: Chunked"), Ok(Framing::Chunked));
    assert_eq!(check_with_line("X-Empty:\r\nX-High: \u{e9}\tx"), Ok(Framing::None));
    for target in ["/", "*", "http://h/x", "/a{}\"?b=%20", "/\u{e9}"] {
        assert_eq!(
            framing_or_status(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")),
            Ok(Framing::None),
            "{target}"
        );
    }
    for host in ["", "h:8000", "[::1]:80", "a-b_c.d"] {
        assert_eq!(framing_or_status(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), Ok(Framing::None), "{host}");
    }
}

#[test]
fn an_ambiguous_head_is_refused() {
    for line in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 1, 2",
        "Content-Length: 1, 1",
        "Content-Length: +1",
        "Content-Length: -1",
        "Content-Length: 1 1",
        "Content-Length: 0x1",
        "Content-Length: ",
        "Content-Length: 18446744073709551616",
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 1",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "X: y\r\n folded",
        "no colon",
        ": no name",
        "X\u{e9}: y",
        "X: a\0b",
        "X: a\rb",
        "X: a\x7fb",
        "X: a\nY: b",
        "Host: other",
    ] {
        assert_eq!(check_with_line(line), Err(400), "{line:?}");
    }
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: h\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        "GET / http/1.1\r\nHost: h\r\n\r\n",
        "GET /\r\nHost: h\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http:// HTTP/1.1\r\nHost: h\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "\n\r\n\r\n",
    ] {
        assert_eq!(framing_or_status(head), Err(400), "{head:?}");
    }
    assert_eq!(framing_or_status(b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n"), Err(400), "the target is not UTF-8");
}

#[test]
fn connect_is_refused_and_every_upgrade_is_hidden() {
    assert_eq!(framing_or_status("CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n"), Err(400));
    let scan = |raw: &str| HeadScanner::default().advance(raw.as_bytes(), &HeadLimits::USUAL).unwrap().unwrap();
    let lookalikes = "X-Upgrade: b\r\nupgraded: c";
    let raw = format!("GET /upgrade: HTTP/1.1\r\nHost: h\r\nUpgrade: a\r\n{lookalikes}\r\nUPGRADE:upgrade: d\r\n\r\n");
    assert!(scan(&raw).has_upgrade);
    let hidden = raw.replace("\nUpgrade: a", "\ntrailer: a").replace("UPGRADE:", "trailer:");
    let mut bytes = raw.into_bytes();
    hide_upgrade(&mut bytes);
    assert_eq!(String::from_utf8(bytes).unwrap(), hidden);
    assert!(!scan(&hidden).has_upgrade);
}

#[test]
fn a_head_that_just_meets_a_limit_passes_and_one_beyond_it_is_refused() {
    let line = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(length - 14));
    assert_eq!((framing_or_status(line(100)), framing_or_status(line(101))), (Ok(Framing::None), Err(414)));
    let header = |length: usize| check_with_line(&format!("X: {}", "x".repeat(length - 3)));
    assert_eq!((header(80), header(81)), (Ok(Framing::None), Err(431)));
    let lines = |count: usize| check_with_line(vec!["X: y"; count - 1].join("\r\n").as_str());
    assert_eq!((lines(5), lines(6)), (Ok(Framing::None), Err(431)));
    let many = HeadLimits { headers: 10_000, ..LIMITS };
    let of_size = |size: usize| {
        let begin = "GET / HTTP/1.1\r\nHost: h\r\n";
        let filler = size - begin.len() - 2;
        let lines = "a: b\r\n".repeat(filler / 6 - 1) + &format!("a: {}\r\n", "b".repeat(filler % 6 + 1));
        check(format!("{begin}{lines}\r\n").as_bytes(), &many)
    };
    assert!(of_size(HEAD_SIZE).is_ok());
    assert_eq!(of_size(HEAD_SIZE + 1).unwrap_err().code(), "header_fields_too_large");
}

#[test]
fn a_line_is_refused_as_soon_as_it_is_too_long() {
    let endless = |begin: &str, count: usize| {
        let raw = format!("{begin}{}", "x".repeat(count));
        HeadScanner::default().advance(raw.as_bytes(), &LIMITS).map_err(|refusal| refusal.status().as_u16())
    };
    assert_eq!(endless("", 101), Ok(None), "the last byte may be the CR");
    assert_eq!(endless("", 102), Err(414));
    assert_eq!(endless("GET / HTTP/1.1\r\n", 81), Ok(None));
    assert_eq!(endless("GET / HTTP/1.1\r\n", 82), Err(431));
}

#[test]
fn header_values_and_the_path_are_found_in_incomplete_and_malformed_heads() {
    let raw = b"GET /a?b HTTP/1.1\r\nno colon\r\nOrigin:  http://x \r\norigin: y\r\nLast: cut";
    assert_eq!(header_value(raw, "origin"), Some("http://x"));
    assert_eq!((header_value(raw, "last"), header_value(raw, "get /a?b http/1.1")), (None, None));
    assert_eq!(method_and_path(raw), (Some(http::Method::GET), Some("/a")));
    assert_eq!(method_and_path(b"\r\nPOST /long"), (Some(http::Method::POST), Some("/long")));
    assert_eq!(method_and_path(b"GE"), (None, None));
    assert_eq!(method_and_path(b"\x16\x03\x01 \xff"), (None, None));
    assert_eq!(method_and_path(b""), (None, None));
}

/// Generates good and nearly good heads, with other bytes after them.
fn any_head() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("Host: h"), 1 => Just("Content-Length: 5"), 1 => Just("Transfer-Encoding: chunked"),
        1 => Just("Content-Length: 5, 5"), 1 => Just("X-Some: thing"), 1 => Just(" fold"), 1 => Just("a:b\rc"),
    ];
    let end = prop_oneof![9 => Just("\r\n"), 1 => Just("\n")];
    let request = prop_oneof![4 => Just("GET / HTTP/1.1".to_owned()), 1 => "[A-Z]{0,4} [/a?]{0,90} HTTP/1\\.[01]"];
    (request, prop::collection::vec((line, end), 0..8), "\r\n[^\r]{0,40}").prop_map(|(request, lines, rest)| {
        let mut head = request + "\r\n";
        lines.iter().for_each(|(line, end)| head += &format!("{line}{end}"));
        (head + &rest).into_bytes()
    })
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_how_the_head_is_cut(head in any_head(), cuts: Vec<u8>) {
        let whole = HeadScanner::default().advance(&head, &LIMITS);
        let (mut scanner, mut end, mut outcome) = (HeadScanner::default(), 0, Ok(None));
        for cut in cuts.into_iter().map(usize::from).chain([usize::MAX]) {
            end = head.len().min(cut.saturating_add(end));
            outcome = scanner.advance(&head[..end], &LIMITS);
            if outcome != Ok(None) {
                break;
            }
        }
        prop_assert_eq!(outcome, whole);
    }

    #[test]
    fn arbitrary_bytes_do_not_make_the_scanner_panic(bytes: Vec<u8>) {
        let _ = check(&bytes, &LIMITS);
        let _ = (header_value(&bytes, "host"), method_and_path(&bytes));
    }
}
