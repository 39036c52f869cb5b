//! From the last lines of a llama-server's log to one sentence for the operator.

use crate::telemetry::files::Tail;

/// A text that llama-server, ggml or the loader writes, and what it means.
const CAUSES: &[(&str, &str)] = &[
    ("cudaMalloc failed", "out of GPU memory: lower NGL, CTX or PARALLEL, or take a smaller quantisation"),
    ("out of memory", "out of memory: lower NGL, CTX or PARALLEL, or take a smaller quantisation"),
    ("failed to allocate", "out of memory: lower NGL, CTX or PARALLEL, or take a smaller quantisation"),
    ("couldn't bind HTTP server socket", "its port was taken by another program; the next start tries another one"),
    ("unknown model architecture", "this llama-server is too old for the model's architecture: update llama.cpp"),
    ("invalid magic characters", "the model file is not a GGUF file: download it again"),
    ("failed to open GGUF file", "the model file cannot be opened: check MODEL_PATH and its permissions"),
    ("tensor data is not within the file bounds", "the model file is cut short: download it again"),
    ("exiting due to model loading error", "the model could not be loaded; the lines above in its log say why"),
    ("invalid argument:", "llama-server does not know an argument: check EXTRA_ARGS and its version"),
    ("error while handling argument", "llama-server does not take an argument's value: check EXTRA_ARGS, NGL and CTX"),
    ("error while loading shared libraries", "a library that llama-server needs is missing on this machine"),
    ("CUDA driver version is insufficient", "the NVIDIA driver is older than this llama-server needs"),
    ("CUDA error", "the GPU reported an error; see the log"),
];

/// What the log's tail and the signal say about an exit. Earlier rows of the table say more and win.
pub(super) fn hint(tail: &Tail, signal: Option<i32>) -> Option<String> {
    for (text, meaning) in CAUSES {
        if let Some(line) = tail.lines().rev().find(|line| line.contains(text)) {
            return Some(format!("{meaning} ({})", shortened(line)));
        }
    }
    let meaning = match signal? {
        4 => "it used an instruction that this CPU lacks: take a llama.cpp build for this CPU",
        6 => "it aborted; see the last lines of its log",
        9 => "it was killed, most likely because the machine ran out of memory",
        11 => "it crashed (segmentation fault); see the last lines of its log",
        _ => return None,
    };
    Some(meaning.to_owned())
}

/// Longest piece of a log line that a hint quotes, in characters.
const QUOTED: usize = 160;

/// Paths name users and folders, and hints are shown on `/health`: only what cannot hold one is quoted.
fn shortened(line: &str) -> String {
    let words = line.split_whitespace().map(|word| if word.contains('/') { "..." } else { word });
    words.collect::<Vec<_>>().join(" ").chars().take(QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint_of(lines: &[&str], signal: Option<i32>) -> Option<String> {
        let mut tail = Tail::default();
        lines.iter().for_each(|line| tail.push(line.as_bytes()));
        hint(&tail, signal)
    }

    #[test]
    fn the_most_telling_line_wins_over_the_last_one() {
        let lines = [
            "E gguf_init_from_file_ptr: invalid magic characters: 'abcd'",
            "E srv main: exiting due to model loading error",
        ];
        assert!(hint_of(&lines, None).unwrap().starts_with("the model file is not a GGUF file"));
    }

    #[test]
    fn a_signal_is_explained_when_the_log_says_nothing() {
        assert!(hint_of(&["hello"], Some(9)).unwrap().contains("ran out of memory"));
        assert_eq!(hint_of(&["hello"], Some(15)), None);
        assert_eq!(hint_of(&[], None), None);
    }

    #[test]
    fn a_hint_quotes_no_path() {
        let hint = hint_of(&["failed to open GGUF file '/home/ann/secret.gguf'"], None).unwrap();
        assert!(!hint.contains("secret") && !hint.contains("/home"), "{hint}");
    }
}
