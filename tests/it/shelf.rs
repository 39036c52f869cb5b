//! A folder of models as a shelf: every model below MODELS_DIR under the name of its file, without a configuration; and
//! the projectors that lie beside models.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::routing::{answered_by, chat, refused};
use super::support::{
    client::{Client, Response},
    gateway::{ADMIN, Backend, Builder, Gateway, USER},
    model_file::{self, Kind},
    resources::pid_gone,
    scripted::ScriptedModel,
    wait::{READY, SOON, STOPS, eventually},
};

const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";

/// Begins the configuration of a gateway with these files in MODELS_DIR and nothing that names a model.
fn folder(files: &[&str]) -> Builder {
    let kind = |name: &str| if name.contains("vectors") { Kind::Embedding } else { Kind::Chat };
    let models = files.iter().map(|name| ((*name).to_owned(), json!({}), kind(name))).collect();
    Gateway::builder().backend(Backend::Fakes { config: String::new(), models })
}

fn models_dir(gateway: &Gateway) -> PathBuf {
    gateway.data_dir().join("models")
}

/// Puts a further model into MODELS_DIR: beside it, and then in one step.
fn put(gateway: &Gateway, name: &str) -> ScriptedModel {
    let path = models_dir(gateway).join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let model = ScriptedModel { path: path.clone() };
    model.rewrite_script(&json!({}));
    let elsewhere = gateway.data_dir().join("download");
    model_file::write(&elsewhere, Kind::Chat);
    fs::rename(elsewhere, path).unwrap();
    model
}

