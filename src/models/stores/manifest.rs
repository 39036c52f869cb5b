//! Reads one manifest of Ollama, or a list of them: which blobs make up a model. Pure.
//!
//! Only what llama-server needs is kept. The template, the parameters and the system message of Ollama are not used: the
//! GGUF file holds a template of its own.

use serde::Deserialize;

use super::bounds::MOST_PROJECTORS;
use crate::models::hub::name::sha256_of;

/// What the types of all layers of models begin with.
const TYPE_PREFIX: &str = "application/vnd.ollama.image.";
/// The type of a list of manifests, one for each program that runs the model.
const LIST_TYPE: &str = "application/vnd.ollama.manifest.list.v2+json";
/// The programs whose files llama-server loads too, as lists name them, the preferred one first.
const RUNNERS: [&str; 2] = ["ollama", "llamacpp"];

/// Longest part of a wrong digest that a message shows, in characters.
const LONGEST_SHOWN: usize = 80;

/// What lies under the name of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestDocument {
    /// Its manifest.
    Model(Manifest),
    /// A list, in which its manifest is the blob with this SHA-256.
    Listed(String),
}

/// The blobs of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The GGUF file.
    pub model: Blob,
    /// Its multimodal projectors; seldom more than one.
    pub projectors: Vec<Blob>,
}

/// A file of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its SHA-256, as 64 hexadecimal digits in lower case.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
}

impl Blob {
    /// Returns the name of its file in the folder `blobs`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("sha256-{}", self.sha256)
    }
}

/// Why a manifest is of no model that llama-server can load. Each message follows "it".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestFault {
    /// It is no JSON of this form.
    #[error("has a manifest that is no JSON of Ollama's form: {0}")]
    NotJson(String),
    /// It has no file of a model.
    #[error("has no model file, as models of Ollama's cloud have none")]
    NoModel,
    /// It is a list in which no program like llama-server has a manifest.
    #[error("has files for {0} alone, none of which llama-server loads")]
    OtherRunners(String),
    /// It is stored as tensors.
    #[error("is stored as safetensors, which llama-server does not load")]
    Safetensors,
    /// It has several files.
    #[error("has {0} model files, of which llama-server would load only one")]
    SeveralModels(usize),
    /// It has a LoRA adapter.
    #[error("has a LoRA adapter, without which it would answer differently")]
    Adapter,
    /// It has more projectors than any model has.
    #[error("has {0} projectors")]
    TooManyProjectors(usize),
    /// A digest is none.
    #[error("names a file by {0:?}, which is no SHA-256")]
    NoDigest(String),
}

impl ManifestFault {
    /// Returns what to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotJson(_) | Self::NoDigest(_) => "run `ollama pull` for it again",
            Self::NoModel
            | Self::OtherRunners(_)
            | Self::Safetensors
            | Self::SeveralModels(_)
            | Self::TooManyProjectors(_) => "use it as a GGUF file: `llamagate pull ORG/NAME:QUANT`",
            Self::Adapter => "name the files of model and adapter in a configuration file",
        }
    }
}

/// A manifest as it is written, a list of manifests, or an entry of one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    layers: Option<Vec<Layer>>,
    #[serde(default)]
    manifests: Option<Vec<Written>>,
    #[serde(default)]
    runner: String,
    #[serde(default)]
    digest: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
}

impl ManifestDocument {
    /// Reads what lies under the name of a model.
    ///
    /// # Errors
    ///
    /// It is of no model that llama-server can load.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestFault> {
        let written: Written =
            serde_json::from_slice(text).map_err(|error| ManifestFault::NotJson(error.to_string()))?;
        if written.media_type != LIST_TYPE {
            return Manifest::of(written.layers.unwrap_or_default()).map(Self::Model);
        }
        let mut entries = written.manifests.unwrap_or_default();
        let place = |runner: &str| entries.iter().position(|entry| entry.runner.eq_ignore_ascii_case(runner));
        let Some(at) = RUNNERS.into_iter().find_map(place) else {
            let runners: Vec<&str> = entries.iter().map(|entry| entry.runner.as_str()).take(RUNNERS.len()).collect();
            return Err(ManifestFault::OtherRunners(runners.join(", ")));
        };
        let entry = entries.swap_remove(at);
        match (entry.layers, entry.digest) {
            (None, Some(digest)) => sha256_of_digest(&digest).map(Self::Listed),
            (layers, _) => Manifest::of(layers.unwrap_or_default()).map(Self::Model),
        }
    }
}

