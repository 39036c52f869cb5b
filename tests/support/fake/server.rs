//! The state that all connections of the fake share: its phase, its slots, its gates and its counters.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::{
    arguments::Arguments,
    journal::Journal,
    script::{Ending, Script},
};

/// The phase of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Loading,
    Ready,
    /// After SIGTERM: nothing is generated any more, and streams are cut.
    Stopping,
}

/// The shared state.
pub(super) struct Server {
    pub(super) arguments: Arguments,
    pub(super) script: Script,
    pub(super) journal: Journal,
    pub(super) phase: watch::Sender<Phase>,
    /// False after `stop answering`: connections are accepted and requests get no response.
    pub(super) answering: watch::Sender<bool>,
    pub(super) load_gate: Gate,
    pub(super) request_gate: Gate,
    pub(super) counters: Counters,
    slots: Semaphore,
}

/// Numbers for /metrics, /slots and the journal.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) posts_answered: AtomicU64,
    pub(super) decodes: AtomicU64,
    pub(super) prompt_tokens: AtomicU64,
    pub(super) processing: AtomicU64,
    pub(super) deferred: AtomicU64,
}

/// A gate that lets the next n tasks pass, or all.
pub(super) struct Gate(Semaphore);

/// A slot of the model, held while a request is processed.
pub(super) struct Slot<'a> {
    _permit: SemaphorePermit<'a>,
    _processing: Counted<'a>,
}

/// Adds one to a counter until it is dropped.
struct Counted<'a>(&'a AtomicU64);

impl Server {
    pub(super) fn new(arguments: Arguments, script: Script, journal: Journal) -> Self {
        Server {
            slots: Semaphore::new(arguments.slots),
            arguments,
            script,
            journal,
            phase: watch::Sender::new(Phase::Loading),
            answering: watch::Sender::new(true),
            load_gate: Gate::closed(),
            request_gate: Gate::closed(),
            counters: Counters::default(),
        }
    }

    /// Waits for a free slot, in the order of arrival.
    pub(super) async fn slot(&self) -> Slot<'_> {
        let deferred = Counted::new(&self.counters.deferred);
        let permit = self.slots.acquire().await.expect("the slots are never closed");
        drop(deferred);
        Slot { _permit: permit, _processing: Counted::new(&self.counters.processing) }
    }

    pub(super) fn model_name(&self) -> String {
        self.script.alias.clone().unwrap_or_else(|| self.arguments.model_name())
    }

    pub(super) async fn wait_for(&self, wanted: Phase) {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase == wanted).await;
    }

    /// Journals how the process ends, and ends it.
    pub(super) fn end(&self, ending: &Ending) -> ! {
        for line in &ending.stderr {
            eprintln!("{line}");
        }
        if let Some(signal) = ending.signal {
            self.journal.record("exit", json!({ "signal": signal }));
            let signal = nix::sys::signal::Signal::try_from(signal).expect("the script names a signal");
            let _ = nix::sys::signal::raise(signal);
        }
        let code = ending.code.unwrap_or(1);
        self.journal.record("exit", json!({ "code": code }));
        std::process::exit(code)
    }
}

impl Gate {
    fn closed() -> Self {
        Gate(Semaphore::new(0))
    }

    /// Waits until the gate lets this task pass.
    pub(super) async fn pass(&self) {
        if let Ok(permit) = self.0.acquire().await {
            permit.forget();
        }
    }

    /// Lets the next `n` tasks pass, waiting or later ones.
    pub(super) fn release(&self, n: usize) {
        self.0.add_permits(n);
    }

    /// Opens the gate for good.
    pub(super) fn open(&self) {
        self.0.close();
    }
}

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Counted(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
