//! Tests of the reader: good, broken, hostile and random files.

use proptest::prelude::*;

use super::*;
use crate::models::sample::{GgufSample, string};

#[test]
fn every_field_of_the_metadata_is_read() {
    let metadata = GgufSample::chat()
        .text("general.name", "Tiny")
        .text("tokenizer.ggml.model", "llama")
        .uint("llama.block_count", 2)
        .uint("llama.embedding_length", 64)
        .uint("llama.attention.head_count", 2)
        .array("llama.attention.head_count_kv", 4, 2, &[1, 0, 0, 0, 2, 0, 0, 0])
        .array("tokenizer.ggml.tokens", 8, 2, &[string("a"), string("bc")].concat())
        .array("tokenizer.ggml.scores", 6, 2, &[0; 8])
        .tensor("output.weight", 12, &[256, 2])
        .parse()
        .unwrap();
    assert_eq!(metadata.version, 3);
    assert_eq!(metadata.architecture, "llama");
    assert_eq!(metadata.name.as_deref(), Some("Tiny"));
    assert_eq!((metadata.tokenizer.as_deref(), metadata.vocabulary_size), (Some("llama"), Some(2)));
    assert_eq!(metadata.quantization, "Q4_K_M");
    assert_eq!(metadata.context_length, Some(4096));
    assert_eq!((metadata.block_count, metadata.embedding_length), (Some(2), Some(64)));
    assert_eq!(metadata.head_count, Some(PerLayer::Same(2)));
    assert_eq!(metadata.head_count_kv, Some(PerLayer::Each(vec![1, 2])));
    assert!(metadata.has_chat_template);
    assert!(!metadata.has_classifier);
    assert_eq!(metadata.tensor_count, 2);
    assert_eq!(metadata.parameters, 32 + 512);
    assert_eq!(metadata.tensor_bytes, 128 + 288);
}

#[test]
fn the_special_tokens_are_those_of_the_file_or_those_of_its_tokenizer() {
    let of = |sample: GgufSample| sample.parse().unwrap().special_tokens;
    let with = |tokenizer: &str| GgufSample::of("bert").text("tokenizer.ggml.model", tokenizer);
    assert_eq!(of(with("bert")), [0, 100, 101, 102]);
    assert_eq!(of(with("llama")), [0, 1, 2]);
    assert_eq!(of(with("t5")), [0, 1, 2]);
    assert!(of(with("gpt2")).is_empty());
    // XLM-RoBERTa, as the converter of llama.cpp writes it.
    let ids = [("bos", 0), ("eos", 2), ("unknown", 3), ("seperator", 2), ("padding", 1), ("cls", 0), ("mask", 250_001)];
    let named =
        |sample: GgufSample, (name, id): (&str, u32)| sample.uint(&format!("tokenizer.ggml.{name}_token_id"), id);
    assert_eq!(of(ids.into_iter().fold(with("t5"), named)), [0, 1, 2, 3]);
    assert_eq!(of(named(with("bert"), ("cls", 7))), [0, 7, 100, 102], "the others stay");
}

#[test]
fn the_architecture_may_come_after_the_keys_that_need_it() {
    let metadata = GgufSample::default()
        .uint("qwen3.context_length", 40_960)
        .text("general.architecture", "qwen3")
        .parse()
        .unwrap();
    assert_eq!(metadata.context_length, Some(40_960));
}

#[test]
fn without_a_file_type_the_quantisation_is_that_of_most_weights() {
    let metadata = GgufSample::of("llama").tensor("a", 8, &[64, 64]).tensor("b", 4711, &[9999, 9999]).parse().unwrap();
    assert_eq!(metadata.quantization, "Q8_0");
    assert_eq!(GgufSample::default().parse().unwrap().quantization, "unknown");
    assert_eq!(GgufSample::of("llama").uint("general.file_type", 777).parse().unwrap().quantization, "type 777");
}

