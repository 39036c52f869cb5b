//! What `llamagate check`, the log and `/health` say about models that are served worse than they could be, and of a MODEL
//! argument that means none.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use super::support::{
    gateway::{Gateway, test_models},
    model_file::{self, Kind},
    wait::{SOON, eventually},
};

/// Runs `llamagate check` in a folder.
fn check(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_llamagate"))
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs([("DATA_DIR", "data"), ("AUTH_ENABLED", "no"), ("LLAMA_SERVER", "/bin/sh"), ("HOST", "127.0.0.1")])
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the warnings of `llamagate check` for models of the test models' folder.
fn warnings_of(models: &str, variables: &[(&str, &str)]) -> String {
    warnings_of_file(&format!("models: {{{models}}}\n"), variables)
}

/// Returns the warnings of `llamagate check` for a configuration file.
fn warnings_of_file(text: &str, variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("models.yaml"), text).unwrap();
    let files = test_models();
    let common = [("MODELS_DIR", files.to_str().unwrap()), ("CONFIG_FILE", "models.yaml")];
    let output = check(folder.path(), &[], &[&common[..], variables].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn a_broken_projector_beside_a_named_model_made_it_blind_without_a_word() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    model_file::write(&path("x.gguf"), Kind::Chat);
    model_file::write_projector(&path("mmproj-x.gguf"));
    let whole = fs::read(path("mmproj-x.gguf")).unwrap();
    let chat = fs::read(path("x.gguf")).unwrap();
    let model = path("x.gguf");
    let (model, dir) = (model.to_str().unwrap(), files.path().to_str().unwrap());
    fs::write(path("named.yaml"), "models: {m: {file: x.gguf}}\n").unwrap();
    for (content, fault) in
        [(&whole[..40], "is cut short"), (&[], "it is empty"), (&chat, "is no multimodal projector")]
    {
        fs::write(path("mmproj-x.gguf"), content).unwrap();
        for (arguments, variables) in [
            (&[model][..], &[][..]),
            (&["x.gguf"], &[]),
            (&[], &[("MODELS_DIR", dir), ("MODEL_NAME", "x")]),
            (&[], &[("MODELS_DIR", dir), ("CONFIG_FILE", "named.yaml")]),
        ] {
            let output = check(files.path(), arguments, variables);
            let text = stderr(&output);
            assert_eq!(output.status.code(), Some(0), "{text}");
            assert!(
                text.contains("warning: mmproj-x.gguf is no projector of the model") && text.contains(fault),
                "{text}"
            );
        }
    }
    let gateway = Gateway::builder().set("MODEL_PATH", model).start();
    eventually("it is told on /health", SOON, || {
        gateway.health().get("/health").json()["warnings"].to_string().contains("mmproj-x.gguf is no projector")
    });
    eventually("and in the log", SOON, || gateway.output().contains("WARN mmproj-x.gguf is no projector"));
}

#[test]
fn a_context_that_the_model_cannot_have_was_granted_on_paper() {
    let warning = "CTX=100000 is more than the trained context of \"m\" (8192)";
    for (model, variables, is_warned) in [
        ("m: {file: tiny-chat.gguf}", &[("CTX", "100000")][..], true),
        ("m: {file: tiny-chat.gguf, ctx: 100000}", &[], true),
        ("m: {file: tiny-chat.gguf}", &[], false),
        ("m: {file: tiny-chat.gguf, ctx: 8192}", &[], false),
        ("m: {file: tiny-chat.gguf, ctx: 100000, args: [--rope-scaling, yarn]}", &[], false),
    ] {
        let text = warnings_of(model, variables);
        assert_eq!(text.contains(warning), is_warned, "{model}: {text}");
        assert!(is_warned || text.is_empty(), "{model}: {text}");
    }
    let text = warnings_of("a: {file: tiny-chat.gguf}, b: {file: tiny-chat.gguf, ctx: 9000}", &[("CTX", "9000")]);
    assert_eq!(text.matches("trained context of \"a\" (8192), \"b\" (8192)").count(), 1, "{text}");
}

#[test]
fn a_model_without_the_head_of_its_kind_served_nothing_and_check_was_silent() {
    for (model, warning) in [
        ("m: {file: tiny-chat.gguf, kind: embedding}", "\"m\" has no pooling"),
        ("m: {file: tiny-chat.gguf, args: [--embedding]}", "args: [--pooling, last]"),
        ("m: {file: tiny-chat.gguf, kind: embedding, args: [--pooling, last]}", ""),
        ("m: {file: tiny-chat.gguf, kind: rerank}", "\"m\" has no ranking head"),
        ("m: {file: tiny-embedding.gguf, kind: embedding}", ""),
        ("m: {file: tiny-rerank.gguf}", ""),
        ("m: {file: tiny-qwen3-reranker.gguf}", ""),
        ("m: {file: tiny-qwen3-reranker.gguf, kind: rerank, instruction: Find it}", ""),
        ("m: {file: tiny-qwen3-reranker.gguf, kind: chat}", ""),
        ("m: {file: tiny-qwen3-reranker.gguf, kind: embedding}", "\"m\" has no pooling"),
        ("m: {file: tiny-qwen3-reranker.gguf, kind: embedding, args: [--pooling, last]}", ""),
        ("m: {file: tiny-rerank.gguf, instruction: Find it}", "models.m.instruction has no effect"),
        ("m: {file: tiny-qwen3-reranker.gguf, kind: chat, instruction: Find it}", "models.m.instruction has no effect"),
    ] {
        let text = warnings_of(model, &[]);
        assert!(text.contains(warning) && warning.is_empty() == text.is_empty(), "{model}: {text}");
    }
}

/// A reranker without a ranking head cannot read what is written for other models.
#[test]
fn a_reranker_that_never_takes_over_is_named() {
    let words = "m: {file: tiny-qwen3-reranker.gguf}";
    let far = "model_list: [{model_name: NAME, litellm_params: {api_base: 'http://127.0.0.1:1'}, model_info: {mode: rerank}}]";
    let others = format!("models: {{{words}, o: {{file: tiny-rerank.gguf}}}}\n");
    for (text, warning) in [
        (format!("{others}fallbacks: {{o: [m]}}"), "fallbacks.o: m never takes over: it has no ranking head"),
        (format!("{others}fallbacks: {{m: [o]}}"), ""),
        (
            format!("models: {{{words}}}\n{}", far.replace("NAME", "m")),
            "\"m\" has no ranking head, and remote backends beside it",
        ),
        (
            format!("models: {{{words}}}\n{}", far.replace("NAME", "far")),
            "takes over no requests for rerank that name no model",
        ),
    ] {
        let found = warnings_of_file(&text, &[("FALLBACK_TO_LOCAL", "true")]);
        let is_told = found.contains(warning) && found.contains("ranking head") != warning.is_empty();
        assert!(is_told, "{text}: {found}");
    }
}

#[test]
fn a_mistyped_model_argument_was_blamed_on_the_models_folder() {
    let folder = tempfile::tempdir().unwrap();
    for models in ["nowhere", "."] {
        let output = check(folder.path(), &["MODEL.gguf"], &[("MODELS_DIR", models)]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(78), "{text}");
        assert!(text.contains("MODEL \"MODEL.gguf\": there is no file \"./MODEL.gguf\" here, and "), "{text}");
    }
    let output = check(folder.path(), &[], &[("MODEL_NAME", "MODEL.gguf")]);
    assert!(stderr(&output).contains("MODEL_NAME=\"MODEL.gguf\": the models folder"), "{}", stderr(&output));
    for (url, is_name) in [("http://x.example/y.gguf", false), ("hf://org/name", true), ("hf.co/org/name", true)] {
        for (arguments, variables) in
            [(&[url][..], &[][..]), (&[], &[("MODEL_NAME", url)]), (&[], &[("MODEL_PATH", url)])]
        {
            let output = check(folder.path(), arguments, variables);
            let text = stderr(&output);
            let is_path = variables.iter().any(|(name, _)| *name == "MODEL_PATH");
            let words =
                if is_name && !is_path { "the start downloads it" } else { "this is an address, and of no model" };
            assert!(text.contains(words), "{url}: {text}");
            assert_eq!(output.status.code() == Some(78), !is_name || is_path, "{text}");
        }
    }
}

#[test]
fn an_address_of_another_machine_was_an_unexpected_error() {
    let folder = tempfile::tempdir().unwrap();
    let (status, output) = Gateway::builder().set("HOST", "192.0.2.1").run_to_exit();
    assert_eq!(status.code(), Some(78), "{output}");
    let checked = stderr(&check(folder.path(), &["--mock-backend"], &[("HOST", "192.0.2.1")]));
    for text in [output, checked] {
        assert!(text.contains("HOST=192.0.2.1: this machine has no such address"), "{text}");
    }
}
