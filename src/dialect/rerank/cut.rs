//! What may be cut off documents that are too long: the members of all dialects that say so.
//!
//! Nothing is cut unless a request asks for it, so defaults of vendors that cut in silence are not followed.

use crate::dialect::fields::{FieldError, Fields, text};

/// What may be cut off documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DocumentCut {
    /// A document that is too long is an error.
    Never,
    /// Documents are cut to what the model's context leaves, or to less.
    Allowed {
        /// Most tokens of a document.
        document: Option<usize>,
        /// Most tokens of query and document together.
        prompt: Option<usize>,
        /// Which side goes.
        side: CutSide,
    },
}

/// The side of a document that is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutSide {
    /// Its end.
    End,
    /// Its start.
    Start,
}

impl DocumentCut {
    /// Returns whether documents may be cut.
    pub fn is_allowed(self) -> bool {
        self != Self::Never
    }
}

/// Reads what may be cut: `truncate` (TEI, NIM, Pinecone), `truncation` (Voyage), `max_tokens_per_doc` and
/// `max_chunks_per_doc` (Cohere), `truncate_prompt_tokens` (vLLM).
///
/// # Errors
/// One of them has a value that it cannot have, or one forbids what another asks for.
pub(super) fn read_cut(fields: &Fields<'_>) -> Result<DocumentCut, FieldError> {
    let (truncate, named_side) = read_truncate(fields)?;
    let truncation = fields.flag("truncation")?;
    let document = fields.count("max_tokens_per_doc", 1)?;
    // vLLM: -1 is as much as the model takes.
    let takes_all = fields.get("truncate_prompt_tokens").is_some_and(|value| value.get() == "-1");
    let prompt = if takes_all { None } else { fields.count("truncate_prompt_tokens", 1)? };
    // Documents are not divided here. One chunk is a document cut to the context. More chunks are a bound that documents
    // keep as long as they fit; those that do not are refused as too long.
    let is_one_chunk = fields.count("max_chunks_per_doc", 1)? == Some(1);
    let asking = [
        ("truncate", truncate == Some(true)),
        ("truncation", truncation == Some(true)),
        ("max_tokens_per_doc", document.is_some()),
        ("truncate_prompt_tokens", takes_all || prompt.is_some()),
        ("max_chunks_per_doc", is_one_chunk),
    ];
    let asks = asking.iter().find(|(_, asks)| *asks).map(|(name, _)| *name);
    let forbids = [("truncate", truncate), ("truncation", truncation)].into_iter().find(|(_, is)| *is == Some(false));
    if let (Some(asks), Some((forbids, _))) = (asks, forbids) {
        return Err(FieldError::of(forbids, format_args!("forbids what {asks} asks for: to cut documents")));
    }
    let side = match named_side {
        Some(side) => side,
        None => read_side(fields)?,
    };
    Ok(if asks.is_some() { DocumentCut::Allowed { document, prompt, side } } else { DocumentCut::Never })
}

/// Reads `truncate`: true or false, or the side in Cohere's words.
fn read_truncate(fields: &Fields<'_>) -> Result<(Option<bool>, Option<CutSide>), FieldError> {
    let Some(value) = fields.get("truncate") else { return Ok((None, None)) };
    let word = text("truncate", value).map(|word| word.to_ascii_uppercase());
    match word.as_deref() {
        Ok("NONE") => Ok((Some(false), None)),
        Ok("END") => Ok((Some(true), Some(CutSide::End))),
        Ok("START") => Ok((Some(true), Some(CutSide::Start))),
        _ => match fields.flag("truncate") {
            Ok(flag) => Ok((flag, None)),
            Err(_) => Err(FieldError::of("truncate", "must be true, false, \"NONE\", \"START\" or \"END\"")),
        },
    }
}

/// Reads `truncation_direction` (TEI) or `truncation_side` (vLLM).
fn read_side(fields: &Fields<'_>) -> Result<CutSide, FieldError> {
    for name in ["truncation_direction", "truncation_side"] {
        if let Some(side) = fields.text(name)? {
            return match side.to_ascii_lowercase().as_str() {
                "right" => Ok(CutSide::End),
                "left" => Ok(CutSide::Start),
                _ => Err(FieldError::of(name, "must be \"left\" or \"right\"")),
            };
        }
    }
    Ok(CutSide::End)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(body: &str) -> Result<DocumentCut, String> {
        read_cut(&Fields::parse(body.as_bytes()).unwrap()).map_err(|error| error.message)
    }

    const fn allowed(document: Option<usize>, prompt: Option<usize>, side: CutSide) -> Result<DocumentCut, String> {
        Ok(DocumentCut::Allowed { document, prompt, side })
    }

    #[test]
    fn nothing_is_cut_unless_the_request_asks_for_it() {
        for body in [
            "{}",
            r#"{"truncate":false}"#,
            r#"{"truncate":"NONE"}"#,
            r#"{"truncation":false,"truncation_direction":"right"}"#,
            r#"{"max_tokens_per_doc":null,"truncate":null}"#,
            r#"{"max_chunks_per_doc":10}"#,
        ] {
            assert_eq!(cut(body), Ok(DocumentCut::Never), "{body}");
        }
    }

    #[test]
    fn each_way_to_ask_for_a_cut_is_read() {
        use CutSide::{End, Start};
        for (body, expected) in [
            (r#"{"truncate":true}"#, allowed(None, None, End)),
            (r#"{"truncate":"true"}"#, allowed(None, None, End)),
            (r#"{"truncate":"END"}"#, allowed(None, None, End)),
            (r#"{"truncate":"start"}"#, allowed(None, None, Start)),
            (r#"{"truncate":true,"truncation_direction":"Left"}"#, allowed(None, None, Start)),
            (r#"{"truncation":true}"#, allowed(None, None, End)),
            (r#"{"max_tokens_per_doc":4096,"truncation":true}"#, allowed(Some(4096), None, End)),
            (r#"{"truncate_prompt_tokens":-1,"truncation_side":"left"}"#, allowed(None, None, Start)),
            (r#"{"truncate_prompt_tokens":100,"max_tokens_per_doc":50}"#, allowed(Some(50), Some(100), End)),
            (r#"{"max_chunks_per_doc":1}"#, allowed(None, None, End)),
        ] {
            assert_eq!(cut(body), expected, "{body}");
        }
    }

    #[test]
    fn values_without_a_meaning_and_contradictions_are_refused() {
        for (body, said) in [
            (r#"{"truncate":"MIDDLE"}"#, "truncate must be true, false, \"NONE\", \"START\" or \"END\""),
            (r#"{"truncate":1}"#, "truncate must be"),
            (r#"{"truncation":"END"}"#, "truncation must be true or false"),
            (r#"{"truncate":true,"truncation_direction":"up"}"#, "truncation_direction must be \"left\" or \"right\""),
            (r#"{"max_tokens_per_doc":0}"#, "max_tokens_per_doc must be a whole number of at least 1"),
            (r#"{"truncate_prompt_tokens":-2}"#, "truncate_prompt_tokens must be"),
            (r#"{"max_chunks_per_doc":0}"#, "max_chunks_per_doc must be"),
            (r#"{"truncation":false,"max_tokens_per_doc":9}"#, "truncation forbids what max_tokens_per_doc asks for"),
            (r#"{"truncate":true,"truncation":false}"#, "truncation forbids what truncate asks for"),
        ] {
            let error = cut(body).unwrap_err();
            assert!(error.contains(said), "{body}: {error}");
        }
    }
}