fn ids(client: &Client) -> Vec<String> {
    let list = client.get("/v1/models").json();
    list["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap().to_owned()).collect()
}

fn ask(client: &Client, model: &str) -> Response {
    client.post_json(CHAT, &chat(model))
}

fn llamagate(command: &str, models: &Path, variables: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_llamagate"))
        .arg(command)
        .env_clear()
        .envs([("DATA_DIR", "/nonexistent"), ("AUTH_ENABLED", "no"), ("LLAMA_SERVER", "/bin/sh")])
        .env("MODELS_DIR", models)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_folder_of_models_is_served_by_the_names_of_its_files_and_nothing_is_loaded_before_its_request() {
    let gateway = folder(&["one.gguf", "zwei Modelle äöü.gguf", "vectors.gguf"]).start_ready();
    let client = gateway.client();
    assert_eq!(ids(&client), ["one", "vectors", "zwei Modelle äöü"]);
    assert!(gateway.child_pids().is_empty(), "models are loaded on demand");
    for id in ["one", "zwei Modelle äöü"] {
        assert_eq!(answered_by(&ask(&client, id)), id);
    }
    let vectors = client.post_json(EMBEDDINGS, &json!({"model": "vectors", "input": "x"}));
    assert_eq!(answered_by(&vectors), "vectors");
    assert_eq!(refused(&ask(&client, "vectors"), 400), "wrong_model_kind");
    let unknown = ask(&client, "three");
    assert_eq!(refused(&unknown, 404), "model_not_found");
    assert!(unknown.text().contains("zwei Modelle äöü"), "{}", unknown.text());
    assert_eq!(client.get("/v1/models/zwei%20Modelle%20%C3%A4%C3%B6%C3%BC").status(), 200);
}

#[test]
fn a_single_model_is_preloaded_and_a_name_that_comes_later_never_means_it_for_long() {
    let gateway = folder(&["only.gguf"]).start_ready();
    let client = gateway.client();
    gateway.model_file("only.gguf").journal().wait_for_event("ready");
    assert_eq!(answered_by(&ask(&client, "whatever")), "only", "as with one configured model");
    let later = put(&gateway, "later.gguf");
    eventually("the new model answers", READY, || answered_by(&ask(&client, "later")) == "later");
    assert_eq!(later.journal().starts().len(), 1);
    assert_eq!(gateway.model_file("only.gguf").journal().starts().len(), 1, "the first one goes on");
    assert_eq!(refused(&ask(&client, "whatever"), 404), "model_not_found");
}

#[test]
fn a_file_that_appears_is_served_one_that_is_replaced_is_loaded_again_and_one_that_vanishes_drains() {
    let gateway = folder(&["stays.gguf", "goes.gguf"]).start_ready();
    let client = gateway.client();
    for id in ["stays", "goes"] {
        assert_eq!(answered_by(&ask(&client, id)), id);
    }
    let goes = gateway.model_file("goes.gguf").clone();
    goes.rewrite_script(&json!({"hold_mid_stream": {"after_frames": 1}}));
    put(&gateway, "sub/comes.gguf");
    eventually("the new file is listed", READY, || ids(&client).contains(&"comes".to_owned()));
    assert_eq!(answered_by(&ask(&client, "sub/comes")), "comes", "its name with its folder means it too");

    // A replaced file has another inode.
    let before = goes.journal().starts()[0]["pid"].as_u64().unwrap() as u32;
    let copy = gateway.data_dir().join("copy");
    model_file::write(&copy, Kind::Chat);
    fs::rename(copy, &goes.path).unwrap();
    eventually("the process with the old file ends", READY, || ids(&client).len() == 3 && pid_gone(before));
    let mut stream = client.stream(CHAT, &json!({"model": "goes", "messages": [], "stream": true}));
    assert!(stream.next_event().is_some());
    assert_eq!(goes.journal().starts().len(), 2);
    let pid = goes.journal().starts()[1]["pid"].as_u64().unwrap() as u32;

    fs::remove_file(&goes.path).unwrap();
    eventually("the file that is gone is no longer listed", READY, || ids(&client) == ["stays", "comes"]);
    assert_eq!(refused(&ask(&client, "goes"), 404), "model_not_found");
    assert!(!pid_gone(pid), "its request is served to the end");
    goes.control().release_all_requests();
    assert!(stream.events().last().is_some_and(|event| event.is_done()), "{}", stream.rest());
    eventually("its process ends", STOPS, || pid_gone(pid));
    assert_eq!(gateway.model_file("stays.gguf").journal().starts().len(), 1, "the others are not disturbed");
}

/// The list is answered without a request for the vanished name, so only the failed load tells that the file is gone.
#[test]
fn a_model_whose_file_is_gone_at_its_load_leaves_the_list_and_never_ends_the_service() {
    let gateway = folder(&["one.gguf", "two.gguf"]).start_ready();
    let client = gateway.client();
    for name in ["one.gguf", "two.gguf"] {
        fs::remove_file(&gateway.model_file(name).path).unwrap();
    }
    for id in ["one", "two"] {
        let status = ask(&client, id).status();
        assert!([404, 503].contains(&status), "{id}: {status}");
    }
    eventually("no model is left", READY, || gateway.anonymous().get("/health").json()["models"] == json!([]));
    assert_eq!(refused(&ask(&client, "one"), 404), "model_not_found");
    put(&gateway, "three.gguf");
    eventually("the service goes on", READY, || ask(&client, "three").status() == 200);
}

#[test]
fn a_file_that_is_being_written_is_left_out_with_one_line_and_served_when_it_is_whole() {
    let gateway = folder(&["good.gguf"]).start_ready();
    let client = gateway.client();
    let whole = gateway.data_dir().join("whole");
    model_file::write(&whole, Kind::Chat);
    let bytes = fs::read(&whole).unwrap();
    let path = models_dir(&gateway).join("grows.gguf");
    let is_named = |gateway: &Gateway| gateway.output().matches("\"grows.gguf\" in the models folder").count();
    fs::write(&path, &bytes[..10]).unwrap();
    eventually("the half file is noticed", READY, || ids(&client) == ["good"] && is_named(&gateway) == 1);
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    // Another file that comes at the same time shows that a scan has seen this one.
    put(&gateway, "other.gguf");
    eventually("a later scan is made", READY, || ids(&client) == ["good", "other"]);
    assert_eq!(is_named(&gateway), 1, "{}", gateway.output());
    fs::write(&path, &bytes).unwrap();
    eventually("the whole file is served", READY, || ids(&client).contains(&"grows".to_owned()));
    assert_eq!(answered_by(&ask(&client, "grows")), "grows");
}

#[test]
fn broken_files_are_warnings_beside_a_good_one_and_end_the_start_with_69_alone() {
    let script = |name: &str| (name.to_owned(), json!({}), Kind::Chat);
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("page.gguf"), "<html>").unwrap();
    model_file::write_projector(&files.path().join("mmproj.gguf"));
    let dir = files.path().to_str().unwrap();
    let start = || {
        let backend = Backend::Fakes { config: String::new(), models: vec![script("unused.gguf")] };
        Gateway::builder().backend(backend).set("MODELS_DIR", dir)
    };
    let (status, output) = start().run_to_exit();
    assert_eq!(status.code(), Some(69), "{output}");
    assert!(output.contains("fatal: the model file is not a GGUF file"), "{output}");
    assert_eq!(llamagate("check", files.path(), &[]).0, 78);

    model_file::write(&files.path().join("good.gguf"), Kind::Chat);
    let (status, output) = llamagate("check", files.path(), &[]);
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("warning: \"page.gguf\" in the models folder is left out: it is not a GGUF"), "{output}");
    let gateway = start().start();
    assert_eq!(ids(&gateway.client()), ["good"]);
    eventually("the log names the broken file", SOON, || {
        gateway.output().contains("\"page.gguf\" in the models folder")
    });
}

