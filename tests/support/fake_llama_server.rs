//! A stand-in for llama-server that misbehaves on command. The tests start it (or let the gateway start it) in
//! place of the real one; `fake/mod.rs` tells how it is scripted and watched.

#[path = "fake/mod.rs"]
mod fake;

fn main() -> std::process::ExitCode {
    fake::main()
}
