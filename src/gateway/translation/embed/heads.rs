//! Embeddings of models with heads: their workers give the vectors of all tokens, out of which the dense, the sparse and the
//! ColBERT vectors are made here, in one pass.
//!
//! The vectors of tokens are read as they come. Only those that the answer needs are kept, within a bound; the work that
//! takes a processor for a while is done on threads for it, by few requests at a time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;

use super::super::calls::{CallBody, CallSender, Calls, OpenAnswer};
use super::super::cut;
use super::super::in_order::{OneOfMany, in_order};
use super::super::keep_alive::KeptAlive;
use super::super::shared::{answer_id, call_route, refusal_of};
use super::inputs;
use super::vector_lengths::{check_widths, default_length};
use crate::dialect::embed::{
    self, EmbedAnswer, EmbedInput, EmbedRequest, ROWS_PATH, TokenRows, WantedVectors, WorkerEmbedDialect,
    WorkerVectorsError, normalize, write_rows_request,
};
use crate::embedding_heads::{EmbeddingHeads, Head, PooledTokens, TokenPooling, sparse_vector};
use crate::fleet::{Model, ModelInfo};
use crate::gateway::bounds::{HEAD_JOB_WAIT, HEAD_JOBS_AT_ONCE, INPUTS_PER_CALL, TOKEN_NUMBERS, TOKENS_PER_CALL};
use crate::gateway::response::body::ResponseBody;
use crate::pause_clock;
use crate::refusal::Refusal;

/// Turns at work that takes a processor for a while.
static HEAD_JOBS: Semaphore = Semaphore::const_new(HEAD_JOBS_AT_ONCE);

/// The vectors of one input, as far as they are wanted.
struct InputVectors {
    pooled: PooledTokens,
    /// The weight of each token.
    weights: Vec<f32>,
    /// The vector of each token.
    rows: Vec<Vec<f32>>,
}

impl InputVectors {
    fn new(pooling: TokenPooling) -> Self {
        Self { pooled: PooledTokens::new(pooling), weights: Vec::new(), rows: Vec::new() }
    }
}

/// The vectors of some inputs.
struct PartVectors {
    served_by: Arc<Model>,
    /// Not normalised.
    dense: Vec<Vec<f32>>,
    sparse: Vec<BTreeMap<u32, f32>>,
    /// Of the ColBERT head, or those of the tokens themselves.
    rows: Vec<Vec<Vec<f32>>>,
    /// None if the worker does not say it.
    tokens: Option<u64>,
}

/// Returns whether a worker without heads gives these vectors.
pub(in crate::gateway::translation) fn is_pooled(wanted: WantedVectors) -> bool {
    !wanted.sparse && !wanted.colbert && !wanted.tokens
}

/// Refuses vectors that a model has no head for.
///
/// # Errors
/// [`Refusal::BadRequest`] that names the head.
pub(in crate::gateway::translation) fn check_heads(wanted: WantedVectors, info: &ModelInfo) -> Result<(), Refusal> {
    let has = |head: Head| info.heads.as_ref().is_some_and(|heads| heads.has(head));
    for (is_wanted, head, kind) in [(wanted.sparse, Head::Sparse, "sparse"), (wanted.colbert, Head::Colbert, "ColBERT")]
    {
        if is_wanted && !has(head) {
            return Err(Refusal::bad_request(format!(
                "{kind} vectors need a model with a head for them, and this one has none: its setting heads.{head} names one"
            )));
        }
    }
    match wanted.tokens && info.heads.is_none() {
        true => Err(Refusal::bad_request("vectors of single tokens are given only by models with heads")),
        false => Ok(()),
    }
}

