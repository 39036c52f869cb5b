//! The tokens of texts in the dialects of workers: what their tokenizers are sent, and what they answer.

use serde::{Deserialize, Serialize};

use super::tokenize::{WorkerToken, WorkerTokens};

/// The dialect of a worker's tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerTokenDialect {
    /// llama-server's.
    Llama,
    /// vLLM's.
    Vllm,
    /// That of text-embeddings-inference.
    Tei,
}

/// What a tokenizer is asked for.
#[derive(Debug, Clone, Copy)]
pub enum WorkerTokenCall<'a> {
    /// The tokens of a text.
    Tokens {
        /// The text.
        text: &'a str,
        /// Whether the tokens that a model puts around a text are wanted too.
        add_special: bool,
        /// Whether the pieces that the tokens stand for are wanted too.
        with_pieces: bool,
        /// Whether a control token that is written in the text becomes that token; `None` leaves it to the worker. Only
        /// llama-server can be told.
        parse_special: Option<bool>,
    },
    /// The text of these tokens.
    Text(&'a [u32]),
}

#[derive(Serialize)]
struct LlamaTokens<'a> {
    content: &'a str,
    add_special: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    with_pieces: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    parse_special: Option<bool>,
}

#[derive(Serialize)]
struct LlamaText<'a> {
    tokens: &'a [u32],
}

#[derive(Serialize)]
struct VllmTokens<'a> {
    model: &'a str,
    prompt: &'a str,
    add_special_tokens: bool,
    return_token_strs: bool,
}

#[derive(Serialize)]
struct VllmText<'a> {
    model: &'a str,
    tokens: &'a [u32],
}

#[derive(Serialize)]
struct TeiTokens<'a> {
    inputs: &'a str,
    add_special_tokens: bool,
}

#[derive(Serialize)]
struct TeiText<'a> {
    ids: &'a [u32],
    skip_special_tokens: bool,
}

impl WorkerTokenDialect {
    /// Returns the path of the route that answers this call.
    pub fn path(self, call: &WorkerTokenCall<'_>) -> &'static str {
        match (call, self) {
            (WorkerTokenCall::Tokens { .. }, _) => "/tokenize",
            (WorkerTokenCall::Text(_), Self::Llama | Self::Vllm) => "/detokenize",
            (WorkerTokenCall::Text(_), Self::Tei) => "/decode",
        }
    }

    /// Writes a request to the tokenizer of the model that the worker knows by this name.
    pub fn write_request(self, call: &WorkerTokenCall<'_>, model: &str) -> Vec<u8> {
        // Numbers and texts cannot fail to be written to memory.
        fn json(value: &impl Serialize) -> Vec<u8> {
            serde_json::to_vec(value).unwrap_or_default()
        }
        match (*call, self) {
            (WorkerTokenCall::Tokens { text, add_special, with_pieces, parse_special }, Self::Llama) => {
                json(&LlamaTokens { content: text, add_special, with_pieces, parse_special })
            }
            (WorkerTokenCall::Tokens { text, add_special, with_pieces, .. }, Self::Vllm) => json(&VllmTokens {
                model,
                prompt: text,
                add_special_tokens: add_special,
                return_token_strs: with_pieces,
            }),
            (WorkerTokenCall::Tokens { text, add_special, .. }, Self::Tei) => {
                json(&TeiTokens { inputs: text, add_special_tokens: add_special })
            }
            (WorkerTokenCall::Text(tokens), Self::Llama) => json(&LlamaText { tokens }),
            (WorkerTokenCall::Text(tokens), Self::Vllm) => json(&VllmText { model, tokens }),
            (WorkerTokenCall::Text(ids), Self::Tei) => json(&TeiText { ids, skip_special_tokens: true }),
        }
    }

    /// Reads the ids of the tokens of a text.
    ///
    /// # Errors
    /// The answer holds none.
    pub fn read_ids(self, body: &[u8]) -> Result<Vec<u32>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Ids {
            tokens: Vec<u32>,
        }
        match self {
            Self::Llama | Self::Vllm => serde_json::from_slice::<Ids>(body).map(|ids| ids.tokens),
            Self::Tei => tei_tokens(body).map(|tokens| tokens.into_iter().map(|token| token.id).collect()),
        }
    }

    /// Reads the tokens of a text with their pieces.
    ///
    /// # Errors
    /// The answer holds no tokens with pieces.
    pub fn read_tokens(self, body: &[u8]) -> Result<WorkerTokens, serde_json::Error> {
        #[derive(Deserialize)]
        struct Named {
            tokens: Vec<u32>,
            token_strs: Vec<String>,
        }
        match self {
            Self::Llama => serde_json::from_slice(body),
            Self::Vllm => {
                let named: Named = serde_json::from_slice(body)?;
                if named.tokens.len() != named.token_strs.len() {
                    return Err(serde::de::Error::custom("it has not one text for each token"));
                }
                let both = named.tokens.into_iter().zip(named.token_strs);
                Ok(both.map(|(id, piece)| WorkerToken::new(id, piece)).collect())
            }
            Self::Tei => {
                Ok(tei_tokens(body)?.into_iter().map(|token| WorkerToken::new(token.id, token.text)).collect())
            }
        }
    }

