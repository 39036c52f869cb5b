//! The files of `.runpod/`, by which RunPod's Hub lists, builds and tests this project: they have the form that its
//! documentation asks for, each variable is a setting, each preset a configuration that starts, and each test a job that
//! is done.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use llamagate::settings::OPTIONS;
use serde_json::{Value, json};

use super::runpod_queue::{job, worker_of};
use super::support::{
    gateway::{Backend, real_llama_server},
    runpod::Platform,
};

fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn hub_json() -> Value {
    serde_json::from_str(&file(".runpod/hub.json")).unwrap()
}

fn tests_json() -> Value {
    serde_json::from_str(&file(".runpod/tests.json")).unwrap()
}

/// Checks that an object has these members, and no other but those that it may have.
fn assert_members(object: &Value, required: &[&str], optional: &[&str]) {
    let members = object.as_object().unwrap_or_else(|| panic!("{object} is no object"));
    for name in required {
        assert!(members.contains_key(*name), "{name} lacks in {object}");
    }
    for name in members.keys() {
        assert!(required.contains(&name.as_str()) || optional.contains(&name.as_str()), "{name} in {object}");
    }
}

fn assert_texts(list: &Value) {
    assert!(list.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_string)), "{list}");
}

/// Checks that an input takes this value.
fn assert_takes(input: &Value, value: &Value) {
    let is_taken = match input["type"].as_str().unwrap() {
        "number" => {
            let value = value.as_i64().unwrap_or_else(|| panic!("{value} in {input}"));
            input["min"].as_i64().unwrap() <= value && value <= input["max"].as_i64().unwrap()
        }
        "boolean" => value.is_boolean(),
        _ => match input["options"].as_array() {
            Some(options) => options.iter().any(|option| option["value"] == *value),
            None => value.is_string(),
        },
    };
    assert!(is_taken, "{value} in {input}");
}

