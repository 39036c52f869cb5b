//! What the gateway tells about itself: [`metrics`], the [`access`] log, its own [`log`], and the log [`files`].

pub mod access;
mod batch;
pub mod files;
pub mod log;
pub mod metrics;
pub mod series;
