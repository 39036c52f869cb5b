//! Reads what llama-server says of its arguments, for commands that start no service.

use std::sync::Arc;

use crate::preflight;
use crate::settings::{Config, Environment};
use crate::worker::{HelpReader, LlamaHelp, Spawner};

/// Returns what the llama-server of this configuration says of its arguments; `None` if it serves no model or says
/// nothing. Not inside a runtime, and only in a program that runs no service: it has a thread for processes of its own.
pub fn read_llama_help(config: &Config, environment: &Environment) -> Option<Arc<LlamaHelp>> {
    let binary = preflight::llama_server(config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let spawner = Spawner::start(runtime.handle().clone(), None).ok()?;
    runtime.block_on(HelpReader::new(spawner).read(&binary, &environment.for_child()))
}
