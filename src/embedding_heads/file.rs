//! Reads a head from a safetensors file: a weight and a bias, as floats of 32 or 16 bits.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::bounds::HEAD_FILE_BYTES;
use super::head::Head;
use super::layer::LinearLayer;

/// Why a file is no head of the model. Each message follows "the file ...".
#[derive(Debug, thiserror::Error)]
pub enum HeadProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is a folder, a pipe or the like.
    #[error("is no regular file")]
    NotAFile,
    /// It is larger than any head.
    #[error("has {0} bytes, and a head has {HEAD_FILE_BYTES} at most")]
    TooLarge(u64),
    /// It is in another format, or damaged.
    #[error("is no safetensors file: {0}")]
    Format(String),
    /// It has no such tensor.
    #[error("has no tensor {wanted:?}: it has {has}")]
    Missing {
        /// The name.
        wanted: String,
        /// The names of its tensors, separated by commas.
        has: String,
    },
    /// A tensor has another shape than the head of this model.
    #[error("has the tensor {name:?} with the shape {shape:?}, and {wanted} is needed")]
    Shape {
        /// The name of the tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// The shape that the head has, in words.
        wanted: String,
    },
    /// A tensor has numbers that are no floats of 32 or 16 bits.
    #[error("has the tensor {name:?} with numbers of type {dtype}, and F32, F16 or BF16 is needed")]
    Type {
        /// The name of the tensor.
        name: String,
        /// The type of its numbers.
        dtype: String,
    },
    /// A weight is infinite or no number.
    #[error("has a weight in the tensor {0:?} that is not finite")]
    NotFinite(String),
}

/// Reads the head of a model whose vectors have `width` numbers. The tensors are `weight` and `bias`, as PyTorch names those
/// of a linear layer, or `sparse_linear.weight` and so on where a file has both heads.
///
/// # Errors
/// The file cannot be read, or is no such head.
pub(super) fn read_layer(path: &Path, head: Head, width: usize) -> Result<LinearLayer, HeadProblem> {
    let bytes = read_bounded(path)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|error| HeadProblem::Format(error.to_string()))?;
    let (weight_name, weight_shape, weight) = floats(&tensors, head, "weight")?;
    let (bias_name, bias_shape, bias) = floats(&tensors, head, "bias")?;
    let is_fitting = match weight_shape[..] {
        [outputs, inputs] => inputs == width && outputs > 0 && (head == Head::Colbert || outputs == 1),
        _ => false,
    };
    if !is_fitting {
        let wanted = match head {
            Head::Sparse => format!("[1, {width}]"),
            Head::Colbert => format!("[N, {width}]"),
        };
        return Err(HeadProblem::Shape { name: weight_name, shape: weight_shape, wanted });
    }
    if bias_shape != weight_shape[..1] {
        let wanted = format!("[{}]", weight_shape[0]);
        return Err(HeadProblem::Shape { name: bias_name, shape: bias_shape, wanted });
    }
    Ok(LinearLayer::new(width, weight, bias))
}

/// Reads a file that is not larger than any head.
fn read_bounded(path: &Path) -> Result<Vec<u8>, HeadProblem> {
    // Checked before opening: opening a named pipe would block until it has a writer.
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(HeadProblem::NotAFile);
    }
    if metadata.len() > HEAD_FILE_BYTES {
        return Err(HeadProblem::TooLarge(metadata.len()));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    File::open(path)?.take(HEAD_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the name, the shape and the numbers of a tensor.
fn floats(tensors: &SafeTensors<'_>, head: Head, ending: &str) -> Result<(String, Vec<usize>, Vec<f32>), HeadProblem> {
    let names = [format!("{head}_linear.{ending}"), ending.to_owned()];
    let found = names.into_iter().find_map(|name| tensors.tensor(&name).ok().map(|tensor| (name, tensor)));
    let Some((name, tensor)) = found else {
        let mut has = tensors.names();
        has.sort_unstable();
        let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
        return Err(HeadProblem::Missing { wanted: ending.to_owned(), has });
    };
    let data = tensor.data();
    let numbers: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => data.as_chunks::<2>().0.iter().map(|bytes| of_half(u16::from_le_bytes(*bytes))).collect(),
        Dtype::BF16 => data.as_chunks::<2>().0.iter().map(|bytes| of_bfloat(u16::from_le_bytes(*bytes))).collect(),
        other => return Err(HeadProblem::Type { name, dtype: format!("{other:?}") }),
    };
    if numbers.iter().any(|number| !number.is_finite()) {
        return Err(HeadProblem::NotFinite(name));
    }
    Ok((name, tensor.shape().to_vec(), numbers))
}

/// Returns the number with these bits of a bfloat16: those of a float without the lower half of its fraction.
fn of_bfloat(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Returns the number with these bits of a float of 16 bits (IEEE 754 binary16): a sign, 5 bits of exponent, 10 of fraction.
fn of_half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (bits >> 15, (bits >> 10) & 0x1f, bits & 0x3ff);
    let magnitude = match exponent {
        // Numbers too small for an exponent count in steps of 2^-24.
        0 => f32::from(fraction) * 2.0_f32.powi(-24),
        0x1f if fraction == 0 => f32::INFINITY,
        0x1f => f32::NAN,
        exponent => f32::from(0x400 | fraction) * 2.0_f32.powi(i32::from(exponent) - 25),
    };
    if sign == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
