//! Tests on folders and caches as downloads and users lay them out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::file_lock::FileLock;
use crate::models::sample::GgufSample;
use crate::models::{ModelPlaces, find};

const MAIN: &str = "0123456789abcdef0123456789abcdef01234567";
const OLD: &str = "fedcba9876543210fedcba9876543210fedcba98";

/// A models folder and a hub's cache.
struct Disk {
    root: tempfile::TempDir,
    places: ModelPlaces,
}

impl Disk {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        let places =
            ModelPlaces { models_dir: path.join("models"), hub_cache: path.join("hub"), ..ModelPlaces::default() };
        fs::create_dir(&places.models_dir).unwrap();
        fs::create_dir(&places.hub_cache).unwrap();
        Self { root, places }
    }

    fn model(&self, name: &str) -> PathBuf {
        GgufSample::chat().uint("llama.embedding_length", 64).write(&self.places.models_dir, name)
    }

    fn repository(&self) -> PathBuf {
        self.places.hub_cache.join("models--o--n")
    }

    /// Adds a file to a revision, a link to a blob of this name; the blob is written if it is not there.
    fn link(&self, commit: &str, file: &str, etag: &str) -> PathBuf {
        let blob = self.repository().join("blobs").join(etag);
        if !blob.exists() {
            let sample = match file.contains("mmproj") {
                true => GgufSample::of("clip").text("general.type", "mmproj").flag("clip.has_vision_encoder", true),
                false => GgufSample::chat().text("general.name", etag),
            };
            sample.write(blob.parent().unwrap(), etag);
        }
        let link = self.repository().join("snapshots").join(commit).join(file);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(format!("{}blobs/{etag}", "../".repeat(2 + file.matches('/').count())), &link).unwrap();
        link
    }

    fn refer(&self, revision: &str, commit: &str) {
        let path = self.repository().join("refs").join(revision);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, commit).unwrap();
    }

    fn plan(&self, name: &str) -> RemovalPlan {
        RemovalPlan::of(&self.places, name).unwrap()
    }

    fn refused(&self, name: &str) -> RemovalError {
        let before = self.names();
        let error = RemovalPlan::of(&self.places, name).unwrap_err();
        assert_eq!(self.names(), before);
        error
    }

    /// Removes a model. Returns the names that are left.
    fn remove(&self, name: &str) -> Vec<String> {
        self.plan(name).remove().unwrap();
        self.names()
    }

    /// All files and links, by their paths below the two places, sorted.
    fn names(&self) -> Vec<String> {
        let root = self.root.path().canonicalize().unwrap();
        let files = contents::files_below(&root).unwrap().into_iter();
        files.map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect()
    }
}

