use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use jiff::Timestamp;

use super::*;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
}

/// The clock of the tests; it stands still until a test sets it.
fn clock() -> Timestamp {
    Timestamp::from_second(NOW.get()).unwrap()
}

fn set(time: &str) {
    NOW.set(time.parse::<Timestamp>().unwrap().as_second());
}

fn wait(seconds: i64) {
    NOW.set(NOW.get() + seconds);
}

/// Rules that keep `keep` files of any size.
fn rules(keep: usize) -> LogRules {
    LogRules { is_written: true, keep, part_size: None }
}

fn text(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

fn logs(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != LATEST);
    names.sort();
    names
}

#[test]
fn each_start_has_its_own_file_and_latest_txt_names_the_newest() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("deep/_boot");
    let folder = LogFolder::open(dir.clone(), rules(20));
    set("2026-01-02T03:04:05Z");
    let mut first = folder.create("boot", "pod/1", clock);
    first.write_all(b"one\n").unwrap();
    let second = folder.create("boot", "pod/1", clock);
    assert_eq!(first.name().unwrap(), "20260102_030405_boot_pod_1.log");
    assert_eq!(second.name().unwrap(), "20260102_030405_boot_pod_1_02.log");
    assert_eq!(logs(&dir), [first.name().unwrap(), second.name().unwrap()], "names sort by time");
    assert_eq!(text(&dir, "20260102_030405_boot_pod_1.log"), "one\n");
    assert_eq!(text(&dir, LATEST), "20260102_030405_boot_pod_1_02.log\n");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir) & !0o750, 0);
    assert_eq!(mode(&dir.join(first.name().unwrap())) & !0o640, 0);
    assert_eq!(folder.errors().lost(), 0);
}

#[test]
fn only_the_newest_log_files_are_kept_and_other_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let others = ["notes.log", "20200101_000000_boot_pod.log", "20200101_000000_server_pod.log.gz"];
    for other in others {
        fs::write(dir.path().join(other), "mine").unwrap();
    }
    let folder = LogFolder::open(dir.path().to_owned(), rules(2));
    set("2026-01-02T00:00:00Z");
    for _ in 0..5 {
        wait(1);
        let _ = folder.create("server", "pod", clock);
    }
    let kept = ["20260102_000004_server_pod.log", "20260102_000005_server_pod.log"];
    let mut expected = [&others[..], &kept[..]].concat();
    expected.sort_unstable();
    assert_eq!(logs(dir.path()), expected);
}

#[test]
fn a_daily_file_changes_at_midnight_utc() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(dir.path().to_owned(), rules(2));
    set("2026-01-30T23:59:59Z");
    let mut file = folder.daily("access", "pod", clock);
    file.write_all(b"late\n").unwrap();
    wait(1);
    file.write_all(b"early\n").unwrap();
    assert_eq!(text(dir.path(), "20260130_access_pod.log"), "late\n");
    assert_eq!(text(dir.path(), "20260131_access_pod.log"), "early\n");
    assert_eq!(text(dir.path(), LATEST), "20260131_access_pod.log\n");
    wait(86_400);
    file.write_all(b"next\n").unwrap();
    assert_eq!(logs(dir.path()), ["20260131_access_pod.log", "20260201_access_pod.log"]);

    let mut again = folder.daily("access", "pod", clock);
    again.write_all(b"restarted\n").unwrap();
    assert_eq!(text(dir.path(), "20260201_access_pod.log"), "next\nrestarted\n");
}

#[test]
fn a_full_disk_drops_lines_and_is_retried_once_a_second() {
    let dir = tempfile::tempdir().unwrap();
    set("2026-01-02T00:00:00Z");
    let name = dir.path().join("20260102_access_pod.log");
    symlink("/dev/full", &name).unwrap();
    let folder = LogFolder::open(dir.path().to_owned(), rules(5));
    let errors = folder.errors();
    let mut file = folder.daily("access", "pod", clock);
    file.write_all(b"lost\n").unwrap();
    fs::remove_file(&name).unwrap();
    file.write_all(b"lost as well\nand this\n").unwrap();
    assert!(!name.exists(), "not retried within the same second");
    assert_eq!(errors.lost(), 3);
    assert!(errors.failure().unwrap().contains("No space left"));
    let report = errors.report_due(clock()).unwrap();
    assert!(report.starts_with("3 log lines could not be written to "), "{report}");
    assert!(report.contains("No space left"), "{report}");
    wait(1);
    file.write_all(b"fine again\n").unwrap();
    assert_eq!(text(dir.path(), "20260102_access_pod.log"), "fine again\n");
    assert_eq!((errors.lost(), errors.failure()), (3, None));
}

#[test]
fn one_writer_that_works_did_not_hide_another_that_fails() {
    let top = tempfile::tempdir().unwrap();
    set("2026-01-02T00:00:00Z");
    let folder = LogFolder::open(top.path().to_owned(), rules(5));
    fs::write(top.path().join("in_the_way"), "").unwrap();
    let mut fails = folder.subfolder("in_the_way").create("server", "pod", clock);
    let mut works = folder.create("server", "pod", clock);
    for file in [&mut fails, &mut works] {
        wait(2);
        file.write_all(b"line\n").unwrap();
    }
    assert!(folder.errors().failure().is_some());
    drop(fails);
    assert_eq!(folder.errors().failure(), None, "nothing is written by it any more");
}

