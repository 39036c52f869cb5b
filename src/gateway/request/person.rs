//! The person on whose behalf a request is sent, as a client that serves several people names them.

use http::{HeaderMap, HeaderName};
use sha2::{Digest, Sha256};

use super::body::RequestBody;
use super::body_view::gather;
use super::envelope::Envelope;
use crate::gateway::bounds::{PERSON_NAME, PERSON_VALUE};
use crate::gateway::scan::json_scanner::text;
use crate::hex::hex;
use crate::refusal::Refusal;

/// The headers that name one, the first that is there. Workers that are not on this machine never get them.
const PERSON_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-openwebui-user-id"), HeaderName::from_static("x-llm-user")];

/// The members of a body that name one, the first that is there: OpenAI's API, then its newer name.
const MEMBERS: [&str; 2] = ["user", "safety_identifier"];

/// The member whose own member `user_id` names one (Anthropic's API).
const METADATA: &str = "metadata";

/// Returns the name of the person; `None` if none is named. A name in the body that is longer than [`PERSON_NAME`] is
/// replaced by its hash: some clients join several ids in it.
///
/// # Errors
/// [`Refusal::InvalidParameter`] if a header names a person by something else than 1 to [`PERSON_NAME`] printable ASCII
/// characters.
pub(crate) fn of_request(
    envelope: &Envelope,
    body: &RequestBody,
    headers: &HeaderMap,
) -> Result<Option<String>, Refusal> {
    for name in &PERSON_HEADERS {
        let Some(value) = headers.get(name).filter(|value| !value.is_empty()) else { continue };
        return match value.to_str() {
            Ok(value) if value.len() <= PERSON_NAME => Ok(Some(value.to_owned())),
            _ => Err(Refusal::InvalidParameter {
                field: name.to_string(),
                message: format!("the header {name} is not 1 to {PERSON_NAME} printable ASCII characters"),
            }),
        };
    }
    let value_of = |name: &&str| envelope.values(name).last().filter(|range| range.len() <= PERSON_VALUE);
    let named = MEMBERS.iter().find_map(|name| value_of(name).and_then(|range| string(&gather(body, range))));
    let in_metadata = || {
        let metadata: serde_json::Value = serde_json::from_slice(&gather(body, value_of(&METADATA)?)).ok()?;
        metadata.get("user_id")?.as_str().map(str::to_owned)
    };
    Ok(named.or_else(in_metadata).filter(|name| !name.is_empty()).map(shortened))
}

/// Returns the text of a JSON string.
fn string(value: &[u8]) -> Option<String> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    text(inner).map(std::borrow::Cow::into_owned).filter(|name| !name.is_empty())
}

fn shortened(name: String) -> String {
    let is_printable = name.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match name.len() <= PERSON_NAME && is_printable {
        true => name,
        false => format!("sha256-{}", hex(&Sha256::digest(&name)[..16])),
    }
}
