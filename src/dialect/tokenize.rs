//! The tokens of texts, as text-embeddings-inference gives them: with the place of each token in its text.
//!
//! Workers give the pieces of the vocabulary that their tokens stand for. They are looked for in the text, one after
//! the other; a piece that is not found, because the tokenizer has changed the text, has no place.

use serde::{Deserialize, Serialize};

use super::bounds::MOST_TOKENIZED_TEXTS;
use super::fields::{self, FieldError, Fields};

/// A request for the tokens of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizeRequest {
    /// The name of the model, if the client named one.
    pub model: Option<String>,
    /// At least one text.
    pub inputs: Vec<String>,
    /// Whether the tokens that a model puts around a text are wanted too.
    pub add_special_tokens: bool,
}

/// What a worker gives for a text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WorkerTokens {
    tokens: Vec<WorkerToken>,
}

/// One token, as a worker gives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct WorkerToken {
    id: u32,
    piece: WorkerPiece,
}

/// The piece of a token: a text, or bytes that are none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum WorkerPiece {
    Text(String),
    Bytes(Vec<u8>),
}

/// One token of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct PlacedToken {
    id: u32,
    text: String,
    special: bool,
    /// The place in the text, in characters.
    start: Option<usize>,
    stop: Option<usize>,
}

/// Reads a request; returns `None` if it is none of this dialect, which `inputs` tells.
///
/// # Errors
/// A member has a value that it cannot have, or is not served; the error names it.
pub fn parse(body: &[u8]) -> Result<Option<TokenizeRequest>, FieldError> {
    let Ok(fields) = Fields::parse(body) else { return Ok(None) };
    let Some(value) = fields.get("inputs").filter(|_| !fields.has("content")) else { return Ok(None) };
    fields.refuse("prompt_name", "the tokens are those of the text alone, without a prompt of the model")?;
    let inputs = if value.get().starts_with('[') {
        let items = fields::list("inputs", value)?;
        if items.is_empty() || items.len() > MOST_TOKENIZED_TEXTS {
            return Err(FieldError::of("inputs", format_args!("must hold 1 to {MOST_TOKENIZED_TEXTS} texts")));
        }
        let numbered = items.into_iter().enumerate();
        numbered.map(|(at, item)| fields::text(&format!("inputs[{at}]"), item)).collect::<Result<Vec<_>, _>>()?
    } else {
        vec![fields::text("inputs", value)?]
    };
    Ok(Some(TokenizeRequest {
        model: fields.text("model")?.map(std::borrow::Cow::into_owned),
        inputs: inputs.into_iter().map(std::borrow::Cow::into_owned).collect(),
        add_special_tokens: fields.flag("add_special_tokens")?.unwrap_or(true),
    }))
}

/// Writes the answer: for each text its tokens, and the same tokens without special ones where those were wanted.
pub fn write(texts: &[(&str, WorkerTokens, Option<WorkerTokens>)]) -> Vec<u8> {
    let placed: Vec<Vec<PlacedToken>> =
        texts.iter().map(|(text, tokens, plain)| place(text, &tokens.tokens, plain.as_ref())).collect();
    // Numbers and texts cannot fail to be written to memory.
    serde_json::to_vec(&placed).unwrap_or_default()
}

/// Returns the tokens with their places in the text. Special ones are those before and after the plain ones.
fn place(text: &str, tokens: &[WorkerToken], plain: Option<&WorkerTokens>) -> Vec<PlacedToken> {
    let ids = |tokens: &[WorkerToken]| tokens.iter().map(|token| token.id).collect::<Vec<_>>();
    let plain = plain.map_or_else(|| ids(tokens), |plain| ids(&plain.tokens));
    let all = ids(tokens);
    let first = if plain.is_empty() {
        all.len()
    } else {
        all.windows(plain.len()).position(|window| window == plain).unwrap_or_default()
    };
    let own = first..first + plain.len();
    let text: Vec<char> = text.chars().collect();
    let mut from = 0;
    let placed = tokens.iter().enumerate().map(|(at, token)| {
        let special = !own.contains(&at);
        let piece = token.piece.text();
        let found = if special { None } else { find(&text, from, &piece) };
        from = found.as_ref().map_or(from, |found| found.end);
        let written = found.clone().map_or(piece, |found| text[found].iter().collect());
        let (start, stop) = (found.as_ref().map(|found| found.start), found.map(|found| found.end));
        PlacedToken { id: token.id, text: written, special, start, stop }
    });
    placed.collect()
}

