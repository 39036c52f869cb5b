//! A terminal whose whole screen and keys a command has, until it gives them back as they were.
//!
//! Uses a few escape sequences that terminals have known since xterm, also over ssh.

use std::io::{self, IsTerminal as _, Read as _, Write as _, stdin, stdout};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use terminal_size::{Height, Width, terminal_size_of};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::cli::output::print;

/// Shows another screen than the one of the shell, empty, without a cursor, and with long lines cut.
const TAKE: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l\u{1b}[2J";
/// Undoes that.
const GIVE_BACK: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";
/// Moves the cursor to the first line.
const HOME: &str = "\u{1b}[H";
/// Clears the rest of a line, and the rest of the screen.
const CLEAR_LINE: &str = "\u{1b}[K";
const CLEAR_BELOW: &str = "\u{1b}[J";
/// Columns and lines of a terminal that does not tell them.
const USUAL_SIZE: (usize, usize) = (80, 24);
/// What Ctrl-C and Ctrl-L are, as keys.
const CTRL_C: u8 = 3;
const CTRL_L: u8 = 12;
/// Most keys that are read at once.
const KEYS_AT_ONCE: usize = 64;

/// What a user does besides looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScreenInput {
    /// The screen has to be drawn again.
    Redraw,
    /// The user leaves.
    Leave,
    /// The program is told to end.
    Terminate,
}

/// The whole screen of standard output. Dropping it gives it back.
pub(super) struct FullScreen {
    /// How the terminal treated keys before; `None` if standard input is no terminal.
    before: Option<Termios>,
    /// The read of the next keys; `None` if there are none.
    keys: Option<JoinHandle<Vec<u8>>>,
    resized: Signal,
    interrupted: Signal,
    terminated: Signal,
    hung_up: Signal,
}

impl FullScreen {
    /// Takes the screen.
    ///
    /// # Errors
    /// The signals of the terminal cannot be listened to.
    pub(super) fn take() -> io::Result<Self> {
        let (resized, interrupted) = (signal(SignalKind::window_change())?, signal(SignalKind::interrupt())?);
        let (terminated, hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        let before = keys_at_once();
        let keys = before.as_ref().map(|_| spawn_blocking(read_keys));
        let screen = Self { before, keys, resized, interrupted, terminated, hung_up };
        print(TAKE);
        Ok(screen)
    }

    /// Returns the columns and lines of the screen.
    pub(super) fn size(&self) -> (usize, usize) {
        columns_and_lines().unwrap_or(USUAL_SIZE)
    }

    /// Shows these lines, in place of what was shown.
    pub(super) fn draw(&self, lines: &[String]) {
        print(&format!("{HOME}{}{CLEAR_LINE}{CLEAR_BELOW}", lines.join(&format!("{CLEAR_LINE}\n"))));
        let _ = stdout().flush();
    }

    /// Waits for the user. Nothing is lost if the wait is given up.
    pub(super) async fn next(&mut self) -> ScreenInput {
        loop {
            tokio::select! {
                _ = self.resized.recv() => return ScreenInput::Redraw,
                _ = self.interrupted.recv() => return ScreenInput::Leave,
                _ = self.terminated.recv() => return ScreenInput::Terminate,
                _ = self.hung_up.recv() => return ScreenInput::Terminate,
                input = pressed(&mut self.keys) => if let Some(input) = input {
                    return input;
                },
            }
        }
    }
}

impl Drop for FullScreen {
    fn drop(&mut self) {
        print(GIVE_BACK);
        let _ = stdout().flush();
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// Returns the columns and lines of the terminal of standard output, if it is one and tells them.
fn columns_and_lines() -> Option<(usize, usize)> {
    let (Width(columns), Height(lines)) = terminal_size_of(stdout())?;
    (columns > 0 && lines > 0).then_some((columns.into(), lines.into()))
}

/// Returns the columns of the terminal of standard output, if it is one and tells them.
pub(super) fn columns() -> Option<usize> {
    columns_and_lines().map(|(columns, _)| columns)
}

/// Lets the terminal pass on each key as it is pressed, without showing it. Returns how it was before; `None` if standard
/// input is no terminal.
fn keys_at_once() -> Option<Termios> {
    if !stdin().is_terminal() {
        return None;
    }
    let before = tcgetattr(stdin()).ok()?;
    let mut now = before.clone();
    // Ctrl-C and Ctrl-Z become keys: a shell that took over from the program as it stands would get its screen.
    now.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
    tcsetattr(stdin(), SetArg::TCSADRAIN, &now).ok()?;
    Some(before)
}

/// Waits for keys. Returns what they mean, if they mean something.
async fn pressed(keys: &mut Option<JoinHandle<Vec<u8>>>) -> Option<ScreenInput> {
    let Some(reading) = keys else { return std::future::pending().await };
    let read = reading.await.unwrap_or_default();
    *keys = (!read.is_empty()).then(|| spawn_blocking(read_keys));
    read.into_iter().find_map(meaning)
}

/// Reads the next keys; none at the end of the terminal. Blocks.
fn read_keys() -> Vec<u8> {
    let mut read = [0; KEYS_AT_ONCE];
    let count = stdin().lock().read(&mut read).unwrap_or(0);
    read[..count].to_vec()
}

fn meaning(key: u8) -> Option<ScreenInput> {
    match key {
        b'q' | b'Q' | CTRL_C => Some(ScreenInput::Leave),
        CTRL_L => Some(ScreenInput::Redraw),
        _ => None,
    }
}
