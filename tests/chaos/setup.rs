//! The settings and keys of the gateways. Timeouts are short, so that the effect of each fault ends soon.

use std::time::Duration;

use serde_json::json;

use crate::{
    checks::invariants::{QUEUE_SIZE, SLOTS, read_usage},
    clients::{GUEST_KEY, MAX_BODY},
    support::{
        gateway::{ADMIN, Backend, Builder, Gateway, USER},
        model_file::Kind,
    },
};

/// LOAD_TIMEOUT with the fake.
pub(crate) const LOAD_TIMEOUT: Duration = Duration::from_secs(1);
/// The settings of these names, for all gateways here.
pub(crate) const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
pub(crate) const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// IDLE_UNLOAD, where it is on.
pub(crate) const IDLE_UNLOAD: Duration = Duration::from_millis(150);

/// HANG_TIMEOUT, where it is on. The real llama-server needs more time for a batch on a busy machine.
const FAKE_HANG_TIMEOUT: &str = "1s";
const REAL_HANG_TIMEOUT: &str = "2s";

/// The size of the file system for logs.
const DISK_KIB: u32 = 1024;

/// The variant of a lane: its llama-server, and which settings are on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) is_real: bool,
    pub(crate) has_disk: bool,
    /// Whether a hanging llama-server is restarted (HANG_TIMEOUT); else only its requests time out.
    pub(crate) restarts_hung: bool,
    /// Whether an idle llama-server is unloaded (IDLE_UNLOAD).
    pub(crate) unloads_idle: bool,
    /// Whether answers are kept and shared (CACHE).
    pub(crate) caches: bool,
}

/// Sets each of these variables to a time.
pub(crate) fn set_times(builder: Builder, times: &[(&str, Duration)]) -> Builder {
    times.iter().fold(builder, |builder, (name, time)| builder.set(name, format!("{}ms", time.as_millis())))
}

impl Setup {
    /// Returns variant `n`: three combinations take turns, the cache is on in every second one.
    pub(crate) fn nth(n: u64, is_real: bool, has_disk: bool) -> Self {
        let (restarts_hung, unloads_idle, caches) = (!n.is_multiple_of(3), n % 3 == 1, n.is_multiple_of(2));
        Setup { is_real, has_disk, restarts_hung, unloads_idle, caches }
    }

    /// Starts a gateway, waits until it is ready and uses the operator's key once. Wrong keys from an address block
    /// keys that were not used from there before. SQLite keeps the descriptor of the first reader of the ledger for the next.
    pub(crate) fn start(self) -> Gateway {
        let gateway = self.builder().start_ready();
        assert_eq!(gateway.client_with(ADMIN).send("POST", "/reload", b"").status(), 200);
        read_usage(&gateway);
        gateway
    }

    fn builder(self) -> Builder {
        let (backend, load_timeout, hangs) = match self.is_real {
            true => (Backend::Real { model: "tiny-chat.gguf" }, Duration::from_secs(10), REAL_HANG_TIMEOUT),
            false => (Backend::Fake { script: json!({}), kind: Kind::Chat }, LOAD_TIMEOUT, FAKE_HANG_TIMEOUT),
        };
        let builder = Gateway::builder().backend(backend).keys(&keys_text(true, 0)).set_all(&[
            ("RESTART_LIMIT", "1000000"),
            ("RESTART_WINDOW", "1s"),
            ("CLIENT_HEADER_TIMEOUT", "2s"),
            ("CLIENT_IDLE_TIMEOUT", "2s"),
            ("CLIENT_BODY_TIMEOUT", "1s"),
            ("DRAIN_TIMEOUT", "1s"),
            ("HANG_TIMEOUT", if self.restarts_hung { hangs } else { "0" }),
            ("LOG_KEEP", "3"),
            ("CACHE", if self.caches { "all" } else { "off" }),
            // `checks/worker_states.rs` reads the state transitions from the log.
            ("LOG_LEVEL", "debug"),
            ("LOG_FORMAT", "json"),
        ]);
        let builder = set_times(
            builder,
            &[
                ("LOAD_TIMEOUT", load_timeout),
                ("QUEUE_TIMEOUT", QUEUE_TIMEOUT),
                ("REQUEST_TIMEOUT", REQUEST_TIMEOUT),
                ("STREAM_IDLE_TIMEOUT", STREAM_IDLE_TIMEOUT),
                ("IDLE_UNLOAD", if self.unloads_idle { IDLE_UNLOAD } else { Duration::ZERO }),
            ],
        );
        let builder = builder.set("MAX_REQUEST_BODY_SIZE", MAX_BODY).set("MAX_CONCURRENT_REQUESTS", SLOTS);
        let builder = builder.set("MAX_QUEUE_SIZE", QUEUE_SIZE);
        if self.has_disk { builder.log_disk(DISK_KIB) } else { builder }
    }
}

/// Returns a valid key file.
pub(crate) fn keys_text(guest: bool, comment: u64) -> String {
    let guest = if guest { format!("guest:{GUEST_KEY}:100000\n") } else { String::new() };
    format!("# version {comment}\nadmin:{ADMIN}:1000000 scope=inference,admin,metrics\nuser:{USER}:1000000\n{guest}")
}
