//! The ledger against a plain model of it, over restarts and borders of hours, days and months; and with a file that
//! cannot be used.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::collection::vec;
use proptest::prelude::*;
use rusqlite::Connection;

use super::bounds::{HIGHEST_COUNT, PENDING_ROWS};
use super::schema::LEDGER;
use super::*;
use crate::amount::Amount;
use crate::sqlite_file::{SqliteFileError, SqliteFormat};
use crate::telemetry::metrics::Metrics;

/// Longest wait for the writer's next attempt.
const ATTEMPT_WAIT: Duration = Duration::from_secs(20);

/// Times around borders: of an hour, a day, a month, a year, a leap day; in no order, as after the clock was set back.
const TIMES: &[&str] = &[
    "2028-02-28T23:59:59.999Z",
    "2028-02-29T00:00:00Z",
    "2028-02-29T23:59:59Z",
    "2028-03-01T00:00:00Z",
    "2027-12-31T23:30:00Z",
    "2028-01-01T00:00:00Z",
    "2028-02-29T12:59:59Z",
    "2028-02-29T13:00:00Z",
    "1970-01-01T00:00:00Z",
];

struct LedgerFixture {
    folder: tempfile::TempDir,
    metrics: Arc<Metrics>,
}

impl LedgerFixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), metrics: Arc::new(Metrics::new("local")) }
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("made/usage.db")
    }

    fn settings(&self) -> LedgerSettings {
        LedgerSettings { path: self.path(), keep: Duration::MAX, price_per_hour: Amount::default() }
    }

    fn start(&self) -> (UsageLedger, LedgerGuard) {
        self.start_with(self.settings())
    }

    fn start_at(&self, path: &Path, keep: Duration) -> (UsageLedger, LedgerGuard) {
        self.start_with(LedgerSettings { path: path.to_owned(), keep, ..self.settings() })
    }

    fn start_with(&self, settings: LedgerSettings) -> (UsageLedger, LedgerGuard) {
        UsageLedger::start(settings, Arc::clone(&self.metrics)).unwrap()
    }

    /// Waits until the writer has nothing left that it could not write.
    fn wait_until_written(&self, ledger: &UsageLedger) {
        let end = Instant::now() + ATTEMPT_WAIT;
        loop {
            let _ = ledger.read(&UsageQuery::default());
            if self.metrics.usage_events_waiting.get() == 0 {
                return;
            }
            assert!(Instant::now() < end, "the events are not written");
        }
    }
}

fn event(time: &str, key: &str) -> UsageEvent {
    let name = |name: &str| Some(Arc::from(name)).filter(|_| !name.is_empty());
    UsageEvent {
        time: time.parse().unwrap(),
        key: name(key),
        person: None,
        model: name("m"),
        refused: None,
        prompt_tokens: 5,
        cached_tokens: 3,
        completion_tokens: 2,
        is_budgeted: true,
        charged_tokens: 7,
        slot_time: Duration::from_millis(1500),
        first_byte: Some(Duration::from_millis(500)),
        cost_nanos: 11,
        machine_cost_nanos: 0,
    }
}

fn rows(path: &Path, sql: &str) -> Vec<Vec<String>> {
    let connection = Connection::open(path).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let text = |value| match value {
        rusqlite::types::Value::Integer(number) => number.to_string(),
        rusqlite::types::Value::Text(text) => text,
        other => panic!("{other:?}"),
    };
    let row = |row: &rusqlite::Row<'_>| (0..columns).map(|column| row.get(column).map(text)).collect();
    statement.query_map([], row).unwrap().map(Result::unwrap).collect()
}

fn assert_sound(path: &Path) {
    assert_eq!(rows(path, "PRAGMA integrity_check"), [["ok"]]);
}