/// Returns the text that the Hub sets a variable to.
fn text_of(input: &Value, value: &Value) -> String {
    match value {
        Value::Bool(is) => input[if *is { "trueValue" } else { "falseValue" }].as_str().unwrap().to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[test]
fn the_listing_has_the_form_that_the_hub_documents() {
    let hub = hub_json();
    assert_members(&hub, &["title", "description", "type", "category", "config"], &["iconUrl"]);
    assert_eq!(hub["type"], "serverless");
    assert!(["audio", "embedding", "language", "video", "image"].contains(&hub["category"].as_str().unwrap()));
    let config = &hub["config"];
    assert_members(
        config,
        &["runsOn", "containerDiskInGb", "gpuCount", "gpuIds"],
        &["allowedCudaVersions", "env", "presets"],
    );
    assert_eq!(config["runsOn"], "GPU");
    assert!(config["containerDiskInGb"].is_u64() && config["gpuCount"].is_u64() && config["gpuIds"].is_string());
    assert_texts(&config["allowedCudaVersions"]);
    let mut keys = BTreeSet::new();
    for variable in config["env"].as_array().unwrap() {
        assert_members(variable, &["key", "input"], &[]);
        let key = variable["key"].as_str().unwrap();
        assert!(keys.insert(key), "{key} stands twice");
        let is_setting = OPTIONS.iter().any(|option| option.key.to_ascii_uppercase() == key);
        assert!(is_setting, "{key} is no setting");
        let input = &variable["input"];
        let of_type: &[&str] = match input["type"].as_str().unwrap() {
            "number" => &["min", "max"],
            "boolean" => &["trueValue", "falseValue"],
            "string" => &["options"],
            other => panic!("{other} is no type of an input"),
        };
        let common = ["default", "advanced", "required"];
        assert_members(input, &["name", "type", "description"], &[&common, of_type].concat());
        for option in input["options"].as_array().into_iter().flatten() {
            assert_members(option, &["label", "value"], &[]);
        }
        if let Some(default) = input.get("default") {
            assert_takes(input, default);
        }
    }
    for preset in config["presets"].as_array().unwrap() {
        assert_members(preset, &["name", "defaults"], &[]);
        for (key, value) in preset["defaults"].as_object().unwrap() {
            let of_key = |variable: &&Value| variable["key"] == *key;
            let variable = config["env"].as_array().unwrap().iter().find(of_key);
            assert_takes(&variable.unwrap_or_else(|| panic!("{key} of a preset"))["input"], value);
        }
    }
}

#[test]
fn the_tests_have_the_form_that_the_hub_documents() {
    let tests = tests_json();
    assert_members(&tests, &["tests", "config"], &[]);
    for test in tests["tests"].as_array().unwrap() {
        assert_members(test, &["name", "input"], &["timeout"]);
        assert!(test["name"].is_string() && test["input"].is_object() && test["timeout"].is_u64(), "{test}");
    }
    let config = &tests["config"];
    assert_members(config, &["gpuTypeId", "gpuCount"], &["env", "allowedCudaVersions"]);
    assert!(config["gpuTypeId"].is_string() && config["gpuCount"].is_u64());
    assert_texts(&config["allowedCudaVersions"]);
    for variable in config["env"].as_array().unwrap() {
        assert_members(variable, &["key", "value"], &[]);
        assert!(variable["value"].is_string(), "{variable}");
    }
}

#[test]
fn each_preset_and_the_tests_environment_are_configurations_that_start() {
    let (hub, tests) = (hub_json(), tests_json());
    let env = hub["config"]["env"].as_array().unwrap();
    let defaults = || {
        let with_default = env.iter().filter_map(|variable| Some((variable, variable["input"].get("default")?)));
        with_default.map(|(variable, value)| (variable["key"].as_str().unwrap(), text_of(&variable["input"], value)))
    };
    let preset = |preset: &Value| -> Vec<(String, String)> {
        let own = preset["defaults"].as_object().unwrap().iter();
        let own = own.map(|(key, value)| (key.clone(), text_of(&json!({}), value)));
        defaults().map(|(key, value)| (key.to_owned(), value)).chain(own).collect()
    };
    let mut all: Vec<Vec<(String, String)>> = hub["config"]["presets"].as_array().unwrap().iter().map(preset).collect();
    let of_tests = tests["config"]["env"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.push(of_tests.map(|variable| (text(&variable["key"]), text(&variable["value"]))).collect());
    let platform = Platform::start();
    for variables in all {
        let data = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_llamagate"))
            .arg("check")
            .env_clear()
            .env("DATA_DIR", data.path())
            .env("LLAMA_SERVER", real_llama_server())
            .envs(platform.variables())
            .envs(variables.clone())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{variables:?}: {said}");
        assert!(said.contains("the start downloads it"), "{variables:?}: {said}");
    }
}

#[test]
fn each_test_of_the_hub_is_a_job_that_is_done() {
    let platform = Platform::start();
    let _gateway = worker_of(&platform).backend(Backend::Real { model: "tiny-chat.gguf" }).start_ready();
    for test in tests_json()["tests"].as_array().unwrap() {
        let name = test["name"].as_str().unwrap();
        platform.offer([job(name, &test["input"])]);
        let done = platform.wait_done(name).json();
        assert!(done.get("error").is_none(), "{name}: {done}");
        assert!(done["output"].as_array().is_some_and(|output| !output.is_empty()), "{name}: {done}");
    }
}

#[test]
fn the_image_of_the_hub_has_the_llama_cpp_of_the_other_image() {
    let tag_of = |name: &str| {
        let text = file(name);
        text.lines().find_map(|line| line.strip_prefix("ARG LLAMA_CPP_TAG=")).unwrap().to_owned()
    };
    assert_eq!(tag_of(".runpod/Dockerfile"), tag_of("docker/Dockerfile"));
}

/// Regression: the page for browsers is a part of the program, and its files were not copied.
#[test]
fn the_image_is_built_from_what_the_other_images_are_built_from() {
    let sources = |name: &str| {
        let text = file(name);
        let stage = text.split("\nFROM ").nth(1).unwrap().to_owned();
        let copies = stage.lines().filter_map(|line| line.strip_prefix("COPY ")).map(str::to_owned);
        copies.collect::<BTreeSet<String>>()
    };
    let own = sources(".runpod/Dockerfile");
    assert!(own.len() > 2, "the sources were found");
    for other in ["docker/Dockerfile", "docker/Dockerfile.cpu"] {
        assert_eq!(own, sources(other), "{other}");
    }
}
