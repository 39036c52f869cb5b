//! Rerankers that answer with words: the question that each document becomes, and the scores in llama-server's answers.
//!
//! The score is the probability of "yes" against "no" after the question. How texts become tokens, and how many documents
//! are asked for at a time, is decided in the gateway.
//!
//! - `completion.rs`: the completion of one token whose probabilities are read
//! - `question.rs`: the template of the question

mod completion;
mod question;

pub use completion::{COMPLETION_PATH, WordScore, YesNoWords, read_score, write_request};
pub use question::{CONTROL_TOKEN, CONTROL_TOKEN_START, TEMPLATE_END, TEMPLATE_START, question};
