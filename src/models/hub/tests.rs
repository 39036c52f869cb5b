//! Tests on a cache as Hugging Face's own tools lay it out, with links from snapshots to blobs.

use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::models::{ModelError, ModelPlaces, check_readable, find, sample::GgufSample};

const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba98";

struct Cache(tempfile::TempDir);

impl Cache {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Adds a revision with these files, each a link to a blob.
    fn add(&self, repository: &str, revision: &str, files: &[&str]) -> &Self {
        let dir = self.path().join(repository);
        for (number, name) in files.iter().enumerate() {
            let blob = format!("{revision}{number}");
            GgufSample::chat().write(&dir.join("blobs"), &blob);
            let link = dir.join("snapshots").join(revision).join(name);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let up = "../".repeat(2 + name.matches('/').count());
            symlink(format!("{up}blobs/{blob}"), link).unwrap();
        }
        self
    }

    /// Writes `refs/main`.
    fn set_main(&self, repository: &str, text: &str) -> &Self {
        let refs = self.path().join(repository).join("refs");
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), text).unwrap();
        self
    }

    fn find(&self, name: &str) -> Result<PathBuf, HubError> {
        Repository::named(name).unwrap().find_file(self.path())
    }

    /// Finds a good file. Returns its path below its snapshot.
    fn find_in_snapshot(&self, name: &str) -> String {
        let path = self.find(name).unwrap();
        check_readable(&path).unwrap();
        let below = path.strip_prefix(self.path()).unwrap().components().skip(3);
        below.collect::<PathBuf>().display().to_string()
    }
}

fn find_at(models_dir: &Path, hub_cache: &Path, name: &str) -> Result<PathBuf, ModelError> {
    find(
        &ModelPlaces { models_dir: models_dir.to_owned(), hub_cache: hub_cache.to_owned(), ..ModelPlaces::default() },
        name,
    )
}

#[test]
fn a_name_means_a_repository_only_if_it_could_be_one() {
    for (text, names) in [
        ("Org/Name", &["Org/Name"][..]),
        ("org/name-1.5_GGUF:Q4_K_M", &["org/name-1.5_GGUF:Q4_K_M", "org/name-1.5_GGUF"]),
    ] {
        assert_eq!(Repository::named(text).unwrap().names(), names, "{text}");
    }
    for text in [
        "",
        "name",
        "name:Q4_0",
        "/name",
        "org/",
        "org/name:",
        "org/name/file",
        "../name",
        "org/..",
        "./name",
        "org/name.gguf",
        "org/name:../x",
        "org/name:a:b",
        "org/na me",
        "/a/b",
        "org/.hidden",
        "org/n\0me",
        "org/name:\u{e9}",
    ] {
        assert_eq!(Repository::named(text), None, "{text:?}");
    }
}

#[test]
fn a_repository_is_found_in_any_case_and_the_exact_case_goes_first() {
    let cache = Cache::new();
    cache.add("models--qwen--qwen3-4b-gguf", REVISION, &["lower.gguf"]);
    assert_eq!(cache.find_in_snapshot("Qwen/Qwen3-4B-GGUF"), "lower.gguf");
    cache.add("models--Qwen--Qwen3-4B-GGUF", REVISION, &["same.gguf"]);
    assert_eq!(cache.find_in_snapshot("Qwen/Qwen3-4B-GGUF"), "same.gguf");
    assert_eq!(cache.find_in_snapshot("qwen/qwen3-4b-gguf"), "lower.gguf");
}

#[test]
fn the_revision_of_main_is_used_else_the_newest() {
    let (cache, dir) = (Cache::new(), "models--o--n");
    cache.add(dir, REVISION, &["of-main.gguf"]).add(dir, OTHER, &["newest.gguf"]);
    let set_age = |revision: &str, days: u64| {
        let folder = fs::File::open(cache.path().join(dir).join("snapshots").join(revision)).unwrap();
        folder.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
    };
    set_age(REVISION, 2);
    set_age(OTHER, 1);
    cache.set_main(dir, &format!("{REVISION}\n"));
    assert_eq!(cache.find_in_snapshot("o/n"), "of-main.gguf");
    for broken in ["", "0000", "../../../etc", "../blobs"] {
        cache.set_main(dir, broken);
        assert_eq!(cache.find_in_snapshot("o/n"), "newest.gguf", "{broken:?}");
    }
    fs::remove_dir_all(cache.path().join(dir).join("refs")).unwrap();
    set_age(OTHER, 3);
    assert_eq!(cache.find_in_snapshot("o/n"), "of-main.gguf");
}

