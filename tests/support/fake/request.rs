//! A request, as received.

use serde_json::Value;

/// One HTTP request with its whole body.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    /// Names in lower case, in the order of arrival.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Whether this is the last request on its connection; the response says so.
    pub(super) is_last: bool,
}

impl Request {
    pub(super) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn is_post(&self) -> bool {
        self.method == "POST"
    }

    /// Whether the request is a POST whose body contains this text.
    pub(super) fn contains(&self, text: &str) -> bool {
        self.is_post() && String::from_utf8_lossy(&self.body).contains(text)
    }

    pub(super) fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}
