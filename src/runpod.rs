//! Jobs from the queue of a RunPod endpoint, beside the requests that come over HTTP.
//!
//! The platform holds the queue: this side asks for jobs while it can serve some, does each as a request of our own
//! ([`Gateway::serve_job`](crate::gateway::Gateway::serve_job)), posts what comes of it, and says now and then that it
//! lives. All that is known of a job is in memory, in the [`Hand`](hand::Hand).

mod address;
mod coalesce;
mod job;
mod members;
mod output;
