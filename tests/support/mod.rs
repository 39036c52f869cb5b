//! Support for the integration tests. All functions block, so that a test reads from top to bottom.
//!
//! - `acme/`: a CA that speaks ACME
//! - `certificates.rs`: certificates of tests
//! - `client.rs`: HTTP clients that see what is on the wire
//! - `client_program.rs`: programs of clients that use a gateway
//! - `deploy.rs`: the tools that read `deploy/`
//! - `fake_server.rs`: the fake llama-server without a gateway
//! - `gateway.rs`: the gateway as a process
//! - `hostile_proxy.rs`: a network that cuts, resets, stalls and dribbles
//! - `mock_hub.rs`: a hub of models, with faults
//! - `model_file.rs`: GGUF files without tensors
//! - `packing.rs`: packing with each content coding
//! - `page_commands.rs`: the commands of a page of the documentation
//! - `process.rs`: child processes and their output
//! - `real_server.rs`: the real llama-server without a gateway
//! - `remote.rs`: a remote backend
//! - `resources.rs`: processes and ports, as the kernel reports them
//! - `runpod.rs`: RunPod's API for a worker of a queue endpoint
//! - `scripted.rs`: the script, journal and control socket of the fake llama-server (`fake/`)
//! - `socket.rs`: a blocking socket, with or without TLS
//! - `terminal.rs`: a program in a terminal
//! - `valkey.rs`: a Valkey or Redis server
//! - `vendors.rs`: servers with APIs of their own for reranking and embeddings
//! - `wait.rs`: waiting for conditions

#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test support: each test program uses a part of it; it starts processes and fails by panicking"
)]

pub(crate) mod acme;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod client_program;
pub(crate) mod deploy;
pub(crate) mod fake_server;
pub(crate) mod file_lease;
pub(crate) mod gateway;
pub(crate) mod hostile_proxy;
pub(crate) mod mock_hub;
pub(crate) mod model_file;
pub(crate) mod packing;
pub(crate) mod page_commands;
pub(crate) mod process;
pub(crate) mod real_server;
pub(crate) mod remote;
pub(crate) mod resources;
pub(crate) mod runpod;
pub(crate) mod scripted;
pub(crate) mod socket;
pub(crate) mod terminal;
pub(crate) mod valkey;
pub(crate) mod vendors;
pub(crate) mod wait;
