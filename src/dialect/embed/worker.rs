//! Requests for embeddings in the dialects of workers. What comes back is read in `worker_answer.rs`.

use serde::Serialize;
use serde::ser::Serializer;

use super::super::fields::FieldError;
use super::canonical::{EmbedInput, InputCut, PromptName, PromptRole};
use super::inputs::json;

/// The usual length of the vectors of Voyage's models.
const VOYAGE_LENGTH: usize = 1024;

/// Most texts of a request to text-embeddings-inference, whose `--max-client-batch-size` this is unless it is set.
const TEI_BATCH: usize = 32;

/// The dialect of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEmbedDialect {
    /// llama-server, vLLM, and others that take after OpenAI.
    OpenAi,
    /// text-embeddings-inference.
    Tei,
    /// Cohere's API, version 2.
    Cohere,
    /// Jina's API.
    Jina,
    /// Voyage's API.
    Voyage,
    /// Ollama's own API.
    Ollama,
}

/// The path by which a llama-server gives the vectors of all tokens; a server with OpenAI's API has another one for the same
/// request.
pub const ROWS_PATH: &str = "/embeddings";

/// What a worker is asked for: dense vectors of its own size, in the order of the inputs.
#[derive(Debug, Clone, Copy)]
pub struct WorkerEmbedCall<'a> {
    /// The name by which the worker knows the model.
    pub model: &'a str,
    /// At least one.
    pub inputs: &'a [EmbedInput],
    /// Where the worker cuts inputs that are too long.
    pub cut: InputCut,
    /// A prefix that the worker puts before each input.
    pub prompt: Option<&'a PromptName>,
    /// Whether vectors have length 1.
    pub is_normalized: bool,
    /// How many numbers of each vector the client wants. Only Voyage is told, of whose models some give more than their
    /// usual number; in all other cases the vectors are cut here.
    pub dimensions: Option<usize>,
}

impl WorkerEmbedDialect {
    /// Returns the path to which requests go.
    pub fn path(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Jina | Self::Voyage => "/v1/embeddings",
            Self::Tei => "/embed",
            Self::Cohere => "/v2/embed",
            Self::Ollama => "/api/embed",
        }
    }

    /// Returns the most inputs of a request, unless that is left to the worker.
    pub fn most_inputs(self) -> Option<usize> {
        (self == Self::Tei).then_some(TEI_BATCH)
    }

    /// Returns whether it takes token ids in place of text.
    pub fn can_take_tokens(self) -> bool {
        matches!(self, Self::OpenAi | Self::Tei)
    }

    /// Returns whether the worker itself puts prefixes before inputs; else the text must have them.
    pub fn can_take_prompts(self) -> bool {
        matches!(self, Self::Tei | Self::Cohere | Self::Jina | Self::Voyage)
    }

    /// Returns whether it cuts inputs that are too long on this side; else they must be cut before.
    pub fn can_cut(self, cut: InputCut) -> bool {
        match cut {
            InputCut::Never => true,
            InputCut::Start => matches!(self, Self::Tei | Self::Cohere),
            InputCut::End => self != Self::OpenAi,
        }
    }

    /// Returns whether it can give vectors that are not normalised. Of those that take after OpenAI, llama-server can;
    /// others refuse or ignore its member.
    pub fn can_leave_lengths(self) -> bool {
        matches!(self, Self::OpenAi | Self::Tei | Self::Jina)
    }
}

/// Checks that the dialect can say what a call asks for.
///
/// # Errors
/// The inputs have token ids, or the vectors are to keep their lengths, and the dialect knows no such thing.
pub fn check_request(dialect: WorkerEmbedDialect, call: &WorkerEmbedCall<'_>) -> Result<(), FieldError> {
    let has_tokens = call.inputs.iter().any(|input| matches!(input, EmbedInput::Tokens(_)));
    if has_tokens && !dialect.can_take_tokens() {
        return Err(FieldError::of("input", "must be text: the backend of this model takes no token ids"));
    }
    if !call.is_normalized && !dialect.can_leave_lengths() {
        let what = "must be true: the backend of this model gives only normalised vectors";
        return Err(FieldError::of("normalized", what));
    }
    Ok(())
}

