//! The certificate in use: looked at while the service runs, and replaced as a whole. A pair that cannot be used changes
//! nothing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::server::ClientHello;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::acme::challenge::Challenges;
use super::acme::origin::AcmeOrigin;
use super::acme::schedule::is_for;
use super::bounds::LOOK_INTERVAL;
use super::error::{CertificateError, CertificateFault};
use super::leaf::LeafFacts;
use super::source::{CertificateSource, FileContents, LoadedCertificate};
use crate::telemetry::metrics::{CertificateLabels, Metrics, OutcomeLabels};

/// The topic of the warning that the files cannot be used.
const FILES_TOPIC: &str = "tls_files";

/// The topic of the warning that the certificate expires.
const EXPIRY_TOPIC: &str = "tls_expiry";

/// The topic of the warning that none has come from the CA yet.
const STAND_IN_TOPIC: &str = "tls_stand_in";

/// The certificate that handshakes show.
pub struct CertificateStore {
    source: CertificateSource,
    config: ArcSwap<ServerConfig>,
    /// What is said of the certificate in use, for those who follow it.
    leaf: watch::Sender<LeafFacts>,
    /// Held from reading files to using them, so that what was read first never takes the place of what was read later.
    last_look: Mutex<LastLook>,
    /// Whether the certificate in use is there only until one comes from the CA.
    is_stand_in: AtomicBool,
    /// `None` if the certificate comes from no CA.
    acme: Option<AcmeSide>,
    metrics: Arc<Metrics>,
}

/// What is needed to get a certificate from a CA.
#[derive(Clone)]
pub(super) struct AcmeSide {
    pub(super) origin: Arc<AcmeOrigin>,
    pub(super) challenges: Arc<Challenges>,
    /// The names that are wanted now.
    pub(super) domains: watch::Sender<Vec<String>>,
}

impl AcmeSide {
    fn of_source(source: &CertificateSource) -> Result<Option<Self>, CertificateError> {
        let Some(origin) = source.acme() else { return Ok(None) };
        let (setting, path) = source.pair_files().certificate;
        let challenges = Challenges::new()
            .map_err(|error| CertificateError::new(setting, path, CertificateFault::Unusable(error)))?;
        let (challenges, domains) = (Arc::new(challenges), watch::Sender::new(origin.domains.clone()));
        Ok(Some(Self { origin: Arc::clone(origin), challenges, domains }))
    }
}

/// What the last look at the files has found.
struct LastLook {
    /// The digest of the contents in use.
    digest: [u8; 32],
    /// Why the files could not be used, and whether that has been told.
    fault: Option<(String, bool)>,
    /// Whether other users could read or write the key.
    is_key_open: bool,
}

/// Files that have been read and may be used. As long as it exists, nothing else looks at them.
pub struct ReadCertificate<'a> {
    /// `None` if what they hold is in use, or if the service has to make a certificate first.
    changed: Option<(LoadedCertificate, [u8; 32])>,
    last: MutexGuard<'a, LastLook>,
}

impl CertificateStore {
    /// Reads the certificate for the first time, and makes it if the service does so itself, or if it has to stand in for
    /// one of the CA. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be used, or be written.
    pub fn open(source: CertificateSource, metrics: Arc<Metrics>) -> Result<Self, CertificateError> {
        let contents = source.read()?;
        let mut last = LastLook { digest: contents.digest(), fault: None, is_key_open: false };
        last.note_mode(&source, &contents);
        let LoadedCertificate { config, leaf, is_stand_in } = source.load(contents, Timestamp::now())?;
        let last_look = Mutex::new(last);
        let (config, leaf) = (ArcSwap::new(config), watch::Sender::new(leaf));
        let acme = AcmeSide::of_source(&source)?;
        let is_stand_in = AtomicBool::new(is_stand_in);
        let store = Self { source, config, leaf, last_look, is_stand_in, acme, metrics };
        store.tell_expiry(Timestamp::now());
        Ok(store)
    }

    /// Returns the configuration for the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Returns the configuration of the handshake with a CA that looks whether a name leads here; `None` for any other client.
    pub fn challenge_config(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        self.acme.as_ref()?.challenges.config_for(hello)
    }

