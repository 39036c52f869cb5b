//! Logs and metrics of the gateway: [`metrics`], the [`access`] log, its own [`log`], log [`files`], and warnings that
//! are throttled ([`throttled_warning`]).
//!
//! - `access/`: the access log, one line per request
//! - `bounds.rs`: waits, queues and buffers whose size no user needs to choose
//! - `counting.rs`: counts a finished request in the series that it belongs to
//! - `files/`: log folders and the files in them
//! - `labels.rs`: the labels of the metrics
//! - `log.rs`: the program's own log
//! - `live_counts.rs`: what the models have done so far, for those who look
//! - `metrics.rs`: every metric by name
//! - `occupancy.rs`: how occupied each model is, for those who choose between several services
//! - `recent_work.rs`: what requests have done in the last quarter of an hour
//! - `series.rs`: the time series of a model or a key, looked up once
//! - `series_list.rs`: series that were looked up before, found again without a lock
//! - `throttled_warning.rs`: repeated warnings, counted each time and logged at most once a minute
//! - `warnings.rs`: what works worse than it should, as `/health` shows it

pub mod access;
pub mod bounds;
mod counting;
pub mod files;
mod labels;
pub mod live_counts;
pub mod log;
pub mod metrics;
pub mod occupancy;
pub mod recent_work;
pub mod series;
mod series_list;
pub mod throttled_warning;
pub mod warnings;