fn arbitrary_event() -> impl Strategy<Value = UsageEvent> {
    let name = |names: &'static [&'static str]| {
        proptest::sample::select(names).prop_map(|name| Some(Arc::<str>::from(name)).filter(|name| !name.is_empty()))
    };
    let refused = proptest::sample::select(&[None, None, None, Some("rate_limited"), Some("queue_full")][..]);
    let counts = std::array::from_fn::<_, 4, _>(|_| 0..2_000_000u64);
    let times = (0..5_000u64, proptest::option::of(0..900u64), 0..1_000_000u64);
    (
        proptest::sample::select(TIMES),
        name(&["", "a", "b"]),
        name(&["", "p", "q"]),
        name(&["", "m", "n"]),
        refused,
        counts,
        times,
    )
        .prop_map(|(time, key, person, model, refused, counts, (slot, first_byte, cost_nanos))| {
            let [prompt_tokens, cached_tokens, completion_tokens, charged_tokens] = counts;
            let (slot_time, first_byte) = (Duration::from_millis(slot), first_byte.map(Duration::from_millis));
            UsageEvent {
                key,
                person,
                model,
                refused,
                prompt_tokens,
                cached_tokens,
                completion_tokens,
                charged_tokens,
                slot_time,
                first_byte,
                cost_nanos,
                machine_cost_nanos: cost_nanos / 2,
                ..event(time, "")
            }
        })
}

/// Sums by the words of a subject, as a reader of the specification would add them up.
type PlainSums = BTreeMap<Vec<String>, Vec<u64>>;

fn add(sums: &mut PlainSums, subject: &[&str], counts: &[u64]) {
    let subject = subject.iter().map(|&word| word.to_owned()).collect();
    let sum = sums.entry(subject).or_insert_with(|| vec![0; counts.len()]);
    sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
}

/// Returns the sums of usage, refusals, budgets and of what was not idle.
fn plain_usage(events: &[UsageEvent]) -> [PlainSums; 4] {
    let mut all = std::array::from_fn(|_| PlainSums::new());
    let [usage, refusals, budgets, busy] = &mut all;
    for event in events {
        let word = |name: &Option<Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
        let (key, person, model) = (word(&event.key), word(&event.person), word(&event.model));
        let time = event.time.to_zoned(TimeZone::UTC);
        let hour = time.strftime("%Y-%m-%d %H:00:00").to_string();
        let subject = [hour.as_str(), &key, &person, &model];
        let served = u64::from(event.refused.is_none());
        let first_byte = event.first_byte.unwrap_or_default().as_micros() as u64;
        let counts = [
            served,
            1 - served,
            event.prompt_tokens,
            event.cached_tokens,
            event.completion_tokens,
            event.charged_tokens,
            event.slot_time.as_micros() as u64,
            first_byte,
            event.cost_nanos,
        ];
        add(usage, &subject, &counts);
        if event.machine_cost_nanos > 0 {
            add(busy, &[&hour], &[event.machine_cost_nanos]);
        }
        if let Some(code) = event.refused {
            add(refusals, &[subject.as_slice(), &[code]].concat(), &[1]);
        }
        let persons = if person.is_empty() { vec![""] } else { vec!["", &person] };
        for (period, form) in [("day", "%Y-%m-%d 00:00:00"), ("month", "%Y-%m-01 00:00:00")] {
            for person in persons.iter().filter(|_| !key.is_empty()) {
                let start = time.strftime(form).to_string();
                let counts = [event.charged_tokens, served, event.cost_nanos];
                add(budgets, &[period, &start, &key, person], &counts);
            }
        }
    }
    all
}

