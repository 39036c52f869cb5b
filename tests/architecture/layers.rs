//! Who may use whom, as docs/ARCHITECTURE.md says, and what only one file may do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::sources::{self, Source};

/// Files that may use each other: an answer that begins early holds the one that comes later, a recursive type.
const RECURSIVE: &[&[&str]] = &[&["gateway/response/body.rs", "gateway/response/heartbeat.rs"]];

/// The table "Folders, and who may use whom": each folder with what it may use.
type Table = BTreeMap<String, BTreeSet<String>>;

fn table() -> Table {
    let page = fs::read_to_string(sources::root().join("docs/ARCHITECTURE.md")).expect("the page can be read");
    let section = page.split("\n## Folders, and who may use whom\n").nth(1).expect("the section is there");
    let section = section.split("\n## ").next().expect("it has a text");
    let mut table = Table::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_start_matches('|').trim_end_matches('|').split('|').collect();
        assert_eq!(cells.len(), 3, "three cells: {row}");
        for module in quoted(cells[0]) {
            let row = table.insert(module.clone(), quoted(cells[2]));
            assert!(row.is_none(), "{module} has two rows");
        }
    }
    assert!(table.len() > 20, "the table was found");
    table
}

/// The words of a cell in backquotes.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The room of a file at this depth: `gateway`, `gateway/queue`. None where the file lies above that depth.
fn room(path: &str, depth: usize) -> Option<String> {
    let parts: Vec<&str> = path.split('/').collect();
    if depth == 1 {
        return Some(parts[0].trim_end_matches(".rs").to_owned());
    }
    (parts.len() > depth).then(|| parts[..depth].join("/"))
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let table = table();
    let mut used_rows = BTreeSet::new();
    for (file, used) in sources::uses(&sources::production()) {
        if matches!(file.as_str(), "lib.rs" | "main.rs") || file.starts_with("bin/") {
            continue;
        }
        let module = room(&file, 1).expect("every file has one");
        let allowed = table.get(&module).unwrap_or_else(|| panic!("the module {module} has no row"));
        used_rows.insert(module.clone());
        for other in &used {
            let target = room(other, 1).expect("every file has one");
            assert!(target == module || allowed.contains(&target), "src/{file} uses {target}, in src/{other}");
        }
        // One level deeper where the table has rows: a folder uses the folders that its row names.
        let Some(folder) = room(&file, 2) else { continue };
        if !table.keys().any(|row| row.starts_with(&format!("{module}/"))) {
            continue;
        }
        let allowed = table.get(&folder).unwrap_or_else(|| panic!("the folder {folder} has no row"));
        used_rows.insert(folder.clone());
        for other in &used {
            let Some(target) = room(other, 2).filter(|target| target.starts_with(&format!("{module}/"))) else {
                continue;
            };
            let name = target.split_once('/').expect("it is a folder of the module").1;
            assert!(target == folder || allowed.contains(name), "src/{file} uses {target}, in src/{other}");
        }
    }
    let rows: BTreeSet<String> = table.into_keys().collect();
    assert_eq!(rows.difference(&used_rows).collect::<Vec<_>>(), Vec::<&String>::new(), "rows without a module");
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    let all = [sources::production(), sources::below("benches").iter().collect()];
    let mut circles = Vec::new();
    for sources in &all {
        circles.extend(circles_among(sources));
    }
    println!("circles: {circles:#?}");
    circles.retain(|circle| !RECURSIVE.iter().any(|known| *known == circle.as_slice()));
    assert!(circles.is_empty(), "files that use each other: {circles:#?}");
}

/// Returns the sets of files of which each uses each other, over however many steps.
fn circles_among(sources: &[&'static Source]) -> Vec<Vec<String>> {
    let uses = sources::uses(sources);
    let reach: BTreeMap<&str, BTreeSet<&str>> = uses.keys().map(|file| (file.as_str(), reached(file, &uses))).collect();
    let mut circles = BTreeSet::new();
    for (&file, reached) in &reach {
        if reached.contains(file) {
            let mutual = reached.iter().filter(|other| reach[**other].contains(file));
            circles.insert(mutual.map(|other| (*other).to_owned()).collect::<Vec<_>>());
        }
    }
    circles.into_iter().collect()
}

fn reached<'a>(from: &str, uses: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&str> = uses[from].iter().map(String::as_str).collect();
    while let Some(file) = next.pop() {
        if reached.insert(file) {
            next.extend(uses[file].iter().map(String::as_str));
        }
    }
    reached
}

