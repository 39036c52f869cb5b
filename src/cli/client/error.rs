//! Why a service has not given what was asked, for people and as JSON, and the exit status for each case.

use std::process::ExitCode;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use thiserror::Error;

use crate::cli::output::{EXIT_BACKEND, EXIT_CONFIG, EXIT_INTERRUPTED, print, print_stderr};
use crate::models::list::printable;

/// Most characters that are shown of an answer that is no JSON.
const SHOWN_BODY: usize = 300;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(in crate::cli) enum CallError {
    /// Arguments or variables that cannot be meant so.
    #[error("{0}")]
    Usage(String),
    /// A setting is wrong; that was printed already, and this is the exit status.
    #[error("the configuration is not usable")]
    Reported(ExitCode),
    /// The service does not answer.
    #[error("no service answers at {base}: {reason}")]
    Unreachable {
        /// Its address.
        base: String,
        /// Why, in one sentence.
        reason: String,
    },
    /// The service has refused the request, or failed.
    #[error("{}", .0.message)]
    Refused(Box<ServiceError>),
    /// The answer breaks off, is too large, or is not what was asked for.
    #[error("{0}")]
    Broken(String),
    /// The user has pressed Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

/// An error as the service tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct ServiceError {
    pub(in crate::cli) status: StatusCode,
    pub(in crate::cli) code: Option<String>,
    pub(in crate::cli) message: String,
    pub(in crate::cli) hint: Option<String>,
    pub(in crate::cli) request_id: Option<String>,
}

impl ServiceError {
    /// Reads an error of any shape that the service writes.
    pub(in crate::cli) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let request_id = headers.get("x-request-id").and_then(|id| Some(printable(id.to_str().ok()?)));
        let body: Value = serde_json::from_slice(body).unwrap_or_else(|_| {
            let text = String::from_utf8_lossy(body);
            Value::String(text.trim().chars().take(SHOWN_BODY).collect())
        });
        Self { request_id, ..Self::of_value(status, &body) }
    }

    /// Reads the error in the last event of a stream that has failed.
    pub(in crate::cli) fn of_value(status: StatusCode, body: &Value) -> Self {
        let inner = body.get("error").unwrap_or(body);
        let text = |name: &str| inner.get(name).and_then(Value::as_str).map(printable);
        let message = text("message").or_else(|| inner.as_str().map(printable)).filter(|text| !text.is_empty());
        let code = text("code").or_else(|| text("type"));
        let message = message.unwrap_or_else(|| format!("the service answered {status}"));
        Self { status, hint: text("hint"), code, message, request_id: None }
    }

    /// Returns what to do, from the answer or for what a command line can be wrong about.
    fn hint(&self) -> Option<String> {
        let known = match (self.status.as_u16(), self.code.as_deref()) {
            (401, _) => "give a key with LLAMAGATE_KEY or --key (`keyctl generate` makes one)",
            (403, Some("scope_required")) => "give a key whose scope is admin with LLAMAGATE_KEY or --key",
            (404, Some("route_not_found")) => "the address may be wrong, or the service older than this program",
            _ => return self.hint.clone(),
        };
        self.hint.clone().or_else(|| Some(known.to_owned()))
    }
}

impl CallError {
    /// Prints the error. Returns the exit status.
    pub(in crate::cli) fn report(&self, is_json: bool) -> ExitCode {
        if let Self::Reported(code) = self {
            return *code;
        }
        if is_json {
            print(&format!("{}\n", self.to_json()));
        } else {
            print_stderr(&self.to_text());
        }
        match self {
            Self::Usage(_) => ExitCode::from(EXIT_CONFIG),
            Self::Unreachable { .. } => ExitCode::from(EXIT_BACKEND),
            Self::Interrupted => ExitCode::from(EXIT_INTERRUPTED),
            Self::Reported(_) | Self::Refused(_) | Self::Broken(_) => ExitCode::FAILURE,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(error) => error.hint(),
            Self::Unreachable { .. } => {
                Some("give its address with --url or LLAMAGATE_URL, or start one: llamagate serve MODEL".to_owned())
            }
            _ => None,
        }
    }

    /// Returns the error as people read it, with what to do and what to quote.
    pub(in crate::cli) fn to_text(&self) -> String {
        let facts = match self {
            Self::Refused(error) => {
                let code = error.code.as_ref().map(|code| format!(" {code}")).unwrap_or_default();
                format!(" ({}{code})", error.status.as_u16())
            }
            _ => String::new(),
        };
        let hint = self.hint().map(|hint| format!("\n    hint: {hint}")).unwrap_or_default();
        let id = match self {
            Self::Refused(error) => error.request_id.as_ref().map(|id| format!("\n    request id: {id}")),
            _ => None,
        };
        format!("error: {self}{facts}{hint}{}\n", id.unwrap_or_default())
    }

    fn to_json(&self) -> Value {
        let mut error = json!({"message": self.to_string(), "hint": self.hint()});
        if let Self::Refused(refused) = self {
            error["status"] = json!(refused.status.as_u16());
            error["code"] = json!(refused.code);
            error["request_id"] = json!(refused.request_id);
        }
        json!({"error": error})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> CallError {
        let headers = HeaderMap::from_iter([("x-request-id".parse().unwrap(), "0190".parse().unwrap())]);
        let status = StatusCode::from_u16(status).unwrap();
        CallError::Refused(Box::new(ServiceError::read(status, &headers, body.as_bytes())))
    }

    #[test]
    fn an_error_of_any_shape_is_told_with_message_hint_and_request_id() {
        let body = r#"{"error":{"message":"No key","type":"invalid_request_error","code":"missing_api_key"}}"#;
        let hint = "give a key with LLAMAGATE_KEY or --key (`keyctl generate` makes one)";
        let expected = format!("error: No key (401 missing_api_key)\n    hint: {hint}\n    request id: 0190\n");
        assert_eq!(read(401, body).to_text(), expected);
        assert_eq!(read(401, body).to_json()["error"]["code"], "missing_api_key");
        let ollama = read(404, r#"{"error":"model \"x\" not found"}"#);
        assert_eq!(ollama.to_text(), "error: model \"x\" not found (404)\n    request id: 0190\n");
        assert_eq!(read(502, "<html>\u{1b}[2J").to_string(), "<html>\u{fffd}[2J");
        assert_eq!(read(502, "").to_string(), "the service answered 502 Bad Gateway");
    }
}
