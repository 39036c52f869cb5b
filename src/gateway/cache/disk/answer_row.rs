//! An answer as a row of the file, and as it is read from there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use rusqlite::Row;

use crate::fleet::ModelRevision;
use crate::gateway::cache::kept_answer::{KeptAnswer, SharedHead};
use crate::gateway::cache::key::CacheKey;

/// The columns of an answer that is read, in the order of [`read_row`].
pub(super) const COLUMNS: &str = "key, kept, model, revision, head, ends, body";

/// Returns the headers of an answer, each as a line.
pub(super) fn head_bytes(head: &SharedHead) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in &head.headers {
        // Neither has a line break, and a name has no colon.
        for part in [name.as_str().as_bytes(), b":", value.as_bytes(), b"\n"] {
            bytes.extend_from_slice(part);
        }
    }
    bytes
}

/// Returns where the pieces of an answer end, eight bytes each.
pub(super) fn end_bytes(ends: &[usize]) -> Vec<u8> {
    ends.iter().flat_map(|end| (*end as u64).to_be_bytes()).collect()
}

/// Reads an answer, with its key; `None` if the row is none that this program writes. `now` is in microseconds since 1970.
///
/// # Errors
/// Whatever SQLite says.
pub(super) fn read_row(row: &Row<'_>, now: i64) -> rusqlite::Result<Option<(CacheKey, KeptAnswer)>> {
    let kept: i64 = row.get(1)?;
    let model: String = row.get(2)?;
    let blob = |column: usize| row.get_ref(column).ok()?.as_blob().ok();
    let parsed = || {
        let key = CacheKey::from_bytes(blob(0)?.try_into().ok()?);
        let revision = ModelRevision::from_bytes(blob(3)?.try_into().ok()?);
        let head = SharedHead { status: StatusCode::OK, headers: headers(blob(4)?)? };
        let body = Bytes::copy_from_slice(blob(6)?);
        let ends = ends(blob(5)?, body.len())?;
        let age = Duration::from_micros(now.checked_sub(kept)?.try_into().ok()?);
        Some((key, KeptAnswer::restored((&model, revision), Arc::new(head), (body, ends), age)))
    };
    Ok(parsed())
}

fn headers(bytes: &[u8]) -> Option<HeaderMap> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = header(line)?;
        headers.append(name, value);
    }
    Some(headers)
}

/// Returns where the pieces of a body of this length end.
fn ends(bytes: &[u8], length: usize) -> Option<Box<[usize]>> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    let ends: Option<Box<[usize]>> =
        numbers.iter().map(|number| usize::try_from(u64::from_be_bytes(*number)).ok()).collect();
    ends.filter(|ends| rest.is_empty() && ends.is_sorted() && ends.last().copied().unwrap_or(0) == length)
}
