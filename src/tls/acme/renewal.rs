//! The task that orders a certificate when one is missing, is for other names, or is due.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::account::{forget_account, open_account};
use super::advice::RenewalAdvice;
use super::bounds::{DUE_LOOK_INTERVAL, ORDER_TIMEOUT, ORDERED_ELSEWHERE_WAIT};
use super::challenge::Challenges;
use super::failure::AcmeOrderError;
use super::issued::check_issued;
use super::order::{IssuedText, order_certificate};
use super::origin::{AcmeOrigin, SETTING};
use super::schedule::{RetryWaits, is_for, latest_renewal_time, renewal_time};
use super::transport::{AskedWait, CaTransport};
use crate::file_lock::{FileLock, LockTaker};
use crate::file_replacement::remove_leftovers;
use crate::pause_clock::{self, ActiveInstant};
use crate::telemetry::metrics::{Metrics, OutcomeLabels};
use crate::tls::error::{CertificateError, CertificateFault};
use crate::tls::pem_file;
use crate::tls::store::{AcmeSide, CertificateStore};

/// The topic of the warning that orders fail.
const TOPIC: &str = "tls_acme";

/// Orders certificates for a store. Several processes with one `DATA_DIR` order one after the other, and the second one finds
/// what the first one has got.
pub struct CertificateRenewal {
    store: Arc<CertificateStore>,
    origin: Arc<AcmeOrigin>,
    challenges: Arc<Challenges>,
    /// The names that are wanted. A change of any kind is an order to try at once.
    domains: watch::Receiver<Vec<String>>,
    advice: RenewalAdvice,
    retries: RetryWaits,
    /// Kept from one try to the next: what it has seen of an owner tells whether that is gone.
    lock: Arc<Mutex<LockTaker>>,
    /// Since when another process has held the lock at each try.
    elsewhere_since: Option<ActiveInstant>,
    metrics: Arc<Metrics>,
}

/// How an order has ended that did not fail.
enum Ordered {
    Issued,
    /// Another process holds the lock.
    Elsewhere,
    /// Another process has got the certificate meanwhile.
    NotDue,
}