    /// Returns what is needed to get the certificate from a CA; `None` if it comes from none.
    pub(super) fn acme(&self) -> Option<AcmeSide> {
        self.acme.clone()
    }

    /// Wants a certificate of the CA for these names from now on, and has it ordered at once if it is due. `false` if the
    /// certificate comes from no CA.
    pub fn order_for(&self, domains: &[String]) -> bool {
        let Some(acme) = &self.acme else { return false };
        acme.domains.send_replace(domains.to_vec());
        true
    }

    /// Whether the certificate comes from a CA.
    pub fn has_ca(&self) -> bool {
        self.acme.is_some()
    }

    /// Whether the certificate in use is there only until one comes from the CA.
    pub fn is_stand_in(&self) -> bool {
        self.is_stand_in.load(Ordering::Relaxed)
    }

    /// Returns what the certificate in use says of itself, now and after each change.
    pub fn leaf(&self) -> watch::Receiver<LeafFacts> {
        self.leaf.subscribe()
    }

    /// Returns the file of the certificate; `None` if it comes from a CA by ACME.
    pub fn certificate_file(&self) -> Option<&Path> {
        self.source.certificate_file()
    }

    /// Whether the service has made the certificate itself.
    pub fn is_self_signed(&self) -> bool {
        self.source.is_self_signed()
    }

