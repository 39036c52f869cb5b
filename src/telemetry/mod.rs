//! What the gateway tells about itself. [`files`] owns the log folders.

pub mod files;
