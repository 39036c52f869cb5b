//! llama.cpp's numbers for file types (`general.file_type`) and tensor types.
//!
//! Source: `enum llama_ftype` (include/llama.h), `enum ggml_type` and its block sizes (ggml/include/ggml.h).
//! Forks and newer builds add numbers, so an unknown one is never an error: it only has no name or size here.

/// The bit that llama.cpp sets when it guessed the file type (`LLAMA_FTYPE_GUESSED`).
const FILE_TYPE_GUESSED: u32 = 1024;

/// Returns the quantisation's usual name for a `general.file_type`, such as `Q4_K_M`; `None` for an unknown number.
#[must_use]
pub fn file_type_name(number: u32) -> Option<&'static str> {
    Some(match number & !FILE_TYPE_GUESSED {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        4 => "Q4_1_SOME_F16",
        5 => "Q4_2",
        6 => "Q4_3",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        33 => "Q4_0_4_4",
        34 => "Q4_0_4_8",
        35 => "Q4_0_8_8",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4_MOE",
        39 => "NVFP4",
        40 => "Q1_0",
        _ => return None,
    })
}

/// One ggml tensor type: values are stored in blocks of `block` values that take `bytes` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorType {
    /// The type's name as llama.cpp prints it, in upper case.
    pub name: &'static str,
    /// Values in one block.
    pub block: u64,
    /// Bytes in one block.
    pub bytes: u64,
}

/// Returns the tensor type with this number; `None` for a removed or unknown one.
#[must_use]
pub fn tensor_type(number: u32) -> Option<TensorType> {
    let (name, block, bytes) = match number {
        0 => ("F32", 1, 4),
        1 => ("F16", 1, 2),
        2 => ("Q4_0", 32, 18),
        3 => ("Q4_1", 32, 20),
        6 => ("Q5_0", 32, 22),
        7 => ("Q5_1", 32, 24),
        8 => ("Q8_0", 32, 34),
        9 => ("Q8_1", 32, 36),
        10 => ("Q2_K", 256, 84),
        11 => ("Q3_K", 256, 110),
        12 => ("Q4_K", 256, 144),
        13 => ("Q5_K", 256, 176),
        14 => ("Q6_K", 256, 210),
        15 => ("Q8_K", 256, 292),
        16 => ("IQ2_XXS", 256, 66),
        17 => ("IQ2_XS", 256, 74),
        18 => ("IQ3_XXS", 256, 98),
        19 => ("IQ1_S", 256, 50),
        20 => ("IQ4_NL", 32, 18),
        21 => ("IQ3_S", 256, 110),
        22 => ("IQ2_S", 256, 82),
        23 => ("IQ4_XS", 256, 136),
        24 => ("I8", 1, 1),
        25 => ("I16", 1, 2),
        26 => ("I32", 1, 4),
        27 => ("I64", 1, 8),
        28 => ("F64", 1, 8),
        29 => ("IQ1_M", 256, 56),
        30 => ("BF16", 1, 2),
        34 => ("TQ1_0", 256, 54),
        35 => ("TQ2_0", 256, 66),
        39 => ("MXFP4", 32, 17),
        40 => ("NVFP4", 64, 36),
        41 => ("Q1_0", 128, 18),
        _ => return None,
    };
    Some(TensorType { name, block, bytes })
}

/// Returns the size in bytes of a tensor with these dimensions; `None` if the type is unknown, the first dimension is
/// not a multiple of the block, or the size overflows.
#[must_use]
pub fn tensor_bytes(number: u32, dims: &[u64]) -> Option<u64> {
    let kind = tensor_type(number)?;
    let (row, rest) = dims.split_first().map_or((1, dims), |(row, rest)| (*row, rest));
    // ggml stores a row as whole blocks.
    if row % kind.block != 0 {
        return None;
    }
    rest.iter().try_fold((row / kind.block).checked_mul(kind.bytes)?, |sum, dim| sum.checked_mul(*dim))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_file_types_have_names() {
        let known = [
            (0, "F32"),
            (1, "F16"),
            (2, "Q4_0"),
            (7, "Q8_0"),
            (15, "Q4_K_M"),
            (17, "Q5_K_M"),
            (18, "Q6_K"),
            (32, "BF16"),
        ];
        for (number, name) in known {
            assert_eq!(file_type_name(number), Some(name));
        }
        assert_eq!(file_type_name(1024 + 15), Some("Q4_K_M"), "the guessed bit does not hide the name");
        assert_eq!(file_type_name(999), None);
    }

    #[test]
    fn sizes_follow_the_block_layout() {
        assert_eq!(tensor_bytes(0, &[64, 10]), Some(2560));
        assert_eq!(tensor_bytes(12, &[256, 3]), Some(432));
        assert_eq!(tensor_bytes(0, &[]), Some(4), "no dimension is a single value");
        assert_eq!(tensor_bytes(12, &[100]), None, "a row is whole blocks");
        assert_eq!(tensor_bytes(4711, &[64]), None);
        assert_eq!(tensor_bytes(0, &[u64::MAX, u64::MAX]), None);
    }
}
