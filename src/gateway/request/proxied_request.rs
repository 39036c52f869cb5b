//! A request as it is sent to one worker after the other: what it asks for, and how each wants to be asked.

use super::body::RequestBody;
use super::envelope::{self, Envelope};
use super::rewrite::{Edit, rewrite_body};
use crate::fleet::{Fingerprint, Lease, Model, RequestClass, WorkerKind};
use crate::gateway::queue::model_queues::{ModelQueue, Snapshot};
use crate::gateway::route::Route;
use crate::models::ModelKind;
use crate::refusal::Refusal;
use crate::settings::values::Strategy;
use http::request::Parts;
use http::{HeaderValue, Method};
use std::borrow::Cow;
use std::hash::RandomState;
use std::sync::Arc;

/// What a client asks for.
pub(crate) struct ProxiedRequest {
    pub(crate) route: &'static Route,
    /// What the model has to be for.
    pub(crate) required_kind: Option<ModelKind>,
    pub(crate) parts: Parts,
    pub(crate) request_id: HeaderValue,
    /// The model's name, as the client says it.
    pub(crate) requested_model: Option<String>,
    pub(crate) envelope: Envelope,
    pub(crate) body: RequestBody,
}

impl ProxiedRequest {
    /// What is asked for, as a number.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.body.fingerprint()
    }

    /// A body in which another reader may see another model than this one goes to nobody who serves more than one.
    pub(crate) fn check_readable(&self, table: &Snapshot) -> Result<(), Refusal> {
        let is_own = |lane: &Arc<ModelQueue>| lane.model.members().all(|member| member.kind == WorkerKind::Local);
        match self.envelope.is_readable() || !self.route.is_post || table.only().is_some_and(is_own) {
            true => Ok(()),
            false => Err(Refusal::bad_request("the body is no JSON object")),
        }
    }

    /// The same refusal; where no model is named, it says why, or where one would be.
    pub(crate) fn explain_refusal(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::ModelNotFound { name: None, .. } if self.envelope.has_invalid_model() => {
                Refusal::bad_request("model must be a string")
            }
            Refusal::ModelNotFound { name: None, known, .. } if !self.route.is_post => {
                Refusal::ModelNotFound { name: None, known, in_query: true }
            }
            other => other,
        }
    }

    /// What a worker is to do.
    pub(crate) fn request_class(&self) -> RequestClass {
        if self.route.is_post { RequestClass::Inference(self.body.fingerprint()) } else { RequestClass::ReadOnly }
    }

    /// By what a worker is known that has served the same beginning of a prompt for the same key, where that matters.
    pub(crate) fn affinity(&self, model: &Model, seed: &RandomState, key_id: Option<&str>) -> Vec<u64> {
        match model.policy().strategy {
            Strategy::PrefixAffinity => self.envelope.prefix_hashes(&self.body, seed, key_id.unwrap_or_default()),
            _ => Vec::new(),
        }
    }

    /// The head to send. After the last there is none left.
    pub(crate) fn head_to_send(&mut self, is_last: bool) -> Parts {
        if !is_last {
            return self.parts.clone();
        }
        let (mut parts, ()) = http::Request::new(()).into_parts();
        std::mem::swap(&mut parts, &mut self.parts);
        parts
    }

    /// The body for this worker, and the model's name as its answer has to say it, where it may say another. After the
    /// last there is no body left.
    pub(crate) fn adapt_to_worker(
        &mut self,
        model: &Model,
        lease: &Lease,
        is_last: bool,
    ) -> (Option<String>, RequestBody) {
        let terms = model.policy();
        let ours = self.requested_model.as_deref().unwrap_or(model.id());
        let theirs = lease.endpoint().target.model.as_deref().unwrap_or(model.id());
        // Our llama-servers have one model, whatever a request calls it, and call it by its id. Others may call it what
        // they like, such as by the path of its file.
        let is_own = lease.member().kind == WorkerKind::Local;
        let name = (!is_own || theirs != ours).then(|| ours.to_owned());
        let is_renamed = !is_own && (theirs != ours || self.requested_model.is_none());
        let edit = Edit {
            model: (is_renamed && self.route.is_post).then_some(theirs),
            sampling: if self.route.may_stream { &terms.rewrite.sampling } else { &[] },
            strip: &terms.rewrite.strip_params,
        };
        let body = match (edit.is_empty(), is_last) {
            (false, _) => rewrite_body(&self.body, &self.envelope, &edit),
            (true, false) => self.body.duplicate(),
            (true, true) => std::mem::take(&mut self.body),
        };
        (name, body)
    }
}

/// The model that a request names: in its body, or in the query of one that has none.
pub(crate) fn requested_model<'a>(envelope: &'a Envelope, parts: &Parts) -> Result<Option<Cow<'a, str>>, Refusal> {
    match (envelope.model(), parts.uri.query()) {
        (Some(model), _) => Ok(Some(Cow::Borrowed(model))),
        (None, Some(query)) if parts.method != Method::POST => Ok(envelope::model_of_query(query)?.map(Cow::Owned)),
        (None, _) => Ok(None),
    }
}
