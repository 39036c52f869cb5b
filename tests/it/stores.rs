//! Models of other programs on this machine: Ollama's store and LM Studio's folder, served by the real llama-server where they
//! lie, and listed beside those of MODELS_DIR and of the hub's cache.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::PathBuf, process::Command};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::support::{
    client::{Client, Response},
    gateway::{ADMIN, Builder, Gateway, USER, real_llama_server, test_models},
    wait::{READY, eventually},
};

const LIBRARY: &str = "registry.ollama.ai/library";

/// The stores of other programs, and an empty folder for everything else.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for folder in ["ollama/blobs", "ollama/manifests", "lmstudio"] {
            fs::create_dir_all(machine.at(folder)).unwrap();
        }
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// Writes a blob. Returns its layer, and its path.
    fn blob(&self, kind: &str, bytes: &[u8]) -> (Value, PathBuf) {
        let hash: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let path = self.at("ollama/blobs").join(format!("sha256-{hash}"));
        fs::write(&path, bytes).unwrap();
        let media = format!("application/vnd.ollama.image.{kind}");
        (json!({"mediaType": media, "digest": format!("sha256:{hash}"), "size": bytes.len()}), path)
    }

    /// Writes the manifest of a model, in one step as Ollama does.
    fn manifest(&self, name: &str, layers: &[Value]) -> PathBuf {
        let path = self.at("ollama/manifests").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let draft = self.at("draft");
        fs::write(&draft, json!({"schemaVersion": 2, "layers": layers}).to_string()).unwrap();
        fs::rename(draft, &path).unwrap();
        path
    }

    /// Pulls a test model as Ollama would, with a template that has no effect here. Returns its blob.
    fn pull(&self, name: &str, file: &str) -> PathBuf {
        let (model, path) = self.blob("model", &fs::read(test_models().join(file)).unwrap());
        let (template, _) = self.blob("template", b"{{ .Prompt }}");
        self.manifest(name, &[model, template]);
        path
    }

    /// Downloads a test model as LM Studio would.
    fn download(&self, file: &str, repository: &str) -> PathBuf {
        let path = self.at("lmstudio").join(repository).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(test_models().join(file), &path).unwrap();
        path
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let text = |path: &str| self.at(path).display().to_string();
        vec![
            ("OLLAMA_MODELS", text("ollama")),
            ("LM_STUDIO_MODELS", text("lmstudio")),
            ("MODELS_DIR", text("models")),
            ("HF_HUB_CACHE", text("hub")),
        ]
    }

    /// Begins the configuration of a gateway on this machine.
    fn gateway(&self) -> Builder {
        self.variables()
            .into_iter()
            .fold(Gateway::builder().reals(""), |builder, (name, value)| builder.set(name, value))
    }

    /// Runs a subcommand on this machine. Returns its status, its output and its errors.
    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_llamagate"))
            .args(arguments)
            .env_clear()
            .env("DATA_DIR", self.0.path())
            .env("HOME", self.0.path())
            .env("AUTH_ENABLED", "no")
            .env("LLAMA_SERVER", real_llama_server())
            .envs(self.variables())
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Returns what lies in the stores: each path with the target of a link, or the hash and the time of a file.
    fn stores(&self) -> BTreeMap<PathBuf, String> {
        let mut found = BTreeMap::new();
        let mut pending = vec![self.at("ollama"), self.at("lmstudio")];
        while let Some(folder) = pending.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                let state = if metadata.is_dir() {
                    pending.push(path.clone());
                    String::new()
                } else if metadata.is_symlink() {
                    fs::read_link(&path).unwrap().display().to_string()
                } else {
                    format!("{:x?} {:?}", Sha256::digest(fs::read(&path).unwrap()), metadata.modified().unwrap())
                };
                found.insert(path, state);
            }
        }
        found
    }
}

fn chat(client: &Client, model: &str) -> Response {
    let messages = json!([{"role": "user", "content": "Say something."}]);
    client.post_json("/v1/chat/completions", &json!({"model": model, "messages": messages, "max_tokens": 2}))
}

#[track_caller]
fn assert_answers(response: &Response) -> Value {
    assert_eq!(response.status(), 200, "{}", response.text());
    response.json()
}

