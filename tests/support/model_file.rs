//! GGUF files with a valid header, enough for the gateway to list the model, and without tensors.

use std::{fs, path::Path};

/// The kind of model that the header declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Embedding,
    Rerank,
    /// A reranker without a ranking head, which answers with words.
    RerankByWords,
}

/// The vocabulary of such a reranker.
const WORDS: [&str; 4] = ["a", "no", "b", "yes"];

const UINT32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Writes a GGUF file (version 3) without tensors.
pub(crate) fn write(path: &Path, kind: Kind) {
    let architecture = match kind {
        Kind::Chat => "llama",
        Kind::RerankByWords => "qwen3",
        Kind::Embedding | Kind::Rerank => "bert",
    };
    let name = if kind == Kind::RerankByWords { "Dummy Reranker" } else { "Dummy" };
    let mut pairs = vec![
        string("general.architecture", architecture),
        string("general.type", "model"),
        string("general.name", name),
        uint32("general.file_type", 0),
        uint32(&format!("{architecture}.context_length"), 4096),
        uint32(&format!("{architecture}.embedding_length"), 4),
        uint32(&format!("{architecture}.block_count"), 1),
    ];
    match kind {
        Kind::Chat => pairs.push(string("tokenizer.chat_template", "{{ messages }}")),
        Kind::Embedding => pairs.push(uint32("bert.pooling_type", 1)),
        Kind::Rerank => pairs.push(uint32("bert.pooling_type", 4)),
        Kind::RerankByWords => pairs.push(strings("tokenizer.ggml.tokens", &WORDS)),
    }
    write_pairs(path, &pairs);
}

/// Writes a multimodal projector for images, without tensors.
pub(crate) fn write_projector(path: &Path) {
    write_pairs(path, &[string("general.architecture", "clip"), string("general.type", "mmproj")]);
}

/// Writes a LoRA adapter without tensors.
pub(crate) fn write_adapter(path: &Path) {
    write_pairs(path, &[string("general.architecture", "llama"), string("general.type", "adapter")]);
}

fn write_pairs(path: &Path, pairs: &[Vec<u8>]) {
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend(0_u64.to_le_bytes()); // tensors
    file.extend((pairs.len() as u64).to_le_bytes());
    file.extend(pairs.concat());
    fs::write(path, file).expect("the model file can be written");
}

fn string(key: &str, value: &str) -> Vec<u8> {
    [text(key), STRING.to_le_bytes().to_vec(), text(value)].concat()
}

fn strings(key: &str, values: &[&str]) -> Vec<u8> {
    let count = (values.len() as u64).to_le_bytes().to_vec();
    let values: Vec<u8> = values.iter().flat_map(|value| text(value)).collect();
    [text(key), ARRAY.to_le_bytes().to_vec(), STRING.to_le_bytes().to_vec(), count, values].concat()
}

fn uint32(key: &str, value: u32) -> Vec<u8> {
    [text(key), UINT32.to_le_bytes().to_vec(), value.to_le_bytes().to_vec()].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
