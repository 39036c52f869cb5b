//! Long lines, broken between words to fit a terminal.

use std::fmt::Write as _;

/// How far a line that goes on is moved to the right, in columns.
const INDENT: usize = 2;

/// Returns the text as lines of at most this many columns, each ended, the ones that go on indented. A longer word stays
/// whole.
pub(super) fn wrapped(text: &str, columns: usize) -> String {
    let (mut lines, mut used) = (String::new(), 0);
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if used == 0 {
            lines.push_str(word);
            used = length;
        } else if used + 1 + length <= columns {
            // Writing to a string cannot fail.
            let _ = write!(lines, " {word}");
            used += 1 + length;
        } else {
            let _ = write!(lines, "\n{:INDENT$}{word}", "");
            used = INDENT + length;
        }
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrapped("one two  three four", 9), "one two\n  three\n  four\n");
        assert_eq!(wrapped("one two", 80), "one two\n");
        assert_eq!(wrapped("incomprehensible word", 4), "incomprehensible\n  word\n");
        assert_eq!(wrapped("", 4), "\n");
    }
}
