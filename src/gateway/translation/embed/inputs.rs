//! Inputs for embeddings as they are sent: with the model's prompt before them, and cut where they are too long and the
//! request allows it. What stays out is decided by the model's own tokenizer; a prompt is never cut.

use std::ops::Range;
use std::sync::Arc;

use super::super::calls::{CallSender, Calls};
use super::super::cut::{self, TokenLimit};
use super::super::in_order::{OneOfMany, in_order};
use crate::dialect::embed::{EmbedInput, EmbedRequest, InputCut};
use crate::dialect::rerank::CutSide;
use crate::fleet::{ModelInfo, RoutingPolicy};
use crate::refusal::Refusal;
use crate::settings::catalogue::PoolRole;

/// Tokens that a model puts around a text: beginning and end. A text may also have one more token than bytes, because some
/// tokenizers begin it with a space.
const SEPARATOR_TOKENS: usize = 4;

/// The inputs of a request as they are sent, in their order; `None` if they are those that the client sent.
pub(in crate::gateway::translation) struct PreparedInputs(
    pub(in crate::gateway::translation) Option<Arc<[EmbedInput]>>,
);

/// Where the inputs of a request end.
#[derive(Clone, Copy)]
struct InputRoom<'a> {
    prefix: &'a str,
    /// Tokens of the model's context.
    context: usize,
    cut: Option<CutSide>,
    /// Whether all workers that may serve are llama-servers with the same vocabulary, which take token ids.
    takes_tokens: bool,
}

/// Returns the inputs as they are sent. Without a known context they are not cut.
///
/// # Errors
/// [`Refusal::InvalidParameter`] that names the first input that is too long and must not be cut, else the refusal of a call
/// to the tokenizer, or what is wrong with its answer.
pub(in crate::gateway::translation) async fn prepare<S: CallSender>(
    calls: &Calls<'_, S>,
    request: &EmbedRequest,
    info: Option<&ModelInfo>,
    prefix: Option<&str>,
) -> Result<PreparedInputs, Refusal> {
    let prefix = prefix.unwrap_or_default();
    let context = info.and_then(|info| info.context_length).and_then(|tokens| usize::try_from(tokens).ok());
    let model = calls.model();
    // A remote backend is told, or the call is refused.
    let most_tokens = request.most_tokens.filter(|_| model.is_some_and(|model| !model.is_remote()));
    let context = context.into_iter().chain(most_tokens).min();
    let is_short = |input: &EmbedInput| context.is_none_or(|context| fits(input, prefix, context));
    if prefix.is_empty() && request.inputs.iter().all(is_short) {
        return Ok(PreparedInputs(None));
    }
    let room = InputRoom {
        prefix,
        context: context.unwrap_or(usize::MAX),
        cut: match request.cut {
            InputCut::Never => None,
            InputCut::Start => Some(CutSide::Start),
            InputCut::End => Some(CutSide::End),
        },
        takes_tokens: info.zip(model).is_some_and(|(info, model)| takes_tokens(info, &model.policy())),
    };
    let mut inputs = Vec::with_capacity(request.inputs.len());
    let mut long: Vec<OneOfMany<'_, _, _>> = Vec::new();
    for (at, input) in request.inputs.iter().enumerate() {
        match input {
            EmbedInput::Text(text) if !is_short(input) => {
                inputs.push(EmbedInput::Text(String::new()));
                long.push(Box::pin(room.fitted(calls, request.format.dialect.input_name(at), text, at)));
            }
            EmbedInput::Text(text) => inputs.push(EmbedInput::Text(format!("{prefix}{text}"))),
            EmbedInput::Tokens(ids) => {
                let limit = TokenLimit { tokens: room.context, cut: room.cut };
                let ids = cut::fit_tokens(|| request.format.dialect.input_name(at), ids, limit)?;
                inputs.push(EmbedInput::Tokens(ids.to_vec()));
            }
        }
    }
    for (at, input) in in_order(long, calls.at_once()).await? {
        inputs[at] = input;
    }
    Ok(PreparedInputs(Some(inputs.into())))
}

/// Returns whether all workers that may serve a model take token ids of its vocabulary. Other models, which take over or
/// share its requests, have their own vocabularies; after the last resort of a pool comes no other.
fn takes_tokens(info: &ModelInfo, policy: &RoutingPolicy) -> bool {
    let is_shared = info.pool.is_some_and(|rank| rank.role == PoolRole::Member);
    info.slots.is_some() && !is_shared && policy.fallbacks.is_empty()
}

/// Adds to a refusal that the request is at fault which of its inputs the call was about, if not about all.
pub(in crate::gateway::translation) fn name_part(
    request: &EmbedRequest,
    part: Range<usize>,
    refusal: Refusal,
) -> Refusal {
    let name = |at| request.format.dialect.input_name(at);
    match refusal {
        Refusal::RequestFault(words) if part.len() == 1 && request.inputs.len() > 1 => {
            Refusal::RequestFault(format!("{}: {words}", name(part.start)))
        }
        Refusal::RequestFault(words) if part.len() < request.inputs.len() => {
            Refusal::RequestFault(format!("{} to {}: {words}", name(part.start), name(part.end - 1)))
        }
        other => other,
    }
}

/// Returns whether an input fits in any case, since a token is at least a byte.
fn fits(input: &EmbedInput, prefix: &str, context: usize) -> bool {
    match input {
        EmbedInput::Text(text) => prefix.len() + text.len() <= context.saturating_sub(SEPARATOR_TOKENS),
        EmbedInput::Tokens(ids) => ids.len() <= context,
    }
}

