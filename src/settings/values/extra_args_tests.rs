//! Tests of additional arguments for llama-server.

use super::*;

fn words(text: &str) -> Vec<String> {
    ExtraArgs::parse(text).unwrap().words
}

fn refusal(text: &str) -> Rejected {
    ExtraArgs::parse(text).expect_err(text)
}

#[test]
fn extra_args_are_split_as_a_shell_does() {
    assert_eq!(words("--jinja --grammar 'root ::= \"a b\"'"), ["--jinja", "--grammar", "root ::= \"a b\""]);
    assert_eq!(words("--jinja\n  --temp 0.5\r\n"), ["--jinja", "--temp", "0.5"]);
    assert_eq!(words("--seed -1 --temp 0.5"), ["--seed", "-1", "--temp", "0.5"]);
    assert!(ExtraArgs::parse("--grammar 'open").is_err());
    assert!(ExtraArgs::checked(vec!["--grammar".into(), "a\0".into()], ArgumentsPlace::Service).is_err());
}

#[test]
fn owned_arguments_were_taken_in_another_spelling() {
    for text in [
        "--host 0.0.0.0",
        "--api-key-file /k",
        "--api-key=x",
        "-m other.gguf",
        "--port=1",
        "--ctx_size 256",
        "--no_slots",
        "--api_key x",
        "--api_key_file=/x",
        "--sleep_idle_seconds 1",
        "--api_prefix /x",
        "--n_gpu-layers 3",
        "--ctx_size=1",
        "--reuse_port",
    ] {
        let rejected = refusal(text);
        let name = text.split([' ', '=']).next().unwrap();
        assert!(rejected.allowed.ends_with(&format!("without {name}")), "{text}: {rejected:?}");
        assert!(rejected.hint.is_some(), "{text} is refused with a reason");
    }
    assert!(refusal("-c 256").hint.unwrap().contains("CTX: it is the context of one slot"));
    assert_eq!(words("--backend_sampling"), ["--backend_sampling"], "other options may be written so");
}

#[test]
fn arguments_that_start_programs_or_end_llama_server_were_taken() {
    for text in [
        "-ag",
        "--agent",
        "--mcp-servers-config /x",
        "--mcp-servers-json {}",
        "--mcp_servers_json {}",
        "--ui-mcp-proxy",
        "--webui-mcp-proxy",
        "--tools all",
        "--tools-runtime docker:x",
        "--version",
        "--help",
        "-h",
        "--usage",
        "--list-devices",
        "--list_devices",
        "-cl",
        "--cache-list",
        "--completion-bash",
        "--gpt-oss-20b-default",
        "--fim-qwen-7b-spec",
    ] {
        assert!(refusal(text).hint.is_some(), "{text}");
    }
    assert_eq!(words("--no-agent --no-ui-mcp-proxy"), ["--no-agent", "--no-ui-mcp-proxy"]);
}

#[test]
fn a_log_without_the_cause_of_a_failure_was_allowed() {
    for text in [
        "--log-disable",
        "--log_disable",
        "-lv 0",
        "--verbosity 0",
        "--log-verbosity -1",
        "--log_verbosity 0",
        "-lv=0",
        "-lv -5",
        // llama-server reads the number before the first other character.
        "-lv 0.9",
        "-lv 0x0",
        "-lv ' 0'",
        "-lv +0",
        "-lv -1x",
        "-lv 0,5",
    ] {
        assert!(refusal(text).hint.unwrap().contains("would not say why"), "{text}");
    }
    for text in ["-lv 1", "--verbosity 4", "--log-file /x", "--log-jsonl", "-v", "--verbosity", "-lv 1.5", "-lv x"] {
        assert!(ExtraArgs::parse(text).is_ok(), "{text}");
    }
}

#[test]
fn a_value_is_no_argument() {
    for text in ["--grammar --host", "-r --version", "--reasoning-budget-message '-c is short'", "-j -m"] {
        assert!(ExtraArgs::parse(text).is_ok(), "{text}");
    }
    assert!(ExtraArgs::parse("--grammar --jinja --host x").is_err(), "only one word is the value");
}

