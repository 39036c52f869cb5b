//! Shows an answer while it comes: the reasoning dimmed, and nothing that would change the terminal.

use std::borrow::Cow;
use std::io::Write as _;

use crate::cli::client::{Paint, Style};
use crate::cli::output::{print, print_while_read};

/// What shows an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Screen {
    /// A terminal: answer, reasoning and figures.
    Terminal(Paint),
    /// A file or a pipe: the answer as it is.
    Plain,
    /// Nothing: the answer is printed later, as JSON.
    Hidden,
}

/// Shows one answer.
#[derive(Debug)]
pub(super) struct AnswerView {
    screen: Screen,
    is_reasoning: bool,
    is_at_start_of_line: bool,
    has_reader: bool,
}

impl AnswerView {
    /// Returns the view of the next answer.
    pub(super) fn new(screen: Screen) -> Self {
        Self { screen, is_reasoning: false, is_at_start_of_line: true, has_reader: true }
    }

    /// Shows a piece of the reasoning.
    pub(super) fn reasoning(&mut self, text: &str) {
        let Screen::Terminal(paint) = self.screen else { return };
        if !std::mem::replace(&mut self.is_reasoning, true) {
            print(&format!("{}(thinking)\n", paint.start(Style::Dim)));
        }
        self.show(&harmless(text));
    }

    /// Shows a piece of the answer.
    pub(super) fn text(&mut self, text: &str) {
        match self.screen {
            Screen::Terminal(_) => {
                self.end_reasoning();
                self.show(&harmless(text));
            }
            Screen::Plain => self.show(text),
            Screen::Hidden => {}
        }
    }

    /// Returns whether what is shown is still read: the other end of a pipe may have been closed.
    pub(super) fn has_reader(&self) -> bool {
        self.has_reader
    }

    fn end_reasoning(&mut self) {
        let Screen::Terminal(paint) = self.screen else { return };
        if std::mem::take(&mut self.is_reasoning) {
            let newline = if self.is_at_start_of_line { "" } else { "\n" };
            print(&format!("{newline}(answer){}\n", paint.end()));
            self.is_at_start_of_line = true;
        }
    }

    /// Ends the last line, and shows this figures below on a terminal.
    pub(super) fn finish(&mut self, figures: &str) {
        if self.screen == Screen::Hidden {
            return;
        }
        if let Screen::Terminal(paint) = self.screen
            && std::mem::take(&mut self.is_reasoning)
        {
            print(paint.end());
        }
        if !self.is_at_start_of_line {
            print("\n");
            self.is_at_start_of_line = true;
        }
        if let Screen::Terminal(paint) = self.screen {
            print(&format!("{}\n", paint.text(Style::Dim, figures)));
        }
        let _ = std::io::stdout().flush();
    }

    fn show(&mut self, text: &str) {
        if let Some(last) = text.chars().last() {
            self.has_reader = print_while_read(text);
            self.is_at_start_of_line = last == '\n';
        }
    }
}

/// Returns the text without control characters, with which a model could change the terminal.
pub(super) fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if is_harmful(c) { '\u{fffd}' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_cannot_change_the_terminal() {
        assert_eq!(harmless("a\tb\n\u{1b}]0;x\u{7}"), "a\tb\n\u{fffd}]0;x\u{fffd}");
        assert!(matches!(harmless("plain"), Cow::Borrowed(_)));
    }
}
