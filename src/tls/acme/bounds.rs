//! Bounds of ACME.

use std::time::Duration;

/// Longest time until a connection to the CA can be used.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest time of one request to the CA.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an idle connection to the CA is kept for the next request of an order.
pub(super) const CA_IDLE: Duration = Duration::from_secs(10);

/// Most bytes of an answer of the CA.
pub(super) const ANSWER_SIZE: usize = 1024 * 1024;

/// First wait of an order for the next state, which grows by half each time.
pub(super) const FIRST_POLL: Duration = Duration::from_millis(250);

/// Longest wait that a CA may ask for between two questions about the state of an order.
pub(super) const LONGEST_POLL: Duration = Duration::from_secs(5);

/// Longest time for which an order is asked whether it is in its next state.
pub(super) const POLL_TIMEOUT: Duration = Duration::from_secs(180);

/// Longest time of a whole order.
pub(super) const ORDER_TIMEOUT: Duration = Duration::from_secs(600);

/// Longest wait that a CA may ask for.
pub(super) const LONGEST_CA_WAIT: Duration = Duration::from_secs(48 * 3600);

/// Time between two looks whether the certificate is due: timers do not run while a machine sleeps.
pub(super) const DUE_LOOK_INTERVAL: Duration = Duration::from_secs(3600);

/// Time between two tries to order while another process does.
pub(super) const ORDERED_ELSEWHERE_WAIT: Duration = Duration::from_secs(5);

/// Shortest and longest time between two questions when the CA would have the certificate renewed.
pub(super) const ADVICE_WAITS: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));

/// Longest text of a CA that is logged, in characters.
pub(super) const CA_TEXT: usize = 400;
