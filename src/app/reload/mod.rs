//! Reloads: what is read again while the service runs, and when.
//!
//! - `config_watch.rs`: follows the configuration file and the files that it includes
//! - `reloader.rs`: reads configuration and keys again, all or nothing
//! - `served_file.rs`: the files that a served model is served from
//! - `shelf_watch.rs`: scans the models folder when a request, a failed load or a download asks for it

pub(super) mod config_watch;
pub(super) mod reloader;
pub(super) mod served_file;
pub(super) mod shelf_watch;
