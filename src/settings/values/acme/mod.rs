//! Settings about certificates that a CA issues by ACME (RFC 8555).
//!
//! - `account.rs`: `TLS_ACME_CONTACT` and `TLS_ACME_EAB_HMAC_KEY`
//! - `directory.rs`: `TLS_ACME_DIRECTORY`
//! - `domains.rs`: `TLS_ACME_DOMAINS`

mod account;
mod directory;
mod domains;

pub use account::{AcmeBindingKey, AcmeContacts};
pub use directory::{AcmeDirectory, is_of_this_machine};
pub use domains::AcmeDomains;