/// `pull` of one quantisation after a new commit, which `refs/main` names from then on.
#[test]
fn a_new_commit_hid_the_models_of_the_one_before() {
    let cache = Cache::new();
    cache.add("models--o--n", REVISION, &["m-Q4_K_M.gguf", "m-Q8_0.gguf"]).add("models--o--n", OTHER, &["m-Q8_0.gguf"]);
    cache.set_main("models--o--n", OTHER);
    let found =
        |name| cache.find(name).unwrap().strip_prefix(cache.path().join("models--o--n/snapshots")).unwrap().to_owned();
    assert_eq!(found("o/n:Q8_0"), Path::new(OTHER).join("m-Q8_0.gguf"), "the newest of what there is");
    assert_eq!(found("o/n:Q4_K_M"), Path::new(REVISION).join("m-Q4_K_M.gguf"));
    let file = Repository::named("o/n").unwrap().find_named(cache.path(), MAIN, "m-Q4_K_M.gguf").unwrap();
    assert!(file.starts_with(cache.path().join("models--o--n/snapshots").join(REVISION)));
    let error = cache.find("o/n:Q2_K").unwrap_err().to_string();
    assert!(error.contains(OTHER) && error.contains("m-Q8_0.gguf"), "{error}");
}

#[test]
fn the_quantisation_is_found_in_the_file_name() {
    let all = [
        "M-Q4_K_M.gguf",
        "M-Q4_K_S.gguf",
        "M-Q8_0.gguf",
        "M-UD-Q4_K_M.gguf",
        "M.IQ4_XS.gguf",
        "mmproj-M-Q8_0.gguf",
        "BF16/M-00001-of-00002.gguf",
        "BF16/M-00002-of-00002.gguf",
        "README.md",
        "imatrix_Q5_K_M.gguf",
        "mtp-M-Q6_K.gguf",
        "M-Q3_K_M-00001-of-00002.gguf",
        "M-Q3_K_M-00002-of-00002.gguf",
    ];
    let cache = Cache::new();
    cache.add("models--o--all", REVISION, &all);
    for (name, found) in [
        ("o/all", "M-Q4_K_M.gguf"),
        ("o/all:Q4_K_M", "M-Q4_K_M.gguf"),
        ("o/all:q4_k_m", "M-Q4_K_M.gguf"),
        ("o/all:UD-Q4_K_M", "M-UD-Q4_K_M.gguf"),
        ("o/all:Q8_0", "M-Q8_0.gguf"),
        ("o/all:IQ4_XS", "M.IQ4_XS.gguf"),
    ] {
        assert_eq!(cache.find_in_snapshot(name), found, "{name}");
    }
    // The headers of these parts do not say that they are parts, so `check_readable` would fail: test only the choice.
    for (name, found) in
        [("o/all:bf16", "BF16/M-00001-of-00002.gguf"), ("o/all:Q3_K_M", "M-Q3_K_M-00001-of-00002.gguf")]
    {
        assert!(cache.find(name).unwrap().ends_with(found), "{name}");
    }
    for name in ["o/all:Q4_K", "o/all:Q4_XS", "o/all:Q6_K", "o/all:Q5_K_M", "o/all:4"] {
        let error = cache.find(name).unwrap_err();
        assert!(matches!(error, HubError::NoQuant { .. }), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains("M-Q4_K_M.gguf, M-Q4_K_S.gguf") && !text.contains("mmproj"), "{text}");
    }
}

#[test]
fn without_a_quantisation_a_preferred_one_or_the_only_one_is_chosen() {
    let cache = Cache::new();
    cache.add("models--o--eight", REVISION, &["a-F16.gguf", "a-q8_0.gguf"]);
    cache.add("models--o--only", REVISION, &["a-IQ1_S.gguf", "mmproj-F16.gguf"]);
    cache.add("models--o--strange", REVISION, &["a-IQ1_S.gguf", "a-F16.gguf"]);
    cache.add("models--o--twice", REVISION, &["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"]);
    assert_eq!(cache.find_in_snapshot("o/eight"), "a-q8_0.gguf");
    assert_eq!(cache.find_in_snapshot("o/only"), "a-IQ1_S.gguf");
    let text = cache.find("o/strange").unwrap_err().to_string();
    assert!(text.contains("no model Q4_K_M or Q8_0") && text.contains("there is a-F16.gguf, a-IQ1_S.gguf"), "{text}");
    for name in ["o/twice", "o/twice:Q4_K_M"] {
        let text = cache.find(name).unwrap_err().to_string();
        assert!(text.contains("are a Q4_K_M: a-Q4_K_M.gguf, b-Q4_K_M.gguf"), "{text}");
    }
    assert_eq!(cache.find_in_snapshot("o/twice:b-Q4_K_M"), "b-Q4_K_M.gguf");
}

