//! Texts that may be too long for a model: counted and cut with the model's own tokenizer, at any worker that has one.
//!
//! A text of no more bytes than there is room for tokens fits in any case, since a token is at least a byte, so most
//! requests need no call. What is cut, and whether, is decided by the request.

use std::borrow::Cow;
use std::sync::Arc;

use super::backends::{TokenCall, token_dialect};
use super::calls::{CallSender, Calls};
use crate::dialect::rerank::CutSide;
use crate::fleet::Model;
use crate::gateway::bounds::CUT_ATTEMPTS;
use crate::refusal::Refusal;

/// How many tokens a text may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenLimit {
    pub(super) tokens: usize,
    /// The side that goes if the text is too long; `None` if it must not be cut.
    pub(super) cut: Option<CutSide>,
}

/// Returns the number of tokens of a text, without those that a model puts around it.
///
/// # Errors
/// The refusal of the call, or what is wrong with its answer.
pub(super) async fn count_tokens<S: CallSender>(calls: &Calls<'_, S>, text: &str) -> Result<usize, Refusal> {
    tokenize(calls, text).await.map(|tokens| tokens.len())
}

/// Returns whether texts may be sent uncounted after this refusal of a call to the tokenizer: a worker of the model has an
/// API without one, and cuts what is too long itself, or refuses it.
pub(super) fn may_go_uncounted<S: CallSender>(calls: &Calls<'_, S>, refusal: &Refusal) -> bool {
    let has_other = |model: &Arc<Model>| model.members().any(|member| token_dialect(member.api).is_err());
    let is_unavailable = matches!(refusal, Refusal::RouteNotAtBackend(_)) || refusal.is_transient();
    is_unavailable && calls.model().is_some_and(has_other)
}

/// Returns the text, cut to the limit if it is too long. `field` names the text in errors.
///
/// # Errors
/// [`Refusal::InvalidParameter`] if the text is too long and must not be cut, else as [`count_tokens`].
pub(super) async fn fit<'t, S: CallSender>(
    calls: &Calls<'_, S>,
    field: impl FnOnce() -> String,
    text: &'t str,
    limit: TokenLimit,
) -> Result<Cow<'t, str>, Refusal> {
    if text.len() <= limit.tokens {
        return Ok(Cow::Borrowed(text));
    }
    let tokens = tokenize(calls, text).await?;
    match fit_tokens(field, &tokens, limit)? {
        kept if kept.len() == tokens.len() => Ok(Cow::Borrowed(text)),
        kept => text_of(calls, kept, limit).await.map(Cow::Owned),
    }
}

/// Returns the text of these tokens. Where it is cut within a word, the tokenizer may find more tokens in it than it was
/// made of, so it is counted again, and cut a little more if they are too many.
async fn text_of<S: CallSender>(calls: &Calls<'_, S>, kept: &[u32], limit: TokenLimit) -> Result<String, Refusal> {
    let mut count = kept.len();
    for _ in 0..CUT_ATTEMPTS {
        let limit = TokenLimit { tokens: count, ..limit };
        let text = detokenize(calls, fit_tokens(String::new, kept, limit)?).await?;
        let excess = count_tokens(calls, &text).await?.saturating_sub(kept.len());
        if excess == 0 {
            return Ok(text);
        }
        count = count.saturating_sub(excess);
    }
    Err(Refusal::BadBackendAnswer("its tokenizer does not take back what it made".to_owned()))
}

/// Returns the tokens, cut to the limit if they are too many. `field` names them in errors.
///
/// # Errors
/// [`Refusal::InvalidParameter`] if they are too many and must not be cut.
pub(super) fn fit_tokens(field: impl FnOnce() -> String, tokens: &[u32], limit: TokenLimit) -> Result<&[u32], Refusal> {
    let (count, most) = (tokens.len(), limit.tokens);
    match limit.cut {
        _ if count <= most => Ok(tokens),
        Some(CutSide::End) => Ok(&tokens[..most]),
        Some(CutSide::Start) => Ok(&tokens[count - most..]),
        None => {
            let field = field();
            let message = format!("{field} has {count} tokens, and the model has room for {most}");
            Err(Refusal::InvalidParameter { field, message })
        }
    }
}

async fn tokenize<S: CallSender>(calls: &Calls<'_, S>, text: &str) -> Result<Vec<u32>, Refusal> {
    tokens_of(calls, text, false).await
}

/// Returns the tokens of a text, with or without those that a model puts around it.
///
/// # Errors
/// As [`count_tokens`].
pub(super) async fn tokens_of<S: CallSender>(
    calls: &Calls<'_, S>,
    text: &str,
    add_special: bool,
) -> Result<Vec<u32>, Refusal> {
    tokens_and_model(calls, text, add_special).await.map(|(tokens, _)| tokens)
}

/// Returns the tokens of a text, as [`tokens_of`] does, and which model has them.
///
/// # Errors
/// As [`count_tokens`].
pub(super) async fn tokens_and_model<S: CallSender>(
    calls: &Calls<'_, S>,
    text: &str,
    add_special: bool,
) -> Result<(Vec<u32>, Arc<Model>), Refusal> {
    let (text, with_pieces) = (text.to_owned(), false);
    let (dialect, answer) = TokenCall::tokens(text, add_special, with_pieces).ask(calls).await?;
    Ok((dialect.read_ids(&answer.body).map_err(unreadable)?, answer.served_by.model))
}

async fn detokenize<S: CallSender>(calls: &Calls<'_, S>, tokens: &[u32]) -> Result<String, Refusal> {
    let (dialect, answer) = TokenCall::Text(tokens.to_vec()).ask(calls).await?;
    dialect.read_text(&answer.body).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> Refusal {
    Refusal::BadBackendAnswer(format!("the answer of its tokenizer: {error}"))
}
