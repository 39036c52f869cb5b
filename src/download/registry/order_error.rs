//! Why a download is not begun, followed or cancelled.

use std::io;

use super::bounds::{MOST_FOLLOWERS, MOST_UNFINISHED};
use crate::download::error::DownloadError;

/// Why an order about downloads is not carried out.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// The text is not the name of a model on the network.
    #[error("{0}")]
    Name(DownloadError),
    /// `HF_HUB_OFFLINE` forbids to ask for what is not there.
    #[error("{0}")]
    Offline(DownloadError),
    /// Too many downloads have not ended.
    #[error("{MOST_UNFINISHED} downloads have not ended, and no more are begun")]
    Full,
    /// There are too many listeners.
    #[error("{MOST_FOLLOWERS} clients follow downloads, and no more can")]
    TooManyFollowers,
    /// No download has this id.
    #[error("there is no download {0:?}")]
    Unknown(String),
    /// The start of the service waits for the download.
    #[error("the start of the service waits for this download")]
    Needed,
    /// The value of `Last-Event-ID` is none of the ids that were sent.
    #[error("Last-Event-ID is not the id of an event of this download")]
    NoSuchEvent,
    /// The service stops.
    #[error("the service stops")]
    Stopping,
    /// There is no client for the hub.
    #[error("no client for the hub: {0}")]
    Client(io::Error),
}
