//! A cache as Hugging Face's own tools lay it out, with links from snapshots to blobs.

use super::*;
use crate::models::{ModelError, check_readable, find, sample::Sample};
use proptest::prelude::*;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

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

    /// Files of a revision, each a link to a blob.
    fn with(&self, repository: &str, revision: &str, files: &[&str]) -> &Self {
        let dir = self.path().join(repository);
        for (number, name) in files.iter().enumerate() {
            let blob = format!("{revision}{number}");
            Sample::chat().write(&dir.join("blobs"), &blob);
            let link = dir.join("snapshots").join(revision).join(name);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            let up = "../".repeat(2 + name.matches('/').count());
            symlink(format!("{up}blobs/{blob}"), link).unwrap();
        }
        self
    }

    fn refers(&self, repository: &str, text: &str) -> &Self {
        let refs = self.path().join(repository).join("refs");
        fs::create_dir_all(&refs).unwrap();
        fs::write(refs.join("main"), text).unwrap();
        self
    }

    fn find(&self, name: &str) -> Result<PathBuf, HubError> {
        Repository::named(name).unwrap().file_in(self.path())
    }

    /// The file's path below its snapshot.
    fn found(&self, name: &str) -> String {
        let path = self.find(name).unwrap();
        check_readable(&path).unwrap();
        let below = path.strip_prefix(self.path()).unwrap().components().skip(3);
        below.collect::<PathBuf>().display().to_string()
    }
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
fn a_repository_is_found_in_any_case_and_the_same_case_goes_first() {
    let cache = Cache::new();
    cache.with("models--qwen--qwen3-4b-gguf", REVISION, &["lower.gguf"]);
    assert_eq!(cache.found("Qwen/Qwen3-4B-GGUF"), "lower.gguf");
    cache.with("models--Qwen--Qwen3-4B-GGUF", REVISION, &["same.gguf"]);
    assert_eq!(cache.found("Qwen/Qwen3-4B-GGUF"), "same.gguf");
    assert_eq!(cache.found("qwen/qwen3-4b-gguf"), "lower.gguf");
}

#[test]
fn the_revision_is_that_of_main_else_the_newest() {
    let (cache, dir) = (Cache::new(), "models--o--n");
    cache.with(dir, REVISION, &["of-main.gguf"]).with(dir, OTHER, &["newest.gguf"]);
    let of_days_ago = |revision: &str, days: u64| {
        let folder = fs::File::open(cache.path().join(dir).join("snapshots").join(revision)).unwrap();
        folder.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
    };
    of_days_ago(REVISION, 2);
    of_days_ago(OTHER, 1);
    cache.refers(dir, &format!("{REVISION}\n"));
    assert_eq!(cache.found("o/n"), "of-main.gguf");
    for broken in ["", "0000", "../../../etc", "../blobs"] {
        cache.refers(dir, broken);
        assert_eq!(cache.found("o/n"), "newest.gguf", "{broken:?}");
    }
    fs::remove_dir_all(cache.path().join(dir).join("refs")).unwrap();
    of_days_ago(OTHER, 3);
    assert_eq!(cache.found("o/n"), "of-main.gguf");
}

#[test]
fn the_quantisation_is_told_by_the_file_name() {
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
    cache.with("models--o--all", REVISION, &all);
    for (asked, found) in [
        ("o/all", "M-Q4_K_M.gguf"),
        ("o/all:Q4_K_M", "M-Q4_K_M.gguf"),
        ("o/all:q4_k_m", "M-Q4_K_M.gguf"),
        ("o/all:UD-Q4_K_M", "M-UD-Q4_K_M.gguf"),
        ("o/all:Q8_0", "M-Q8_0.gguf"),
        ("o/all:IQ4_XS", "M.IQ4_XS.gguf"),
    ] {
        assert_eq!(cache.found(asked), found, "{asked}");
    }
    // Parts are links to blobs whose headers know of no parts: only the choice counts here.
    for (asked, found) in
        [("o/all:bf16", "BF16/M-00001-of-00002.gguf"), ("o/all:Q3_K_M", "M-Q3_K_M-00001-of-00002.gguf")]
    {
        assert!(cache.find(asked).unwrap().ends_with(found), "{asked}");
    }
    for asked in ["o/all:Q4_K", "o/all:Q4_XS", "o/all:Q6_K", "o/all:Q5_K_M", "o/all:4"] {
        let error = cache.find(asked).unwrap_err();
        assert!(matches!(error, HubError::NoQuant { .. }), "{asked}: {error}");
        let text = error.to_string();
        assert!(text.contains("M-Q4_K_M.gguf, M-Q4_K_S.gguf") && !text.contains("mmproj"), "{text}");
    }
}

