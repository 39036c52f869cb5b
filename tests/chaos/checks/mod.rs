//! The checks: of each response, of the gateway during the faults, and of the idle gateway after a round.
//!
//! - `expectations.rs`: which responses a client may get, and how early
//! - `invariants.rs`: what must hold the whole time
//! - `jobs.rs`: what must hold of the jobs of RunPod's platform
//! - `journal.rs`: reads the journal of the fake llama-servers
//! - `recovery.rs`: what must hold once all faults have ended
//! - `worker_states.rs`: which state transitions a worker may make

pub(crate) mod expectations;
pub(crate) mod invariants;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod recovery;
pub(crate) mod worker_states;