#[test]
fn a_folder_that_cannot_be_created_fails_no_write() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("logs");
    fs::write(&dir, "in the way").unwrap();
    set("2026-01-02T00:00:00Z");
    let folder = LogFolder::open(dir.clone(), rules(5));
    let mut file = folder.create("server", "pod", clock);
    assert_eq!(file.name(), None);
    file.write_all(b"lost\n").unwrap();
    file.flush().unwrap();
    assert_eq!(folder.errors().lost(), 1);
    fs::remove_file(&dir).unwrap();
    wait(2);
    file.write_all(b"found\n").unwrap();
    assert_eq!(file.name().as_deref(), Some("20260102_000000_server_pod.log"), "the name is that of the start");
    assert_eq!(text(&dir, "20260102_000000_server_pod.log"), "found\n");
    assert_eq!(text(&dir, LATEST), "20260102_000000_server_pod.log\n");
}

#[test]
fn a_deleted_folder_is_created_again() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("logs");
    set("2026-01-02T00:00:00Z");
    let mut file = LogFolder::open(dir.clone(), rules(5)).create("server", "pod", clock);
    file.write_all(b"one\n").unwrap();
    fs::remove_dir_all(&dir).unwrap();
    wait(1);
    file.write_all(b"two\n").unwrap();
    assert_eq!(text(&dir, "20260102_000000_server_pod.log"), "two\n");
}

/// Regression: files that another program had renamed were written on, and their own names never came back.
#[test]
fn a_renamed_file_begins_again_within_a_second() {
    let dir = tempfile::tempdir().unwrap();
    set("2026-01-02T00:00:00Z");
    let folder = LogFolder::open(dir.path().to_owned(), rules(9));
    let mut files: [(Box<dyn Write>, &str); 2] = [
        (Box::new(folder.create("server", "pod", clock)), "20260102_000000_server_pod.log"),
        (Box::new(folder.daily("access", "pod", clock)), "20260102_access_pod.log"),
    ];
    for (file, name) in &mut files {
        let old = format!("{name}.old");
        file.write_all(b"one\n").unwrap();
        fs::rename(dir.path().join(*name), dir.path().join(&old)).unwrap();
        wait(1);
        file.write_all(b"two\n").unwrap();
        assert_eq!([text(dir.path(), name), text(dir.path(), &old)], ["two\n", "one\n"]);
    }
    assert_eq!(folder.errors().lost(), 0);
}

/// A program that rotates logs may own the folder and make no new file: the renamed one is better than none.
#[test]
fn a_renamed_file_takes_the_lines_while_no_new_one_can_be_made() {
    let dir = tempfile::tempdir().unwrap();
    set("2026-01-02T00:00:00Z");
    let folder = LogFolder::open(dir.path().to_owned(), rules(9));
    let mut file = folder.daily("access", "pod", clock);
    file.write_all(b"one\n").unwrap();
    let path = dir.path().join("20260102_access_pod.log");
    fs::rename(&path, dir.path().join("old")).unwrap();
    // Nothing can be made behind this link.
    symlink(dir.path().join("no folder/file"), &path).unwrap();
    wait(1);
    file.write_all(b"two\n").unwrap();
    fs::remove_file(&path).unwrap();
    wait(1);
    file.write_all(b"three\n").unwrap();
    assert_eq!([text(dir.path(), "old"), fs::read_to_string(&path).unwrap()], ["one\ntwo\n", "three\n"]);
    assert_eq!(folder.errors().lost(), 0);
}

#[test]
fn a_file_opened_again_does_not_hide_a_newer_one() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(dir.path().to_owned(), rules(5));
    set("2026-01-02T00:00:00Z");
    let mut old = folder.create("server", "pod", clock);
    wait(5);
    let new = folder.create("server", "pod", clock);
    fs::remove_file(dir.path().join(old.name().unwrap())).unwrap();
    old.write_all(b"late\n").unwrap();
    assert_eq!(text(dir.path(), LATEST).trim(), new.name().unwrap());
    assert_eq!(text(dir.path(), &old.name().unwrap()), "late\n");
}

#[test]
fn a_daily_file_can_be_used_on_a_writer_thread() {
    let dir = tempfile::tempdir().unwrap();
    let file = LogFolder::open(dir.path().to_owned(), rules(5)).daily("access", "pod", Timestamp::now);
    let (mut writer, guard) = tracing_appender::non_blocking(file);
    writer.write_all(b"line\n").unwrap();
    drop(guard);
    let name = text(dir.path(), LATEST);
    assert_eq!(text(dir.path(), name.trim()), "line\n");
}

/// Returns all lines of a folder's files in the order of their names.
fn all_lines(dir: &Path) -> String {
    logs(dir).iter().map(|name| text(dir, name)).collect()
}

/// Returns `count` numbered lines of 16 bytes each, beginning with `first`.
fn numbered(first: usize, count: usize) -> String {
    (first..first + count).map(|number| format!("line {number:010}\n")).collect()
}

