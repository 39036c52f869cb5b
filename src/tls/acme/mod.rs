//! A certificate that a CA issues by ACME (RFC 8555), proven by TLS-ALPN-01 (RFC 8737) on the port that shows it.
//!
//! Owns the account at the CA, the orders, the certificates of challenges, when the certificate is renewed, and what of it
//! is kept in `DATA_DIR`. The certificate in use belongs to `store.rs`, which reads it like any other file.
//!
//! - `account.rs`: the account at the CA, and the file that its key is kept in
//! - `advice.rs`: when the CA would have a certificate renewed
//! - `bounds.rs`: waits and sizes
//! - `challenge.rs`: what is shown to a CA that looks whether a name leads here
//! - `failure.rs`: why an order brought no certificate
//! - `issued.rs`: what a CA has issued, checked before it is kept
//! - `order.rs`: one order, from the names to the certificate
//! - `origin.rs`: which CA, which names, which files
//! - `renewal.rs`: the task that orders when a certificate is missing or due
//! - `schedule.rs`: when a certificate is due, and how long to wait after a failure
//! - `transport.rs`: requests to the CA

mod account;
mod advice;
mod bounds;
pub(super) mod challenge;
mod failure;
mod issued;
mod order;
pub(super) mod origin;
pub(super) mod renewal;
pub(super) mod schedule;
mod transport;