fn names(plan: &RemovalPlan) -> Vec<String> {
    plan.files.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn a_model_of_the_folder_goes_with_all_its_parts_and_alone() {
    let disk = Disk::new();
    let size = fs::metadata(disk.model("a.gguf")).unwrap().len();
    disk.model("sub/big-00001-of-00002.gguf");
    disk.model("sub/big-00002-of-00002.gguf");
    let plan = disk.plan("big");
    assert_eq!(names(&plan), ["big-00001-of-00002.gguf", "big-00002-of-00002.gguf"]);
    assert_eq!((plan.bytes_freed, plan.kept.len()), (2 * size, 0));
    assert_eq!(disk.names().len(), 3, "a plan removes nothing");
    plan.remove().unwrap();
    assert_eq!(disk.names(), ["models/a.gguf"]);
    assert!(disk.places.models_dir.join("sub").is_dir(), "folders of the user stay");
    assert!(matches!(disk.refused("big"), error if error.is_absent() && error.is_of_name()));
}

#[test]
fn a_projector_goes_only_if_no_other_model_could_use_it() {
    let disk = Disk::new();
    let projector = GgufSample::of("clip").text("general.type", "mmproj").uint("clip.vision.projection_dim", 64);
    disk.model("see.gguf");
    projector.write(&disk.places.models_dir, "mmproj-see.gguf");
    disk.model("see-other.gguf");
    let plan = disk.plan("see");
    assert_eq!(names(&plan), ["see.gguf"]);
    assert_eq!(plan.kept[0].reason, "may be used by see-other.gguf");
    fs::remove_file(disk.places.models_dir.join("see-other.gguf")).unwrap();
    // A model of another width could not.
    GgufSample::chat().uint("llama.embedding_length", 32).write(&disk.places.models_dir, "narrow.gguf");
    assert_eq!(names(&disk.plan("see")), ["see.gguf", "mmproj-see.gguf"]);
    assert_eq!(disk.remove("see"), ["models/narrow.gguf"]);
}

#[test]
fn of_a_link_the_target_stays_and_a_hard_link_frees_nothing() {
    let disk = Disk::new();
    let elsewhere = disk.root.path().join("elsewhere");
    let target = GgufSample::chat().write(&elsewhere, "target.gguf");
    symlink(&target, disk.places.models_dir.join("link.gguf")).unwrap();
    let plan = disk.plan("link");
    assert_eq!((plan.bytes_freed, plan.files[0].kind), (0, RemovedKind::Link));
    assert_eq!(plan.kept[0].path, target.canonicalize().unwrap());
    plan.remove().unwrap();
    assert_eq!(disk.names(), ["elsewhere/target.gguf"]);

    fs::hard_link(&target, disk.places.models_dir.join("hard.gguf")).unwrap();
    let plan = disk.plan("hard");
    assert_eq!(plan.bytes_freed, 0);
    assert!(plan.kept[0].reason.contains("hard link"));
    plan.remove().unwrap();
    assert_eq!(disk.names(), ["elsewhere/target.gguf"]);
    // A broken link goes too.
    symlink("nowhere", disk.places.models_dir.join("broken.gguf")).unwrap();
    disk.remove("broken");
    assert_eq!(disk.names(), ["elsewhere/target.gguf"]);
}

#[test]
fn nothing_outside_of_the_places_is_removed() {
    let disk = Disk::new();
    let outside = GgufSample::chat().write(&disk.root.path().join("elsewhere"), "m.gguf");
    symlink(outside.parent().unwrap(), disk.places.models_dir.join("shared")).unwrap();
    GgufSample::chat().write(&disk.places.models_dir, ".ollama/models/x.gguf");
    fs::create_dir(disk.places.models_dir.join("folder.gguf")).unwrap();
    fs::write(disk.places.models_dir.join("notes.txt"), "mine").unwrap();
    let of_file = |path: &Path| RemovalPlan::of_file(&disk.places, path).unwrap_err();
    let models = &disk.places.models_dir;
    assert!(matches!(disk.refused("shared/m.gguf"), RemovalError::Outside { .. }));
    assert!(matches!(of_file(&outside), RemovalError::Outside { .. }));
    assert!(matches!(disk.refused("../elsewhere/m.gguf"), RemovalError::Model(_)));
    assert!(matches!(of_file(&models.join("../elsewhere/m.gguf")), RemovalError::Outside { .. }));
    assert!(matches!(of_file(&models.join("folder.gguf")), RemovalError::NotAModel { .. }));
    assert!(matches!(of_file(models), RemovalError::NotAModel { .. }));
    assert!(matches!(of_file(&models.join("none/m.gguf")), RemovalError::Absent { .. }));
    assert!(matches!(disk.refused("notes.txt"), RemovalError::NotAModel { .. }));
    assert!(matches!(disk.refused(".ollama/models/x.gguf"), RemovalError::ForeignStore { .. }));
}

#[test]
fn a_download_from_an_address_goes_with_its_folder() {
    let disk = Disk::new();
    let sha256 = "ab".repeat(32);
    let name = format!("https://a.example/m.gguf#sha256={sha256}");
    let folder = disk.places.models_dir.join("downloads").join(&sha256);
    disk.model(&format!("downloads/{sha256}/m.gguf"));
    fs::write(folder.join(".lock"), "").unwrap();
    let held = FileLock::take(&folder.join(".lock")).unwrap().unwrap();
    assert!(matches!(disk.refused(&name), RemovalError::Busy { .. }));
    drop(held);
    disk.remove(&name);
    assert!(!folder.exists());
    // What has come of one that did not end.
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(".m.gguf.incomplete"), "half").unwrap();
    assert_eq!(disk.plan(&name).files[0].kind, RemovedKind::Part);
    disk.remove(&name);
    assert!(!folder.exists() && disk.refused(&name).is_absent());
}

#[test]
fn a_model_of_the_cache_goes_with_blob_references_and_repository() {
    let disk = Disk::new();
    disk.link(MAIN, "BF16/m-00001-of-00002.gguf", "one");
    disk.link(MAIN, "BF16/m-00002-of-00002.gguf", "two");
    disk.link(MAIN, "mmproj-F16.gguf", "see");
    disk.refer("main", MAIN);
    disk.refer("pr/1", MAIN);
    fs::create_dir_all(disk.places.hub_cache.join(".locks/models--o--n")).unwrap();
    fs::write(disk.places.hub_cache.join(".locks/models--o--n/one.lock"), "").unwrap();
    let plan = disk.plan("o/n:BF16");
    let expected = ["m-00001-of-00002.gguf", "one", "m-00002-of-00002.gguf", "two", "mmproj-F16.gguf", "see"];
    assert_eq!(names(&plan), expected);
    plan.remove().unwrap();
    assert_eq!(disk.names(), Vec::<String>::new());
    assert!(!disk.repository().exists() && !disk.places.hub_cache.join(".locks/models--o--n").exists());
}

