//! Why a connection could not be made or broke, in a plain sentence for logs and for whoever runs the service.

use rustls::{CertificateError, Error as Tls};
use std::error::Error;
use std::io;

/// Why a request to this host and port failed. Names nothing but the host and what happened.
pub fn explain(error: &(dyn Error + 'static), host: &str) -> String {
    let found = causes(error).find_map(|cause| sentence(cause, host));
    found.unwrap_or_else(|| match causes(error).last() {
        Some(innermost) => format!("{host} cannot be asked: {innermost}"),
        None => format!("{host} cannot be asked"),
    })
}

/// The error and what lies below it, from the outside to the inside.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        // Its `source` is what lies below that.
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

fn sentence(cause: &(dyn Error + 'static), host: &str) -> Option<String> {
    if let Some(tls) = cause.downcast_ref::<Tls>() {
        return Some(of_tls(tls, host));
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return of_io(error.kind(), host);
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        if error.is_parse() {
            return Some(format!("{host} does not answer in HTTP; is it https?"));
        }
        return error.is_incomplete_message().then(|| format!("{host} broke the connection"));
    }
    // The type of this one is private.
    (cause.to_string() == "dns error").then(|| format!("the name of {host} cannot be resolved"))
}

fn of_io(kind: io::ErrorKind, host: &str) -> Option<String> {
    use io::ErrorKind as Kind;
    Some(match kind {
        Kind::ConnectionRefused => format!("{host} refuses connections"),
        Kind::TimedOut => format!("{host} did not take a connection in time"),
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe | Kind::UnexpectedEof => {
            format!("{host} broke the connection")
        }
        Kind::HostUnreachable | Kind::NetworkUnreachable => format!("there is no way to {host} from here"),
        _ => return None,
    })
}

fn of_tls(error: &Tls, host: &str) -> String {
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
        Tls::AlertReceived(alert) => format!("{host} does not agree to TLS: {alert:?}"),
        _ => format!("no TLS with {host}: {error}"),
    }
}
