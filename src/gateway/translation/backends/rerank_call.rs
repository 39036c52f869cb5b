//! A call for scores, as it is written for the worker that gets it.

use std::sync::Arc;

use super::super::shared::refusal_of;
use super::apis::rerank_dialect;
use crate::dialect::rerank::{RerankRequest, WorkerRerankRequest};
use crate::gateway::request::worker_call::{WriteCall, WrittenCall};
use crate::refusal::Refusal;
use crate::settings::values::BackendApi;

/// A call for the scores of some documents of a request, which share their query.
pub(in crate::gateway::translation) struct RerankCallBody {
    pub(in crate::gateway::translation) request: Arc<RerankRequest>,
    /// The places of the documents in the request.
    pub(in crate::gateway::translation) places: Vec<usize>,
    /// The documents that were cut, at their places in `places`.
    pub(in crate::gateway::translation) cut: Vec<Option<String>>,
    /// Whether all documents are known to fit.
    pub(in crate::gateway::translation) is_cut: bool,
}

impl WriteCall for RerankCallBody {
    fn check_api(&self, api: BackendApi) -> Result<(), Refusal> {
        rerank_dialect(api)?.check(&self.worker_request("", &[]), self.is_cut).map_err(refusal_of)
    }

    fn write(&self, api: BackendApi, model: &str) -> Result<WrittenCall, Refusal> {
        self.check_api(api)?;
        let (dialect, request) = (rerank_dialect(api)?, &*self.request);
        let given = self.places.iter().map(|at| &request.documents[*at]);
        let documents: Vec<&str> =
            given.zip(&self.cut).map(|(given, cut)| cut.as_deref().unwrap_or(&given.text)).collect();
        let call = self.worker_request(model, &documents);
        Ok(WrittenCall { path: dialect.path(), text: dialect.write_request(&call) })
    }
}

impl RerankCallBody {
    /// Returns what a worker is asked that knows the model by this name.
    fn worker_request<'a>(&'a self, model: &'a str, documents: &'a [&'a str]) -> WorkerRerankRequest<'a> {
        let request = &*self.request;
        let own_query = self.places.first().and_then(|at| request.documents[*at].query.as_deref());
        WorkerRerankRequest {
            model,
            query: own_query.unwrap_or(&request.query),
            documents,
            cut: request.cut,
            wants_raw_scores: request.wants_raw_scores,
            instruction: request.instruction.as_deref(),
        }
    }
}