#[test]
fn harmless_arguments_ended_the_start() {
    for (text, kept, about) in [
        ("--metrics --jinja", &["--jinja"][..], "--metrics"),
        ("--slots", &[], "--slots"),
        ("--slot-save-path /x --jinja", &["--jinja"], "--slot-save-path"),
        ("--slot_save_path=/x --jinja", &["--jinja"], "--slot_save_path"),
        ("--slot-save-path --jinja", &["--jinja"], "--slot-save-path"),
        ("-hf -fa on", &["-fa", "on"], "MODEL_NAME=ORG/NAME"),
        ("--models-max -1", &[], "--models-max"),
        ("--models-max 2", &[], "--models-max"),
        ("--cors-origins * --temp 1", &["--temp", "1"], "CORS_ORIGINS"),
        ("--cors_credentials --temp 1", &["--temp", "1"], "CORS_ORIGINS"),
        ("--ui", &[], "web page"),
        ("-hf org/name:Q4 -fa on", &["-fa", "on"], "MODEL_NAME=ORG/NAME"),
        ("--hf_repo org/name", &[], "MODEL_NAME=ORG/NAME"),
        ("-mu http://x", &[], "MODEL_NAME=ORG/NAME"),
        ("-dr gemma3", &[], "MODEL_NAME=ORG/NAME"),
    ] {
        let ExtraArgs { words, warnings, .. } = ExtraArgs::parse(text).unwrap();
        assert_eq!(words, kept, "{text}");
        assert!(warnings.len() == 1 && warnings[0].contains(about), "{text}: {warnings:?}");
    }
}

#[test]
fn an_alias_names_the_model_and_is_refused_for_a_single_model() {
    let named = ExtraArgs::parse("--alias 'gpt-4o, mine,' -a third --jinja").unwrap();
    assert_eq!(
        (named.names, named.words),
        (vec!["gpt-4o".into(), "mine".into(), "third".into()], vec!["--jinja".to_owned()])
    );
    let args = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let rejected = ExtraArgs::checked(args(&["--alias", "x"]), ArgumentsPlace::Model).unwrap_err();
    assert!(rejected.hint.unwrap().contains("models:"));
    for text in ["--alias", "--alias ''", "--alias=", "--alias ' , '", "--alias --jinja", "-a -fa on"] {
        assert!(refusal(text).hint.unwrap().contains("--alias NAME"), "{text}");
    }
    assert_eq!(ExtraArgs::parse("--alias=--odd").unwrap().names, ["--odd"]);
}

#[test]
fn lost_or_kept_quotes_passed_in_silence() {
    for text in [
        "--chat-template-kwargs {enable_thinking:false}",
        "--chat-template-kwargs '{enable_thinking: false}'",
        "-j {type:object}",
        "--override-x {a",
    ] {
        let warnings = ExtraArgs::parse(text).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("is no JSON"), "{text}: {warnings:?}");
    }
    for text in
        ["--chat-template-kwargs '{\"a\": false}'", "--chat-template '{% for x in y %}'", "--chat-template '{{ x }}'"]
    {
        assert_eq!(ExtraArgs::parse(text).unwrap().warnings, [""; 0], "{text}");
    }
    let words_of = |word: &str| ExtraArgs::checked(vec![word.to_owned()], ArgumentsPlace::Model).unwrap();
    let warnings = words_of("--jinja --temp 0.5").warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("one argument with blanks"), "{warnings:?}");
}

#[test]
fn arguments_in_quotes_as_a_whole_were_one_argument() {
    let kwargs = ["--jinja", "--chat-template-kwargs", "{\"a\":false}"];
    for (text, expected) in [
        ("\"--jinja --temp 0.5\"", &["--jinja", "--temp", "0.5"][..]),
        ("'--jinja --temp 0.5'", &["--jinja", "--temp", "0.5"]),
        ("\"--jinja --chat-template-kwargs '{\"a\":false}'\"", &kwargs),
        ("\"--jinja --chat-template-kwargs '{\\\"a\\\":false}'\"", &kwargs),
    ] {
        let ExtraArgs { words, warnings, .. } = ExtraArgs::parse(text).unwrap();
        assert_eq!(words, expected, "{text}");
        assert!(warnings.len() == 1 && warnings[0].contains("quoted as a whole"), "{text}: {warnings:?}");
    }
    for text in ["\"--jinja\"", "'--grammar' 'a b'", "\"a b\" --x \"c d\""] {
        assert_eq!(ExtraArgs::parse(text).unwrap().warnings, [""; 0], "{text}");
    }
    assert!(ExtraArgs::parse("\"--jinja --host 0.0.0.0\"").is_err());
}

