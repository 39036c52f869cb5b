//! The downloads of a running service: those that clients order and those that its start waits for.
//!
//! Owns which there are, how many run at once and how long ended ones are remembered. How the bytes come is in
//! `downloader.rs` of the folder above.
//!
//! - `all.rs`: finds, cancels and forgets downloads
//! - `bounds.rs`: how many there may be, and how often they are told of
//! - `follower.rs`: one listener of a download
//! - `one.rs`: one download: its state, its rate, its revisions
//! - `order.rs`: begins downloads
//! - `order_error.rs`: why a download is not begun, followed or cancelled
//! - `run.rs`: runs a download to its end
//! - `status.rs`: a download as clients see it
//! - `tests.rs`: orders, states and listeners, with a hub that does not answer

mod all;
mod bounds;
mod follower;
mod one;
mod order;
mod order_error;
mod run;
mod status;
#[cfg(test)]
mod tests;

pub use all::{AfterDownload, DownloadRegistry};
pub use follower::{DownloadEvent, FollowStep, Follower};
pub use one::Download;
pub use order::Ordered;
pub use order_error::OrderError;
pub use status::{DownloadFailure, DownloadReport, DownloadState, DownloadStatus};