#[test]
fn the_first_part_of_a_split_model_is_chosen_and_without_it_there_is_no_model() {
    let cache = Cache::new();
    let file = |number| format!("Q8_0/big-Q8_0-{number:05}-of-00003.gguf");
    cache.add("models--o--big", REVISION, &[&file(1), &file(3)]);
    cache.add("models--o--late", REVISION, &[&file(2), &file(3)]);
    let big = cache.find("o/big").unwrap();
    assert!(big.ends_with(file(1)), "{}", big.display());
    let text = check_readable(&big).unwrap_err().to_string();
    assert!(text.contains("part 2 of 3 is missing"), "{text}");
    // A download gives the first part its name last, and a removal takes it first.
    assert!(matches!(cache.find("o/late:q8_0"), Err(HubError::NoModel { .. })));
}

#[test]
fn errors_name_the_folder_that_was_searched_and_the_models_in_it() {
    let cache = Cache::new();
    let missing = Repository::named("o/n").unwrap().find_file(&cache.path().join("none")).unwrap_err();
    assert!(missing.is_absent() && missing.to_string().contains("/none cannot be read: No such file"), "{missing}");
    let text = cache.find("o/n").unwrap_err().to_string();
    assert!(text.contains(cache.path().to_str().unwrap()) && text.ends_with("there is none at all"), "{text}");
    for number in 0..20 {
        cache.add(&format!("models--org--n--{number:02}"), REVISION, &["a.gguf"]);
    }
    let text = cache.find("o/n").unwrap_err().to_string();
    assert!(text.contains("org/n--00, org/n--01") && text.ends_with("org/n--07 and 12 more"), "{text}");

    cache.set_main("models--o--unfinished", REVISION).add("models--o--safe", REVISION, &["model.safetensors"]);
    let unfinished = cache.find("o/unfinished").unwrap_err();
    assert!(matches!(unfinished, HubError::NoSnapshot { .. }), "{unfinished}");
    let safe = cache.find("o/safe:Q4_0").unwrap_err();
    assert!(matches!(safe, HubError::NoModel { .. }) && safe.hint().contains("GGUF"), "{safe}");
}

#[test]
fn a_file_below_the_models_folder_takes_precedence_over_the_cache() {
    let (cache, dir) = (Cache::new(), tempfile::tempdir().unwrap());
    cache.add("models--sub--deep", REVISION, &["cached.gguf"]);
    assert!(find_at(dir.path(), cache.path(), "sub/deep").unwrap().ends_with("cached.gguf"));
    assert!(find_at(&dir.path().join("none"), cache.path(), "sub/deep").unwrap().ends_with("cached.gguf"));
    let own = GgufSample::chat().write(dir.path(), "sub/deep.gguf");
    assert_eq!(find_at(dir.path(), cache.path(), "sub/deep").unwrap(), own);

    let error = find_at(dir.path(), cache.path(), "sub/missing").unwrap_err();
    let (text, folder) = (error.to_string(), dir.path().to_str().unwrap());
    assert!(text.contains(folder) && text.contains(cache.path().to_str().unwrap()), "{text}");
    assert!(text.contains("there is sub/deep") && error.hint().contains("llamagate pull"), "{text}");
    assert!(
        matches!(find_at(dir.path(), cache.path(), "a/b.gguf"), Err(ModelError::NotFound { .. })),
        "this is the name of a file"
    );
    assert!(matches!(find_at(dir.path(), cache.path(), "../deep"), Err(ModelError::Outside { .. })));
}

proptest! {
    #[test]
    fn no_name_leads_out_of_the_cache(text in "[a.:/~-]{1,12}|\\PC{0,20}") {
        let outer = tempfile::tempdir().unwrap();
        let cache = outer.path().join("cache");
        fs::create_dir(&cache).unwrap();
        GgufSample::chat().write(outer.path(), "a.gguf");
        if let Some(repository) = Repository::named(&text) {
            prop_assert!(repository.find_file(&cache).is_err());
            prop_assert!(!repository.names().iter().any(|name| name.contains("..") && name.contains("/.")));
        }
    }
}
