//! Command lines of llama-server, and the keys that they become.

use super::*;

/// Returns the lines that a command line of llama-server becomes, its file and its names.
fn translated(line: &str) -> (String, Option<String>, Vec<String>) {
    let words = shlex::split(line).unwrap();
    let mut comments = DraftSection::default();
    let options = read_arguments(&words, &mut comments);
    let ServerKeys { mut section, file, aliases } = translate(&options);
    section.append(comments);
    let mut text = String::new();
    section.print(0, &mut text);
    (text, file, aliases)
}

#[test]
fn options_become_keys_and_the_context_is_that_of_a_slot() {
    let line = "-hf org/name:Q4_K_M --alias a,b -c 8192 -np 4 -ngl -1 -t -1 -b 512 --embedding --no-mmproj --port {port} \
                --sleep-idle-seconds 60 --flash-attn on --chat-template-kwargs '{\"a\": 1}' --temp=0.5";
    let (text, file, aliases) = translated(line);
    assert_eq!(file.as_deref(), Some("org/name:Q4_K_M"));
    assert_eq!(aliases, ["a", "b"]);
    let expected = "\
kind: embedding
ngl: auto
threads: 0
batch: 512
mmproj: none
ttl: 60
parallel: 4
ctx: 2048
args: [--flash-attn, \"on\", --chat-template-kwargs, \"{\\\"a\\\": 1}\", --temp, \"0.5\"]
";
    assert_eq!(text, expected);
}

#[test]
fn what_has_no_counterpart_is_named_without_its_value() {
    let line = "-m m.gguf -mu https://h/x --host 0.0.0.0 --port 9 --api-key sesame --hf-token sesame --metrics stray \
                --rpc http://u:sesame@h --slot-save-path /x --my-secret sesame -c 100 -np 3 -c lots -np 0 --log-disable";
    let (text, ..) = translated(line);
    assert!(!text.contains("sesame") && !text.contains("args"), "{text}");
    for name in [
        "-mu",
        "--host",
        "--port",
        "--api-key",
        "--hf-token",
        "--metrics",
        "--rpc",
        "--slot-save-path",
        "--my-secret",
        "--ctx-size",
        "--parallel",
        "--log-disable",
    ] {
        assert!(text.contains(&format!("# left out: {name}: ")), "{name}: {text}");
    }
}

#[test]
fn a_context_that_does_not_divide_is_said_and_one_that_is_too_small_left_out() {
    let (text, ..) = translated("-c 1000 -np 3");
    assert!(text.contains("ctx: 333") && text.contains("1000 tokens for 3 slots"), "{text}");
    let (text, ..) = translated("-c 64 -np 4");
    assert!(text.contains("left out: --ctx-size: expected a number of tokens from 32"), "{text}");
    let (text, ..) = translated("-c 0");
    assert!(text.contains("left out: --ctx-size: 0 is"), "{text}");
}

#[test]
fn a_file_of_a_repository_is_named_with_it() {
    assert_eq!(translated("-hf a/b:Q8_0 -hff c.gguf").1.as_deref(), Some("a/b/c.gguf"));
    assert_eq!(translated("-m /a/b.gguf").1.as_deref(), Some("/a/b.gguf"));
    assert_eq!(translated("--temp 1").1, None);
}

#[test]
fn what_goes_with_a_model_has_keys_of_its_own() {
    let line = "-m m.gguf --lora a.gguf,b.gguf --lora-scaled c.gguf:0.5 -md d.gguf --draft-max 8 --draft-p-min 0.75 \
                --spec-draft-ngl 99 --chat-template-file t.jinja --rpc h:1,i:2";
    let expected = "\
# file is relative: it is looked for below MODELS_DIR
draft: d.gguf
chat_template: t.jinja
rpc: [\"h:1\", \"i:2\"]
lora: [{file: a.gguf}, {file: b.gguf}, {file: c.gguf, scale: 0.5}]
speculative: {max: 8, ngl: 99, p_min: 0.75}
";
    let mut found: Vec<String> = translated(line).0.lines().map(str::to_owned).collect();
    let mut wanted: Vec<String> = expected.lines().map(str::to_owned).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let (old_form, ..) = translated("-m m.gguf --lora-scaled b.gguf 0.5 --draft-max 8");
    assert!(old_form.contains("lora: [{file: b.gguf, scale: 0.5}]"), "{old_form}");
    assert!(old_form.contains("there is no draft model"), "{old_form}");
}
