//! Tests of models in several places.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::models::stores::sample::{blob, manifest};

/// A machine with all places, of which none has a model yet.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for place in ["models", "hub", "ollama", "lmstudio"] {
            fs::create_dir(machine.at(place)).unwrap();
        }
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn places(&self) -> ModelPlaces {
        ModelPlaces {
            models_dir: self.at("models"),
            hub_cache: self.at("hub"),
            adopts_hub: true,
            ollama: Some(self.at("ollama")),
            lm_studio: Some(self.at("lmstudio")),
            ..ModelPlaces::default()
        }
    }

    /// Writes a model that is different from all others.
    fn add(&self, path: &str) -> PathBuf {
        GgufSample::chat().text("general.name", path).write(self.0.path(), path)
    }

    /// Adds a model to Ollama's store. Returns its blob.
    fn add_to_ollama(&self, name: &str) -> PathBuf {
        let (layer, path) = blob(&self.at("ollama"), "model", &GgufSample::chat().text("general.name", name).bytes());
        manifest(&self.at("ollama"), name, &[&layer]);
        path
    }
}

fn names(scan: &ShelfScan) -> Vec<(&str, Vec<&str>)> {
    scan.models.iter().map(|model| (&*model.id, model.aliases.iter().map(String::as_str).collect())).collect()
}

#[test]
fn a_model_of_each_place_has_the_names_that_its_program_has_for_it() {
    let machine = Machine::new();
    machine.add("models/own.gguf");
    machine.add("hub/models--org--Hub-GGUF/snapshots/aaa/Hub-Q4_K_M.gguf");
    machine.add("hub/models--org--Hub-GGUF/snapshots/aaa/Hub-Q8_0.gguf");
    machine.add("hub/stray.gguf");
    machine.add_to_ollama("registry.ollama.ai/library/qwen3/4b");
    machine.add_to_ollama("hf.co/org/name/latest");
    machine.add("lmstudio/pub/Repo-GGUF/Repo-Q6_K.gguf");
    let scan = Shelf::default().scan(&machine.places()).unwrap();
    let expected = [
        ("own", vec![]),
        ("Hub-Q4_K_M", vec!["org/Hub-GGUF/Hub-Q4_K_M", "org/Hub-GGUF:Q4_K_M", "org/Hub-GGUF"]),
        ("Hub-Q8_0", vec!["org/Hub-GGUF/Hub-Q8_0", "org/Hub-GGUF:Q8_0"]),
        ("hf.co/org/name:latest", vec!["hf.co/org/name", "ollama:hf.co/org/name:latest", "ollama:hf.co/org/name"]),
        ("qwen3:4b", vec!["ollama:qwen3:4b"]),
        (
            "Repo-Q6_K",
            vec![
                "pub/Repo-GGUF/Repo-Q6_K",
                "pub/Repo-GGUF:Q6_K",
                "pub/Repo-GGUF",
                "lmstudio:pub/Repo-GGUF:Q6_K",
                "lmstudio:pub/Repo-GGUF",
                "lmstudio:pub/Repo-GGUF/Repo-Q6_K.gguf",
            ],
        ),
    ];
    assert_eq!(names(&scan), expected);
    assert!(scan.notes.is_empty(), "{:?}", scan.notes);
}

#[test]
fn of_two_models_with_one_name_the_earlier_place_keeps_it_and_the_other_is_named_with_its_place() {
    let machine = Machine::new();
    machine.add("models/same.gguf");
    machine.add("models/qwen3:4b.gguf");
    machine.add("hub/models--org--name/snapshots/aaa/same.gguf");
    machine.add_to_ollama("registry.ollama.ai/library/qwen3/4b");
    machine.add("lmstudio/pub/repo/same.gguf");
    let mut shelf = Shelf::default();
    let scan = shelf.scan(&machine.places()).unwrap();
    let ids: Vec<&str> = scan.models.iter().map(|model| &*model.id).collect();
    assert_eq!(ids, ["qwen3:4b", "same", "org/name/same", "ollama:qwen3:4b", "lmstudio:pub/repo/same.gguf"]);
    assert_eq!(scan.notes.len(), 3, "{:?}", scan.notes);
    assert!(
        scan.notes.iter().any(|note| note
            == "\"qwen3:4b\" in Ollama's store is served as \"ollama:qwen3:4b\": \"qwen3:4b\" is another model")
    );
    assert!(shelf.scan(&machine.places()).unwrap().notes.is_empty(), "said once");
}

