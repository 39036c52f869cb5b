//! Writes lists and descriptions of models.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::super::fields::{FieldError, Fields};

/// What can be done with a model, in Ollama's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelCapability {
    /// Chats and completions.
    Completion,
    /// Chats with tools.
    Tools,
    /// Chats that think first.
    Thinking,
    /// Text between two texts.
    Insert,
    /// Pictures.
    Vision,
    /// Sound.
    Audio,
    /// Embeddings.
    Embedding,
}

/// What is known of a model.
#[derive(Debug, Clone, Default)]
pub struct ModelCard {
    /// The id, which may have a tag.
    pub id: String,
    /// When it came here.
    pub modified_at: Timestamp,
    /// Size of its files in bytes.
    pub size: Option<u64>,
    /// A text that is the same as long as the model is.
    pub digest: String,
    /// Such as `llama`.
    pub architecture: Option<String>,
    /// Number of weights.
    pub parameters: Option<u64>,
    /// Such as `Q4_K_M`.
    pub quantization: Option<String>,
    /// Most tokens of a request.
    pub context_length: Option<u64>,
    /// Length of an embedding.
    pub embedding_length: Option<u64>,
    /// What can be done with it.
    pub capabilities: Vec<ModelCapability>,
}

/// A model whose llama-server runs.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    /// What is known of it.
    pub card: ModelCard,
    /// When it is unloaded, if it is not used until then.
    pub expires_at: Timestamp,
}

/// Returns the model that a request for `/api/show` names.
///
/// # Errors
/// It names none.
pub fn read_shown(body: &[u8]) -> Result<String, FieldError> {
    let fields = Fields::parse(body)?;
    let named = match fields.text("model")? {
        Some(name) => Some(name),
        // What older clients send.
        None => fields.text("name")?,
    };
    named.map(Cow::into_owned).ok_or_else(|| FieldError::of("model", "is missing"))
}

/// Returns the name under which a model is listed: every name has a tag there, and `latest` stands for none.
fn show_name(id: &str) -> String {
    // A port of a registry is followed by a slash.
    let has_tag = id.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if has_tag { id.to_owned() } else { format!("{id}:latest") }
}

/// Returns the answer of `/api/tags`.
pub fn tags(models: &[ModelCard]) -> Value {
    json!({"models": models.iter().map(entry).collect::<Vec<_>>()})
}

/// Returns the answer of `/api/ps`.
pub fn loaded(models: &[LoadedModel]) -> Value {
    let entries = models.iter().map(|LoadedModel { card, expires_at }| {
        let mut entry = entry(card);
        if let Value::Object(members) = &mut entry {
            members.remove("modified_at");
            members.insert("expires_at".to_owned(), json!(time(*expires_at)));
            members.insert("size_vram".to_owned(), json!(card.size.unwrap_or(0)));
            members.insert("context_length".to_owned(), json!(card.context_length.unwrap_or(0)));
        }
        entry
    });
    json!({"models": entries.collect::<Vec<_>>()})
}

/// Returns the answer of `/api/show`.
pub fn show(card: &ModelCard) -> Value {
    let architecture = card.architecture.as_deref().unwrap_or("unknown");
    let mut info = Map::new();
    info.insert("general.architecture".to_owned(), json!(architecture));
    let numbers = [
        ("general.parameter_count".to_owned(), card.parameters),
        (format!("{architecture}.context_length"), card.context_length),
        (format!("{architecture}.embedding_length"), card.embedding_length),
    ];
    info.extend(numbers.into_iter().filter_map(|(name, number)| Some((name, json!(number?)))));
    json!({
        "modelfile": format!("FROM {}\n", show_name(&card.id)),
        // Clients read the context from here, as it is of what was asked for in a Modelfile.
        "parameters": card.context_length.map_or_else(String::new, |tokens| format!("num_ctx {tokens}")),
        "template": "",
        "details": details(card),
        "model_info": info,
        "capabilities": card.capabilities,
        "modified_at": time(card.modified_at),
    })
}

fn entry(card: &ModelCard) -> Value {
    let name = show_name(&card.id);
    json!({
        "name": name,
        "model": name,
        "modified_at": time(card.modified_at),
        "size": card.size.unwrap_or(0),
        "digest": card.digest,
        "details": details(card),
    })
}

fn details(card: &ModelCard) -> Value {
    let family = card.architecture.as_deref().unwrap_or("");
    let families: Vec<&str> = (!family.is_empty()).then_some(family).into_iter().collect();
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": families,
        "parameter_size": card.parameters.map_or_else(String::new, short_number),
        "quantization_level": card.quantization.as_deref().unwrap_or(""),
    })
}

/// Returns a number of weights as Ollama writes it, such as `1.2B` or `135M`.
fn short_number(number: u64) -> String {
    let number = number as f64;
    match number {
        _ if number >= 1e9 => format!("{:.1}B", number / 1e9),
        _ if number >= 1e6 => format!("{:.2}M", number / 1e6),
        _ if number >= 1e3 => format!("{:.2}K", number / 1e3),
        _ => format!("{number}"),
    }
}

fn time(at: Timestamp) -> String {
    format!("{at:.9}")
}
