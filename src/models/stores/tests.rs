//! Tests on stores as Ollama and LM Studio lay them out.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::error::OllamaFault;
use super::ollama::OllamaStore;
use super::sample::{blob, manifest};
use crate::models::sample::GgufSample;
use crate::models::{ModelError, ModelPlaces, find};

fn ollama(folder: &Path) -> ModelPlaces {
    ModelPlaces { ollama: Some(folder.to_owned()), ..ModelPlaces::default() }
}

fn fault(places: &ModelPlaces, name: &str) -> String {
    let error = find(places, name).unwrap_err();
    assert!(matches!(error, ModelError::Store(_)) && !error.is_missing(), "{error:?}");
    assert!(!error.hint().is_empty());
    error.to_string()
}

#[test]
fn a_model_of_ollama_is_found_by_its_name_in_any_of_its_forms() {
    let dir = tempfile::tempdir().unwrap();
    let (layer, path) = blob(dir.path(), "model", &GgufSample::chat().bytes());
    let library = "registry.ollama.ai/library/qwen3";
    for name in [&format!("{library}/4b"), &format!("{library}/latest"), "hf.co/Org/Name/Q4_K_M"] {
        manifest(dir.path(), name, &[&layer]);
    }
    fs::write(dir.path().join("manifests/.DS_Store"), "x").unwrap();
    let real = path.canonicalize().unwrap();
    for name in ["ollama:qwen3:4b", "ollama:qwen3", "ollama:qwen3:latest", "ollama:hf.co/org/name:q4_k_m"] {
        assert_eq!(find(&ollama(dir.path()), name).unwrap(), real, "{name}");
    }
    let text = fault(&ollama(dir.path()), "ollama:qwen3:14b");
    assert!(text.contains("did you mean one of ollama:qwen3:4b, ollama:qwen3:latest?"), "{text}");
    assert!(fault(&ollama(dir.path()), "ollama:../x").contains("there is no model \"ollama:../x\""));
    assert!(fault(&ModelPlaces::default(), "ollama:qwen3").contains("MODEL_STORES leaves it out"));
    assert!(fault(&ModelPlaces::default(), "lmstudio:x").contains("LM Studio's folder is not on this machine"));
}

/// Newer versions keep manifests as blobs, with links to them in another folder, and lists of manifests.
#[test]
fn manifests_of_the_newer_layout_were_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let (layer, path) = blob(dir.path(), "model", &GgufSample::chat().bytes());
    let (document, manifest_path) = blob(dir.path(), "", format!("{{\"layers\":[{layer}]}}").as_bytes());
    let digest = document.split('"').find(|word| word.starts_with("sha256:")).unwrap().to_owned();
    let link = |target: &Path, name: &str| {
        let link = dir.path().join("manifests-v2").join(name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(Path::new("../../../../blobs").join(target.file_name().unwrap()), link).unwrap();
    };
    link(&manifest_path, "ollama.com/library/plain/1b");
    let kind = "application/vnd.ollama.manifest.list.v2+json";
    let list =
        format!("{{\"mediaType\":\"{kind}\",\"manifests\":[{{\"runner\":\"ollama\",\"digest\":\"{digest}\"}}]}}");
    let (_, list) = blob(dir.path(), "", list.as_bytes());
    link(&list, "ollama.com/library/listed/1b");
    link(Path::new("sha256-gone"), "ollama.com/library/old/1b");
    for name in ["old/1b", "plain/1b"] {
        manifest(dir.path(), &format!("registry.ollama.ai/library/{name}"), &[&layer]);
    }
    for name in ["ollama:plain:1b", "ollama:listed:1b", "ollama:old:1b"] {
        assert_eq!(find(&ollama(dir.path()), name).unwrap(), path.canonicalize().unwrap(), "{name}");
    }
    let store = super::ollama::OllamaStore::open(dir.path()).unwrap();
    let names: Vec<String> = store.list().unwrap().entries.iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(names, ["listed:1b", "old:1b", "plain:1b"]);
}

