//! Reloads: what is read again while the service runs, and when.
//!
//! - `reloader.rs`: reads configuration and keys again, all or nothing
//! - `shelf_watch.rs`: scans the models folder when a request or a failed load asks for it

pub(super) mod reloader;
pub(super) mod shelf_watch;