#[test]
fn a_folder_without_a_model_is_78_and_the_hint_names_the_folder() {
    let files = tempfile::tempdir().unwrap();
    let missing = files.path().join("missing");
    fs::create_dir(files.path().join("empty")).unwrap();
    model_file::write_projector(&files.path().join("empty/mmproj.gguf"));
    model_file::write_adapter(&files.path().join("empty/lora.gguf"));
    model_file::write(&files.path().join("empty/x-draft.gguf"), Kind::Chat);
    for (dir, fault) in [(files.path().join("empty"), "there is none below"), (missing, "cannot be read: No such file")]
    {
        let (status, output) = llamagate("check", &dir, &[]);
        assert_eq!(status, 78, "{output}");
        let hint = format!("hint: put .gguf files into {}", dir.display());
        for part in ["MODEL_NAME: no model is named", fault, &hint] {
            assert!(output.contains(part), "{part}: {output}");
        }
    }
    // The default folder is named too.
    let (status, output) = llamagate("check", Path::new(""), &[("DATA_DIR", files.path().to_str().unwrap())]);
    assert_eq!(status, 78);
    assert!(output.contains(&format!("put .gguf files into {}/models", files.path().display())), "{output}");
}

#[test]
fn serve_models_dir_decides_whether_the_folder_is_served_beside_models_that_are_named() {
    let files = tempfile::tempdir().unwrap();
    for name in ["one.gguf", "two.gguf", "three.gguf"] {
        model_file::write(&files.path().join(name), Kind::Chat);
    }
    let config = files.path().join("config.yaml");
    let check = |text: &str, variables: &[(&str, &str)]| {
        fs::write(&config, text).unwrap();
        let named = [("CONFIG_FILE", config.to_str().unwrap())];
        let (status, output) = llamagate("check", files.path(), &[&named, variables].concat());
        let table = output.split("\nmodels:\n").nth(1).unwrap_or_default();
        let rows = table.lines().skip(1).take_while(|line| !line.is_empty() && !line.starts_with("warning"));
        let ids = rows.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect::<Vec<_>>();
        (status, ids.join(" "), output)
    };
    let own = "models: {first: {file: one.gguf}, two: {file: three.gguf, aliases: [three]}}";
    for (text, variables, status, expected) in [
        ("", &[][..], 0, "one three two"),
        ("", &[("SERVE_MODELS_DIR", "true")], 0, "one three two"),
        ("", &[("SERVE_MODELS_DIR", "false")], 78, ""),
        ("server: {serve_models_dir: no}", &[], 78, ""),
        ("models: {}", &[], 78, ""),
        ("model_list: []", &[], 78, ""),
        (own, &[], 0, "first two"),
        (own, &[("SERVE_MODELS_DIR", "AUTO")], 0, "first two"),
        // `one.gguf` and `three.gguf` are served already, and `two` is the id of another model.
        (own, &[("SERVE_MODELS_DIR", "true")], 0, "first two"),
        ("models: {first: {file: one.gguf}}", &[("SERVE_MODELS_DIR", "true")], 0, "first three two"),
        ("", &[("MODEL_NAME", "one")], 0, "one"),
        ("", &[("MODEL_NAME", "one"), ("SERVE_MODELS_DIR", "yes")], 0, "one three two"),
        ("", &[("LIGHT_MODEL_PATH", "two.gguf")], 0, "two"),
    ] {
        let (actual, ids, output) = check(text, variables);
        assert_eq!((actual, ids.as_str()), (status, expected), "{text} {variables:?}\n{output}");
    }
    let (status, _, output) = check("", &[("SERVE_MODELS_DIR", "maybe")]);
    assert_eq!(status, 78);
    assert!(output.contains("SERVE_MODELS_DIR=\"maybe\"") && output.contains("auto, true or false"), "{output}");
    let (status, _, output) = check("fallbacks: {one: [two, four]}", &[]);
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("warning: fallbacks.one: there is no model and no tier \"four\""), "{output}");
}

