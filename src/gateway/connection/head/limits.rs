//! Size limits of a request head, for HTTP/1.1 and HTTP/2 alike, and the refusals of heads that exceed them.

use crate::gateway::bounds::{HEAD_SIZE, MOST_HEADERS};
use crate::refusal::Refusal;
use crate::settings::options::Limits;

/// Limits of a request head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Longest request line in bytes, without its CRLF.
    pub(super) request_line: usize,
    /// Longest header line in bytes, without its CRLF.
    pub(super) header_line: usize,
    /// Most header lines.
    pub(super) headers: usize,
}

impl HeadLimits {
    /// The default limits.
    #[cfg(any(test, feature = "test-support"))]
    pub(crate) const USUAL: Self = Self { request_line: 8192, header_line: 8192, headers: 64 };

    /// Takes the limits from `MAX_REQUEST_LINE_SIZE`, `MAX_HEADER_LINE_SIZE` and `MAX_HEADERS`.
    pub fn new(limits: &Limits) -> Self {
        Self {
            request_line: limits.max_request_line_size.0,
            header_line: limits.max_header_line_size.0,
            headers: limits.max_headers.get().min(MOST_HEADERS),
        }
    }

    /// Returns the most bytes of a whole head.
    pub(crate) fn size(&self) -> usize {
        HEAD_SIZE.max(self.request_line.saturating_add(self.header_line))
    }

    /// Returns the most header lines.
    pub(crate) fn headers(&self) -> usize {
        self.headers
    }

    /// Checks the length of a request line in bytes.
    ///
    /// # Errors
    /// Refuses a line that is too long with 414.
    pub(crate) fn check_request_line(&self, length: usize) -> Result<(), Refusal> {
        if length > self.request_line { Err(Refusal::UriTooLong(self.request_line)) } else { Ok(()) }
    }

    /// Checks the length of a header line in bytes.
    ///
    /// # Errors
    /// Refuses a line that is too long with 431.
    pub(crate) fn check_header_line(&self, length: usize) -> Result<(), Refusal> {
        if length > self.header_line { Err(self.long_line_refusal()) } else { Ok(()) }
    }

    /// Checks the number of header lines.
    ///
    /// # Errors
    /// Refuses too many lines with 431.
    pub(crate) fn check_headers(&self, count: usize) -> Result<(), Refusal> {
        if count <= self.headers {
            return Ok(());
        }
        Err(Refusal::HeaderFieldsTooLarge(format!("more than {} header lines (MAX_HEADERS)", self.headers)))
    }

    /// Checks the size of a whole head in bytes.
    ///
    /// # Errors
    /// Refuses a head that is too large with 431.
    pub(crate) fn check_size(&self, size: usize) -> Result<(), Refusal> {
        if size > self.size() { Err(self.large_head_refusal()) } else { Ok(()) }
    }

    pub(super) fn long_line_refusal(&self) -> Refusal {
        let limit = self.header_line;
        Refusal::HeaderFieldsTooLarge(format!("a header line is longer than {limit} bytes (MAX_HEADER_LINE_SIZE)"))
    }

    pub(super) fn large_head_refusal(&self) -> Refusal {
        let (size, least) = (self.size(), HEAD_SIZE);
        Refusal::HeaderFieldsTooLarge(format!(
            "it is larger than {size} bytes ({least}, or MAX_REQUEST_LINE_SIZE and MAX_HEADER_LINE_SIZE together)"
        ))
    }
}
