//! What an answer says of the llama-server that gave it: that it can compute, that it cannot, or nothing.
//!
//! Knows llama-server's errors by their words. What follows from a verdict is the worker's business.

use crate::gateway::bounds::EVENT_HEAD;
use http::StatusCode;
use memchr::memmem;

/// The messages with which llama-server fails whatever is in flight when a batch could not be decoded; it lives on
/// (llama.cpp, tools/server/server-context.cpp, where `llama_decode` returns less than -1, and -1). Its other errors of
/// status 500 are the request's own fault, and no reason to restart it: "input (N tokens) is too large to process.
/// increase the physical batch size", "Context size has been exceeded."
const COMPUTE_FAILURES: [&[u8]; 2] = [b"\"message\":\"Compute error.\"", b"\"message\":\"Invalid input batch.\""];

/// What an answer says of the llama-server that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ComputeFailure {
    /// It can compute, if the answer comes to its end.
    RuledOut,
    /// It has failed, for a reason that the body tells.
    Possible,
    /// It could not compute.
    Confirmed,
    /// Nothing: the request was at fault, or took no computing.
    NotApplicable,
}

impl ComputeFailure {
    /// By the head of an answer to a request that needs a slot, or does not.
    pub(super) fn of_head(status: StatusCode, needs_slot: bool) -> Self {
        match status {
            _ if !needs_slot => Self::NotApplicable,
            StatusCode::INTERNAL_SERVER_ERROR => Self::Possible,
            status if status.is_success() => Self::RuledOut,
            _ => Self::NotApplicable,
        }
    }

    /// By the beginning of an error: of the body of an answer, or of an event.
    pub(super) fn of_error(text: &[u8]) -> Self {
        let head = &text[..text.len().min(EVENT_HEAD)];
        // A name with its quotes and colon cannot stand in a string of JSON, where quotes are escaped.
        match COMPUTE_FAILURES.iter().any(|failure| memmem::find(head, failure).is_some()) {
            true => Self::Confirmed,
            false => Self::NotApplicable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::route;
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
    fn a_route_without_computing_says_nothing_of_compute_failures() {
        let of = |path, status| {
            let route = route::find(&Method::POST, path).unwrap();
            ComputeFailure::of_head(StatusCode::from_u16(status).unwrap(), route.needs_slot)
        };
        assert_eq!(of("/v1/embeddings", 200), ComputeFailure::RuledOut);
        assert_eq!(of("/v1/embeddings", 500), ComputeFailure::Possible);
        assert_eq!(of("/v1/embeddings", 400), ComputeFailure::NotApplicable);
        assert_eq!(of("/tokenize", 200), ComputeFailure::NotApplicable);
        assert_eq!(of("/tokenize", 500), ComputeFailure::NotApplicable);
    }
}
