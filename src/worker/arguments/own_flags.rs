//! The flags that the gateway passes by itself, as one llama-server knows them.

use super::help::LlamaHelp;
use crate::dial::OpenConnections;
use crate::settings::catalogue::LoadMode;
use crate::worker::bounds::PROBE_CONNECTIONS;

/// The flag that names a multimodal projector.
pub const PROJECTOR_FLAG: &str = "--mmproj";

/// The flag for the number of threads that read requests and write responses.
const HTTP_THREADS_FLAG: &str = "--threads-http";

/// Returns whether this llama-server takes a flag. One whose help is unknown is taken for one that does.
pub(crate) fn may_take(help: Option<&LlamaHelp>, flag: &str) -> bool {
    help.is_none_or(|help| help.has(flag))
}

/// Returns the arguments for how the model file is kept in memory: `--load-mode`, or `--no-mmap` and `--mlock` of older
/// builds.
pub(crate) fn load_mode(help: Option<&LlamaHelp>, mode: LoadMode) -> &'static [&'static str] {
    let has_modes = help.is_some_and(|help| help.has("--load-mode"));
    match (has_modes, mode.mmap, mode.mlock) {
        // Mapping is llama-server's own default.
        (_, None | Some(true), false) => &[],
        (true, Some(true), true) => &["--load-mode", "mmap+mlock"],
        (true, _, true) => &["--load-mode", "mlock"],
        (true, Some(false), false) => &["--load-mode", "none"],
        (false, Some(false), true) => &["--no-mmap", "--mlock"],
        (false, Some(false), false) => &["--no-mmap"],
        (false, _, true) => &["--mlock"],
    }
}

/// Returns the arguments for the threads of llama-server that serve connections: one for each connection that the gateway
/// may have open to a llama-server with this many slots. Returns none if `extra`, the user's own arguments, has the flag.
///
/// Each connection occupies a thread, even while it is idle, and without this flag a llama-server has few more threads
/// than slots: a burst of small requests would leave none for a chat, or for the probes (`ThreadPool` in cpp-httplib).
pub(crate) fn http_threads(help: Option<&LlamaHelp>, slots: usize, extra: &[String]) -> Vec<String> {
    // llama-server takes `_` for `-` in long options.
    if !may_take(help, HTTP_THREADS_FLAG) || extra.iter().any(|word| word.replace('_', "-") == HTTP_THREADS_FLAG) {
        return Vec::new();
    }
    let connections = OpenConnections::for_slots(slots).most() + PROBE_CONNECTIONS;
    vec![HTTP_THREADS_FLAG.to_owned(), connections.to_string()]
}

#[cfg(test)]
mod tests {
    use super::super::help::tests::{CURRENT, OLDER};
    use super::*;

    #[test]
    fn each_connection_gets_a_thread_unless_the_user_chose_a_number_or_the_build_has_no_flag() {
        let (current, older) = (LlamaHelp::parse(CURRENT), LlamaHelp::parse(OLDER));
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (help, slots, extra, expected) in [
            (current.as_ref(), 1, own(&[]), "--threads-http 69"),
            (current.as_ref(), 8, own(&["--jinja"]), "--threads-http 76"),
            (None, 1, own(&[]), "--threads-http 69"),
            (older.as_ref(), 1, own(&[]), ""),
            (current.as_ref(), 1, own(&["--threads-http", "3"]), ""),
            (current.as_ref(), 1, own(&["--threads_http", "3"]), ""),
        ] {
            assert_eq!(http_threads(help, slots, &extra).join(" "), expected, "{slots} {extra:?}");
        }
    }

    #[test]
    fn switches_that_current_builds_do_not_know_ended_every_start() {
        let (current, older) = (LlamaHelp::parse(CURRENT), LlamaHelp::parse(OLDER));
        for (mmap, mlock, by_mode, by_switch) in [
            (None, false, "", ""),
            (Some(true), false, "", ""),
            (Some(false), false, "--load-mode none", "--no-mmap"),
            (None, true, "--load-mode mlock", "--mlock"),
            (Some(false), true, "--load-mode mlock", "--no-mmap --mlock"),
            (Some(true), true, "--load-mode mmap+mlock", "--mlock"),
        ] {
            let mode = LoadMode { mmap, mlock };
            assert_eq!(load_mode(current.as_ref(), mode).join(" "), by_mode, "{mode:?}");
            assert_eq!(load_mode(older.as_ref(), mode).join(" "), by_switch, "{mode:?}");
            assert_eq!(load_mode(None, mode).join(" "), by_switch, "{mode:?}, help unknown");
        }
        assert!(
            may_take(None, "--fit") && !may_take(older.as_ref(), "--fit") && may_take(current.as_ref(), "--no-webui")
        );
    }
}
