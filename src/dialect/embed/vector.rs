//! Cuts dense vectors to the size that the client asked for, and normalises them.

use super::super::fields::FieldError;
use super::canonical::EmbedRequest;

/// Makes the dense vectors of a worker what the request asks for: cut to its dimensions, and of length 1 unless it wants
/// them as they are. Where it names no dimensions, vectors that have more numbers than `default` are cut to that.
///
/// # Errors
/// The request wants more numbers than the model has.
pub fn shape(request: &EmbedRequest, default: Option<usize>, vectors: &mut [Vec<f32>]) -> Result<(), FieldError> {
    if let Some(dimensions) = request.dimensions {
        let widths = vectors.iter().map(Vec::len).min();
        if let Some(width) = widths.filter(|width| *width < dimensions) {
            let what = format_args!("is {dimensions}, but the vectors of this model have {width} numbers");
            return Err(FieldError::of(request.format.dimensions_field, what));
        }
    }
    if let Some(dimensions) = request.dimensions.or(default) {
        for vector in vectors.iter_mut() {
            vector.truncate(dimensions);
        }
    }
    if request.is_normalized {
        vectors.iter_mut().for_each(|vector| normalize(vector));
    }
    Ok(())
}

/// Scales a vector to length 1. A vector without a direction, all zeros, stays as it is.
pub fn normalize(vector: &mut [f32]) {
    // As 64 bits, in which the squares of no finite numbers overflow or vanish together.
    let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt();
    if length == 0.0 || !length.is_finite() {
        return;
    }
    // A vector of length 1 keeps its bits: what a worker has normalised is passed on as it is.
    if (length - 1.0).abs() < f64::from(f32::EPSILON) {
        return;
    }
    for number in vector {
        #[expect(clippy::cast_possible_truncation, reason = "the quotient is within -1..=1")]
        let scaled = (f64::from(*number) / length) as f32;
        *number = scaled;
    }
}

/// Returns the cosine of the angle between two vectors of any length; 0 if one of them has no direction.
pub(super) fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |one: &[f32], other: &[f32]| -> f64 {
        one.iter().zip(other).map(|(one, other)| f64::from(*one) * f64::from(*other)).sum()
    };
    let lengths = dot(one, one).sqrt() * dot(other, other).sqrt();
    if lengths == 0.0 { 0.0 } else { (dot(one, other) / lengths).clamp(-1.0, 1.0) }
}
