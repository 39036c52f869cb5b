//! Chats and completions of Ollama's clients: one call in OpenAI's API, whose answer is written as lines, whole or while
//! it comes.

use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use super::backends::TokenCall;
use super::calls::{AnswerBytes, CallBody, CallSender, Calls, error_of, read_answer};
use super::keep_alive::KeptAlive;
use super::shared::{call_route, refusal_of};
use crate::dialect::ollama::{self, AnswerWriter, KeepAlive, OllamaRequest};
use crate::gateway::headers::JSON_LINES;
use crate::gateway::response::body::ResponseBody;
use crate::gateway::response::line_stream::{LineForm, moment_since};
use crate::gateway::routes::route::Route;
use crate::refusal::{Refusal, Shape};

/// A chat or a completion.
pub(crate) struct OllamaTranslation {
    request: OllamaRequest,
    started: Instant,
}

/// The call whose answer is passed on as a stream of lines.
pub(crate) struct StreamedCall {
    pub(crate) route: &'static Route,
    pub(crate) text: Vec<u8>,
    pub(crate) lines: LineForm,
    pub(crate) keep_alive: Option<KeepAlive>,
}

impl OllamaTranslation {
    /// Reads a request.
    ///
    /// # Errors
    /// As `DialectRequest::read`.
    pub(super) fn read(route: &Route, text: &[u8]) -> Result<Self, Refusal> {
        let request = ollama::parse(route.path, text).map_err(refusal_of)?;
        Ok(Self { request, started: Instant::now() })
    }

    /// Returns the call, if its answer is to be a stream.
    ///
    /// # Errors
    /// As `call_route`.
    pub(super) fn streamed_call(&self, model: Option<&str>) -> Result<Option<StreamedCall>, Refusal> {
        let call = self.request.body(model.unwrap_or_default()).filter(|_| self.request.is_stream);
        let Some((path, text)) = call else { return Ok(None) };
        let lines = LineForm {
            form: self.request.form,
            model: self.named(model).into(),
            started: self.started,
            end_guard: None,
        };
        let (route, keep_alive) = (call_route(path)?, self.request.keep_alive);
        Ok(Some(StreamedCall { route, text, lines, keep_alive }))
    }

    /// Makes the call and returns the body of the response.
    ///
    /// # Errors
    /// As `DialectRequest::answer`.
    pub(super) async fn answer<S: CallSender>(&self, calls: &Calls<'_, S>) -> Result<Bytes, Refusal> {
        let model = calls.find_model()?;
        let mut line = Vec::new();
        let writer = || AnswerWriter::new(self.request.form, self.named(calls.requested_model().or(Some(model.id()))));
        let Some((path, text)) = self.request.body(calls.requested_model().unwrap_or_default()) else {
            let is_unload = self.request.keep_alive == Some(KeepAlive::Unload);
            if !is_unload && !model.is_remote() {
                // It needs no slot.
                TokenCall::tokens(String::new(), false, false).ask(calls).await?;
            }
            writer().write_loaded(is_unload, moment_since(self.started), &mut line);
            self.request.keep_alive.inspect(|time| KeptAlive::apply(model, *time));
            return Ok(line.into());
        };
        let answer = calls.call(call_route(path)?, CallBody::Text(text)).await?;
        let written = writer().write_whole(&answer.body, moment_since(self.started), &mut line);
        written.map_err(Refusal::BadBackendAnswer)?;
        self.request.keep_alive.inspect(|time| KeptAlive::apply(&answer.served_by.model, *time));
        Ok(line.into())
    }

    /// Returns the name of the model for the answer: as the client wrote it, or this one.
    fn named(&self, otherwise: Option<&str>) -> String {
        let named = self.request.model.as_deref().filter(|name| !name.is_empty());
        named.or(otherwise).unwrap_or_default().to_owned()
    }
}

/// Returns the response to a request for a stream as lines. It has them already, unless the worker has answered with an
/// error, or with a whole answer although a stream was asked for.
pub(crate) async fn as_lines(response: Response<ResponseBody>, lines: &LineForm) -> Response<ResponseBody> {
    if response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == JSON_LINES) {
        return response;
    }
    let (head, body) = response.into_parts();
    let mut line = Vec::new();
    let written = match (read_answer(body, &AnswerBytes::default()).await, head.status.is_success()) {
        (Err(refusal), _) => Err(refusal),
        (Ok(text), false) => Err(error_of(head.status, &head.headers, &text)),
        (Ok(text), true) => {
            let written = lines.writer().write_whole(&text, moment_since(lines.started), &mut line);
            written.map_err(Refusal::BadBackendAnswer)
        }
    };
    let mut made = match written {
        Ok(()) => Response::new(Bytes::from(line)),
        Err(refusal) => refusal.response(Shape::Ollama),
    };
    for (name, value) in head.headers.iter().filter(|(name, _)| name.as_str().starts_with("x-llamagate-")) {
        made.headers_mut().insert(name, value.clone());
    }
    if made.status() == StatusCode::OK {
        made.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON_LINES));
    }
    made.map(ResponseBody::unrecorded)
}
