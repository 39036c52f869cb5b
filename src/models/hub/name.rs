//! What the name of a model on the network means: pure.
//!
//! Owns which texts are such names. Which file of a repository a quantisation means is decided in `models/hub/`.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use super::{HubError, MAIN, Repository, has_quant};
use crate::models::places::ModelPlaces;
use crate::models::split::parts_of;

/// Beginnings of addresses that people copy from the hub's pages, and of names as other programs write them.
const HUB_BEGINNINGS: [&str; 6] =
    ["hf:", "hf://", "https://huggingface.co/", "https://hf.co/", "huggingface.co/", "hf.co/"];
/// Beginnings of names that mean a model of another program on this machine.
const STORE_BEGINNINGS: [&str; 2] = ["ollama:", "lmstudio:"];
/// The word between repository and revision in the address of a file.
const FILE_WORDS: [&str; 3] = ["/resolve/", "/blob/", "/raw/"];
/// The word between repository and revision in the address of the page of all files.
const PAGE_WORD: &str = "/tree/";

/// A model on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteName {
    /// A model of a repository, by its quantisation or the usual one: `ORG/NAME[:QUANT]`.
    Model {
        /// The repository.
        repository: RepositoryId,
        /// The quantisation.
        quant: Option<String>,
    },
    /// A file of a repository: `ORG/NAME/FILE.gguf`.
    File {
        /// The repository.
        repository: RepositoryId,
        /// The path of the file in it.
        file: String,
    },
    /// A file at an address, with its hash: `https://HOST/FILE.gguf#sha256=HEX`.
    Address {
        /// The address, without the hash.
        address: Url,
        /// The SHA-256 of the file, in lower case.
        sha256: String,
    },
}

/// A repository at one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryId {
    /// The user or organisation.
    pub org: String,
    /// The name.
    pub name: String,
    /// A branch, a tag or a commit.
    pub revision: String,
}

/// Why a text is not the name of a model on the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing of what it could be.
    #[error("it is neither ORG/NAME[:QUANT] nor ORG/NAME/FILE.gguf nor an https address of a .gguf file")]
    Unknown,
    /// A name with the prefix of a store.
    #[error("a model of Ollama or LM Studio is used where it lies, and not downloaded")]
    OfStore,
    /// The address of a file, without its hash.
    #[error("the address of a file needs its SHA-256, as in https://HOST/FILE.gguf#sha256=HEX")]
    NoHash,
    /// An address without encryption.
    #[error("an address begins with https")]
    NotHttps,
    /// An address that has a user and a password.
    #[error("an address must not hold a password")]
    HasPassword,
}

impl RepositoryId {
    /// Returns the name of its folder in the cache.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("models--{}--{}", self.org, self.name)
    }

    /// Returns whether it is the same repository, at whichever revision. The hub takes names in any case.
    fn is_same_as(&self, other: &Self) -> bool {
        self.org.eq_ignore_ascii_case(&other.org) && self.name.eq_ignore_ascii_case(&other.name)
    }

    /// Returns the repository as it is looked up in a cache, without a choice of its files.
    pub(in crate::models) fn as_cached(&self) -> Repository<'_> {
        Repository { org: &self.org, name: &self.name, quant: None }
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)
    }
}

/// Shows the name as it can be given again, without the query of an address, which may be a secret.
impl fmt::Display for RemoteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model { repository, .. } if repository.revision != MAIN => {
                write!(f, "{repository}{PAGE_WORD}{}", repository.revision)
            }
            Self::Model { repository, quant: None } => write!(f, "{repository}"),
            Self::Model { repository, quant: Some(quant) } => write!(f, "{repository}:{quant}"),
            Self::File { repository, file } if repository.revision == MAIN => write!(f, "{repository}/{file}"),
            Self::File { repository, file } => write!(f, "{repository}/resolve/{}/{file}", repository.revision),
            Self::Address { address, sha256 } => {
                let mut address = address.clone();
                address.set_query(None);
                write!(f, "{address}#sha256={sha256}")
            }
        }
    }
}

