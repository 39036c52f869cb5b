//! The messages of a conversation so far, and the request that they make.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::path::Path;

use serde_json::{Value, json};

/// A conversation.
#[derive(Debug, Clone, Default)]
pub(super) struct Conversation {
    /// `None`: the service chooses.
    pub(super) model: Option<String>,
    pub(super) system: Option<String>,
    /// Pictures of the next message, as `data:` URLs.
    pub(super) images: Vec<String>,
    pub(super) max_tokens: Option<NonZeroU32>,
    pub(super) temperature: Option<f64>,
    turns: Vec<Value>,
}

impl Conversation {
    /// Adds a question, with the pictures that were read for it.
    pub(super) fn ask(&mut self, text: &str) {
        let images = std::mem::take(&mut self.images);
        let content = if images.is_empty() {
            json!(text)
        } else {
            let images = images.into_iter().map(|url| json!({"type": "image_url", "image_url": {"url": url}}));
            json!(images.chain([json!({"type": "text", "text": text})]).collect::<Vec<_>>())
        };
        self.turns.push(json!({"role": "user", "content": content}));
    }

    /// Adds the answer.
    pub(super) fn answer(&mut self, text: &str) {
        self.turns.push(json!({"role": "assistant", "content": text}));
    }

    /// Takes the last question back, because it has no answer. Its pictures go with the next one. Returns their number.
    pub(super) fn take_back(&mut self) -> usize {
        let question = self.turns.pop().unwrap_or_default();
        let parts = question["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        let images = parts.iter().filter_map(|part| part["image_url"]["url"].as_str().map(str::to_owned));
        self.images.splice(0..0, images);
        self.images.len()
    }

    /// Forgets all messages; model and system prompt stay.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        self.images.clear();
    }

    /// Returns the body of the request for the next answer.
    pub(super) fn request(&self) -> Value {
        let mut body = json!({"messages": self.messages(), "stream": true, "stream_options": {"include_usage": true}});
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        if let Some(most) = self.max_tokens {
            body["max_tokens"] = json!(most);
        }
        if let Some(temperature) = self.temperature {
            body["temperature"] = json!(temperature);
        }
        body
    }

    fn messages(&self) -> Vec<Value> {
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        system.chain(self.turns.iter().cloned()).collect()
    }

    /// Writes the conversation to a new file that only the user may read: as JSON if its name ends in `.json`, else as
    /// Markdown.
    ///
    /// # Errors
    /// The file is there already, or cannot be written.
    pub(super) fn save(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        let text = if is_json {
            format!("{:#}\n", json!({"model": self.model, "messages": self.messages()}))
        } else {
            self.messages().iter().map(markdown).collect()
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    }
}

fn markdown(message: &Value) -> String {
    let role = message["role"].as_str().unwrap_or_default();
    let text = match &message["content"] {
        Value::Array(parts) => parts.iter().map(|part| part["text"].as_str().unwrap_or("(picture)\n\n")).collect(),
        content => content.as_str().unwrap_or_default().to_owned(),
    };
    format!("## {role}\n\n{}\n\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_sent_with_its_system_prompt_and_pictures_and_is_saved_once() {
        let mut talk = Conversation { system: Some("Be brief.".to_owned()), ..Conversation::default() };
        talk.images.push("data:image/png;base64,AA==".to_owned());
        talk.ask("What is this?");
        talk.answer("A dot.");
        talk.ask("Sure?");
        let body = talk.request();
        assert_eq!(body["messages"][0], json!({"role": "system", "content": "Be brief."}));
        assert_eq!(body["messages"][1]["content"][0]["image_url"]["url"], "data:image/png;base64,AA==");
        assert_eq!(body["messages"][3], json!({"role": "user", "content": "Sure?"}));
        assert!(body.get("model").is_none() && body.get("max_tokens").is_none());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.md");
        talk.save(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("## user\n\n(picture)\n\nWhat is this?\n\n## assistant\n\nA dot."), "{text}");
        assert_eq!(talk.save(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        talk.clear();
        assert_eq!(talk.request()["messages"].as_array().unwrap().len(), 1);
    }

    /// The pictures of a question that has failed once were lost.
    #[test]
    fn a_question_that_is_taken_back_leaves_its_pictures_for_the_next_one() {
        let images = ["AA==", "BB=="].map(|bytes| format!("data:image/png;base64,{bytes}"));
        let mut talk = Conversation { images: images.to_vec(), ..Conversation::default() };
        talk.ask("What is this?");
        let body = talk.request();
        assert_eq!(talk.take_back(), 2);
        assert_eq!(talk.request()["messages"], json!([]));
        talk.ask("What is this?");
        assert_eq!(talk.request(), body);
        talk.answer("A dot.");
        talk.ask("Sure?");
        assert_eq!(talk.take_back(), 0);
    }
}
