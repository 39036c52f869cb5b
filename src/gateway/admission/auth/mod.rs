//! Authentication and authorization: whose request it is, and what its key allows.
//!
//! - `authenticator.rs`: finds the key of a request

mod authenticator;

pub use authenticator::Authenticator;
pub(crate) use authenticator::{Caller, KeyUse, RequestSource};
