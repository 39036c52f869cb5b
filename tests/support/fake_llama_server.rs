//! A stand-in for llama-server that misbehaves on command. Tests start it, or let the gateway start it, in place of the
//! real one; `fake/mod.rs` describes its script, journal and control socket.

#[path = "fake/mod.rs"]
mod fake;

fn main() -> std::process::ExitCode {
    fake::main()
}