fn ids(client: &Client) -> Vec<String> {
    let list = client.get("/v1/models").json();
    list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn clients_of_ollama_go_on_with_the_names_that_they_have_and_nothing_in_a_store_changes() {
    let machine = Machine::new();
    machine.pull(&format!("{LIBRARY}/tiny/1b"), "tiny-chat.gguf");
    machine.pull(&format!("{LIBRARY}/tiny/latest"), "tiny-chat.gguf");
    machine.pull("hf.co/org/vectors-GGUF/latest", "tiny-embedding.gguf");
    machine.manifest(&format!("{LIBRARY}/cloud/latest"), &[]);
    machine.download("tiny-rerank.gguf", "pub/Rank-GGUF");
    let before = machine.stores();
    let keys = format!("user:{USER}\nadmin:{ADMIN} scope=admin\nsmall:small-secret-0123456789 models=tiny:1b\n");
    let mut gateway = machine.gateway().keys(&keys).start();
    let client = gateway.client();
    assert_eq!(ids(&client), ["hf.co/org/vectors-GGUF:latest", "tiny:1b", "tiny-rerank"]);

    let tags = assert_answers(&client.get("/api/tags"));
    let names: Vec<&str> =
        tags["models"].as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["hf.co/org/vectors-GGUF:latest", "tiny:1b", "tiny-rerank:latest"]);
    for name in ["tiny:1b", "tiny:latest", "tiny", "ollama:tiny:1b", "ollama:tiny"] {
        assert_eq!(assert_answers(&chat(&client, name))["model"], *name, "{name}");
    }
    let messages = json!([{"role": "user", "content": "Say something."}]);
    let request = json!({"model": "tiny:1b", "messages": messages, "stream": false, "options": {"num_predict": 2}});
    assert_eq!(assert_answers(&client.post_json("/api/chat", &request))["done"], true);
    let show = assert_answers(&client.post_json("/api/show", &json!({"model": "tiny:1b"})));
    assert_eq!(show["details"]["family"], "llama", "{show}");
    let vectors = json!({"model": "hf.co/org/vectors-GGUF", "input": "x"});
    assert_answers(&client.post_json("/api/embed", &vectors));
    let rank = json!({"model": "lmstudio:pub/Rank-GGUF", "query": "q", "documents": ["a", "b"]});
    assert_answers(&client.post_json("/v1/rerank", &rank));
    for path in ["hf.co%2Forg%2Fvectors-GGUF:latest", "hf.co/org/vectors-GGUF:latest"] {
        assert_eq!(assert_answers(&client.get(&format!("/v1/models/{path}")))["id"], "hf.co/org/vectors-GGUF:latest");
    }
    let unload = "/v1/models/hf.co%2Forg%2Fvectors-GGUF/unload";
    assert_eq!(gateway.client_with(ADMIN).post_json(unload, &json!({})).status(), 202);
    let small = gateway.client_with("small-secret-0123456789");
    assert_answers(&chat(&small, "ollama:tiny"));
    assert_eq!(ids(&small), ["tiny:1b"]);
    assert!(gateway.output().contains("\"cloud:latest\" in Ollama's store is left out: it has no model file"));

    let data = gateway.data_dir().display().to_string();
    gateway.stop();
    let (_, listed, _) = machine.run(&["list", "--json"], &[("DATA_DIR", &data)]);
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let used = |name: &str| listed.iter().find(|model| model["name"] == name).unwrap()["last_used"].clone();
    for name in ["ollama:tiny:1b", "ollama:tiny:latest", "lmstudio:pub/Rank-GGUF/tiny-rerank.gguf"] {
        assert!(used(name).is_string(), "{name} was used: {listed:#?}");
    }
    assert_eq!(machine.stores(), before);
}

#[test]
fn a_model_of_a_store_may_be_named_wherever_a_model_is_named() {
    let machine = Machine::new();
    let (model, _) = machine.blob("model", &fs::read(test_models().join("tiny-chat.gguf")).unwrap());
    let projector = fs::read(test_models().join("projector/mmproj-tiny.gguf")).unwrap();
    let (projector, projector_path) = machine.blob("projector", &projector);
    machine.manifest(&format!("{LIBRARY}/sees/latest"), &[model, projector]);
    machine.download("tiny-rerank.gguf", "pub/Rank-GGUF");
    let config = "models:\n  eyes: {file: 'ollama:sees', preload: true}\n  rank: {file: 'lmstudio:pub/Rank-GGUF'}\n";
    let gateway = machine.gateway().reals(config).start_ready();
    let client = gateway.client();
    assert_answers(&chat(&client, "eyes"));
    let rank = json!({"model": "rank", "query": "q", "documents": ["a", "b"]});
    assert_answers(&client.post_json("/v1/rerank", &rank));
    let eyes = assert_answers(&client.get("/v1/models/eyes"));
    assert!(eyes.to_string().contains("image"), "{eyes}");
    drop(gateway);

    let gateway = machine.gateway().argument("ollama:sees:latest").start_ready();
    let client = gateway.client();
    assert_eq!(ids(&client), ["sees:latest"]);
    for name in ["sees", "ollama:sees:latest"] {
        assert_answers(&chat(&client, name));
    }
    drop(gateway);
    let (status, output, errors) = machine.run(&["check", "ollama:sees"], &[]);
    assert_eq!(status, 0, "{errors}");
    let file = projector_path.file_name().unwrap().to_str().unwrap();
    assert!(output.contains(&format!("sees:latest  {file}")), "{output}");
}

