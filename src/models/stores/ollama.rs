//! The models of Ollama's store: `manifests/HOST/NAMESPACE/NAME/TAG` names files in `blobs`. Newer versions keep the same in
//! `manifests-v2`.
//!
//! Reads the manifests and the sizes of blobs; what is in a blob is read elsewhere. No link is followed out of the store.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::bounds::{LARGEST_MANIFEST, MOST_MANIFEST_ENTRIES, MOST_MANIFESTS};
use super::error::{OllamaFault, StoreError};
use super::manifest::{Blob, Manifest, ManifestDocument, ManifestFault};
use super::ollama_name::{MANIFEST_FOLDERS, OllamaName};
use crate::models::error::similar_texts;
use crate::models::places::PlaceKind;

/// Depth of the manifests below their folder: host, namespace, name and tag.
const MANIFEST_DEPTH: usize = 4;

/// The files of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OllamaFiles {
    /// The GGUF file, a blob.
    pub model: PathBuf,
    /// Its projectors.
    pub projectors: Vec<PathBuf>,
}

/// One name of the store, and the files that it means.
#[derive(Debug)]
pub struct OllamaEntry {
    /// The name.
    pub name: OllamaName,
    /// Its files, or why it cannot be served.
    pub files: Result<OllamaFiles, OllamaFault>,
}

/// What the store holds.
#[derive(Debug, Default)]
pub struct OllamaListing {
    /// The models, sorted by name.
    pub entries: Vec<OllamaEntry>,
    /// What was not looked at, with the reason, which follows "it".
    pub skipped: Vec<(PathBuf, String)>,
}

/// An Ollama store.
pub struct OllamaStore {
    /// Its real path: what lies elsewhere is outside.
    root: PathBuf,
}