/// Writes a request.
///
/// OpenAI's and Voyage's dialects are asked for base64: it is read and written faster than floats. Of what the dialect
/// does not know, the prefix and the cut are left out, as [`WorkerEmbedDialect::can_take_prompts`] and
/// [`WorkerEmbedDialect::can_cut`] say, because the caller can do both itself.
///
/// # Errors
/// As [`check_request`].
pub fn write_request(dialect: WorkerEmbedDialect, call: &WorkerEmbedCall<'_>) -> Result<Vec<u8>, FieldError> {
    check_request(dialect, call)?;
    let inputs = Inputs(call.inputs);
    let body = match dialect {
        WorkerEmbedDialect::OpenAi => json(&OpenAiRequest {
            model: call.model,
            input: inputs,
            encoding_format: "base64",
            // llama-server's own member: -1 is for no normalisation.
            embd_normalize: (!call.is_normalized).then_some(-1),
        }),
        WorkerEmbedDialect::Tei => json(&TeiRequest {
            inputs,
            normalize: call.is_normalized,
            truncate: call.cut != InputCut::Never,
            truncation_direction: (call.cut == InputCut::Start).then_some("left"),
            // What `input_type` and `task` mean to it, only the configuration of its model says, which is not known here.
            prompt_name: call.prompt.filter(|prompt| prompt.field == "prompt_name").map(|prompt| prompt.name.as_str()),
        }),
        WorkerEmbedDialect::Cohere => json(&CohereRequest {
            model: call.model,
            texts: inputs,
            input_type: cohere_type(call.prompt),
            embedding_types: ["float"],
            truncate: match call.cut {
                InputCut::Never => "NONE",
                InputCut::Start => "START",
                InputCut::End => "END",
            },
        }),
        WorkerEmbedDialect::Jina => json(&JinaRequest {
            model: call.model,
            input: inputs,
            task: named(call.prompt, "retrieval.query", "retrieval.passage"),
            normalized: call.is_normalized,
            truncate: call.cut == InputCut::End,
        }),
        WorkerEmbedDialect::Voyage => json(&VoyageRequest {
            model: call.model,
            input: inputs,
            input_type: named(call.prompt, "query", "document"),
            truncation: call.cut == InputCut::End,
            output_dimension: call.dimensions.filter(|count| *count > VOYAGE_LENGTH),
            encoding_format: "base64",
        }),
        WorkerEmbedDialect::Ollama => {
            json(&OllamaRequest { model: call.model, input: inputs, truncate: call.cut == InputCut::End })
        }
    };
    Ok(body)
}

/// Writes a request to a llama-server for the vectors of all tokens, by [`ROWS_PATH`].
pub fn write_rows_request(model: &str, inputs: &[EmbedInput]) -> Vec<u8> {
    json(&RowsRequest { model, input: Inputs(inputs) })
}

/// Returns the worker's name of a prefix; a name that means neither a query nor a document is passed on.
fn named<'a>(prompt: Option<&'a PromptName>, query: &'a str, document: &'a str) -> Option<&'a str> {
    let prompt = prompt?;
    Some(match prompt.role() {
        Some(PromptRole::Query) => query,
        Some(PromptRole::Document) => document,
        None => &prompt.name,
    })
}

/// Cohere's models need an `input_type`. Without one from the client, texts are documents, as in LiteLLM.
fn cohere_type(prompt: Option<&PromptName>) -> &str {
    named(prompt, "search_query", "search_document").unwrap_or("search_document")
}

struct Inputs<'a>(&'a [EmbedInput]);

impl Serialize for Inputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Input<'a> {
            Text(&'a str),
            Tokens(&'a [u32]),
        }
        serializer.collect_seq(self.0.iter().map(|input| match input {
            EmbedInput::Text(text) => Input::Text(text),
            EmbedInput::Tokens(tokens) => Input::Tokens(tokens),
        }))
    }
}

#[derive(Serialize)]
struct OpenAiRequest<'a> {
    model: &'a str,
    input: Inputs<'a>,
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    embd_normalize: Option<i8>,
}

#[derive(Serialize)]
struct RowsRequest<'a> {
    model: &'a str,
    input: Inputs<'a>,
}

#[derive(Serialize)]
struct TeiRequest<'a> {
    inputs: Inputs<'a>,
    normalize: bool,
    truncate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncation_direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_name: Option<&'a str>,
}

#[derive(Serialize)]
struct CohereRequest<'a> {
    model: &'a str,
    texts: Inputs<'a>,
    input_type: &'a str,
    embedding_types: [&'static str; 1],
    truncate: &'static str,
}

#[derive(Serialize)]
struct JinaRequest<'a> {
    model: &'a str,
    input: Inputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    normalized: bool,
    truncate: bool,
}

#[derive(Serialize)]
struct VoyageRequest<'a> {
    model: &'a str,
    input: Inputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_type: Option<&'a str>,
    truncation: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimension: Option<usize>,
    encoding_format: &'static str,
}

#[derive(Serialize)]
struct OllamaRequest<'a> {
    model: &'a str,
    input: Inputs<'a>,
    truncate: bool,
}
