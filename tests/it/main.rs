//! The integration tests: one crate, with one module for each feature or class of faults.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test reports a failure by a panic")]
#![allow(clippy::disallowed_methods, reason = "tests start processes and read their own environment")]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod accounts;
mod applications;
mod arguments;
mod behind_nginx;
mod brought_names;
mod certificates;
mod check_warnings;
mod clients;
mod commands;
mod configuration;
mod connections;
mod contract;
mod cors;
mod descriptors;
mod diagnosis;
mod diagnostics;
mod differential;
mod discovery;
mod docs;
mod drain;
mod embedding_heads;
mod embeddings;
mod estimate;
mod eviction;
mod fake;
mod hang;
mod http2;
mod leftovers;
mod limits;
mod litellm;
mod litellm_check;
mod load;
mod mended_answers;
mod mixed_pools;
mod model_routes;
mod node_clients;
mod ollama;
mod packed_answers;
mod parameters;
mod pauses;
mod platforms;
mod poison;
mod pull;
mod queue;
mod rates;
mod real_fleet;
mod reload;
mod remote_addresses;
mod remote_dialects;
mod remote_streams;
mod remotes;
mod replicas;
mod request_faults;
mod rerank;
mod rerank_calls;
mod rerank_word_calls;
mod rerank_words;
mod routing;
mod runpod_queue;
mod runpod_sdk;
mod runpod_worker;
mod secrets;
mod shelf;
mod sleep;
mod stalled;
mod startup;
mod streaming;
mod supervision;
mod tei;
