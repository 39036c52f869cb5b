//! The log of a llama-server as the diagnosis reads it: lines without timestamps, which of them are recent, and what
//! may be quoted of them.

use crate::telemetry::files::LogTail;
use crate::worker::bounds::{QUOTED_LINE, QUOTED_WORD};

/// Texts of lines in which llama-server reports a request, often with the client's text. They never explain an exit.
const REQUESTS: &[&str] = &[
    "got exception",
    "operator():",
    "log_server_r",
    "request:",
    "response:",
    "send_error:",
    "error parsing grammar",
    "JSON schema conversion was incomplete",
    "unable to match sampler",
    "Wrong type supplied for parameter",
];

/// Lines that show that a ready llama-server went on, so that earlier errors did not end it. A client's text with line
/// ends can look like lines of the log; it is dismissed because one of these lines follows it.
const PROCEEDED: &[&str] = &["got exception", "launch_slot_", "failed to launch slot"];

/// The line with which llama-server begins to end in good order, as it does after SIGTERM.
const TOLD_TO_END: &str = "cleaning up before exit";

/// A line that shows that llama-server recovered from earlier errors of its load.
const OVERCOME: &str = "retrying without pipeline parallelism";

/// Lines that mark the end of a load; requests come after it.
const LOADED: &[&str] = &[": model loaded", "server is listening on", ": listening on http"];

/// Texts of errors that only say that something failed before.
const UNSPECIFIC: &[&str] = &["exiting due to", "failed to load model", "failed to create_context", "usage:"];

/// The longest run of mixed letters and digits, in characters, that is not taken for a key.
const LONGEST_PLAIN_RUN: usize = 16;

/// Whether llama-server was told to end, according to its log, and has not gone on since.
pub(in crate::worker) fn says_it_was_told_to_end(tail: &LogTail) -> bool {
    let is_going_on = |line: &str| PROCEEDED.iter().any(|mark| line.contains(mark));
    tail.lines().rev().take_while(|line| !is_going_on(line)).any(|line| line.contains(TOLD_TO_END))
}

/// A line without timestamp and level.
pub(super) struct LogLine<'a> {
    pub(super) text: &'a str,
    /// Whether llama-server logged it as an error.
    pub(super) is_error: bool,
}

/// The end of a log, without the lines that report requests.
///
/// If llama-server has served requests, any line may still contain a client's text: it may determine the cause, but is
/// never quoted.
pub(super) struct WorkerLog<'a> {
    lines: Vec<LogLine<'a>>,
    /// The index of the first line after the last success.
    recent_start: usize,
    /// The index after the last line of the load.
    load_end: usize,
    has_served: bool,
}

impl<'a> WorkerLog<'a> {
    pub(super) fn of(tail: &'a LogTail, has_served: bool) -> Self {
        let contains_any = |line: &LogLine, marks: &[&str]| marks.iter().any(|mark| line.text.contains(mark));
        let (mut lines, mut recent_start, mut load_end) = (Vec::new(), 0, None);
        for line in tail.lines().map(LogLine::of) {
            let has_loaded = contains_any(&line, LOADED);
            let is_overcome =
                has_loaded || contains_any(&line, &[OVERCOME]) || has_served && contains_any(&line, PROCEEDED);
            if !contains_any(&line, REQUESTS) {
                lines.push(line);
            }
            if is_overcome {
                recent_start = lines.len();
            }
            if has_loaded {
                load_end.get_or_insert(recent_start);
            }
        }
        // Only the end of a long log is kept. Without a mark, the load is no longer in it.
        let load_end = if has_served { load_end.unwrap_or(0) } else { lines.len() };
        Self { lines, recent_start, load_end, has_served }
    }

