//! The table of errors: one row per refusal, and the message of each.
//!
//! A new refusal needs a row here, a message, and whether it is transient; the compiler asks for all three. `mod.rs`
//! turns a row into a response.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

/// Maximum number of models that an error lists.
pub const MODELS_NAMED: usize = 50;

/// Maximum length of a client's own text in an error, in characters.
pub const REPEATED_TEXT: usize = 128;

/// `Retry-After` of a refusal that clients should repeat and that has no better measure. `Retry-After` is in whole
/// seconds, and a client that is told 0 retries immediately.
pub(super) const RETRY_AFTER_LEAST: Duration = Duration::from_secs(1);

/// The code of [`Refusal::QueueFull`].
pub const QUEUE_FULL: &str = "queue_full";

/// The code of [`Refusal::BackendError`].
pub(super) const BACKEND_ERROR: &str = "backend_error";

// The error types of OpenAI's API.
const INVALID: &str = "invalid_request_error";
const PERMISSION: &str = "permission_error";
const RATE_LIMIT: &str = "rate_limit_error";
const SERVER: &str = "server_error";
const TIMEOUT: &str = "timeout_error";

/// Returns the error type of OpenAI's API for a backend's status.
pub(super) fn kind_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::FORBIDDEN => PERMISSION,
        StatusCode::TOO_MANY_REQUESTS => RATE_LIMIT,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => TIMEOUT,
        status if status.is_client_error() => INVALID,
        _ => SERVER,
    }
}

/// One row of the table of errors.
pub(super) struct RefusalRow {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) code: &'static str,
    /// Whether the connection is closed after the response, because the rest of the request was not read.
    pub(super) closes: bool,
    /// Whether the same request may succeed later, so that clients should repeat it.
    pub(super) should_retry: bool,
}

