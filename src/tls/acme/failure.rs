//! Why an order brought no certificate, in a sentence without secrets.

use instant_acme::{Error as AcmeError, Problem, Subproblem};
use thiserror::Error;

use super::bounds::CA_TEXT;
use crate::tls::error::CertificateError;

/// What the types of ACME's errors begin with (RFC 8555, section 6.7).
const ERROR_PREFIX: &str = "urn:ietf:params:acme:error:";

/// Why an order brought no certificate.
#[derive(Debug, Error)]
pub(super) enum AcmeOrderError {
    /// The CA refused a request.
    #[error("the CA refused it: {}", describe(.0))]
    Refused(Problem),
    /// The CA has not found its challenge under a name.
    #[error("the CA could not validate {name}: {}", describe(problem))]
    NotValidated { name: String, problem: Problem },
    /// The CA has another way to validate a name only.
    #[error("the CA offers no TLS-ALPN-01 for {0}")]
    NoChallenge(String),
    /// The order has ended without a reason.
    #[error("the CA has given the order up without a reason")]
    GivenUp,
    /// The CA has not answered as a CA does.
    #[error("{}", shown(.0))]
    Answer(String),
    /// The CA took too long.
    #[error("the CA has not issued it in time")]
    TimedOut,
    /// What was issued cannot be used.
    #[error("what the CA has issued cannot be used: {0}")]
    Unusable(String),
    /// No key or request can be made.
    #[error("no request for a certificate can be made: {0}")]
    NotMade(String),
    /// A file in `DATA_DIR` cannot be read or written.
    #[error("{0}")]
    File(#[from] CertificateError),
    /// Another process orders, because this one was paused for too long.
    #[error("another process has taken the order over")]
    LockLost,
}

impl AcmeOrderError {
    /// Whether the CA takes no more orders for now.
    pub(super) fn is_rate_limited(&self) -> bool {
        self.has_type("rateLimited")
    }

    /// Whether the CA knows the account no longer.
    pub(super) fn is_unknown_account(&self) -> bool {
        self.has_type("accountDoesNotExist")
    }

    /// Whether an order that replaces no other certificate would fail too. All other refusals may be about the certificate that
    /// is replaced: CAs have several types for that, and another account may not replace it.
    pub(super) fn is_about_any_order(&self) -> bool {
        self.is_rate_limited() || self.is_unknown_account() || self.has_type("userActionRequired")
    }

    fn has_type(&self, wanted: &str) -> bool {
        let (Self::Refused(problem) | Self::NotValidated { problem, .. }) = self else { return false };
        problem.r#type.as_deref().and_then(|kind| kind.strip_prefix(ERROR_PREFIX)) == Some(wanted)
    }

    /// Returns the sentence without paths, for those who may not see where files lie.
    pub(super) fn without_path(&self) -> String {
        match self {
            Self::File(_) => "a file in DATA_DIR cannot be read or written".to_owned(),
            other => other.to_string(),
        }
    }
}

impl From<AcmeError> for AcmeOrderError {
    fn from(error: AcmeError) -> Self {
        match error {
            AcmeError::Api(problem) => Self::Refused(problem),
            AcmeError::Timeout(_) => Self::TimedOut,
            // It may quote what was sent by the CA, and holds nothing of a key.
            other => Self::Answer(other.to_string()),
        }
    }
}

/// Returns the type of a problem and what the CA says of it.
fn describe(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("no type");
    let mut text = kind.strip_prefix(ERROR_PREFIX).unwrap_or(kind).to_owned();
    for detail in
        problem.detail.iter().chain(problem.subproblems.iter().filter_map(|of: &Subproblem| of.detail.as_ref()))
    {
        text.push_str(": ");
        text.push_str(detail);
    }
    shown(&text)
}

/// Returns a text of the CA within its bound, on one line.
fn shown(text: &str) -> String {
    let letters = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut shown: String = letters.take(CA_TEXT).collect();
    if text.chars().nth(CA_TEXT).is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> Problem {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_problem_is_told_by_its_type_and_details_on_one_short_line() {
        let refused = AcmeOrderError::from(AcmeError::Api(problem(
            r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many\norders", "subproblems": [{"detail": "for a"}]}"#,
        )));
        assert_eq!(refused.to_string(), "the CA refused it: rateLimited: too many orders: for a");
        assert!(refused.is_rate_limited() && !refused.is_unknown_account());
        assert!(refused.is_about_any_order());
        let name = "a.example.org".to_owned();
        let long = format!(r#"{{"type": "about:blank", "detail": "{}"}}"#, "x".repeat(5000));
        let text = AcmeOrderError::NotValidated { name, problem: problem(&long) }.to_string();
        assert!(text.starts_with("the CA could not validate a.example.org: about:blank: xxx") && text.len() < 500);
        assert_eq!(AcmeOrderError::Refused(problem("{}")).to_string(), "the CA refused it: no type");
    }

    /// Regression: only two types led to an order without `replaces`, and Let's Encrypt has a third one.
    #[test]
    fn a_failure_that_may_come_from_the_replaced_certificate_is_not_one_of_any_order() {
        for (kind, is_of_any) in [
            ("unauthorized", false),
            ("alreadyReplaced", false),
            ("malformed", false),
            ("serverInternal", false),
            ("rateLimited", true),
            ("accountDoesNotExist", true),
            ("userActionRequired", true),
        ] {
            let refused = AcmeOrderError::Refused(problem(&format!(r#"{{"type": "{ERROR_PREFIX}{kind}"}}"#)));
            assert_eq!(refused.is_about_any_order(), is_of_any, "{kind}");
        }
        assert!(!AcmeOrderError::from(AcmeError::Unsupported("ACME renewal information (ARI)")).is_about_any_order());
    }
}