#[test]
fn a_log_grew_without_a_bound_until_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let folder = LogFolder::open(dir.path().to_owned(), LogRules { part_size: Some(64), ..rules(3) });
    set("2026-01-02T00:00:00Z");
    let mut file = folder.create("server", "pod", clock);
    for number in 0..10 {
        file.write_all(numbered(number, 1).as_bytes()).unwrap();
    }
    let stem = "20260102_000000_server_pod";
    let names = [format!("{stem}.log"), format!("{stem}.part0002.log"), format!("{stem}.part0003.log")];
    assert_eq!(logs(dir.path()), names);
    assert_eq!(all_lines(dir.path()), numbered(0, 10), "no line is lost or torn");
    assert!(names[..2].iter().all(|name| text(dir.path(), name).len() == 64));
    assert_eq!(text(dir.path(), LATEST).trim(), names[2]);
    for number in 10..20 {
        file.write_all(numbered(number, 1).as_bytes()).unwrap();
    }
    // LOG_KEEP counts parts.
    assert_eq!(logs(dir.path()), [3, 4, 5].map(|part| format!("{stem}.part{part:04}.log")));
    assert_eq!(all_lines(dir.path()), numbered(8, 12));
    assert_eq!(text(dir.path(), LATEST).trim(), format!("{stem}.part0005.log"));
    assert_eq!(file.name().unwrap(), format!("{stem}.part0005.log"));
}

#[test]
fn a_batch_of_lines_is_divided_at_the_end_of_a_line() {
    let dir = tempfile::tempdir().unwrap();
    set("2026-01-02T00:00:00Z");
    let folder = LogFolder::open(dir.path().to_owned(), LogRules { part_size: Some(70), ..rules(20) });
    let mut file = folder.daily("access", "pod", clock);
    file.write_all(numbered(0, 9).as_bytes()).unwrap();
    // A line that is longer than a part has a part of its own.
    let long = format!("{}\n", "x".repeat(200));
    file.write_all(format!("{long}{}", numbered(9, 1)).as_bytes()).unwrap();
    assert_eq!(all_lines(dir.path()), format!("{}{long}{}", numbered(0, 9), numbered(9, 1)));
    let sizes: Vec<usize> = logs(dir.path()).iter().map(|name| text(dir.path(), name).len()).collect();
    assert_eq!(sizes, [64, 64, 16, 201, 16]);
    // A start on the same day goes on with the last part, a new day with the file itself.
    let mut again = folder.daily("access", "pod", clock);
    again.write_all(numbered(10, 1).as_bytes()).unwrap();
    assert_eq!(text(dir.path(), "20260102_access_pod.part0005.log"), numbered(9, 2));
    wait(86_400);
    again.write_all(numbered(11, 1).as_bytes()).unwrap();
    assert_eq!(text(dir.path(), "20260103_access_pod.log"), numbered(11, 1));
    assert_eq!(text(dir.path(), LATEST).trim(), "20260103_access_pod.log");
}

#[test]
fn a_full_disk_at_a_new_part_drops_lines_and_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    set("2026-01-02T00:00:00Z");
    let folder = LogFolder::open(dir.path().to_owned(), LogRules { part_size: Some(32), ..rules(20) });
    let mut file = folder.daily("access", "pod", clock);
    let next = dir.path().join("20260102_access_pod.part0002.log");
    symlink("/dev/full", &next).unwrap();
    file.write_all(numbered(0, 3).as_bytes()).unwrap();
    assert_eq!((folder.errors().lost(), text(dir.path(), "20260102_access_pod.log")), (1, numbered(0, 2)));
    fs::remove_file(&next).unwrap();
    wait(1);
    file.write_all(numbered(3, 1).as_bytes()).unwrap();
    assert_eq!(fs::read_to_string(next).unwrap(), numbered(3, 1));
}

#[test]
fn the_parts_of_one_instance_do_not_delete_the_open_file_of_another() {
    let dir = tempfile::tempdir().unwrap();
    set("2026-01-02T00:00:00Z");
    let folder = LogFolder::open(dir.path().to_owned(), LogRules { part_size: Some(16), ..rules(2) });
    let mut first = folder.daily("access", "a", clock);
    first.write_all(numbered(0, 1).as_bytes()).unwrap();
    let mut second = folder.daily("access", "b", clock);
    for number in 0..5 {
        second.write_all(numbered(number, 1).as_bytes()).unwrap();
    }
    assert_eq!(logs(dir.path())[0], "20260102_access_a.log");
    assert_eq!(logs(dir.path()).len(), 2);
}

#[test]
fn nothing_is_made_or_counted_as_lost_if_no_files_are_written() {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join("logs");
    let folder = LogFolder::open(dir.clone(), LogRules { is_written: false, ..rules(2) });
    let (mut start, mut day) = (folder.create("server", "pod", clock), folder.daily("access", "pod", clock));
    start.write_all(b"one\n").unwrap();
    day.write_all(b"one\n").unwrap();
    assert!(!dir.exists());
    assert_eq!((start.name(), folder.errors().lost()), (None, 0));
}
