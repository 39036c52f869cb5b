//! Reads the metadata of a GGUF file: keys, values and the tensor table, never the weights. Versions 2 and 3, little
//! endian.
//!
//! The file is not trusted. Every length is compared with a named bound before anything is allocated, values that are
//! not needed are skipped in a fixed buffer, and any garbage ends in a [`GgufError`]. What the numbers mean is in
//! [`super::quant`]; what the model is for is in [`super::kind`].
//!
//! - `bounds.rs`: bounds on what is read from a header
//! - `error.rs`: why a file cannot be read as a GGUF
//! - `header.rs`: the header as a stream of keys, values and tensor descriptions
//! - `shape.rs`: what the memory of a model depends on

mod bounds;
mod error;
mod header;
mod shape;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::quant;

pub use bounds::{
    MAX_ARRAY_DEPTH, MAX_DIMS, MAX_KEY, MAX_KEYS, MAX_LAYERS, MAX_METADATA_BYTES, MAX_STRING, MAX_TENSORS, PEEKED_KEYS,
};
pub use error::GgufError;
use header::{GgufValue, Header, TOKENS, Tensor, bounded};
pub use header::{TemplateFacts, YesNoTokens};
pub use shape::{ModelShape, PerLayer, WeightBytes};

/// Alignment of the tensor data, in bytes, without `general.alignment`.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The metadata of a model file that the gateway uses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// GGUF version, 2 or 3.
    pub version: u32,
    /// `general.architecture`, such as `qwen3`; empty where the file says nothing (later parts of a split model).
    pub architecture: String,
    /// `general.name`.
    pub name: Option<String>,
    /// `general.type`: `model`, or another kind of content (`adapter`, `mmproj`, `imatrix`).
    pub general_type: Option<String>,
    /// `adapter.type`: the kind of an adapter, such as `lora`.
    pub adapter_type: Option<String>,
    /// The quantisation's name: from `general.file_type`, else the type of most weights, else `unknown`.
    pub quantization: String,
    /// Context length the model was trained for, in tokens.
    pub context_length: Option<u64>,
    /// Number of layers.
    pub block_count: Option<u64>,
    /// Width of the model: the length of an embedding.
    pub embedding_length: Option<u64>,
    /// Number of attention heads.
    pub head_count: Option<PerLayer>,
    /// Number of key and value heads; the same as `head_count` if absent.
    pub head_count_kv: Option<PerLayer>,
    /// Length of a key in one head; `embedding_length / head_count` if absent.
    pub key_length: Option<u64>,
    /// Length of a value in one head; `embedding_length / head_count` if absent.
    pub value_length: Option<u64>,
    /// `{arch}.pooling_type`: 0 none, 1 mean, 2 cls, 3 last, 4 rank.
    pub pooling_type: Option<u32>,
    /// `{arch}.classifier.pooling_type`: the pooling of a ranking head.
    pub classifier_pooling_type: Option<u32>,
    /// `{arch}.attention.causal`; false in encoders.
    pub causal: Option<bool>,
    /// Whether the file holds a chat template.
    pub has_chat_template: bool,
    /// Whether the chat template takes tools.
    pub template_has_tools: bool,
    /// Whether the chat template has a place for what the model thinks.
    pub template_has_thinking: bool,
    /// `tokenizer.ggml.model`, such as `gpt2`.
    pub tokenizer: Option<String>,
    /// Ids of the tokens for beginning, end, padding and what is unknown, in rising order: those that the file names, else
    /// those of llama.cpp for its tokenizer.
    pub special_tokens: Vec<u32>,
    /// Number of tokens of the vocabulary.
    pub vocabulary_size: Option<u64>,
    /// The tokens `yes` and `no` of the vocabulary, if it has both.
    pub yes_no: Option<YesNoTokens>,
    /// Whether the name of the model, or that of its file, says that it is a reranker.
    pub has_reranker_name: bool,
    /// Number of files of a split model.
    pub split_count: Option<u64>,
    /// Number of this file in a split model, counted from 0.
    pub split_no: Option<u64>,
    /// Number of tensors in this file.
    pub tensor_count: u64,
    /// Whether the file holds `cls.*` tensors (a ranking head).
    pub has_classifier: bool,
    /// Number of weights in this file, saturating.
    pub parameters: u64,
    /// Size in bytes of all tensors of known types, saturating.
    pub tensor_bytes: u64,
    /// `clip.has_vision_encoder`: whether a multimodal projector reads images.
    pub has_vision_encoder: bool,
    /// `clip.has_audio_encoder`: whether a multimodal projector reads sound.
    pub has_audio_encoder: bool,
    /// `clip.vision.projection_dim` and `clip.audio.projection_dim`: the widths that a multimodal projector produces.
    pub projection_dims: Vec<u64>,
    /// What else its memory depends on.
    pub shape: ModelShape,
}

