//! What the bodies of requests about model files say: pure.

use crate::dialect::{FieldError, Fields};
use crate::gateway::translation::shared;
use crate::refusal::Refusal;
use crate::settings::bounds::MODEL_NAME;

/// What a client of Ollama wants to pull.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PullOrder {
    pub(super) model: String,
    /// Whether the answer is a stream of lines.
    pub(super) streams: bool,
}

/// Reads the order of a download. Returns the name of the model.
///
/// # Errors
/// The body is not right; says what is wrong.
pub(super) fn read_download(body: &[u8]) -> Result<String, Refusal> {
    let read = || {
        let fields = Fields::parse(body)?;
        fields.allow_only(&["model"])?;
        short("model", fields.required_text("model")?.into_owned())
    };
    read().map_err(shared::refusal_of)
}

/// Reads the order of a pull in Ollama's API.
///
/// # Errors
/// The body is not right, or asks for what is not served here; says what is wrong.
pub(super) fn read_pull(body: &[u8]) -> Result<PullOrder, Refusal> {
    let read = || {
        let fields = Fields::parse(body)?;
        fields.allow_only(&["model", "name", "stream", "insecure"])?;
        if fields.flag("insecure")? == Some(true) {
            return Err(FieldError::of("insecure", "is not served here: models come over TLS, or from HF_ENDPOINT"));
        }
        Ok(PullOrder { model: named(&fields)?, streams: fields.flag("stream")? != Some(false) })
    };
    read().map_err(shared::refusal_of)
}

/// Reads the order of a removal in Ollama's API. Returns the name of the model.
///
/// # Errors
/// The body is not right; says what is wrong.
pub(super) fn read_delete(body: &[u8]) -> Result<String, Refusal> {
    let read = || {
        let fields = Fields::parse(body)?;
        fields.allow_only(&["model", "name"])?;
        named(&fields)
    };
    read().map_err(shared::refusal_of)
}

/// Returns the model that a request of Ollama's API names; older clients call it `name`.
/// Returns the model that a body names, right or not, as it may be kept: without what an address has of secrets.
pub(in crate::gateway) fn named_in(body: &[u8]) -> Option<String> {
    let fields = Fields::parse(body).ok()?;
    let name = ["model", "name"].into_iter().find_map(|name| fields.required_text(name).ok())?;
    let bare = name.split(['?', '#']).next().unwrap_or_default();
    Some(match bare.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default()),
        None => bare.to_owned(),
    })
}

fn named(fields: &Fields<'_>) -> Result<String, FieldError> {
    let named = match fields.text("model")? {
        Some(name) => name,
        None => fields.text("name")?.ok_or_else(|| FieldError::of("model", "is missing"))?,
    };
    short("model", named.into_owned())
}

fn short(field: &str, name: String) -> Result<String, FieldError> {
    match name.len() <= MODEL_NAME {
        true => Ok(name),
        false => Err(FieldError::of(field, format_args!("is longer than {MODEL_NAME} bytes"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_kept_has_no_secrets() {
        for (body, name) in [
            (r#"{"model":"org/name:Q4_0"}"#, Some("org/name:Q4_0")),
            (r#"{"name":"llama3"}"#, Some("llama3")),
            (r#"{"model":"https://user:secret@host/f.gguf?sig=secret#sha256=0"}"#, Some("https://host/f.gguf")),
            (r#"{"model":5}"#, None),
            ("x", None),
        ] {
            assert_eq!(named_in(body.as_bytes()).as_deref(), name, "{body}");
        }
    }

    #[test]
    fn an_order_names_a_model_and_nothing_else() {
        let long = format!("{{\"model\":\"{}\"}}", "x".repeat(MODEL_NAME + 1));
        assert_eq!(read_download(br#"{"model":"o/n"}"#), Ok("o/n".to_owned()));
        for (body, word) in [
            ("", "JSON"),
            ("{}", "model is missing"),
            (r#"{"model":1}"#, "must be a string"),
            (r#"{"model":"o/n","quant":null}"#, "quant"),
            (r#"{"model":"o/n","model":"p/q"}"#, "twice"),
            (long.as_str(), "longer"),
        ] {
            let refused = read_download(body.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(word), "{body}: {refused}");
        }
    }

    #[test]
    fn a_pull_streams_unless_it_says_otherwise_and_is_never_insecure() {
        let pull = |model: &str, streams| Ok(PullOrder { model: model.to_owned(), streams });
        assert_eq!(read_pull(br#"{"model":"a","insecure":false}"#), pull("a", true));
        assert_eq!(read_pull(br#"{"name":"a","stream":false}"#), pull("a", false));
        assert!(read_pull(br#"{"model":"a","insecure":true}"#).unwrap_err().to_string().contains("insecure"));
        assert!(read_pull(br#"{"model":"a","username":"u"}"#).unwrap_err().to_string().contains("username"));
    }
}