#[test]
fn a_name_of_a_store_that_means_nothing_is_refused_with_what_is_there_and_never_downloaded() {
    let machine = Machine::new();
    machine.pull(&format!("{LIBRARY}/tiny/1b"), "tiny-chat.gguf");
    let ollama = machine.at("ollama").canonicalize().unwrap().display().to_string();
    for (variables, expected) in [
        (&[("MODEL_NAME", "ollama:tiny:2b")][..], "did you mean ollama:tiny:1b?"),
        (&[("MODEL_NAME", "ollama:tiny:2b")], &*ollama),
        (
            &[("MODEL_NAME", "ollama:org/tiny:2b"), ("HF_HUB_OFFLINE", "false")],
            "a name with this prefix is never downloaded",
        ),
        (&[("MODEL_NAME", "lmstudio:tiny")], "it holds no model"),
        (&[("MODEL_NAME", "ollama:tiny:1b"), ("MODEL_STORES", "lmstudio")], "MODEL_STORES leaves it out"),
        (&[("MODEL_STORES", "olama")], "did you mean ollama?"),
        (&[("MODEL_STORES", "none"), ("MODELS_DIR", "/nowhere")], "no model is named, and the models folder /nowhere"),
        (&[("MODEL_STORES", "lmstudio")], "nor is there one in LM Studio's folder ("),
    ] {
        let (status, _, errors) = machine.run(&["check"], variables);
        assert_eq!(status, 78, "{variables:?}: {errors}");
        assert!(errors.contains(expected), "{variables:?}: {errors}");
    }
    let (status, _, errors) = machine.run(&["pull", "ollama:tiny:1b"], &[]);
    assert_eq!(status, 78);
    assert!(errors.contains("used where it lies, and not downloaded"), "{errors}");
    let (status, _, errors) = machine.run(&["check"], &[("MODEL_STORES", "hub,ollama")]);
    assert_eq!(status, 0, "{errors}");
    assert!(errors.contains("warning: MODEL_STORES: hub is not there"), "{errors}");
    let (status, _, errors) = machine.run(&["check"], &[("SERVE_MODELS_DIR", "false")]);
    assert_eq!(status, 78, "no store is served either: {errors}");
}