#[test]
fn secret_arguments_are_masked() {
    assert_eq!(ExtraArgs::masked("--hf-token hf_abc --jinja"), "--hf-token '***' --jinja");
    for text in [
        "--hf-token=hf_abc",
        "--hf-token 'hf_abc",
        "--hf_token hf_abc",
        "\"--hf-token hf_abc --jinja\"",
        "-hft hf_abc",
        "--api_key hf_abc",
        "--hf-tokn hf_abc",
        "--mcp-servers-json '{\"env\":{\"T\":\"hf_abc\"}}'",
    ] {
        assert!(!ExtraArgs::masked(text).contains("hf_abc"), "{text}");
    }
}

#[test]
fn a_carriage_return_within_the_arguments_became_a_part_of_one() {
    for text in ["--override-kv x=int:1\r --jinja", "--override-kv\rx=int:1\r\n--jinja\r"] {
        assert_eq!(words(text), ["--override-kv", "x=int:1", "--jinja"], "{text:?}");
    }
    for word in ["a\u{1b}[31m", "a\rb", "a\0"] {
        let arguments = vec!["--grammar".to_owned(), word.to_owned()];
        let rejected = ExtraArgs::checked(arguments, ArgumentsPlace::Model).unwrap_err();
        assert!(rejected.allowed.ends_with("without control characters"), "{rejected:?}");
    }
    assert_eq!(words("--grammar 'a\n\tb'"), ["--grammar", "a\n\tb"]);
}

#[test]
fn what_web_pages_and_forms_make_of_arguments_was_explained_as_something_else() {
    for (text, hint) in [
        ("[\"--jinja\",\"--temp\",\"0.5\"]", "without brackets: --jinja --temp '***'"),
        ("[\"--grammar\", \"a b\"]", "without brackets: --grammar '***'"),
        ("[]", "without brackets"),
        ("\u{2014}jinja", "write --jinja"),
        ("--temp 0.5 \u{2013}jinja", "write --jinja"),
        ("\u{2212}lv 3", "write -lv"),
        ("\u{201c}--jinja\u{201d}", "write --jinja"),
        ("\u{201e}--temp 1\u{201d}", "write --temp"),
        ("\u{2018}--jinja\u{2019}", "write --jinja"),
    ] {
        let rejected = refusal(text);
        assert!(rejected.hint.as_deref().is_some_and(|found| found.contains(hint)), "{text}: {rejected:?}");
    }
    let secret = refusal("[\"--hf-token\", \"hf_abc\"]");
    assert!(!format!("{secret:?}").contains("hf_abc"), "{secret:?}");
    assert!(!ExtraArgs::masked("[\"--hf-token\", \"hf_abc\"]").contains("hf_abc"));
    for text in ["--chat-template-kwargs [1", "--json-schema [1,", "-j type:object", "--chat_template_kwargs {a:1}"] {
        let warnings = ExtraArgs::parse(text).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains("is no JSON"), "{text}: {warnings:?}");
    }
    for text in [
        "--chat-template-kwargs '{\"a\":false}'",
        "-j '[1]'",
        "--rpc [::1]:50052",
        "--grammar [a-z]",
        "--grammar '\u{2014}'",
        "-r \u{201c}end\u{201d}",
        "--chat-template '{{ a }}'",
    ] {
        assert_eq!(ExtraArgs::parse(text).unwrap().warnings, [""; 0], "{text}");
    }
}

#[test]
fn warnings_showed_values() {
    let of = |words: &[&str]| {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        ExtraArgs::checked(words, ArgumentsPlace::Model).unwrap().warnings
    };
    for words in [&["--hf-token hf_abc"][..], &["--x", "{t:hf_abc}"], &["-j", "{t:hf_abc}"], &["{t:hf_abc}"]] {
        let warnings = of(words);
        assert!(warnings.len() == 1 && !warnings[0].contains("hf_abc"), "{warnings:?}");
    }
}
