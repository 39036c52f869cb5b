//! What changes in a file, line by line.

use std::fmt::Write as _;

use super::mask;
use crate::cli::client::{Paint, Style};

/// Unchanged lines that are shown around a change.
const CONTEXT: usize = 3;

/// Returns the change as people read it: removed lines, added lines, and a few around them. A configuration is changed
/// in one place or two, so what lies between the first and the last change is one change. Secrets are masked, this key too.
pub(super) fn shown(before: &str, after: &str, key: Option<&str>, paint: Paint) -> String {
    let changes = changes(&before.lines().collect::<Vec<_>>(), &after.lines().collect::<Vec<_>>());
    let (old, new) = (mask::lines(before, key), mask::lines(after, key));
    let mut text = String::new();
    let mut at = (0, 0);
    for (removed, added) in changes {
        let begin = removed.start.saturating_sub(CONTEXT).max(at.0);
        if begin > at.0 {
            let _ = writeln!(text, "{}", paint.text(Style::Dim, "  ..."));
        }
        lines(&mut text, "  ", &old[begin..removed.start], paint, None);
        lines(&mut text, "- ", &old[removed.clone()], paint, Some(Style::Red));
        lines(&mut text, "+ ", &new[added.clone()], paint, Some(Style::Green));
        at = (removed.end, added.end);
    }
    lines(&mut text, "  ", &old[at.0..(at.0 + CONTEXT).min(old.len())], paint, None);
    text
}

fn lines(text: &mut String, mark: &str, lines: &[String], paint: Paint, style: Option<Style>) {
    for line in lines {
        let line = format!("{mark}{line}");
        let line = style.map_or_else(|| line.clone(), |style| paint.text(style, &line));
        let _ = writeln!(text, "{line}");
    }
}

/// A range of lines before, and what stands in its place.
type LineChange = (std::ops::Range<usize>, std::ops::Range<usize>);

/// Returns the changes: lines that are in both texts, in the same order, are found from the front one after the other.
fn changes(old: &[&str], new: &[&str]) -> Vec<LineChange> {
    let mut changes = Vec::new();
    let (mut at_old, mut at_new) = (0, 0);
    while at_old < old.len() || at_new < new.len() {
        if old.get(at_old) == new.get(at_new) {
            (at_old, at_new) = (at_old + 1, at_new + 1);
            continue;
        }
        // The nearest pair of equal lines ends the change.
        let most = (old.len() - at_old) + (new.len() - at_new);
        let meets = |removed: usize, added: usize| {
            let line = old.get(at_old + removed);
            line.is_some_and(|line| !line.trim().is_empty()) && line == new.get(at_new + added)
        };
        let end =
            (1..=most).find_map(|sum| (0..=sum).map(|removed| (removed, sum - removed)).find(|(a, b)| meets(*a, *b)));
        let (removed, added) = end.unwrap_or((old.len() - at_old, new.len() - at_new));
        changes.push((at_old..at_old + removed, at_new..at_new + added));
        (at_old, at_new) = (at_old + removed, at_new + added);
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Environment;

    fn plain(before: &str, after: &str) -> String {
        let paint = Paint::for_stream(&Environment::from([("NO_COLOR", "1")]), &std::io::stdout());
        shown(before, after, None, paint)
    }

    #[test]
    fn a_change_is_shown_with_the_lines_around_it() {
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let after = "1\n2\n3\n4\n5\nsix\nand\n7\n8\n9\n";
        assert_eq!(plain(before, after), "  ...\n  3\n  4\n  5\n- 6\n+ six\n+ and\n  7\n  8\n  9\n");
        assert_eq!(plain("", "a\n"), "+ a\n");
        assert_eq!(plain("a\nb\nc\n", "x\nb\nc\ny\n"), "- a\n+ x\n  b\n  c\n+ y\n");
    }

    /// The key that is replaced, and one in the lines around, once were shown.
    #[test]
    fn a_change_of_a_secret_is_shown_without_it() {
        let (before, after) = ("api-key: old\nother-token: mine\n", "api-key: new\nother-token: mine\n");
        assert_eq!(plain(before, after), "- api-key: ***\n+ api-key: ***\n  other-token: ***\n");
    }

    proptest::proptest! {
        #[test]
        fn the_changes_lead_from_one_text_to_the_other(old in "[abc\n]{0,12}", new in "[abc\n]{0,12}") {
            let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
            let (mut made, mut at) = (Vec::new(), 0);
            for (removed, added) in changes(&old, &new) {
                made.extend_from_slice(&old[at..removed.start]);
                made.extend_from_slice(&new[added]);
                at = removed.end;
            }
            made.extend_from_slice(&old[at..]);
            proptest::prop_assert_eq!(made, new);
        }
    }
}
