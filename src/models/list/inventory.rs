//! The models of all places on this machine, each under the name by which commands take it.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use super::last_used::LastUsed;
use super::row::{ListedModel, human_size, printable, rows_of, table_of};
use crate::models::companions::projector::{find_projector, snapshot_of};
use crate::models::gguf;
use crate::models::kind::ModelKind;
use crate::models::places::{ModelPlaces, PlaceKind};
use crate::models::shelf::commands_of;
use crate::models::stores::error::{OLLAMA_GROUP_HINT, is_forbidden};
use crate::models::stores::ollama::{OllamaEntry, OllamaStore};

const HEADINGS: [&str; 7] = ["NAME", "FROM", "SIZE", "QUANTISATION", "KIND", "CONTEXT", "LAST USED"];
/// Indices of the columns that are aligned at the right.
const NUMBER_COLUMNS: [usize; 2] = [2, 5];

/// A model on this machine, or what is there of one that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeldModel {
    /// The name by which `llamagate serve` takes it.
    pub name: String,
    /// The place where it lies.
    pub from: PlaceKind,
    /// Its file, or its first part; U+FFFD stands for bytes that are not UTF-8.
    pub path: Option<String>,
    /// Size of all its files in bytes.
    pub size_bytes: u64,
    /// The quantisation, such as `Q4_K_M`.
    pub quantization: Option<String>,
    /// What it is for; `None` if the file is not a model.
    pub kind: Option<ModelKind>,
    /// Context length that it was trained for, in tokens.
    pub context_length: Option<u64>,
    /// When a service with this `DATA_DIR` last used it.
    pub last_used: Option<Timestamp>,
    /// Why it cannot be served. The text follows the name.
    pub error: Option<String>,
}

/// What is on this machine.
#[derive(Debug, Default)]
pub struct Inventory {
    /// The models, in the order of the places.
    pub models: Vec<HeldModel>,
    /// A sentence for each place that cannot be read.
    pub unread: Vec<String>,
}

impl HeldModel {
    /// Describes a download that is not complete. `total` is the size of the whole file in bytes, if it is known.
    #[must_use]
    pub fn unfinished(name: String, from: PlaceKind, path: &Path, arrived: u64, total: Option<u64>) -> Self {
        let of_total = total.map(|total| format!(" of {}", human_size(total))).unwrap_or_default();
        Self {
            name,
            from,
            path: Some(path.display().to_string()),
            size_bytes: arrived,
            quantization: None,
            kind: None,
            context_length: None,
            last_used: None,
            error: Some(format!("is a download that is not complete: {}{of_total} are here", human_size(arrived))),
        }
    }

    fn of_row(name: String, from: PlaceKind, path: PathBuf, row: ListedModel, used: &LastUsed) -> Self {
        Self {
            name,
            from,
            size_bytes: row.size_bytes,
            quantization: row.quantization,
            kind: row.kind,
            context_length: row.context_length,
            last_used: used.of(&path),
            path: Some(path.display().to_string()),
            error: row.error,
        }
    }

    fn unusable(name: String, from: PlaceKind, error: String) -> Self {
        Self { error: Some(error), path: None, ..Self::unfinished(name, from, Path::new(""), 0, None) }
    }

    fn cells(&self) -> [String; HEADINGS.len()] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            printable(&self.name),
            self.from.to_string(),
            human_size(self.size_bytes),
            or_dash(self.quantization.clone()),
            or_dash(self.kind.map(|kind| kind.to_string())),
            or_dash(self.context_length.map(|tokens| tokens.to_string())),
            or_dash(self.last_used.map(|time| time.strftime("%Y-%m-%d %H:%M").to_string())),
        ]
    }
}

/// Formats the models as a table with aligned columns. The reason of an unusable one follows in a line of its own.
#[must_use]
pub fn inventory_table(models: &[HeldModel]) -> String {
    let rows = models.iter().map(|model| (model.cells(), model.error.as_deref()));
    table_of(HEADINGS, &NUMBER_COLUMNS, rows)
}

/// Lists the models of all places that are adopted.
#[must_use]
pub fn inventory(places: &ModelPlaces, used: &LastUsed) -> Inventory {
    let mut inventory = Inventory::default();
    for (kind, folder) in places.adopted() {
        let found = match kind {
            PlaceKind::Ollama => of_ollama(folder, used),
            _ => of_folder(kind, folder, places, used),
        };
        match found {
            Ok(mut models) => inventory.models.append(&mut models),
            // No model has come yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && kind == PlaceKind::Hub => {}
            Err(error) => {
                let is_of_ollama = kind == PlaceKind::Ollama && is_forbidden(&error);
                let hint = if is_of_ollama { format!("; {OLLAMA_GROUP_HINT}") } else { String::new() };
                inventory.unread.push(format!("{} {} cannot be read: {error}{hint}", kind.title(), folder.display()));
            }
        }
    }
    inventory
}

fn of_folder(kind: PlaceKind, dir: &Path, places: &ModelPlaces, used: &LastUsed) -> io::Result<Vec<HeldModel>> {
    let rows = rows_of(dir)?;
    let paths: Vec<PathBuf> = rows.iter().map(|row| PathBuf::from(&row.name)).collect();
    let used_projectors = used_projectors(dir, &rows);
    let mut models = Vec::new();
    for (row, name) in rows.into_iter().zip(commands_of(kind, dir, &paths)) {
        let path = dir.join(&row.name);
        // A cache below MODELS_DIR is listed as a cache.
        let is_listed_later = kind == PlaceKind::Models && places.adopts_hub && path.starts_with(&places.hub_cache);
        // It is a part of the model that uses it.
        let is_used = row.is_projector && used_projectors.contains(&path);
        if let Some(name) = name.filter(|_| !is_listed_later && !is_used) {
            models.push(HeldModel::of_row(name, kind, path, row, used));
        }
    }
    Ok(models)
}