/// Makes the calls for the vectors of these inputs, and returns the body of the response.
///
/// # Errors
/// As `DialectRequest::answer`; [`Refusal::BadRequest`] if the answer would have too many vectors.
pub(in crate::gateway::translation) async fn answer<S: CallSender>(
    calls: &Calls<'_, S>,
    request: &EmbedRequest,
    inputs: &[EmbedInput],
) -> Result<Bytes, Refusal> {
    let (wanted, kept) = (request.wanted, AtomicUsize::new(0));
    let mut parts: Vec<OneOfMany<'_, _, _>> = Vec::new();
    for part in parts_of(inputs) {
        let kept = &kept;
        parts.push(Box::pin(async move {
            let vectors = vectors_of(calls, wanted, &inputs[part.clone()], kept).await;
            vectors.map_err(|refusal| inputs::name_part(request, part, refusal))
        }));
    }
    let mut answer = EmbedAnswer { prompt_tokens: Some(0), ..EmbedAnswer::default() };
    let (mut sparse, mut rows, mut served_by) = (Vec::new(), Vec::new(), None);
    for part in in_order(parts, calls.at_once()).await? {
        answer.vectors.extend(part.dense);
        sparse.extend(part.sparse);
        rows.extend(part.rows);
        answer.prompt_tokens = answer.prompt_tokens.zip(part.tokens).map(|(sum, tokens)| sum + tokens);
        served_by.get_or_insert(part.served_by);
    }
    if let Some((model, time)) = served_by.as_ref().zip(request.keep_alive) {
        KeptAlive::apply(model, time);
    }
    let info = served_by.map(|model| model.info());
    check_widths(&answer.vectors)?;
    embed::shape(request, info.as_ref().and_then(|info| default_length(info)), &mut answer.vectors)
        .map_err(refusal_of)?;
    let named = calls.requested_model().or(info.as_ref().map(|info| info.id.as_str()));
    named.unwrap_or_default().clone_into(&mut answer.model);
    answer.sparse = wanted.sparse.then_some(sparse);
    let is_long = !rows.is_empty();
    match wanted.colbert {
        true => answer.colbert = Some(rows),
        false => answer.tokens = wanted.tokens.then_some(rows),
    }
    let id = answer_id("embd");
    if !is_long {
        return Ok(embed::write(request, &answer, &id).into());
    }
    let request = request.clone();
    in_turn(move || embed::write(&request, &answer, &id)).await.map(Bytes::from)
}

/// Divides inputs into those of one call each, in their order. A text counts as a token for each byte, the most that it can
/// have.
fn parts_of(inputs: &[EmbedInput]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (at, input) in inputs.iter().enumerate() {
        let more = match input {
            EmbedInput::Text(text) => text.len(),
            EmbedInput::Tokens(ids) => ids.len(),
        };
        match parts.last_mut().filter(|part| part.len() < INPUTS_PER_CALL && tokens + more <= TOKENS_PER_CALL) {
            Some(part) => (part.end, tokens) = (at + 1, tokens + more),
            None => {
                parts.push(at..at + 1);
                tokens = more;
            }
        }
    }
    parts
}

/// Asks for the vectors of some of the inputs. `kept` counts the numbers that are kept for the whole request.
async fn vectors_of<S: CallSender>(
    calls: &Calls<'_, S>,
    wanted: WantedVectors,
    inputs: &[EmbedInput],
    kept: &AtomicUsize,
) -> Result<PartVectors, Refusal> {
    let body = write_rows_request(calls.requested_model().unwrap_or_default(), inputs);
    let OpenAnswer { body, served_by, .. } = calls.open(None, call_route(ROWS_PATH)?, CallBody::Text(body)).await?;
    let (model, info) = (Arc::clone(&served_by.model), Arc::clone(&served_by.model.info()));
    let Some(heads) = info.heads.clone() else {
        // Another model has taken over.
        check_heads(wanted, &info)?;
        return pooled_by_worker(&calls.read(body).await?, model, inputs.len());
    };
    check_heads(wanted, &info)?;
    let pooling = TokenPooling::of_llama(info.numbers.and_then(|numbers| numbers.pooling_type));
    let mut vectors: Vec<InputVectors> = Vec::with_capacity(inputs.len());
    vectors.resize_with(inputs.len(), || InputVectors::new(pooling));
    RowUse { wanted, heads: &heads, kept }.read(body, &mut vectors).await?;
    let tokens = vectors.iter().map(|input| input.pooled.tokens() as u64).sum();
    calls.record.add_call_tokens(tokens);
    let mut sparse = Vec::new();
    // Not before it is known that a model with a head has answered.
    let ids = if wanted.sparse { tokens_of_all(calls, inputs).await? } else { Vec::new() };
    for ((ids, owner), input) in ids.iter().zip(&vectors) {
        if ids.len() != input.weights.len() || owner.id() != model.id() {
            let (found, given) = (ids.len(), input.weights.len());
            let fault = format!("its tokenizer finds {found} tokens in an input for which it gives {given} vectors");
            return Err(Refusal::BadBackendAnswer(fault));
        }
        sparse.push(sparse_vector(ids, &input.weights, heads.unweighted()));
    }
    let (pooled, rows): (Vec<PooledTokens>, Vec<Vec<Vec<f32>>>) =
        vectors.into_iter().map(|input| (input.pooled, input.rows)).unzip();
    let dense = if wanted.dense { pooled.into_iter().map(PooledTokens::into_vector).collect() } else { Vec::new() };
    let rows = match (wanted.colbert, wanted.tokens) {
        (true, _) => in_turn(move || rows.iter().map(|rows| colbert_vectors(&heads, rows)).collect()).await?,
        (false, true) => rows,
        (false, false) => Vec::new(),
    };
    Ok(PartVectors { served_by: model, dense, sparse, rows, tokens: Some(tokens) })
}

