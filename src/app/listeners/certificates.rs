//! The certificate of the service at its start: opened, announced, and told to commands on this machine when it changes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::service_note::{NotedTls, PublishedNote};
use crate::settings::Settings;
use crate::telemetry::metrics::Metrics;
use crate::tls::{CertificateSource, CertificateStore, LeafFacts};

/// Opens the certificate, if the settings ask for one, and announces it.
///
/// # Errors
///
/// Returns an error that names the setting and the file if it cannot be used.
pub(in crate::app) fn open(
    source: Option<&CertificateSource>,
    metrics: &Arc<Metrics>,
    gateway: SocketAddr,
) -> io::Result<Option<Arc<CertificateStore>>> {
    let Some(source) = source else { return Ok(None) };
    let opened = CertificateStore::open(source.clone(), Arc::clone(metrics));
    let store = opened.map_err(|error| io::Error::other(format!("{error}; {}", error.hint())))?;
    announce(&store, gateway);
    Ok(Some(Arc::new(store)))
}

fn announce(store: &CertificateStore, gateway: SocketAddr) {
    let leaf = store.leaf().borrow().clone();
    let (fingerprint, expires, names) = (leaf.shown_fingerprint(), leaf.expiry_day(), leaf.names.join(", "));
    info!(expires, names, "the TLS certificate has the SHA-256 fingerprint {fingerprint}");
    if store.is_stand_in() {
        // The warning of the store says what clients see.
        return;
    }
    if store.is_self_signed()
        && let Some(file) = store.certificate_file()
    {
        let file = absolute(file);
        let ip = gateway.ip();
        let reached = if ip.is_unspecified() {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), gateway.port())
        } else {
            gateway
        };
        info!(
            "clients must trust it: curl --cacert {file} https://{reached}/v1/models; for OpenAI's Python client: export SSL_CERT_FILE={file}"
        );
    }
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// Returns what commands on this machine need to know of the certificate.
pub(super) fn noted(store: &CertificateStore, settings: &Settings) -> NotedTls {
    NotedTls {
        fingerprint: store.leaf().borrow().fingerprint,
        certificate: store.certificate_file().map(|file| absolute(file).into()),
        name: settings.tls.tls_acme_domains.names().first().cloned(),
        is_on_health_port: settings.has_health_tls(),
    }
}

/// Keeps the note of the service as the certificate is, until `stop` is cancelled. `leaf` is from before the note was
/// published, so that a certificate which was replaced since then gets into it.
pub(in crate::app) async fn keep_note(
    mut leaf: watch::Receiver<LeafFacts>,
    note: Arc<PublishedNote>,
    stop: CancellationToken,
) {
    while stop.run_until_cancelled(leaf.changed()).await.is_some_and(|changed| changed.is_ok()) {
        let fingerprint = leaf.borrow_and_update().fingerprint;
        let note = Arc::clone(&note);
        // On a blocking thread: it writes a file.
        let written = tokio::task::spawn_blocking(move || note.set_fingerprint(fingerprint)).await;
        if let Ok(Err(error)) = written {
            debug!(%error, "commands on this machine do not know the new certificate");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service_note::ServiceNote;
    use jiff::Timestamp;

    fn facts(fingerprint: [u8; 32]) -> LeafFacts {
        LeafFacts { begins: Timestamp::UNIX_EPOCH, expires: Timestamp::UNIX_EPOCH, fingerprint, names: Vec::new() }
    }

    /// The note once kept the fingerprint of before until the next certificate.
    #[tokio::test]
    async fn a_certificate_that_is_replaced_while_the_note_is_written_gets_into_it() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, leaf) = watch::channel(facts([1; 32]));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000));
        let certificate_file = Some("/cert.pem".into());
        let tls =
            NotedTls { fingerprint: [1; 32], certificate: certificate_file, name: None, is_on_health_port: false };
        let note = ServiceNote::of_this_process(address, address, Some(tls), folder.path()).unwrap();
        certificate.send_replace(facts([2; 32]));
        let note = Arc::new(note.publish().unwrap());
        // There is no other change, so the keeping ends.
        drop(certificate);
        keep_note(leaf, Arc::clone(&note), CancellationToken::new()).await;
        let found = ServiceNote::running(folder.path());
        let fingerprints: Vec<_> = found.iter().filter_map(|note| Some(note.tls.as_ref()?.fingerprint)).collect();
        assert_eq!(fingerprints, [[2; 32]]);
    }
}
