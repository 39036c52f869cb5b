//! Requests for the tokens of texts in the API of text-embeddings-inference: one call for each text, and one more where
//! special tokens are told from others.

use bytes::Bytes;

use super::backends::TokenCall;
use super::calls::{CallSender, Calls};
use super::in_order::{OneOfMany, in_order};
use super::shared::refusal_of;
use crate::dialect::tokenize::{self, TokenizeRequest, WorkerTokens};
use crate::gateway::bounds::CALLS_AT_ONCE;
use crate::refusal::Refusal;

/// A request for the tokens of texts.
pub(crate) struct TokenizeTranslation(TokenizeRequest);

impl TokenizeTranslation {
    /// Reads a request; returns `None` if it is in llama-server's own form.
    ///
    /// # Errors
    /// As `DialectRequest::read`.
    pub(super) fn read(text: &[u8]) -> Result<Option<Self>, Refusal> {
        tokenize::parse(text).map(|request| request.map(Self)).map_err(refusal_of)
    }

    /// Makes the calls and returns the body of the response.
    ///
    /// # Errors
    /// As `DialectRequest::answer`.
    pub(super) async fn answer<S: CallSender>(&self, calls: &Calls<'_, S>) -> Result<Bytes, Refusal> {
        let one = |text| -> OneOfMany<'_, _, _> { Box::pin(self.tokens_of(calls, text)) };
        let texts = self.0.inputs.iter().map(String::as_str).map(one).collect();
        Ok(tokenize::write(&in_order(texts, CALLS_AT_ONCE).await?).into())
    }

    /// Returns a text with its tokens, and the same tokens without special ones if those are wanted.
    async fn tokens_of<'t, S: CallSender>(
        &self,
        calls: &Calls<'_, S>,
        text: &'t str,
    ) -> Result<(&'t str, WorkerTokens, Option<WorkerTokens>), Refusal> {
        let tokens = ask(calls, text, self.0.add_special_tokens).await?;
        let plain = if self.0.add_special_tokens { Some(ask(calls, text, false).await?) } else { None };
        Ok((text, tokens, plain))
    }
}

async fn ask<S: CallSender>(calls: &Calls<'_, S>, text: &str, add_special: bool) -> Result<WorkerTokens, Refusal> {
    let call = TokenCall::tokens(text.to_owned(), add_special, true);
    let (dialect, answer) = call.ask(calls).await?;
    let unreadable = |error| Refusal::BadBackendAnswer(format!("the answer of its tokenizer: {error}"));
    dialect.read_tokens(&answer.body).map_err(unreadable)
}
