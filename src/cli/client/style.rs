//! Colour, on a terminal only, and never where `NO_COLOR` is set (<https://no-color.org>). `CLICOLOR_FORCE` asks for it
//! everywhere.

use std::io::IsTerminal;

use crate::settings::Environment;

/// How a word is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Style {
    Dim,
    Red,
    Green,
}

/// Whether words are shown in colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Paint(bool);

impl Paint {
    /// Returns whether what is written to this stream has colours.
    pub(in crate::cli) fn for_stream(environment: &Environment, stream: &impl IsTerminal) -> Self {
        let is_forced = environment.get("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let is_dumb = environment.get("TERM") == Some("dumb");
        let has_none = environment.get("NO_COLOR").is_some() || environment.get("CLICOLOR") == Some("0");
        Self(!has_none && (is_forced || (stream.is_terminal() && !is_dumb)))
    }

    /// Returns the text in this style.
    pub(in crate::cli) fn text(self, style: Style, text: &str) -> String {
        format!("{}{text}{}", self.start(style), self.end())
    }

    /// Returns what begins a style.
    pub(in crate::cli) fn start(self, style: Style) -> &'static str {
        match style {
            _ if !self.0 => "",
            Style::Dim => "\u{1b}[2m",
            Style::Red => "\u{1b}[31m",
            Style::Green => "\u{1b}[32m",
        }
    }

    /// Returns what ends every style.
    pub(in crate::cli) fn end(self) -> &'static str {
        if self.0 { "\u{1b}[0m" } else { "" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_wins_over_everything_and_a_pipe_has_none() {
        let file = tempfile::tempfile().unwrap();
        let paint = |variables: &[(&str, &str)]| {
            Paint::for_stream(&variables.iter().copied().collect(), &file).text(Style::Red, "x")
        };
        assert_eq!(paint(&[]), "x");
        assert_eq!(paint(&[("CLICOLOR_FORCE", "1")]), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(paint(&[("CLICOLOR_FORCE", "0")]), "x");
        assert_eq!(paint(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]), "x");
    }
}
