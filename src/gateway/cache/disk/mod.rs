//! Answers that outlive the service (`CACHE_PERSIST_TO_DISK`): kept in one SQLite file, and found again after a restart.
//!
//! A request does nothing but put its answer into a bounded queue. One thread owns the file: it reads all answers into
//! memory when it opens the file, which the bound of the memory allows because it bounds the file too, and writes those
//! that come. So nothing is read for a request, and a hit costs the same with the file as without it. Which answers are
//! given is decided outside.
//!
//! - `answer_disk.rs`: the file as the rest of the cache sees it
//! - `answer_row.rs`: an answer as a row of the file
//! - `answers_file.rs`: the rows of the open file, within their bounds
//! - `disk_schema.rs`: the table of answers, and how an older file gets it
//! - `disk_writer.rs`: the thread that owns the file
//! - `waiting_answers.rs`: what is known on both sides of the queue in front of it

pub(super) mod answer_disk;
mod answer_row;
mod answers_file;
mod disk_schema;
mod disk_writer;
#[cfg(test)]
mod tests;
mod waiting_answers;
