//! Explains in one sentence why a connection could not be made or broke, for logs and for the operator.

use std::error::Error;
use std::io;

use rustls::{CertificateError, Error as Tls};

/// What a worker sends is no HTTP/1, or can be read in more than one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it does not answer in HTTP/1")]
pub struct NotHttp;

/// Explains why a request to this host and port failed. The sentence holds the host and the reason, but no URL and no
/// key.
pub fn explain(error: &(dyn Error + 'static), host: &str) -> String {
    let found = causes(error).find_map(|cause| sentence(cause, host));
    found.unwrap_or_else(|| match causes(error).last() {
        Some(innermost) => format!("the request to {host} failed: {innermost}"),
        None => format!("the request to {host} failed"),
    })
}

/// Returns the error and its causes, outermost first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        // `io::Error::source` skips the error that it wraps, so `get_ref` comes first.
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

fn sentence(cause: &(dyn Error + 'static), host: &str) -> Option<String> {
    if let Some(tls) = cause.downcast_ref::<Tls>() {
        return Some(explain_tls(tls, host));
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return explain_io(error.kind(), host);
    }
    let not_http = || Some(format!("{host} does not answer in HTTP; is it https?"));
    if cause.is::<NotHttp>() {
        return not_http();
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        if error.is_parse() {
            return not_http();
        }
        return error.is_incomplete_message().then(|| format!("{host} broke the connection"));
    }
    // hyper-util's type for this error is private, so its text has to do.
    (cause.to_string() == "dns error").then(|| format!("the name of {host} cannot be resolved"))
}

fn explain_io(kind: io::ErrorKind, host: &str) -> Option<String> {
    use io::ErrorKind as Kind;
    Some(match kind {
        Kind::ConnectionRefused => format!("{host} refuses connections"),
        Kind::TimedOut => format!("{host} did not take a connection in time"),
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
            format!("{host} broke the connection")
        }
        Kind::HostUnreachable | Kind::NetworkUnreachable => format!("there is no route to {host}"),
        _ => return None,
    })
}

fn explain_tls(error: &Tls, host: &str) -> String {
    use CertificateError as Bad;
    match error {
        Tls::InvalidCertificate(Bad::UnknownIssuer) => {
            format!("the certificate of {host} is not trusted; SSL_CERT_FILE may name the authority that issued it")
        }
        Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            format!("the certificate of {host} has expired")
        }
        Tls::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            format!("the certificate of {host} is not valid yet; is this machine's clock right?")
        }
        Tls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            format!("the certificate of {host} is one for another name")
        }
        Tls::InvalidCertificate(Bad::Revoked) => format!("the certificate of {host} has been revoked"),
        Tls::InvalidCertificate(_) => format!("the certificate of {host} is not valid"),
        Tls::InvalidMessage(_) => format!("{host} does not speak TLS; is it http?"),
        Tls::AlertReceived(alert) => format!("{host} refused the TLS handshake: {alert:?}"),
        _ => format!("TLS with {host} failed: {error}"),
    }
}
