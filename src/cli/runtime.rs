//! The runtimes of the subcommands, and the signals of those that run until one stops them.
//!
//! Owns how a runtime is built, and what is said where that fails. What a signal does is decided in `app/`.

use tokio::runtime::{Builder, Runtime};

use crate::app::Signals;

/// Returns a runtime whose tasks run on the thread that waits for them.
///
/// # Errors
///
/// Returns a sentence if the system lacks what a runtime needs.
pub(super) fn on_this_thread() -> Result<Runtime, String> {
    build(&mut Builder::new_current_thread())
}

/// Returns a runtime with a thread for each CPU.
///
/// # Errors
///
/// As [`on_this_thread`].
pub(super) fn on_all_cpus() -> Result<Runtime, String> {
    build(&mut Builder::new_multi_thread())
}

/// Returns a runtime as [`on_this_thread`] does, and the signals: those that arrive from now on are not lost.
///
/// # Errors
///
/// As [`on_this_thread`]; and a sentence if the signals cannot be handled.
pub(super) fn with_signals() -> Result<(Runtime, Signals), String> {
    let runtime = on_this_thread()?;
    let signals = {
        // Handlers can only be installed inside a runtime.
        let _inside = runtime.enter();
        Signals::listen()
    };
    let signals = signals.map_err(|error| format!("signals cannot be handled: {error}"))?;
    Ok((runtime, signals))
}

fn build(builder: &mut Builder) -> Result<Runtime, String> {
    builder.enable_all().build().map_err(|error| format!("no runtime: {error}"))
}
