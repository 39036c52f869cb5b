//! The head of an HTTP/1.1 request, as bytes: its grammar, and how its body is framed.
//!
//! Pure: reads no socket and builds no response. A head that passes has one meaning only, so no later parser can read
//! it differently (RFC 9112, sections 2.2, 3, 5 and 6). Stricter than the RFC requires in two places: a line that ends
//! with LF alone is refused, and so is a `Content-Length` that is a list, even if all its values are equal.
//!
//! - `limits.rs`: size limits of a head
//! - `lines.rs`: how a header line is written, what its value may hold, and how a name and the length of a body are read
//! - `request.rs`: a head that has passed, as a request

mod limits;
mod lines;
pub(super) mod request;

use memchr::memchr;

use crate::refusal::Refusal;

pub use limits::HeadLimits;
use lines::is_field_value;
pub(in crate::gateway) use lines::{add_line, header_name, parse_content_length, parse_digits};

/// How the body after a head is framed (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    /// The body has this many bytes; never 0.
    Length(u64),
    Chunked,
}

/// A head that is complete and well-formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompleteHead {
    /// Length in bytes, with the empty line at its end.
    pub(super) length: usize,
    pub(super) framing: Framing,
    /// Whether it has an `Upgrade` header: see [`hide_upgrade`].
    pub(super) has_upgrade: bool,
}

/// Where a header line is in the bytes of a head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HeaderLine {
    pub(super) start: usize,
    /// The end of the name.
    pub(super) colon: usize,
    /// The end of the value.
    pub(super) end: usize,
}

/// A resumable scanner of one head. Scans each byte once, however the head is cut into pieces.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    /// Offset at which the first unfinished line begins.
    line_start: usize,
    /// Offset up to which the bytes have been searched for the end of that line.
    scanned: usize,
    /// Header lines so far.
    header_count: usize,
    /// None until the request line has been read.
    version: Option<HttpVersion>,
    /// `Host` headers so far.
    host_count: usize,
    content_length: Option<u64>,
    is_chunked: bool,
    has_upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HttpVersion {
    Http10,
    Http11,
}

/// Longest request target in bytes that `http::Uri` accepts.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// Longest header name in bytes that `http::HeaderName` accepts.
const MAX_HEADER_NAME: usize = u16::MAX as usize;

/// Checks a head that arrives in two pieces, the first of which ends at `cut`. Returns `None` if the head is
/// incomplete.
///
/// # Errors
/// Refuses a malformed head with 400, and one that exceeds `limits` with 414 or 431.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn check_in_two(raw: &[u8], cut: usize, limits: &HeadLimits) -> Result<Option<(usize, Framing)>, Refusal> {
    let mut scanner = HeadScanner::default();
    let head = match scanner.advance(&raw[..cut.min(raw.len())], limits)? {
        None => scanner.advance(raw, limits)?,
        head => head,
    };
    Ok(head.map(|head| (head.length, head.framing)))
}

/// Checks a complete head.
///
/// # Errors
/// Refuses as [`check_in_two`] does, and an incomplete head with 400.
#[cfg(test)]
pub(super) fn check(raw: &[u8], limits: &HeadLimits) -> Result<Framing, Refusal> {
    let head = check_in_two(raw, 0, limits)?;
    head.map(|(_, framing)| framing).ok_or_else(|| Refusal::bad_request("the head is incomplete"))
}

impl HeadScanner {
    /// Continues with `raw`: all bytes of the head so far, those of earlier calls included. Returns `None` if more
    /// bytes are needed.
    ///
    /// # Errors
    /// Refuses a malformed head with 400, and one that exceeds `limits` with 414 or 431.
    pub(super) fn advance(&mut self, raw: &[u8], limits: &HeadLimits) -> Result<Option<CompleteHead>, Refusal> {
        self.advance_and_note(raw, limits, |_| ())
    }

    /// Does what [`Self::advance`] does, and passes each header line to `note`.
    pub(super) fn advance_and_note(
        &mut self,
        raw: &[u8],
        limits: &HeadLimits,
        mut note: impl FnMut(HeaderLine),
    ) -> Result<Option<CompleteHead>, Refusal> {
        loop {
            let Some(offset) = memchr(b'\n', &raw[self.scanned..]) else {
                self.scanned = raw.len();
                // The LF, at least, is still missing: count it, so that an overlong line is refused before it ends.
                self.check_lengths(raw.len().saturating_add(1), limits)?;
                return Ok(None);
            };
            let end = self.scanned + offset + 1;
            self.check_lengths(end, limits)?;
            let Some(line) = raw[self.line_start..end].strip_suffix(b"\r\n") else {
                // RFC 9112, section 2.2 allows a recipient to accept this. Refusing it is safer: parsers differ here.
                return Err(Refusal::bad_request("a line of the head ends with LF alone"));
            };
            let start = self.line_start;
            (self.line_start, self.scanned) = (end, end);
            match (self.version, line.is_empty()) {
                // RFC 9112, section 2.2: ignore at least one empty line before a request. Old clients sent one after a
                // body.
                (None, true) if start == 0 => {}
                (None, true) => return Err(Refusal::bad_request("there are empty lines before the request line")),
                (None, false) => self.version = Some(parse_request_line(line)?),
                (Some(version), true) => {
                    let framing = self.framing(version)?;
                    return Ok(Some(CompleteHead { length: end, framing, has_upgrade: self.has_upgrade }));
                }
                (Some(_), false) => {
                    self.header_count += 1;
                    limits.check_headers(self.header_count)?;
                    let colon = self.check_header(line)?;
                    note(HeaderLine { start, colon: start + colon, end: start + line.len() });
                }
            }
        }
    }