#[test]
fn without_a_quantisation_it_is_a_usual_one_or_the_only_one() {
    let cache = Cache::new();
    cache.with("models--o--eight", REVISION, &["a-F16.gguf", "a-q8_0.gguf"]);
    cache.with("models--o--only", REVISION, &["a-IQ1_S.gguf", "mmproj-F16.gguf"]);
    cache.with("models--o--strange", REVISION, &["a-IQ1_S.gguf", "a-F16.gguf"]);
    cache.with("models--o--twice", REVISION, &["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"]);
    assert_eq!(cache.found("o/eight"), "a-q8_0.gguf");
    assert_eq!(cache.found("o/only"), "a-IQ1_S.gguf");
    let text = cache.find("o/strange").unwrap_err().to_string();
    assert!(text.contains("no model Q4_K_M or Q8_0") && text.contains("there is a-F16.gguf, a-IQ1_S.gguf"), "{text}");
    for asked in ["o/twice", "o/twice:Q4_K_M"] {
        let text = cache.find(asked).unwrap_err().to_string();
        assert!(text.contains("are a Q4_K_M: a-Q4_K_M.gguf, b-Q4_K_M.gguf"), "{text}");
    }
    assert_eq!(cache.found("o/twice:b-Q4_K_M"), "b-Q4_K_M.gguf");
}

#[test]
fn of_a_model_in_parts_the_first_is_taken_and_a_missing_one_is_told() {
    let cache = Cache::new();
    let file = |number| format!("Q8_0/big-Q8_0-{number:05}-of-00003.gguf");
    cache.with("models--o--big", REVISION, &[&file(1), &file(3)]);
    cache.with("models--o--late", REVISION, &[&file(2), &file(3)]);
    let (big, late) = (cache.find("o/big").unwrap(), cache.find("o/late:q8_0").unwrap());
    assert!(big.ends_with(file(1)) && late.ends_with(file(1)), "{}", late.display());
    let text = check_readable(&big).unwrap_err().to_string();
    assert!(text.contains("part 2 of 3 is missing"), "{text}");
    assert!(check_readable(&late).unwrap_err().to_string().contains("00001-of-00003.gguf cannot be read"));
}

#[test]
fn what_is_not_there_is_told_with_where_it_was_looked_for_and_what_is_there() {
    let cache = Cache::new();
    let gone = Repository::named("o/n").unwrap().file_in(&cache.path().join("none")).unwrap_err();
    assert!(gone.is_absent() && gone.to_string().contains("/none cannot be read: No such file"), "{gone}");
    let text = cache.find("o/n").unwrap_err().to_string();
    assert!(text.contains(cache.path().to_str().unwrap()) && text.ends_with("there is none at all"), "{text}");
    for number in 0..20 {
        cache.with(&format!("models--org--n--{number:02}"), REVISION, &["a.gguf"]);
    }
    let text = cache.find("o/n").unwrap_err().to_string();
    assert!(text.contains("org/n--00, org/n--01") && text.ends_with("org/n--07 and 12 more"), "{text}");

    cache.refers("models--o--unfinished", REVISION).with("models--o--safe", REVISION, &["model.safetensors"]);
    let unfinished = cache.find("o/unfinished").unwrap_err();
    assert!(matches!(unfinished, HubError::NoSnapshot { .. }), "{unfinished}");
    let safe = cache.find("o/safe:Q4_0").unwrap_err();
    assert!(matches!(safe, HubError::NoModel { .. }) && safe.hint().contains("GGUF"), "{safe}");
}

#[test]
fn a_file_below_the_models_folder_goes_before_the_cache() {
    let (cache, dir) = (Cache::new(), tempfile::tempdir().unwrap());
    cache.with("models--sub--deep", REVISION, &["cached.gguf"]);
    assert!(find(dir.path(), cache.path(), "sub/deep").unwrap().ends_with("cached.gguf"));
    assert!(find(&dir.path().join("none"), cache.path(), "sub/deep").unwrap().ends_with("cached.gguf"));
    let own = Sample::chat().write(dir.path(), "sub/deep.gguf");
    assert_eq!(find(dir.path(), cache.path(), "sub/deep").unwrap(), own);

    let error = find(dir.path(), cache.path(), "sub/missing").unwrap_err();
    let (text, folder) = (error.to_string(), dir.path().to_str().unwrap());
    assert!(text.contains(folder) && text.contains(cache.path().to_str().unwrap()), "{text}");
    assert!(text.contains("there is sub/deep") && error.hint().contains("nothing is downloaded"), "{text}");
    assert!(matches!(find(dir.path(), cache.path(), "a/b.gguf"), Err(ModelError::NotFound { .. })), "that is a file");
    assert!(matches!(find(dir.path(), cache.path(), "../deep"), Err(ModelError::Outside { .. })));
}

proptest! {
    #[test]
    fn no_name_leads_out_of_the_cache(text in "[a.:/~-]{1,12}|\\PC{0,20}") {
        let outer = tempfile::tempdir().unwrap();
        let cache = outer.path().join("cache");
        fs::create_dir(&cache).unwrap();
        Sample::chat().write(outer.path(), "a.gguf");
        if let Some(repository) = Repository::named(&text) {
            prop_assert!(repository.file_in(&cache).is_err());
            prop_assert!(!repository.names().iter().any(|name| name.contains("..") && name.contains("/.")));
        }
    }
}
