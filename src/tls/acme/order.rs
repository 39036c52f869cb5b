//! One order: from the names to the certificate.

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error as AcmeError, Identifier, NewOrder,
    Order, OrderStatus, Problem, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tracing::debug;

use super::bounds::{FIRST_POLL, POLL_TIMEOUT};
use super::challenge::{Challenges, ShownChallenge};
use super::failure::AcmeOrderError;

/// How often an order is asked for its state.
const POLLING: RetryPolicy = RetryPolicy::new().initial_delay(FIRST_POLL).backoff(1.5).timeout(POLL_TIMEOUT);

/// What a CA has issued, and the key that was made for it. Not checked yet. Not `Debug`, because of the key.
pub(super) struct IssuedText {
    /// The certificate and its chain in PEM.
    pub(super) chain: String,
    /// The key in DER.
    pub(super) key: Vec<u8>,
}

/// Orders a certificate for these names, in place of the one that is `replaced`. The challenges are shown until it is there.
///
/// # Errors
/// The CA refuses the order, cannot validate a name, or does not answer.
pub(super) async fn order_certificate(
    account: &Account,
    domains: &[String],
    replaced: Option<CertificateIdentifier<'static>>,
    challenges: &Challenges,
) -> Result<IssuedText, AcmeOrderError> {
    let identifiers: Vec<Identifier> = domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = new_order(account, &identifiers, replaced).await?;
    let _shown = answer_challenges(&mut order, challenges).await?;
    match order.poll_ready(&POLLING).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => return Err(why_invalid(&mut order, None).await),
        Err(AcmeError::Api(problem)) => return Err(why_invalid(&mut order, Some(problem)).await),
        Err(error) => return Err(error.into()),
    }
    // A new key each time: one that was seen by others serves no longer than its certificate.
    let key = KeyPair::generate().map_err(not_made)?;
    let mut params = CertificateParams::new(domains).map_err(not_made)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(not_made)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&POLLING).await?;
    Ok(IssuedText { chain, key: key.serialize_der() })
}

/// Begins an order. If the CA does not take it as one that replaces a certificate, it is an order like the first one.
async fn new_order(
    account: &Account,
    identifiers: &[Identifier],
    replaced: Option<CertificateIdentifier<'static>>,
) -> Result<Order, AcmeOrderError> {
    let plain = NewOrder::new(identifiers);
    let Some(replaced) = replaced else { return Ok(account.new_order(&plain).await?) };
    match account.new_order(&NewOrder::new(identifiers).replaces(replaced)).await.map_err(AcmeOrderError::from) {
        Err(error) if !error.is_about_any_order() => {
            debug!(%error, "the CA takes no order that replaces the certificate");
            Ok(account.new_order(&plain).await?)
        }
        outcome => outcome,
    }
}

/// Shows the challenge of each name that is not validated yet, and tells the CA to look.
async fn answer_challenges(order: &mut Order, challenges: &Challenges) -> Result<Vec<ShownChallenge>, AcmeOrderError> {
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let challenge = authorization.challenge(ChallengeType::TlsAlpn01);
        let mut challenge = challenge.ok_or_else(|| AcmeOrderError::NoChallenge(name.clone()))?;
        let digest = challenge.key_authorization().digest();
        shown.push(challenges.show(&name, digest.as_ref()).map_err(AcmeOrderError::NotMade)?);
        challenge.set_ready().await?;
    }
    Ok(shown)
}

/// Returns why an order is not ready: what the CA says of the first name that it could not validate, else `problem`.
async fn why_invalid(order: &mut Order, problem: Option<Problem>) -> AcmeOrderError {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            break;
        }
        let found = authorization.challenges.iter().find_map(|challenge| challenge.error.clone());
        if let Some(problem) = found {
            return AcmeOrderError::NotValidated { name: authorization.identifier().to_string(), problem };
        }
    }
    problem.map_or(AcmeOrderError::GivenUp, AcmeOrderError::Refused)
}

fn not_made(error: rcgen::Error) -> AcmeOrderError {
    AcmeOrderError::NotMade(error.to_string())
}