impl RemoteName {
    /// Parses a name.
    ///
    /// # Errors
    /// It is not the name of a model on the network. That it exists is not checked.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = text.trim();
        if STORE_BEGINNINGS.iter().any(|beginning| text.starts_with(beginning)) {
            return Err(NameError::OfStore);
        }
        let on_hub = HUB_BEGINNINGS.iter().rev().find_map(|beginning| text.strip_prefix(beginning));
        match on_hub {
            Some(rest) => Self::on_hub(rest.trim_start_matches('/')).ok_or(NameError::Unknown),
            None if text.contains("://") => Self::at_address(text),
            None => Self::on_hub(text).ok_or(NameError::Unknown),
        }
    }

    /// Finds the file that it means on the disk: in the hub's cache, or, for an address, in the models folder.
    ///
    /// # Errors
    /// The cache cannot be read, or has no such file or more than one.
    pub fn find_file(&self, places: &ModelPlaces) -> Result<PathBuf, HubError> {
        match self {
            Self::Model { repository, quant } => {
                let RepositoryId { org, name, revision } = repository;
                Repository { org, name, quant: quant.as_deref() }.find_at(&places.hub_cache, revision)
            }
            Self::File { repository: RepositoryId { org, name, revision }, file } => {
                Repository { org, name, quant: None }.find_named(&places.hub_cache, revision, file)
            }
            Self::Address { address, sha256 } => {
                let name = address.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
                let path = path_of_address(&places.models_dir, name, sha256);
                path.is_file().then_some(path).ok_or_else(|| HubError::NoDownload { dir: places.models_dir.clone() })
            }
        }
    }

    /// Returns whether both mean the same: a quantisation is found in any case.
    #[must_use]
    pub fn is_same_model(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Model { repository, quant: Some(quant) },
                Self::Model { repository: of_other, quant: Some(other) },
            ) => repository == of_other && quant.eq_ignore_ascii_case(other),
            _ => self == other,
        }
    }

    /// Returns whether both may mean the same file. Only the hub knows which one a name without a quantisation means.
    #[must_use]
    pub fn may_mean_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address { sha256, .. }, Self::Address { sha256: others, .. }) => sha256 == others,
            (Self::File { repository, file }, Self::File { repository: others, file: other }) => {
                repository.is_same_as(others) && parts_of(Path::new(file)).iter().any(|part| part == Path::new(other))
            }
            (Self::Model { repository, quant }, Self::Model { repository: others, quant: other }) => {
                let quants = quant.as_ref().zip(other.as_ref());
                repository.is_same_as(others) && quants.is_none_or(|(one, other)| one.eq_ignore_ascii_case(other))
            }
            (Self::Model { repository, quant }, Self::File { repository: others, file })
            | (Self::File { repository: others, file }, Self::Model { repository, quant }) => {
                let is_of = |quant: &String| has_quant(Path::new(file), quant);
                repository.is_same_as(others) && quant.as_ref().is_none_or(is_of)
            }
            (Self::Address { .. }, _) | (_, Self::Address { .. }) => false,
        }
    }

    fn on_hub(text: &str) -> Option<Self> {
        // Addresses of the hub's pages end in a query such as `?download=true`.
        let text = text.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        if let Some((repository, rest)) = FILE_WORDS.iter().find_map(|word| text.split_once(word)) {
            let (revision, file) = rest.split_once('/')?;
            return Self::file_of(repository, revision, file);
        }
        if let Some((repository, revision)) = text.split_once(PAGE_WORD) {
            let repository = repository_at(repository, revision)?;
            return Some(Self::Model { repository, quant: None });
        }
        if let Some(repository) = Repository::named(text) {
            let RepositoryParts { org, name, quant } = RepositoryParts::of(&repository);
            let repository = RepositoryId { org, name, revision: MAIN.to_owned() };
            return Some(Self::Model { repository, quant });
        }
        let (org, rest) = text.split_once('/')?;
        let (name, file) = rest.split_once('/')?;
        Self::file_of(&format!("{org}/{name}"), MAIN, file)
    }

    fn file_of(repository: &str, revision: &str, file: &str) -> Option<Self> {
        let repository = repository_at(repository, revision)?;
        let is_good = file.to_ascii_lowercase().ends_with(".gguf") && is_plain_path(file);
        is_good.then(|| Self::File { repository, file: file.to_owned() })
    }

    fn at_address(text: &str) -> Result<Self, NameError> {
        let mut address = Url::parse(text).map_err(|_| NameError::Unknown)?;
        if address.scheme() != "https" {
            return Err(NameError::NotHttps);
        }
        if !address.username().is_empty() || address.password().is_some() {
            return Err(NameError::HasPassword);
        }
        let last = address.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
        if !last.to_ascii_lowercase().ends_with(".gguf") {
            return Err(NameError::Unknown);
        }
        let hash = address.fragment().and_then(|fragment| fragment.strip_prefix("sha256=")).ok_or(NameError::NoHash)?;
        let sha256 = sha256_of(hash).ok_or(NameError::NoHash)?;
        address.set_fragment(None);
        Ok(Self::Address { address, sha256 })
    }
}