impl CertificateRenewal {
    /// Creates the task for a store; `None` if its certificate comes from no CA.
    pub fn of_store(store: &Arc<CertificateStore>, metrics: &Arc<Metrics>) -> Option<Self> {
        let AcmeSide { origin, challenges, domains } = store.acme()?;
        for outcome in ["issued", "failed", "rate_limited"] {
            drop(metrics.tls_acme_orders.get_or_create(&OutcomeLabels { outcome }));
        }
        Some(Self {
            store: Arc::clone(store),
            retries: RetryWaits::new(origin.retry),
            lock: Arc::new(Mutex::new(LockTaker::new(origin.lock_file()))),
            elsewhere_since: None,
            origin,
            challenges,
            domains: domains.subscribe(),
            advice: RenewalAdvice::default(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Orders whenever it is time to, until `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.renew_on()).await;
    }

    async fn renew_on(&mut self) {
        self.remove_drafts().await;
        loop {
            let domains = self.domains.borrow_and_update().clone();
            let now = Timestamp::now();
            self.refresh_advice(&domains, now).await;
            let due = self.due(&domains);
            if now < due {
                self.settle();
                let left = Duration::try_from(due.duration_since(now)).unwrap_or_default();
                self.wait(left.min(DUE_LOOK_INTERVAL), None).await;
                continue;
            }
            let ordered = self.order(&domains).await;
            if !matches!(ordered, Ok(Ordered::Elsewhere)) {
                self.elsewhere_since = None;
            }
            match ordered {
                Ok(Ordered::NotDue) => self.settle(),
                Ok(Ordered::Elsewhere) => {
                    self.note_elsewhere();
                    self.wait(ORDERED_ELSEWHERE_WAIT, None).await;
                }
                Ok(Ordered::Issued) => self.end_order(&domains).await,
                Err((error, asked)) => {
                    let wait = self.retries.next_wait(asked.wait);
                    self.tell(&error, asked, wait, &domains);
                    self.wait(wait, asked.wait).await;
                }
            }
        }
    }

    /// Removes what processes that were killed have left of the files with keys.
    async fn remove_drafts(&self) {
        let origin = Arc::clone(&self.origin);
        let removing = spawn_blocking(move || {
            remove_leftovers(origin.pair_file());
            remove_leftovers(&origin.account_file());
        });
        // The join fails only if the runtime shuts down.
        let _ = removing.await;
    }

    /// Notes that another process holds the lock, and warns if it does for longer than any order takes.
    fn note_elsewhere(&mut self) {
        debug!("another process orders a certificate");
        let since = *self.elsewhere_since.get_or_insert_with(ActiveInstant::now);
        if since.elapsed() > ORDER_TIMEOUT {
            let text = "another process with this DATA_DIR has been ordering the TLS certificate for too long";
            self.metrics.warnings.raise(TOPIC, "", text);
        }
    }

    /// Notes that a certificate has been issued. One that is due as soon as it is there must not be ordered again and again:
    /// then it waits as after a failure.
    async fn end_order(&mut self, domains: &[String]) {
        self.metrics.warnings.clear(TOPIC, "");
        self.count("issued");
        let now = Timestamp::now();
        self.refresh_advice(domains, now).await;
        if now < self.due(domains) {
            self.retries.end();
        } else {
            let wait = self.retries.next_wait(None);
            self.wait(wait, None).await;
        }
    }

    /// Waits for this long, or until an order to reload, but for what the CA has `asked` in any case.
    async fn wait(&mut self, wait: Duration, asked: Option<Duration>) {
        if let Some(asked) = asked {
            return pause_clock::sleep(wait.max(asked)).await;
        }
        tokio::select! {
            () = pause_clock::sleep(wait) => {}
            // The sender belongs to the store, which is held here.
            _ = self.domains.changed() => {}
        }
    }

    /// Returns when the certificate in use has to be replaced.
    fn due(&self, domains: &[String]) -> Timestamp {
        let leaf = self.store.leaf().borrow().clone();
        if self.store.is_stand_in() || !is_for(&leaf, domains) {
            return Timestamp::MIN;
        }
        match self.advice.renewal_of(&leaf) {
            Some(renewal) => renewal.min(latest_renewal_time(&leaf)),
            None => renewal_time(&leaf),
        }
    }

    /// Asks the CA when it would have the certificate renewed, if it has issued it for these names.
    async fn refresh_advice(&mut self, domains: &[String], now: Timestamp) {
        let leaf = self.store.leaf().borrow().clone();
        if !self.store.is_stand_in() && is_for(&leaf, domains) {
            self.advice.refresh(&self.origin, &leaf, now).await;
        }
    }

    /// Orders a certificate, if no other process does. Also returns what the CA has asked for, if it refuses.
    async fn order(&self, domains: &[String]) -> Result<Ordered, (AcmeOrderError, AskedWait)> {
        let nothing = |error| (error, AskedWait::default());
        let (origin, lock) = (Arc::clone(&self.origin), Arc::clone(&self.lock));
        let preparing = spawn_blocking(move || {
            let mut taker = lock.lock().unwrap_or_else(PoisonError::into_inner);
            prepare(&origin, &mut taker)
        });
        let prepared = preparing.await;
        let prepared = prepared.map_err(|error| nothing(AcmeOrderError::NotMade(error.to_string())))?;
        let Some((lock, transport)) = prepared.map_err(nothing)? else { return Ok(Ordered::Elsewhere) };
        self.look().await;
        if Timestamp::now() < self.due(domains) {
            return Ok(Ordered::NotDue);
        }
        info!(ca = self.origin.directory.host(), domains = domains.join(", "), "a TLS certificate is ordered");
        let ordering = pause_clock::timeout(ORDER_TIMEOUT, self.order_alone(domains, &transport));
        let outcome = tokio::select! {
            outcome = ordering => outcome.unwrap_or(Err(AcmeOrderError::TimedOut)),
            () = lock.keep_until_lost() => Err(AcmeOrderError::LockLost),
        };
        outcome.map(|()| Ordered::Issued).map_err(|error| (error, transport.asked()))
    }

    /// Orders a certificate, keeps it and puts it into use.
    async fn order_alone(&self, domains: &[String], transport: &CaTransport) -> Result<(), AcmeOrderError> {
        let issued = match self.order_with_account(domains, transport).await {
            Err(error) if error.is_unknown_account() => {
                forget_account(&self.origin).await?;
                self.order_with_account(domains, transport).await?
            }
            outcome => outcome?,
        };
        let (origin, names) = (Arc::clone(&self.origin), domains.to_vec());
        let keeping = spawn_blocking(move || {
            let (text, leaf) = check_issued(&issued, &origin, &names, Timestamp::now())?;
            let path = origin.pair_file();
            let written = pem_file::replace(path, &text, 0o600);
            written.map_err(|error| CertificateError::new(SETTING, path, CertificateFault::Unwritable(error)))?;
            Ok::<_, AcmeOrderError>(leaf)
        });
        let leaf = keeping.await.map_err(|error| AcmeOrderError::NotMade(error.to_string()))??;
        self.look().await;
        let (ca, expires) = (self.origin.directory.host(), leaf.expiry_day());
        info!(ca, domains = domains.join(", "), expires, "the CA has issued a TLS certificate");
        Ok(())
    }

    async fn order_with_account(
        &self,
        domains: &[String],
        transport: &CaTransport,
    ) -> Result<IssuedText, AcmeOrderError> {
        let account = open_account(&self.origin, transport.clone()).await?;
        let replaced = self.advice.identifier_of(&self.store.leaf().borrow());
        order_certificate(&account, domains, replaced, &self.challenges).await
    }

    /// Lets the store look at the files at once.
    async fn look(&self) {
        let store = Arc::clone(&self.store);
        // The join fails only if the runtime shuts down, or if a look has panicked, which is logged.
        let _ = spawn_blocking(move || store.look(Timestamp::now())).await;
    }

    /// Notes that nothing is wrong any more.
    fn settle(&mut self) {
        self.retries.end();
        self.elsewhere_since = None;
        self.metrics.warnings.clear(TOPIC, "");
    }

    fn tell(&self, failure: &AcmeOrderError, asked: AskedWait, wait: Duration, domains: &[String]) {
        let is_rate_limited = asked.is_rate_limited || failure.is_rate_limited();
        self.count(if is_rate_limited { "rate_limited" } else { "failed" });
        let (ca, names) = (self.origin.directory.host(), domains.join(", "));
        let shown = if self.store.is_stand_in() {
            "clients are shown a self-signed certificate, which they refuse"
        } else {
            "the TLS certificate of before stays in use"
        };
        let seconds = i64::try_from(wait.as_secs()).unwrap_or(i64::MAX).max(1);
        let next_try = format!("in {:#}", SignedDuration::from_secs(seconds));
        error!(ca, next_try, "no TLS certificate for {names}: {failure}; {shown}");
        let text = format!("no TLS certificate for {names}: {}; {shown}", failure.without_path());
        self.metrics.warnings.show(TOPIC, &text);
    }

    fn count(&self, outcome: &'static str) {
        self.metrics.tls_acme_orders.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

/// Takes the lock and makes the client of an order; `None` if another process has the lock. Fails before anything is ordered
/// if what would be issued could not be kept.
fn prepare(origin: &AcmeOrigin, taker: &mut LockTaker) -> Result<Option<(FileLock, CaTransport)>, AcmeOrderError> {
    let unwritable = |path: &std::path::Path, error| {
        AcmeOrderError::File(CertificateError::new(SETTING, path, CertificateFault::Unwritable(error)))
    };
    fs::create_dir_all(origin.folder()).map_err(|error| unwritable(origin.folder(), error))?;
    let taken = taker.take();
    let Some(lock) = taken.map_err(|error| unwritable(taker.path(), error))? else { return Ok(None) };
    let transport =
        CaTransport::new(origin).map_err(|error| AcmeOrderError::Answer(format!("TLS_ACME_CA: {error}")))?;
    Ok(Some((lock, transport)))
}
