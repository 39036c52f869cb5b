//! Heads in files: every type of numbers, every name, and files that are none.

use std::path::PathBuf;

use serde_json::{Map, json};

use super::*;

/// A tensor: its name, its type, its shape, its bytes.
type Tensor<'a> = (&'a str, &'a str, &'a [usize], Vec<u8>);

/// Returns the bytes of a safetensors file with these tensors.
fn bytes_of(tensors: &[Tensor<'_>]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

fn file(dir: &tempfile::TempDir, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join("head.safetensors");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn single(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn read(head: Head, width: usize, bytes: &[u8]) -> Result<LinearLayer, String> {
    let dir = tempfile::tempdir().unwrap();
    read_layer(&file(&dir, bytes), head, width).map_err(|problem| problem.to_string())
}

#[test]
fn a_head_is_read_in_every_type_of_numbers_and_under_both_names() {
    let expected = LinearLayer::new(2, vec![1.5, -2.0], vec![0.25]);
    let half = |numbers: &[u16]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let singles = bytes_of(&[("weight", "F32", &[1, 2], single(&[1.5, -2.0])), ("bias", "F32", &[1], single(&[0.25]))]);
    let halves =
        bytes_of(&[("bias", "F16", &[1], half(&[0x3400])), ("weight", "F16", &[1, 2], half(&[0x3e00, 0xc000]))]);
    let brains = bytes_of(&[
        ("sparse_linear.weight", "BF16", &[1, 2], half(&[0x3fc0, 0xc000])),
        ("sparse_linear.bias", "F32", &[1], single(&[0.25])),
        ("colbert_linear.weight", "BF16", &[1, 2], half(&[0, 0])),
    ]);
    for bytes in [singles, halves, brains] {
        assert_eq!(read(Head::Sparse, 2, &bytes), Ok(expected.clone()));
    }
    let narrow =
        bytes_of(&[("weight", "F32", &[3, 2], single(&[0.0; 6])), ("bias", "F32", &[3], single(&[1.0, 2.0, 3.0]))]);
    assert_eq!(read(Head::Colbert, 2, &narrow).unwrap().apply(&[&[5.0, 5.0]]), [[1.0, 2.0, 3.0]]);
}

#[test]
fn a_file_that_is_no_such_head_is_refused_with_what_is_wrong() {
    let weight = |shape: &'static [usize], count: usize| ("weight", "F32", shape, single(&vec![0.5; count]));
    let bias = |count: usize, shape: &'static [usize]| ("bias", "F32", shape, single(&vec![0.5; count]));
    let whole = bytes_of(&[weight(&[1, 2], 2), bias(1, &[1])]);
    for (head, bytes, expected) in [
        (Head::Sparse, Vec::new(), "is no safetensors file: "),
        (Head::Sparse, b"<html>no such file</html>".to_vec(), "is no safetensors file: "),
        (Head::Sparse, whole[..whole.len() - 1].to_vec(), "is no safetensors file: "),
        (Head::Sparse, bytes_of(&[]), "has no tensor \"weight\": it has none"),
        (Head::Sparse, bytes_of(&[weight(&[1, 2], 2)]), "has no tensor \"bias\": it has weight"),
        (
            Head::Sparse,
            bytes_of(&[weight(&[1, 3], 3), bias(1, &[1])]),
            "has the tensor \"weight\" with the shape [1, 3], and [1, 2] is needed",
        ),
        (Head::Sparse, bytes_of(&[weight(&[2, 2], 4), bias(2, &[2])]), "[2, 2], and [1, 2] is needed"),
        (Head::Sparse, bytes_of(&[weight(&[2], 2), bias(1, &[1])]), "[2], and [1, 2] is needed"),
        (Head::Colbert, bytes_of(&[weight(&[2, 3], 6), bias(2, &[2])]), "[2, 3], and [N, 2] is needed"),
        (Head::Colbert, bytes_of(&[weight(&[0, 2], 0), bias(0, &[0])]), "[0, 2], and [N, 2] is needed"),
        (
            Head::Colbert,
            bytes_of(&[weight(&[2, 2], 4), bias(1, &[1])]),
            "has the tensor \"bias\" with the shape [1], and [2] is needed",
        ),
        (Head::Sparse, bytes_of(&[("weight", "I8", &[1, 2], vec![1, 2]), bias(1, &[1])]), "numbers of type I8"),
        (
            Head::Sparse,
            bytes_of(&[("weight", "F32", &[1, 2], single(&[1.0, f32::NAN])), bias(1, &[1])]),
            "has a weight in the tensor \"weight\" that is not finite",
        ),
    ] {
        let said = read(head, 2, &bytes).unwrap_err();
        assert!(said.contains(expected), "{said}, not {expected}");
    }
}

#[test]
fn what_is_no_file_or_too_large_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let said = |path: &Path| read_layer(path, Head::Sparse, 2).unwrap_err().to_string();
    assert_eq!(said(dir.path()), "is no regular file");
    assert!(said(&dir.path().join("none")).starts_with("cannot be read: No such file"));
    let large = dir.path().join("large");
    File::create(&large).unwrap().set_len(HEAD_FILE_BYTES + 1).unwrap();
    assert_eq!(said(&large), "has 83886081 bytes, and a head has 83886080 at most");
}

#[test]
fn halves_have_the_values_of_ieee_754() {
    for (bits, expected) in [
        (0x0000, 0.0),
        (0x8000, -0.0),
        (0x3c00, 1.0),
        (0xbc00, -1.0),
        (0x3555, 0.333_251_95),
        (0x7bff, 65504.0),
        (0x0400, 6.103_515_6e-5),
        (0x0001, 5.960_464_5e-8),
        (0x03ff, 6.097_555e-5),
        (0x7c00, f32::INFINITY),
    ] {
        assert_eq!(of_half(bits).to_bits(), f32::to_bits(expected), "{bits:#x}");
    }
    assert!(of_half(0x7c01).is_nan());
    assert_eq!(of_bfloat(0x3f80).to_bits(), 1.0_f32.to_bits());
}
