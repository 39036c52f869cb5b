//! Names of log files: `YYYYMMDD[_HHMMSS]_KIND_INSTANCE.log`, UTC, so that names sort by time.

use jiff::Timestamp;
use jiff::tz::Offset;

/// Longest instance id in a file name, in bytes.
pub const MAX_INSTANCE: usize = 64;

const DATE_DIGITS: usize = 8;
const TIME_DIGITS: usize = 6;

/// The text as a part of a file name: letters, digits, `.`, `_` and `-`, others become `_`; at most 64 of them, never none.
#[must_use]
pub fn sanitise(text: &str) -> String {
    let safe: String = text.chars().take(MAX_INSTANCE).map(|c| if is_safe(c) { c } else { '_' }).collect();
    if safe.is_empty() { "unknown".to_owned() } else { safe }
}

fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// The name of a file that begins at `now`, without `.log`. `kind` and `instance` are sanitised already.
pub(super) fn of_start(now: Timestamp, kind: &str, instance: &str) -> String {
    let time = Offset::UTC.to_datetime(now);
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("{}_{hour:02}{minute:02}{second:02}_{kind}_{instance}", date(now))
}

/// The name of the file for the day of `now`.
pub(super) fn of_day(now: Timestamp, kind: &str, instance: &str) -> String {
    format!("{}_{kind}_{instance}.log", date(now))
}

fn date(now: Timestamp) -> String {
    let day = Offset::UTC.to_datetime(now);
    format!("{:04}{:02}{:02}", day.year(), day.month(), day.day())
}

/// Whether this is a log file of this kind, so that deleting old ones may touch it.
pub(super) fn is_ours(name: &str, kind: &str) -> bool {
    let instance = || {
        let rest = name.strip_suffix(".log")?;
        let rest = after_digits(rest, DATE_DIGITS)?;
        let rest = after_digits(rest, TIME_DIGITS).unwrap_or(rest);
        rest.strip_prefix(kind)?.strip_prefix('_')
    };
    instance().is_some_and(|instance| !instance.is_empty() && instance.chars().all(is_safe))
}

/// What follows exactly so many digits and a `_`.
fn after_digits(text: &str, count: usize) -> Option<&str> {
    let (digits, rest) = text.split_at_checked(count)?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { rest.strip_prefix('_') } else { None }
}

/// The date and time at the beginning of a name, to compare names whatever kind and instance they have.
pub(super) fn time_of(name: &str) -> &str {
    let end = name.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(name.len());
    &name[..end]
}

/// Whether this is a file name and not a path.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_become_harmless() {
        assert_eq!(sanitise("pod-1.a_B"), "pod-1.a_B");
        assert_eq!(sanitise("../etc/passwd\n\u{fc}"), ".._etc_passwd__");
        assert_eq!(sanitise(""), "unknown");
        assert_eq!(sanitise(&"x".repeat(100)).len(), MAX_INSTANCE);
    }

    #[test]
    fn only_our_own_names_are_ours() {
        for ours in ["20260102_030405_server_pod.log", "20260102_server_pod.log", "20260102_030405_server_pod_02.log"] {
            assert!(is_ours(ours, "server"), "{ours}");
        }
        for other in [
            "20260102_030405_boot_pod.log",
            "20260102_030405_server_.log",
            "20260102_030405_server_pod.log.gz",
            "2026010_server_pod.log",
            "notes_server_pod.log",
            "20260102_server_p d.log",
            "latest.txt",
            "\u{fc}0260102_server_pod.log",
        ] {
            assert!(!is_ours(other, "server"), "{other}");
        }
    }

    #[test]
    fn names_say_the_time_in_utc() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(of_start(now, "boot", "pod"), "20260102_030405_boot_pod");
        assert_eq!(of_day(now, "access", "pod"), "20260102_access_pod.log");
        assert_eq!(time_of("20260102_030405_boot_pod.log"), "20260102_030405_");
    }
}