/// Returns the ids of the tokens of each input, with those that the model puts around it, and the model that they belong to.
async fn tokens_of_all<S: CallSender>(
    calls: &Calls<'_, S>,
    inputs: &[EmbedInput],
) -> Result<Vec<(Vec<u32>, Arc<Model>)>, Refusal> {
    let model = calls.find_model()?;
    let mut all: Vec<OneOfMany<'_, _, _>> = Vec::with_capacity(inputs.len());
    for input in inputs {
        all.push(match input {
            EmbedInput::Text(text) => Box::pin(cut::tokens_and_model(calls, text, true)),
            EmbedInput::Tokens(ids) => Box::pin(async { Ok((ids.clone(), Arc::clone(model))) }),
        });
    }
    in_order(all, calls.at_once()).await
}

/// What is made of the vectors of tokens while they come.
#[derive(Clone, Copy)]
struct RowUse<'a> {
    wanted: WantedVectors,
    heads: &'a EmbeddingHeads,
    /// The numbers that are kept for the whole request.
    kept: &'a AtomicUsize,
}

impl RowUse<'_> {
    /// Reads an answer with the vectors of all tokens to its end, which releases its slot. `vectors` has an entry for each
    /// input.
    async fn read(self, mut body: ResponseBody, vectors: &mut [InputVectors]) -> Result<(), Refusal> {
        let mut reader = TokenRows::new();
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|aborted| aborted.refusal())?.into_data() else { continue };
            self.read_piece(&mut reader, &piece, vectors)?;
        }
        reader.finish(vectors.len()).map_err(unreadable)?;
        match vectors.iter().all(|input| input.pooled.tokens() > 0) {
            true => Ok(()),
            false => Err(Refusal::BadBackendAnswer("an input has no vectors".to_owned())),
        }
    }

    fn read_piece(self, reader: &mut TokenRows, piece: &[u8], vectors: &mut [InputVectors]) -> Result<(), Refusal> {
        let Self { wanted, heads, kept } = self;
        let keeps_rows = wanted.colbert || wanted.tokens;
        let read = reader.feed(piece, |row| {
            let Some(input) = vectors.get_mut(row.input) else { return };
            input.pooled.add(row.numbers);
            if wanted.sparse {
                input.weights.push(heads.weight(row.numbers));
            }
            if keeps_rows && kept.fetch_add(row.numbers.len(), Ordering::Relaxed) < TOKEN_NUMBERS {
                input.rows.push(row.numbers.to_vec());
            }
        });
        read.map_err(unreadable)?;
        match kept.load(Ordering::Relaxed) > TOKEN_NUMBERS {
            true => Err(Refusal::bad_request(format!(
                "the vectors of all tokens of this request have more than {TOKEN_NUMBERS} numbers: send fewer inputs at once"
            ))),
            false => Ok(()),
        }
    }
}

