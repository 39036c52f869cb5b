//! The files for browsers that are built into the program, ready to be sent.
//!
//! A release holds the files of `ui/` and packs each when it is asked for first. A debug build reads a file from the source
//! tree whenever it is asked for, so that a change shows without a build.

#[cfg(not(debug_assertions))]
use std::collections::HashMap;
use std::io::{Read, Write as _};
use std::sync::{Arc, OnceLock};
#[cfg(not(debug_assertions))]
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::HeaderValue;
use rust_embed::{Embed, EmbeddedFile};
use sha2::{Digest as _, Sha256};

use crate::gateway::bounds::MAX_UNPACKED_ASSET;
use crate::hex::hex;

/// The files of `ui/`.
#[derive(Embed)]
#[folder = "ui/"]
struct Files;

/// The ending of a file that is packed in the source tree already.
const PACKED_ENDING: &str = ".gz";

/// How many bytes of the digest are in an ETag.
const ETAG_BYTES: usize = 12;

/// A file in both forms in which it is sent.
pub(super) struct Asset {
    pub(super) content_type: HeaderValue,
    plain: Plain,
    /// `None` if it would not be smaller.
    packed: Option<Form>,
}

/// The form that is not packed.
enum Plain {
    Held(Form),
    /// Made from the packed form for the first of the few clients that do not take that.
    Unpacked {
        etag: HeaderValue,
        bytes: OnceLock<Bytes>,
    },
}

/// One form of a file.
pub(super) struct Form {
    pub(super) bytes: Bytes,
    /// Strong: of the bytes of this form.
    pub(super) etag: HeaderValue,
}

impl Asset {
    /// Packs a text in JSON that is no file.
    pub(super) fn of_json(text: &'static str) -> Self {
        let digest: [u8; 32] = Sha256::digest(text).into();
        let plain = Form { bytes: Bytes::from_static(text.as_bytes()), etag: etag_of(&digest, "") };
        let packed = gzip(text.as_bytes()).map(|bytes| Form { bytes: bytes.into(), etag: etag_of(&digest, "-gz") });
        Self { content_type: HeaderValue::from_static("application/json"), plain: Plain::Held(plain), packed }
    }

    /// Creates a file of these forms, for tests.
    #[cfg(test)]
    pub(super) fn of_forms(content_type: &'static str, plain: Form, packed: Option<Form>) -> Self {
        Self { content_type: HeaderValue::from_static(content_type), plain: Plain::Held(plain), packed }
    }

    /// Returns the packed form, if there is one.
    pub(super) fn packed(&self) -> Option<&Form> {
        self.packed.as_ref()
    }

    /// Returns the ETag of the form that is not packed.
    pub(super) fn plain_etag(&self) -> &HeaderValue {
        match &self.plain {
            Plain::Held(form) => &form.etag,
            Plain::Unpacked { etag, .. } => etag,
        }
    }

    /// Returns the form that is not packed. It is made once, so that requests for it cannot take memory each.
    pub(super) fn plain_bytes(&self) -> &Bytes {
        match &self.plain {
            Plain::Held(form) => &form.bytes,
            Plain::Unpacked { bytes, .. } => bytes.get_or_init(|| {
                // That each vendored file can be unpacked is tested.
                self.packed.as_ref().and_then(|packed| gunzip(&packed.bytes)).unwrap_or_default().into()
            }),
        }
    }
}

/// All files, by name. A release keeps each as it was packed for its first request.
#[derive(Default)]
pub(super) struct Assets {
    #[cfg(not(debug_assertions))]
    by_name: Mutex<HashMap<String, Arc<Asset>>>,
}

impl Assets {
    /// Returns the file with this name, such as `app.js` or `vendor/htm-preact.js`.
    #[cfg(not(debug_assertions))]
    pub(super) fn find(&self, name: &str) -> Option<Arc<Asset>> {
        let by_name = || self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = by_name().get(name) {
            return Some(Arc::clone(known));
        }
        let asset = Arc::new(read(name)?);
        by_name().insert(name.to_owned(), Arc::clone(&asset));
        Some(asset)
    }

    /// Returns the file with this name, such as `app.js` or `vendor/htm-preact.js`, as it is now.
    #[cfg(debug_assertions)]
    pub(super) fn find(&self, name: &str) -> Option<Arc<Asset>> {
        read(name).map(Arc::new)
    }
}

/// Reads a file and packs it. `NAME.gz` of the source tree is `NAME`. Returns `None` if there is none, or if its type has
/// no content type here.
fn read(name: &str) -> Option<Asset> {
    let content_type = HeaderValue::from_static(content_type(name)?);
    if let Some(file) = Files::get(name) {
        let packed = gzip(&file.data).filter(|packed| packed.len() < file.data.len());
        let packed = packed.map(|bytes| Form { bytes: bytes.into(), etag: etag(&file, "-gz") });
        let plain = Plain::Held(Form { etag: etag(&file, ""), bytes: bytes_of(file) });
        return Some(Asset { content_type, packed, plain });
    }
    let file = Files::get(&format!("{name}{PACKED_ENDING}"))?;
    let plain = Plain::Unpacked { etag: etag(&file, ""), bytes: OnceLock::new() };
    Some(Asset { content_type, plain, packed: Some(Form { etag: etag(&file, "-gz"), bytes: bytes_of(file) }) })
}