#[test]
fn a_model_that_is_not_whole_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let name = |name: &str| format!("registry.ollama.ai/library/m/{name}");
    let (layer, path) = blob(dir.path(), "model", &GgufSample::chat().bytes());
    manifest(dir.path(), &name("short"), &[&layer.replace("\"size\":", "\"size\":1")]);
    manifest(dir.path(), &name("odd"), &[&layer.replace("sha256:", "sha256:0")]);
    let (other, linked) = blob(dir.path(), "model", &GgufSample::of("qwen2").bytes());
    manifest(dir.path(), &name("out"), &[&other]);
    let elsewhere = outside.path().join("model");
    fs::rename(&linked, &elsewhere).unwrap();
    symlink(&elsewhere, &linked).unwrap();
    fs::write(manifest(dir.path(), &name("broken"), &[]), "{\"layers\": [").unwrap();
    fs::write(manifest(dir.path(), &name("large"), &[]), vec![b' '; 2 << 20]).unwrap();
    symlink(outside.path().join("none"), dir.path().join("manifests").join(name("dangling"))).unwrap();
    let foreign = manifest(outside.path(), "x", &[&layer]);
    symlink(foreign, dir.path().join("manifests").join(name("foreign"))).unwrap();
    fs::create_dir_all(dir.path().join("manifests").join(name("folder"))).unwrap();
    for (tag, reason) in [
        ("short", "is incomplete"),
        ("odd", "is no SHA-256"),
        ("out", "leads out of the store, at blobs/sha256-"),
        ("broken", "no JSON of Ollama's form"),
        ("large", "of more than 1048576 bytes"),
        ("foreign", "leads out of the store, at manifests/"),
        ("folder", "cannot be read"),
    ] {
        let text = fault(&ollama(dir.path()), &format!("ollama:m:{tag}"));
        assert!(text.contains(reason), "{tag}: {text}");
    }
    fs::remove_file(&path).unwrap();
    manifest(dir.path(), &name("missing"), &[&layer]);
    assert!(fault(&ollama(dir.path()), "ollama:m:missing").contains("has no file sha256-"));
}

#[test]
fn a_model_of_lm_studio_is_found_by_repository_quantisation_path_and_file_name() {
    let dir = tempfile::tempdir().unwrap();
    let places = ModelPlaces { lm_studio: Some(dir.path().to_owned()), ..ModelPlaces::default() };
    let small = GgufSample::chat().write(dir.path(), "org/Name-GGUF/Name-Q4_K_M.gguf");
    let large = GgufSample::chat().write(dir.path(), "org/Name-GGUF/Name-Q6_K.gguf");
    GgufSample::of("clip").write(dir.path(), "org/Name-GGUF/mmproj-F16.gguf");
    for (name, path) in [
        ("lmstudio:org/Name-GGUF", &small),
        ("lmstudio:org/Name-GGUF:q6_k", &large),
        ("lmstudio:org/Name-GGUF/Name-Q6_K.gguf", &large),
        ("lmstudio:Name-Q6_K", &large),
        ("lmstudio:Name-Q6_K.gguf", &large),
    ] {
        assert_eq!(&find(&places, name).unwrap(), path, "{name}");
    }
    assert!(fault(&places, "lmstudio:org/Name-GGUF:Q8_0").contains("it has no model Q8_0"));
    let text = fault(&places, "lmstudio:name-q5_k");
    assert!(text.contains("did you mean one of lmstudio:org/Name-GGUF/Name-Q"), "{text}");
    assert!(fault(&places, "lmstudio:../../etc").contains("leads out"));
    assert!(fault(&places, &format!("lmstudio:{}", small.display())).contains("needs no prefix"));
    assert!(fault(&places, "lmstudio:").contains("name is empty"));
}

/// It was blamed on the manifest.
#[test]
fn a_blob_that_cannot_be_read_is_named_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let (layer, path) = blob(dir.path(), "model", &GgufSample::chat().bytes());
    manifest(dir.path(), "registry.ollama.ai/library/qwen3/4b", &[&layer]);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let error = OllamaStore::open(dir.path()).unwrap().find("qwen3:4b").unwrap_err().to_string();
    assert!(error.contains("has a file that cannot be read, sha256-") && !error.contains("manifest"), "{error}");
    let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let fault = OllamaFault::Unreadable { blob: "sha256-ab".to_owned(), source };
    assert!(
        fault.listed().ends_with(fault.hint()) && fault.hint().contains("usermod -aG ollama"),
        "{}",
        fault.listed()
    );
}
