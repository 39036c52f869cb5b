//! What the gateway tells about itself: so far, log files.

pub mod files;