impl Manifest {
    /// Returns the blobs of a model with these layers.
    fn of(layers: Vec<Layer>) -> Result<Self, ManifestFault> {
        let of_type = |kind: &str| {
            let is_meant = move |layer: &&Layer| layer.media_type.strip_prefix(TYPE_PREFIX) == Some(kind);
            layers.iter().filter(is_meant).collect::<Vec<_>>()
        };
        let model = match of_type("model").as_slice() {
            [] if !of_type("tensor").is_empty() => return Err(ManifestFault::Safetensors),
            [] => return Err(ManifestFault::NoModel),
            [model] => blob_of(model)?,
            several => return Err(ManifestFault::SeveralModels(several.len())),
        };
        if !of_type("adapter").is_empty() {
            return Err(ManifestFault::Adapter);
        }
        let projectors = of_type("projector");
        if projectors.len() > MOST_PROJECTORS {
            return Err(ManifestFault::TooManyProjectors(projectors.len()));
        }
        let projectors = projectors.into_iter().map(blob_of).collect::<Result<_, _>>()?;
        Ok(Self { model, projectors })
    }
}

fn blob_of(layer: &Layer) -> Result<Blob, ManifestFault> {
    Ok(Blob { sha256: sha256_of_digest(&layer.digest)?, size: layer.size })
}

fn sha256_of_digest(digest: &str) -> Result<String, ManifestFault> {
    let hash = digest.strip_prefix("sha256:").and_then(sha256_of);
    hash.ok_or_else(|| ManifestFault::NoDigest(digest.chars().take(LONGEST_SHOWN).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: &str, digest: &str) -> String {
        format!("{{\"mediaType\":\"application/vnd.ollama.image.{kind}\",\"digest\":\"{digest}\",\"size\":7}}")
    }

    fn parse(layers: &[String]) -> Result<ManifestDocument, ManifestFault> {
        ManifestDocument::parse(format!("{{\"schemaVersion\":2,\"layers\":[{}]}}", layers.join(",")).as_bytes())
    }

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn the_model_and_its_projector_are_read_and_other_layers_are_passed_over() {
        let layers = [("model", 'A'), ("template", 'b'), ("projector", 'c'), ("params", 'd'), ("license", 'e')];
        let document = parse(&layers.map(|(kind, digit)| layer(kind, &digest(digit)))).unwrap();
        let ManifestDocument::Model(manifest) = document else { panic!("{document:?}") };
        assert_eq!(manifest.model, Blob { sha256: "a".repeat(64), size: 7 });
        assert_eq!(manifest.model.file_name(), format!("sha256-{}", "a".repeat(64)));
        assert_eq!(manifest.projectors, [Blob { sha256: "c".repeat(64), size: 7 }]);
    }

    #[test]
    fn what_llama_server_cannot_load_has_a_reason() {
        let model = || layer("model", &digest('a'));
        for (layers, fault) in [
            (vec![], "has no model file"),
            (vec![layer("license", &digest('a'))], "cloud"),
            (vec![layer("tensor", &digest('a'))], "safetensors"),
            (vec![model(), model()], "has 2 model files"),
            (vec![model(), layer("adapter", &digest('b'))], "LoRA"),
            (vec![layer("model", "sha256:../../etc/passwd")], "no SHA-256"),
            (vec![model(), layer("projector", "md5:aa")], "no SHA-256"),
            (vec![layer("projector", &digest('b')); 9].into_iter().chain([model()]).collect(), "has 9 projectors"),
        ] {
            let found = parse(&layers).unwrap_err();
            assert!(found.to_string().contains(fault), "{found}");
            assert!(!found.hint().is_empty());
        }
        for text in ["", "{", "5", "{\"layers\":5}", "{\"layers\":[{\"digest\":\"x\"}]}", "\u{feff}{}"] {
            assert!(matches!(ManifestDocument::parse(text.as_bytes()), Err(ManifestFault::NotJson(_))), "{text}");
        }
        assert_eq!(ManifestDocument::parse(b"{\"layers\":null}"), Err(ManifestFault::NoModel));
    }
    #[test]
    fn of_a_list_the_manifest_for_a_program_like_llama_server_counts() {
        let list = |entries: &str| {
            let text = format!("{{\"mediaType\":\"{LIST_TYPE}\",\"manifests\":[{entries}]}}");
            ManifestDocument::parse(text.as_bytes())
        };
        let entry = |runner: &str, digit| format!("{{\"runner\":\"{runner}\",\"digest\":\"{}\"}}", digest(digit));
        let found = list(&[entry("mlx", 'a'), entry("llamacpp", 'b'), entry("Ollama", 'c')].join(","));
        assert_eq!(found, Ok(ManifestDocument::Listed("c".repeat(64))));
        assert_eq!(list(&entry("llamacpp", 'b')), Ok(ManifestDocument::Listed("b".repeat(64))));
        let inline = list(&format!("{{\"runner\":\"ollama\",\"layers\":[{}]}}", layer("model", &digest('a'))));
        assert!(matches!(inline, Ok(ManifestDocument::Model(_))), "{inline:?}");
        assert_eq!(list(&entry("mlx", 'a')), Err(ManifestFault::OtherRunners("mlx".to_owned())));
        assert!(matches!(list("{\"runner\":\"ollama\",\"digest\":\"../x\"}"), Err(ManifestFault::NoDigest(_))));
        assert!(matches!(list(""), Err(ManifestFault::OtherRunners(_))));
    }
}