    /// Checks the current line, which ends at or after `end`, and the whole head. The limit that is reached first in
    /// the bytes decides, so that the refusal does not depend on how the head is cut into pieces.
    fn check_lengths(&self, end: usize, limits: &HeadLimits) -> Result<(), Refusal> {
        let line_limit = if self.version.is_none() { limits.request_line } else { limits.header_line };
        let line_end = self.line_start.saturating_add(line_limit).saturating_add(b"\r\n".len());
        if end <= line_end.min(limits.size()) {
            return Ok(());
        }
        Err(match self.version {
            _ if line_end > limits.size() => limits.large_head_refusal(),
            None => Refusal::UriTooLong(limits.request_line),
            Some(_) => limits.long_line_refusal(),
        })
    }

    /// Checks one header line, without its CRLF, and remembers what frames the request. Returns where its colon is.
    fn check_header(&mut self, line: &[u8]) -> Result<usize, Refusal> {
        if line[0] == b' ' || line[0] == b'\t' {
            // obs-fold: a server must refuse or unfold it (RFC 9112, section 5.2).
            return Err(Refusal::bad_request("a header line is folded"));
        }
        // A colon is no part of a token, so one pass finds it and checks the name. This refuses white space before the colon
        // too, as RFC 9112, section 5.1 requires.
        let name_end = line.iter().position(|&byte| !is_token_char(byte));
        let Some(colon) = name_end.filter(|&end| line[end] == b':' && (1..=MAX_HEADER_NAME).contains(&end)) else {
            let has_colon = line.contains(&b':');
            let reason = if has_colon { "a header name is malformed" } else { "a header line has no colon" };
            return Err(Refusal::bad_request(reason));
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_field_value(value) {
            return Err(Refusal::bad_request("a header value holds a control character"));
        }
        // Only the headers that frame and route the request matter here. Comparing lengths first skips most names.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.host_count += 1;
                if !are_all_in(trim(value), &HOST_CHARS) {
                    return Err(Refusal::bad_request("Host is malformed"));
                }
            }
            7 if name.eq_ignore_ascii_case(UPGRADE) => self.has_upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = parse_content_length(trim(value))
                    .ok_or_else(|| Refusal::bad_request("Content-Length is not a number"))?;
                // Equal values in several lines are harmless (RFC 9112, section 6.3).
                if self.content_length.replace(length).is_some_and(|earlier| earlier != length) {
                    return Err(Refusal::bad_request("there are different values of Content-Length"));
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                // RFC 9112, section 6.3 demands 400 if `chunked` is not last. Section 6.1 suggests 501 for codings that
                // are not supported; a client can do nothing different about that, so it is 400 too.
                if self.is_chunked || !trim(value).eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::bad_request("Transfer-Encoding is not 'chunked', once"));
                }
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(colon)
    }

    /// Decides how the body is framed, once all headers have been read.
    fn framing(&self, version: HttpVersion) -> Result<Framing, Refusal> {
        if self.host_count > 1 || (self.host_count == 0 && version == HttpVersion::Http11) {
            // RFC 9112, section 3.2 demands this 400.
            return Err(Refusal::bad_request("there must be one Host header"));
        }
        match (self.is_chunked, self.content_length) {
            // RFC 9112, section 6.1 allows a server to refuse this. It is the classic form of request smuggling.
            (true, Some(_)) => Err(Refusal::bad_request("there are both Content-Length and Transfer-Encoding")),
            // RFC 9112, section 6.1: the framing of such a message is faulty.
            (true, None) if version == HttpVersion::Http10 => {
                Err(Refusal::bad_request("HTTP/1.0 has no Transfer-Encoding"))
            }
            (true, None) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::None),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// Parses `method SP request-target SP HTTP-version` (RFC 9112, section 3) and returns the version.
///
/// # Errors
/// Refuses a malformed line, `CONNECT` and other versions with 400, and a target that hyper cannot hold with 414.
fn parse_request_line(line: &[u8]) -> Result<HttpVersion, Refusal> {
    let malformed = || Refusal::bad_request("the request line is malformed");
    let method_end = memchr(b' ', line).ok_or_else(malformed)?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    let target_end = memchr(b' ', rest).ok_or_else(malformed)?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    if method == b"CONNECT" {
        // hyper would hand the connection over as a tunnel, and not close it properly.
        return Err(Refusal::bad_request("CONNECT is for proxies"));
    }
    if method.is_empty() || !are_all_in(method, &TOKEN_CHARS) {
        return Err(malformed());
    }
    if target.len() > MAX_TARGET {
        return Err(Refusal::UriTooLong(MAX_TARGET));
    }
    let is_usual = target.first() == Some(&b'/') && are_all_in(target, &USUAL_TARGET_CHARS);
    // Any other target must be one that hyper accepts. That check allocates, so it comes second.
    let is_valid =
        is_usual || (target.iter().all(|&byte| byte > b' ' && byte != 0x7f) && http::Uri::try_from(target).is_ok());
    match version {
        _ if !is_valid => Err(malformed()),
        b"HTTP/1.1" => Ok(HttpVersion::Http11),
        b"HTTP/1.0" => Ok(HttpVersion::Http10),
        _ => Err(Refusal::bad_request("the HTTP version is not supported")),
    }
}

const UPGRADE: &[u8] = b"upgrade";

/// The name that an `Upgrade` header has after [`hide_upgrade`]: a hop-by-hop header of the same length, which the gateway
/// does not forward.
pub(in crate::gateway) const HIDDEN_UPGRADE: &str = "trailer";
const UPGRADE_REPLACEMENT: &[u8; UPGRADE.len()] = b"trailer";

/// Renames each `Upgrade` header of a well-formed head, in place.
///
/// A server may ignore `Upgrade` (RFC 9110, section 7.8). hyper, once it has seen one, hands the socket over at the end
/// of the connection and never calls `poll_shutdown`, so the lingering close would not happen.
pub(super) fn hide_upgrade(head: &mut [u8]) {
    for line in head.split_inclusive_mut(|&byte| byte == b'\n') {
        if let Some((name, [b':', ..])) = line.split_first_chunk_mut()
            && name.eq_ignore_ascii_case(UPGRADE)
        {
            *name = *UPGRADE_REPLACEMENT;
        }
    }
}

/// Returns the first value of a header in a head that may be incomplete or malformed.
pub(crate) fn header_value<'a>(raw: &'a [u8], name: &str) -> Option<&'a str> {
    header_values(raw, name).next().and_then(|value| std::str::from_utf8(value).ok())
}

