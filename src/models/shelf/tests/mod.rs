//! Tests of folders of models.
//!
//! - `stores.rs`: tests of several places

mod stores;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::models::bounds::MOST_SHELF_MODELS;
use crate::models::sample::GgufSample;

/// The places of a service with this `MODELS_DIR` alone.
fn below(dir: &Path) -> ModelPlaces {
    ModelPlaces { models_dir: dir.to_owned(), ..ModelPlaces::default() }
}

fn ids(scan: &ShelfScan) -> Vec<&str> {
    scan.models.iter().map(|model| model.id.as_str()).collect()
}

#[test]
fn every_model_has_the_name_of_its_file_and_a_folder_only_where_names_clash() {
    let dir = tempfile::tempdir().unwrap();
    let chat = GgufSample::chat();
    for name in ["top.gguf", "a/same.gguf", "b/c/same.GGUF", "a/own.gguf", "a/top.gguf", "Ein Modell äöü.gguf"] {
        chat.write(dir.path(), name);
    }
    chat.uint("split.count", 2).write(dir.path(), "big-00001-of-00002.gguf");
    GgufSample::default().write(dir.path(), "big-00002-of-00002.gguf");
    let scan = Shelf::default().scan(&below(dir.path())).unwrap();
    assert_eq!(ids(&scan), ["Ein Modell äöü", "own", "a/same", "a/top", "b/c/same", "big", "top"]);
    let aliases: Vec<_> = scan.models.iter().flat_map(|model| &model.aliases).collect();
    assert_eq!(aliases, ["a/own"]);
    assert!(scan.notes.is_empty() && scan.broken.is_empty(), "{:?}", scan.notes);
}

#[test]
fn what_cannot_be_served_is_left_out_and_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let chat = GgufSample::chat();
    chat.write(dir.path(), "good.gguf");
    chat.write(dir.path(), "good.GGUF");
    chat.write(dir.path(), "blank .gguf");
    chat.write(dir.path(), "line\nfeed.gguf");
    chat.write(dir.path(), &format!("{}.gguf", "x".repeat(245)));
    chat.write(dir.path(), "half-00001-of-00002.gguf");
    chat.write(dir.path(), "aria.gguf");
    fs::write(dir.path().join("aria.gguf.aria2"), "").unwrap();
    fs::write(dir.path().join("page.gguf"), "<html>").unwrap();
    symlink("nowhere", dir.path().join("link.gguf")).unwrap();
    let bytes = chat.bytes();
    fs::write(dir.path().join(OsString::from_vec(b"\xff.gguf".to_vec())), &bytes).unwrap();
    fs::write(dir.path().join("short.gguf"), &bytes[..bytes.len() - 1]).unwrap();
    GgufSample::of("clip").write(dir.path(), "mmproj.gguf");
    GgufSample::chat().text("general.type", "adapter").write(dir.path(), "lora.gguf");
    GgufSample::chat().write(dir.path(), "good-draft.gguf");
    let mut shelf = Shelf::default();
    let scan = shelf.scan(&below(dir.path())).unwrap();
    assert_eq!(ids(&scan), ["good", &"x".repeat(245)]);
    let notes = scan.notes.join("\n");
    for (name, reason) in [
        ("good.gguf", "has the same id as good.GGUF"),
        ("blank .gguf", "spaces at its ends"),
        ("line\\nfeed.gguf", "control characters"),
        ("half-00001-of-00002.gguf", "part 2 of 2 is missing"),
        ("aria.gguf", "is being downloaded"),
        ("page.gguf", "is not a GGUF file"),
        ("link.gguf", "cannot be read"),
        ("short.gguf", "is cut short"),
        (".gguf", "is not UTF-8"),
    ] {
        let line = notes.lines().find(|line| line.contains(name) && line.contains(reason));
        assert!(line.is_some_and(|line| line.contains("is left out: it ")), "{name}: {notes}");
    }
    assert_eq!(scan.notes.len(), 9, "companions need no word: {notes}");
    assert!(shelf.scan(&below(dir.path())).unwrap().notes.is_empty(), "a second scan repeats nothing");
}

#[test]
fn a_file_is_taken_when_it_is_whole_and_leaves_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = GgufSample::chat().bytes();
    let path = dir.path().join("m.gguf");
    let mut shelf = Shelf::default();
    let mut notes = 0;
    for length in [0, 3, 40, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let scan = shelf.scan(&below(dir.path())).unwrap();
        notes += scan.notes.len();
        assert!(scan.models.is_empty() && scan.broken.len() == 1, "{length}");
    }
    assert_eq!(notes, 1, "one line for a file that grows");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(ids(&shelf.scan(&below(dir.path())).unwrap()), ["m"]);
    GgufSample::of("bert").uint("bert.pooling_type", 1).write(dir.path(), "m.gguf");
    assert_eq!(shelf.scan(&below(dir.path())).unwrap().models[0].model.metadata.architecture, "bert");
    fs::remove_file(&path).unwrap();
    assert!(shelf.scan(&below(dir.path())).unwrap().models.is_empty());
    fs::write(&path, "<html>").unwrap();
    assert_eq!(shelf.scan(&below(dir.path())).unwrap().notes.len(), 1, "it is reported again after it was gone");
}

