//! Models that come over the network: from the hub or from an address, into the hub's cache or the models folder.
//!
//! Owns the hub's API, ranges and tries, the part that a file grows in, and the hash.
//! What a name means, and what is on the disk already, is found in `models/`.
//!
//! - `answers.rs`: reads what hosts answer
//! - `body_writer.rs`: writes the body of an answer into the part, within rates
//! - `bounds.rs`: bounds of downloads that no setting chooses
//! - `chosen_files.rs`: which files of a repository a name means
//! - `configured.rs`: the downloader that settings describe
//! - `disk/`: where files lie, parts of files, locks
//! - `downloader.rs`: brings a model: which files, in which order
//! - `error.rs`: why a download did not come to its end
//! - `hub.rs`: the hub's API, redirects and the token
//! - `naming.rs`: when files get their names
//! - `progress.rs`: how far a download is
//! - `registry/`: the downloads of a running service
//! - `remote_header.rs`: reads the header of a model on the network
//! - `retry.rs`: tries of small requests
//! - `search/`: models that the hub has, and the quantisations of a repository
//! - `transfer.rs`: fetches one file in ranges
//! - `unfinished.rs`: downloads that are not complete

pub(crate) mod answers;
mod body_writer;
mod bounds;
mod chosen_files;
mod configured;
mod disk;
mod downloader;
mod error;
mod hub;
mod naming;
mod progress;
mod registry;
mod remote_header;
mod retry;
mod search;
mod transfer;
mod unfinished;

pub use disk::pieces::Pieces;
pub use downloader::{DownloadedModel, Downloader};
pub use error::DownloadError;
pub use hub::{Hub, Token};
pub use progress::{DownloadPhase, Progress};
pub use registry::{
    AfterDownload, Download, DownloadEvent, DownloadFailure, DownloadRegistry, DownloadReport, DownloadState,
    DownloadStatus, FollowStep, Follower, OrderError, Ordered,
};
pub use remote_header::RemoteHeader;
pub use search::{FoundModel, FoundRepository, HubQuery, RepositoryDetails, SearchResult};
pub use transfer::DownloadLimits;
pub use unfinished::{UnfinishedDownload, unfinished_of_addresses, unfinished_of_hub};
