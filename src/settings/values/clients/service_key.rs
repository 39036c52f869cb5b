//! `LLAMAGATE_API_KEY`: one API key without a file.
//!
//! Owns its form, and the placeholders of examples that are no secrets.

use crate::settings::bounds::{SERVICE_KEY_LENGTH, SHORT_SERVICE_KEY};
use crate::settings::values::scalars::Secret;
use crate::settings::values::value::{Rejected, Value};

/// An API key from the environment. Neither `Debug` nor [`Value::masked`] shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceKey(pub Secret);

impl ServiceKey {
    /// Returns the secret itself.
    pub fn reveal(&self) -> &str {
        &self.0.0
    }

    /// Whether it is so short that it could be guessed.
    pub fn is_short(&self) -> bool {
        self.reveal().len() < SHORT_SERVICE_KEY
    }
}

impl Value for ServiceKey {
    fn parse(text: &str) -> Result<Self, Rejected> {
        // Secrets that come from a file often end with a line end.
        let secret = text.trim();
        if !SERVICE_KEY_LENGTH.contains(&secret.len()) || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            let (low, high) = SERVICE_KEY_LENGTH.into_inner();
            return Err(Rejected::new(format!("{low} to {high} visible ASCII characters")));
        }
        if is_placeholder(secret) {
            let rejected = Rejected::new("a secret of your own, not the placeholder of an example");
            return Err(rejected.with_hint("make one with: openssl rand -hex 32"));
        }
        Ok(Self(Secret(secret.to_owned())))
    }

    fn masked(text: &str) -> String {
        if text.is_empty() { String::new() } else { "***".to_owned() }
    }
}

/// Texts that examples have in place of a secret, in lower case and without anything but letters and digits.
const PLACEHOLDERS: &[&str] = &[
    "apikey",
    "apitoken",
    "bearertoken",
    "dummykey",
    "mysecret",
    "mysecretkey",
    "mysupersecretkey",
    "notneeded",
    "notrequired",
    "password",
    "password1",
    "password123",
    "secretkey",
    "secrettoken",
    "supersecret",
    "supersecretkey",
    "testkey",
    "testtoken",
    "undefined",
];

/// Parts that no secret has by chance.
const PLACEHOLDER_PARTS: &[&str] =
    &["changeme", "changeit", "changethis", "replaceme", "replacewith", "placeholder", "yourapikey", "yoursecret"];

/// Whether this is what an example has in place of a secret: a known word in any case and with any punctuation, `your...`
/// with a noun, one character many times (`sk-xxxxxxxx`), digits in order, or a reference that was not filled in.
pub(in crate::settings::values) fn is_placeholder(secret: &str) -> bool {
    let bare: String = secret.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    // Keys of OpenAI and others begin so, and so do their placeholders.
    let word = bare.strip_prefix("sk").or_else(|| bare.strip_prefix("hf")).unwrap_or(&bare);
    let nouns = ["key", "token", "secret", "password", "here"];
    let is_yours = ["your", "my", "insert", "enter"].iter().any(|start| word.starts_with(start))
        && nouns.iter().any(|noun| word.ends_with(noun));
    let is_repeated = word.chars().all(|c| word.starts_with(c));
    let is_counted = "12345678901234567890".starts_with(word) || "0123456789".starts_with(word);
    let is_reference =
        (secret.starts_with('<') && secret.ends_with('>')) || secret.starts_with("${") || secret.starts_with("{{");
    let is_known =
        |text: &str| PLACEHOLDERS.contains(&text) || PLACEHOLDER_PARTS.iter().any(|part| text.contains(part));
    is_known(&bare) || is_known(word) || is_yours || is_repeated || is_counted || is_reference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_of_an_example_was_a_key() {
        for text in [
            "change-me-please",
            "changeme",
            "CHANGE_ME",
            "your-api-key",
            "Your-Token-Here",
            "your_api_key_here",
            "your-huggingface-token-here",
            "sk-xxxxxxxxxxxxxxxx",
            "sk-xxx-xxx-xxx",
            "XXXXXXXX",
            "--------",
            "Password",
            "password123",
            "my-secret-key",
            "<api-key>",
            "${API_TOKEN}",
            "{{ api_token }}x",
            "12345678",
            "sk-1234567890",
            "00000000",
            "replace-me-now",
            "not-needed",
        ] {
            let rejected = ServiceKey::parse(text).expect_err(text);
            assert!(!format!("{rejected:?}").contains(text), "{text} is quoted");
        }
    }

    #[test]
    fn a_key_is_8_to_256_visible_characters() {
        for good in ["s3cr3t-8", "Tr0ub4dor&3", &"a1".repeat(128), " with-a-line-end-1\r\n", "sk-proj-8Qn2mylongtokenZ"]
        {
            assert_eq!(ServiceKey::parse(good).unwrap().reveal(), good.trim());
        }
        for bad in ["s3cr3t7", &"a1".repeat(129), "with a blank", "schlüssel-1", "tab\tin-it-1", ""] {
            assert!(ServiceKey::parse(bad).is_err(), "{bad}");
        }
        assert!(ServiceKey::parse("s3cr3t-s3cr3t-1").unwrap().is_short());
        assert!(!ServiceKey::parse("s3cr3t-s3cr3t-12").unwrap().is_short());
    }

    #[test]
    fn a_key_is_never_printed() {
        let key = ServiceKey::parse("s3cr3t-s3cr3t-12").unwrap();
        assert!(!format!("{key:?}").contains("s3cr3t"));
        assert_eq!((ServiceKey::masked("s3cr3t"), ServiceKey::masked("")), ("***".into(), String::new()));
    }
}