#[test]
fn a_file_of_another_format_is_named_in_the_error() {
    let refused = |bytes: &[u8]| parse(bytes, None).map_err(|error| (error.to_string(), error.hint())).unwrap_err();
    let (reason, hint) = refused(b"<!DOCTYPE html>");
    assert!(reason.contains("3c 21 44 4f (\"<!DO\")"), "{reason}");
    assert!(hint.contains("web page"));
    assert!(refused(b"version https://git-lfs.github.com/spec/v1").1.contains("git lfs pull"));
    assert!(refused(b"").0.contains("empty"));
    assert!(refused(b"GG").0.contains("47 47 (\"GG\")"));
    assert!(refused(&GgufSample::chat().version(1).bytes()).0.contains("version 1"));
    assert!(refused(&GgufSample::chat().version(4).bytes()).0.contains("version 4"));
    assert!(refused(&GgufSample::chat().version(3_u32.swap_bytes()).bytes()).0.contains("big-endian"));
    assert!(GgufSample::chat().version(2).parse().is_ok());
}

#[test]
fn a_file_cut_anywhere_is_truncated() {
    let bytes = GgufSample::chat().bytes();
    for length in 4..bytes.len() {
        let cut = parse(&bytes[..length], Some(length as u64));
        assert!(
            matches!(cut, Err(GgufError::TruncatedHeader { .. } | GgufError::Truncated { .. })),
            "cut to {length} of {}: {cut:?}",
            bytes.len()
        );
    }
    let needed = bytes.len() as u64;
    match parse(&bytes[..bytes.len() - 1], Some(needed - 1)) {
        Err(GgufError::Truncated { needed: n, actual }) => {
            assert_eq!((n, actual), (needed, needed - 1))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_header_that_promises_too_much_is_refused() {
    let refused = |sample: GgufSample| sample.parse().unwrap_err().to_string();
    assert!(
        refused(GgufSample::default().raw("general.name", 8, &u64::MAX.to_le_bytes())).contains("length of a value")
    );
    assert!(refused(GgufSample::default().raw("other", 8, &u64::MAX.to_le_bytes())).contains("size of the header"));
    assert!(refused(GgufSample::default().array("other", 4, u64::MAX, &[])).contains("size of the header"));
    assert!(refused(GgufSample::default().uint(&"k".repeat(2000), 1)).contains("length of a key"));
    assert!(refused(GgufSample::default().tensor("t", 0, &[1; 9])).contains("dimensions"));
    assert!(refused(GgufSample::default().raw("other", 99, &[])).contains("type 99"));
    assert!(refused(GgufSample::default().uint("general.alignment", 24)).contains("alignment"));
    let mut many = b"GGUF\x03\0\0\0".to_vec();
    many.extend([0xff; 16]);
    assert!(matches!(parse(many.as_slice(), None), Err(GgufError::TooLarge { .. })));

    let mut nested = Vec::new();
    for _ in 0..1000 {
        nested.extend(9_u32.to_le_bytes());
        nested.extend(1_u64.to_le_bytes());
    }
    assert!(refused(GgufSample::default().raw("deep", 9, &nested)).contains("nesting"));
}

#[test]
fn a_folder_or_a_missing_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read(dir.path()), Err(GgufError::Folder)));
    assert!(matches!(read(&dir.path().join("none.gguf")), Err(GgufError::Io(_))));
    assert!(read(&GgufSample::chat().write(dir.path(), "tiny.gguf")).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = parse(bytes.as_slice(), Some(bytes.len() as u64));
    }

    #[test]
    fn any_header_is_read_without_panic(body in prop::collection::vec(any::<u8>(), 0..512), tensors in 0_u64..9, keys in 0_u64..9) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes.extend(body);
        let _ = parse(bytes.as_slice(), None);
    }

    #[test]
    fn a_mutated_file_is_read_without_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = GgufSample::chat()
            .array("llama.attention.head_count", 5, 3, &[1; 12])
            .array("tokenizer.ggml.tokens", 8, 2, &[string("a"), string("bc")].concat())
            .tensor("output.weight", 12, &[256, 2])
            .bytes();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = parse(bytes.as_slice(), Some(bytes.len() as u64));
    }
}
