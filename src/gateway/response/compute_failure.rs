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
pub(super) enum Verdict {
    /// It can compute, if the answer comes to its end.
    Computes,
    /// It has failed, for a reason that the body tells.
    Fails,
    /// It could not compute.
    CannotCompute,
    /// Nothing: the request was at fault, or took no computing.
    Nothing,
}

impl Verdict {
    /// By the head of an answer to a request that needs a slot, or does not.
    pub(super) fn of_head(status: StatusCode, needs_slot: bool) -> Self {
        match status {
            _ if !needs_slot => Self::Nothing,
            StatusCode::INTERNAL_SERVER_ERROR => Self::Fails,
            status if status.is_success() => Self::Computes,
            _ => Self::Nothing,
        }
    }

    /// By the beginning of an error: of the body of an answer, or of an event.
    pub(super) fn of_error(text: &[u8]) -> Self {
        let head = &text[..text.len().min(EVENT_HEAD)];
        // A name with its quotes and colon cannot stand in a string of JSON, where quotes are escaped.
        match COMPUTE_FAILURES.iter().any(|failure| memmem::find(head, failure).is_some()) {
            true => Self::CannotCompute,
            false => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::route;
    use http::Method;

    #[test]
    fn only_what_llama_server_says_of_itself_counts_as_its_failure() {
        for (text, expected) in [
            (r#"{"error":{"code":500,"message":"Compute error.","type":"server_error"}}"#, Verdict::CannotCompute),
            (
                r#"{"error":{"code":500,"message":"Invalid input batch.","type":"server_error"}}"#,
                Verdict::CannotCompute,
            ),
            (r#"{"type":"error","error":{"type":"api_error","message":"Compute error."}}"#, Verdict::CannotCompute),
            (
                "event: error\ndata: {\"code\":500,\"message\":\"Compute error.\",\"type\":\"server_error\"}\n\n",
                Verdict::CannotCompute,
            ),
            (
                r#"{"error":{"code":500,"message":"input (700 tokens) is too large to process. increase the physical batch size (current batch size: 512)","type":"server_error"}}"#,
                Verdict::Nothing,
            ),
            (r#"{"error":{"code":500,"message":"Context size has been exceeded."}}"#, Verdict::Nothing),
            (r#"{"error":{"code":500,"message":"say \"message\":\"Compute error.\""}}"#, Verdict::Nothing),
            ("Compute error.", Verdict::Nothing),
            ("", Verdict::Nothing),
        ] {
            assert_eq!(Verdict::of_error(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_takes_no_computing_says_nothing_of_it() {
        let of = |path, status| {
            let route = route::find(&Method::POST, path).unwrap();
            Verdict::of_head(StatusCode::from_u16(status).unwrap(), route.needs_slot)
        };
        assert_eq!(of("/v1/embeddings", 200), Verdict::Computes);
        assert_eq!(of("/v1/embeddings", 500), Verdict::Fails);
        assert_eq!(of("/v1/embeddings", 400), Verdict::Nothing);
        assert_eq!(of("/tokenize", 200), Verdict::Nothing);
        assert_eq!(of("/tokenize", 500), Verdict::Nothing);
    }
}