/// Reads the answer of a worker that has given one vector for each input.
fn pooled_by_worker(body: &[u8], served_by: Arc<Model>, inputs: usize) -> Result<PartVectors, Refusal> {
    if body.trim_ascii_start().starts_with(b"{") {
        let read = embed::read_answer(WorkerEmbedDialect::OpenAi, body, inputs).map_err(unreadable)?;
        let (dense, tokens) = (read.vectors, read.prompt_tokens);
        return Ok(PartVectors { served_by, dense, sparse: Vec::new(), rows: Vec::new(), tokens });
    }
    // llama-server's own form, in which a vector for the whole text is the only one.
    let (mut dense, mut reader) = (vec![Vec::new(); inputs], TokenRows::new());
    let read = reader.feed(body, |row| {
        if let Some(vector) = dense.get_mut(row.input) {
            *vector = row.numbers.to_vec();
        }
    });
    read.and_then(|()| reader.finish(inputs)).map_err(unreadable)?;
    Ok(PartVectors { served_by, dense, sparse: Vec::new(), rows: Vec::new(), tokens: None })
}

fn colbert_vectors(heads: &EmbeddingHeads, rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut vectors = heads.colbert_rows(rows);
    vectors.iter_mut().for_each(|vector| normalize(vector));
    vectors
}

fn unreadable(error: WorkerVectorsError) -> Refusal {
    Refusal::BadBackendAnswer(error.to_string())
}

/// Does work that takes a processor for a while, as soon as it is its turn.
async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let failed = |what: &str| Refusal::Internal(format!("work on vectors has {what}"));
    let turn = match pause_clock::timeout(HEAD_JOB_WAIT, HEAD_JOBS.acquire()).await {
        Ok(turn) => turn.map_err(|_| failed("no turns"))?,
        Err(_) => return Err(Refusal::BackendTimeout),
    };
    // The turn goes with the work, which does not end with its client.
    let work = move || {
        let _turn = turn;
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| failed("ended by a panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the vectors of two tokens of one input, for a request for which this many numbers are kept already.
    fn read(wanted: WantedVectors, kept: usize) -> (Result<(), Refusal>, InputVectors) {
        let (heads, kept) = (EmbeddingHeads::read(None, None, 2, Vec::new()).unwrap(), AtomicUsize::new(kept));
        let mut vectors = [InputVectors::new(TokenPooling::First)];
        let rows = RowUse { wanted, heads: &heads, kept: &kept };
        let answer = b"[{\"index\":0,\"embedding\":[[1,2],[3,4]]}]";
        let read = rows.read_piece(&mut TokenRows::new(), answer, &mut vectors);
        let [vectors] = vectors;
        (read, vectors)
    }

    #[test]
    fn a_call_has_no_more_inputs_than_a_llama_server_can_answer_at_once() {
        let lengths = |lengths: &[usize]| {
            let inputs: Vec<EmbedInput> = lengths.iter().map(|length| EmbedInput::Text("a".repeat(*length))).collect();
            parts_of(&inputs)
        };
        assert_eq!(lengths(&[]), []);
        assert_eq!(lengths(&[3, 0, 5]), std::slice::from_ref(&(0..3)));
        assert_eq!(lengths(&[9000, 1, 4095, 1, 9000, 9000]), [0..1, 1..3, 3..4, 4..5, 5..6]);
        assert_eq!(lengths(&[1; 130]), [0..64, 64..128, 128..130]);
        let ids = [EmbedInput::Tokens(vec![7; TOKENS_PER_CALL]), EmbedInput::Text("a".to_owned())];
        assert_eq!(parts_of(&ids), [0..1, 1..2]);
    }

    #[test]
    fn only_vectors_that_the_answer_needs_are_kept_and_no_more_than_the_bound() {
        for (wanted, kept, is_read, rows) in [
            (WantedVectors::DENSE, 0, true, 0),
            (WantedVectors::SPARSE, TOKEN_NUMBERS, true, 0),
            (WantedVectors::COLBERT, 0, true, 2),
            (WantedVectors::TOKENS, TOKEN_NUMBERS - 4, true, 2),
            (WantedVectors::TOKENS, TOKEN_NUMBERS - 2, false, 1),
            (WantedVectors::COLBERT, TOKEN_NUMBERS, false, 0),
        ] {
            let (read, vectors) = read(wanted, kept);
            assert_eq!((read.is_ok(), vectors.rows.len()), (is_read, rows), "{wanted:?} {kept}");
            assert_eq!(vectors.pooled.tokens(), 2);
            let words = read.err().map(|refusal| (refusal.status().as_u16(), refusal.to_string()));
            assert!(words.is_none_or(|(status, words)| status == 400 && words.contains("send fewer inputs at once")));
        }
    }
}