#[test]
fn a_list_names_what_is_on_the_machine_and_why_the_rest_cannot_be_served() {
    let machine = Machine::new();
    let tiny = fs::read(test_models().join("tiny-chat.gguf")).unwrap();
    machine.pull(&format!("{LIBRARY}/tiny/1b"), "tiny-chat.gguf");
    let (outside, path) = machine.blob("model", &[&tiny[..], b"x"].concat());
    fs::rename(&path, machine.at("elsewhere")).unwrap();
    symlink(machine.at("elsewhere"), &path).unwrap();
    machine.manifest(&format!("{LIBRARY}/outside/latest"), &[outside]);
    fs::write(machine.manifest(&format!("{LIBRARY}/broken/latest"), &[]), "{").unwrap();
    let (mut short, _) = machine.blob("model", &tiny);
    short["size"] = json!(tiny.len() + 1);
    machine.manifest(&format!("{LIBRARY}/short/latest"), &[short]);
    machine.download("tiny-rerank.gguf", "pub/Rank-GGUF");
    let copy = |to: &str| {
        fs::create_dir_all(machine.at(to).parent().unwrap()).unwrap();
        fs::copy(test_models().join("tiny-chat.gguf"), machine.at(to)).unwrap();
    };
    copy("models/own.gguf");
    copy("hub/models--org--Tiny-GGUF/snapshots/aaa/Tiny-Q4_0.gguf");
    fs::create_dir_all(machine.at("hub/models--org--Big/blobs")).unwrap();
    fs::write(machine.at("hub/models--org--Big/blobs/abc.incomplete"), vec![0; 2048]).unwrap();
    let (status, table, errors) = machine.run(&["list"], &[]);
    assert_eq!((status, errors.as_str()), (0, ""));
    let line = |start: &str| {
        let at = table.lines().position(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {table}"));
        let words: Vec<String> = table.lines().nth(at).unwrap().split_whitespace().map(str::to_owned).collect();
        (words, table.lines().nth(at + 1).unwrap_or_default().to_owned())
    };
    assert!(line("NAME").0.ends_with(&["CONTEXT", "LAST", "USED"].map(str::to_owned)), "{table}");
    for (name, from) in [
        ("own.gguf", "models"),
        ("org/Tiny-GGUF:Q4_0", "hub"),
        ("ollama:tiny:1b", "ollama"),
        ("lmstudio:pub/Rank-GGUF/tiny-rerank.gguf", "lmstudio"),
    ] {
        let (words, _) = line(name);
        assert_eq!(
            (words[0].as_str(), words[1].as_str(), words.last().unwrap().as_str()),
            (name, from, "-"),
            "{table}"
        );
    }
    for (name, reason) in [
        ("ollama:outside:latest", "is a link that leads out of the store"),
        ("ollama:broken:latest", "has a manifest that is no JSON of Ollama's form"),
        ("ollama:short:latest", "is incomplete"),
        ("org/Big", "is a download that is not complete: 2.0 KiB are here"),
    ] {
        assert!(line(name).1.contains(reason), "{name}: {table}");
    }
    let (status, _, errors) = machine.run(&["list"], &[("MODEL_STORES", "everything")]);
    assert_eq!(status, 78, "{errors}");
    let (_, json, _) = machine.run(&["list", "--json"], &[]);
    let listed: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert!(listed.iter().any(|model| model["name"] == "ollama:tiny:1b" && model["kind"] == "chat"), "{json}");
}

#[test]
fn what_another_program_pulls_while_the_service_runs_is_served_and_one_file_in_two_places_once() {
    let machine = Machine::new();
    let blob = machine.pull(&format!("{LIBRARY}/first/latest"), "tiny-chat.gguf");
    fs::create_dir_all(machine.at("lmstudio/pub/repo")).unwrap();
    symlink(&blob, machine.at("lmstudio/pub/repo/linked.gguf")).unwrap();
    let snapshot = machine.at("hub/models--org--Hub-GGUF/snapshots/aaa");
    fs::create_dir_all(&snapshot).unwrap();
    // Another file than Ollama's: of two links to one only one would be served.
    fs::copy(test_models().join("tiny-chat.gguf"), snapshot.join("Hub-Q4_0.gguf")).unwrap();
    let gateway = machine.gateway().start();
    let client = gateway.client();
    eventually("the stores are read", READY, || ids(&client) == ["Hub-Q4_0", "first:latest"]);
    for name in ["linked", "org/Hub-GGUF:Q4_0", "org/Hub-GGUF"] {
        assert_answers(&chat(&client, name));
    }
    machine.pull(&format!("{LIBRARY}/second/7b"), "tiny-embedding.gguf");
    eventually("the new model is listed", READY, || ids(&client) == ["Hub-Q4_0", "first:latest", "second:7b"]);
    assert_answers(&client.post_json("/v1/embeddings", &json!({"model": "second:7b", "input": "x"})));
    fs::remove_file(machine.at("ollama/manifests").join(LIBRARY).join("second/7b")).unwrap();
    eventually("the model that was removed is gone", READY, || ids(&client) == ["Hub-Q4_0", "first:latest"]);
}

#[test]
fn an_empty_machine_names_all_places_that_were_looked_at() {
    let machine = Machine::new();
    fs::create_dir(machine.at("hub")).unwrap();
    fs::create_dir(machine.at("models")).unwrap();
    let (status, _, errors) = machine.run(&["check"], &[]);
    assert_eq!(status, 78);
    for place in ["models", "hub", "ollama", "lmstudio"] {
        assert!(errors.contains(&machine.at(place).display().to_string()), "{place}: {errors}");
    }
}

#[test]
fn a_name_that_only_ollama_has_was_not_suggested_and_an_empty_one_had_two_problems() {
    let machine = Machine::new();
    machine.pull(&format!("{LIBRARY}/qwen3/4b"), "tiny-chat.gguf");
    fs::create_dir(machine.at("models")).unwrap();
    let (status, _, errors) = machine.run(&["check", "qwen3:4b"], &[]);
    assert_eq!(status, 78);
    assert!(errors.contains("did you mean ollama:qwen3:4b?") && errors.contains("llamagate list"), "{errors}");
    let (status, _, errors) = machine.run(&["check", "lmstudio:"], &[]);
    assert_eq!(status, 78);
    assert!(!errors.contains("alias"), "{errors}");
}
