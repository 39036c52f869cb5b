//! The head of an HTTP/1.1 request, as bytes: its grammar and how its body is framed.
//!
//! Pure: it reads no socket and builds no answer. What passes here has one meaning only, so nobody behind the gateway
//! can read it differently (RFC 9112, sections 2.2, 3, 5 and 6). Stricter than the RFC in two places: a line that ends
//! with LF alone is refused, and so is a Content-Length that is a list, even one of equal numbers.
//!
//! - `limits.rs`: how large a head may be

mod limits;

use crate::refusal::Refusal;
pub use limits::HeadLimits;
use memchr::memchr;

/// What follows a head (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    /// So many bytes; never 0.
    Length(u64),
    Chunked,
}

/// A head that is complete and good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompleteHead {
    /// Its length in bytes, the empty line included.
    pub(super) length: usize,
    pub(super) framing: Framing,
    /// Whether it asks for another protocol: see [`hide_upgrade`].
    pub(super) has_upgrade: bool,
}

/// How far a head has been read. Each byte is looked at once, in however many pieces the head comes.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    /// Where the line begins whose end has not been seen.
    line_start: usize,
    /// Bytes that are known to hold no end of that line.
    scanned: usize,
    headers: usize,
    version: Option<HttpVersion>,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    has_upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HttpVersion {
    Http10,
    Http11,
}

/// The longest target that `http::Uri` takes.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// The longest name that `http::HeaderName` takes.
const MAX_HEADER_NAME: usize = u16::MAX as usize;

/// Checks a head that comes in two pieces, the first of which ends at `cut`. None: it is incomplete.
#[cfg(any(test, feature = "test-support"))]
pub(crate) fn check_in_two(raw: &[u8], cut: usize, limits: &HeadLimits) -> Result<Option<(usize, Framing)>, Refusal> {
    let mut scan = HeadScanner::default();
    let found = match scan.advance(&raw[..cut.min(raw.len())], limits)? {
        None => scan.advance(raw, limits)?,
        found => found,
    };
    Ok(found.map(|found| (found.length, found.framing)))
}

/// Checks a head that is there as a whole.
#[cfg(test)]
pub(super) fn check(raw: &[u8], limits: &HeadLimits) -> Result<Framing, Refusal> {
    let found = check_in_two(raw, 0, limits)?;
    found.map(|(_, framing)| framing).ok_or_else(|| Refusal::bad_request("the head is incomplete"))
}

impl HeadScanner {
    /// Goes on with `raw`, which begins where the head begins and holds what was there last time. None: more is needed.
    pub(super) fn advance(&mut self, raw: &[u8], limits: &HeadLimits) -> Result<Option<CompleteHead>, Refusal> {
        loop {
            let Some(at) = memchr(b'\n', &raw[self.scanned..]) else {
                self.scanned = raw.len();
                // Without its end, a line of the longest size with its CR and one byte more is already too long.
                self.check_lengths(raw.len().saturating_add(1), limits)?;
                return Ok(None);
            };
            let end = self.scanned + at + 1;
            self.check_lengths(end, limits)?;
            let Some(line) = raw[self.line_start..end].strip_suffix(b"\r\n") else {
                return Err(Refusal::bad_request("a line of the head ends with LF alone")); // RFC 9112, section 2.2 allows it; we do not
            };
            let first = self.line_start == 0;
            (self.line_start, self.scanned) = (end, end);
            match (self.version, line.is_empty()) {
                // One empty line before a request is to be ignored (RFC 9112, section 2.2).
                (None, true) if first => {}
                (None, true) => return Err(Refusal::bad_request("there are empty lines before the request line")),
                (None, false) => self.version = Some(parse_request_line(line)?),
                (Some(version), true) => {
                    let framing = self.framing(version)?;
                    return Ok(Some(CompleteHead { length: end, framing, has_upgrade: self.has_upgrade }));
                }
                (Some(_), false) => {
                    self.headers += 1;
                    limits.check_headers(self.headers)?;
                    self.check_header(line)?;
                }
            }
        }
    }

    /// Whichever limit lies first in the bytes decides, so that it does not matter in which pieces they come.
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

    fn check_header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if line[0] == b' ' || line[0] == b'\t' {
            return Err(Refusal::bad_request("a header line is folded")); // RFC 9112, section 5.2
        }
        let colon = memchr(b':', line).ok_or_else(|| Refusal::bad_request("a header line has no colon"))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // Space before the colon is no part of a name either (RFC 9112, section 5.1).
        if name.is_empty() || name.len() > MAX_HEADER_NAME || !name.iter().all(|&byte| is_token_char(byte)) {
            return Err(Refusal::bad_request("a header name is malformed"));
        }
        if !is_field_value(value) {
            return Err(Refusal::bad_request("a header value holds a control character"));
        }
        // The few names that say where a request ends and to whom it goes.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                if !trim(value).iter().all(|&byte| is_host_char(byte)) {
                    return Err(Refusal::bad_request("Host is malformed"));
                }
            }
            7 if name.eq_ignore_ascii_case(UPGRADE) => self.has_upgrade = true,
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = parse_content_length(trim(value))
                    .ok_or_else(|| Refusal::bad_request("Content-Length is not a number"))?;
                if self.length.replace(length).is_some_and(|before| before != length) {
                    return Err(Refusal::bad_request("there are different values of Content-Length"));
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || !trim(value).eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::bad_request("Transfer-Encoding is not 'chunked', once"));
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn framing(&self, version: HttpVersion) -> Result<Framing, Refusal> {
        if self.hosts > 1 || (self.hosts == 0 && version == HttpVersion::Http11) {
            return Err(Refusal::bad_request("there must be one Host header")); // RFC 9112, section 3.2
        }
        // RFC 9112, section 6.1 lets a server refuse both; whoever sends them tries to be read in two ways.
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Refusal::bad_request("Content-Length stands beside Transfer-Encoding")),
            (true, None) if version == HttpVersion::Http10 => {
                Err(Refusal::bad_request("HTTP/1.0 knows no Transfer-Encoding"))
            }
            (true, None) => Ok(Framing::Chunked),
            (false, None | Some(0)) => Ok(Framing::None),
            (false, Some(length)) => Ok(Framing::Length(length)),
        }
    }
}

