//! A call that is written for the worker that gets it, in the API that it speaks.
//!
//! Owns when it is written: once a worker is leased, and again for the worker of the next attempt if that speaks another.
//! What is written is decided in `translation/`.

use std::sync::Arc;

use crate::refusal::Refusal;
use crate::settings::values::BackendApi;

/// Writes a call in the API of each worker.
pub(crate) trait WriteCall: Send + Sync {
    /// Checks that a worker with this API can be asked, without the cost of writing the call.
    ///
    /// # Errors
    /// As [`WriteCall::write`].
    fn check_api(&self, api: BackendApi) -> Result<(), Refusal>;

    /// Returns the call for a worker with this API, which knows the model by this name.
    ///
    /// # Errors
    /// The API has no such route, or cannot express what the request asks for; the refusal names it.
    fn write(&self, api: BackendApi, model: &str) -> Result<WrittenCall, Refusal>;
}

/// A call in the API of a worker.
pub(crate) struct WrittenCall {
    /// The path, as at a backend whose API is below `/v1`.
    pub(crate) path: &'static str,
    /// The body, a JSON object.
    pub(crate) text: Vec<u8>,
}

/// The call that a request is, and the API in which its body is written now.
pub(crate) struct WorkerCall {
    pub(super) writer: Arc<dyn WriteCall>,
    /// The API and the path; `None` before the first worker is known, if there is nothing to write for most workers.
    written: Option<(BackendApi, &'static str)>,
}

impl WorkerCall {
    /// Returns the call and its text for most workers, which have OpenAI's API. If those cannot be asked, another one may,
    /// so the text is empty.
    pub(crate) fn new(writer: Arc<dyn WriteCall>, model: &str) -> (Self, Vec<u8>) {
        match writer.write(BackendApi::OpenAi, model) {
            Ok(WrittenCall { path, text }) => (Self { writer, written: Some((BackendApi::OpenAi, path)) }, text),
            Err(_) => (Self { writer, written: None }, b"{}".to_vec()),
        }
    }

    /// Returns the path by which the worker is asked that it is written for.
    pub(super) fn path(&self) -> Option<&'static str> {
        self.written.map(|(_, path)| path)
    }

    /// Returns the text for a worker with this API; `None` if that is the text which the request has already.
    ///
    /// # Errors
    /// As [`WriteCall::write`].
    pub(super) fn write_for(&mut self, api: BackendApi, model: &str) -> Result<Option<Vec<u8>>, Refusal> {
        if self.written.is_some_and(|(written, _)| written == api) {
            return Ok(None);
        }
        let WrittenCall { path, text } = self.writer.write(api, model)?;
        self.written = Some((api, path));
        Ok(Some(text))
    }
}
