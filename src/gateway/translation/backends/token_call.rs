//! A call to a tokenizer, as it is written for the worker that gets it.

use std::sync::Arc;

use super::super::calls::{CallAnswer, CallBody, CallSender, Calls};
use super::super::shared::call_route;
use super::apis::token_dialect;
use crate::dialect::{WorkerTokenCall, WorkerTokenDialect};
use crate::gateway::request::worker_call::{WriteCall, WrittenCall};
use crate::refusal::Refusal;
use crate::settings::values::BackendApi;

/// A call to the tokenizer of a model.
pub(in crate::gateway::translation) enum TokenCall {
    /// As [`WorkerTokenCall::Tokens`].
    Tokens { text: String, add_special: bool, with_pieces: bool, parse_special: Option<bool> },
    /// As [`WorkerTokenCall::Text`].
    Text(Vec<u32>),
}

impl TokenCall {
    /// Returns the call for the tokens of a text, as the worker reads texts unless it is told otherwise.
    pub(in crate::gateway::translation) fn tokens(text: String, add_special: bool, with_pieces: bool) -> Self {
        Self::Tokens { text, add_special, with_pieces, parse_special: None }
    }

    /// Asks a worker, and returns the answer with its dialect.
    ///
    /// # Errors
    /// As [`Calls::call`].
    pub(in crate::gateway::translation) async fn ask<S: CallSender>(
        self,
        calls: &Calls<'_, S>,
    ) -> Result<(WorkerTokenDialect, CallAnswer), Refusal> {
        self.ask_model(None, calls).await
    }

    /// As [`Self::ask`], but if a model is given, its workers alone are asked.
    ///
    /// # Errors
    /// As [`Calls::call`].
    pub(in crate::gateway::translation) async fn ask_model<S: CallSender>(
        self,
        only_model: Option<&str>,
        calls: &Calls<'_, S>,
    ) -> Result<(WorkerTokenDialect, CallAnswer), Refusal> {
        let route = match self {
            Self::Tokens { .. } => "/tokenize",
            Self::Text(_) => "/detokenize",
        };
        let answer = calls.call_model(only_model, call_route(route)?, CallBody::Written(Arc::new(self))).await?;
        Ok((token_dialect(answer.served_by.member.api)?, answer))
    }

    fn borrowed(&self) -> WorkerTokenCall<'_> {
        match self {
            Self::Tokens { text, add_special, with_pieces, parse_special } => WorkerTokenCall::Tokens {
                text,
                add_special: *add_special,
                with_pieces: *with_pieces,
                parse_special: *parse_special,
            },
            Self::Text(tokens) => WorkerTokenCall::Text(tokens),
        }
    }
}

impl WriteCall for TokenCall {
    fn check_api(&self, api: BackendApi) -> Result<(), Refusal> {
        token_dialect(api).map(drop)
    }

    fn write(&self, api: BackendApi, model: &str) -> Result<WrittenCall, Refusal> {
        let (dialect, call) = (token_dialect(api)?, self.borrowed());
        Ok(WrittenCall { path: dialect.path(&call), text: dialect.write_request(&call, model) })
    }
}