/// `method SP request-target SP HTTP-version` (RFC 9112, section 3).
fn parse_request_line(line: &[u8]) -> Result<HttpVersion, Refusal> {
    let malformed = || Refusal::bad_request("the request line is malformed");
    let method_end = memchr(b' ', line).ok_or_else(malformed)?;
    let (method, rest) = (&line[..method_end], &line[method_end + 1..]);
    let target_end = memchr(b' ', rest).ok_or_else(malformed)?;
    let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);
    if method == b"CONNECT" {
        return Err(Refusal::bad_request("CONNECT is for proxies")); // hyper would give the connection away
    }
    if method.is_empty() || !method.iter().all(|&byte| is_token_char(byte)) {
        return Err(malformed());
    }
    if target.len() > MAX_TARGET {
        return Err(Refusal::UriTooLong(MAX_TARGET));
    }
    let usual = target.first() == Some(&b'/') && target.iter().all(|&byte| is_usual_target_char(byte));
    // An unusual target costs an allocation; it is good if hyper will take it.
    let good = usual || (target.iter().all(|&byte| byte > b' ' && byte != 0x7f) && http::Uri::try_from(target).is_ok());
    match version {
        _ if !good => Err(malformed()),
        b"HTTP/1.1" => Ok(HttpVersion::Http11),
        b"HTTP/1.0" => Ok(HttpVersion::Http10),
        _ => Err(Refusal::bad_request("the HTTP version is not one that is spoken here")),
    }
}

const UPGRADE: &[u8] = b"upgrade";

/// Another header of one connection, which nobody passes on or acts on.
const INSTEAD_OF_UPGRADE: &[u8; UPGRADE.len()] = b"trailer";

/// Renames each `Upgrade` of a good head. Nobody need follow it (RFC 9110, section 7.8), but hyper, once it has seen one,
/// gives the connection away at its end instead of closing it.
pub(super) fn hide_upgrade(head: &mut [u8]) {
    for line in head.split_inclusive_mut(|&byte| byte == b'\n') {
        if let Some((name, [b':', ..])) = line.split_first_chunk_mut()
            && name.eq_ignore_ascii_case(UPGRADE)
        {
            *name = *INSTEAD_OF_UPGRADE;
        }
    }
}

/// The first value of a header in a head that may be incomplete or bad.
pub(crate) fn header_value<'a>(raw: &'a [u8], name: &str) -> Option<&'a str> {
    let header_lines = raw.split_inclusive(|&byte| byte == b'\n').skip_while(|line| *line == b"\r\n").skip(1);
    let values = header_lines.filter_map(|line| {
        let line = line.strip_suffix(b"\n")?;
        let colon = memchr(b':', line)?;
        line[..colon].eq_ignore_ascii_case(name.as_bytes()).then(|| &line[colon + 1..])
    });
    values.map(|value| value.trim_ascii()).next().and_then(|value| std::str::from_utf8(value).ok())
}

/// Method and path without the query, as far as a head that may be incomplete or bad shows them.
pub(crate) fn method_and_path(raw: &[u8]) -> (Option<http::Method>, Option<&str>) {
    let raw = raw.strip_prefix(b"\r\n").unwrap_or(raw);
    let line = raw.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let Some(method_end) = memchr(b' ', line) else { return (None, None) };
    let method = http::Method::from_bytes(&line[..method_end]).ok();
    let target = line[method_end + 1..].split(|&byte| byte == b' ' || byte == b'?').next().unwrap_or_default();
    let path = std::str::from_utf8(target).ok().filter(|path| path.starts_with('/'));
    (method, path)
}

fn parse_content_length(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, digit: &u8| match digit {
        b'0'..=b'9' => sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    // hyper keeps the two largest numbers for itself.
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add).filter(|&sum| sum <= u64::MAX - 2) }
}

/// Without spaces and tabs around it (RFC 9110, section 5.6.3).
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Without NUL, bare CR and other control characters (RFC 9110, section 5.5). Has no early exit, so that it is
/// compiled to vector instructions.
fn is_field_value(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |dirty, &byte| dirty | ((byte < b' ') & (byte != b'\t')) | (byte == 0x7f))
}

/// `tchar` of RFC 9110, section 5.6.2.
pub(crate) fn is_token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A character of `uri-host [ ":" port ]` (RFC 3986, section 3.2).
fn is_host_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

/// A character of a path or query that needs no second look (RFC 3986, sections 3.3 and 3.4).
fn is_usual_target_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:@?".contains(&byte)
}

#[cfg(test)]
mod tests;