impl OllamaStore {
    /// Opens the store in this folder.
    ///
    /// # Errors
    ///
    /// The folder cannot be found.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { root: folder.canonicalize()? })
    }

    /// Lists all models.
    ///
    /// # Errors
    ///
    /// The folder of the manifests cannot be read. If there is none, there is no model.
    pub fn list(&self) -> io::Result<OllamaListing> {
        let mut listing = OllamaListing::default();
        for name in self.names(&mut listing.skipped)? {
            let files = self.files_of(&name);
            listing.entries.push(OllamaEntry { name, files });
        }
        Ok(listing)
    }

    /// Returns the files that a name means.
    ///
    /// # Errors
    ///
    /// There is no such model, or it cannot be served.
    pub fn find(&self, given: &str) -> Result<OllamaFiles, StoreError> {
        let unreadable = |source| StoreError::Folder { kind: PlaceKind::Ollama, folder: self.root.clone(), source };
        let prefixed = |name: &dyn std::fmt::Display| format!("{}:{name}", PlaceKind::Ollama);
        let wanted = OllamaName::parse(given);
        if let Some(name) = wanted.as_ref().filter(|name| self.manifest_of(name).is_some()) {
            return self.files_of(name).map_err(|fault| StoreError::Unusable { name: prefixed(name), fault });
        }
        let names = self.names(&mut Vec::new()).map_err(unreadable)?;
        if let Some(name) = names.iter().find(|name| wanted.as_ref().is_some_and(|wanted| wanted.is_like(name))) {
            return self.files_of(name).map_err(|fault| StoreError::Unusable { name: prefixed(name), fault });
        }
        let known: Vec<String> = names.iter().map(ToString::to_string).collect();
        Err(StoreError::NotFound {
            kind: PlaceKind::Ollama,
            name: prefixed(&given),
            folder: self.root.clone(),
            similar: similar_texts(given, &known).iter().map(|name| prefixed(name)).collect(),
            has_models: !names.is_empty(),
        })
    }

    /// Returns the path of the manifest of this name, if there is one.
    fn manifest_of(&self, name: &OllamaName) -> Option<PathBuf> {
        name.manifests().into_iter().map(|path| self.root.join(path)).find(|path| path.is_file())
    }

    /// Returns the names of all manifests, sorted. Adds what is not looked at to `skipped`.
    fn names(&self, skipped: &mut Vec<(PathBuf, String)>) -> io::Result<Vec<OllamaName>> {
        let mut names = Vec::new();
        for folder in MANIFEST_FOLDERS {
            names.append(&mut self.names_below(folder, skipped)?);
        }
        // Of the tags of a model, the one that may be left out comes last, because it is another name for one of the others
        // most of the time.
        names.sort_by_cached_key(|name| (name.without_tag(), name.has_default_tag(), name.to_string()));
        names.dedup();
        Ok(names)
    }

    fn names_below(&self, folder: &str, skipped: &mut Vec<(PathBuf, String)>) -> io::Result<Vec<OllamaName>> {
        let top = self.root.join(folder);
        let (mut names, mut entries) = (Vec::new(), 0);
        let mut pending: Vec<Vec<String>> = vec![Vec::new()];
        while let Some(parts) = pending.pop() {
            let below: PathBuf = parts.iter().collect();
            let listing = match fs::read_dir(top.join(&below)) {
                Ok(listing) => listing,
                // A store in which nothing was pulled.
                Err(error) if parts.is_empty() && error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if parts.is_empty() => return Err(error),
                // Not a folder: a stray file, such as one of a file manager.
                Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
                Err(error) => {
                    skipped.push((below, format!("cannot be read: {error}")));
                    continue;
                }
            };
            for entry in listing.flatten() {
                entries += 1;
                if entries > MOST_MANIFEST_ENTRIES || names.len() == MOST_MANIFESTS {
                    skipped.push((below, format!("is not all looked at: {MOST_MANIFESTS} names are read at most")));
                    return Ok(names);
                }
                let Ok(part) = entry.file_name().into_string() else { continue };
                let parts: Vec<String> = parts.iter().cloned().chain([part]).collect();
                match <[&str; MANIFEST_DEPTH]>::try_from(parts.iter().map(String::as_str).collect::<Vec<_>>()) {
                    Ok(parts) => names.extend(OllamaName::of_parts(parts)),
                    Err(_) if entry.file_name().as_encoded_bytes().starts_with(b".") => {}
                    Err(_) => pending.push(parts),
                }
            }
        }
        Ok(names)
    }

    fn files_of(&self, name: &OllamaName) -> Result<OllamaFiles, OllamaFault> {
        // One that is only a link to nothing has no path either, and its error says what is missing.
        let first = || name.manifests().pop().map(|path| self.root.join(path)).unwrap_or_default();
        let manifest = match self.read_document(&self.manifest_of(name).unwrap_or_else(first))? {
            ManifestDocument::Model(manifest) => manifest,
            ManifestDocument::Listed(sha256) => self.read_listed(&sha256)?,
        };
        let model = self.blob(&manifest.model)?;
        let projectors = manifest.projectors.iter().map(|blob| self.blob(blob)).collect::<Result<_, _>>()?;
        Ok(OllamaFiles { model, projectors })
    }

    /// Reads a manifest that a list names.
    fn read_listed(&self, sha256: &str) -> Result<Manifest, OllamaFault> {
        let blob = Blob { sha256: sha256.to_owned(), size: 0 }.file_name();
        match self.read_document(&self.root.join("blobs").join(&blob))? {
            ManifestDocument::Model(manifest) => Ok(manifest),
            ManifestDocument::Listed(_) => Err(ManifestFault::NotJson("a list within a list".to_owned()).into()),
        }
    }

    fn read_document(&self, path: &Path) -> Result<ManifestDocument, OllamaFault> {
        let mut text = Vec::new();
        File::open(self.within(path)?)?.take(LARGEST_MANIFEST + 1).read_to_end(&mut text)?;
        if text.len() as u64 > LARGEST_MANIFEST {
            return Err(OllamaFault::TooLarge(LARGEST_MANIFEST));
        }
        Ok(ManifestDocument::parse(&text)?)
    }

    /// Returns the path of a blob that is there as a whole and can be read.
    fn blob(&self, blob: &Blob) -> Result<PathBuf, OllamaFault> {
        let name = blob.file_name();
        let path = self.root.join("blobs").join(&name);
        let file = match fs::metadata(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OllamaFault::NoBlob { blob: name }),
            Err(source) => return Err(OllamaFault::Unreadable { blob: name, source }),
        };
        self.within(&path)?;
        // Before it is opened: opening a pipe would wait, and it has no size.
        if file.len() != blob.size {
            return Err(OllamaFault::Short { blob: name, actual: file.len(), expected: blob.size });
        }
        match File::open(&path) {
            Ok(_) => Ok(path),
            Err(source) => Err(OllamaFault::Unreadable { blob: name, source }),
        }
    }

    /// Returns the path if it really lies in the store.
    fn within(&self, path: &Path) -> Result<PathBuf, OllamaFault> {
        let real = path.canonicalize()?;
        let shown = || path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        if real.starts_with(&self.root) { Ok(real) } else { Err(OllamaFault::Outside(shown())) }
    }
}
