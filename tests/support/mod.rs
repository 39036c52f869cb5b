//! What the integration tests are written with: the gateway as a process (`gateway`), the fake llama-server beside
//! it (`fake_server`, `scripted`), a backend that somebody else runs (`remote`), a platform with a queue of jobs (`runpod`), clients that see the wire (`client`),
//! waiting without sleeping (`wait`) and what the kernel says about processes (`resources`). Everything blocks, so that a
//! test reads from top to bottom.

#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test support: each test binary uses a part of it, starts processes, and fails by panicking"
)]

pub(crate) mod client;
pub(crate) mod fake_server;
pub(crate) mod gateway;
pub(crate) mod model_file;
pub(crate) mod process;
pub(crate) mod remote;
pub(crate) mod resources;
pub(crate) mod runpod;
pub(crate) mod scripted;
pub(crate) mod wait;