/// Returns where a piece stands in the text, at `from` or after the spaces that follow there. Tokenizers may have changed
/// the case, and mark beginnings and continuations of words.
fn find(text: &[char], from: usize, piece: &str) -> Option<std::ops::Range<usize>> {
    let spaces = text.get(from..)?.iter().take_while(|char| char.is_whitespace()).count();
    let bare = piece.trim_start_matches("##").trim_start_matches(['\u{2581}', ' ']);
    [(from + spaces, bare), (from, piece)].into_iter().find_map(|(start, piece)| {
        let piece: Vec<char> = piece.chars().collect();
        let end = start + piece.len();
        let stands = text.get(start..end)?.iter().zip(&piece).all(|(one, other)| is_same(*one, *other));
        (stands && !piece.is_empty()).then_some(start..end)
    })
}

fn is_same(one: char, other: char) -> bool {
    one == other || one.to_lowercase().eq(other.to_lowercase())
}

impl WorkerToken {
    /// Creates a token whose piece is a text.
    pub(super) fn new(id: u32, piece: String) -> Self {
        Self { id, piece: WorkerPiece::Text(piece) }
    }
}

impl FromIterator<WorkerToken> for WorkerTokens {
    fn from_iter<T: IntoIterator<Item = WorkerToken>>(tokens: T) -> Self {
        Self { tokens: tokens.into_iter().collect() }
    }
}

impl WorkerPiece {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tokens(pieces: &[(u32, Value)]) -> WorkerTokens {
        let tokens: Vec<Value> = pieces.iter().map(|(id, piece)| json!({"id": id, "piece": piece})).collect();
        serde_json::from_value(json!({"tokens": tokens})).unwrap()
    }

    fn answered(text: &str, all: &[(u32, Value)], plain: Option<&[(u32, Value)]>) -> Value {
        serde_json::from_slice(&write(&[(text, tokens(all), plain.map(tokens))])).unwrap()
    }

    #[test]
    fn a_request_is_told_from_llama_servers_own_by_its_inputs() {
        let request = |body: &str| parse(body.as_bytes()).unwrap();
        for other in [r#"{"content":"a"}"#, r#"{"content":"a","inputs":"b"}"#, r#"{"inputs":null}"#, "{}", "[", "\"a\""]
        {
            assert_eq!(request(other), None, "{other}");
        }
        let one = TokenizeRequest { model: None, inputs: vec!["a".to_owned()], add_special_tokens: true };
        assert_eq!(request(r#"{"inputs":"a"}"#), Some(one.clone()));
        assert_eq!(request(r#"{"inputs":["a"],"add_special_tokens":null}"#), Some(one));
        let two = request(r#"{"inputs":["a","b"],"add_special_tokens":false,"model":"m"}"#).unwrap();
        assert_eq!((two.inputs.len(), two.add_special_tokens, two.model.as_deref()), (2, false, Some("m")));
        let refused = |body: &str| parse(body.as_bytes()).unwrap_err().message;
        assert_eq!(refused(r#"{"inputs":[]}"#), "inputs must hold 1 to 1024 texts");
        assert_eq!(refused(r#"{"inputs":["a",7]}"#), "inputs[1] must be a string");
        assert!(refused(r#"{"inputs":"a","prompt_name":"query"}"#).starts_with("prompt_name is not served here"));
    }

    #[test]
    fn tokens_have_their_places_in_characters_and_special_ones_have_none() {
        let plain = [(7, json!(" grüße")), (8, json!("##n")), (9, json!(" you"))];
        let all = [&[(1, json!("<s>"))][..], &plain, &[(2, json!("</s>"))]].concat();
        let special =
            |id: u32, text: &str| json!({"id": id, "text": text, "special": true, "start": null, "stop": null});
        let own = |id: u32, text: &str, start: usize, stop: usize| json!({"id": id, "text": text, "special": false, "start": start, "stop": stop});
        let own = [own(7, "Grüße", 0, 5), own(8, "n", 5, 6), own(9, "you", 8, 11)];
        let expected = [&[special(1, "<s>")][..], &own, &[special(2, "</s>")]].concat();
        assert_eq!(answered("Grüßen  you", &all, Some(&plain)), json!([expected]));
        assert_eq!(answered("Grüßen  you", &plain, None), json!([own]));
    }

    #[test]
    fn a_piece_that_is_not_in_the_text_has_no_place_and_the_next_one_has() {
        let answer = answered("é x", &[(1, json!("e")), (2, json!([255])), (3, json!("x"))], None);
        assert_eq!(answer[0][0], json!({"id": 1, "text": "e", "special": false, "start": null, "stop": null}));
        assert_eq!(answer[0][1]["text"], "\u{fffd}");
        assert_eq!(answered("", &[(1, json!("<s>"))], Some(&[]))[0][0]["special"], true);
    }
}
