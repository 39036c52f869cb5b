//! `GET /v1/models` from memory: which models a caller may use, where llama-server is not to be asked.
//!
//! It has no file and no process to look at, so nobody wakes a model by asking what there is.

use super::body::Answer;
use super::record::Record;
use crate::fleet::Model;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

/// What does not change of the list as long as the service runs.
pub(super) struct Listing {
    /// Seconds since 1970: the models are as old as the service.
    created: i64,
}

impl Listing {
    /// A list of models that are there from now on.
    pub(super) fn begin() -> Self {
        Self { created: jiff::Timestamp::now().as_second() }
    }

    /// The list of these models, in OpenAI's form.
    pub(super) fn answer<'a>(
        &self,
        models: impl IntoIterator<Item = &'a Model>,
        mut record: Record,
    ) -> Response<Answer> {
        let entries: Vec<Value> = models.into_iter().map(|model| self.entry(&model.id)).collect();
        let body = json!({"object": "list", "data": entries}).to_string();
        record.status = Some(StatusCode::OK);
        let mut response = Response::new(Answer::own(Bytes::from(body), record));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    fn entry(&self, id: &str) -> Value {
        json!({"id": id, "object": "model", "created": self.created, "owned_by": "llamagate"})
    }
}
