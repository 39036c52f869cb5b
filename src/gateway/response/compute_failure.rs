//! Whether a response shows that its llama-server can compute, that it cannot, or neither.
//!
//! Recognises llama-server's errors by their messages, which `error_cause.rs` lists. The worker decides what follows
//! from a failure.

use http::StatusCode;
use memchr::memmem;

use super::error_cause::compute_errors;
use crate::gateway::bounds::EVENT_HEAD;

/// What a response shows about the llama-server that sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ComputeFailure {
    /// It can compute, if the response reaches its end.
    RuledOut,
    /// It has failed; the body names the reason.
    Possible,
    /// It could not compute.
    Confirmed,
    /// Nothing: the request was at fault, or needed no computing.
    NotApplicable,
}

impl ComputeFailure {
    /// Judges by the status of a response. A request without a slot needs no computing.
    pub(super) fn of_head(status: StatusCode, needs_slot: bool) -> Self {
        match status {
            _ if !needs_slot => Self::NotApplicable,
            StatusCode::INTERNAL_SERVER_ERROR => Self::Possible,
            status if status.is_success() => Self::RuledOut,
            _ => Self::NotApplicable,
        }
    }

    /// Judges by the beginning of an error: of a response's body, or of an event.
    pub(super) fn of_error(text: &[u8]) -> Self {
        let head = text[..text.len().min(EVENT_HEAD)].to_ascii_lowercase();
        // This cannot match inside a JSON string, where quotes are escaped.
        let is_in_head = |message| memmem::find(&head, format!("\"message\":\"{message}\"").as_bytes()).is_some();
        match compute_errors().any(is_in_head) {
            true => Self::Confirmed,
            false => Self::NotApplicable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::routes::lookup;
    use http::Method;

    #[test]
    fn only_llama_servers_own_compute_errors_count_as_its_failure() {
        for (text, expected) in [
            (r#"{"error":{"code":500,"message":"Compute error.","type":"server_error"}}"#, ComputeFailure::Confirmed),
            (
                r#"{"error":{"code":500,"message":"Invalid input batch.","type":"server_error"}}"#,
                ComputeFailure::Confirmed,
            ),
            (r#"{"type":"error","error":{"type":"api_error","message":"Compute error."}}"#, ComputeFailure::Confirmed),
            (
                "event: error\ndata: {\"code\":500,\"message\":\"Compute error.\",\"type\":\"server_error\"}\n\n",
                ComputeFailure::Confirmed,
            ),
            (
                r#"{"error":{"code":500,"message":"input (700 tokens) is too large to process. increase the physical batch size (current batch size: 512)","type":"server_error"}}"#,
                ComputeFailure::NotApplicable,
            ),
            (r#"{"error":{"code":500,"message":"Context size has been exceeded."}}"#, ComputeFailure::NotApplicable),
            (r#"{"error":{"code":500,"message":"say \"message\":\"Compute error.\""}}"#, ComputeFailure::NotApplicable),
            ("Compute error.", ComputeFailure::NotApplicable),
            ("", ComputeFailure::NotApplicable),
        ] {
            assert_eq!(ComputeFailure::of_error(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_route_without_a_slot_shows_no_compute_failure() {
        let of = |path, status| {
            let route = lookup::find(&Method::POST, path).unwrap();
            ComputeFailure::of_head(StatusCode::from_u16(status).unwrap(), route.needs_slot)
        };
        assert_eq!(of("/v1/embeddings", 200), ComputeFailure::RuledOut);
        assert_eq!(of("/v1/embeddings", 500), ComputeFailure::Possible);
        assert_eq!(of("/v1/embeddings", 400), ComputeFailure::NotApplicable);
        assert_eq!(of("/tokenize", 200), ComputeFailure::NotApplicable);
        assert_eq!(of("/tokenize", 500), ComputeFailure::NotApplicable);
    }
}
