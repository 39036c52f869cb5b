//! Bounds on what is read of a store.

/// Largest manifest of Ollama that is read, in bytes. One of a model in a single file has about a thousand.
pub const LARGEST_MANIFEST: u64 = 1 << 20;
/// Most manifests that are read in one scan.
pub const MOST_MANIFESTS: usize = 2000;
/// Most entries of Ollama's folders of manifests that are looked at in one scan.
pub const MOST_MANIFEST_ENTRIES: usize = 20_000;
/// Longest part of a name in Ollama's store, in bytes: host, namespace, name or tag.
pub const LONGEST_NAME_PART: usize = 128;
/// Most projectors of one model.
pub const MOST_PROJECTORS: usize = 8;
