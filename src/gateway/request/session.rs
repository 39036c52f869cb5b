//! The session that a request names, by which the fleet finds the worker that has served the session before.
//!
//! Coding agents name it: codex by `prompt_cache_key` and `session-id`, opencode by `x-session-affinity`, Claude Code by
//! `x-claude-code-session-id`, Open WebUI by `x-openwebui-chat-id`. It says more than the bytes of a prompt, whose beginning many sessions share.

use std::borrow::Cow;

use http::HeaderMap;

use super::body::RequestBody;
use super::body_view::gather;
use super::envelope::Envelope;
use crate::gateway::bounds::SESSION_ID;

/// The members of a body that name a session: that of OpenAI's API, and one that other gateways read.
const MEMBERS: [&str; 2] = ["prompt_cache_key", "session_id"];

/// The headers that name one, the first that is there.
const HEADERS: [&str; 4] = ["session-id", "x-session-affinity", "x-claude-code-session-id", "x-openwebui-chat-id"];

/// Returns the name of the session of a request; `None` if it names none, or by more than [`SESSION_ID`] bytes.
pub(super) fn of_request<'a>(envelope: &Envelope, body: &RequestBody, headers: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let named = |name| envelope.members.iter().rfind(move |member| member.is_named(name) && member.first == b'"');
    let member = MEMBERS.into_iter().find_map(named);
    let in_body = member.map(|member| member.value.start + 1..member.value.end - 1);
    let of_header = || HEADERS.iter().find_map(|name| headers.get(*name)).map(|value| Cow::Borrowed(value.as_bytes()));
    let name = match in_body {
        Some(range) if range.len() > SESSION_ID => return None,
        Some(range) if !range.is_empty() => Some(Cow::Owned(gather(body, range))),
        _ => of_header(),
    };
    name.filter(|name| !name.is_empty() && name.len() <= SESSION_ID)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_session_is_named_in_the_body_or_in_a_header() {
        let named = |body: &str, header: Option<(&'static str, &'static str)>| {
            let body = RequestBody::default().with_pieces([bytes::Bytes::from(body.to_owned())].into());
            let envelope = Envelope::of(&body).unwrap();
            let mut headers = HeaderMap::new();
            headers.extend(
                header.map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value))),
            );
            of_request(&envelope, &body, &headers).map(|name| String::from_utf8(name.into_owned()).unwrap())
        };
        let long = format!(r#"{{"prompt_cache_key":"{}"}}"#, "x".repeat(SESSION_ID + 1));
        for (body, header, expected) in [
            (r#"{"prompt_cache_key":"a"}"#, None, Some("a")),
            (r#"{"prompt_cache_key":"a"}"#, Some(("session-id", "b")), Some("a")),
            (r#"{"prompt_cache_key":null}"#, Some(("session-id", "b")), Some("b")),
            (r#"{"prompt_cache_key":""}"#, Some(("x-session-affinity", "c")), Some("c")),
            ("{}", Some(("x-claude-code-session-id", "d")), Some("d")),
            (r#"{"session_id":"f"}"#, None, Some("f")),
            ("{}", Some(("x-openwebui-chat-id", "g")), Some("g")),
            ("{}", Some(("x-request-id", "e")), None),
            ("{}", None, None),
            (long.as_str(), None, None),
        ] {
            assert_eq!(named(body, header).as_deref(), expected, "{body} {header:?}");
        }
    }
}
