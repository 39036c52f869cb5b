//! Requests to workers, each in its dialect. `top_n` is never sent, so that every document gets a score.

use serde::Serialize;

use super::answer::json;
use super::cut::{CutSide, DocumentCut};
use super::scale::ScoreScale;
use crate::dialect::fields::FieldError;

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

/// Most texts of a request to text-embeddings-inference, whose `--max-client-batch-size` this is unless it is set.
const TEI_BATCH: usize = 32;

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
    /// Whether logits are wanted. llama-server knows no such wish, and gives what it gives.
    pub wants_raw_scores: bool,
    /// The task, for workers that take one: vLLM.
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
            // Infinity has it below the same path as its embeddings.
            Self::Llama | Self::Vllm | Self::Jina | Self::Voyage | Self::Infinity => "/v1/rerank",
            Self::Tei => "/rerank",
            Self::Cohere => "/v2/rerank",
        }
    }

    /// Returns the scale of the scores that answer a request, where the dialect defines one.
    pub fn scale(self, wants_raw_scores: bool) -> ScoreScale {
        match self {
            // Jina's newest reranker gives cosines. vLLM's answer depends on the model, and other servers are called vLLM's.
            Self::Llama | Self::Jina | Self::Vllm => ScoreScale::Unknown,
            Self::Cohere | Self::Voyage => ScoreScale::Probabilities,
            Self::Tei | Self::Infinity if wants_raw_scores => ScoreScale::Logits,
            Self::Tei | Self::Infinity => ScoreScale::Probabilities,
        }
    }

    /// Returns the most documents of a request, unless that is left to the worker.
    pub fn most_documents(self) -> Option<usize> {
        (self == Self::Tei).then_some(TEI_BATCH)
    }

    /// Checks that the worker obeys what a request asks for. `is_cut` says that the documents have been cut already.
    ///
    /// # Errors
    /// The member that it does not obey.
    pub fn check(self, request: &WorkerRerankRequest<'_>, is_cut: bool) -> Result<(), FieldError> {
        if request.wants_raw_scores && matches!(self, Self::Cohere | Self::Jina | Self::Voyage) {
            return Err(FieldError::of("raw_scores", "must be false: the backend of this model gives no logits"));
        }
        if request.instruction.is_some() && self != Self::Vllm {
            return Err(FieldError::of("instruction", "has no effect at this model: its worker takes no instruction"));
        }
        let DocumentCut::Allowed { document, prompt, side } = request.cut else { return Ok(()) };
        if is_cut || matches!(self, Self::Llama | Self::Vllm) {
            return Ok(());
        }
        let what = "cannot be obeyed: the backend of this model cuts only to its own context";
        match (self, document, prompt, side) {
            (Self::Cohere, _, None, _) | (_, None, None, CutSide::End) | (Self::Tei, None, None, CutSide::Start) => {
                Ok(())
            }
            (Self::Cohere, ..) | (_, None, Some(_), _) => Err(FieldError::of("truncate_prompt_tokens", what)),
            (_, Some(_), ..) => Err(FieldError::of("max_tokens_per_doc", what)),
            (_, None, None, CutSide::Start) => {
                Err(FieldError::of("truncate", "must cut the end: the backend of this model cuts no beginning"))
            }
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
            (Infinity, "/v1/rerank", r#","raw_scores":false}"#, r#","raw_scores":true}"#),
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
        assert_eq!(
            (WorkerRerankDialect::Vllm.scale(false), WorkerRerankDialect::Jina.scale(false)),
            (Llama.scale(false), Llama.scale(false))
        );
        assert_eq!((Cohere.scale(true), Voyage.scale(true)), (ScoreScale::Probabilities, ScoreScale::Probabilities));
    }

    #[test]
    fn what_a_worker_cannot_do_is_refused_by_name_and_never_left_out() {
        use WorkerRerankDialect::{Cohere, Infinity, Jina, Llama, Tei, Vllm, Voyage};
        let refused = |dialect: WorkerRerankDialect, request: &WorkerRerankRequest<'_>, is_cut| {
            dialect.check(request, is_cut).err().and_then(|error| error.field)
        };
        let cut = |document, prompt, side| WorkerRerankRequest {
            cut: DocumentCut::Allowed { document, prompt, side },
            ..PLAIN
        };
        let raw = WorkerRerankRequest { wants_raw_scores: true, ..PLAIN };
        let instructed = WorkerRerankRequest { instruction: Some("Find"), ..PLAIN };
        for dialect in [Llama, Vllm, Tei, Infinity, Cohere, Jina, Voyage] {
            let has_no_task = (dialect != Vllm).then(|| "instruction".to_owned());
            assert_eq!(refused(dialect, &instructed, true), has_no_task, "{dialect:?}");
            let has_none = matches!(dialect, Cohere | Jina | Voyage).then(|| "raw_scores".to_owned());
            assert_eq!(refused(dialect, &raw, false), has_none, "{dialect:?}");
            assert_eq!(refused(dialect, &PLAIN, false), None);
            assert_eq!(refused(dialect, &cut(None, None, CutSide::End), false), None);
            assert_eq!(refused(dialect, &cut(Some(9), Some(9), CutSide::Start), true), None, "{dialect:?}");
            let numbers = refused(dialect, &cut(Some(9), None, CutSide::End), false);
            assert_eq!(numbers.is_none(), matches!(dialect, Llama | Vllm | Cohere), "{dialect:?}");
            let side = refused(dialect, &cut(None, None, CutSide::Start), false);
            assert_eq!(side.is_none(), matches!(dialect, Llama | Vllm | Cohere | Tei), "{dialect:?}");
            let prompt = refused(dialect, &cut(None, Some(9), CutSide::End), false);
            assert_eq!(prompt.is_none(), matches!(dialect, Llama | Vllm), "{dialect:?}");
        }
    }
}
