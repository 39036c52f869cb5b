//! Names of models as Ollama writes them, `[HOST/][NAMESPACE/]NAME[:TAG]`, and where their manifests lie.

use std::fmt;
use std::path::PathBuf;

use super::bounds::LONGEST_NAME_PART;

/// What Ollama leaves out of a name.
const DEFAULT_HOST: &str = "registry.ollama.ai";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";
/// The name of the same host in the newer folder.
const NEWER_HOST: &str = "ollama.com";
/// The folders of manifests, the newer one first. A store may have both.
pub(super) const MANIFEST_FOLDERS: [&str; 2] = ["manifests-v2", "manifests"];

/// The name of a model in Ollama's store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OllamaName {
    host: String,
    namespace: String,
    model: String,
    tag: String,
}

impl OllamaName {
    /// Parses a name as a user writes it. Returns `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts: Vec<&str> = text.split('/').collect();
        let last = parts.pop()?;
        let (model, tag) = last.split_once(':').unwrap_or((last, DEFAULT_TAG));
        let (host, namespace) = match parts.as_slice() {
            [] => (DEFAULT_HOST, DEFAULT_NAMESPACE),
            [namespace] => (DEFAULT_HOST, *namespace),
            [host, namespace] => (*host, *namespace),
            _ => return None,
        };
        Self::of_parts([host, namespace, model, tag])
    }

    /// Returns the name whose manifest has these four parts as its path: host, namespace, name and tag. `None` if one of
    /// them cannot be a part of a name.
    #[must_use]
    pub fn of_parts(parts: [&str; 4]) -> Option<Self> {
        let [host, namespace, model, tag] = parts;
        let is_plain = |part: &str, also: &[u8]| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte) || also.contains(&byte);
            !part.is_empty() && part.len() <= LONGEST_NAME_PART && !part.starts_with('.') && part.bytes().all(allowed)
        };
        // A host may have a port.
        let is_name = is_plain(host, b":") && [namespace, model, tag].iter().all(|part| is_plain(part, b""));
        let host = if host.eq_ignore_ascii_case(NEWER_HOST) { DEFAULT_HOST } else { host };
        let [host, namespace, model, tag] = [host, namespace, model, tag].map(str::to_owned);
        is_name.then_some(Self { host, namespace, model, tag })
    }

    /// Returns the paths in the store at which its manifest may lie. The first that is there counts.
    #[must_use]
    pub fn manifests(&self) -> Vec<PathBuf> {
        let newer = (self.host == DEFAULT_HOST).then_some(NEWER_HOST);
        let hosts: Vec<&str> = newer.into_iter().chain([self.host.as_str()]).collect();
        let path = |folder: &str, host: &str| {
            [folder, host, self.namespace.as_str(), self.model.as_str(), self.tag.as_str()].iter().collect()
        };
        MANIFEST_FOLDERS.iter().flat_map(|folder| hosts.iter().map(move |host| path(folder, host))).collect()
    }

    /// Returns all texts that mean it: as Ollama writes it, and without its tag if that may be left out.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let bare = self.has_default_tag().then(|| self.without_tag());
        std::iter::once(self.to_string()).chain(bare).collect()
    }

    /// Returns it as Ollama writes it, without its tag.
    #[must_use]
    pub fn without_tag(&self) -> String {
        let mut text = self.to_string();
        text.truncate(text.len() - self.tag.len() - 1);
        text
    }

    /// Whether its tag is the one that may be left out.
    #[must_use]
    pub fn has_default_tag(&self) -> bool {
        self.tag == DEFAULT_TAG
    }

    /// Whether it is the same name in other letters: Ollama does not tell small ones from capitals.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.to_string().eq_ignore_ascii_case(&other.to_string())
    }
}

impl fmt::Display for OllamaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, namespace, model, tag } = self;
        let is_usual_host = host == DEFAULT_HOST;
        if !is_usual_host {
            write!(f, "{host}/")?;
        }
        if !is_usual_host || namespace != DEFAULT_NAMESPACE {
            write!(f, "{namespace}/")?;
        }
        write!(f, "{model}:{tag}")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_written_as_ollama_writes_it() {
        for (text, shown, manifest) in [
            ("qwen3:4b", "qwen3:4b", "registry.ollama.ai/library/qwen3/4b"),
            ("qwen3", "qwen3:latest", "registry.ollama.ai/library/qwen3/latest"),
            ("user/name:tag", "user/name:tag", "registry.ollama.ai/user/name/tag"),
            ("hf.co/org/name:Q4_K_M", "hf.co/org/name:Q4_K_M", "hf.co/org/name/Q4_K_M"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b/c"),
            ("hf.co/library/name", "hf.co/library/name:latest", "hf.co/library/name/latest"),
        ] {
            let name = OllamaName::parse(text).unwrap();
            assert_eq!(name.to_string(), shown);
            assert!(name.manifests().contains(&Path::new("manifests").join(manifest)), "{:?}", name.manifests());
        }
        let newer = OllamaName::of_parts(["ollama.com", "library", "qwen3", "4b"]).unwrap();
        assert_eq!(newer, OllamaName::parse("qwen3:4b").unwrap());
        assert_eq!(newer.manifests()[0], Path::new("manifests-v2/ollama.com/library/qwen3/4b"));
        assert_eq!(OllamaName::parse("qwen3").unwrap().texts(), ["qwen3:latest", "qwen3"]);
        assert_eq!(OllamaName::parse("qwen3:4b").unwrap().texts(), ["qwen3:4b"]);
    }

    #[test]
    fn a_name_never_leads_out_of_the_store() {
        for text in
            ["", ":", "a:", ":b", "../x", "a/../b", "a/b/c/d", "a:b:c", "a b", "a/.b", "a:..", "/etc/passwd", "ä"]
        {
            assert_eq!(OllamaName::parse(text), None, "{text:?}");
        }
        assert_eq!(OllamaName::parse(&"x".repeat(LONGEST_NAME_PART + 1)), None);
    }

    proptest! {
        #[test]
        fn a_name_that_is_written_means_itself(text in "([a-c.]{1,4}/){0,2}[a-c]{1,3}(:[a-c1]{1,3})?") {
            if let Some(name) = OllamaName::parse(&text) {
                for text in name.texts() {
                    prop_assert_eq!(OllamaName::parse(&text), Some(name.clone()));
                }
                prop_assert!(name.manifests().iter().all(|path| path.components().count() == 5));
            }
        }
    }
}