/// Defines the enum, its rows and the list of all refusals.
///
/// A row is `VARIANT => STATUS, TYPE, CODE, CONNECTION, REPETITION[, WAIT in PATTERN];`. CONNECTION is `close` if the
/// connection is closed after the response, else `keep`. REPETITION is `again` if clients should repeat the request, and
/// `final` if that would fail too, cost as much again, or be too soon for any client that repeats by itself. WAIT is the
/// field of the variant that is sent as `Retry-After`.
macro_rules! refusals {
    (@closes close) => { true };
    (@closes keep) => { false };
    (@repeats again) => { true };
    (@repeats final) => { false };
    ($(
        $(#[$doc:meta])*
        $variant:ident
        $( ( $($part:ty),+ ) )?
        $( { $( $(#[$field_doc:meta])* $field:ident: $field_type:ty, )+ } )?
        => $status:ident, $kind:expr, $code:expr, $connection:ident, $repetition:ident $(, $wait:ident in $pattern:tt)?;
    )+) => {
        /// The reasons why the gateway does not forward a request or cannot finish a response.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Refusal {
            $(
                $(#[$doc])*
                $variant $( ( $($part),+ ) )? $( { $( $(#[$field_doc])* $field: $field_type, )+ } )?,
            )+
        }

        /// The status and the code of every refusal, in the order of the table. Two refusals may share a code.
        pub const CODES: &[(u16, &str)] = &[ $( (StatusCode::$status.as_u16(), $code) ),+ ];

        impl Refusal {
            pub(super) fn row(&self) -> RefusalRow {
                match self {
                    $( Self::$variant { .. } => RefusalRow {
                        status: StatusCode::$status,
                        kind: $kind,
                        code: $code,
                        closes: refusals!(@closes $connection),
                        should_retry: refusals!(@repeats $repetition),
                    }, )+
                }
            }

            /// Returns how long the client should wait before it retries, if it should.
            pub(super) fn retry_after(&self) -> Option<Duration> {
                match self {
                    $( $( Self::$variant $pattern => Some(*$wait), )? )+
                    _ if self.row().should_retry => Some(RETRY_AFTER_LEAST),
                    _ => None,
                }
            }

            /// Returns one refusal of each kind.
            #[cfg(test)]
            pub(super) fn all() -> Vec<Self> {
                use super::testing::SampleValue;
                vec![ $(
                    Self::$variant
                        $( ( $( <$part>::sample() ),+ ) )?
                        $( { $( $field: <$field_type>::sample(), )+ } )?,
                )+ ]
            }
        }
    };
}

refusals! {
    /// The request cannot be understood, with the reason.
    BadRequest(String) => BAD_REQUEST, INVALID, "bad_request", close, final;
    /// A client speaks HTTP without TLS to a port that has TLS.
    TlsRequired => BAD_REQUEST, INVALID, "tls_required", close, final;
    /// A member of the request has a value that is not allowed, or that is not served here.
    InvalidParameter {
        /// The name of the member.
        field: String,
        /// A sentence that names it.
        message: String,
    } => BAD_REQUEST, INVALID, "invalid_parameter", keep, final;
    /// The backend says that the request is at fault, in these words.
    RequestFault(String) => BAD_REQUEST, INVALID, "bad_request", keep, final;
    /// The backend does not serve the route; contains what it says about that.
    RouteNotAtBackend(Option<String>) => NOT_FOUND, INVALID, "route_not_found", keep, final;
    /// No API key was sent.
    MissingKey => UNAUTHORIZED, INVALID, "missing_api_key", keep, final;
    /// The API key is unknown.
    InvalidKey => UNAUTHORIZED, INVALID, "invalid_api_key", keep, final;
    /// The API key has expired.
    ExpiredKey => UNAUTHORIZED, INVALID, "api_key_expired", keep, final;
    /// The key lacks this scope.
    ScopeRequired(&'static str) => FORBIDDEN, PERMISSION, "scope_required", keep, final;
    /// The gateway has no keys, and a web page of another origin may have sent the request.
    OriginNotAllowed {
        /// The origin of the page, if the browser tells it.
        origin: Option<String>,
        /// Whether no page may send this request, because it is an order.
        is_order: bool,
    } => FORBIDDEN, PERMISSION, "origin_not_allowed", keep, final;
    /// The gateway has no keys, and the request names this host, which a web page may have chosen.
    HostNotAllowed(String) => FORBIDDEN, PERMISSION, "origin_not_allowed", keep, final;
    /// The gateway has no keys, and an order was not sent from its own machine, with the reason.
    LoopbackRequired(&'static str) => FORBIDDEN, PERMISSION, "loopback_required", keep, final;
    /// The key may not use this model.
    ModelNotAllowed(String) => FORBIDDEN, PERMISSION, "model_not_allowed", keep, final;
    /// No model has this name.
    ModelNotFound {
        /// The requested name, if there is one.
        name: Option<String>,
        /// The ids of the models that the key may use.
        known: Vec<String>,
        /// Whether the route takes the name from the query.
        in_query: bool,
    } => NOT_FOUND, INVALID, "model_not_found", keep, final;
    /// The model with this id was removed from the configuration, and `DRAIN_TIMEOUT` for its requests has passed.
    ModelRemoved(String) => NOT_FOUND, INVALID, "model_not_found", keep, final;
    /// A reload has given the model with this id new workers, and `DRAIN_TIMEOUT` for its requests at the old ones has
    /// passed. A repetition is served after this time.
    ModelReplaced(String, Duration) => SERVICE_UNAVAILABLE, SERVER, "backend_unavailable", keep, again, wait in (_, wait);
    /// The model is not of the kind that the route needs.
    WrongKind {
        /// The id of the model.
        model: String,
        /// The kind of requests that the model serves.
        is: &'static str,
        /// The kind of model that the route needs.
        needs: &'static str,
    } => BAD_REQUEST, INVALID, "wrong_model_kind", keep, final;
    /// There is no such route, or it does not allow the method.
    RouteNotFound => NOT_FOUND, INVALID, "route_not_found", keep, final;
    /// The API that the client speaks has this route, and this program does not serve it, for this reason.
    NotServed(&'static str) => NOT_IMPLEMENTED, INVALID, "not_served", keep, final;
    /// The client wants to go on with a WebSocket, which this API does not have.
    UpgradeRequired => UPGRADE_REQUIRED, INVALID, "upgrade_required", keep, final;
    /// The body is packed in a way that is not unpacked.
    UnsupportedContentEncoding {
        /// The coding that the request names.
        coding: String,
        /// The codings that are unpacked.
        accepted: &'static str,
    } => UNSUPPORTED_MEDIA_TYPE, INVALID, "unsupported_content_encoding", keep, final;
    /// The client was too slow to send its request, with the setting that limits the time.
    RequestTimeout(&'static str) => REQUEST_TIMEOUT, TIMEOUT, "request_timeout", close, again;
    /// The body is larger than this limit in bytes.
    PayloadTooLarge(usize) => PAYLOAD_TOO_LARGE, INVALID, "payload_too_large", close, final;
    /// The request line is longer than this limit in bytes.
    UriTooLong(usize) => URI_TOO_LONG, INVALID, "uri_too_long", close, final;
    /// The head exceeds a limit on its lines, the length of a line, or its size; says which.
    HeaderFieldsTooLarge(String) => REQUEST_HEADER_FIELDS_TOO_LARGE, INVALID, "header_fields_too_large", close, final;
    /// A rate limit of the key or of the client's address is reached: which limit, and the time until the next request
    /// is allowed.
    RateLimited(&'static str, Duration) => TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded", keep, again, wait in (_, wait);
    /// A budget of the key, or of the person behind it, has too little left.
    BudgetExceeded {
        /// The attribute of the key that sets it.
        budget: &'static str,
        /// What is left of it, in words.
        left: String,
        /// When it begins again.
        resets: String,
        /// The time until then.
        wait: Duration,
    } => TOO_MANY_REQUESTS, RATE_LIMIT, "budget_exceeded", keep, final, wait in { wait, .. };
    /// The API key is suspended for this time: workers crashed while only its requests were in flight.
    KeySuspended(Duration) => TOO_MANY_REQUESTS, RATE_LIMIT, "key_suspended", keep, final, wait in (wait);
    /// No key with this id is suspended.
    KeyNotSuspended(String) => NOT_FOUND, INVALID, "key_not_suspended", keep, final;
    /// With `AUTH_ENABLED=false` there are no keys.
    KeysOff => NOT_FOUND, INVALID, "keys_off", keep, final;
    /// The key file cannot be read, locked or written now, with the reason.
    KeysUnavailable(String) => SERVICE_UNAVAILABLE, SERVER, "keys_unavailable", keep, again;
    /// A key with this name exists.
    KeyExists(String) => CONFLICT, INVALID, "key_exists", keep, final;
    /// No key has this name.
    KeyNotFound(String) => NOT_FOUND, INVALID, "key_not_found", keep, final;
    /// The key is that of `LLAMAGATE_API_KEY`.
    KeyNotInFile => CONFLICT, INVALID, "key_not_in_file", keep, final;
    /// The change would take the scope `admin` from the key that asks for it.
    OwnKey => CONFLICT, INVALID, "own_key", keep, final;
    /// The key file would hold no key.
    LastKey => CONFLICT, INVALID, "last_key", keep, final;
    /// `HF_HUB_OFFLINE` forbids the download, in these words.
    DownloadsOff(String) => FORBIDDEN, PERMISSION, "downloads_off", keep, final;
    /// There are too many downloads, or too many clients that follow them; says which.
    DownloadsFull(String, Duration) => SERVICE_UNAVAILABLE, SERVER, "downloads_full", keep, again, wait in (_, wait);
    /// No download has this id.
    DownloadNotFound(String) => NOT_FOUND, INVALID, "download_not_found", keep, final;
    /// The start of the service waits for the download.
    DownloadNeeded => CONFLICT, INVALID, "download_needed", keep, final;
    /// The download has failed, for this reason.
    DownloadFailed(String) => BAD_GATEWAY, SERVER, "download_failed", keep, final;
    /// The hub has no such repository, or does not show it.
    RepositoryNotFound(String) => NOT_FOUND, INVALID, "repository_not_found", keep, final;
    /// The owner of the repository gives it only to some users of the hub.
    RepositoryGated(String) => FORBIDDEN, PERMISSION, "repository_gated", keep, final;
    /// The hub says something that cannot be used, with the reason.
    HubUnusable(String) => BAD_GATEWAY, SERVER, "hub_error", keep, final;
    /// The hub does not answer, with the reason.
    HubUnanswered(String) => SERVICE_UNAVAILABLE, SERVER, "hub_unavailable", keep, again;
    /// Too many questions to the hub have no answer yet.
    TooManyLookups(Duration) => SERVICE_UNAVAILABLE, SERVER, "too_many_lookups", keep, again, wait in (wait);
    /// The model cannot be removed now, because of what uses it.
    ModelInUse(String) => CONFLICT, INVALID, "model_in_use", keep, final;
    /// The model may not be removed by this program, with the reason.
    ModelNotRemovable(String) => FORBIDDEN, PERMISSION, "model_not_removable", keep, final;
    /// `USAGE_DB` is off.
    UsageOff => NOT_FOUND, INVALID, "usage_off", keep, final;
    /// The usage file cannot be read now, with the reason.
    UsageUnavailable(&'static str) => SERVICE_UNAVAILABLE, SERVER, "usage_unavailable", keep, again;
    /// Too many clients listen; says to what.
    TooManyListeners(&'static str, Duration) => SERVICE_UNAVAILABLE, SERVER, "too_many_listeners", keep, again, wait in (_, wait);
    /// No log has this name.
    LogNotFound(String) => NOT_FOUND, INVALID, "log_not_found", keep, final;
    /// A log cannot be read now, with the reason.
    LogUnavailable(&'static str) => SERVICE_UNAVAILABLE, SERVER, "log_unavailable", keep, again;
    /// The queue is full; a place should be free after this time.
    QueueFull(Duration) => SERVICE_UNAVAILABLE, SERVER, QUEUE_FULL, keep, again, wait in (wait);
    /// The request has waited for `QUEUE_TIMEOUT`.
    QueueTimeout(Duration) => SERVICE_UNAVAILABLE, SERVER, "queue_timeout", keep, again, wait in (wait);
    /// The model is loading.
    ModelLoading(Duration) => SERVICE_UNAVAILABLE, SERVER, "model_loading", keep, again, wait in (wait);
    /// The model with this id is not loaded, and the request is of a kind that loads none.
    ModelNotLoaded(String) => SERVICE_UNAVAILABLE, SERVER, "backend_unavailable", keep, final;
    /// No backend can serve the request now.
    BackendUnavailable(Duration) => SERVICE_UNAVAILABLE, SERVER, "backend_unavailable", keep, again, wait in (wait);
    /// All backends of the model have failed permanently.
    BackendFailed => SERVICE_UNAVAILABLE, SERVER, "backend_unavailable", keep, final;
    /// The service is shutting down.
    ShuttingDown(Duration) => SERVICE_UNAVAILABLE, SERVER, "shutting_down", close, again, wait in (wait);
    /// The backend of a translated request says in these words that it has no such model or route.
    NotAtBackend(String) => NOT_FOUND, INVALID, "model_not_found", keep, final;
    /// The backend of a translated request says in these words that the request is too long.
    TooLongForBackend(String) => PAYLOAD_TOO_LARGE, INVALID, "payload_too_large", keep, final;
    /// The backend of a translated request says in these words that it cannot process the request.
    UnprocessableAtBackend(String) => UNPROCESSABLE_ENTITY, INVALID, "unprocessable_request", keep, final;
    /// The backend of a translated request failed, and says why in these words.
    FailedBackend(String) => BAD_GATEWAY, SERVER, BACKEND_ERROR, keep, again;
    /// The backend broke the connection.
    BackendError => BAD_GATEWAY, SERVER, BACKEND_ERROR, keep, again;
    /// The answer of the backend cannot be translated, with the reason.
    BadBackendAnswer(String) => BAD_GATEWAY, SERVER, BACKEND_ERROR, keep, final;
    /// The backend rejects the key that the gateway is configured with for it.
    BackendRefusesKey => BAD_GATEWAY, SERVER, BACKEND_ERROR, keep, final;
    /// The backend died each time it served this request.
    RequestKillsBackend => BAD_GATEWAY, SERVER, "request_kills_backend", keep, final;
    /// The backend did not answer in time.
    BackendTimeout => GATEWAY_TIMEOUT, TIMEOUT, "backend_timeout", keep, final;
    /// An error in the gateway itself, with the reason for the operator's own routes.
    Internal(String) => INTERNAL_SERVER_ERROR, SERVER, "internal_error", keep, final;
}

impl Refusal {
    /// Returns whether another model may serve a request that was refused with this error: its own model has no worker
    /// for it now, or was removed.
    ///
    /// The `match` is exhaustive, so that a new refusal cannot be forgotten here.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::BackendUnavailable(_)
            | Self::BackendFailed
            | Self::QueueFull(_)
            | Self::ModelRemoved(_)
            | Self::ModelReplaced(..) => true,
            Self::BadRequest(_)
            | Self::TlsRequired
            | Self::InvalidParameter { .. }
            | Self::RequestFault(_)
            | Self::NotAtBackend(_)
            | Self::TooLongForBackend(_)
            | Self::UnprocessableAtBackend(_)
            | Self::FailedBackend(_)
            | Self::RouteNotAtBackend(_)
            | Self::MissingKey
            | Self::InvalidKey
            | Self::ExpiredKey
            | Self::ScopeRequired(_)
            | Self::OriginNotAllowed { .. }
            | Self::HostNotAllowed(_)
            | Self::LoopbackRequired(_)
            | Self::ModelNotAllowed(_)
            | Self::ModelNotFound { .. }
            | Self::WrongKind { .. }
            | Self::RouteNotFound
            | Self::NotServed(_)
            | Self::UpgradeRequired
            | Self::UnsupportedContentEncoding { .. }
            | Self::RequestTimeout(_)
            | Self::PayloadTooLarge(_)
            | Self::UriTooLong(_)
            | Self::HeaderFieldsTooLarge(_)
            | Self::RateLimited(..)
            | Self::BudgetExceeded { .. }
            | Self::KeySuspended(_)
            | Self::KeyNotSuspended(_)
            | Self::KeysOff
            | Self::KeysUnavailable(_)
            | Self::KeyExists(_)
            | Self::KeyNotFound(_)
            | Self::KeyNotInFile
            | Self::OwnKey
            | Self::LastKey
            | Self::UsageOff
            | Self::UsageUnavailable(_)
            | Self::TooManyListeners(..)
            | Self::LogNotFound(_)
            | Self::LogUnavailable(_)
            | Self::DownloadsOff(_)
            | Self::DownloadsFull(..)
            | Self::DownloadNotFound(_)
            | Self::DownloadNeeded
            | Self::DownloadFailed(_)
            | Self::RepositoryNotFound(_)
            | Self::RepositoryGated(_)
            | Self::HubUnusable(_)
            | Self::HubUnanswered(_)
            | Self::TooManyLookups(_)
            | Self::ModelInUse(_)
            | Self::ModelNotRemovable(_)
            | Self::QueueTimeout(_)
            | Self::ModelLoading(_)
            | Self::ModelNotLoaded(_)
            | Self::ShuttingDown(_)
            | Self::BackendError
            | Self::BadBackendAnswer(_)
            | Self::BackendRefusesKey
            | Self::RequestKillsBackend
            | Self::BackendTimeout
            | Self::Internal(_) => false,
        }
    }
}

/// Returns the beginning of a client's text without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REPEATED_TEXT).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(why) => write!(f, "Bad request: {why}"),
            Self::TlsRequired => f.write_str("This port speaks HTTPS: the address must begin with https://"),
            Self::InvalidParameter { message, .. } => f.write_str(message),
            Self::RequestFault(words)
            | Self::NotAtBackend(words)
            | Self::TooLongForBackend(words)
            | Self::UnprocessableAtBackend(words) => f.write_str(words),
            Self::FailedBackend(words) => write!(f, "The backend failed: {words}"),
            Self::RouteNotAtBackend(words) => match words {
                None => f.write_str("The backend of this model does not serve this route"),
                Some(words) => write!(f, "The backend of this model does not serve this route: {words}"),
            },
            Self::MissingKey => f.write_str("No API key: send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"),
            Self::InvalidKey => f.write_str("Invalid API key"),
            Self::ExpiredKey => f.write_str("This API key has expired"),
            Self::ScopeRequired(scope) => write!(f, "This needs an API key with the scope '{scope}'"),
            Self::OriginNotAllowed { origin, is_order } => {
                match origin {
                    Some(origin) => write!(f, "Pages of the origin '{}' may not send this request", printable(origin))?,
                    None => f.write_str("Pages of other sites may not send this request")?,
                }
                f.write_str(match is_order {
                    true => ": without API keys no page may",
                    false => ": without API keys the origin must be in CORS_ORIGINS",
                })
            }
            Self::HostNotAllowed(host) => {
                let host = printable(host);
                write!(
                    f,
                    "The host '{host}' is refused: without API keys this request is only served under addresses and local \
                     names, because a web page can have any other name; list http://{host} in CORS_ORIGINS, name the proxy in \
                     TRUSTED_PROXIES, or set up API keys"
                )
            }
            Self::LoopbackRequired(why) => write!(
                f,
                "Without API keys this request is only for programs on the gateway's own machine, and {why}; set up API \
                 keys to send it from elsewhere"
            ),
            Self::ModelNotAllowed(model) => write!(f, "This API key may not use the model '{model}'"),
            Self::ModelNotFound { name, known, in_query } => {
                match name {
                    None if *in_query => f.write_str("The request names no model: name one with ?model=ID")?,
                    Some(name) => write!(f, "The model '{}' does not exist", printable(name))?,
                    None => f.write_str("The request names no model")?,
                }
                match known.len() {
                    0 => Ok(()),
                    count if count > MODELS_NAMED => {
                        let more = count - MODELS_NAMED;
                        write!(f, "; known are: {} and {more} more", known[..MODELS_NAMED].join(", "))
                    }
                    _ => write!(f, "; known are: {}", known.join(", ")),
                }
            }
            Self::ModelRemoved(model) => write!(f, "The model '{model}' is no longer served"),
            Self::ModelReplaced(model, _) => {
                write!(f, "The model '{model}' was restarted with a new configuration: send the request again")
            }
            Self::WrongKind { model, is, needs } => {
                write!(f, "The model '{model}' is for {is}, and this route is for {needs}")
            }
            Self::RouteNotFound => f.write_str("No such route, or not with this method"),
            Self::NotServed(why) => write!(f, "This is not served here: {why}"),
            Self::UpgradeRequired => f.write_str("This API has no WebSocket: send the request as POST over HTTP"),
            Self::UnsupportedContentEncoding { coding, accepted } => {
                write!(f, "The body is packed with '{}'; accepted are: {accepted}", printable(coding))
            }
            Self::RequestTimeout(setting) => write!(f, "The request took too long to arrive ({setting})"),
            Self::PayloadTooLarge(limit) => {
                write!(f, "The request body is larger than {limit} bytes (MAX_REQUEST_BODY_SIZE)")
            }
            Self::UriTooLong(limit) => {
                write!(f, "The request line is longer than {limit} bytes (MAX_REQUEST_LINE_SIZE)")
            }
            Self::HeaderFieldsTooLarge(what) => write!(f, "The request head is too large: {what}"),
            Self::RateLimited(what, _) => write!(f, "Rate limit reached for {what}, try again later"),
            Self::BudgetExceeded { budget, left, resets, .. } => {
                write!(f, "The budget {budget} does not allow this request: {left}; it begins again at {resets}")
            }
            Self::KeySuspended(_) => f.write_str(
                "This API key is suspended: the backend died several times while only its requests were in flight",
            ),
            Self::KeyNotSuspended(id) => write!(f, "No API key '{}' is suspended", printable(id)),
            Self::KeysOff => f.write_str("There are no API keys here (AUTH_ENABLED is false)"),
            Self::KeysUnavailable(why) => write!(f, "The API keys cannot be changed now: {why}"),
            Self::KeyExists(name) => write!(
                f,
                "A key named '{0}' exists already: POST /keys/{0}/rotate gives it a new secret",
                printable(name)
            ),
            Self::KeyNotFound(name) => write!(f, "There is no key named '{}': GET /keys shows the names", printable(name)),
            Self::KeyNotInFile => f.write_str(
                "This key is that of LLAMAGATE_API_KEY: change the variable and start the service again",
            ),
            Self::OwnKey => f.write_str(
                "This would take the scope 'admin' from the key that asks for it: use another key, or add ?force=true",
            ),
            Self::LastKey => f.write_str("This is the last key of the file: make another one first"),
            Self::UsageOff => f.write_str("Usage is not recorded (USAGE_DB is off)"),
            Self::UsageUnavailable(why) => write!(f, "Usage cannot be read now: {why}"),
            Self::TooManyListeners(what, _) => write!(f, "{what}; try again later"),
            Self::LogNotFound(name) => write!(f, "There is no log '{}'; GET /logs names those that there are", printable(name)),
            Self::LogUnavailable(why) => write!(f, "The log cannot be read now: {why}"),
            Self::DownloadsOff(why)
            | Self::DownloadFailed(why)
            | Self::RepositoryNotFound(why)
            | Self::RepositoryGated(why)
            | Self::HubUnusable(why)
            | Self::HubUnanswered(why) => f.write_str(why),
            Self::TooManyLookups(_) => f.write_str("Too many questions to the hub have no answer yet, try again later"),
            Self::ModelInUse(why) => write!(f, "The model is in use: {why}"),
            Self::ModelNotRemovable(why) => write!(f, "The model may not be removed: {why}"),
            Self::DownloadsFull(what, _) => write!(f, "{what}; try again later"),
            Self::DownloadNotFound(id) => write!(f, "There is no download '{}'", printable(id)),
            Self::DownloadNeeded => f.write_str(
                "The start of the service waits for this download: to do without it, change the configuration and start again",
            ),
            Self::QueueFull(_) => f.write_str("Too many requests are waiting, try again later"),
            Self::QueueTimeout(_) => f.write_str("The request has waited too long for its turn, try again later"),
            Self::ModelLoading(_) => f.write_str("The model is being loaded, try again later"),
            Self::ModelNotLoaded(model) => write!(
                f,
                "The model '{model}' is not loaded, and a GET does not load it: a request that needs it does, or POST \
                 /v1/models/{model}/load"
            ),
            Self::BackendUnavailable(_) => f.write_str("No backend can take the request now, try again later"),
            Self::BackendFailed => f.write_str(
                "The model has failed and is not tried again before POST /v1/models/{id}/load asks for it, or a restart",
            ),
            Self::ShuttingDown(_) => f.write_str("The service is shutting down"),
            Self::BackendError => f.write_str("The backend ended the connection before its answer was complete"),
            Self::BadBackendAnswer(why) => write!(f, "The backend's answer cannot be used: {why}"),
            Self::BackendRefusesKey => f.write_str("The backend does not accept the gateway's key"),
            Self::RequestKillsBackend => f.write_str(
                "The backend died each time it served this request, so it is not tried again for some minutes",
            ),
            Self::BackendTimeout => f.write_str("The backend took too long to answer"),
            Self::Internal(what) => f.write_str(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients act on these pairs, so they are written down apart from the table. A new refusal needs no line here.
    #[test]
    fn published_codes_keep_their_status() {
        for published in [
            (400, "bad_request"),
            (400, "wrong_model_kind"),
            (400, "invalid_parameter"),
            (401, "invalid_api_key"),
            (401, "missing_api_key"),
            (401, "api_key_expired"),
            (403, "scope_required"),
            (403, "model_not_allowed"),
            (403, "origin_not_allowed"),
            (403, "loopback_required"),
            (403, "downloads_off"),
            (404, "download_not_found"),
            (409, "download_needed"),
            (403, "model_not_removable"),
            (409, "model_in_use"),
            (503, "downloads_full"),
            (403, "repository_gated"),
            (404, "repository_not_found"),
            (502, "hub_error"),
            (503, "hub_unavailable"),
            (503, "too_many_lookups"),
            (404, "keys_off"),
            (404, "key_not_found"),
            (409, "key_exists"),
            (409, "own_key"),
            (409, "last_key"),
            (503, "keys_unavailable"),
            (404, "model_not_found"),
            (404, "route_not_found"),
            (408, "request_timeout"),
            (413, "payload_too_large"),
            (414, "uri_too_long"),
            (415, "unsupported_content_encoding"),
            (426, "upgrade_required"),
            (429, "rate_limit_exceeded"),
            (429, "key_suspended"),
            (431, "header_fields_too_large"),
            (500, "internal_error"),
            (501, "not_served"),
            (502, "backend_error"),
            (502, "request_kills_backend"),
            (503, "queue_full"),
            (503, "queue_timeout"),
            (503, "model_loading"),
            (503, "backend_unavailable"),
            (503, "shutting_down"),
            (504, "backend_timeout"),
        ] {
            assert!(CODES.contains(&published), "{published:?}");
        }
    }
}
