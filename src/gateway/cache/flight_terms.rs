//! What the answer of a flight is to, and whether an answer is that.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::key::CacheKey;
use crate::fleet::{Model, ModelRevision};
use crate::gateway::content_kind::ContentKind;
use crate::gateway::upstream::retry::X_LLAMAGATE_MODEL;

/// What the answer of a flight is to.
pub(super) struct FlightTerms {
    pub(super) key: CacheKey,
    pub(super) model: Arc<Model>,
    /// Which form of the model the key means.
    pub(super) revision: ModelRevision,
    /// Whether the answer is to be a stream.
    pub(super) is_stream: bool,
}

impl FlightTerms {
    /// Returns whether the model is still the one that the key means.
    pub(super) fn is_current(&self) -> bool {
        self.model.revision() == self.revision
    }

    /// Returns whether this answer may be given to others: the model that was asked for has given it, whole or as the
    /// stream that was asked for.
    pub(super) fn fit<B>(&self, response: &Response<B>) -> bool {
        let model = response.headers().get(X_LLAMAGATE_MODEL).map(|id| id.as_bytes());
        response.status() == StatusCode::OK
            && (ContentKind::of_type(response.headers()) == ContentKind::Stream) == self.is_stream
            && model == Some(self.model.id().as_bytes())
    }
}