    /// The lines of the load, oldest first. Sizes are read from these, as they stay valid.
    pub(super) fn load(&self) -> impl DoubleEndedIterator<Item = &'a str> {
        self.lines.iter().take(self.load_end).map(|line| line.text)
    }

    /// The lines since the last success, oldest first. Failures are searched in these.
    pub(super) fn recent(&self) -> impl DoubleEndedIterator<Item = &LogLine<'a>> {
        self.lines.iter().skip(self.recent_start)
    }

    /// Returns the last recent line that contains `words`.
    pub(super) fn find(&self, words: &str) -> Option<&'a str> {
        self.recent().rev().map(|line| line.text).find(|text| text.contains(words))
    }

    /// Whether a recent line contains any of `words`.
    pub(super) fn has_any(&self, words: &[&str]) -> bool {
        words.iter().any(|words| self.find(words).is_some())
    }

    /// Returns what follows `words` in the last recent line that contains them.
    pub(super) fn after(&self, words: &str) -> Option<&'a str> {
        self.find(words)?.split_once(words).map(|(_, rest)| rest)
    }

    /// Returns the first recent error that is specific and may be quoted. Later errors usually follow from the first.
    pub(super) fn first_error(&self) -> Option<String> {
        let errors = self.recent().filter(|line| line.is_error).map(|line| line.text);
        errors.filter(|text| !UNSPECIFIC.iter().any(|words| text.contains(words))).find_map(|text| self.quote(text))
    }

    /// Returns the part of `text` that may be quoted, or `None` if a client may have written it.
    pub(super) fn quote(&self, text: &str) -> Option<String> {
        if self.has_served { None } else { quotable(text) }
    }
}

impl<'a> LogLine<'a> {
    /// Parses a line such as `0.00.039.717 E llama_model_load: error loading model: ...`. Older llama-servers and the
    /// dynamic loader write lines without a timestamp.
    fn of(line: &'a str) -> Self {
        let split_stamp = || {
            let (stamp, rest) = line.split_once(' ')?;
            let is_stamp = stamp.contains('.') && stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let (level, text) = rest.split_once(' ')?;
            (is_stamp && level.len() == 1).then_some((level, text))
        };
        match split_stamp() {
            Some((level, text)) => Self { text: text.trim(), is_error: level == "E" },
            None => {
                let is_error = ["error", "Error", "failed", "terminate called"].iter().any(|word| line.contains(word));
                Self { text: line.trim(), is_error }
            }
        }
    }
}

/// Returns the text up to where a path, a file name or a key may begin, or `None` if nothing is left.
fn quotable(text: &str) -> Option<String> {
    let unsafe_at = [text.find(['/', '\\']), text.find(".gguf"), key_in(text), text.find(char::is_control)];
    let mut safe = text;
    if let Some(at) = unsafe_at.into_iter().flatten().min() {
        let before = &text[..at];
        let word = before.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        // A quoted name may contain spaces: cut before its opening quotation mark.
        let quote = before.rfind(['\'', '"', '`']).filter(|_| before.matches(['\'', '"', '`']).count() % 2 == 1);
        safe = &before[..quote.map_or(word, |quote| quote.min(word))];
    }
    let quoted: String = safe.chars().take(QUOTED_LINE).collect();
    let is_whole = safe.len() == text.len();
    let quoted =
        if is_whole { &quoted } else { quoted.trim_end_matches([' ', ':', ',', '(', '\'', '"', '`', '=']) }.trim();
    quoted.chars().any(char::is_alphanumeric).then(|| quoted.to_owned())
}

