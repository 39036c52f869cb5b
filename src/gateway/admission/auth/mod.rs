//! Authentication and authorization: whose request it is, and what its key allows.
//!
//! - `authenticator.rs`: finds the key of a request
//! - `authorization.rs`: the scopes and models that a key allows
//! - `caller.rs`: the authenticated sender of a request

mod authenticator;
mod authorization;
mod caller;

pub use authenticator::Authenticator;
pub(crate) use authenticator::RequestSource;
pub(crate) use caller::Caller;