#[test]
fn unsafe_code_is_in_one_file_and_new_processes_in_three() {
    for source in sources::below("src") {
        let is_spawner = source.path == "worker/process/spawner.rs";
        assert!(is_spawner || !source.text.contains("unsafe {"), "src/{}", source.path);
        let others = ["worker/process/detached.rs", "os/portable/children.rs"];
        let creates = is_spawner || others.contains(&source.path.as_str());
        assert!(creates || !source.text.contains("Command::new("), "src/{}", source.path);
    }
}

/// What only `src/os` may name, because other systems do not have it.
const OF_ONE_SYSTEM: &[&str] = &[
    "/proc/",
    "\"/proc\"",
    "/sys/",
    "/dev/shm",
    "prctl",
    "cgroup",
    "procfs",
    "target_os",
    "llamagate_portable",
    "os::linux",
    "posix_fadvise",
    "fallocate",
    "fstatfs",
    "statfs::",
    "inotify",
    "memfd",
    "signalfd",
    "epoll",
    "sched_setaffinity",
    "renameat2",
    "O_TMPFILE",
    "gettid",
    "accept4",
    "tcp_user_timeout",
    "F_FULLFSYNC",
    "kqueue",
    "sysctl",
    "pidfd",
    "eventfd",
    "timerfd",
    "statx",
    "close_range",
    "SO_PEERCRED",
    "SO_REUSEPORT",
    "TCP_USER_TIMEOUT",
    "PR_SET_",
    "O_PATH",
    "fcntl::splice",
    "copy_file_range",
    "POSIX_FADV",
];

/// Returns what a line of code names that only `src/os` may name. Comments may say what the kernel does.
fn word_of_one_system(line: &str) -> Option<&'static str> {
    let mut slashes = line.match_indices("//").map(|(at, _)| at);
    // Those of an address begin no comment.
    let comment = slashes.find(|at| line[..*at].chars().next_back().is_none_or(char::is_whitespace));
    let code = &line[..comment.unwrap_or(line.len())];
    OF_ONE_SYSTEM.iter().copied().find(|word| code.contains(*word))
}

#[test]
fn a_word_of_one_system_is_found_in_code_and_not_in_comments() {
    let lines = [
        ("    // Like /proc/1.", None),
        ("/// As prctl(2).", None),
        ("    let a = 1; // of /sys/", None),
        ("let a = \"file:///proc/1\"; // a file", Some("/proc/")),
        ("get(\"http://127.0.0.1/\", \"/sys/class\")", Some("/sys/")),
    ];
    for (line, word) in lines {
        assert_eq!(word_of_one_system(line), word, "{line}");
    }
}

#[test]
fn only_the_os_folder_knows_which_system_this_is() {
    let mut named = 0;
    let mut wrong = Vec::new();
    for source in sources::production() {
        for (number, line) in source.text.lines().enumerate() {
            let Some(word) = word_of_one_system(line) else { continue };
            named += 1;
            if !source.path.starts_with("os/") {
                wrong.push(format!("src/{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    assert!(named > 20, "src/os was read");
    assert!(wrong.is_empty(), "what only src/os may name: {wrong:#?}");
}

/// Returns the functions of one half of `src/os` that others may call, as they are declared. An argument that is not used
/// may have another name.
fn functions_of(half: &str) -> BTreeSet<String> {
    let is_of_half = |source: &&Source| {
        // That file is for the other files of its half.
        source.path.starts_with(&format!("os/{half}/")) && source.path != "os/linux/kernel.rs"
    };
    let lines = sources::production().into_iter().filter(is_of_half).flat_map(|source| source.text.lines());
    let declarations = lines.filter_map(|line| line.trim().strip_prefix("pub(crate) fn "));
    let signatures = declarations.filter_map(|line| line.split(" {").next());
    signatures.map(|signature| signature.replace("(_", "(").replace(" _", " ")).collect()
}

/// Returns what `src/os/here.rs` takes from one half.
fn taken_from(half: &str) -> BTreeSet<String> {
    let sources = sources::production();
    let here = sources.iter().find(|source| source.path == "os/here.rs").expect("the file is there");
    let list = here.text.split(&format!("super::{half}::{{")).nth(1).expect("the list is there");
    let names = list.split('}').next().expect("it has a text").split(',');
    names.filter_map(|name| Some(name.split_whitespace().next_back()?.to_owned())).collect()
}

/// Only one half is compiled on each system.
#[test]
fn both_halves_of_the_os_folder_have_the_same_functions() {
    let (linux, portable) = (functions_of("linux"), functions_of("portable"));
    assert!(linux.len() > 20, "the functions were found: {linux:#?}");
    let other: Vec<&String> = linux.symmetric_difference(&portable).collect();
    assert!(other.is_empty(), "declared in one half alone, or otherwise: {other:#?}");
    assert_eq!(taken_from("linux"), taken_from("portable"));
}
