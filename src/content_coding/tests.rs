//! Tests of the whole unpacker.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use proptest::prelude::*;

use super::codings::Coding;
use super::stage::ZSTD_WINDOW_LOG;
use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bare_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn codings(values: &[&'static str]) -> Result<ContentCodings, UnsupportedCoding> {
    let values = values.iter().map(|value| (CONTENT_ENCODING, http::HeaderValue::from_static(value)));
    let mut headers = HeaderMap::new();
    for (name, value) in values {
        headers.append(name, value);
    }
    ContentCodings::of(&headers)
}

fn unpack_in_pieces(value: &'static str, packed: &[u8], piece: usize, total: usize) -> Result<Vec<u8>, UnpackError> {
    let mut unpacker = Unpacker::new(&codings(&[value]).unwrap(), total)?;
    let mut bytes = Vec::new();
    for piece in packed.chunks(piece) {
        bytes.extend(unpacker.push(piece)?);
    }
    bytes.extend(unpacker.finish()?);
    Ok(bytes)
}

#[test]
fn codings_are_read_from_every_header_line_in_their_order() {
    let of = |values| codings(values).map(|codings| codings.0);
    assert_eq!(of(&[]), Ok(vec![]));
    assert_eq!(of(&["identity"]), Ok(vec![]));
    assert_eq!(of(&["", " , identity,"]), Ok(vec![]));
    assert_eq!(of(&["X-GZip"]), Ok(vec![Coding::Gzip]));
    assert_eq!(of(&["gzip, Zstd", "deflate"]), Ok(vec![Coding::Gzip, Coding::Zstd, Coding::Deflate]));
    assert_eq!(of(&["gzip, br"]), Err(UnsupportedCoding("br".to_owned())));
    assert_eq!(of(&["compress"]), Err(UnsupportedCoding("compress".to_owned())));
    assert!(of(&["gzip, gzip", "gzip, gzip"]).is_err());
}

proptest! {
    #[test]
    fn what_was_packed_is_unpacked_whatever_the_pieces(
        bytes in proptest::collection::vec(0..4_u8, 0..5_000), piece in 1..600_usize,
    ) {
        for (value, packed) in [
            ("gzip", gzip(&bytes)),
            ("deflate", zlib(&bytes)),
            ("deflate", bare_deflate(&bytes)),
            ("zstd", zstandard(&bytes)),
            ("gzip, zstd", zstandard(&gzip(&bytes))),
            ("deflate, gzip", gzip(&zlib(&bytes))),
            ("gzip", [gzip(&bytes[..bytes.len() / 2]), gzip(&bytes[bytes.len() / 2..])].concat()),
            ("zstd", [zstandard(&bytes[..bytes.len() / 2]), zstandard(&bytes[bytes.len() / 2..])].concat()),
            ("identity", bytes.clone()),
        ] {
            prop_assert_eq!(unpack_in_pieces(value, &packed, piece, bytes.len()), Ok(bytes.clone()), "{}", value);
        }
    }

    #[test]
    fn garbage_ends_in_an_error_or_in_few_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for value in ["gzip", "deflate", "zstd", "zstd, gzip"] {
            if let Ok(bytes) = unpack_in_pieces(value, &bytes, 7, 1_000) {
                prop_assert!(bytes.len() <= 1_000);
            }
        }
    }
}

#[test]
fn a_message_that_is_cut_or_damaged_is_malformed() {
    let text = b"{\"input\":\"a text that is long enough to be worth packing, packing, packing\"}";
    for (value, packed) in
        [("gzip", gzip(text)), ("deflate", zlib(text)), ("deflate", bare_deflate(text)), ("zstd", zstandard(text))]
    {
        for cut in [1, 2, packed.len() / 2, packed.len() - 1] {
            let outcome = unpack_in_pieces(value, &packed[..cut], 5, 1_000);
            assert_eq!(outcome, Err(UnpackError::Malformed(value)), "{value} {cut}");
        }
        let more = [packed.as_slice(), b"more"].concat();
        assert_eq!(unpack_in_pieces(value, &more, 5, 1_000), Err(UnpackError::Malformed(value)), "{value}");
        assert_eq!(unpack_in_pieces(value, text, 5, 1_000), Err(UnpackError::Malformed(value)), "{value}");
        assert_eq!(unpack_in_pieces(value, b"", 5, 1_000), Ok(Vec::new()), "an empty message: {value}");
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let zeros = vec![0; 20_000_000];
    for (value, packed) in [
        ("gzip", gzip(&zeros)),
        ("deflate", zlib(&zeros)),
        ("zstd", zstandard(&zeros)),
        ("zstd, gzip", gzip(&zstandard(&zeros))),
    ] {
        assert_eq!(unpack_in_pieces(value, &packed, 1_024, 1_000_000), Err(UnpackError::TooLarge), "{value}");
    }
}

#[test]
fn each_step_of_a_bomb_is_small_whatever_the_codings() {
    let zeros = vec![0; 20_000_000];
    for (value, packed) in [
        ("gzip", gzip(&zeros)),
        ("deflate", zlib(&zeros)),
        ("deflate", bare_deflate(&zeros)),
        ("zstd", zstandard(&zeros)),
        ("zstd, gzip", gzip(&zstandard(&zeros))),
        ("gzip, gzip, zstd", zstandard(&gzip(&gzip(&zeros)))),
    ] {
        let mut unpacker = Unpacker::new(&codings(&[value]).unwrap(), usize::MAX).unwrap();
        unpacker.feed(packed.into());
        let mut length = 0;
        while let Some(bytes) = unpacker.step() {
            let bytes = bytes.unwrap();
            assert!(bytes.len() <= LARGEST_STEP && bytes.iter().all(|byte| *byte == 0), "{value}: {}", bytes.len());
            assert!(unpacker.waiting.iter().skip(1).all(|bytes| bytes.len() <= LARGEST_STEP), "{value}");
            length += bytes.len();
        }
        length += unpacker.finish().unwrap().len();
        assert_eq!(length, zeros.len(), "{value}");
    }
}

#[test]
fn what_was_flushed_comes_out_at_once() {
    let piece = b"data: {\"choices\":[]}\n\n";
    let mut encoders: Vec<(&str, Box<dyn Write>, _)> = Vec::new();
    for value in ["gzip", "deflate", "zstd"] {
        let sink = Sink::default();
        let encoder: Box<dyn Write> = match value {
            "gzip" => Box::new(GzEncoder::new(sink.clone(), Compression::fast())),
            "deflate" => Box::new(ZlibEncoder::new(sink.clone(), Compression::fast())),
            _ => Box::new(zstd::Encoder::new(sink.clone(), 1).unwrap()),
        };
        encoders.push((value, encoder, sink));
    }
    for (value, mut encoder, sink) in encoders {
        let mut unpacker = Unpacker::new(&codings(&[value]).unwrap(), usize::MAX).unwrap();
        for _ in 0..3 {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
            let packed = std::mem::take(&mut *sink.0.lock().unwrap());
            assert_eq!(unpacker.push(&packed).unwrap(), piece, "{value}");
        }
    }
}

/// What an encoder has written.
#[derive(Clone, Default)]
struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_zstd_frame_that_asks_for_a_large_window_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.set_parameter(zstd::zstd_safe::CParameter::WindowLog(ZSTD_WINDOW_LOG + 4)).unwrap();
    encoder.write_all(&[1; 100]).unwrap();
    let packed = encoder.finish().unwrap();
    assert_eq!(unpack_in_pieces("zstd", &packed, 100, 1_000), Err(UnpackError::Malformed("zstd")));
}
