//! Documents that a reranker without a ranking head scores: each is a question of its own, whose tokens are counted, cut and
//! sent. The question and the answer are in `dialect/rerank/words/`.

use std::borrow::Cow;

use tokio::sync::OnceCell;

use super::backends::TokenCall;
use super::calls::{CallAnswer, CallBody, CallSender, Calls};
use super::cut::{TokenLimit, fit_tokens};
use crate::dialect::rerank::words::{self, TEMPLATE_END, TEMPLATE_START, YesNoWords};
use crate::dialect::rerank::{DocumentCut, RerankCall, RerankRequest, WorkerScores};
use crate::fleet::ModelInfo;
use crate::gateway::routes::table::SCORING_COMPLETION;
use crate::refusal::Refusal;

/// The token that is generated, which takes a place in the context too.
const ANSWER_TOKENS: usize = 1;

/// Tokens that a model may put before a text.
const FIRST_TOKENS: usize = 1;

/// A reranker without a ranking head. Its tokens mean nothing to other models, so no other is asked.
pub(super) struct WordReranker {
    /// Its id.
    model: String,
    words: YesNoWords,
    /// What it is asked to look for, if a request does not say.
    instruction: Option<String>,
    /// Most tokens of a prompt.
    prompt_tokens: usize,
    known: KnownTokens,
}

/// What its tokenizer has said already during this request.
#[derive(Default)]
struct KnownTokens {
    /// The number of tokens of the template around a question.
    template: OnceCell<usize>,
    /// The first query and its question without a document. Most requests have one query.
    bare: OnceCell<(String, Vec<u32>)>,
    /// Whether it takes control tokens from a text although it is told not to.
    takes_control_tokens: OnceCell<bool>,
}

/// How a part of a prompt becomes tokens.
#[derive(Clone, Copy)]
struct TextPart {
    /// Whether it gets the token with which the model's prompts begin, if they do.
    is_first: bool,
    has_control_tokens: bool,
}

const FIRST: TextPart = TextPart { is_first: true, has_control_tokens: true };
const LATER: TextPart = TextPart { is_first: false, has_control_tokens: true };
const PLAIN: TextPart = TextPart { is_first: false, has_control_tokens: false };

/// A document with its question.
struct Question<'a> {
    instruction: Option<&'a str>,
    query: &'a str,
    document: &'a str,
    /// The place of the document in the request.
    at: usize,
}

impl WordReranker {
    /// Returns the reranker that a model is, if it is one.
    pub(super) fn of(info: &ModelInfo) -> Option<Self> {
        let words = info.yes_no.map(|words| YesNoWords { yes: words.yes, no: words.no })?;
        let context = info.context_length.and_then(|tokens| usize::try_from(tokens).ok()).unwrap_or(usize::MAX);
        let prompt_tokens = context.saturating_sub(ANSWER_TOKENS);
        Some(Self {
            model: info.id.clone(),
            words,
            instruction: info.instruction.clone(),
            prompt_tokens,
            known: KnownTokens::default(),
        })
    }

    /// Asks for the logit of the one document of a call.
    ///
    /// # Errors
    /// [`Refusal::InvalidParameter`] if it is too long and must not be cut; the refusal of a call, or what is wrong with its
    /// answer.
    pub(super) async fn score<S: CallSender>(
        &self,
        calls: &Calls<'_, S>,
        request: &RerankRequest,
        call: &RerankCall<'_>,
    ) -> Result<(CallAnswer, WorkerScores), Refusal> {
        let at = call.documents.first().copied().unwrap_or_default();
        let document = request.documents.get(at).map(|document| document.text.as_str()).unwrap_or_default();
        let instruction = request.instruction.as_deref().or(self.instruction.as_deref());
        let question = Question { instruction, query: call.query, document, at };
        let tokens = self.fitting_tokens(calls, request, &question).await?;
        let body = words::write_request(&tokens, self.words);
        let answer = calls.call_model(Some(&self.model), &SCORING_COMPLETION, CallBody::Text(body)).await?;
        let score = words::read_score(&answer.body, self.words)
            .map_err(|error| Refusal::BadBackendAnswer(error.to_string()))?;
        Ok((answer, WorkerScores { scores: vec![score.logit], prompt_tokens: score.prompt_tokens }))
    }

