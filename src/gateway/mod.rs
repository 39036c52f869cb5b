//! A request's way through the gateway. Start with [`pipeline`], which shows every stage in order.
//!
//! Owns what happens between a client's socket and llama-server's. Asks the fleet for a worker, and does not know how
//! workers are started, watched or stopped.
//!
//! - `pipeline.rs`: every stage of a request, in order
//! - `stages/`: stages of the pipeline that need more than a few lines
//! - `prepared_request.rs`: what the first stages make of a request
//! - `service.rs`: the parts of the gateway, its drain and end, and its health port
//! - `response_context.rs`: what completes the response to a request, whichever stage produces it
//! - `routes/`: the table of routes, and finding a request's route in it
//! - `route_path.rs`: the spellings of a path
//! - `connection/`: sockets, and the heads and bodies of requests as bytes
//! - `admission/`: who sends a request, and how much they may ask for
//! - `accounting/`: the access log, metrics and token counts of each request
//! - `queue/`: the wait for a slot and a worker, one queue for each model
//! - `request/`: a request's body, what it asks for, and its form for each worker
//! - `scan/`: finds JSON members and event lines in bytes that arrive in pieces
//! - `response/`: a worker's response on its way back to the client
//! - `translation/`: requests in dialects that the workers do not speak
//! - `exchange/`: requests and responses on connections to workers, and which connections are kept
//! - `upstream/`: sends a request to a worker, and decides about retries
//! - `model_files/`: the routes that change which models are on the disk
//! - `hub_api/`: the search on the hub, and whether a model fits
//! - `models_api/`: the routes about models themselves
//! - `usage_api/`: the routes about usage and about what administrators have done
//! - `live_api/`: the live feed, the queue and the logs
//! - `keys_api/`: the routes about API keys
//! - `openapi/`: the description of the API in OpenAPI
//! - `page/`: the page for browsers
//! - `cache/`: answers that are kept for equal requests, and answers that equal requests in flight share
//! - `malformed_request.rs`: the response to a malformed request head
//! - `client_address.rs`: which client a request comes from, behind proxies
//! - `credentials.rs`: the API keys in a request's headers, and what else in its head repeats them
//! - `mostly_one.rs`: a list that nearly always has one item
//! - `headers.rs`: which headers are passed on, and request ids
//! - `content_kind.rs`: the kind of body that a response has
//! - `spare_memory.rs`: memory that one request has used and the next one uses again
//! - `bounds.rs`: timeouts, queue lengths and buffer sizes that no user needs to choose
//! - `testing.rs`: fixtures for tests of responses

mod accounting;
pub(crate) mod admission;
pub mod bounds;
mod cache;
mod client_address;
pub(crate) mod connection;
mod content_kind;
mod credentials;
pub(crate) mod exchange;
mod headers;
mod hub_api;
mod keys_api;
mod live_api;
mod malformed_request;
mod model_files;
mod models_api;
mod mostly_one;
mod openapi;
mod page;
pub mod pipeline;
mod prepared_request;
mod queue;
pub(crate) mod request;
pub(crate) mod response;
mod response_context;
mod route_path;
mod routes;
pub(crate) mod scan;
mod service;
mod spare_memory;
mod stages;
#[cfg(test)]
mod testing;
mod translation;
mod upstream;
mod usage_api;

#[cfg(feature = "test-support")]
pub(crate) use openapi::openapi_document;

/// Returns how many orders of administrators this body may be, for fuzzing.
#[cfg(feature = "test-support")]
pub(crate) fn orders_in(body: &[u8]) -> usize {
    keys_api::orders_in(body, jiff::Timestamp::UNIX_EPOCH) + model_files::orders_in(body)
}

pub use accounting::recent_acts::RecentActs;
pub use accounting::record::Accounting;
pub use admission::auth::Authenticator;
pub use admission::budget::accounts::KeyAccounts;
pub use connection::handshake::SecurePort;
pub use connection::head::HeadLimits;
pub use connection::listen;
pub use connection::wire::WireLimits;
pub use hub_api::{ServedFileLookup, ServedModelFile};
pub use model_files::{NotRemoved, RemovalOrder};
pub use queue::ModelQueue;
pub use queue::model_queues::ModelQueues;
pub use queue::rescan::Rescan;
pub use queue::{Queue, QueueTimeouts};
pub use response::body::ResponseBody;
pub use routes::lookup::reserved_paths;
pub use routes::parameters_reference::parameters_reference;
pub use routes::reference::routes_reference;
pub use routes::route::LocalRoute;
pub use service::{AppServices, Gateway, LocalResponder};