/// Returns the projectors among these rows of `dir` that one of the models there uses.
fn used_projectors(dir: &Path, rows: &[ListedModel]) -> BTreeSet<PathBuf> {
    let path_of = |row: &ListedModel| dir.join(&row.name);
    let projectors: Vec<PathBuf> = rows.iter().filter(|row| row.is_projector).map(path_of).collect();
    let goes_together = |one: &Path, other: &Path| {
        one.parent() == other.parent() || snapshot_of(one).is_some_and(|snapshot| other.starts_with(snapshot))
    };
    let models = rows.iter().filter(|row| row.error.is_none()).map(path_of);
    let beside = models.filter(|model| projectors.iter().any(|projector| goes_together(model, projector)));
    beside.filter_map(|model| Some(find_projector(&model, &gguf::read(&model).ok()?).found?.path)).collect()
}

fn of_ollama(folder: &Path, used: &LastUsed) -> io::Result<Vec<HeldModel>> {
    let listing = OllamaStore::open(folder)?.list()?;
    let from = PlaceKind::Ollama;
    let model = |OllamaEntry { name, files }: OllamaEntry| {
        let name = format!("{from}:{name}");
        match files {
            Ok(files) => {
                let row = ListedModel::at(Path::new(""), &files.model);
                HeldModel::of_row(name, from, files.model, row, used)
            }
            Err(fault) => HeldModel::unusable(name, from, fault.listed()),
        }
    };
    let skipped = |(path, reason): (PathBuf, String)| HeldModel::unusable(path.display().to_string(), from, reason);
    Ok(listing.entries.into_iter().map(model).chain(listing.skipped.into_iter().map(skipped)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::sample::GgufSample;
    use crate::models::stores::sample::{blob, manifest};

    #[test]
    fn each_model_is_listed_by_the_name_that_commands_take() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let chat = GgufSample::chat();
        let own = chat.write(dir.path(), "models/sub/own.gguf");
        for file in ["N-Q4_K_M.gguf", "N-Q8_0.gguf", "odd.gguf"] {
            chat.write(dir.path(), &format!("models/hub/models--org--N/snapshots/aaa/{file}"));
        }
        chat.write(dir.path(), "models/hub/models--org--N/snapshots/old/N-Q4_K_M.gguf");
        std::fs::create_dir_all(at("models/hub/models--org--N/refs")).unwrap();
        std::fs::write(at("models/hub/models--org--N/refs/main"), "aaa").unwrap();
        chat.write(dir.path(), "lmstudio/pub/repo/m.gguf");
        let (layer, _) = blob(&at("ollama"), "model", &chat.bytes());
        manifest(&at("ollama"), "registry.ollama.ai/library/qwen3/4b", &[&layer]);
        manifest(&at("ollama"), "registry.ollama.ai/library/cloud/latest", &[]);
        let places = ModelPlaces {
            models_dir: at("models"),
            hub_cache: at("models/hub"),
            adopts_hub: true,
            ollama: Some(at("ollama")),
            lm_studio: Some(at("lmstudio")),
            ..ModelPlaces::default()
        };
        let mut used = LastUsed::default();
        used.note(&own, "2026-11-29T20:47:10Z".parse().unwrap());
        let Inventory { mut models, unread } = inventory(&places, &used);
        assert!(unread.is_empty());
        for model in models.iter().filter(|model| model.error.is_none() && model.from != PlaceKind::LmStudio) {
            let found = crate::models::find(&places, &model.name).unwrap();
            assert_eq!(found.canonicalize().unwrap(), Path::new(model.path.as_ref().unwrap()).canonicalize().unwrap());
        }
        models.push(HeldModel::unfinished("org/M".into(), PlaceKind::Hub, Path::new(""), 1 << 20, Some(1 << 30)));
        let table = inventory_table(&models);
        let start: Vec<String> =
            table.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
        let expected = [
            "NAME FROM",
            "sub/own.gguf models",
            "org/N:Q4_K_M hub",
            "org/N:Q8_0 hub",
            "org/N/odd.gguf hub",
            "ollama:cloud:latest ollama",
            "! has",
            "ollama:qwen3:4b ollama",
            "lmstudio:pub/repo/m.gguf lmstudio",
            "org/M hub",
            "! is",
        ];
        assert_eq!(start, expected, "{table}");
        assert!(table.contains("chat     4096  2026-11-29 20:47\n"), "{table}");
        assert!(table.ends_with("  ! is a download that is not complete: 1.0 MiB of 1.0 GiB are here\n"), "{table}");
    }
    #[test]
    fn a_projector_that_a_model_uses_was_listed_as_one_that_cannot_be_served() {
        let dir = tempfile::tempdir().unwrap();
        let places = ModelPlaces {
            models_dir: dir.path().to_owned(),
            hub_cache: dir.path().join("none"),
            ..ModelPlaces::default()
        };
        let names = || {
            let listed = inventory(&places, &LastUsed::default()).models;
            listed.into_iter().map(|model| model.name).collect::<Vec<_>>()
        };
        GgufSample::of("clip").write(dir.path(), "sees/mmproj-F16.gguf");
        GgufSample::of("clip").write(dir.path(), "alone/mmproj-F16.gguf");
        assert_eq!(names(), ["alone/mmproj-F16.gguf", "sees/mmproj-F16.gguf"]);
        GgufSample::chat().write(dir.path(), "sees/model.gguf");
        assert_eq!(names(), ["alone/mmproj-F16.gguf", "sees/model.gguf"]);
    }
}