fn read_sums(path: &Path, subject: &str, words: usize, counts: &str, table: &str) -> PlainSums {
    let rows = rows(path, &format!("SELECT {subject}, {counts} FROM {table}"));
    let numbers = |row: &[String]| row[words..].iter().map(|number| number.parse().unwrap()).collect();
    rows.iter().map(|row| (row[..words].to_vec(), numbers(row))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Each run of events is recorded by a service of its own, in the same file.
    #[test]
    fn sums_are_those_of_a_plain_model_also_over_restarts(runs in vec(vec(arbitrary_event(), 0..30), 1..4)) {
        let fixture = LedgerFixture::new();
        for events in &runs {
            let (ledger, guard) = fixture.start();
            for event in events {
                ledger.record(event.clone());
            }
            drop(guard);
        }
        let [usage, refusals, budgets, busy] = plain_usage(&runs.concat());
        let path = fixture.path();
        let counts = "requests, refused, prompt_tokens, cached_tokens, completion_tokens, charged_tokens, slot_micros, \
                      first_byte_micros, cost_nanos";
        let hour = "datetime(hour, 'unixepoch'), key, person, model";
        prop_assert_eq!(read_sums(&path, hour, 4, counts, "usage"), usage);
        prop_assert_eq!(read_sums(&path, &format!("{hour}, code"), 5, "requests", "refusals"), refusals);
        let period = "period, datetime(start, 'unixepoch'), key, person";
        prop_assert_eq!(read_sums(&path, period, 4, "tokens, requests, cost_nanos", "budgets"), budgets);
        prop_assert_eq!(read_sums(&path, "datetime(hour, 'unixepoch')", 1, "-cost_nanos", "idle"), busy);
        prop_assert_eq!(fixture.metrics.usage_events_dropped.get(), 0);
    }
}

#[test]
fn readers_see_what_was_recorded_before_they_asked_in_the_groups_that_they_asked_for() {
    let fixture = LedgerFixture::new();
    let (ledger, _guard) = fixture.start();
    for (time, key) in [("2028-02-29T01:00:00Z", "a"), ("2028-02-29T23:00:00Z", "b"), ("2028-03-01T00:00:00Z", "a")] {
        ledger.record(event(time, key));
    }
    ledger.record(UsageEvent { refused: Some("queue_full"), ..event("2028-03-01T00:00:00Z", "") });
    let read = |parameters: &[(&str, &str)], key: Option<&str>| {
        let query = UsageQuery::read(parameters.iter().copied()).unwrap().of_key(key.map(str::to_owned));
        ledger.read(&query).unwrap()
    };
    let csv = |parameters: &[(&str, &str)], key: Option<&str>| to_csv(&read(parameters, key)).replace("\r\n", "\n");
    let counts = "requests,refused,prompt_tokens,cached_tokens,completion_tokens,slot_seconds,first_byte_seconds,cost";
    assert_eq!(
        csv(&[("by", "day")], None),
        format!(
            "start,{counts}\n2028-02-29T00:00:00Z,2,0,10,6,4,3,1,0.000000022\n2028-03-01T00:00:00Z,1,1,10,6,4,3,1,0.000000022\n"
        )
    );
    assert_eq!(
        csv(&[("by", "key"), ("to", "2028-03-01")], Some("a")),
        format!("key,{counts}\na,1,0,5,3,2,1.5,0.5,0.000000011\n")
    );
    let months = read(&[("by", "month,key"), ("from", "2028-03-01")], None);
    let months = serde_json::to_value(&months).unwrap();
    assert_eq!(months["data"][0]["key"], serde_json::Value::Null);
    assert_eq!(months["data"][1]["start"], "2028-03-01T00:00:00Z");
    assert_eq!(months["data"][1].as_object().unwrap().len(), 10);
    let first = read(&[("limit", "2")], None);
    assert_eq!((first.data.len(), first.has_more, first.next), (2, true, Some(2)));
    let second = read(&[("limit", "2"), ("after", "2")], None);
    assert_eq!((second.data.len(), second.has_more, second.next), (2, false, None));
}

#[test]
fn budgets_of_the_current_day_and_month_are_read_and_no_others() {
    let fixture = LedgerFixture::new();
    let (ledger, _guard) = fixture.start();
    ledger.record(UsageEvent { person: Some("p".into()), ..event("2028-02-29T01:00:00Z", "a") });
    ledger.record(event("2028-02-28T01:00:00Z", "a"));
    ledger.record(event("2028-01-31T01:00:00Z", "a"));
    fixture.wait_until_written(&ledger);
    let mut used = UsageLedger::budget_use(&fixture.path(), "2028-02-29T12:00:00Z".parse().unwrap()).unwrap();
    used.sort_by_key(|used| (used.period, used.person.clone()));
    let used: Vec<_> = used
        .iter()
        .map(|used| (used.period.as_str(), used.start.to_string(), used.person.as_deref(), used.tokens, used.requests))
        .collect();
    assert_eq!(
        used,
        [
            ("day", "2028-02-29".to_owned(), None, 7, 1),
            ("day", "2028-02-29".to_owned(), Some("p"), 7, 1),
            ("month", "2028-02-01".to_owned(), None, 14, 2),
            ("month", "2028-02-01".to_owned(), Some("p"), 7, 1),
        ]
    );
    let missing = fixture.folder.path().join("missing.db");
    assert_eq!(UsageLedger::budget_use(&missing, Timestamp::UNIX_EPOCH).unwrap(), []);
}

#[test]
fn counts_of_any_size_neither_overflow_nor_stop_the_ledger() {
    let fixture = LedgerFixture::new();
    let (ledger, guard) = fixture.start();
    let huge = UsageEvent {
        prompt_tokens: u64::MAX,
        slot_time: Duration::MAX,
        cost_nanos: u64::MAX,
        ..event("2028-02-29T01:00:00Z", &"é".repeat(10_000))
    };
    for _ in 0..3 {
        ledger.record(huge.clone());
        assert_eq!(ledger.read(&UsageQuery::default()).unwrap().data[0].prompt_tokens, HIGHEST_COUNT);
    }
    drop(guard);
    assert_eq!(fixture.metrics.usage_write_failures.get(), 0);
    assert_eq!(rows(&fixture.path(), "SELECT length(CAST(key AS BLOB)) FROM usage"), [["512"]]);
}

#[test]
fn old_rows_go_and_acts_stay() {
    let fixture = LedgerFixture::new();
    let (ledger, guard) = fixture.start();
    let old = "2020-01-01T00:00:00Z";
    ledger.record(UsageEvent { refused: Some("queue_full"), ..event(old, "a") });
    ledger.record(UsageEvent { time: Timestamp::now(), ..event(old, "a") });
    let act = AdminAct {
        time: old.parse().unwrap(),
        key: Some("ops".to_owned()),
        address: Some([127, 0, 0, 1].into()),
        act: "POST /reload".to_owned(),
        target: String::new(),
        status: 200,
        outcome: "ok".to_owned(),
    };
    ledger.record_act(act.clone());
    drop(guard);
    let keep = Duration::from_secs(400 * 86_400);
    // The first time removes what is about the oldest day, the second time the month that has no day left.
    for _ in 0..2 {
        drop(fixture.start_at(&fixture.path(), keep));
    }
    for (table, left) in [("usage", "1"), ("refusals", "0"), ("budgets", "2"), ("audit", "1")] {
        assert_eq!(rows(&fixture.path(), &format!("SELECT count(*) FROM {table}")), [[left]], "{table}");
    }
    assert_eq!(read_acts(&fixture.path(), 10).unwrap(), [act]);
}

/// A command may read the file before an updated service has written to it.
#[test]
fn a_file_of_each_older_version_is_read_as_it_is() {
    for older in 1..=LEDGER.migrations.len() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("usage.db");
        let format = SqliteFormat { migrations: &LEDGER.migrations[..older], ..LEDGER };
        let file = format.open(&path).unwrap();
        file.connection
            .execute("INSERT INTO usage VALUES (3600, 'k', '', 'm', 1, 0, 2, 3, 4, 5, 6, 7, 8)", [])
            .unwrap();
        drop(file);
        let query = UsageQuery::read([("by", "key")]).unwrap();
        assert_eq!(read_usage(&path, &query).unwrap().data.len(), 1, "version {older}");
        assert_eq!(read_acts(&path, 10).unwrap(), []);
    }
}

