//! The flags that the gateway passes by itself, as one llama-server knows them.

use super::help::LlamaHelp;
use crate::settings::catalogue::LoadMode;

/// The flag that names a multimodal projector.
pub const PROJECTOR_FLAG: &str = "--mmproj";

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

#[cfg(test)]
mod tests {
    use super::super::help::tests::{CURRENT, OLDER};
    use super::*;

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
