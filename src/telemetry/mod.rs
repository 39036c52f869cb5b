//! What the gateway tells about itself: [`metrics`], the [`access`] log, its own [`log`], the log [`files`], and
//! [`trouble`] that would otherwise fill them.
//!
//! - `access.rs`: the access log: one line per request
//! - `log_batch.rs`: log lines, collected so that their writer wakes once for many
//! - `bounds.rs`: waits, queues and buffers whose size no user needs to choose
//! - `files/`: log folders and the files in them
//! - `labels.rs`: the labels of metrics
//! - `log.rs`: the program's own log
//! - `metrics.rs`: every metric by name
//! - `series.rs`: the series of one model and of one key, looked up once
//! - `throttled_warning.rs`: warnings that repeat: counted each time, logged once in a while

pub mod access;
pub mod bounds;
pub mod files;
mod labels;
pub mod log;
mod log_batch;
pub mod metrics;
pub mod series;
pub mod throttled_warning;
