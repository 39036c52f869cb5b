//! A download as clients see it.

use jiff::Timestamp;
use serde::Serialize;

use crate::download::error::DownloadError;
use crate::download::progress::DownloadPhase;

/// What a download does now, or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DownloadState {
    /// It waits until fewer others run.
    Queued,
    /// Bytes come, or the hub is asked for them.
    Downloading,
    /// All bytes of a file are there, and their hash is computed.
    Verifying,
    /// Another download brings the same file, here or in another program.
    Waiting,
    /// The model is on the disk.
    Done,
    /// The model did not come.
    Failed,
    /// A client has cancelled it.
    Cancelled,
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DownloadReport {
    /// The name of the model, without secrets.
    pub model: String,
    /// Bytes that are on the disk.
    pub bytes: u64,
    /// Bytes of all its files; 0 until the hub has said it.
    pub total: u64,
    /// Bytes a second at present.
    pub bytes_per_second: u64,
    /// Seconds until all is there at this rate; none while nothing comes.
    pub seconds_left: Option<u64>,
}

/// A download at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DownloadStatus {
    /// Its id, which no other download of this run of the service has.
    pub id: String,
    /// How far it is.
    #[serde(flatten)]
    pub report: DownloadReport,
    /// What it does now.
    pub state: DownloadState,
    /// Why it failed.
    pub error: Option<DownloadFailure>,
    /// When it was ordered, in RFC 3339.
    pub created_at: String,
}

/// Why a download failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DownloadFailure {
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<&'static str>,
    /// When it failed.
    #[serde(skip)]
    pub at: Timestamp,
    /// Whether the same would happen again.
    #[serde(skip)]
    pub is_of_settings: bool,
}

impl DownloadState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Queued, Self::Downloading, Self::Verifying, Self::Waiting, Self::Done, Self::Failed, Self::Cancelled];

    /// Returns the name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Downloading => "downloading",
            Self::Verifying => "verifying",
            Self::Waiting => "waiting",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns whether nothing follows this state.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl From<DownloadPhase> for DownloadState {
    fn from(phase: DownloadPhase) -> Self {
        match phase {
            DownloadPhase::Asking | DownloadPhase::Fetching => Self::Downloading,
            DownloadPhase::WaitingForOther => Self::Waiting,
            DownloadPhase::Checking => Self::Verifying,
        }
    }
}

impl From<&DownloadError> for DownloadFailure {
    fn from(error: &DownloadError) -> Self {
        Self {
            message: error.to_string(),
            hint: error.hint(),
            at: Timestamp::now(),
            is_of_settings: error.is_of_settings(),
        }
    }
}
