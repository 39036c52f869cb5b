//! GGUF files with a valid header, enough for the gateway to list the model, and without tensors; and adapters of the tiny
//! chat model that llama-server loads.

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

/// Dimensions of the weight that [`write_lora`] changes: `blk.0.ffn_down` of the tiny chat model.
const LORA_INPUT: u64 = 128;
const LORA_OUTPUT: u64 = 64;

const UINT32: u32 = 4;
const FLOAT32: u32 = 6;
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

/// Writes a LoRA adapter of rank 1 for models of this architecture, which changes what the tiny chat model says. Each
/// `seed` makes another one.
pub(crate) fn write_lora(path: &Path, architecture: &str, seed: u32) {
    let alpha = [text("adapter.lora.alpha"), FLOAT32.to_le_bytes().to_vec(), 1.0_f32.to_le_bytes().to_vec()].concat();
    let pairs = [
        string("general.architecture", architecture),
        string("general.type", "adapter"),
        string("adapter.type", "lora"),
        alpha,
    ];
    let tensor = |name: &str, dims: [u64; 2], offset: u64| {
        let dims = dims.map(u64::to_le_bytes).concat();
        // Two dimensions of f32, which is type 0.
        [text(name), 2_u32.to_le_bytes().to_vec(), dims, 0_u32.to_le_bytes().to_vec(), offset.to_le_bytes().to_vec()]
            .concat()
    };
    let tensors = [
        tensor("blk.0.ffn_down.weight.lora_a", [LORA_INPUT, 1], 0),
        tensor("blk.0.ffn_down.weight.lora_b", [1, LORA_OUTPUT], LORA_INPUT * 4),
    ];
    let mut file = header(&pairs, tensors.len());
    file.extend(tensors.concat());
    file.resize(file.len().next_multiple_of(32), 0);
    let mut state = seed;
    for _ in 0..LORA_INPUT + LORA_OUTPUT {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // From -4 to 4: large enough that the greedy choice of tokens changes.
        let weight = (state >> 8) as f32 / (1 << 21) as f32 - 4.0;
        file.extend(weight.to_le_bytes());
    }
    fs::write(path, file).expect("the adapter can be written");
}

fn write_pairs(path: &Path, pairs: &[Vec<u8>]) {
    fs::write(path, header(pairs, 0)).expect("the model file can be written");
}

fn header(pairs: &[Vec<u8>], tensors: usize) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors as u64).to_le_bytes());
    file.extend((pairs.len() as u64).to_le_bytes());
    file.extend(pairs.concat());
    file
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
