//! What served a call, as an extension of the response to it.

use std::sync::Arc;

use crate::fleet::{Member, Model};

/// The model and the worker that served a call.
#[derive(Clone)]
pub(crate) struct ServedBy {
    pub(crate) model: Arc<Model>,
    pub(crate) member: Arc<Member>,
}
