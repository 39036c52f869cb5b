//! TLS for clients: the certificate of this service, where it comes from, and how it is followed while the service runs.
//!
//! Owns the files, the checks of a pair before it is used, and the configuration that handshakes are made with. Handshakes
//! themselves are made in `gateway/connection`; TLS to backends belongs to `dial`.
//!
//! - `acme/`: a certificate that a CA issues by ACME
//! - `authorities.rs`: files of authorities, such as those whose certificates clients must have
//! - `bounds.rs`: waits, sizes and lifetimes
//! - `error.rs`: what is wrong with a file
//! - `leaf.rs`: what a certificate says of itself
//! - `pair.rs`: a certificate with its chain and its key
//! - `pem_file.rs`: files in PEM
//! - `self_signed.rs`: a certificate that the service makes for itself
//! - `source.rs`: where the certificate comes from
//! - `store.rs`: the certificate in use, which is replaced as its files are

mod acme;
mod authorities;
mod bounds;
mod error;
mod leaf;
mod pair;
mod pem_file;
mod self_signed;
mod source;
mod store;

pub use acme::renewal::CertificateRenewal;
pub use bounds::{HANDSHAKE_TIMEOUT, HANDSHAKE_TURN, LOOK_INTERVAL};
pub use error::CertificateError;
pub use leaf::{LeafFacts, client_name};
#[cfg(feature = "test-support")]
pub(crate) use pair::certificates_in;
pub use source::CertificateSource;
pub use store::CertificateStore;
