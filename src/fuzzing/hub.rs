//! Invariants of what the hub and the hosts of files answer.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::download::answers::{Description, Listing, asked_pause, check_range, is_blob_name, words_of};
use crate::models::is_plain_path;

/// Longest words of a host that a message quotes, in characters.
const LONGEST_QUOTE: usize = 300;

/// Checks answers of the hub: none makes the readers panic, a listing has no path that leads out of its folder, a hash can
/// be the name of a file, a range that passes is the one that was asked for, and what is quoted is short and without
/// control characters. The input is lines of headers, an empty line, and the body.
pub fn hub_answers(data: &[u8]) {
    let at = data.windows(2).position(|two| two == b"\n\n");
    let (head, body) = at.map_or((data, &data[..0]), |at| (&data[..at], &data[at + 2..]));
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    check_headers(&headers);
    match Listing::parse("hub.example", body) {
        Ok(listing) => {
            assert!((7..=64).contains(&listing.commit.len()) && !listing.commit.contains(['/', '.']));
            assert!(listing.files.iter().all(|path| is_plain_path(path) && !path.split('/').any(|part| part == "..")));
        }
        Err(error) => assert!(error.to_string().starts_with("hub.example ")),
    }
    if let Some(words) = words_of(body) {
        assert!(!words.is_empty() && words.chars().count() <= LONGEST_QUOTE, "{words:?}");
        assert!(!words.chars().any(char::is_control), "{words:?}");
    }
}

fn check_headers(headers: &HeaderMap) {
    let described = Description::of(headers);
    if let Some(etag) = &described.etag {
        assert!(is_blob_name(etag) && !etag.contains(['/', '.']), "{etag:?} is no name of a file");
    }
    assert!(!described.is_of_hub || described.size.is_some());
    assert!(asked_pause(headers).is_none_or(|pause| pause.as_secs() <= 15 * 60));
    let (range, size) = (10..20, 100);
    if check_range("host.example", headers, true, Some(&range), size).is_ok() {
        let value = headers.get("content-range").and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert_eq!(value.trim().to_ascii_lowercase(), "bytes 10-19/100");
    }
    assert!(check_range("host.example", headers, true, None, size).is_err());
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_right = length.is_none_or(|length| length == size);
    assert_eq!(check_range("host.example", headers, false, None, size).is_ok(), is_right);
}