#[test]
fn a_file_in_two_places_is_served_once_under_all_its_names() {
    let machine = Machine::new();
    let path = machine.add_to_ollama("registry.ollama.ai/library/qwen3/4b");
    let (layer, _) = blob(&machine.at("ollama"), "model", &fs::read(&path).unwrap());
    manifest(&machine.at("ollama"), "registry.ollama.ai/library/qwen3/latest", &[&layer]);
    fs::create_dir_all(machine.at("lmstudio/pub/repo")).unwrap();
    symlink(&path, machine.at("lmstudio/pub/repo/linked.gguf")).unwrap();
    let scan = Shelf::default().scan(&machine.places()).unwrap();
    assert_eq!(names(&scan)[0].0, "qwen3:4b");
    assert_eq!(scan.models.len(), 1);
    for alias in ["qwen3:latest", "qwen3", "ollama:qwen3", "linked", "lmstudio:pub/repo/linked.gguf", "pub/repo"] {
        assert!(names(&scan)[0].1.contains(&alias), "{alias}: {:?}", names(&scan));
    }
    // A cache that lies below MODELS_DIR.
    machine.add("models/hub/models--org--name/snapshots/aaa/m.gguf");
    let places = ModelPlaces { hub_cache: machine.at("models/hub"), ..machine.places() };
    let scan = Shelf::default().scan(&places).unwrap();
    assert_eq!(names(&scan)[0], ("m", vec!["org/name/m", "org/name"]));
    assert_eq!(scan.models.len(), 2);
}

#[test]
fn a_projector_of_ollama_is_the_one_of_the_manifest() {
    let machine = Machine::new();
    let (model, _) = blob(&machine.at("ollama"), "model", &GgufSample::chat().bytes());
    let (projector, path) = blob(&machine.at("ollama"), "projector", &GgufSample::of("clip").bytes());
    let (page, _) = blob(&machine.at("ollama"), "projector", b"<html>");
    manifest(&machine.at("ollama"), "registry.ollama.ai/library/sees/latest", &[&model, &projector, &page]);
    let scan = Shelf::default().scan(&machine.places()).unwrap();
    let search = &scan.models[0].projector;
    assert_eq!(search.found.as_ref().unwrap().path, path.canonicalize().unwrap());
    assert_eq!(search.broken.len(), 1);
}

#[test]
fn what_cannot_be_served_of_a_store_is_left_out_with_the_reason() {
    let machine = Machine::new();
    let store = machine.at("ollama");
    let good = machine.add_to_ollama("registry.ollama.ai/library/good/latest");
    let (tensor, _) = blob(&store, "tensor", b"x");
    let (page, _) = blob(&store, "model", b"<html>");
    let (lora, _) = blob(&store, "model", &GgufSample::chat().text("general.type", "adapter").bytes());
    manifest(&store, "registry.ollama.ai/library/cloud/latest", &[]);
    manifest(&store, "registry.ollama.ai/library/tensors/latest", &[&tensor]);
    manifest(&store, "registry.ollama.ai/library/page/latest", &[&page]);
    manifest(&store, "registry.ollama.ai/library/lora/latest", &[&lora]);
    let mut shelf = Shelf::default();
    let scan = shelf.scan(&machine.places()).unwrap();
    assert_eq!(ids(&scan), ["good:latest"]);
    let notes = scan.notes.join("\n");
    for (name, reason) in [
        ("cloud:latest", "has no model file"),
        ("tensors:latest", "safetensors"),
        ("page:latest", "has a file that is not a GGUF file"),
        ("lora:latest", "holds no model of its own"),
    ] {
        let start = format!("{name:?} in Ollama's store is left out: it ");
        assert!(notes.lines().any(|line| line.starts_with(&start) && line.contains(reason)), "{name}: {notes}");
    }
    fs::remove_file(good).unwrap();
    assert!(shelf.scan(&machine.places()).unwrap().notes[0].contains("has no file sha256-"));
}

#[test]
fn a_models_folder_that_is_missing_stops_nothing_if_a_store_has_models() {
    let machine = Machine::new();
    fs::remove_dir(machine.at("models")).unwrap();
    let mut shelf = Shelf::default();
    assert!(matches!(shelf.scan(&machine.places()), Err(ModelError::Folder { .. })), "there is nothing");
    machine.add_to_ollama("registry.ollama.ai/library/qwen3/4b");
    let scan = shelf.scan(&machine.places()).unwrap();
    assert_eq!(ids(&scan), ["qwen3:4b"]);
    assert!(
        scan.notes[0].contains("the models folder") && scan.notes[0].contains("is passed over"),
        "{:?}",
        scan.notes
    );
    fs::rename(machine.at("ollama"), machine.at("elsewhere")).unwrap();
    let error = shelf.scan(&machine.places()).unwrap_err().to_string();
    assert!(
        error.contains("Ollama's store") && error.contains("cannot be read"),
        "a store that is gone for a moment: {error}"
    );
}
