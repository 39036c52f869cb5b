//! `api`: the API that a remote backend speaks.
//!
//! Owns its names, and where a backend with that API is probed. What is sent to it is decided in the gateway.

use super::value::{Rejected, Value};

/// The API of a remote backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackendApi {
    /// OpenAI's, as llama-server and many others have it, with `/v1/rerank` as llama-server has it.
    #[default]
    OpenAi,
    /// vLLM's: OpenAI's, with reranking.
    Vllm,
    /// That of Hugging Face's text-embeddings-inference.
    Tei,
    /// Cohere's, version 2.
    Cohere,
    /// Jina's.
    Jina,
    /// Voyage's.
    Voyage,
    /// Infinity's: OpenAI's embeddings, with reranking.
    Infinity,
    /// Ollama's: OpenAI's for text, and its own for embeddings.
    Ollama,
}

impl BackendApi {
    /// Every API, with the name by which settings choose it.
    pub const ALL: [(Self, &str); 8] = [
        (Self::OpenAi, "openai"),
        (Self::Vllm, "vllm"),
        (Self::Tei, "tei"),
        (Self::Cohere, "cohere"),
        (Self::Jina, "jina"),
        (Self::Voyage, "voyage"),
        (Self::Infinity, "infinity"),
        (Self::Ollama, "ollama"),
    ];

    /// Returns whose API it is, for errors.
    pub fn owner(self) -> &'static str {
        match self {
            Self::OpenAi => "OpenAI",
            Self::Vllm => "vLLM",
            Self::Tei => "text-embeddings-inference",
            Self::Cohere => "Cohere",
            Self::Jina => "Jina",
            Self::Voyage => "Voyage",
            Self::Infinity => "Infinity",
            Self::Ollama => "Ollama",
        }
    }

    /// Returns whether requests in OpenAI's API are passed on to it as they are.
    pub fn is_openai(self) -> bool {
        matches!(self, Self::OpenAi | Self::Vllm | Self::Infinity | Self::Ollama)
    }

    /// Returns whether it answers requests for embeddings in OpenAI's API as OpenAI does.
    pub fn has_openai_embeddings(self) -> bool {
        matches!(self, Self::OpenAi | Self::Vllm | Self::Infinity)
    }

    /// Returns whether it says in JSON of its own that it has no such model, and never so that it has no such route.
    pub fn has_json_errors(self) -> bool {
        matches!(self, Self::Cohere | Self::Jina | Self::Voyage | Self::Ollama)
    }

    /// Returns the path that is probed unless an entry sets `health`.
    pub fn health(self) -> &'static str {
        match self {
            Self::Tei | Self::Infinity => "/health",
            Self::Ollama => "/api/version",
            Self::OpenAi | Self::Vllm | Self::Cohere | Self::Jina | Self::Voyage => "/v1/models",
        }
    }

    /// Returns whether the path of [`BackendApi::health`] is known to exist. Where it is not, an answer with 404 says only
    /// that the backend is there.
    pub fn has_health(self) -> bool {
        !matches!(self, Self::Jina | Self::Voyage)
    }

    /// Returns what follows the host of a URL without a path, where that is not `/v1`.
    pub fn api_path(self) -> Option<&'static str> {
        // As in LiteLLM: Infinity's routes are not below /v1.
        (self == Self::Infinity).then_some("")
    }
}

impl Value for BackendApi {
    fn parse(text: &str) -> Result<Self, Rejected> {
        let found = Self::ALL.into_iter().find(|(_, name)| text.eq_ignore_ascii_case(name));
        found.map(|(api, _)| api).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.into_iter().map(|(_, name)| name).collect();
            Rejected::new(names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_api_is_chosen_by_its_name_and_by_no_other() {
        for (api, name) in BackendApi::ALL {
            assert_eq!(BackendApi::parse(name).ok(), Some(api));
            assert_eq!(BackendApi::parse(&name.to_ascii_uppercase()).ok(), Some(api));
            assert!(api.health().starts_with('/') && !api.owner().is_empty());
        }
        let allowed = BackendApi::parse("anthropic").unwrap_err().allowed;
        assert_eq!(allowed, "openai, vllm, tei, cohere, jina, voyage, infinity, ollama");
    }
}
