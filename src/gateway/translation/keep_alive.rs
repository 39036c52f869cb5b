//! How long a model stays loaded, as a request of Ollama's API says. What the times mean to a model is decided in `fleet`.

use std::sync::Arc;

use crate::dialect::ollama::KeepAlive;
use crate::fleet::{IdleTime, Model};

/// Applies what a request says when it is dropped, because the time counts from the end of the response.
pub(in crate::gateway) struct KeptAlive {
    pub(in crate::gateway) model: Arc<Model>,
    pub(in crate::gateway) time: KeepAlive,
}

impl KeptAlive {
    /// Applies it to the local workers of the model.
    pub(super) fn apply(model: &Model, time: KeepAlive) {
        match time {
            // What an administrator has pinned is not for every client to unload.
            KeepAlive::Unload if model.is_remote() || model.pin().outlasts_idle_time() => {}
            KeepAlive::Unload => {
                model.unload();
            }
            KeepAlive::For(time) => model.set_idle_time(IdleTime::For(time)),
            KeepAlive::Forever => model.set_idle_time(IdleTime::Forever),
        }
    }
}

impl Drop for KeptAlive {
    fn drop(&mut self) {
        Self::apply(&self.model, self.time);
    }
}
