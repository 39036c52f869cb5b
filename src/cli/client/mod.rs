//! The HTTP API of a service as the subcommands ask it.
//!
//! Owns where the service is and with which key it is asked, how errors are told, and the exit status for each. What is
//! asked, and what is shown of the answer, belongs to each subcommand.
//!
//! - `address.rs`: where the service is, and the key
//! - `args.rs`: the flags that all these subcommands have
//! - `call.rs`: requests and their answers
//! - `certificate.rs`: which certificate the service must have, and which one it is shown
//! - `error.rs`: why there is no answer, for people and as JSON
//! - `event_stream.rs`: answers that are server-sent events
//! - `style.rs`: colour, on a terminal only

mod address;
mod args;
mod call;
mod certificate;
mod error;
mod event_stream;
mod style;

pub(super) use address::ServiceAddress;
pub(super) use args::{ClientArgs, RemoteArgs};
pub(super) use call::{ServiceClient, run};
pub(super) use certificate::ShownCertificate;
pub(super) use error::{CallError, ServiceError};
pub(super) use event_stream::EventStream;
#[cfg(feature = "test-support")]
pub(crate) use event_stream::decode_events;
pub(super) use style::{Paint, Style};