/// Returns the content type of a file by its ending.
fn content_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

/// Returns the strong ETag of one form of a file.
fn etag(file: &EmbeddedFile, form: &str) -> HeaderValue {
    etag_of(&file.metadata.sha256_hash(), form)
}

fn etag_of(digest: &[u8; 32], form: &str) -> HeaderValue {
    let digest = hex(&digest[..ETAG_BYTES]);
    HeaderValue::try_from(format!("\"{digest}{form}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn bytes_of(file: EmbeddedFile) -> Bytes {
    match file.data {
        std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        std::borrow::Cow::Owned(bytes) => bytes.into(),
    }
}

/// Packs bytes. Returns `None` if that fails, which it does not in memory.
fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(bytes).ok()?;
    packed.finish().ok()
}

/// Unpacks bytes. Returns `None` if they are damaged or would be larger than [`MAX_UNPACKED_ASSET`].
fn gunzip(packed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = GzDecoder::new(packed).take(MAX_UNPACKED_ASSET + 1).read_to_end(&mut bytes).ok()?;
    (read as u64 <= MAX_UNPACKED_ASSET).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Most bytes of the page as they are sent, packed, without what is sent for the API's documents only.
    const MAX_PAGE: usize = 150 * 1024;

    /// What is not ours: its name, and its digest, unpacked. `ui/vendor/licences.txt` says where it comes from.
    const VENDORED: [(&str, &str); 4] = [
        ("vendor/htm-preact.js", "72284e8e9079c87817145df1110f74e8a2aa040b2fc384922e18dfcb46fc1fd7"),
        ("docs/swagger-ui.js", "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2"),
        ("docs/swagger-ui.css", "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d"),
        ("redoc/redoc.js", "e3d4361ba4ecdba1fad6ff3c627ef1e2563d78c02fbadb8e38572accac6a2acc"),
    ];

    #[test]
    fn each_file_can_be_sent_and_comes_back_the_same() {
        for name in Files::iter() {
            let asset = read(name.strip_suffix(PACKED_ENDING).unwrap_or(&name));
            let asset = asset.unwrap_or_else(|| panic!("{name} has no content type"));
            if let Some(packed) = asset.packed() {
                assert_eq!(gunzip(&packed.bytes).as_deref(), Some(&asset.plain_bytes()[..]), "{name}");
                assert_ne!(packed.etag, asset.plain_etag(), "{name}");
            }
        }
    }

    #[test]
    fn the_page_is_small() {
        let is_page = |name: &str| !name.ends_with(PACKED_ENDING);
        let sizes = Files::iter().filter(|name| is_page(name)).map(|name| {
            let asset = read(&name).unwrap();
            asset.packed().map_or(asset.plain_bytes().len(), |packed| packed.bytes.len())
        });
        let total: usize = sizes.sum();
        assert!(total <= MAX_PAGE, "{total} bytes");
    }

    #[test]
    fn each_vendored_file_is_the_one_that_was_looked_at() {
        for (name, digest) in VENDORED {
            let asset = read(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(hex(&Sha256::digest(asset.plain_bytes())), digest, "{name}");
        }
        let is_vendored = |name: &str| name.starts_with("vendor/") && name.ends_with(".js") || name.ends_with(".gz");
        let vendored = Files::iter().filter(|name| is_vendored(name)).count();
        assert_eq!(vendored, VENDORED.len(), "each is in the table");
    }

    /// What the policy of the page forbids would fail in the browser only.
    #[test]
    fn the_document_has_no_inline_script_or_style_and_names_no_other_host() {
        for name in Files::iter().filter(|name| name.ends_with(".html") && !name.contains('/')) {
            let text = String::from_utf8(Files::get(&name).unwrap().data.into_owned()).unwrap();
            for forbidden in ["<style", " style=", "javascript:", "http://", "https://", " onclick", " onload"] {
                assert!(!text.contains(forbidden), "{name}: {forbidden}");
            }
            for script in text.split("<script").skip(1) {
                assert!(script.split('>').next().unwrap().contains(" src="), "{name}");
            }
        }
    }

    #[test]
    fn no_module_writes_markup_or_runs_text() {
        let is_ours = |name: &str| name.ends_with(".js") && !name.starts_with("vendor/");
        for name in Files::iter().filter(|name| is_ours(name)) {
            let text = String::from_utf8(Files::get(&name).unwrap().data.into_owned()).unwrap();
            for forbidden in
                ["innerHTML", "InnerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"]
            {
                assert!(!text.contains(forbidden), "{name}: {forbidden}");
            }
            assert!(text.lines().count() <= 250, "{name} is too long");
        }
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("ui/index.html").is_file());
    }
}