    /// Looks at the files each [`LOOK_INTERVAL`] until `stop` is cancelled.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        // After a pause of the program, one look is enough.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watching = async {
            loop {
                ticks.tick().await;
                let store = Arc::clone(&self);
                // On a blocking thread: the files may be on a slow network volume.
                let look = tokio::task::spawn_blocking(move || store.look(Timestamp::now()));
                // The join fails only if the runtime shuts down, or if a look has panicked, which is logged.
                let _ = look.await;
            }
        };
        stop.run_until_cancelled(watching).await;
    }

    /// Reads the files again for [`Self::install`], at once. Makes no certificate, because an order to reload may still
    /// fail: the next look does. Blocks on the disk.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn read_again(&self) -> Result<ReadCertificate<'_>, CertificateError> {
        let mut last = self.lock();
        let read = self.read_kept_if_changed(&mut last, Timestamp::now());
        let changed = read.inspect_err(|_| self.count("failed"))?;
        Ok(ReadCertificate { changed, last })
    }

    /// Uses what was read.
    pub fn install(&self, read: ReadCertificate<'_>) {
        let ReadCertificate { changed, mut last } = read;
        if let Some(changed) = changed {
            self.replace(changed, &mut last);
        }
        self.end_fault(&mut last);
    }

    /// Looks at the files. What cannot be used is told once, and only if the next look finds the same: one of the two files
    /// may have been replaced and the other not yet.
    pub(super) fn look(&self, now: Timestamp) {
        let mut last = self.lock();
        match self.read_if_changed(&mut last, now) {
            Ok(changed) => {
                if let Some(changed) = changed {
                    self.replace(changed, &mut last);
                }
                self.end_fault(&mut last);
            }
            Err(error) => self.note_fault(&error, &mut last),
        }
        drop(last);
        self.tell_expiry(now);
    }

    fn read_if_changed(
        &self,
        last: &mut LastLook,
        now: Timestamp,
    ) -> Result<Option<(LoadedCertificate, [u8; 32])>, CertificateError> {
        let (contents, digest) = self.read(last)?;
        if digest == last.digest && !self.source.must_renew(&self.leaf.borrow(), now) {
            return Ok(None);
        }
        // A stand-in never takes the place of a certificate of the CA.
        let loaded = match self.source.acme() {
            Some(_) => self.source.load_kept(contents, now)?,
            None => Some(self.source.load(contents, now)?),
        };
        loaded.iter().try_for_each(|loaded| self.check_names(&loaded.leaf))?;
        Ok(loaded.map(|loaded| (loaded, digest)))
    }

    /// Refuses a certificate of the CA for other names than are wanted, if the one in use is for these: two services with one
    /// `DATA_DIR` would order again and again, each in place of the other.
    fn check_names(&self, leaf: &LeafFacts) -> Result<(), CertificateError> {
        let Some(acme) = &self.acme else { return Ok(()) };
        let domains = acme.domains.borrow();
        if self.is_stand_in() || is_for(leaf, &domains) || !is_for(&self.leaf.borrow(), &domains) {
            return Ok(());
        }
        let (setting, path) = acme.origin.files().certificate;
        Err(CertificateError::new(setting, path, CertificateFault::OtherNames(leaf.names.join(", "))))
    }

    /// Does what [`Self::read_if_changed`] does, but makes no certificate.
    fn read_kept_if_changed(
        &self,
        last: &mut LastLook,
        now: Timestamp,
    ) -> Result<Option<(LoadedCertificate, [u8; 32])>, CertificateError> {
        let (contents, digest) = self.read(last)?;
        if digest == last.digest {
            return Ok(None);
        }
        Ok(self.source.load_kept(contents, now)?.map(|loaded| (loaded, digest)))
    }

    fn read(&self, last: &mut LastLook) -> Result<(FileContents, [u8; 32]), CertificateError> {
        let contents = self.source.read()?;
        last.note_mode(&self.source, &contents);
        let digest = contents.digest();
        Ok((contents, digest))
    }

    fn replace(&self, (loaded, digest): (LoadedCertificate, [u8; 32]), last: &mut LastLook) {
        last.digest = digest;
        let LoadedCertificate { config, leaf, is_stand_in } = loaded;
        self.config.store(config);
        self.is_stand_in.store(is_stand_in, Ordering::Relaxed);
        let (fingerprint, expires) = (leaf.shown_fingerprint(), leaf.expiry_day());
        self.leaf.send_replace(leaf);
        self.count("replaced");
        info!(fingerprint, expires, "the TLS certificate has been replaced");
    }

    fn note_fault(&self, error: &CertificateError, last: &mut LastLook) {
        let text = error.to_string();
        match &mut last.fault {
            Some((known, is_told)) if *known == text => {
                if !std::mem::replace(is_told, true) {
                    self.count("failed");
                    error!("the TLS certificate of before stays in use: {text} ({})", error.hint());
                    self.metrics.warnings.show(FILES_TOPIC, &error.without_path());
                }
            }
            _ => last.fault = Some((text, false)),
        }
    }

    fn end_fault(&self, last: &mut LastLook) {
        if last.fault.take().is_some_and(|(_, is_told)| is_told) {
            self.metrics.warnings.clear(FILES_TOPIC, "");
            info!("the files of the TLS certificate can be used again");
        }
    }

    /// Shows when the certificate expires, and warns if that is soon.
    fn tell_expiry(&self, now: Timestamp) {
        let leaf = self.leaf.borrow().clone();
        let labels = CertificateLabels { source: self.source.label() };
        let gauge = self.metrics.tls_expiry.get_or_create(&labels);
        if self.is_stand_in() {
            gauge.set(0);
            let text =
                "no TLS certificate has come from the CA yet: clients are shown a self-signed one, which they refuse";
            return self.metrics.warnings.raise(STAND_IN_TOPIC, "", text);
        }
        gauge.set(leaf.expires.as_second());
        self.metrics.warnings.clear(STAND_IN_TOPIC, "");
        match leaf.expiry_warning(now) {
            Some(text) => self.metrics.warnings.raise(EXPIRY_TOPIC, "", &text),
            None => self.metrics.warnings.clear(EXPIRY_TOPIC, ""),
        }
    }

    fn count(&self, outcome: &'static str) {
        self.metrics.tls_reloads.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    fn lock(&self) -> MutexGuard<'_, LastLook> {
        self.last_look.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LastLook {
    /// Warns once that other users can use the key.
    fn note_mode(&mut self, source: &CertificateSource, contents: &FileContents) {
        let was_open = std::mem::replace(&mut self.is_key_open, contents.is_key_open);
        if contents.is_key_open && !was_open {
            let file = source.pair_files().key.1.display();
            warn!(%file, "other users can read or write TLS_KEY; run: chmod 640 on it");
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