/// What a file says about its content in its first keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct GgufContent {
    /// `general.architecture`; empty without one.
    pub(super) architecture: String,
    /// `general.type`.
    pub(super) general_type: Option<String>,
}

/// Reads what the file at `path` holds, without the long lists of its vocabulary in the usual order of keys.
///
/// # Errors
///
/// As [`read`], except that nothing after these keys is looked at.
pub(super) fn peek(path: &Path) -> Result<GgufContent, GgufError> {
    let mut header = Header::new(open(path)?);
    header.read_version()?;
    bounded("the number of tensors", header.u64()?, MAX_TENSORS)?;
    let key_count = bounded("the number of keys", header.u64()?, MAX_KEYS)?;
    let mut values = Values::default();
    for index in 0..key_count {
        let has_architecture = values.0.contains_key("general.architecture");
        if has_architecture && (index >= PEEKED_KEYS || values.0.contains_key("general.type")) {
            break;
        }
        values.0.extend(header.read_key_value()?);
    }
    Ok(GgufContent {
        architecture: values.text("general.architecture").unwrap_or_default(),
        general_type: values.text("general.type"),
    })
}

/// Reads the metadata of the file at `path`, and checks that the file is long enough for its tensors.
///
/// # Errors
///
/// The file cannot be read, is not a GGUF, or is cut short or damaged.
pub fn read(path: &Path) -> Result<Metadata, GgufError> {
    let file = open(path)?;
    let size = file.metadata()?.len();
    parse(file, Some(size))
}

fn open(path: &Path) -> Result<File, GgufError> {
    // Checked before opening: opening a named pipe would block until it has a writer.
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_dir() {
        return Err(GgufError::Folder);
    }
    if !kind.is_file() {
        return Err(GgufError::NotAFile);
    }
    Ok(File::open(path)?)
}

/// Reads the metadata from the beginning of a GGUF. With a `file_size` in bytes it also detects missing weights.
///
/// # Errors
///
/// The source cannot be read, is not a GGUF, or is cut short or damaged.
pub fn parse(source: impl Read, file_size: Option<u64>) -> Result<Metadata, GgufError> {
    let mut header = Header::new(source);
    let version = header.read_version()?;
    let tensor_count = bounded("the number of tensors", header.u64()?, MAX_TENSORS)?;
    let key_count = bounded("the number of keys", header.u64()?, MAX_KEYS)?;

    let mut values = Values::default();
    // The architecture may come after the keys that begin with its name, so all keys are read before any is used.
    for _ in 0..key_count {
        if let Some((key, value)) = header.read_key_value()? {
            values.0.insert(key, value);
        }
    }
    let mut tensors = Tensors::default();
    for _ in 0..tensor_count {
        tensors.add(&header.read_tensor()?);
    }

    let alignment = values.uint("general.alignment").unwrap_or(DEFAULT_ALIGNMENT);
    if !alignment.is_power_of_two() {
        return Err(GgufError::Malformed(format!("its alignment {alignment} is not a power of two")));
    }
    // Offsets of tensors count from the end of the header, rounded up to the alignment.
    if let (Some(actual), Some(end)) = (file_size, tensors.end) {
        let start = header.bytes_read().checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        let needed = start.saturating_add(end);
        if needed > actual {
            return Err(GgufError::Truncated { needed, actual });
        }
    }
    Ok(values.to_metadata(version, tensor_count, &tensors))
}