#[test]
fn a_clock_that_is_far_ahead_for_a_while_costs_one_day_of_rows() {
    let fixture = LedgerFixture::new();
    let (ledger, guard) = fixture.start();
    let days = ["2020-01-01T00:00:00Z", "2020-01-01T23:00:00Z", "2020-01-02T00:00:00Z", "2020-01-03T00:00:00Z"];
    days.iter().for_each(|day| ledger.record(event(day, "a")));
    drop(guard);
    // For this ledger, today is far ahead.
    drop(fixture.start_at(&fixture.path(), Duration::from_secs(32 * 86_400)));
    assert_eq!(rows(&fixture.path(), "SELECT count(*) FROM usage"), [["2"]]);
}

#[test]
fn what_the_machine_costs_and_no_request_has_used_is_the_cost_of_idling() {
    let fixture = LedgerFixture::new();
    // A billion an hour is enough to see milliseconds.
    let price_per_hour = "1000000".parse().unwrap();
    let settings = LedgerSettings { price_per_hour, ..fixture.settings() };
    let started = Instant::now();
    let (ledger, guard) = fixture.start_with(settings.clone());
    let hour = Timestamp::now().to_string();
    // A remote backend has used the other half of the cost.
    let used = UsageEvent { cost_nanos: 4_000, machine_cost_nanos: 2_000, ..event(&hour, "idle") };
    let query = |key: Option<&str>| UsageQuery::read([("by", "key")]).unwrap().of_key(key.map(str::to_owned));
    let idle_cost = || {
        let page = ledger.read(&query(None)).unwrap();
        page.data.iter().find(|row| row.requests == 0).map_or(0.0, |row| row.cost)
    };
    let first = idle_cost();
    assert!(first > 0.0, "idling costs from the start");
    ledger.record(used);
    drop(guard);
    let longest = slot_cost(price_per_hour, started.elapsed(), 1);
    let all = rows(&fixture.path(), "SELECT sum(cost_nanos) FROM idle");
    let idle: u64 = all[0][0].parse().unwrap();
    assert!(idle + 2_000 <= longest, "{idle} and what the request has used are at most {longest}");
    assert!(idle as f64 / 1e9 >= first, "the time up to the end of the service counts");
    // A key of the same name is another row, and sees nothing of it.
    let [of_key, of_machine] = &ledger.read(&query(None)).unwrap().data[..] else { panic!("two rows") };
    assert_eq!((of_key.requests, of_key.cost, &of_machine.key), (1, 0.000_004, &Some(Some("idle".to_owned()))));
    assert_eq!(ledger.read(&query(Some("idle"))).unwrap().data.len(), 1);
}

