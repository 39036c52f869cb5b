//! Pictures in messages, as `data:` URLs.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// Bytes that a picture may have.
const LARGEST_IMAGE: u64 = 20 * 1024 * 1024;

/// Reads a picture as a `data:` URL.
///
/// # Errors
/// A sentence that says why the file is none.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let with_path = |fault: &str| format!("{}: {fault}", path.display());
    let file = File::open(path).map_err(|error| with_path(&error.to_string()))?;
    let mut bytes = Vec::new();
    let read = file.take(LARGEST_IMAGE + 1).read_to_end(&mut bytes);
    read.map_err(|error| with_path(&error.to_string()))?;
    if bytes.len() as u64 > LARGEST_IMAGE {
        return Err(with_path(&format!("the picture has more than {LARGEST_IMAGE} bytes")));
    }
    let kind = kind_of(&bytes).ok_or_else(|| with_path("expected a PNG, JPEG, GIF or WebP file"))?;
    Ok(format!("data:image/{kind};base64,{}", BASE64_STANDARD.encode(&bytes)))
}

/// Returns the subtype of the media type, by the first bytes.
fn kind_of(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [0xff, 0xd8, 0xff, ..] => Some("jpeg"),
        [b'G', b'I', b'F', b'8', ..] => Some("gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_told_by_its_first_bytes_and_anything_else_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"\x89PNG\r\n").unwrap();
        assert_eq!(read(file.path()).unwrap(), "data:image/png;base64,iVBORw0K");
        std::fs::write(file.path(), b"hello").unwrap();
        assert!(read(file.path()).unwrap_err().ends_with("expected a PNG, JPEG, GIF or WebP file"));
        assert!(read(Path::new("/nonexistent/x.png")).unwrap_err().starts_with("/nonexistent/x.png: "));
    }
}
