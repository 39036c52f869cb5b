//! Reads one manifest of Ollama: which blobs make up a model. Pure.
//!
//! Only what llama-server needs is kept. The template, the parameters and the system message of Ollama are not used: the
//! GGUF file holds a template of its own.

use serde::Deserialize;

use super::bounds::MOST_PROJECTORS;
use crate::models::hub::name::sha256_of;

/// What the types of all layers of models begin with.
const TYPE_PREFIX: &str = "application/vnd.ollama.image.";

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
            Self::NoModel | Self::Safetensors | Self::SeveralModels(_) | Self::TooManyProjectors(_) => {
                "use it as a GGUF file: `llamagate pull ORG/NAME:QUANT`"
            }
            Self::Adapter => "name the files of model and adapter in a configuration file",
        }
    }
}

/// A manifest as it is written.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    layers: Option<Vec<Layer>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// It is of no model that llama-server can load.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestFault> {
        let written: Written =
            serde_json::from_slice(text).map_err(|error| ManifestFault::NotJson(error.to_string()))?;
        let layers = written.layers.unwrap_or_default();
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
    let hash = layer.digest.strip_prefix("sha256:").and_then(sha256_of);
    let sha256 = hash.ok_or_else(|| ManifestFault::NoDigest(layer.digest.chars().take(80).collect()))?;
    Ok(Blob { sha256, size: layer.size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(kind: &str, digest: &str) -> String {
        format!("{{\"mediaType\":\"application/vnd.ollama.image.{kind}\",\"digest\":\"{digest}\",\"size\":7}}")
    }

    fn parse(layers: &[String]) -> Result<Manifest, ManifestFault> {
        Manifest::parse(format!("{{\"schemaVersion\":2,\"layers\":[{}]}}", layers.join(",")).as_bytes())
    }

    fn digest(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn the_model_and_its_projector_are_read_and_other_layers_are_passed_over() {
        let layers = [("model", 'A'), ("template", 'b'), ("projector", 'c'), ("params", 'd'), ("license", 'e')];
        let manifest = parse(&layers.map(|(kind, digit)| layer(kind, &digest(digit)))).unwrap();
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
            assert!(matches!(Manifest::parse(text.as_bytes()), Err(ManifestFault::NotJson(_))), "{text}");
        }
        assert_eq!(Manifest::parse(b"{\"layers\":null}"), Err(ManifestFault::NoModel));
    }
}
