//! The names of log files: `YYYYMMDD[_HHMMSS]_KIND_INSTANCE.log`, in UTC, so that names sort by time. A file that has
//! become too large is continued in `STEM.part0002.log` and so on, which sort behind it.

use jiff::Timestamp;
use jiff::tz::Offset;

/// Maximum length of an instance id in a file name, in bytes.
pub const MAX_INSTANCE: usize = 64;

/// What comes between the stem and the number of a part.
const PART: &str = ".part";
const DATE_DIGITS: usize = 8;
const TIME_DIGITS: usize = 6;

/// Returns the text as part of a file name: letters, digits, `.`, `_` and `-` are kept, other characters become `_`. At
/// most [`MAX_INSTANCE`] characters, never empty.
#[must_use]
pub fn sanitise(text: &str) -> String {
    let safe: String = text.chars().take(MAX_INSTANCE).map(|c| if is_safe(c) { c } else { '_' }).collect();
    if safe.is_empty() { "unknown".to_owned() } else { safe }
}

fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

/// Returns the name, without `.log`, of a file that starts at `now`. `kind` and `instance` must be sanitised already.
pub(super) fn start_stem(now: Timestamp, kind: &str, instance: &str) -> String {
    let time = Offset::UTC.to_datetime(now);
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    format!("{}_{hour:02}{minute:02}{second:02}_{kind}_{instance}", date(now))
}

/// Returns the name, without `.log`, of the file for the day of `now`.
pub(super) fn day_stem(now: Timestamp, kind: &str, instance: &str) -> String {
    format!("{}_{kind}_{instance}", date(now))
}

/// Returns the name of a part; part 1 is the file itself.
pub(super) fn part_name(stem: &str, part: u32) -> String {
    if part <= 1 { format!("{stem}.log") } else { format!("{stem}{PART}{part:04}.log") }
}

/// Returns the number in the name of a part of the file with this stem.
pub(super) fn part_number(name: &str, stem: &str) -> Option<u32> {
    let digits = name.strip_prefix(stem)?.strip_prefix(PART)?.strip_suffix(".log")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Whether this is the file with this stem, or a part of it.
pub(super) fn is_part_of(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem) == Some(".log") || part_number(name, stem).is_some()
}

/// Whether `name` is a later part of the file of which `other` is one.
pub(super) fn is_later_part(name: &str, other: &str) -> bool {
    let ((stem, part), (other_stem, other_part)) = (part_order(name), part_order(other));
    stem == other_stem && part > other_part
}

/// Returns stem and number of a part, which sort as the files were begun, also beyond four digits.
pub(super) fn part_order(name: &str) -> (&str, u32) {
    let whole = name.strip_suffix(".log").unwrap_or(name);
    match whole.rsplit_once(PART) {
        Some((stem, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (stem, digits.parse().unwrap_or(u32::MAX))
        }
        _ => (whole, 1),
    }
}

/// Whether two files are of the same kind and instance, so that they are one log.
pub(super) fn is_same_log(name: &str, other: &str) -> bool {
    let log_of = |name: &str| {
        let (stem, _) = part_order(name);
        let rest = after_digits(stem, DATE_DIGITS)?;
        let rest = after_digits(rest, TIME_DIGITS).unwrap_or(rest);
        // Further files of one second have a number.
        let numbered = rest.rsplit_once('_').filter(|(_, number)| is_number_of_second(number));
        Some(numbered.map_or(rest, |(log, _)| log).to_owned())
    };
    name.ends_with(".log") && log_of(name).is_some_and(|log| log_of(other) == Some(log))
}

fn is_number_of_second(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a file was begun after another one of its log.
pub(super) fn is_begun_after(name: &str, other: &str) -> bool {
    part_order(name) > part_order(other)
}

fn date(now: Timestamp) -> String {
    let day = Offset::UTC.to_datetime(now);
    format!("{:04}{:02}{:02}", day.year(), day.month(), day.day())
}

/// Whether this is the name of a log file of this kind, which may be deleted when it is old.
pub(super) fn is_log_name(name: &str, kind: &str) -> bool {
    let instance = || {
        let rest = name.strip_suffix(".log")?;
        let rest = after_digits(rest, DATE_DIGITS)?;
        let rest = after_digits(rest, TIME_DIGITS).unwrap_or(rest);
        rest.strip_prefix(kind)?.strip_prefix('_')
    };
    instance().is_some_and(|instance| !instance.is_empty() && instance.chars().all(is_safe))
}

/// Returns the text after exactly `count` digits and a `_`.
fn after_digits(text: &str, count: usize) -> Option<&str> {
    let (digits, rest) = text.split_at_checked(count)?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { rest.strip_prefix('_') } else { None }
}

/// Returns the date and time at the start of a name, for comparing names of different kinds and instances.
pub(super) fn timestamp_of(name: &str) -> &str {
    let end = name.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(name.len());
    &name[..end]
}

/// Whether this is a plain file name, not a path.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_ids_are_sanitised() {
        assert_eq!(sanitise("pod-1.a_B"), "pod-1.a_B");
        assert_eq!(sanitise("../etc/passwd\n\u{fc}"), ".._etc_passwd__");
        assert_eq!(sanitise(""), "unknown");
        assert_eq!(sanitise(&"x".repeat(100)).len(), MAX_INSTANCE);
    }

    #[test]
    fn parts_sort_behind_their_file_and_before_the_next_one() {
        let names = [1, 2, 10, 9_999].map(|part| part_name("20260102_access_pod", part));
        assert_eq!(names[..2], ["20260102_access_pod.log", "20260102_access_pod.part0002.log"]);
        let mut sorted = names.to_vec();
        sorted.push("20260103_access_pod.log".to_owned());
        assert!(sorted.is_sorted());
        assert!(names.iter().all(|name| is_log_name(name, "access") && is_part_of(name, "20260102_access_pod")));
        assert!(is_later_part(&part_name("s", 10_000), &part_name("s", 9_999)));
        assert!(!is_later_part("t.part0002.log", "s.log") && !is_part_of("s.partial.log", "s"));
        assert_eq!((part_number("s.part0012.log", "s"), part_number("s.part.log", "s")), (Some(12), None));
    }

    #[test]
    fn a_log_is_the_files_of_one_kind_and_instance() {
        let newest = "20260102_030405_server_pod.part0002.log";
        for same in ["20260101_000000_server_pod.log", "20260102_030405_server_pod_02.log", "20260102_server_pod.log"] {
            assert!(is_same_log(same, newest), "{same}");
        }
        for other in ["20260101_000000_server_pod2.log", "20260101_000000_boot_pod.log", "latest.txt", "server_pod.log"]
        {
            assert!(!is_same_log(other, newest), "{other}");
        }
        assert!(is_begun_after(newest, "20260102_030405_server_pod.log"));
        assert!(!is_begun_after(newest, "20260102_030406_server_pod.log") && !is_begun_after(newest, newest));
    }

    #[test]
    fn only_names_of_the_kind_are_log_names() {
        for ours in ["20260102_030405_server_pod.log", "20260102_server_pod.log", "20260102_030405_server_pod_02.log"] {
            assert!(is_log_name(ours, "server"), "{ours}");
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
            assert!(!is_log_name(other, "server"), "{other}");
        }
    }

    #[test]
    fn names_have_the_time_in_utc() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(start_stem(now, "boot", "pod"), "20260102_030405_boot_pod");
        assert_eq!(day_stem(now, "access", "pod"), "20260102_access_pod");
        assert_eq!(timestamp_of("20260102_030405_boot_pod.log"), "20260102_030405_");
    }
}