#[test]
fn defaults_and_settings_apply_to_every_model_of_the_folder_and_keys_may_be_limited_to_some() {
    let config = "defaults: {sampling: {temperature: 0.25}, ctx: 2048}";
    let models = ["a.gguf", "b.gguf"].map(|name| (name.to_owned(), json!({}), Kind::Chat)).to_vec();
    let keys = format!("admin:{ADMIN}:100000 scope=inference,admin\nuser:{USER}:100000 models=b,c\n");
    let backend = Backend::Fakes { config: config.into(), models };
    let gateway = Gateway::builder().backend(backend).keys(&keys).start_ready();
    let client = gateway.client();
    assert_eq!(ids(&client), ["b"]);
    assert_eq!(refused(&ask(&client, "a"), 403), "model_not_allowed");
    assert_eq!(answered_by(&ask(&client, "b")), "b");
    let journal = gateway.model_file("b.gguf").journal();
    assert!(journal.requests(CHAT)[0]["body"].as_str().unwrap().contains("0.25"));
    assert_eq!(argument_after(&journal.starts()[0], "-c").as_deref(), Some("2048"));
    put(&gateway, "c.gguf");
    eventually("the key may use a model that comes later", READY, || ask(&client, "c").status() == 200);
    assert_eq!(ids(&gateway.client_with(ADMIN)), ["a", "b", "c"]);
}

