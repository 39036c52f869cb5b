//! The file of answers: what is found again, what leaves it, and that a file that cannot be used ends nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use rusqlite::Connection;

use super::answer_disk::AnswerDisk;
use crate::fleet::ModelRevision;
use crate::gateway::bounds::WAITING_ANSWER_BYTES;
use crate::gateway::cache::cache_bounds::CacheBounds;
use crate::gateway::cache::kept_answer::{KeptAnswer, SharedHead};
use crate::gateway::cache::key::CacheKey;
use crate::settings::options::Caching;
use crate::settings::values::{ByteSize, CacheMode, Seconds, ZeroIsOff};
use crate::telemetry::metrics::Metrics;

/// Longest wait for the writer.
const WRITER_WAIT: Duration = Duration::from_secs(30);

struct DiskFixture {
    folder: tempfile::TempDir,
    metrics: Arc<Metrics>,
    settings: Caching,
}

/// The answers that were found in the file, the oldest first.
type FoundAnswers = Arc<Mutex<Vec<(CacheKey, KeptAnswer)>>>;

impl DiskFixture {
    fn new() -> Self {
        let settings = Caching {
            cache: CacheMode::All,
            cache_max_bytes: ByteSize(1 << 20),
            cache_max_size: ZeroIsOff(None),
            cache_ttl: Seconds(Duration::from_secs(3600)),
            cache_persist_to_disk: true,
            cache_shared: false,
        };
        Self { folder: tempfile::tempdir().unwrap(), metrics: Arc::new(Metrics::new("local")), settings }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("made/cache.db")
    }

    fn start(&self) -> (AnswerDisk, FoundAnswers) {
        let found = FoundAnswers::default();
        let restored = Arc::clone(&found);
        let restore = move |key, answer| restored.lock().unwrap().push((key, answer));
        (
            AnswerDisk::start(self.path(), CacheBounds::of(&self.settings), &self.metrics, (restore, || {})).unwrap(),
            found,
        )
    }

    /// Keeps these answers on the disk.
    fn write(&self, answers: &[(u8, usize)]) {
        let (disk, _) = self.start();
        for (key, length) in answers {
            disk.put(CacheKey::numbered(*key), &answer(*key, *length));
        }
        disk.close();
    }

    /// Returns the keys and the ages of what is found in the file.
    fn found(&self) -> Vec<(CacheKey, KeptAnswer)> {
        let (disk, found) = self.start();
        disk.close();
        Arc::into_inner(found).map(|found| found.into_inner().unwrap()).unwrap_or_default()
    }

    fn keys(&self) -> Vec<CacheKey> {
        self.found().into_iter().map(|(key, _)| key).collect()
    }

    fn change(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }
}

fn keys(numbers: &[u8]) -> Vec<CacheKey> {
    numbers.iter().map(|number| CacheKey::numbered(*number)).collect()
}

fn answer(number: u8, length: usize) -> Arc<KeptAnswer> {
    let head = SharedHead { status: StatusCode::OK, headers: HeaderMap::new() };
    let pieces = [Bytes::from(vec![number; length])];
    Arc::new(KeptAnswer::new(("m", ModelRevision::numbered(7)), &head, pieces.iter()))
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + WRITER_WAIT;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

fn assert_sound(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// An answer is found again as it was kept: its pieces, its headers, its model.
    #[test]
    fn answers_are_found_again_as_they_were(
        pieces in vec(vec(any::<u8>(), 0..200), 0..20),
        headers in vec(("[a-z][a-z-]{0,8}", "[ -~\u{e9}]{0,20}"), 0..6),
    ) {
        let fixture = DiskFixture::new();
        let mut head = HeaderMap::new();
        for (name, value) in &headers {
            head.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.trim().as_bytes()).unwrap());
        }
        let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
        let head = SharedHead { status: StatusCode::OK, headers: head };
        let kept = Arc::new(KeptAnswer::new(("m", ModelRevision::numbered(7)), &head, pieces.iter()));
        let (disk, _) = fixture.start();
        disk.put(CacheKey::numbered(1), &kept);
        disk.close();
        let found = fixture.found();
        prop_assert_eq!(found.len(), 1);
        let (key, found) = &found[0];
        prop_assert_eq!(*key, CacheKey::numbered(1));
        prop_assert_eq!((&found.model, found.revision, &found.head.headers), (&kept.model, kept.revision, &kept.head.headers));
        prop_assert_eq!((found.body(), found.ends()), (kept.body(), kept.ends()));
        prop_assert!(found.age() >= Duration::ZERO && found.age() < WRITER_WAIT);
    }
}

#[test]
fn the_answers_that_were_kept_longest_ago_leave_first() {
    let mut fixture = DiskFixture::new();
    let most = |size: usize| (size + answer(0, 0).size()) * 3;
    fixture.settings.cache_max_bytes = ByteSize(most(1000));
    fixture.write(&[(1, 1000), (2, 1000), (3, 1000), (4, 1000), (5, 1000)]);
    assert_eq!(fixture.keys(), keys(&[3, 4, 5]));
    fixture.write(&[(3, 900)]);
    assert_eq!(fixture.keys(), keys(&[4, 5, 3]), "one in the place of another");
    assert_eq!(fixture.metrics.cache_disk_entries.get(), 3);
    fixture.settings.cache_max_size = ZeroIsOff(Some(2));
    assert_eq!(fixture.keys(), keys(&[5, 3]), "the bounds are lower than before");
    fixture.write(&[(6, 10)]);
    assert_eq!(fixture.keys(), keys(&[3, 6]));
    assert_sound(&fixture.path());
}

