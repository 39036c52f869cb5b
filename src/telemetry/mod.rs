//! What the gateway tells about itself: [`metrics`], the [`access`] log, its own [`log`], the log [`files`], and
//! [`trouble`] that would otherwise fill them.

pub mod access;
mod batch;
pub mod bounds;
pub mod files;
mod labels;
pub mod log;
pub mod metrics;
pub mod series;
pub mod trouble;