#[test]
fn what_others_use_stays() {
    let disk = Disk::new();
    disk.link(MAIN, "m-Q4_K_M.gguf", "same");
    disk.link(OLD, "m-Q4_K_M.gguf", "same");
    disk.link(MAIN, "m-Q8_0.gguf", "other");
    disk.refer("main", MAIN);
    let readme = disk.repository().join("snapshots").join(OLD).join("README.md");
    fs::write(&readme, "mine").unwrap();
    let plan = disk.plan("o/n:Q4_K_M");
    assert_eq!((names(&plan), plan.bytes_freed), (vec!["m-Q4_K_M.gguf".to_owned()], 0));
    assert!(plan.kept[0].reason.contains(OLD), "{:?}", plan.kept);
    plan.remove().unwrap();
    assert!(disk.repository().join("refs/main").exists(), "another model of this revision is left");
    disk.remove("o/n:Q8_0");
    assert!(!disk.repository().join("refs/main").exists());
    assert!(!disk.repository().join("snapshots").join(MAIN).exists());
    // Now the name means the older revision, and its blob has no other user.
    disk.remove("o/n:Q4_K_M");
    assert_eq!(
        disk.names(),
        [readme.strip_prefix(disk.root.path().canonicalize().unwrap()).unwrap().to_str().unwrap()]
    );
}

#[test]
fn a_cache_without_links_and_one_with_a_link_out_of_it() {
    let disk = Disk::new();
    let snapshot = disk.repository().join("snapshots").join(MAIN);
    let file = GgufSample::chat().write(&snapshot, "m.gguf");
    disk.refer("main", MAIN);
    assert_eq!(disk.plan("o/n").bytes_freed, fs::metadata(file).unwrap().len());
    assert_eq!(disk.remove("o/n"), Vec::<String>::new());

    let outside = GgufSample::chat().write(&disk.root.path().join("elsewhere"), "m.gguf");
    fs::create_dir_all(&snapshot).unwrap();
    symlink(&outside, snapshot.join("m.gguf")).unwrap();
    let plan = disk.plan("o/n");
    assert_eq!((plan.bytes_freed, plan.kept.len()), (0, 1));
    plan.remove().unwrap();
    assert_eq!(disk.names(), ["elsewhere/m.gguf"]);
}

#[test]
fn an_unfinished_download_goes_and_one_that_goes_on_does_not() {
    let disk = Disk::new();
    let blobs = disk.repository().join("blobs");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join("aa.incomplete"), "half").unwrap();
    let locks = disk.places.hub_cache.join(".locks/models--o--n");
    fs::create_dir_all(&locks).unwrap();
    let held = FileLock::take(&locks.join("aa.lock")).unwrap();
    assert!(matches!(disk.refused("o/n:Q4_K_M"), RemovalError::Busy { .. }));
    drop(held);
    assert_eq!(disk.plan("o/n:Q4_K_M").files[0].kind, RemovedKind::Part);
    // Of two it is not known which is meant.
    fs::write(blobs.join("bb.incomplete"), "half").unwrap();
    assert!(matches!(disk.refused("o/n:Q4_K_M"), RemovalError::WhichUnfinished { count: 2, .. }));
    assert_eq!(disk.remove("o/n"), Vec::<String>::new());
    assert!(!disk.repository().exists());
}

/// A name with a typing mistake means no download of another model.
#[test]
fn a_part_goes_only_by_the_quantisation_in_its_header() {
    let disk = Disk::new();
    disk.link(MAIN, "m-Q8_0.gguf", "whole");
    let blobs = disk.repository().join("blobs");
    GgufSample::chat().write(&blobs, "aa.incomplete");
    fs::write(blobs.join("bb.incomplete"), "half").unwrap();
    assert!(disk.refused("o/n:Q5_K_M").is_absent() && disk.refused("o/n/m-Q5_K_M.gguf").is_absent());
    assert_eq!(names(&disk.plan("o/n:q4_k_m")), ["aa.incomplete"]);
    assert_eq!(names(&disk.plan("o/n/m-Q4_K_M.gguf")), ["aa.incomplete"]);
    assert!(disk.plan("o/n").files.iter().all(|file| file.kind != RemovedKind::Part));
}

#[test]
fn what_has_changed_since_the_plan_is_not_removed() {
    let disk = Disk::new();
    let path = disk.model("m.gguf");
    let plan = disk.plan("m");
    fs::remove_file(&path).unwrap();
    GgufSample::chat().text("general.name", "another").write(&disk.places.models_dir, "m.gguf");
    assert!(matches!(plan.remove(), Err(RemovalError::Changed { .. })));
    // A second link that came in the meantime needs the blob.
    disk.link(MAIN, "m.gguf", "blob");
    let plan = disk.plan("o/n");
    disk.link(OLD, "m.gguf", "blob");
    assert!(matches!(plan.remove(), Err(RemovalError::Changed { .. })));
    assert!(disk.repository().join("blobs/blob").exists());
}