#[test]
fn age_counts_over_a_restart_and_what_is_too_old_or_comes_from_the_future_leaves() {
    let fixture = DiskFixture::new();
    fixture.write(&[(1, 10), (2, 10), (3, 10), (4, 10)]);
    fixture.change(
        "UPDATE answers SET kept = kept - 3590000000 WHERE hex(key) LIKE '01%';
         UPDATE answers SET kept = kept - 3601000000 WHERE hex(key) LIKE '02%';
         UPDATE answers SET kept = kept + 600000000 WHERE hex(key) LIKE '03%';",
    );
    let found = fixture.found();
    assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys(&[1, 4]));
    assert!(found[0].1.age() >= Duration::from_secs(3590) && found[1].1.age() < WRITER_WAIT);
    let connection = Connection::open(fixture.path()).unwrap();
    let rows: i64 = connection.query_row("SELECT count(*) FROM answers", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 2);
}

#[test]
fn a_row_that_is_none_of_this_program_is_passed_over() {
    let fixture = DiskFixture::new();
    fixture.write(&[(1, 10), (2, 10), (3, 10), (4, 10), (5, 10)]);
    for (number, change) in [(1, "ends = x'00'"), (2, "revision = x'00'"), (3, "head = x'ff'"), (4, "body = x'00'")] {
        fixture.change(&format!("UPDATE answers SET {change} WHERE hex(key) LIKE '0{number}%'"));
    }
    assert_eq!(fixture.keys(), keys(&[5]));
}

#[test]
fn what_finds_no_room_in_the_queue_is_counted_and_kept_in_memory_only() {
    let mut fixture = DiskFixture::new();
    fixture.settings.cache_max_bytes = ByteSize(1 << 30);
    // A folder has the name of the file, so that nothing can be written.
    fs::create_dir_all(fixture.path()).unwrap();
    let (disk, _) = fixture.start();
    let large = answer(1, 20 << 20);
    let fit = WAITING_ANSWER_BYTES / large.size();
    for number in 0..fit + 2 {
        disk.put(CacheKey::numbered(number as u8), &large);
    }
    assert_eq!(fixture.metrics.cache_disk_dropped.get(), 2);
    disk.put(CacheKey::numbered(9), &answer(9, 40 << 20));
    assert_eq!(fixture.metrics.cache_disk_dropped.get(), 3, "it is too large");
    wait_until("the failure is counted", || fixture.metrics.cache_disk_failures.get() > 0);
    assert!(fixture.metrics.warnings.texts().iter().any(|text| text.contains("answers are not kept on disk")));
    fs::remove_dir(fixture.path()).unwrap();
    disk.close();
    assert_eq!(fixture.keys(), (0..fit).map(|number| CacheKey::numbered(number as u8)).collect::<Vec<_>>());
}

#[test]
fn the_file_of_another_process_is_taken_over_when_that_has_ended() {
    let fixture = DiskFixture::new();
    fixture.write(&[(1, 10)]);
    let (first, read) = fixture.start();
    // The gauge does not tell: the writer before has set it, too.
    wait_until("the first has it", || read.lock().unwrap().len() == 1);
    let (second, found) = fixture.start();
    second.put(CacheKey::numbered(2), &answer(2, 10));
    wait_until("the second is told", || fixture.metrics.cache_disk_failures.get() > 0);
    assert!(fixture.metrics.warnings.texts().iter().any(|text| text.contains("another process uses the file")));
    first.close();
    wait_until("the second has it", || fixture.metrics.cache_disk_entries.get() == 2);
    assert_eq!(found.lock().unwrap().len(), 1);
    assert!(fixture.metrics.warnings.texts().is_empty());
    second.close();
    assert_eq!(fixture.keys(), keys(&[1, 2]));
}

#[test]
fn a_file_that_is_taken_away_is_made_again() {
    let fixture = DiskFixture::new();
    let (disk, _) = fixture.start();
    disk.put(CacheKey::numbered(1), &answer(1, 10));
    wait_until("it is written", || fixture.metrics.cache_disk_entries.get() == 1);
    fs::remove_dir_all(fixture.path().parent().unwrap()).unwrap();
    disk.put(CacheKey::numbered(2), &answer(2, 10));
    disk.close();
    assert_eq!(fixture.keys(), keys(&[2]));
}

#[test]
fn closing_waits_for_what_was_put_before() {
    let fixture = DiskFixture::new();
    let (disk, _) = fixture.start();
    for number in 0..100 {
        disk.put(CacheKey::numbered(number), &answer(number, 1000));
    }
    disk.close();
    assert_eq!(fixture.found().len(), 100);
}