    /// Returns the tokens of a question, whose document is cut if it is too long and may be cut.
    async fn fitting_tokens<S: CallSender>(
        &self,
        calls: &Calls<'_, S>,
        request: &RerankRequest,
        question: &Question<'_>,
    ) -> Result<Vec<u32>, Refusal> {
        let Question { instruction, query, document, at } = *question;
        let (most_of_document, most, side) = match request.cut {
            DocumentCut::Never => (None, self.prompt_tokens, None),
            DocumentCut::Allowed { document, prompt, side } => {
                (document, prompt.map_or(self.prompt_tokens, |prompt| prompt.min(self.prompt_tokens)), Some(side))
            }
        };
        let mut tokens = self.question_tokens(calls, &words::question(instruction, query, document)).await?;
        // A token is at least a byte.
        let template_at_most = TEMPLATE_START.len() + TEMPLATE_END.len() + FIRST_TOKENS;
        if tokens.len() + template_at_most <= most && most_of_document.is_none_or(|most| document.len() <= most) {
            return Ok(tokens);
        }
        let template = self.template_tokens(calls).await?;
        let without = self.bare_question(calls, instruction, query).await?;
        // The first token of the document may hold the space before it.
        let start = tokens.iter().zip(&*without).take_while(|(one, other)| one == other).count();
        let Some(room) = most.checked_sub(template + start).filter(|room| *room > 0) else {
            let message = format!(
                "query has {start} tokens with its instruction, and the model has room for {} with a document",
                most.saturating_sub(template)
            );
            return Err(Refusal::InvalidParameter { field: "query".to_owned(), message });
        };
        let limit = TokenLimit { tokens: most_of_document.map_or(room, |most| most.min(room)), cut: side };
        let field = || format!("{}[{at}]", request.format.dialect.documents_name());
        let kept = fit_tokens(field, &tokens[start..], limit)?.to_vec();
        tokens.truncate(start);
        tokens.extend(kept);
        Ok(tokens)
    }

    /// Returns the tokens of a question, none of which is a control token.
    async fn question_tokens<S: CallSender>(&self, calls: &Calls<'_, S>, question: &str) -> Result<Vec<u32>, Refusal> {
        let may_hold_marks = question.contains(words::CONTROL_TOKEN_START);
        // Builds before July 2025 do not read `parse_special`, and let a document write a turn of the chat.
        if may_hold_marks && self.takes_control_tokens(calls).await? {
            return Err(Refusal::BadBackendAnswer(
                "its tokenizer takes control tokens from the text of a document: update llama-server".to_owned(),
            ));
        }
        self.tokens_of(calls, question, PLAIN).await
    }

    async fn takes_control_tokens<S: CallSender>(&self, calls: &Calls<'_, S>) -> Result<bool, Refusal> {
        let ask = || async { Ok(self.tokens_of(calls, words::CONTROL_TOKEN, PLAIN).await?.len() == 1) };
        self.known.takes_control_tokens.get_or_try_init(ask).await.copied()
    }

    async fn template_tokens<S: CallSender>(&self, calls: &Calls<'_, S>) -> Result<usize, Refusal> {
        let ask = || async {
            let start = self.tokens_of(calls, TEMPLATE_START, FIRST).await?.len();
            Ok(start + self.tokens_of(calls, TEMPLATE_END, LATER).await?.len())
        };
        self.known.template.get_or_try_init(ask).await.copied()
    }

    /// Returns the tokens of a question without a document.
    async fn bare_question<S: CallSender>(
        &self,
        calls: &Calls<'_, S>,
        instruction: Option<&str>,
        query: &str,
    ) -> Result<Cow<'_, [u32]>, Refusal> {
        let question = words::question(instruction, query, "");
        let ask = || async { Ok((query.to_owned(), self.tokens_of(calls, &question, PLAIN).await?)) };
        let (known, tokens) = self.known.bare.get_or_try_init(ask).await?;
        match known == query {
            true => Ok(Cow::Borrowed(tokens)),
            false => self.tokens_of(calls, &question, PLAIN).await.map(Cow::Owned),
        }
    }

    async fn tokens_of<S: CallSender>(
        &self,
        calls: &Calls<'_, S>,
        text: &str,
        TextPart { is_first, has_control_tokens }: TextPart,
    ) -> Result<Vec<u32>, Refusal> {
        let call = TokenCall::Tokens {
            text: text.to_owned(),
            add_special: is_first,
            with_pieces: false,
            parse_special: Some(has_control_tokens),
        };
        let (dialect, answer) = call.ask_model(Some(&self.model), calls).await?;
        dialect
            .read_ids(&answer.body)
            .map_err(|error| Refusal::BadBackendAnswer(format!("the answer of its tokenizer: {error}")))
    }
}
