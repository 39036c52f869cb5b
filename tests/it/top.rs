//! `llamagate top` on a terminal: what it draws, how it follows the size, and what it leaves behind.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use nix::sys::{signal::Signal, termios::LocalFlags};
use serde_json::json;

use super::support::{
    gateway::{ADMIN, Gateway, USER},
    terminal::Terminal,
    wait::{STOPS, eventually},
};

/// What `top` begins with: another screen, without a cursor; and what it ends with.
const TAKEN: &str = "\u{1b}[?1049h\u{1b}[?25l";
const GIVEN_BACK: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// Returns `top` of this service. More variables may be set.
fn top(gateway: &Gateway, secret: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
    command.arg("top").env_clear().envs([("LLAMAGATE_URL", gateway.url()), ("LLAMAGATE_KEY", secret)]);
    command
}

#[test]
fn top_draws_follows_the_size_of_the_terminal_and_gives_it_back_as_it_was() {
    let gateway = Gateway::builder().start_ready();
    for leave in ["q", "\u{3}"] {
        let mut terminal = Terminal::start_sized(top(&gateway, ADMIN).env("NO_COLOR", "1"), 100, 30);
        let before = terminal.key_modes();
        terminal.wait_for("SLOTS  WAITING  TOKENS/S  MEMORY", 1);
        terminal.wait_for("ready", 1);
        assert!(terminal.screen().starts_with(TAKEN), "{:?}", terminal.screen());
        assert_ne!(terminal.key_modes(), before, "keys are read as they are pressed");
        terminal.resize(40, 10);
        terminal.wait_for("SLOTS  TOKENS/S  MEMORY", 1);
        // A key that means nothing here.
        terminal.type_keys("x");
        terminal.type_keys(leave);
        assert!(terminal.wait_exit().success());
        terminal.wait_for(GIVEN_BACK, 1);
        assert_eq!(terminal.key_modes(), before);
        assert!(!terminal.screen().contains("\u{1b}[32m"), "NO_COLOR");
    }
}

#[test]
fn top_gives_the_terminal_back_when_it_or_the_service_is_stopped() {
    let mut gateway = Gateway::builder().start_ready();
    let mut told_to_end = Terminal::start_sized(&mut top(&gateway, ADMIN), 80, 24);
    let mut left_alone = Terminal::start_sized(&mut top(&gateway, ADMIN), 80, 24);
    for terminal in [&told_to_end, &left_alone] {
        // In colour.
        terminal.wait_for("\u{1b}[32m", 1);
    }
    told_to_end.signal(Signal::SIGTERM);
    assert_eq!(told_to_end.wait_exit().code(), Some(143));
    gateway.stop();
    assert!(left_alone.wait_exit().success());
    for terminal in [&told_to_end, &left_alone] {
        terminal.wait_for(GIVEN_BACK, 1);
        assert!(terminal.key_modes().contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
    }
    left_alone.wait_for(&format!("{GIVEN_BACK}the service is shutting down"), 1);
}

#[test]
fn what_top_cannot_show_is_told_without_taking_the_screen() {
    let gateway = Gateway::builder().start_ready();
    let mut refused = Terminal::start_sized(&mut top(&gateway, USER), 80, 24);
    assert_eq!(refused.wait_exit().code(), Some(1));
    refused.wait_for("(403 scope_required)", 1);
    let mut dumb = Terminal::start_sized(top(&gateway, ADMIN).env("TERM", "dumb"), 80, 24);
    assert_eq!(dumb.wait_exit().code(), Some(78));
    dumb.wait_for("top draws on a terminal", 1);
    for terminal in [refused, dumb] {
        assert!(!terminal.screen().contains(TAKEN), "{:?}", terminal.screen());
    }
}

/// `llamagate top --json | head -1` once went on for ever.
#[test]
fn a_command_that_goes_on_ends_when_its_output_is_closed() {
    let gateway = Gateway::builder().start_ready();
    for arguments in [["top", "--json"].as_slice(), &["logs", "-f", "-n", "1"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_llamagate"));
        command.args(arguments).env_clear().envs([("LLAMAGATE_URL", gateway.url()), ("LLAMAGATE_KEY", ADMIN)]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        assert!(output.read_line(&mut String::new()).unwrap() > 0);
        drop(output);
        eventually(&format!("{arguments:?} has ended"), STOPS, || {
            // Something to tell.
            gateway.control().log("a line of the log");
            assert_eq!(gateway.client_with(ADMIN).post_json("/reload", &json!({})).status(), 200);
            child.try_wait().unwrap().is_some()
        });
        assert!(child.wait().unwrap().success());
    }
}
