//! The lengths of vectors: those that the configuration of a model allows, its default, and that all have the same.

use crate::dialect::FieldError;
use crate::dialect::embed::EmbedRequest;
use crate::fleet::ModelInfo;
use crate::refusal::Refusal;
use crate::settings::values::Dimensions;

/// Refuses a length of the vectors that the configuration of the model does not allow. Its own length is always allowed.
pub(in crate::gateway::translation) fn check_dimensions(
    request: &EmbedRequest,
    info: Option<&ModelInfo>,
) -> Result<(), FieldError> {
    let (Some(wanted), Some(info)) = (request.dimensions, info) else { return Ok(()) };
    let own = info.numbers.and_then(|numbers| numbers.n_embd).and_then(|own| usize::try_from(own).ok());
    let Some(allowed) = info.dimensions.as_ref().filter(|allowed| !allowed.is_allowed(wanted) && own != Some(wanted))
    else {
        return Ok(());
    };
    let allowed: Vec<String> = allowed.lengths().iter().map(ToString::to_string).collect();
    let what = format_args!("is {wanted}, and this model allows {}", allowed.join(", "));
    Err(FieldError::of(request.format.dimensions_field, what))
}

/// Returns the length of the vectors of a model for requests that name none, if it is configured.
pub(in crate::gateway::translation) fn default_length(info: &ModelInfo) -> Option<usize> {
    info.dimensions.as_ref().and_then(Dimensions::default_length)
}

/// Refuses vectors of several widths: parts of a request may have been answered by different workers.
pub(in crate::gateway::translation) fn check_widths(vectors: &[Vec<f32>]) -> Result<(), Refusal> {
    let first = vectors.first().map_or(0, Vec::len);
    match vectors.iter().find(|vector| vector.len() != first) {
        None => Ok(()),
        Some(other) => {
            let other = other.len();
            Err(Refusal::BadBackendAnswer(format!("some vectors have {first} numbers, others {other}")))
        }
    }
}
