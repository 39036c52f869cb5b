//! When the CA would have a certificate renewed (ACME Renewal Information, RFC 9773): it may have to revoke many at once, or
//! be busy.

use std::sync::Arc;

use instant_acme::{CertificateIdentifier, RenewalInfo};
use jiff::{SignedDuration, Timestamp};
use tokio::task::spawn_blocking;
use tracing::debug;

use super::account::kept_account;
use super::bounds::ADVICE_WAITS;
use super::failure::AcmeOrderError;
use super::origin::{AcmeOrigin, SETTING};
use super::transport::CaTransport;
use crate::tls::leaf::LeafFacts;
use crate::tls::pair::parse_certificates;
use crate::tls::pem_file;

/// What the CA says about the renewal of one certificate.
#[derive(Debug, Default)]
pub(super) struct RenewalAdvice {
    /// The SHA-256 of the certificate.
    fingerprint: [u8; 32],
    /// When the CA is asked again; `None` if it was never asked.
    ask_again: Option<Timestamp>,
    /// The moment of the CA's window at which the certificate is renewed.
    renewal: Option<Timestamp>,
    /// The certificate as orders name it that replace it; `None` if the CA does not know such orders.
    certificate: Option<CertificateIdentifier<'static>>,
}

impl RenewalAdvice {
    /// Returns when the CA would have this certificate renewed; `None` if it has said nothing about this one.
    pub(super) fn renewal_of(&self, leaf: &LeafFacts) -> Option<Timestamp> {
        self.renewal.filter(|_| self.fingerprint == leaf.fingerprint)
    }

    /// Returns this certificate as orders name it that replace it; `None` if the CA does not know such orders.
    pub(super) fn identifier_of(&self, leaf: &LeafFacts) -> Option<CertificateIdentifier<'static>> {
        self.certificate.clone().filter(|_| self.fingerprint == leaf.fingerprint)
    }

    /// Asks the CA about this certificate, unless it has been asked a short time ago. No answer is no failure.
    pub(super) async fn refresh(&mut self, origin: &Arc<AcmeOrigin>, leaf: &LeafFacts, now: Timestamp) {
        if self.fingerprint != leaf.fingerprint {
            *self = Self { fingerprint: leaf.fingerprint, ..Self::default() };
        }
        if self.ask_again.is_some_and(|at| now < at) {
            return;
        }
        let (shortest, longest) = ADVICE_WAITS;
        let wait = match ask(origin, leaf.fingerprint).await {
            Ok(Some((certificate, info, wait))) => {
                // The end of a window that begins at no time before is the same for each service that asks.
                let window = (info.suggested_window.start.unix_timestamp(), info.suggested_window.end.unix_timestamp());
                self.renewal = random_moment(window, now);
                self.certificate = Some(certificate);
                wait.clamp(shortest, longest)
            }
            Ok(None) => longest,
            Err(error) => {
                debug!(%error, "the CA does not say when the certificate should be renewed");
                longest
            }
        };
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::ZERO);
        self.ask_again = now.checked_add(wait).ok();
    }
}

type Answer = (CertificateIdentifier<'static>, RenewalInfo, std::time::Duration);

async fn ask(origin: &Arc<AcmeOrigin>, fingerprint: [u8; 32]) -> Result<Option<Answer>, AcmeOrderError> {
    let of_files = Arc::clone(origin);
    let read = spawn_blocking(move || -> Result<_, AcmeOrderError> {
        let bytes = pem_file::read(SETTING, of_files.pair_file())?;
        let chain = parse_certificates(&bytes).map_err(|fault| AcmeOrderError::Unusable(fault.to_string()))?;
        let transport = CaTransport::new(&of_files).map_err(|error| AcmeOrderError::Answer(error.to_string()))?;
        Ok((chain, transport))
    });
    let (chain, transport) = read.await.map_err(|error| AcmeOrderError::NotMade(error.to_string()))??;
    let Some(leaf) = chain.first() else { return Ok(None) };
    // Another process may have written the file since it was looked at.
    if LeafFacts::read(leaf).is_none_or(|facts| facts.fingerprint != fingerprint) {
        return Ok(None);
    }
    let Ok(certificate) = CertificateIdentifier::try_from(leaf) else { return Ok(None) };
    let certificate = certificate.into_owned();
    let Some(account) = kept_account(origin, transport).await? else { return Ok(None) };
    let (info, wait) = account.renewal_info(&certificate).await?;
    Ok(Some((certificate, info, wait)))
}

/// Returns a random moment of this window, in seconds since 1970; `now` if the window is over.
fn random_moment((start, end): (i64, i64), now: Timestamp) -> Option<Timestamp> {
    let span = end.checked_sub(start).filter(|span| *span >= 0)?;
    if end <= now.as_second() {
        return Some(now);
    }
    let random = f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX);
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "some seconds more or less")]
    let offset = (span as f64 * random) as i64;
    Timestamp::from_second(start.checked_add(offset)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: advice about the certificate of before made the next one due as soon as it was there.
    #[test]
    fn advice_counts_for_its_own_certificate_only() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let leaf = |byte| LeafFacts { begins: at(0), expires: at(9000), fingerprint: [byte; 32], names: Vec::new() };
        let advice = RenewalAdvice { fingerprint: [1; 32], renewal: Some(at(500)), ..RenewalAdvice::default() };
        assert_eq!(advice.renewal_of(&leaf(1)), Some(at(500)));
        assert_eq!(advice.renewal_of(&leaf(2)), None);
    }

    #[test]
    fn the_moment_is_in_the_window_and_now_if_that_is_over() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for _ in 0..100 {
            let moment = random_moment((1000, 2000), at(500)).unwrap().as_second();
            assert!((1000..=2000).contains(&moment));
        }
        assert_eq!(random_moment((1000, 2000), at(3000)), Some(at(3000)));
        assert_eq!(random_moment((1000, 1000), at(500)), Some(at(1000)));
        assert_eq!(random_moment((2000, 1000), at(500)), None);
        assert_eq!(random_moment((i64::MIN, i64::MAX), at(500)), None);
    }
}
