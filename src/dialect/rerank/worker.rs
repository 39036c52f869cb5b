//! Requests to workers, each in its dialect. `top_n` is never sent, so that every document gets a score.

use serde::Serialize;

use super::answer::json;
use super::cut::{CutSide, DocumentCut};
use super::scale::ScoreScale;

/// What a worker that reranks speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerRerankDialect {
    /// llama-server, and servers that take the same request.
    Llama,
    /// vLLM.
    Vllm,
    /// Text Embeddings Inference.
    Tei,
    /// Cohere.
    Cohere,
    /// Jina.
    Jina,
    /// Voyage.
    Voyage,
    /// Infinity.
    Infinity,
}

/// What is asked of a worker.
#[derive(Debug, Clone, Copy)]
pub struct WorkerRerankRequest<'a> {
    /// The name of the model, as the worker knows it.
    pub model: &'a str,
    /// The query.
    pub query: &'a str,
    /// The documents.
    pub documents: &'a [&'a str],
    /// What the worker may cut off documents; for llama-server that is done before.
    pub cut: DocumentCut,
    /// Whether logits are wanted. Workers that know no such wish give what they give.
    pub wants_raw_scores: bool,
    /// The task; only vLLM takes one.
    pub instruction: Option<&'a str>,
}

#[derive(Serialize, Default)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    query: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    documents: Option<&'a [&'a str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    texts: Option<&'a [&'a str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    return_documents: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_scores: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_activation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instruction: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncation_direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens_per_doc: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate_prompt_tokens: Option<i64>,
}

impl WorkerRerankDialect {
    /// Returns the path of the route that reranks.
    pub fn path(self) -> &'static str {
        match self {
            Self::Llama | Self::Vllm | Self::Jina | Self::Voyage => "/v1/rerank",
            Self::Tei | Self::Infinity => "/rerank",
            Self::Cohere => "/v2/rerank",
        }
    }

    /// Returns the scale of the scores that answer a request, where the dialect defines one.
    pub fn scale(self, wants_raw_scores: bool) -> ScoreScale {
        match self {
            Self::Llama | Self::Jina => ScoreScale::Unknown,
            Self::Cohere | Self::Voyage => ScoreScale::Probabilities,
            Self::Vllm | Self::Tei | Self::Infinity if wants_raw_scores => ScoreScale::Logits,
            Self::Vllm | Self::Tei | Self::Infinity => ScoreScale::Probabilities,
        }
    }

    /// Writes the body of a request.
    pub fn write_request(self, request: &WorkerRerankRequest<'_>) -> Vec<u8> {
        let is_cut = request.cut.is_allowed();
        let body = Body {
            model: Some(request.model),
            query: request.query,
            documents: Some(request.documents),
            ..Body::default()
        };
        json(&match self {
            Self::Llama => body,
            Self::Vllm => Body {
                use_activation: request.wants_raw_scores.then_some(false),
                instruction: request.instruction,
                max_tokens_per_doc: document_tokens(request.cut),
                truncate_prompt_tokens: prompt_tokens(request.cut),
                ..body
            },
            Self::Tei => Body {
                model: None,
                documents: None,
                texts: Some(request.documents),
                raw_scores: Some(request.wants_raw_scores),
                // Its default is an option of the server.
                truncate: Some(is_cut),
                truncation_direction: is_at_start(request.cut).then_some("left"),
                ..body
            },
            Self::Cohere => Body { max_tokens_per_doc: document_tokens(request.cut), ..body },
            // Documents come back unless that is forbidden.
            Self::Jina => Body { return_documents: Some(false), ..body },
            // It cuts unless that is forbidden.
            Self::Voyage => Body { truncation: Some(is_cut), ..body },
            Self::Infinity => Body { raw_scores: Some(request.wants_raw_scores), ..body },
        })
    }
}

fn document_tokens(cut: DocumentCut) -> Option<usize> {
    if let DocumentCut::Allowed { document, .. } = cut { document } else { None }
}

/// Returns vLLM's `truncate_prompt_tokens`, where -1 is as much as the model takes.
fn prompt_tokens(cut: DocumentCut) -> Option<i64> {
    let DocumentCut::Allowed { prompt, .. } = cut else { return None };
    Some(prompt.and_then(|tokens| i64::try_from(tokens).ok()).unwrap_or(-1))
}

fn is_at_start(cut: DocumentCut) -> bool {
    matches!(cut, DocumentCut::Allowed { side: CutSide::Start, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: WorkerRerankRequest<'_> = WorkerRerankRequest {
        model: "m",
        query: "q\"",
        documents: &["a", "b"],
        cut: DocumentCut::Never,
        wants_raw_scores: false,
        instruction: None,
    };

    const CUT: DocumentCut = DocumentCut::Allowed { document: Some(9), prompt: None, side: CutSide::Start };

    #[test]
    fn requests_are_written_as_each_worker_reads_them() {
        use WorkerRerankDialect::{Cohere, Infinity, Jina, Llama, Tei, Vllm, Voyage};
        let full = WorkerRerankRequest { cut: CUT, wants_raw_scores: true, instruction: Some("i"), ..PLAIN };
        let plain = r#"{"model":"m","query":"q\"","documents":["a","b"]"#;
        for (dialect, path, simple, whole) in [
            (Llama, "/v1/rerank", "}", "}"),
            (
                Vllm,
                "/v1/rerank",
                "}",
                r#","use_activation":false,"instruction":"i","max_tokens_per_doc":9,"truncate_prompt_tokens":-1}"#,
            ),
            (Cohere, "/v2/rerank", "}", r#","max_tokens_per_doc":9}"#),
            (Jina, "/v1/rerank", r#","return_documents":false}"#, r#","return_documents":false}"#),
            (Voyage, "/v1/rerank", r#","truncation":false}"#, r#","truncation":true}"#),
            (Infinity, "/rerank", r#","raw_scores":false}"#, r#","raw_scores":true}"#),
        ] {
            assert_eq!(dialect.path(), path);
            assert_eq!(String::from_utf8(dialect.write_request(&PLAIN)).unwrap(), format!("{plain}{simple}"));
            assert_eq!(String::from_utf8(dialect.write_request(&full)).unwrap(), format!("{plain}{whole}"));
        }
        assert_eq!(Tei.path(), "/rerank");
        assert_eq!(
            String::from_utf8(Tei.write_request(&PLAIN)).unwrap(),
            r#"{"query":"q\"","texts":["a","b"],"raw_scores":false,"truncate":false}"#
        );
        assert_eq!(
            String::from_utf8(Tei.write_request(&full)).unwrap(),
            r#"{"query":"q\"","texts":["a","b"],"raw_scores":true,"truncate":true,"truncation_direction":"left"}"#
        );
    }

    #[test]
    fn scales_are_those_that_the_vendors_document() {
        use WorkerRerankDialect::{Cohere, Infinity, Llama, Tei, Voyage};
        assert_eq!(Llama.scale(false), ScoreScale::Unknown);
        assert_eq!((Tei.scale(false), Tei.scale(true)), (ScoreScale::Probabilities, ScoreScale::Logits));
        assert_eq!((Infinity.scale(false), Infinity.scale(true)), (ScoreScale::Probabilities, ScoreScale::Logits));
        assert_eq!((Cohere.scale(true), Voyage.scale(true)), (ScoreScale::Probabilities, ScoreScale::Probabilities));
    }
}
