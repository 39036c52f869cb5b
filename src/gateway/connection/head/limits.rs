//! How large a request's head may be, in either version of HTTP, and the refusals of one that is larger.

use crate::gateway::bounds::{HEAD_SIZE, MOST_HEADERS};
use crate::refusal::Refusal;
use crate::settings::options::Limits;

/// Limits of a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    pub(super) request_line: usize,
    pub(super) header_line: usize,
    pub(super) headers: usize,
}

impl HeadLimits {
    /// What they are unless set otherwise.
    #[cfg(any(test, feature = "test-support"))]
    pub(crate) const USUAL: Self = Self { request_line: 8192, header_line: 8192, headers: 64 };

    /// The limits that the settings give.
    pub fn new(limits: &Limits) -> Self {
        Self {
            request_line: limits.max_request_line_size.0,
            header_line: limits.max_header_line_size.0,
            headers: limits.max_headers.get().min(MOST_HEADERS),
        }
    }

    /// Most bytes of a whole head.
    pub(crate) fn size(&self) -> usize {
        HEAD_SIZE.max(self.request_line.saturating_add(self.header_line))
    }

    /// Most header lines.
    pub(crate) fn headers(&self) -> usize {
        self.headers
    }

    /// The refusal of a request line that is too long.
    pub(crate) fn check_request_line(&self, length: usize) -> Result<(), Refusal> {
        if length > self.request_line { Err(Refusal::UriTooLong(self.request_line)) } else { Ok(()) }
    }

    /// The refusal of a header line that is too long.
    pub(crate) fn check_header_line(&self, length: usize) -> Result<(), Refusal> {
        if length > self.header_line { Err(self.long_line_refusal()) } else { Ok(()) }
    }

    /// The refusal of too many header lines.
    pub(crate) fn check_headers(&self, count: usize) -> Result<(), Refusal> {
        if count <= self.headers {
            return Ok(());
        }
        Err(Refusal::HeaderFieldsTooLarge(format!("more than {} header lines", self.headers)))
    }

    /// The refusal of a head that is too large as a whole.
    pub(crate) fn check_size(&self, size: usize) -> Result<(), Refusal> {
        if size > self.size() { Err(self.large_head_refusal()) } else { Ok(()) }
    }

    pub(super) fn long_line_refusal(&self) -> Refusal {
        Refusal::HeaderFieldsTooLarge(format!("a header line is longer than {} bytes", self.header_line))
    }

    pub(super) fn large_head_refusal(&self) -> Refusal {
        Refusal::HeaderFieldsTooLarge(format!("it is larger than {} bytes", self.size()))
    }
}