#[test]
fn a_reload_finds_new_files_too_and_an_empty_folder_changes_nothing() {
    let gateway = folder(&["one.gguf", "two.gguf"]).start_ready();
    let served = || -> Vec<String> {
        let health = gateway.anonymous().get("/health").json();
        health["models"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    };
    put(&gateway, "b/one.gguf");
    let answer = gateway.client_with(ADMIN).send("POST", "/reload", b"");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(served(), ["b/one", "one", "two"], "the same name in two folders");
    put(&gateway, "three.gguf");
    gateway.signal(Signal::SIGHUP);
    eventually("SIGHUP scans", READY, || served() == ["b/one", "one", "three", "two"]);
    fs::rename(models_dir(&gateway), gateway.data_dir().join("unmounted")).unwrap();
    let answer = gateway.client_with(ADMIN).send("POST", "/reload", b"");
    assert_eq!(answer.status(), 500);
    assert!(answer.text().contains("cannot be read"), "{}", answer.text());
    // A scan that cannot read the folder takes no model away either.
    assert_eq!(refused(&ask(&gateway.client(), "four"), 404), "model_not_found");
    assert_eq!(served(), ["b/one", "one", "three", "two"]);
}

#[test]
fn a_folder_of_many_files_is_served() {
    let names: Vec<String> = (0..1000).map(|number| format!("m{number:03}.gguf")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let gateway = folder(&names).start_ready();
    let client = gateway.client();
    let listed = ids(&client);
    assert_eq!((listed.len(), listed[0].as_str(), listed[999].as_str()), (1000, "m000", "m999"));
    for id in ["m000", "m500", "m999"] {
        assert_eq!(answered_by(&ask(&client, id)), id);
    }
    put(&gateway, "more.gguf");
    eventually("the cut is in the log", READY, || {
        assert_eq!(ids(&client).len(), 1000);
        gateway.output().contains("1000 are served at most")
    });
}

#[test]
fn check_and_models_show_the_ids_of_the_folder() {
    let files = tempfile::tempdir().unwrap();
    for name in ["top.gguf", "a/same.gguf", "b/same.gguf", "models--org--repo/snapshots/abc/hub.gguf"] {
        let path = files.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        model_file::write(&path, Kind::Chat);
    }
    std::os::unix::fs::symlink(files.path(), files.path().join("a/loop")).unwrap();
    let (status, output) = llamagate("check", files.path(), &[]);
    assert_eq!(status, 0, "{output}");
    let (_, listed) = llamagate("models", files.path(), &[]);
    for id in ["top", "a/same", "b/same", "hub"] {
        assert!(output.lines().any(|line| line.starts_with(&format!("{id} "))), "{id}: {output}");
        assert!(listed.lines().any(|line| line.split_whitespace().nth(1) == Some(id)), "{id}: {listed}");
    }
}

fn argument_after(start: &Value, name: &str) -> Option<String> {
    let argv: Vec<&str> = start["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    let at = argv.iter().position(|word| *word == name)?;
    Some(argv[at + 1].to_owned())
}

/// Returns the projector that llama-server gets for each model of a folder with these files, and the output of `check`.
fn projectors(config: &str, variables: &[(&str, &str)], files: &[&str], asked: &[&str]) -> (Vec<String>, String) {
    let (projectors, models): (Vec<&str>, Vec<&str>) = files.iter().partition(|name| name.contains("mmproj"));
    let models = models.iter().map(|name| ((*name).to_owned(), json!({}), Kind::Chat)).collect();
    let builder = Gateway::builder().backend(Backend::Fakes { config: config.into(), models }).set_all(variables);
    // The files must be there before the start, and the folder is made by the start.
    let elsewhere = tempfile::tempdir().unwrap();
    for name in projectors {
        model_file::write_projector(&elsewhere.path().join(name));
    }
    let mut gateway = builder.start_ready();
    for entry in fs::read_dir(elsewhere.path()).unwrap().flatten() {
        fs::rename(entry.path(), models_dir(&gateway).join(entry.file_name())).unwrap();
    }
    let reloaded = gateway.client_with(ADMIN).send("POST", "/reload", b"");
    assert_eq!(reloaded.status(), 200, "{}", reloaded.text());
    let client = gateway.client();
    let projector = |id: &&str| {
        assert_eq!(answered_by(&ask(&client, id)), *id);
        let start = gateway.model_file(&format!("{id}.gguf")).journal().starts().pop().unwrap();
        let path = argument_after(&start, "--mmproj").unwrap_or_default();
        Path::new(&path).file_name().unwrap_or_default().to_str().unwrap().to_owned()
    };
    let found = asked.iter().map(projector).collect();
    // The log is written by a thread of its own; the end waits for it.
    assert_eq!(gateway.stop().code(), Some(0));
    (found, gateway.output())
}

/// Regression: images sent to a model with its projector beside it were refused by llama-server, and no word in the log
/// said why.
#[test]
fn a_projector_beside_a_model_is_passed_and_named_in_the_log() {
    let (found, log) = projectors("", &[], &["see.gguf", "mmproj-F16.gguf"], &["see"]);
    assert_eq!(found, ["mmproj-F16.gguf"]);
    assert!(log.contains("uses a multimodal projector") && log.contains("mmproj-F16.gguf"), "{log}");
    let three = ["gemma-3-4b-q4_0.gguf", "qwen3-8b.gguf", "mmproj-gemma-3-4b-f16.gguf"];
    let (found, _) = projectors("", &[], &three, &["gemma-3-4b-q4_0", "qwen3-8b"]);
    assert_eq!(found, ["mmproj-gemma-3-4b-f16.gguf", ""]);
}

/// Regression: a model with all projectors of its repository beside it, one for each precision, got none.
#[test]
fn the_projectors_of_a_whole_repository_left_a_model_without_vision() {
    let files = ["see.gguf", "mmproj-BF16.gguf", "mmproj-F32.gguf", "mmproj-F16.gguf"];
    let (found, log) = projectors("", &[], &files, &["see"]);
    assert_eq!(found, ["mmproj-F16.gguf"]);
    assert!(log.contains("preferred_to=mmproj-BF16.gguf, mmproj-F32.gguf"), "{log}");
    assert!(!log.contains("is not used") && !log.contains("equally well"), "{log}");
    let folder = tempfile::tempdir().unwrap();
    for name in &files[1..] {
        model_file::write_projector(&folder.path().join(name));
    }
    model_file::write(&folder.path().join("see.gguf"), Kind::Chat);
    let (_, output) = llamagate("check", folder.path(), &[]);
    assert!(output.contains("see  mmproj-F16.gguf (preferred to mmproj-BF16.gguf, mmproj-F32.gguf)"), "{output}");
}

#[test]
fn of_several_projectors_none_is_passed_unless_the_model_names_one() {
    let files = ["see.gguf", "mmproj.gguf", "mmproj-F16.gguf"];
    let (found, log) = projectors("", &[], &files, &["see"]);
    assert_eq!(found, [""]);
    assert!(log.contains("gets no multimodal projector: mmproj-F16.gguf, mmproj.gguf suit it"), "{log}");
    for (setting, variables, expected) in [
        ("mmproj: mmproj-F16.gguf", &[][..], "mmproj-F16.gguf"),
        ("mmproj: mmproj-BF16", &[], "mmproj-BF16.gguf"),
        ("mmproj: none", &[], ""),
        ("mmproj: mmproj-F16.gguf, args: [--no-mmproj]", &[], ""),
        ("mmproj: mmproj-F16.gguf", &[("EXTRA_ARGS", "--mmproj /elsewhere/mine.gguf")], "mine.gguf"),
        ("ttl: 0", &[("EXTRA_ARGS", "-mm /elsewhere/mine.gguf")], ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for name in ["mmproj-BF16.gguf", "mmproj-F16.gguf"] {
            model_file::write_projector(&dir.path().join(name));
        }
        model_file::write(&dir.path().join("see.gguf"), Kind::Chat);
        let see = ScriptedModel::create(dir.path(), "see.gguf", Kind::Chat, &json!({}));
        let config = format!("models: {{see: {{file: see.gguf, {setting}}}}}");
        let backend = Backend::Fakes { config, models: Vec::new() };
        let builder = Gateway::builder().backend(backend).set("MODELS_DIR", dir.path().display());
        let gateway = builder.set_all(variables).start_ready();
        assert_eq!(ask(&gateway.client(), "see").status(), 200, "{}", gateway.output());
        let passed = argument_after(&see.journal().starts()[0], "--mmproj").unwrap_or_default();
        let passed = Path::new(&passed).file_name().unwrap_or_default().to_str().unwrap();
        assert_eq!(passed, expected, "{setting} {variables:?}");
        if setting.starts_with("mmproj: mmproj-F16.gguf") && (setting.contains("args") || !variables.is_empty()) {
            assert!(gateway.output().contains("models.see.mmproj has no effect"), "{}", gateway.output());
        }
    }
}

#[test]
fn a_request_without_a_name_goes_to_the_default_of_a_folder_and_a_name_that_nothing_has_is_a_warning() {
    let models = ["one.gguf", "two.gguf"].map(|name| (name.to_owned(), json!({}), Kind::Chat)).to_vec();
    let config = "default_models: {chat: two, rerank: one, embedding: none}\nfallbacks: {'*': [two], one: [three]}\n";
    let gateway = Gateway::builder().backend(Backend::Fakes { config: config.into(), models }).start_ready();
    let client = gateway.client();
    assert_eq!(answered_by(&client.post_json(CHAT, &json!({"messages": []}))), "two");
    assert_eq!(answered_by(&ask(&client, "unknown")), "two", "it stands in for unknown names");
    let output = gateway.output();
    for warning in [
        "default_models.embedding: there is no model \"none\"",
        "default_models.rerank: the model \"one\" is for chat",
        "fallbacks.one: there is no model and no tier \"three\"",
    ] {
        assert!(output.contains(warning), "{output}");
    }
    assert!(!output.contains("tier \"*\""), "{output}");
}

#[test]
fn check_names_projectors_and_refuses_what_is_no_model_of_its_own() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    model_file::write(&path("see.gguf"), Kind::Chat);
    model_file::write_projector(&path("mmproj-F16.gguf"));
    let (status, output) = llamagate("check", files.path(), &[]);
    assert_eq!(status, 0, "{output}");
    assert!(output.contains("\nprojectors:\nsee  mmproj-F16.gguf\n"), "{output}");
    // MODEL_PATH finds it too.
    let see = path("see.gguf");
    let (_, output) = llamagate("check", files.path(), &[("MODEL_PATH", see.to_str().unwrap())]);
    assert!(output.contains("\nprojectors:\nsee  mmproj-F16.gguf\n"), "{output}");
    model_file::write(&path("other.gguf"), Kind::Chat);
    let (_, output) = llamagate("check", files.path(), &[]);
    assert!(output.contains("warning: the multimodal projector mmproj-F16.gguf is not used"), "{output}");

    model_file::write_adapter(&path("lora.gguf"));
    model_file::write(&path("see-draft.gguf"), Kind::Chat);
    for (name, what) in [
        ("mmproj-F16.gguf", "is a multimodal projector (mmproj), not a model of its own"),
        ("lora.gguf", "is a LoRA adapter, not a model of its own"),
        ("see-draft.gguf", "is a draft model by its name, not a model of its own"),
    ] {
        for (variable, value) in [("MODEL_NAME", name.to_owned()), ("MODEL_PATH", path(name).display().to_string())] {
            let (status, output) = llamagate("check", files.path(), &[(variable, &value)]);
            assert_eq!(status, 78, "{output}");
            assert!(output.contains(what) && output.contains("hint: name the model that it belongs to"), "{output}");
        }
    }
    let config = path("config.yaml");
    let check = |text: &str| {
        fs::write(&config, text).unwrap();
        llamagate("check", files.path(), &[("CONFIG_FILE", config.to_str().unwrap())])
    };
    assert_eq!(check("models: {draft: {file: see-draft.gguf}}").0, 0, "it was chosen by name");
    for (text, what) in [
        ("models: {see: {file: see.gguf, mmproj: nowhere.gguf}}", "models.see.mmproj: \"nowhere.gguf\""),
        ("models: {see: {file: see.gguf, mmproj: other.gguf}}", "no multimodal projector"),
        ("models: {see: {file: see.gguf, mmproj: ''}}", "models.see.mmproj: expected the file"),
        ("models: {see: {file: see.gguf, mmproj: [a]}}", "models.see.mmproj: expected the file"),
        ("models: {see: {file: see.gguf, mmproj: false}}", "hint: write none"),
        ("models: {see: {file: see.gguf, mmproj: 'no'}}", "hint: write none"),
        ("models: {see: {file: see.gguf, mmproj: true}}", "hint: leave it out"),
        ("models: {see: {command: [x, '{port}'], mmproj: none}}", "models.see.mmproj: is llama-server's"),
        ("defaults: {mmproj: none}", "defaults.mmproj: belongs to a single model"),
    ] {
        let (status, output) = check(text);
        assert_eq!(status, 78, "{output}");
        assert!(output.contains(what), "{text}: {output}");
    }
}

mod real {
    use super::super::support::gateway::{real_llama_server, test_models};
    use super::*;

    /// A PNG of one red pixel.
    const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC";

    fn image(model: &str) -> Value {
        let url = format!("data:image/png;base64,{PNG}");
        json!({"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": [
            {"type": "text", "text": "what is this"},
            {"type": "image_url", "image_url": {"url": url}},
        ]}]})
    }

    #[test]
    fn a_folder_of_models_answers_chats_vectors_and_images_and_takes_a_projector_that_comes_later() {
        let files = tempfile::tempdir().unwrap();
        let copy = |from: &str, to: &str| {
            let to = files.path().join(to);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(test_models().join(from), to).unwrap();
        };
        copy("tiny-chat.gguf", "vision/sees.gguf");
        copy("projector/mmproj-tiny.gguf", "vision/mmproj-F16.gguf");
        copy("tiny-chat.gguf", "blind.gguf");
        copy("tiny-embedding.gguf", "vectors.gguf");
        let gateway = Gateway::builder()
            .reals("")
            .set("MODELS_DIR", files.path().display())
            .set("LLAMA_SERVER", real_llama_server().display())
            .start();
        let client = gateway.client();
        assert_eq!(ids(&client), ["blind", "vectors", "sees"]);
        assert_eq!(answered_by(&ask(&client, "blind")), "blind");
        let vectors = client.post_json(EMBEDDINGS, &json!({"model": "vectors", "input": "x"}));
        assert_eq!(answered_by(&vectors), "vectors");
        assert_eq!(answered_by(&client.post_json(CHAT, &image("sees"))), "sees");
        let reads =
            |id: &str| client.get(&format!("/v1/models/{id}")).json()["architecture"]["input_modalities"].clone();
        assert_eq!((reads("sees"), reads("blind")), (json!(["text", "image"]), json!(["text"])));
        let refusal = client.post_json(CHAT, &image("blind"));
        assert!(
            refusal.status() >= 400 && refusal.text().contains("image input is not supported"),
            "{}",
            refusal.text()
        );
        copy("projector/mmproj-tiny.gguf", "mmproj-blind.gguf");
        eventually("the model sees", super::super::support::wait::REAL_MODEL_READY, || {
            ids(&client);
            client.post_json(CHAT, &image("blind")).status() == 200
        });
        assert_eq!(reads("blind"), json!(["text", "image"]));
    }
}