/// Returns the repository of this name, which gives no quantisation, at a revision.
fn repository_at(repository: &str, revision: &str) -> Option<RepositoryId> {
    let RepositoryParts { org, name, quant: None } = RepositoryParts::of(&Repository::named(repository)?) else {
        return None;
    };
    let is_revision = is_plain_path(revision) && !revision.contains('/');
    is_revision.then(|| RepositoryId { org, name, revision: revision.to_owned() })
}

/// Returns where a file that is named by its address lies: below a folder for its hash.
#[must_use]
pub fn path_of_address(models_dir: &Path, name: &str, sha256: &str) -> PathBuf {
    models_dir.join("downloads").join(sha256).join(name)
}

/// Returns a name as it may be shown: without the query of an address, which may be a secret.
#[must_use]
pub fn shown_name(name: &str) -> String {
    match name.split_once('?') {
        Some((address, query)) if name.contains("://") => {
            let hash = query.split_once('#').map(|(_, hash)| format!("#{hash}")).unwrap_or_default();
            format!("{address}{hash}")
        }
        _ => name.to_owned(),
    }
}

/// Returns the part of a name that names a file: of an address, without query and hash.
#[must_use]
pub fn path_of_name(name: &str) -> &Path {
    let end = if name.contains("://") { name.find(['?', '#']) } else { None };
    Path::new(&name[..end.unwrap_or(name.len())])
}

/// Returns a SHA-256 in lower case, if the text is one.
#[must_use]
pub fn sha256_of(text: &str) -> Option<String> {
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_ascii_lowercase())
}

/// Returns whether a path of a repository is one that stays in its folder: no empty part, none that begins with a dot, no
/// backslash and no control character.
#[must_use]
pub fn is_plain_path(path: &str) -> bool {
    let is_plain = |part: &str| !part.is_empty() && !part.starts_with('.') && part.len() < 256;
    path.split('/').all(is_plain) && !path.contains('\\') && !path.chars().any(char::is_control)
}

/// The parts of a repository's name.
struct RepositoryParts {
    org: String,
    name: String,
    quant: Option<String>,
}