impl InputRoom<'_> {
    /// Returns a text that may be too long as it is sent, with its place: uncut, if no tokenizer can be asked and the backend
    /// may cut it. `name` names it in errors.
    async fn fitted<S: CallSender>(
        self,
        calls: &Calls<'_, S>,
        name: String,
        text: &str,
        at: usize,
    ) -> Result<(usize, EmbedInput), Refusal> {
        match self.cut_to_room(calls, name, text).await {
            Err(refusal) if cut::may_go_uncounted(calls, &refusal) => {
                Ok((at, EmbedInput::Text(format!("{}{text}", self.prefix))))
            }
            outcome => outcome.map(|input| (at, input)),
        }
    }

    /// Returns a text that may be too long, cut to the room that there is. `name` names it in errors.
    async fn cut_to_room<S: CallSender>(
        self,
        calls: &Calls<'_, S>,
        name: String,
        text: &str,
    ) -> Result<EmbedInput, Refusal> {
        let Self { prefix, context, cut: side, .. } = self;
        if !self.takes_tokens {
            let room = context.saturating_sub(SEPARATOR_TOKENS + prefix.len()).max(1);
            let text = cut::fit(calls, || name, text, TokenLimit { tokens: room, cut: side }).await?;
            return Ok(EmbedInput::Text(format!("{prefix}{text}")));
        }
        let whole = format!("{prefix}{text}");
        let tokens = cut::tokens_of(calls, &whole, true).await?;
        let Some(side) = side.filter(|_| tokens.len() > context) else {
            let limit = TokenLimit { tokens: context, cut: None };
            return cut::fit_tokens(|| name, &tokens, limit).map(|_| EmbedInput::Text(whole));
        };
        let own = cut::tokens_of(calls, text, false).await?;
        match cut_within(&tokens, &own, context, side) {
            Some(kept) => Ok(EmbedInput::Tokens(kept)),
            None => {
                let message = format!("{name} has no room beside the model's prompt in its {context} tokens");
                Err(Refusal::InvalidParameter { field: name, message })
            }
        }
    }
}

/// Cuts the tokens of a text out of `tokens`, which has them with what stands before and after them, so that `most` are
/// left. `own` are the tokens of the text alone; its first ones may differ, where it runs into what stands before it.
/// Returns `None` if none of them has room.
fn cut_within(tokens: &[u32], own: &[u32], most: usize, side: CutSide) -> Option<Vec<u32>> {
    let common = |after: usize| {
        let before_end = tokens[..tokens.len() - after].iter().rev();
        before_end.zip(own.iter().rev()).take_while(|(one, other)| one == other).count()
    };
    let most_after = SEPARATOR_TOKENS.min(tokens.len());
    let (text, after) =
        (0..=most_after).map(|after| (common(after), after)).max_by_key(|(text, after)| (*text, usize::MAX - after))?;
    let (before, rest) = tokens.split_at(tokens.len() - after - text);
    let (text, after) = rest.split_at(text);
    let room = most.checked_sub(before.len() + after.len()).filter(|room| *room > 0)?;
    let text = match side {
        CutSide::End => &text[..room.min(text.len())],
        CutSide::Start => &text[text.len().saturating_sub(room)..],
    };
    Some([before, text, after].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::PoolRank;

    /// Regression: a model that took over got the token ids of another one's vocabulary.
    #[test]
    fn a_model_that_others_may_serve_for_gets_text() {
        let alone = ModelInfo { slots: Some(2), ..ModelInfo::named("m") };
        let policy = RoutingPolicy::default();
        let with_fallback = RoutingPolicy { fallbacks: vec!["other".to_owned()], ..RoutingPolicy::default() };
        let in_pool = |role| {
            let rank = PoolRank { role, priority: None, strategy: policy.strategy };
            ModelInfo { pool: Some(rank), ..alone.clone() }
        };
        assert!(takes_tokens(&alone, &policy) && takes_tokens(&in_pool(PoolRole::LastResort), &policy));
        assert!(!takes_tokens(&alone, &with_fallback) && !takes_tokens(&in_pool(PoolRole::Member), &policy));
        assert!(!takes_tokens(&ModelInfo { slots: None, ..alone }, &policy));
    }

    #[test]
    fn a_text_is_cut_between_what_stands_before_and_after_it() {
        let whole = [101, 7, 1, 2, 3, 4, 5, 102];
        let own = [1, 2, 3, 4, 5];
        for (side, most, expected) in [
            (CutSide::End, 5, Some(&[101, 7, 1, 2, 102][..])),
            (CutSide::Start, 5, Some(&[101, 7, 4, 5, 102])),
            (CutSide::End, 4, Some(&[101, 7, 1, 102])),
            (CutSide::End, 3, None),
            (CutSide::Start, 0, None),
            (CutSide::End, 100, Some(&whole)),
        ] {
            assert_eq!(cut_within(&whole, &own, most, side).as_deref(), expected, "{side:?} {most}");
        }
        // The first token of the text is another one after a prompt.
        assert_eq!(cut_within(&[101, 7, 9, 2, 3, 102], &[1, 2, 3], 5, CutSide::End), Some(vec![101, 7, 9, 2, 102]));
        // Nothing stands around it.
        assert_eq!(cut_within(&own, &own, 2, CutSide::Start), Some(vec![4, 5]));
        assert_eq!(cut_within(&[], &[], 2, CutSide::End), Some(Vec::new()));
        // A text of one token again and again, which is that of the end too.
        assert_eq!(cut_within(&[1, 3, 3, 3, 2], &[3, 3, 3], 4, CutSide::Start), Some(vec![1, 3, 3, 2]));
    }
}
