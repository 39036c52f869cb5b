//! Tests of the certificate in use, with files that change under it.

use std::fs;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use crate::tls::pem_file;

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Writes a certificate of this name that is valid until the begin of this year. Returns its key.
    fn write(&self, name: &str, year: i32) -> String {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        fs::write(self.folder.path().join("cert.pem"), pem_file::encode("CERTIFICATE", certificate.der())).unwrap();
        let key = pem_file::encode("PRIVATE KEY", key.serialized_der());
        fs::write(self.folder.path().join("key.pem"), &key).unwrap();
        key
    }

    fn open(&self) -> (CertificateStore, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new("test"));
        let (certificate, key) = (self.folder.path().join("cert.pem"), self.folder.path().join("key.pem"));
        let source = CertificateSource::of_files(certificate, key, None);
        (CertificateStore::open(source, Arc::clone(&metrics)).unwrap(), metrics)
    }
}

fn names(store: &CertificateStore) -> Vec<String> {
    store.leaf().borrow().names.clone()
}

fn count(metrics: &Metrics, outcome: &'static str) -> u64 {
    metrics.tls_reloads.get_or_create(&OutcomeLabels { outcome }).get()
}

#[test]
fn a_pair_that_has_changed_is_used_and_one_that_has_not_is_not_made_again() {
    let files = Files::new();
    files.write("one", 2099);
    let (store, metrics) = files.open();
    let first = store.config();
    store.look(Timestamp::now());
    assert!(Arc::ptr_eq(&first, &store.config()));
    files.write("two", 2099);
    store.look(Timestamp::now());
    assert!(!Arc::ptr_eq(&first, &store.config()));
    assert_eq!((names(&store), count(&metrics, "replaced")), (vec!["two".to_owned()], 1));
}

#[test]
fn a_pair_that_is_half_replaced_is_told_only_if_it_stays_so_and_once() {
    let files = Files::new();
    files.write("one", 2099);
    let (store, metrics) = files.open();
    let key = files.write("two", 2099);
    let other = files.write("three", 2099);
    fs::write(files.folder.path().join("key.pem"), key).unwrap();
    store.look(Timestamp::now());
    assert_eq!((count(&metrics, "failed"), metrics.warnings.texts()), (0, vec![]));
    for _ in 0..3 {
        store.look(Timestamp::now());
        assert_eq!((count(&metrics, "failed"), metrics.warnings.texts().len()), (1, 1));
    }
    let text = metrics.warnings.texts().remove(0);
    assert!(text.starts_with("TLS_KEY is not taken") && text.contains("belongs to another certificate"), "{text}");
    assert_eq!(names(&store), ["one"]);
    fs::write(files.folder.path().join("key.pem"), other).unwrap();
    store.look(Timestamp::now());
    assert_eq!((names(&store), metrics.warnings.texts()), (vec!["three".to_owned()], vec![]));
}

#[test]
fn files_that_are_gone_change_nothing() {
    let files = Files::new();
    files.write("one", 2099);
    let (store, metrics) = files.open();
    fs::remove_file(files.folder.path().join("key.pem")).unwrap();
    (0..2).for_each(|_| store.look(Timestamp::now()));
    assert_eq!((names(&store), count(&metrics, "failed")), (vec!["one".to_owned()], 1));
    assert!(store.read_again().is_err());
}

#[test]
fn an_order_to_reload_takes_a_new_pair_at_once() {
    let files = Files::new();
    files.write("one", 2099);
    let (store, _) = files.open();
    let mut leaf = store.leaf();
    files.write("two", 2099);
    let read = store.read_again().unwrap();
    assert_eq!(names(&store), ["one"], "nothing changes before all has been read");
    store.install(read);
    assert!(leaf.has_changed().unwrap() && leaf.borrow_and_update().names == ["two"]);
    store.install(store.read_again().unwrap());
    assert!(!leaf.has_changed().unwrap());
}

/// A look between reading and using once installed a newer pair, which the order to reload then took back.
#[test]
fn no_look_comes_between_reading_and_using() {
    let files = Files::new();
    files.write("one", 2099);
    let (store, _) = files.open();
    files.write("two", 2099);
    let read = store.read_again().unwrap();
    assert!(store.last_look.try_lock().is_err());
    files.write("three", 2099);
    std::thread::scope(|threads| {
        threads.spawn(|| store.look(Timestamp::now()));
        store.install(read);
    });
    assert_eq!(names(&store), ["three"]);
    drop(store.read_again().unwrap());
    assert!(store.last_look.try_lock().is_ok(), "an order that fails later lets others look");
}

#[tokio::test]
async fn a_look_at_a_disk_that_does_not_answer_holds_up_no_stop() {
    let files = Files::new();
    files.write("one", 2099);
    let (store, _) = files.open();
    let (store, stop) = (Arc::new(store), CancellationToken::new());
    // A look waits for it, as it would for a disk.
    let held = store.read_again().unwrap();
    let watching = Arc::clone(&store).watch(stop.clone());
    let stopping = async {
        // One is here, one with the watch, one with the look.
        while Arc::strong_count(&store) < 3 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let both = async { tokio::join!(watching, stopping) };
    tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    drop(held);
}

#[test]
fn a_certificate_that_has_expired_is_warned_about_until_it_is_replaced() {
    let files = Files::new();
    files.write("old", 2020);
    let (store, metrics) = files.open();
    assert_eq!(metrics.warnings.texts(), ["the TLS certificate has expired on 2020-01-01: clients refuse it"]);
    let gauge = || metrics.tls_expiry.get_or_create(&CertificateLabels { source: "files" }).get();
    assert_eq!(gauge(), 1_577_836_800);
    files.write("new", 2099);
    store.look(Timestamp::now());
    assert_eq!((metrics.warnings.texts(), gauge()), (vec![], 4_070_908_800));
}
