//! Builds small GGUF files for tests.

use std::path::{Path, PathBuf};

use super::gguf::{self, GgufError, Metadata};

/// A builder of a GGUF file whose tensor data is zeros.
#[derive(Debug, Clone, Default)]
pub(crate) struct GgufSample {
    keys: Vec<u8>,
    key_count: u64,
    tensors: Vec<u8>,
    tensor_count: u64,
    data: u64,
    version: Option<u32>,
}

impl GgufSample {
    /// Returns a file of this architecture with one small tensor.
    pub(crate) fn of(architecture: &str) -> Self {
        Self::default()
            .text("general.architecture", architecture)
            .uint(&format!("{architecture}.context_length"), 4096)
            .tensor("token_embd.weight", 0, &[4, 8])
    }

    /// Returns a chat model: llama, Q4_K_M, with a chat template.
    pub(crate) fn chat() -> Self {
        Self::of("llama").uint("general.file_type", 15).text("tokenizer.chat_template", "{{ messages }}")
    }

    pub(crate) fn version(mut self, version: u32) -> Self {
        self.version = Some(version);
        self
    }

    /// Adds a key with a value given as its type number and raw bytes.
    pub(crate) fn raw(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.keys.extend(string(key));
        self.keys.extend(kind.to_le_bytes());
        self.keys.extend(value);
        self.key_count += 1;
        self
    }

    pub(crate) fn uint(self, key: &str, value: u32) -> Self {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn flag(self, key: &str, value: bool) -> Self {
        self.raw(key, 7, &[u8::from(value)])
    }

    pub(crate) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, 8, &string(value))
    }

    /// Adds an array of `count` elements of type `element`; `bytes` holds the encoded elements.
    pub(crate) fn array(self, key: &str, element: u32, count: u64, bytes: &[u8]) -> Self {
        let mut value = element.to_le_bytes().to_vec();
        value.extend(count.to_le_bytes());
        value.extend(bytes);
        self.raw(key, 9, &value)
    }

    pub(crate) fn tensor(mut self, name: &str, kind: u32, dims: &[u64]) -> Self {
        self.tensors.extend(string(name));
        self.tensors.extend(u32::try_from(dims.len()).unwrap().to_le_bytes());
        dims.iter().for_each(|dim| self.tensors.extend(dim.to_le_bytes()));
        self.tensors.extend(kind.to_le_bytes());
        self.tensors.extend(self.data.to_le_bytes());
        self.data += super::quant::tensor_bytes(kind, dims).unwrap_or(0).next_multiple_of(32);
        self.tensor_count += 1;
        self
    }

    /// Returns the bytes of the file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.unwrap_or(3).to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.key_count.to_le_bytes());
        file.extend(&self.keys);
        file.extend(&self.tensors);
        let size = file.len().next_multiple_of(32) + usize::try_from(self.data).unwrap();
        file.resize(size, 0);
        file
    }

    pub(crate) fn parse(&self) -> Result<Metadata, GgufError> {
        let bytes = self.bytes();
        gguf::parse(bytes.as_slice(), Some(bytes.len() as u64))
    }

    pub(crate) fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }
}

/// Encodes a GGUF string: its length in bytes as a `u64`, then the bytes.
pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}