/// Stops after each number of steps, as a kill does. What is found afterwards is whole, and the next removal ends it.
#[test]
fn a_removal_that_is_killed_leaves_a_model_that_is_whole_or_not_there() {
    let mut killed = 0;
    loop {
        let disk = Disk::new();
        disk.link(MAIN, "m-00001-of-00002.gguf", "one");
        disk.link(MAIN, "m-00002-of-00002.gguf", "two");
        disk.link(MAIN, "mmproj.gguf", "see");
        disk.refer("main", MAIN);
        let plan = disk.plan("o/n");
        let held = plan.prepare().unwrap();
        let steps = plan.steps();
        steps[..killed].iter().for_each(|step| step.execute().unwrap());
        drop(held);
        match find(&disk.places, "o/n") {
            Ok(path) => _ = crate::models::check_readable(&path).unwrap(),
            Err(error) => assert!(error.is_missing(), "after {killed} steps: {error}"),
        }
        let references = disk.repository().join("refs/main");
        let snapshot = disk.repository().join("snapshots").join(MAIN);
        assert!(!references.exists() || snapshot.exists(), "after {killed} steps a reference leads nowhere");
        if let Ok(plan) = RemovalPlan::of(&disk.places, "o/n") {
            plan.remove().unwrap();
        }
        let big = |name: &String| name.contains("blobs") || name.contains("m-0");
        assert!(!disk.names().iter().any(big), "after {killed} steps: {:?}", disk.names());
        if killed == steps.len() {
            break;
        }
        killed += 1;
    }
    assert!(killed > 8);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a plain model: a blob stays as long as a link of any revision points to it, and what was not named stays.
    #[test]
    fn any_cache_loses_exactly_what_was_named(
        links in prop::collection::btree_map((0..3_usize, 0..4_usize), 0..3_usize, 1..9),
        removed in prop::collection::vec((0..3_usize, 0..4_usize), 1..6),
    ) {
        let disk = Disk::new();
        let commit = |number: usize| format!("{number}").repeat(40);
        let file = |number: usize| format!("m{number}.gguf");
        for ((revision, name), blob) in &links {
            disk.link(&commit(*revision), &file(*name), &format!("blob{blob}"));
        }
        let mut left: BTreeMap<(usize, usize), usize> = links;
        for (revision, name) in removed {
            let path = disk.repository().join("snapshots").join(commit(revision)).join(file(name));
            let plan = RemovalPlan::of_file(&disk.places, &path);
            prop_assert_eq!(plan.is_ok(), left.remove(&(revision, name)).is_some());
            plan.into_iter().for_each(|plan| plan.remove().unwrap());
            let blobs: BTreeSet<String> = left.values().map(|blob| format!("hub/models--o--n/blobs/blob{blob}")).collect();
            let names = left.keys().map(|(revision, name)| {
                format!("hub/models--o--n/snapshots/{}/{}", commit(*revision), file(*name))
            });
            let expected: BTreeSet<String> = names.chain(blobs).collect();
            prop_assert_eq!(disk.names().into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }
}

/// A store below the models folder was known by the usual names of folders alone.
#[test]
fn a_store_below_the_models_folder_lost_files_of_another_program() {
    let mut disk = Disk::new();
    disk.model("lm/o/n/theirs.gguf");
    let blob = disk.places.models_dir.join("ol/blobs/sha256-ab");
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(&blob, "theirs").unwrap();
    symlink(disk.places.models_dir.join("lm"), disk.root.path().join("link")).unwrap();
    let (lm, ollama) = (disk.root.path().join("link"), disk.places.models_dir.join("ol"));
    let path = disk.places.models_dir.join("lm/o/n/theirs.gguf");
    let refused = |places: &ModelPlaces| {
        for path in [&path, &blob] {
            let error = RemovalPlan::of_file(places, path).unwrap_err();
            assert!(matches!(error, RemovalError::ForeignStore { .. }), "{error}");
        }
        let error = RemovalPlan::of(places, "lm/o/n/theirs.gguf").unwrap_err();
        assert!(matches!(error, RemovalError::ForeignStore { .. }), "{error}");
    };
    refused(&ModelPlaces { lm_studio: Some(lm.clone()), ollama: Some(ollama.clone()), ..disk.places.clone() });
    // One that MODEL_STORES leaves out is that of another program all the same.
    disk.places.foreign = vec![lm, ollama];
    refused(&disk.places);
    disk.model("mine.gguf");
    disk.plan("mine").remove().unwrap();
    assert!(path.exists() && blob.exists());
}
