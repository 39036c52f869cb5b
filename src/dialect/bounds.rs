//! Bounds on what a request in a dialect may hold. `MAX_REQUEST_BODY_SIZE` bounds it as a whole.

/// Most members of the object that a request is.
pub const MOST_FIELDS: usize = 256;

/// Longest name of such a member, in bytes.
pub const LONGEST_FIELD_NAME: usize = 256;

/// Most names in `rank_fields`; each is looked up in every document.
pub(super) const MOST_RANK_FIELDS: usize = 64;

/// Most texts of one request for tokens.
pub(super) const MOST_TOKENIZED_TEXTS: usize = 1024;

/// Most inputs of one request for embeddings. OpenAI takes 2,048.
pub const MOST_EMBED_INPUTS: usize = 16_384;

/// Most numbers of the vector of one token. Those of models have some thousands.
pub(super) const MOST_ROW_NUMBERS: usize = 64 * 1024;

/// Longest name or number in an answer with the vectors of tokens, in bytes.
pub(super) const LONGEST_NUMBER: usize = 64;

/// Most messages of one chat in Ollama's dialect.
pub(super) const MOST_MESSAGES: usize = 16_384;

/// Most calls of tools in one answer to a chat in Ollama's dialect.
pub(super) const MOST_TOOL_CALLS: usize = 128;

/// Most bytes of the calls of tools that are held until they are whole, in an answer to a chat in Ollama's dialect.
pub(super) const TOOL_CALL_BYTES: usize = 1024 * 1024;