#[test]
fn a_header_is_read_again_only_after_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = GgufSample::chat().write(dir.path(), "m.gguf");
    let mut shelf = Shelf::default();
    shelf.scan(&below(dir.path())).unwrap();
    let modified = path.metadata().unwrap().modified().unwrap();
    // Other bytes of the same length under the same stamp: only a second read would see them.
    let length = path.metadata().unwrap().len() as usize;
    fs::write(&path, vec![0; length]).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert_eq!(ids(&shelf.scan(&below(dir.path())).unwrap()), ["m"]);
    assert!(Shelf::default().scan(&below(dir.path())).unwrap().models.is_empty());
}

#[test]
fn the_number_of_models_is_bounded_and_the_cut_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..MOST_SHELF_MODELS + 2 {
        GgufSample::chat().write(dir.path(), &format!("{number:04}.gguf"));
    }
    let mut shelf = Shelf::default();
    let scan = shelf.scan(&below(dir.path())).unwrap();
    assert_eq!((scan.models.len(), scan.notes.len()), (MOST_SHELF_MODELS, 1));
    assert!(scan.notes[0].contains("1000 are served at most"), "{:?}", scan.notes);
    assert_eq!(shelf.scan(&below(dir.path())).unwrap().models.len(), MOST_SHELF_MODELS);
}

#[test]
fn loops_of_links_end_and_folders_that_cannot_be_read_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    GgufSample::chat().write(dir.path(), "sub/one.gguf");
    GgufSample::chat().write(dir.path(), "closed/two.gguf");
    symlink(dir.path(), dir.path().join("sub/loop")).unwrap();
    let closed = dir.path().join("closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let is_closed = fs::read_dir(&closed).is_err();
    let scan = Shelf::default().scan(&below(dir.path())).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    // The superuser may read every folder.
    if is_closed {
        assert_eq!(ids(&scan), ["one"]);
        assert!(scan.notes[0].contains("closed") && scan.notes[0].contains("cannot be read"), "{:?}", scan.notes);
    } else {
        assert_eq!(ids(&scan), ["two", "one"]);
    }
    assert!(matches!(Shelf::default().scan(&below(&dir.path().join("none"))), Err(ModelError::Folder { .. })));
}

#[test]
fn of_a_hub_cache_only_the_current_revision_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let chat = GgufSample::chat();
    for repository in ["models--org--one", "hub/models--org--two"] {
        chat.write(dir.path(), &format!("{repository}/snapshots/aaa/m.gguf"));
        chat.write(dir.path(), &format!("{repository}/snapshots/bbb/m.gguf"));
        chat.write(dir.path(), &format!("{repository}/snapshots/aaa/old.gguf"));
        fs::create_dir(dir.path().join(repository).join("refs")).unwrap();
        fs::write(dir.path().join(repository).join("refs/main"), "bbb").unwrap();
    }
    chat.write(dir.path(), "hub/models--org--two/snapshots/bbb/Q8_0/n.gguf");
    let scan = Shelf::default().scan(&below(dir.path())).unwrap();
    assert_eq!(ids(&scan), ["n", "org/two/m", "org/one/m"]);
    assert_eq!(scan.models[0].aliases, ["org/two/Q8_0/n", "org/two:Q8_0", "org/two"]);
}

#[test]
fn a_projector_on_the_shelf_belongs_to_the_model_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    GgufSample::chat().write(dir.path(), "vl/see.gguf");
    let projector = GgufSample::of("clip").write(dir.path(), "vl/mmproj-F16.gguf");
    GgufSample::chat().write(dir.path(), "text.gguf");
    let mut shelf = Shelf::default();
    let found = |scan: &ShelfScan, id: &str| {
        let model = scan.models.iter().find(|model| model.id == id).unwrap();
        model.projector.found.as_ref().map(|projector| projector.path.clone())
    };
    let scan = shelf.scan(&below(dir.path())).unwrap();
    assert_eq!((found(&scan, "see"), found(&scan, "text")), (Some(projector.clone()), None));
    fs::remove_file(&projector).unwrap();
    assert_eq!(found(&shelf.scan(&below(dir.path())).unwrap(), "see"), None);
}
