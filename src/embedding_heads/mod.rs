//! The heads of BGE-M3: small layers over the vectors of tokens, which give sparse and ColBERT vectors.
//!
//! llama.cpp's files of this model have no heads, so they are files of their own beside it. Owns how they are read and
//! what they compute, as `BGEM3FlagModel` of FlagEmbedding does. Which vectors a request gets, and in which members of its
//! answer they stand, is decided elsewhere.
//!
//! - `bounds.rs`: bounds on what is read
//! - `file.rs`: reads a head from a safetensors file
//! - `head.rs`: which heads there are
//! - `heads.rs`: the heads of one model
//! - `layer.rs`: a linear layer
//! - `pooling.rs`: how the vectors of tokens become one

mod bounds;
mod file;
mod head;
mod heads;
mod layer;
mod pooling;

pub use file::HeadProblem;
pub use head::Head;
pub use heads::{EmbeddingHeads, sparse_vector};
pub use pooling::{PooledTokens, TokenPooling};
