//! Answers that are kept for equal requests (`CACHE`), and answers in flight that equal requests share.
//!
//! Owns which requests are equal, how long an answer is kept, and how several clients read one answer. Who may ask is
//! decided before: a request comes here with its caller, its limits and its model checked. An answer is kept as the
//! client got it, piece by piece, so that a stream is given again as a stream.
//!
//! - `answer_cache.rs`: finds the answer to a request: kept, in flight, or to be made
//! - `answer_store.rs`: the answers that are kept, within their bounds
//! - `cache_bounds.rs`: what answers that are kept are bounded by
//! - `cacheable.rs`: which requests may be answered from here
//! - `directives.rs`: what `Cache-Control` of a request asks for
//! - `disk/`: answers that outlive the service
//! - `flight.rs`: an answer in flight, and the work that makes it
//! - `flight_reader.rs`: one client's view of an answer in flight
//! - `flight_terms.rs`: what the answer of a flight is to
//! - `flight_waiters.rs`: the tasks that wait for the next piece of an answer in flight
//! - `key.rs`: what makes two requests equal
//! - `kept_answer.rs`: an answer that is kept, and its readers
//! - `open_flights.rs`: the answers in flight that an equal request may join
//! - `shared_pieces.rs`: the pieces of an answer in flight, and how far each reader has come

pub(super) mod answer_cache;
mod answer_store;
mod cache_bounds;
mod cacheable;
mod directives;
mod disk;
pub(super) mod flight;
mod flight_reader;
mod flight_terms;
mod flight_waiters;
mod kept_answer;
mod key;
mod open_flights;
mod shared_pieces;
