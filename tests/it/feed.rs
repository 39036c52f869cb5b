//! The live feed where it takes a while: loads that go on, and a client that reads slowly.

use std::{
    collections::HashSet,
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::events::{EVENTS, admin, await_event, id_of, listen};
use super::support::{
    client::Stream,
    gateway::{Backend, Gateway, real_llama_server, smollm},
    model_file::Kind,
    resources::is_stopped,
    scripted::ScriptedModel,
    wait::{READY, SOON, eventually, eventually_some},
};

/// The bytes of the model whose load takes a while.
const LARGE: u64 = 64 << 20;

/// Creates a model whose load takes memory, 1 MiB at a time, and then goes on until it is released.
pub(super) fn large_model(folder: &Path) -> ScriptedModel {
    let signs = json!({"kind": "memory", "interval_ms": 250, "times": 40});
    let script = json!({"load_signs": signs, "load": {"until_released": true}});
    let model = ScriptedModel::create(folder, "large.gguf", Kind::Chat, &script);
    File::options().write(true).open(&model.path).unwrap().set_len(LARGE).unwrap();
    model
}

#[test]
fn a_load_is_told_with_its_phase_its_bytes_and_the_time_that_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let model = large_model(folder.path());
    let gateway = Gateway::builder().set("MODEL_PATH", model.path.display()).start();
    let client = admin(&gateway);
    let (mut stream, _) = listen(&client);
    let goes_on = |load: &Value| load["phase"] == "weights" && load["bytes"].as_u64() > Some(0);
    let first = await_event(&mut stream, "load", goes_on).json();
    assert_eq!((&first["model"], &first["worker"]), (&json!("large"), &json!(0)), "{first}");
    assert!(first["total"] == LARGE && first["bytes"].as_u64() < Some(LARGE), "{first}");
    assert!(first["seconds_left"].as_u64() > Some(0) && first["seconds"].is_u64(), "{first}");
    let later = await_event(&mut stream, "load", |load| load["bytes"].as_u64() > first["bytes"].as_u64()).json();
    assert!(later["seconds"].as_u64() >= first["seconds"].as_u64(), "{first} {later}");
    // One who comes meanwhile sees it too.
    let seen = listen(&client).1.json()["models"][0]["workers"][0]["load"].clone();
    assert!(seen["phase"] == "weights" && seen["bytes"].as_u64() >= later["bytes"].as_u64(), "{seen}");
    model.control().release_load();
    let ready = await_event(&mut stream, "model", |model| model["state"] == "ready").json();
    assert_eq!(ready["workers"][0]["load"], Value::Null, "{ready}");
}

/// Writes a llama-server that stops itself before it loads a model.
fn server_that_waits(path: &Path) {
    let server = real_llama_server();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--port*) kill -STOP $$;; esac\nexec {} \"$@\"\n",
        shlex::try_quote(server.to_str().unwrap()).unwrap()
    );
    fs::write(path, script).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_load_of_the_real_llama_server_is_told_from_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let server = folder.path().join("llama-server");
    server_that_waits(&server);
    let builder = Gateway::builder().backend(Backend::Real { model: "tiny-chat.gguf" });
    let gateway = builder.set("LLAMA_SERVER", server.display()).set("MODEL_PATH", smollm().display()).start();
    let (mut stream, _) = listen(&admin(&gateway));
    let start = await_event(&mut stream, "load", |load| load["phase"] == "start").json();
    let total = fs::metadata(smollm()).unwrap().len();
    assert_eq!((&start["total"], &start["bytes"], &start["seconds_left"]), (&json!(total), &Value::Null, &Value::Null));
    let pid =
        eventually_some("llama-server waits", READY, || gateway.child_pids().into_iter().find(|pid| is_stopped(*pid)));
    kill(Pid::from_raw(pid as i32), Signal::SIGCONT).unwrap();
    let ready = await_event(&mut stream, "model", |model| model["state"] == "ready").json();
    assert_eq!(ready["workers"][0]["load"], Value::Null, "{ready}");
}

/// Models that come and go with a reload, which makes many events at once.
const MODELS: usize = 150;
/// Reloads that make more events than the kernel keeps for a client that does not read, and than it may be behind.
const RELOADS: usize = 12;
/// The bytes that the kernel keeps for that client, at its end.
const SMALL_BUFFER: usize = 4096;

/// Bytes of their names, so that events are large.
const LONG_NAME: usize = 150;

/// Returns a configuration with this many models beside the first, none of which is loaded.
fn with_models(count: usize) -> String {
    let mut config = "models:\n  base: {file: dummy.gguf, preload: false}\n".to_owned();
    (0..count).for_each(|n| config += &format!("  m{n:0>LONG_NAME$}: {{file: dummy.gguf, preload: false}}\n"));
    config
}

/// Reads events until each of the models has one of this name. Returns the id of the last one. There is none missing.
#[track_caller]
fn hear_of_all(stream: &mut Stream, name: &str, mut last: u64) -> u64 {
    let mut heard = HashSet::new();
    while heard.len() < MODELS {
        let event = stream.next_event().expect("the feed goes on");
        if event.name.is_none() {
            continue;
        }
        assert_eq!(id_of(&event), last + 1, "{event:?}");
        last = id_of(&event);
        let id = event.json()["id"].as_str().unwrap_or_default().to_owned();
        if event.name.as_deref() == Some(name) && id.starts_with('m') {
            heard.insert(id);
        }
    }
    last
}

#[test]
fn a_client_that_reads_slowly_is_told_what_it_missed_and_holds_no_other_back() {
    let gateway = Gateway::builder().fakes(&with_models(0), &[("dummy.gguf", json!({}))]).start();
    let client = admin(&gateway);
    let mut slow = client.clone().receive_buffer(SMALL_BUFFER).stream_of(EVENTS);
    let (mut quick, first) = listen(&client);
    let mut last = id_of(&first);
    for round in 0..RELOADS {
        let (count, name) = if round % 2 == 0 { (MODELS, "model") } else { (0, "model_removed") };
        gateway.rewrite_config(&with_models(count));
        assert_eq!(client.post_json("/reload", &json!({})).status(), 200);
        last = hear_of_all(&mut quick, name, last);
    }
    // What was sent before it fell behind comes first, and nothing of it is missing.
    let mut seen = id_of(&slow.next_event().expect("there is a snapshot"));
    let dropped = loop {
        let event = slow.next_event().expect("the feed goes on");
        match event.name.as_deref() {
            Some("dropped") => break event.json()["events"].as_u64().unwrap(),
            Some(_) => assert_eq!(id_of(&event), seen + 1, "{event:?}"),
            None => panic!("it has heard of all: {seen} of {last}"),
        }
        seen += 1;
    };
    let snapshot = slow.next_event().expect("a snapshot follows");
    assert_eq!((snapshot.name.as_deref(), id_of(&snapshot)), (Some("snapshot"), seen + dropped));
    assert_eq!(snapshot.json()["models"].as_array().unwrap().len(), 1);
    assert!(seen + dropped >= last, "it is as things are now");
    // It goes on as all others do.
    assert_eq!(client.post_json("/reload", &json!({})).status(), 200);
    await_event(&mut slow, "act", |act| act["act"] == "POST /reload");
    let open = gateway.open_fds();
    drop((slow, quick));
    eventually("their sockets are closed", SOON, || gateway.open_fds() <= open - 2);
}
