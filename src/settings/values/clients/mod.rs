//! Settings about clients: where they come from, and the one key that needs no file.
//!
//! - `host_names.rs`: `UI_HOSTS`
//! - `networks.rs`: `TRUSTED_PROXIES`
//! - `origins.rs`: `CORS_ORIGINS`
//! - `service_key.rs`: `LLAMAGATE_API_KEY`

mod host_names;
mod networks;
mod origins;
mod service_key;

pub use host_names::HostNames;
pub use networks::Networks;
pub use origins::Origins;
pub use service_key::ServiceKey;
pub(super) use service_key::is_placeholder;