    /// Reads the text of tokens.
    ///
    /// # Errors
    /// The answer holds none.
    pub fn read_text(self, body: &[u8]) -> Result<String, serde_json::Error> {
        #[derive(Deserialize)]
        struct Content {
            #[serde(alias = "prompt")]
            content: String,
        }
        match self {
            Self::Llama | Self::Vllm => serde_json::from_slice::<Content>(body).map(|answer| answer.content),
            Self::Tei => serde_json::from_slice::<[String; 1]>(body).map(|[text]| text),
        }
    }
}

#[derive(Deserialize)]
struct TeiToken {
    id: u32,
    text: String,
}

/// Returns the tokens of the only text that was sent.
fn tei_tokens(body: &[u8]) -> Result<Vec<TeiToken>, serde_json::Error> {
    serde_json::from_slice::<[Vec<TeiToken>; 1]>(body).map(|[tokens]| tokens)
}

#[cfg(test)]
mod tests {
    use super::WorkerTokenDialect::{Llama, Tei, Vllm};
    use super::*;

    const fn tokens(text: &str, is_whole: bool, parse_special: Option<bool>) -> WorkerTokenCall<'_> {
        WorkerTokenCall::Tokens { text, add_special: is_whole, with_pieces: is_whole, parse_special }
    }

    const TOKENS: WorkerTokenCall<'_> = tokens("a\"", false, None);
    const PIECES: WorkerTokenCall<'_> = tokens("a", true, None);
    const PLAIN: WorkerTokenCall<'_> = tokens("a", false, Some(false));

    #[test]
    fn each_tokenizer_is_asked_in_its_own_dialect() {
        for (dialect, call, path, body) in [
            (Llama, TOKENS, "/tokenize", r#"{"content":"a\"","add_special":false}"#),
            (Llama, PIECES, "/tokenize", r#"{"content":"a","add_special":true,"with_pieces":true}"#),
            (Llama, PLAIN, "/tokenize", r#"{"content":"a","add_special":false,"parse_special":false}"#),
            (Llama, WorkerTokenCall::Text(&[1, 2]), "/detokenize", r#"{"tokens":[1,2]}"#),
            (
                Vllm,
                TOKENS,
                "/tokenize",
                r#"{"model":"m","prompt":"a\"","add_special_tokens":false,"return_token_strs":false}"#,
            ),
            (Vllm, WorkerTokenCall::Text(&[1]), "/detokenize", r#"{"model":"m","tokens":[1]}"#),
            (Tei, PIECES, "/tokenize", r#"{"inputs":"a","add_special_tokens":true}"#),
            (Tei, WorkerTokenCall::Text(&[1]), "/decode", r#"{"ids":[1],"skip_special_tokens":true}"#),
        ] {
            assert_eq!(dialect.path(&call), path);
            assert_eq!(String::from_utf8(dialect.write_request(&call, "m")).unwrap(), body);
        }
    }

    #[test]
    fn the_answer_of_each_tokenizer_is_read() {
        let llama = br#"{"tokens":[{"id":7,"piece":"a"},{"id":8,"piece":"b"}]}"#;
        let vllm = br#"{"count":2,"max_model_len":512,"tokens":[7,8],"token_strs":["a","b"]}"#;
        let tei = br#"[[{"id":7,"text":"a","special":false,"start":0,"stop":1},{"id":8,"text":"b","special":true}]]"#;
        let expected = Llama.read_tokens(llama).unwrap();
        assert_eq!(Vllm.read_tokens(vllm).unwrap(), expected);
        assert_eq!(Tei.read_tokens(tei).unwrap(), expected);
        assert_eq!(Llama.read_ids(br#"{"tokens":[7,8]}"#).unwrap(), [7, 8]);
        assert_eq!((Vllm.read_ids(vllm).unwrap(), Tei.read_ids(tei).unwrap()), (vec![7, 8], vec![7, 8]));
        assert_eq!(Llama.read_text(br#"{"content":"a b"}"#).unwrap(), "a b");
        assert_eq!(Vllm.read_text(br#"{"prompt":"a b"}"#).unwrap(), "a b");
        assert_eq!(Tei.read_text(br#"["a b"]"#).unwrap(), "a b");
        assert!(Vllm.read_tokens(br#"{"tokens":[7],"token_strs":[]}"#).is_err());
        for body in [&b"{}"[..], b"[]", b"[7]", b"null", b"", br#"{"error":"no"}"#] {
            for dialect in [Llama, Vllm, Tei] {
                let has_read = dialect.read_ids(body).is_ok() || dialect.read_text(body).is_ok();
                assert!(!has_read && dialect.read_tokens(body).is_err(), "{dialect:?}");
            }
        }
    }
}
