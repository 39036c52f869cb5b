//! How the gateways of a lane are started: their keys, and settings under which every fault comes to its end soon.

use crate::{
    checks::invariants::{LINE, SLOTS},
    clients::{GUEST, LARGEST_BODY},
    support::{
        gateway::{ADMIN, Backend, Builder, Gateway, USER},
        model_file::Kind,
    },
};
use serde_json::json;
use std::time::Duration;

/// LOAD_TIMEOUT of the gateways in front of the fake.
pub(crate) const LOAD_TIMEOUT: Duration = Duration::from_secs(1);
/// The settings of these names, of all gateways here.
pub(crate) const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
pub(crate) const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Idle time after which llama-server is put to sleep, where that is on.
pub(crate) const IDLE_UNLOAD: Duration = Duration::from_millis(150);

/// HANG_TIMEOUT, where it is on. One batch of the real llama-server takes a while on a busy machine.
const FAKE_HANGS: &str = "1s";
const REAL_HANGS: &str = "2s";

/// The size of the disk for logs.
const DISK_KIB: u32 = 1024;

/// What stands behind a gateway, and what it does of its own accord.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) is_real: bool,
    pub(crate) has_disk: bool,
    /// Whether one that hangs is restarted, or only its requests come to their end.
    pub(crate) finds_hangs: bool,
    /// Whether llama-server is put to sleep as soon as nobody asks for anything.
    pub(crate) sleeps: bool,
}

impl Setup {
    /// One of three, in turns.
    pub(crate) fn nth(n: u64, is_real: bool, has_disk: bool) -> Self {
        Setup { is_real, has_disk, finds_hangs: !n.is_multiple_of(3), sleeps: n % 3 == 1 }
    }

    /// A gateway that is ready, and has seen the operator's key at this address: guessers there lock out those it has
    /// not.
    pub(crate) fn start(self) -> Gateway {
        let gateway = self.builder().start_ready();
        assert_eq!(gateway.client_with(ADMIN).send("POST", "/reload", b"").status(), 200);
        gateway
    }

    fn builder(self) -> Builder {
        let (backend, load_timeout, hangs) = match self.is_real {
            true => (Backend::Real { model: "tiny-chat.gguf" }, Duration::from_secs(10), REAL_HANGS),
            false => (Backend::Fake { script: json!({}), kind: Kind::Chat }, LOAD_TIMEOUT, FAKE_HANGS),
        };
        let builder = Gateway::builder().backend(backend).keys(&keys_text(true, 0)).set_all(&[
            ("RESTART_LIMIT", "1000000"),
            ("RESTART_WINDOW", "1s"),
            ("CLIENT_HEADER_TIMEOUT", "2s"),
            ("CLIENT_BODY_TIMEOUT", "1s"),
            ("DRAIN_TIMEOUT", "1s"),
            ("HANG_TIMEOUT", if self.finds_hangs { hangs } else { "0" }),
            ("LOG_KEEP", "3"),
            // Each step of the worker is read there.
            ("LOG_LEVEL", "debug"),
            ("LOG_FORMAT", "json"),
        ]);
        let builder = [
            ("LOAD_TIMEOUT", load_timeout),
            ("QUEUE_TIMEOUT", QUEUE_TIMEOUT),
            ("REQUEST_TIMEOUT", REQUEST_TIMEOUT),
            ("STREAM_IDLE_TIMEOUT", STREAM_IDLE_TIMEOUT),
            ("IDLE_UNLOAD", if self.sleeps { IDLE_UNLOAD } else { Duration::ZERO }),
        ]
        .into_iter()
        .fold(builder, |builder, (name, time)| builder.set(name, format!("{}ms", time.as_millis())));
        let builder = builder.set("MAX_REQUEST_BODY_SIZE", LARGEST_BODY).set("MAX_CONCURRENT_REQUESTS", SLOTS);
        let builder = builder.set("MAX_QUEUE_SIZE", LINE);
        if self.has_disk { builder.log_disk(DISK_KIB) } else { builder }
    }
}

/// A good key file.
pub(crate) fn keys_text(guest: bool, comment: u64) -> String {
    let guest = if guest { format!("guest:{GUEST}:100000\n") } else { String::new() };
    format!("# version {comment}\nadmin:{ADMIN}:1000000 scope=inference,admin,metrics\nuser:{USER}:1000000\n{guest}")
}
