//! Which dialect a path speaks, and the way to the file of that dialect.

use super::super::answer_id::AnswerId;
use super::super::fields::{FieldError, Fields};
use super::canonical::{EmbedAnswer, EmbedDialect, EmbedRequest};
use super::{cohere, ollama, openai, tei};

/// Reads a client's request.
///
/// # Errors
/// The body is no request in the dialect of the path, it asks for something that is not served, or the path has no
/// dialect.
pub fn parse(path: &str, body: &[u8]) -> Result<EmbedRequest, FieldError> {
    let fields = Fields::parse(body)?;
    match path {
        "/v1/embeddings" | "/embeddings" => openai::parse(&fields),
        "/v1/embed" => cohere::parse_v1(&fields),
        "/v2/embed" => cohere::parse_v2(&fields),
        "/embed" | "/" => tei::parse(EmbedDialect::TeiEmbed, &fields),
        "/embed_all" => tei::parse(EmbedDialect::TeiEmbedAll, &fields),
        "/embed_sparse" => tei::parse(EmbedDialect::TeiEmbedSparse, &fields),
        "/similarity" => tei::parse_similarity(&fields),
        "/api/embed" => ollama::parse_embed(&fields),
        "/api/embeddings" => ollama::parse_embeddings(&fields),
        _ => Err(FieldError::whole(format!("no embeddings are served at {path}"))),
    }
}

/// Writes the answer in the dialect of the request.
pub fn write(request: &EmbedRequest, answer: &EmbedAnswer, id: &AnswerId) -> Vec<u8> {
    match request.format.dialect {
        EmbedDialect::OpenAi => openai::write(request, answer),
        EmbedDialect::CohereV1 | EmbedDialect::CohereV1ByType | EmbedDialect::CohereV2 => {
            cohere::write(request, answer, id)
        }
        EmbedDialect::TeiEmbed
        | EmbedDialect::TeiEmbedAll
        | EmbedDialect::TeiEmbedSparse
        | EmbedDialect::TeiSimilarity => tei::write(request.format.dialect, answer),
        EmbedDialect::OllamaEmbed | EmbedDialect::OllamaEmbeddings => ollama::write(request, answer),
    }
}