/// Returns the values of a header in a head that may be incomplete or malformed.
pub(crate) fn header_values<'a>(raw: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let header_lines = raw.split_inclusive(|&byte| byte == b'\n').skip_while(|line| *line == b"\r\n").skip(1);
    header_lines.filter_map(move |line| {
        let line = line.strip_suffix(b"\n")?;
        let colon = memchr(b':', line)?;
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    })
}

/// Returns the method and the path without its query, as far as they can be read in a head that may be incomplete or
/// malformed.
pub(crate) fn method_and_path(raw: &[u8]) -> (Option<http::Method>, Option<&str>) {
    let raw = raw.strip_prefix(b"\r\n").unwrap_or(raw);
    let line = raw.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let Some(method_end) = memchr(b' ', line) else { return (None, None) };
    let method = http::Method::from_bytes(&line[..method_end]).ok();
    let target = line[method_end + 1..].split(|&byte| byte == b' ' || byte == b'?').next().unwrap_or_default();
    let path = std::str::from_utf8(target).ok().filter(|path| path.starts_with('/'));
    (method, path)
}

/// Returns the value without the spaces and tabs around it (RFC 9110, section 5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Returns a table of the letters, the digits and these other bytes. A look-up is cheaper than comparisons.
const fn with_alphanumerics(others: &[u8]) -> [bool; 256] {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < table.len() {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// The bytes of a token: `tchar` (RFC 9110, section 5.6.2).
static TOKEN_CHARS: [bool; 256] = with_alphanumerics(b"!#$%&'*+-.^_`|~");

/// The bytes that may occur in `uri-host [ ":" port ]` (RFC 3986, section 3.2).
static HOST_CHARS: [bool; 256] = with_alphanumerics(b"-._~%!$&'()*+,;=:[]");

/// The bytes that may occur in a path or a query as they are (RFC 3986, sections 3.3 and 3.4).
static USUAL_TARGET_CHARS: [bool; 256] = with_alphanumerics(b"/-._~%!$&'()*+,;=:@?");

/// Whether each byte is in a table.
fn are_all_in(bytes: &[u8], table: &[bool; 256]) -> bool {
    // No early exit, which would cost more than the bytes after it: nearly every head passes.
    bytes.iter().fold(true, |are_all, &byte| are_all & table[usize::from(byte)])
}

/// Whether a byte is a `tchar`.
pub(crate) fn is_token_char(byte: u8) -> bool {
    TOKEN_CHARS[usize::from(byte)]
}

#[cfg(test)]
mod tests;
