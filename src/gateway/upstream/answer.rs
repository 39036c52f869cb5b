//! Makes the client's response of the worker's.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Response, Version, response};

use super::attempt::Attempt;
use super::retry::Retry;
use crate::fleet::WorkerKind;
use crate::gateway::content_kind::ContentKind;
use crate::gateway::headers;
use crate::gateway::request::answer_facts::AnswerFacts;
use crate::gateway::response::body::ResponseBody;
use crate::gateway::response::in_progress::{ResponseTimeouts, UpstreamAnswer};
use crate::gateway::response::line_stream::LineForm;
use crate::gateway::response::mend::WholeMend;
use crate::gateway::response::rename::{ModelRenamer, RenamedBody};
use crate::gateway::response::served_by::ServedBy;
use crate::gateway::response::stall_sweeper::StallSweeper;
use crate::gateway::response::upstream_body::UpstreamBody;
use crate::gateway::routes::route::Route;

/// What shapes the answer of an attempt.
pub(super) struct AnswerPlan<'a> {
    /// The route as the worker has it.
    pub(super) route: &'static Route,
    pub(super) client_model_name: Option<&'a str>,
    pub(super) hides_usage: bool,
    pub(super) facts: AnswerFacts,
    pub(super) lines: Option<LineForm>,
    pub(super) is_call: bool,
    /// `STREAM_IDLE_TIMEOUT`
    pub(super) stream_idle_timeout: Duration,
    pub(super) sweeper: &'a Arc<StallSweeper>,
}

/// Makes the client's response of the worker's: its headers, and the body that goes on with everything that the
/// attempt holds.
pub(super) fn pass_on(
    mut head: response::Parts,
    upstream: UpstreamBody,
    plan: AnswerPlan<'_>,
    attempt: Box<Attempt>,
    retry: &Retry,
) -> Response<ResponseBody> {
    let AnswerPlan { route, client_model_name, hides_usage, facts, lines, is_call, .. } = plan;
    let Attempt { caller, ticket, lease, mut record, deadline } = *attempt;
    headers::prepare_for_client(&mut head.headers, lease.endpoint().target.is_remote);
    head.version = Version::default();
    let kind = ContentKind::of(&head.headers);
    let idle_timeout = (kind == ContentKind::Stream).then_some(plan.stream_idle_timeout);
    let timeouts = ResponseTimeouts { deadline, idle_timeout, sweeper: plan.sweeper };
    let renamer = client_model_name.and_then(|name| ModelRenamer::prepare(&mut head.headers, name));
    let body = RenamedBody::new(upstream, renamer);
    let is_local = lease.member().kind == WorkerKind::Local;
    let may_mend = is_local && kind == ContentKind::Json && head.status.is_success();
    let whole_mend = may_mend.then(|| WholeMend::of(route, &facts)).flatten();
    if whole_mend.is_some() {
        head.headers.remove(CONTENT_LENGTH);
    }
    let lines = lines.filter(|_| kind == ContentKind::Stream && head.status.is_success());
    if lines.is_some() {
        headers::describe_lines(&mut head.headers);
    }
    record.set_response(head.status, route, kind, lease.member().kind);
    record.worker = Some(Arc::clone(lease.member()));
    retry.insert_headers(&mut head.headers);
    if is_call {
        let model = Arc::clone(&retry.model_queue().model);
        head.extensions.insert(ServedBy { model, member: Arc::clone(lease.member()) });
    }
    let response = UpstreamAnswer {
        status: head.status,
        body,
        route,
        hides_usage,
        facts,
        whole_mend,
        lines,
        timeouts,
        caller,
        record,
        ticket,
        lease,
    };
    Response::from_parts(head, ResponseBody::proxied(response))
}
