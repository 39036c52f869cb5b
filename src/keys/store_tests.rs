//! Tests of the lookup, of reloads on demand, and of the watch.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use super::*;

const A: &str = "sk-0123456789abcdefA";
const B: &str = "sk-0123456789abcdefB";

struct Fixture {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api_keys.txt");
        let fixture = Self { dir, path };
        fixture.write(text);
        fixture
    }

    fn write(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn store(&self) -> Store {
        Store::open(&self.path, None).unwrap()
    }
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// Runs `act` and returns what it logged.
fn logged(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes = sink.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_secret_finds_its_key_stored_plain_or_hashed() {
    let hash: String = Sha256::digest(B).iter().map(|byte| format!("{byte:02X}")).collect();
    let fixture = Fixture::new(&format!("plain:{A}\nhashed:sha256={hash}:7\n"));
    let store = fixture.store();
    assert_eq!(store.lookup(A, now()).unwrap().id, "plain");
    assert_eq!(store.lookup(B, now()).unwrap().rate_limit.unwrap().get(), 7);
    assert_eq!(store.len(), 2);
    assert_eq!(store.lookup(&hash, now()), Err(Denied::Unknown), "the hash is not the secret");
}

#[test]
fn a_secret_is_malformed_unknown_or_expired() {
    let fixture = Fixture::new(&format!("a:{A}::2030-01-01\nb:{B}\n"));
    let store = fixture.store();
    let before: Timestamp = "2029-12-31T23:59:59Z".parse().unwrap();
    let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    assert!(store.lookup(A, before).is_ok());
    assert_eq!(store.lookup(A, end), Err(Denied::Expired));
    assert_eq!(store.lookup("sk-0123456789abcdefC", end), Err(Denied::Unknown));
    for malformed in
        ["", " ", "short", "sk-0123456789abcdefA ", "sk-0123456789abcdef\0", &"é".repeat(20), &"x".repeat(1 << 20)]
    {
        assert_eq!(store.lookup(malformed, end), Err(Denied::Malformed));
    }
}

#[test]
fn opening_a_store_needs_a_file_with_a_key_that_is_valid_now() {
    let fixture = Fixture::new("# nothing yet\n");
    let error = Store::open(&fixture.path, None).unwrap_err();
    assert!(error.hint().contains("generate --name"), "{error}");
    fixture.write(&format!("a:{A}::2001-01-01\nbad\n"));
    let error = Store::open(&fixture.path, None).unwrap_err();
    assert!(matches!(error, KeyFileError::NoUsableKey { bad_lines: 1, expired: 1, .. }), "{error}");
    fs::remove_file(&fixture.path).unwrap();
    assert!(matches!(Store::open(&fixture.path, None), Err(KeyFileError::Missing { .. })));
}

#[test]
fn a_reload_swaps_all_keys() {
    let fixture = Fixture::new(&format!("a:{A}\n"));
    let store = fixture.store();
    fixture.write(&format!("b:{B}\nc:{B}x\n"));
    assert_eq!(store.reload().unwrap(), 2);
    assert_eq!(store.lookup(A, now()), Err(Denied::Unknown));
    assert_eq!(store.lookup(B, now()).unwrap().id, "b");
}

#[test]
fn a_failed_reload_changes_nothing() {
    let fixture = Fixture::new(&format!("a:{A}\n"));
    let store = fixture.store();
    for text in ["", "# none\n", "bad\n"] {
        fixture.write(text);
        assert!(matches!(store.reload(), Err(KeyFileError::NoUsableKey { .. })));
        assert!(store.lookup(A, now()).is_ok());
    }
    fs::remove_file(&fixture.path).unwrap();
    assert!(matches!(store.reload(), Err(KeyFileError::Missing { .. })));
    fs::create_dir(&fixture.path).unwrap();
    assert!(matches!(store.reload(), Err(KeyFileError::Folder { .. })));
    assert!(store.lookup(A, now()).is_ok());
}

#[test]
fn a_file_in_which_every_key_has_expired_takes_effect_at_a_reload() {
    let fixture = Fixture::new(&format!("a:{A}\n"));
    let store = fixture.store();
    fixture.write(&format!("a:{A}::2001-01-01\n"));
    assert_eq!(store.reload().unwrap(), 1);
    assert_eq!(store.lookup(A, now()), Err(Denied::Expired));
}

#[test]
fn bad_lines_are_logged_by_number_and_never_quoted() {
    let many = "half-a-secret-here!\n".repeat(40);
    let fixture = Fixture::new(&format!("a:{A}\nname:{B}!\n{many}"));
    let log = logged(|| drop(fixture.store()));
    assert!(log.contains("line=2") && log.contains("line=21") && !log.contains("line=22"), "{log}");
    assert!(log.contains("more=21"), "{log}");
    for word in ["name", "half", "secret-here", &A[3..], &B[3..]] {
        assert!(!log.contains(word), "{word} in {log}");
    }
}

#[test]
fn a_file_that_other_users_can_read_causes_a_warning() {
    let fixture = Fixture::new(&format!("a:{A}\n"));
    assert!(!logged(|| drop(fixture.store())).contains("other users"));
    fs::set_permissions(&fixture.path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(logged(|| drop(fixture.store())).contains("other users"));
}

#[test]
fn debug_output_shows_no_key() {
    let fixture = Fixture::new(&format!("a:{A}\n"));
    let shown = format!("{:?} {:?}", fixture.store(), fixture.store().lookup(A, now()));
    assert!(shown.contains("keys: 1") && !shown.contains(A), "{shown}");
}

#[test]
fn a_poll_reports_each_change_and_each_error_once() {
    let fixture = Fixture::new(&format!("a:{A}\n"));
    let store = fixture.store();
    let poll = || logged(|| store.poll());
    assert_eq!(poll(), "", "nothing changed");

    fixture.write("");
    assert!(poll().contains("no usable key"));
    assert_eq!(poll(), "");

    fs::rename(&fixture.path, fixture.dir.path().join("away")).unwrap();
    assert!(poll().contains("does not exist"));
    assert_eq!(poll(), "");

    fixture.write(&format!("a:{A}\nbad\n"));
    let log = poll();
    assert!(log.contains("line=2") && log.contains("keys=1"), "{log}");
    assert_eq!(poll(), "");

    fs::remove_file(&fixture.path).unwrap();
    assert!(poll().contains("does not exist"), "the same error is reported again after a success");
}

#[test]
fn an_error_that_reload_returned_is_not_logged_by_the_next_poll() {
    let fixture = Fixture::new(&format!("a:{A}\n"));
    let store = fixture.store();
    fs::remove_file(&fixture.path).unwrap();
    assert!(store.reload().is_err());
    assert_eq!(logged(|| store.poll()), "");
    fixture.write(&format!("a:{A}\n"));
    assert!(logged(|| store.poll()).contains("keys=1"));
}

#[test]
fn a_file_that_has_just_changed_is_read_again_at_the_next_poll() {
    let fixture = Fixture::new(&format!("a:{A}\n"));
    let store = fixture.store();
    // Another change of the same size within the resolution of file times would leave the same stamp.
    assert_eq!(store.0.last_check.lock().unwrap().stamp, None);
    fixture.write(&format!("b:{B}\n"));
    store.poll();
    assert_eq!(store.lookup(B, now()).unwrap().id, "b");
}

#[tokio::test]
async fn the_watch_loads_edits_and_replacements_within_five_seconds_and_stops_on_request() {
    let fixture = Fixture::new(&format!("a:{A}\n"));
    let store = fixture.store();
    let stop = CancellationToken::new();
    let change = async {
        for (secret, by_rename) in [(B, false), (A, true)] {
            if by_rename {
                let next = fixture.dir.path().join("next");
                fs::write(&next, format!("n:{secret}\n")).unwrap();
                fs::rename(&next, &fixture.path).unwrap();
            } else {
                fixture.write(&format!("n:{secret}\n"));
            }
            let start = Instant::now();
            while store.lookup(secret, now()).is_err() {
                assert!(start.elapsed() < Duration::from_secs(5));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        stop.cancel();
    };
    tokio::join!(store.watch(stop.clone()), change);
}

/// A secret that the key file could not hold.
const SERVICE: &str = "p@ss:word";

#[test]
fn a_key_of_the_environment_needs_no_file_and_survives_reloads() {
    let fixture = Fixture::new("");
    fs::remove_file(&fixture.path).unwrap();
    let store = Store::open(&fixture.path, Some(SERVICE)).unwrap();
    let key = store.lookup(SERVICE, now()).unwrap();
    assert_eq!((key.id.as_str(), key.scopes.to_string().as_str(), store.len()), ("env", "inference", 1));
    assert_eq!(store.reload().unwrap(), 1, "a file that was never there is no error");
    assert!(logged(|| store.poll()).is_empty());
    // A file that appears later is read.
    fixture.write(&format!("a:{A}\n"));
    assert!(logged(|| store.poll()).contains("keys=2"));
    assert!(store.lookup(A, now()).is_ok() && store.lookup(SERVICE, now()).is_ok());
    // From then on it may not go away, or lose all its keys.
    fixture.write("# none\n");
    assert!(matches!(store.reload(), Err(KeyFileError::NoUsableKey { .. })));
    fs::remove_file(&fixture.path).unwrap();
    assert!(matches!(store.reload(), Err(KeyFileError::Missing { .. })));
    assert!(store.lookup(A, now()).is_ok() && store.lookup(SERVICE, now()).is_ok());
    fixture.write(&format!("b:{B}\n"));
    assert_eq!(store.reload().unwrap(), 2);
    assert!(store.lookup(A, now()).is_err() && store.lookup(SERVICE, now()).is_ok());
}

#[test]
fn a_key_of_the_environment_makes_a_file_without_keys_usable() {
    for text in ["# none yet\n", &format!("a:{A}::2020-01-01\n"), "not a key\n"] {
        let fixture = Fixture::new(text);
        let store = Store::open(&fixture.path, Some(SERVICE)).unwrap();
        assert!(store.lookup(SERVICE, now()).is_ok() && store.lookup(A, now()).is_err(), "{text}");
        assert!(store.reload().is_ok(), "{text}");
    }
    let fixture = Fixture::new("# none\n");
    assert!(matches!(Store::open(fixture.dir.path(), Some(SERVICE)), Err(KeyFileError::Folder { .. })));
}

#[test]
fn a_file_with_the_id_or_the_secret_of_the_environments_key_is_refused() {
    let secret = "sk-0123456789abcdefC";
    for (text, part) in [
        (format!("a:{A}\nenv:{B}\n"), "line 2 of the key file"),
        (format!("c:{secret}\n"), "has the secret of LLAMAGATE_API_KEY"),
        (format!("c:sha256={}\n", hex(secret)), "has the secret of LLAMAGATE_API_KEY"),
    ] {
        let fixture = Fixture::new(&text);
        let error = Store::open(&fixture.path, Some(secret)).unwrap_err();
        assert!(matches!(error, KeyFileError::AlsoInEnvironment { .. }) && error.to_string().contains(part), "{error}");
        assert!(!error.to_string().contains(secret) && error.hint().contains("LLAMAGATE_API_KEY"));
        // Without that variable the id is one like any other.
        assert!(Store::open(&fixture.path, None).is_ok());
        // At a reload the old keys stay.
        let fixture = Fixture::new(&format!("a:{A}\n"));
        let store = Store::open(&fixture.path, Some(secret)).unwrap();
        fixture.write(&text);
        assert!(matches!(store.reload(), Err(KeyFileError::AlsoInEnvironment { .. })));
        assert!(store.lookup(A, now()).is_ok() && store.lookup(secret, now()).is_ok());
    }
}

fn hex(secret: &str) -> String {
    Sha256::digest(secret.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