#[test]
fn what_could_not_be_written_while_the_file_was_locked_is_written_once_later() {
    let fixture = LedgerFixture::new();
    let (ledger, guard) = fixture.start();
    ledger.record(event(TIMES[0], "a"));
    fixture.wait_until_written(&ledger);
    let other = Connection::open(fixture.path()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for _ in 0..10 {
        ledger.record(event(TIMES[0], "a"));
    }
    let end = Instant::now() + ATTEMPT_WAIT;
    while fixture.metrics.usage_write_failures.get() == 0 {
        assert!(Instant::now() < end, "the failure is not counted");
        std::thread::yield_now();
    }
    assert!(fixture.metrics.warnings.texts().iter().any(|text| text.contains("usage is not recorded")));
    other.execute_batch("COMMIT").unwrap();
    fixture.wait_until_written(&ledger);
    assert_eq!(rows(&fixture.path(), "SELECT requests FROM usage"), [["11"]]);
    assert!(fixture.metrics.warnings.texts().is_empty());
    drop(guard);
    assert_sound(&fixture.path());
}

#[test]
fn a_newer_file_is_not_written_and_a_file_that_replaces_it_is() {
    let fixture = LedgerFixture::new();
    drop(fixture.start());
    Connection::open(fixture.path()).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let (ledger, guard) = fixture.start();
    ledger.record(event(TIMES[0], "a"));
    let read = ledger.read(&UsageQuery::default());
    assert!(matches!(read, Err(LedgerError::File(SqliteFileError::Newer { found: 99, .. }))));
    assert!(fixture.metrics.usage_write_failures.get() > 0);
    assert_eq!(rows(&fixture.path(), "SELECT count(*) FROM usage"), [["0"]]);
    std::fs::remove_file(fixture.path()).unwrap();
    fixture.wait_until_written(&ledger);
    assert_eq!(rows(&fixture.path(), "SELECT requests FROM usage"), [["1"]]);
    drop(guard);
}

#[test]
fn a_file_that_is_taken_away_is_made_again() {
    let fixture = LedgerFixture::new();
    let (ledger, guard) = fixture.start();
    ledger.record(event(TIMES[0], "a"));
    fixture.wait_until_written(&ledger);
    std::fs::remove_dir_all(fixture.path().parent().unwrap()).unwrap();
    ledger.record(event(TIMES[0], "b"));
    drop(guard);
    assert_eq!(rows(&fixture.path(), "SELECT key FROM usage"), [["b"]]);
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let fixture = LedgerFixture::new();
    // A folder has the name of the file.
    std::fs::create_dir_all(fixture.path()).unwrap();
    let (ledger, guard) = fixture.start();
    for number in 0..PENDING_ROWS + 5 {
        ledger.record(event(TIMES[0], &format!("k{number}")));
    }
    ledger.record(event(TIMES[0], "k0"));
    assert!(ledger.read(&UsageQuery::default()).is_err());
    assert_eq!(fixture.metrics.usage_events_dropped.get(), 5, "a known row has room");
    assert_eq!(fixture.metrics.usage_events_waiting.get(), PENDING_ROWS as i64 + 1);
    std::fs::remove_dir(fixture.path()).unwrap();
    drop(guard);
    assert_eq!(
        rows(&fixture.path(), "SELECT count(*), sum(requests) FROM usage"),
        [[PENDING_ROWS.to_string(), (PENDING_ROWS + 1).to_string()]]
    );
}
