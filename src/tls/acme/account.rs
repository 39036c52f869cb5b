//! The account at the CA: opened once, and kept with its key in `DATA_DIR`.

use std::fs;
use std::io;
use std::sync::Arc;

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, Key, NewAccount};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::failure::AcmeOrderError;
use super::origin::{AcmeOrigin, SETTING};
use super::transport::CaTransport;
use crate::tls::error::{CertificateError, CertificateFault};
use crate::tls::pem_file;

/// What the file of the account holds. Not `Debug`, because the key is in it.
#[derive(Serialize, Deserialize)]
struct KeptAccount {
    /// The addresses that the CA knows.
    contacts: Vec<String>,
    /// The address of the account and its key.
    credentials: Value,
}

/// Returns the account that is kept, or opens one and keeps it. Tells the CA if the contacts have changed. For the owner of the
/// lock of orders only.
///
/// # Errors
/// The CA refuses it, or the file cannot be read or written.
pub(super) async fn open_account(origin: &Arc<AcmeOrigin>, transport: CaTransport) -> Result<Account, AcmeOrderError> {
    let Some(KeptAccount { contacts, credentials }) = in_background(origin, read).await? else {
        return opened(origin, transport).await;
    };
    let account = restored(credentials.clone(), transport).await?;
    if contacts != origin.contacts {
        let contacts: Vec<&str> = origin.contacts.iter().map(String::as_str).collect();
        match account.update_contacts(&contacts).await.map_err(AcmeOrderError::from) {
            Ok(()) => write(origin, credentials).await?,
            // The order needs none. They are told with the next one again.
            Err(error) => warn!("TLS_ACME_CONTACT: the CA does not take these addresses: {error}"),
        }
    }
    Ok(account)
}

/// Returns the account that is kept; `None` if there is none. Changes nothing.
///
/// # Errors
/// As [`open_account`].
pub(super) async fn kept_account(
    origin: &Arc<AcmeOrigin>,
    transport: CaTransport,
) -> Result<Option<Account>, AcmeOrderError> {
    match in_background(origin, read).await? {
        Some(kept) => restored(kept.credentials, transport).await.map(Some),
        None => Ok(None),
    }
}

/// Forgets the account that is kept: the CA knows it no longer.
///
/// # Errors
/// The file cannot be removed.
pub(super) async fn forget_account(origin: &Arc<AcmeOrigin>) -> Result<(), AcmeOrderError> {
    warn!("the CA knows the account of before no longer: another one is opened");
    in_background(origin, |origin| {
        let path = origin.account_file();
        fs::remove_file(&path)
            .map_err(|error| CertificateError::new(SETTING, &path, CertificateFault::Unwritable(error)))
    })
    .await
}

async fn restored(credentials: Value, transport: CaTransport) -> Result<Account, AcmeOrderError> {
    let credentials = serde_json::from_value::<AccountCredentials>(credentials);
    let credentials =
        credentials.map_err(|_| AcmeOrderError::NotMade("the account that is kept is damaged".to_owned()))?;
    Ok(Account::builder_with_http(Box::new(transport)).from_credentials(credentials).await?)
}

async fn opened(origin: &Arc<AcmeOrigin>, transport: CaTransport) -> Result<Account, AcmeOrderError> {
    let contacts: Vec<&str> = origin.contacts.iter().map(String::as_str).collect();
    // The settings are refused without the consent of the operator.
    let wanted = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
    let binding = origin.binding.as_ref().map(|(name, key)| ExternalAccountKey::new(name.clone(), &key.reveal()));
    let builder = Account::builder_with_http(Box::new(transport));
    let address = origin.directory.0.to_string();
    let (account, credentials) = builder.create(&wanted, address, binding.as_ref()).await?;
    let credentials = serde_json::to_value(&credentials).map_err(|error| AcmeOrderError::NotMade(error.to_string()))?;
    write(origin, credentials).await?;
    info!(ca = origin.directory.host(), "an account has been opened at the CA");
    Ok(account)
}

/// Reads the file of the account. One that is no account any more is replaced.
fn read(origin: &AcmeOrigin) -> Result<Option<KeptAccount>, CertificateError> {
    let path = origin.account_file();
    let bytes = match pem_file::read(SETTING, &path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing_file() => return Ok(None),
        Err(error) => return Err(error),
    };
    let kept = serde_json::from_slice::<KeptAccount>(&bytes).ok();
    let usable = kept.filter(|kept| is_usable(&kept.credentials, origin));
    if usable.is_none() {
        warn!("the account that is kept is damaged: another one is opened");
    }
    Ok(usable)
}

/// Returns whether these are the address and the key of an account at this CA.
fn is_usable(credentials: &Value, origin: &AcmeOrigin) -> bool {
    let is_of_this_ca = credentials["directory"].as_str() == Some(origin.directory.0.as_str());
    let parsed = serde_json::from_value::<AccountCredentials>(credentials.clone());
    is_of_this_ca && parsed.is_ok_and(|parsed| Key::from_pkcs8_der(parsed.private_key().clone_key()).is_ok())
}

async fn write(origin: &Arc<AcmeOrigin>, credentials: Value) -> Result<(), AcmeOrderError> {
    let contacts = origin.contacts.clone();
    in_background(origin, move |origin| {
        let path = origin.account_file();
        let text = serde_json::to_string(&KeptAccount { contacts, credentials }).map_err(io::Error::other);
        let written = text.and_then(|text| pem_file::replace(&path, &text, 0o600));
        written.map_err(|error| CertificateError::new(SETTING, &path, CertificateFault::Unwritable(error)))
    })
    .await
}

/// Runs what waits for the disk on a blocking thread.
async fn in_background<T: Send + 'static>(
    origin: &Arc<AcmeOrigin>,
    work: impl FnOnce(&AcmeOrigin) -> Result<T, CertificateError> + Send + 'static,
) -> Result<T, AcmeOrderError> {
    let origin = Arc::clone(origin);
    let done = spawn_blocking(move || work(&origin)).await;
    Ok(done.map_err(|error| AcmeOrderError::NotMade(error.to_string()))??)
}