/// Returns whether this name of a model or a file is that of a reranker.
pub(super) fn is_reranker_name(name: &str) -> bool {
    name.to_ascii_lowercase().contains("rerank")
}

/// The values of the keys that are kept.
#[derive(Debug, Default)]
struct Values(BTreeMap<String, GgufValue>);

impl Values {
    fn uint(&self, key: &str) -> Option<u64> {
        match self.0.get(key)? {
            GgufValue::Whole(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    fn text(&self, key: &str) -> Option<String> {
        match self.0.get(key)? {
            GgufValue::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn flag(&self, key: &str) -> Option<bool> {
        match self.0.get(key)? {
            GgufValue::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    fn per_layer(&self, key: &str) -> Option<PerLayer> {
        match self.0.get(key)? {
            GgufValue::List(values) => Some(PerLayer::Each(values.clone())),
            _ => self.uint(key).map(PerLayer::Same),
        }
    }

    fn special_tokens(&self) -> Vec<u32> {
        let defaults = match self.text("tokenizer.ggml.model").as_deref() {
            Some("llama") => SpecialTokens { bos: Some(1), eos: Some(2), unknown: Some(0), padding: None },
            Some("bert") => SpecialTokens { bos: Some(101), eos: Some(102), unknown: Some(100), padding: Some(0) },
            Some("t5") => SpecialTokens { bos: None, eos: Some(1), unknown: Some(2), padding: Some(0) },
            _ => SpecialTokens::default(),
        };
        let SpecialTokens { bos, eos, unknown, padding } = defaults;
        let mut ids: Vec<u32> = Vec::new();
        for (names, default) in [
            (&["bos", "cls"][..], bos),
            // The files spell it so.
            (&["eos", "seperator"], eos),
            (&["unknown"], unknown),
            (&["padding"], padding),
        ] {
            let named = |name: &&str| self.uint(&format!("tokenizer.ggml.{name}_token_id"));
            let found: Vec<u32> = names.iter().filter_map(named).filter_map(|id| u32::try_from(id).ok()).collect();
            ids.extend(if found.is_empty() { default.into_iter().collect() } else { found });
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn to_metadata(&self, version: u32, tensor_count: u64, tensors: &Tensors) -> Metadata {
        let architecture = self.text("general.architecture").unwrap_or_default();
        let of_arch = |ending: &str| format!("{architecture}.{ending}");
        let uint = |ending: &str| self.uint(&of_arch(ending));
        let small = |ending: &str| uint(ending).and_then(|number| u32::try_from(number).ok());
        let quantization = match self.uint("general.file_type").and_then(|number| u32::try_from(number).ok()) {
            Some(number) => quant::file_type_name(number).map_or_else(|| format!("type {number}"), str::to_owned),
            None => tensors.most_common_type().unwrap_or("unknown").to_owned(),
        };
        let template = match self.0.get("tokenizer.chat_template") {
            Some(GgufValue::Template(facts)) => *facts,
            _ => TemplateFacts::default(),
        };
        let (vocabulary_size, yes_no) = match self.0.get(TOKENS) {
            Some(GgufValue::Vocabulary { count, yes_no }) => (Some(*count), *yes_no),
            Some(GgufValue::Count(count)) => (Some(*count), None),
            _ => (None, None),
        };
        let name = self.text("general.name");
        Metadata {
            version,
            has_reranker_name: name.as_deref().is_some_and(is_reranker_name),
            name,
            general_type: self.text("general.type"),
            adapter_type: self.text("adapter.type"),
            quantization,
            context_length: uint("context_length"),
            block_count: uint("block_count"),
            embedding_length: uint("embedding_length"),
            head_count: self.per_layer(&of_arch("attention.head_count")),
            head_count_kv: self.per_layer(&of_arch("attention.head_count_kv")),
            key_length: uint("attention.key_length"),
            value_length: uint("attention.value_length"),
            pooling_type: small("pooling_type"),
            classifier_pooling_type: small("classifier.pooling_type"),
            causal: self.flag(&of_arch("attention.causal")),
            has_chat_template: self.0.contains_key("tokenizer.chat_template"),
            template_has_tools: template.has_tools,
            template_has_thinking: template.has_thinking,
            special_tokens: self.special_tokens(),
            tokenizer: self.text("tokenizer.ggml.model"),
            vocabulary_size,
            yes_no,
            split_count: self.uint("split.count"),
            split_no: self.uint("split.no"),
            tensor_count,
            has_classifier: tensors.has_classifier,
            parameters: tensors.parameters,
            tensor_bytes: tensors.bytes,
            has_vision_encoder: self.flag("clip.has_vision_encoder").unwrap_or_default(),
            has_audio_encoder: self.flag("clip.has_audio_encoder").unwrap_or_default(),
            projection_dims: ["clip.vision.projection_dim", "clip.audio.projection_dim"]
                .iter()
                .filter_map(|key| self.uint(key))
                .collect(),
            shape: self.shape(&architecture, tensors),
            architecture,
        }
    }
}

impl Values {
    fn shape(&self, architecture: &str, tensors: &Tensors) -> ModelShape {
        let of_arch = |ending: &str| format!("{architecture}.{ending}");
        let uint = |ending: &str| self.uint(&of_arch(ending));
        ModelShape {
            feed_forward: self.per_layer(&of_arch("feed_forward_length")),
            expert_feed_forward: uint("expert_feed_forward_length"),
            experts_used: uint("expert_used_count"),
            sliding_window: uint("attention.sliding_window"),
            sliding_pattern: self.per_layer(&of_arch("attention.sliding_window_pattern")),
            sliding_key_length: uint("attention.key_length_swa"),
            sliding_value_length: uint("attention.value_length_swa"),
            attention_interval: uint("full_attention_interval"),
            convolution: uint("ssm.conv_kernel"),
            state_width: uint("ssm.inner_size"),
            state_length: uint("ssm.state_size"),
            state_groups: uint("ssm.group_count"),
            short_convolution: uint("shortconv.l_cache"),
            wkv_head: uint("wkv.head_size"),
            token_shifts: uint("token_shift_count"),
            weights: tensors.weights.clone(),
        }
    }
}

/// Tokens that stand for no part of a text, as llama.cpp numbers them for a tokenizer (`llama_vocab::impl::load`).
#[derive(Debug, Clone, Copy, Default)]
struct SpecialTokens {
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
}

/// The sums over the tensor table.
#[derive(Debug, Default)]
struct Tensors {
    has_classifier: bool,
    parameters: u64,
    bytes: u64,
    /// End of the last tensor, in bytes from the beginning of the data; `None` without a tensor of a known type.
    end: Option<u64>,
    parameters_by_type: BTreeMap<u32, u64>,
    weights: WeightBytes,
}

impl Tensors {
    fn add(&mut self, tensor: &Tensor) {
        let Tensor { kind, offset, .. } = *tensor;
        let dims = tensor.dims();
        let parameters = dims.iter().fold(1u64, |product, dim| product.saturating_mul(*dim));
        self.has_classifier |= tensor.name.starts_with(b"cls.");
        self.parameters = self.parameters.saturating_add(parameters);
        if quant::tensor_type(kind).is_some() {
            let sum = self.parameters_by_type.entry(kind).or_default();
            *sum = sum.saturating_add(parameters);
        }
        if let Some(bytes) = quant::tensor_bytes(kind, dims) {
            self.bytes = self.bytes.saturating_add(bytes);
            self.weights.add(&tensor.name, bytes);
            self.end = self.end.max(Some(offset.saturating_add(bytes)));
        }
    }

    /// Returns the name of the type that most weights have.
    fn most_common_type(&self) -> Option<&'static str> {
        let (kind, _) = self.parameters_by_type.iter().max_by_key(|(_, parameters)| **parameters)?;
        quant::tensor_type(*kind).map(|kind| kind.name)
    }
}

#[cfg(test)]
mod tests;
