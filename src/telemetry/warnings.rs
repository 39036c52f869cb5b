//! What works worse than it should, as long as it lasts: shown on `/health` as `warnings`, and logged once.
//!
//! A warning is a sentence for operators. It contains no path, no key and no text of a client.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::warn;

use crate::telemetry::bounds::MOST_WARNINGS;

/// The warnings that hold now. A warning belongs to a topic, and to one model or to the whole service.
#[derive(Debug, Default)]
pub struct Warnings(Mutex<WarningList>);

#[derive(Debug, Default)]
struct WarningList {
    raised: Vec<RaisedWarning>,
    /// The texts that were logged, so that a model that is loaded again and again logs them once.
    logged: Vec<String>,
}

#[derive(Debug)]
struct RaisedWarning {
    topic: &'static str,
    /// The id of a model; empty for the whole service.
    model: String,
    text: String,
}

impl Warnings {
    /// Raises a warning, in place of an earlier one of the same topic and model, and logs its text unless it was logged
    /// before. `model` is empty for the whole service. Beyond [`MOST_WARNINGS`] a warning is only logged.
    pub fn raise(&self, topic: &'static str, model: &str, text: &str) {
        self.clear(topic, model);
        self.add(topic, model, text);
    }

    /// Raises all warnings of a topic about the whole service, in place of the earlier ones.
    pub fn replace(&self, topic: &'static str, texts: &[String]) {
        self.clear(topic, "");
        texts.iter().for_each(|text| self.add(topic, "", text));
    }

    /// Raises a warning that is logged elsewhere.
    pub fn show(&self, topic: &'static str, text: &str) {
        let mut list = self.list();
        if list.logged.len() < MOST_WARNINGS {
            list.logged.push(text.to_owned());
        }
        drop(list);
        self.raise(topic, "", text);
    }

    fn add(&self, topic: &'static str, model: &str, text: &str) {
        let mut list = self.list();
        if list.raised.len() < MOST_WARNINGS {
            list.raised.push(RaisedWarning { topic, model: model.to_owned(), text: text.to_owned() });
        }
        let is_logged = list.logged.iter().any(|known| known == text);
        if !is_logged && list.logged.len() < MOST_WARNINGS {
            list.logged.push(text.to_owned());
        }
        drop(list);
        match (is_logged, model) {
            (true, _) => {}
            (false, "") => warn!("{text}"),
            (false, model) => warn!(model, "{text}"),
        }
    }

    /// Takes back the warning of a topic about a model, if there is one.
    pub fn clear(&self, topic: &'static str, model: &str) {
        self.list().raised.retain(|known| known.topic != topic || known.model != model);
    }

    /// Takes back all warnings about a model, which is no longer served.
    pub fn clear_model(&self, model: &str) {
        self.list().raised.retain(|known| known.model != model);
    }

    /// Returns the sentences, each once, the oldest first.
    pub fn texts(&self) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        for warning in &self.list().raised {
            if !texts.contains(&warning.text) {
                texts.push(warning.text.clone());
            }
        }
        texts
    }

    fn list(&self) -> MutexGuard<'_, WarningList> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_shown_once_however_many_models_it_is_about() {
        let warnings = Warnings::default();
        assert_eq!(warnings.texts(), [""; 0]);
        for model in ["a", "b", "a"] {
            warnings.raise("gpu", model, "no GPU");
        }
        warnings.raise("access", "", "open");
        assert_eq!(warnings.texts(), ["no GPU", "open"].map(str::to_owned));
        warnings.clear("gpu", "a");
        warnings.clear("other", "b");
        assert_eq!(warnings.texts().len(), 2, "it still holds for another model");
        warnings.raise("gpu", "b", "other words");
        assert_eq!(warnings.texts(), ["open", "other words"].map(str::to_owned));
        warnings.clear_model("b");
        assert_eq!(warnings.texts(), ["open".to_owned()]);
    }

    #[test]
    fn the_warnings_of_a_topic_are_replaced_together() {
        let warnings = Warnings::default();
        warnings.raise("gpu", "m", "no GPU");
        for texts in [&["one", "two"][..], &["two", "three"], &[]] {
            warnings.replace("models", &texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
            assert_eq!(warnings.texts(), [&["no GPU"], texts].concat());
        }
    }

    #[test]
    fn the_number_of_warnings_has_a_bound() {
        let warnings = Warnings::default();
        for number in 0..2 * MOST_WARNINGS {
            warnings.raise("x", &number.to_string(), &format!("text {number}"));
        }
        assert_eq!(warnings.texts().len(), MOST_WARNINGS);
    }
}
