//! Tests of the dotenv form of `ENV_FILE`.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::platform::Platform;
use crate::settings::{Environment, resolve};

fn value_of(line: &str) -> Result<String, LineFault> {
    let (variables, faults) = parse(line.as_bytes());
    match (variables.as_slice(), faults.as_slice()) {
        ([(name, value)], []) if name == "A" => Ok(value.clone()),
        (_, [(_, fault), ..]) => Err(*fault),
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn values_are_read_as_other_readers_of_this_form_do() {
    for (line, value) in [
        ("A=b", "b"),
        ("A = b", "b"),
        ("  export A=b  ", "b"),
        ("export\tA\t=\tb", "b"),
        ("A=", ""),
        ("A=   ", ""),
        ("A=''", ""),
        ("A=\"\"", ""),
        ("A=8192               # Max context", "8192"),
        ("A=  # Leave empty for public repos", ""),
        ("A=#b", "#b"),
        ("A=b#c", "b#c"),
        ("A=b\t#c", "b"),
        ("A=b c  d", "b c  d"),
        ("A='b # c' # d", "b # c"),
        ("A=\"b # c\"# d", "b # c"),
        (r#"A="a\n\t\r\"\\\$\`\x""#, "a\n\t\r\"\\$`\\x"),
        (r"A='a\n\'\\'", "a\\n'\\"),
        ("A=\"one\ntwo # three\"", "one\ntwo # three"),
        ("A=\"one\r\ntwo\"", "one\ntwo"),
        ("A=${HOME}/$X", "${HOME}/$X"),
        ("A=--jinja --lora \"my file.gguf\"", "--jinja --lora \"my file.gguf\""),
        ("A=b=c", "b=c"),
        ("\u{feff}A=b", "b"),
        ("A=b\r\n", "b"),
        ("\r\n# A=c\r\nA=b\r\n\r\n", "b"),
        ("A=schlüssel", "schlüssel"),
    ] {
        assert_eq!(value_of(line).as_deref(), Ok(value), "{line:?}");
    }
}

#[test]
fn a_line_that_cannot_be_read_has_a_number_and_a_reason() {
    for (line, fault) in [
        ("A", LineFault::NoName),
        ("=b", LineFault::NoName),
        ("export A", LineFault::NoName),
        ("A: b", LineFault::NoName),
        ("A B=c", LineFault::Name),
        ("1A=b", LineFault::Name),
        ("$env:A=b", LineFault::Name),
        ("A='b", LineFault::Unclosed),
        ("A=\"b\\\"", LineFault::Unclosed),
        ("A=\"b\" c", LineFault::AfterQuote),
        ("A='b'c", LineFault::AfterQuote),
        ("A=b\0", LineFault::Nul),
    ] {
        assert_eq!(parse(format!("X=1\n\n{line}\nB=2\n").as_bytes()).1, [(3, fault)], "{line:?}");
    }
    let (variables, faults) = parse(b"A=1\nB=\xff\nC='x\nD=4\n");
    assert_eq!(faults, [(2, LineFault::NotText), (3, LineFault::Unclosed)]);
    assert_eq!(variables.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["A", "D"], "the others are read");
}

/// Resolves with a file of variables beside these of the environment.
fn resolved_with(text: &[u8], variables: &[(&str, &str)]) -> Result<crate::settings::Resolved, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let mut inputs = Inputs { environment: variables.iter().copied().collect(), ..Inputs::default() };
    inputs.flags.insert("env_file", file.path().to_str().unwrap().to_owned());
    inputs.read_env_file();
    let resolved = resolve(&inputs, &Platform::plain(Path::new("/nowhere")));
    resolved.map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
}

#[test]
fn the_environment_wins_over_the_file_and_both_are_shown_as_sources() {
    let text = b"CTX=4096\nN_BATCH=7\nPORT=1\nPORT=2\nNGL=3\nMODEL_NAME=from-file.gguf\n";
    let resolved = resolved_with(text, &[("NGL", "5"), ("MODEL_NAME", ""), ("N_CTX", "64")]).unwrap();
    let shown = |key: &str| {
        let (_, text, source) = resolved.rows.iter().find(|row| row.0 == key).unwrap();
        format!("{text} ({source})")
    };
    assert_eq!(shown("ctx"), "64 (environment variable N_CTX)", "the environment wins, whatever the names are");
    assert_eq!(shown("batch"), "7 (variable N_BATCH of ENV_FILE)");
    assert_eq!(shown("port"), "2 (variable PORT of ENV_FILE)", "the last line wins");
    assert_eq!(shown("ngl"), "5 (environment variable NGL)");
    assert_eq!(shown("model_name"), "from-file.gguf (variable MODEL_NAME of ENV_FILE)", "an empty variable is unset");
}

#[test]
fn problems_with_the_file_are_reported_with_all_others_and_never_quote_it() {
    let text = "CTX=lots\nsesame-1\nAPI_TOKEN='sesame-2\nENV_FILE=other\n";
    let problems = resolved_with(text.as_bytes(), &[("PORT", "http")]).unwrap_err();
    for part in [
        "line 2: there is no NAME= at its start",
        "line 3: a quote is not closed",
        "the file cannot name another one",
        "CTX=\"lots\" (variable CTX of ENV_FILE)",
        "PORT=\"http\"",
    ] {
        assert!(problems.contains(part), "{part}: {problems}");
    }
    assert!(!problems.contains("sesame"), "{problems}");
    let many = "x\n".repeat(100);
    assert!(resolved_with(many.as_bytes(), &[]).unwrap_err().contains("80 further lines cannot be read"));
}

#[test]
fn a_file_that_is_missing_or_no_file_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let large = folder.path().join("large");
    fs::File::create(&large).unwrap().set_len(ENV_FILE_SIZE + 1).unwrap();
    for (path, part) in [
        (folder.path().join("none"), "cannot be read: No such file"),
        (folder.path().to_owned(), "is no regular file"),
        (pipe, "is no regular file"),
        (large, "is larger than 1024 KiB"),
    ] {
        let environment = Environment::from([(VARIABLE, path.to_str().unwrap())]);
        let mut inputs = Inputs { environment, ..Inputs::default() };
        inputs.read_env_file();
        let [problem] = inputs.env_file_problems.as_slice() else { panic!("{path:?}") };
        assert!(problem.to_string().starts_with("ENV_FILE=\"/") && problem.fault.contains(part), "{problem}");
    }
}

/// Writes a value within double quotes.
fn double_quoted(value: &str) -> String {
    let mut text = String::from("\"");
    for c in value.chars() {
        match c {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '"' | '\\' | '$' | '`' => text.extend(['\\', c]),
            other => text.push(other),
        }
    }
    text + "\""
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(A=|['\"\\\\\n#= ]|[a-z]){0,40}") {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
        let (variables, faults) = parse(&bytes);
        prop_assert!(variables.len() + faults.len() <= lines);
        prop_assert!(faults.iter().all(|(line, _)| (1..=lines).contains(line)));
        let _ = parse(text.as_bytes());
    }

    #[test]
    fn a_value_in_quotes_is_read_back(values in prop::collection::vec("[^\\x00]{0,20}", 1..6)) {
        let text: String = values.iter().map(|value| format!("A={}  # x\r\n", double_quoted(value))).collect();
        let (variables, faults) = parse(text.as_bytes());
        prop_assert_eq!(faults, []);
        prop_assert_eq!(variables.into_iter().map(|(_, value)| value).collect::<Vec<_>>(), values);
    }
}