impl RepositoryParts {
    fn of(repository: &Repository<'_>) -> Self {
        let owned = str::to_owned;
        Self { org: owned(repository.org()), name: owned(repository.name()), quant: repository.quant().map(owned) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> String {
        match RemoteName::parse(name) {
            Ok(RemoteName::Model { repository, quant }) => {
                format!("{repository}@{} {}", repository.revision, quant.as_deref().unwrap_or("-"))
            }
            Ok(RemoteName::File { repository, file }) => format!("{repository}@{} {file}", repository.revision),
            Ok(RemoteName::Address { address, sha256 }) => format!("{address} {}", &sha256[..4]),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn names_are_read_as_people_write_them() {
        let hash = "AB".repeat(32);
        for (name, expected) in [
            ("Qwen/Qwen3-4B-GGUF", "Qwen/Qwen3-4B-GGUF@main -"),
            (" Qwen/Qwen3-4B-GGUF:Q4_K_M ", "Qwen/Qwen3-4B-GGUF@main Q4_K_M"),
            ("hf:org/name:Q8_0", "org/name@main Q8_0"),
            ("hf://org/name", "org/name@main -"),
            ("hf.co/org/name:Q8_0", "org/name@main Q8_0"),
            ("https://huggingface.co/org/name/", "org/name@main -"),
            ("org/name/file.gguf", "org/name@main file.gguf"),
            ("hf:org/name/sub/file-00001-of-00002.GGUF", "org/name@main sub/file-00001-of-00002.GGUF"),
            ("https://huggingface.co/org/name/resolve/main/f.gguf?download=true", "org/name@main f.gguf"),
            ("https://huggingface.co/org/name/blob/v1.2/f.gguf", "org/name@v1.2 f.gguf"),
            ("https://huggingface.co/org/name/tree/main", "org/name@main -"),
            ("https://huggingface.co/org/name/tree/v1.2/", "org/name@v1.2 -"),
            (&format!("https://a.example/x/m.gguf?v=2#sha256={hash}"), "https://a.example/x/m.gguf?v=2 abab"),
        ] {
            assert_eq!(model(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_is_shown_as_it_can_be_given_again_without_the_query_of_an_address() {
        let hash = "ab".repeat(32);
        for name in [
            "org/name",
            "org/name:Q8_0",
            "org/name/file.gguf",
            "org/name/resolve/v1.2/sub/file.gguf",
            "org/name/tree/v1.2",
        ] {
            let parsed = RemoteName::parse(name).unwrap();
            assert_eq!(parsed.to_string(), name);
        }
        let parse = |text: &str| RemoteName::parse(text).unwrap().to_string();
        assert_eq!(parse("https://hf.co/org/name/resolve/main/f.gguf?download=true"), "org/name/f.gguf");
        let signed = format!("https://a.example:8443/x/m.gguf?X-Signature=secret#sha256={hash}");
        assert_eq!(parse(&signed), format!("https://a.example:8443/x/m.gguf#sha256={hash}"));
    }

    #[test]
    fn names_may_mean_the_same_file_whichever_way_it_is_written() {
        let addresses = [("a", "ab"), ("b", "ab"), ("a", "cd")];
        let [one, same, other] =
            addresses.map(|(host, hash)| format!("https://{host}.example/m.gguf?v=1#sha256={}", hash.repeat(32)));
        for (one, other, expected) in [
            ("o/m", "o/m:Q8_0", true),
            ("O/m:q8_0", "o/M:Q8_0", true),
            ("o/m:Q4_0", "o/m:Q8_0", false),
            ("o/m", "o/other", false),
            ("o/m/m-Q8_0.gguf", "o/m:q8_0", true),
            ("o/m/m-Q8_0.gguf", "o/m:Q4_0", false),
            ("o/m/m-Q8_0.gguf", "o/m", true),
            ("o/m/m-00001-of-00002.gguf", "hf:o/m/m-00002-of-00002.gguf", true),
            ("o/m/m-Q8_0.gguf", "o/m/m-Q4_0.gguf", false),
            (&one, &same, true),
            (&one, &other, false),
            (&one, "o/m", false),
        ] {
            let parse = |name: &str| RemoteName::parse(name).unwrap();
            assert_eq!(parse(one).may_mean_same(&parse(other)), expected, "{one} {other}");
            assert_eq!(parse(other).may_mean_same(&parse(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn the_query_of_an_address_is_not_shown() {
        assert_eq!(shown_name("https://h/m.gguf?X-Signature=secret#sha256=ab"), "https://h/m.gguf#sha256=ab");
        assert_eq!(shown_name("https://h/m.gguf?X-Signature=secret"), "https://h/m.gguf");
        assert_eq!(shown_name("org/name:Q4"), "org/name:Q4");
        assert_eq!(path_of_name("https://h/m.gguf?X-Signature=secret#sha256=ab"), Path::new("https://h/m.gguf"));
        assert_eq!(path_of_name("odd?name#1.gguf"), Path::new("odd?name#1.gguf"));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        let hash = "ab".repeat(32);
        for (name, expected) in [
            ("", "Unknown"),
            ("name", "Unknown"),
            ("/etc/passwd.gguf", "Unknown"),
            ("org/name/../../x.gguf", "Unknown"),
            ("org/name/.hidden.gguf", "Unknown"),
            ("org/name/a//b.gguf", "Unknown"),
            ("org/name/a\\..\\b.gguf", "Unknown"),
            ("org/name/file.bin", "Unknown"),
            ("org/name:Q4_0/file.gguf", "Unknown"),
            ("https://huggingface.co/org/name/tree/main/folder", "Unknown"),
            ("https://huggingface.co/org/name/tree/..", "Unknown"),
            ("https://huggingface.co/org/name/resolve/../x.gguf", "Unknown"),
            ("https://a.example/m.gguf", "NoHash"),
            ("https://a.example/m.gguf#sha256=abcd", "NoHash"),
            (&format!("http://a.example/m.gguf#sha256={hash}"), "NotHttps"),
            (&format!("file:///m.gguf#sha256={hash}"), "NotHttps"),
            (&format!("https://u:p@a.example/m.gguf#sha256={hash}"), "HasPassword"),
            (&format!("https://a.example/m.zip#sha256={hash}"), "Unknown"),
        ] {
            assert_eq!(model(name), expected, "{name}");
        }
    }
}