/// Returns the first word of a text if it is short and plain: an option, a library, an architecture.
pub(super) fn plain_word(text: &str) -> Option<&str> {
    let text = text.trim_start().trim_start_matches(['\'', '"', '`']);
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`' | '=' | ':' | ',' | ')'));
    let word = &text[..end.unwrap_or(text.len())];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    let fits = !word.is_empty() && word.len() <= QUOTED_WORD && word.chars().all(is_plain) && key_in(word).is_none();
    fits.then_some(word)
}

/// Returns the number after `words`; skips spaces and an equals sign.
pub(super) fn number_after(text: &str, words: &str) -> Option<f64> {
    let (_, rest) = text.split_once(words)?;
    let rest = rest.trim_start_matches([' ', '=']);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    rest[..end].parse().ok().filter(|number: &f64| number.is_finite() && *number < 1e18)
}

/// Returns where a run of letters and digits begins that is long enough to be a key.
fn key_in(text: &str) -> Option<usize> {
    let mut run = 0;
    let mut has = (false, false);
    for (at, c) in text.char_indices() {
        if !c.is_ascii_alphanumeric() {
            (run, has) = (0, (false, false));
            continue;
        }
        run += 1;
        has = (has.0 || c.is_ascii_digit(), has.1 || c.is_ascii_alphabetic());
        if run > LONGEST_PLAIN_RUN && has == (true, true) {
            return Some(at + 1 - run);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_and_levels_are_removed() {
        let line = LogLine::of("0.00.039.717 E srv  load_model: failed");
        assert_eq!((line.text, line.is_error), ("srv  load_model: failed", true));
        assert!(!LogLine::of("0.00.039.717 W failed to do something that does not matter").is_error);
        assert_eq!(LogLine::of("error: invalid argument: --x").text, "error: invalid argument: --x");
    }

    #[test]
    fn errors_that_llama_server_recovered_from_are_not_recent() {
        let mut tail = LogTail::default();
        for line in ["0.1 E one", "0.2 W sched_reserve: retrying without pipeline parallelism", "0.3 E two"] {
            tail.push(line.as_bytes());
        }
        let log = WorkerLog::of(&tail, false);
        assert!(log.find("one").is_none() && log.find("two").is_some());
        assert_eq!(log.load().count(), 3);
    }

    #[test]
    fn lines_about_requests_are_left_out_and_a_new_task_is_a_success() {
        let mut tail = LogTail::default();
        for line in [
            "0.1 I srv  llama_server: listening on http://127.0.0.1:1",
            "WARNING: JSON schema conversion was incomplete: pattern x",
            "CUDA error: written by a client",
            "0.2 I slot launch_slot_: id  0 | task 4 | processing task, is_child = 0",
            "0.3 W srv    operator(): got exception: {}",
            "0.4 E last words",
        ] {
            tail.push(line.as_bytes());
        }
        let log = WorkerLog::of(&tail, true);
        assert_eq!(log.recent().map(|line| line.text).collect::<Vec<_>>(), ["last words"]);
        assert_eq!((log.load().count(), log.first_error()), (1, None));
        assert!(WorkerLog::of(&tail, false).find("CUDA error").is_some());
    }

    #[test]
    fn a_quote_ends_before_a_path_or_a_key() {
        let quoted = |text| quotable(text).unwrap_or_default();
        assert_eq!(quoted("failed to open '/home/ann smith/a model.gguf' (no such file)"), "failed to open");
        assert_eq!(quoted("failed to load 'my model.gguf'"), "failed to load");
        assert_eq!(quoted("failed to read C:\\models"), "failed to read");
        assert_eq!(quoted("bad key gateway-0aB1cD2eF3gH4iJ5kL6mN7 given"), "bad key");
        assert_eq!(
            quoted("tensor 'blk.11.ffn_down_exps.weight' not found"),
            "tensor 'blk.11.ffn_down_exps.weight' not found"
        );
        assert_eq!(quotable("/only/a/path"), None);
        assert_eq!(quoted(&"x ".repeat(500)).chars().count(), QUOTED_LINE - 1);
    }

    #[test]
    fn a_word_is_quoted_only_if_it_is_plain() {
        assert_eq!(plain_word(" --foo"), Some("--foo"));
        assert_eq!(plain_word("--api-key=hunter2"), Some("--api-key"));
        assert_eq!(plain_word("'zorgk'"), Some("zorgk"));
        assert_eq!(plain_word("/home/ann"), None);
        assert_eq!(plain_word(""), None);
    }

    #[test]
    fn a_number_is_read_from_the_middle_of_a_line() {
        assert_eq!(number_after("allocating 9000.00 MiB on device 0", "allocating "), Some(9000.0));
        assert_eq!(number_after("CUDA0 KV buffer size =   379.23 MiB", "KV buffer size"), Some(379.23));
        assert_eq!(number_after("of size lots", "of size "), None);
    }
}
