//! What a route is: who may use it, what answers it, and which API dialect it speaks.
//!
//! `table.rs` has the table of all routes, and `lookup.rs` finds a request's route in it.

use http::Method;

use crate::keys::Scope;
use crate::models::ModelKind;
use crate::refusal::Shape;

/// A route that the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalRoute {
    /// `GET /ping` on the gateway port: whether the process is alive.
    Ping,
    /// `GET /ping` on the health port: whether a request would be served.
    Probe,
    /// `GET /health`
    Health,
    /// `GET /metrics`
    Metrics,
    /// `GET /livez`
    Livez,
    /// `GET /readyz`
    Readyz,
    /// `POST /reload`
    Reload,
    /// `GET /lb/stats`
    LbStats,
    /// `POST /keys/{id}/resume`
    ResumeKey,
    /// `GET /`: what answers here.
    Root,
    /// `GET /api/hello`: whether anything answers here.
    Hello,
}

/// Who may use a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum RouteAccess {
    /// Every client.
    Open,
    /// Clients with a key of this scope.
    Key(Scope),
    /// Clients with any key. What they get depends on it.
    AnyKey,
    /// Every client, or with `METRICS_AUTH_ENABLED` clients with a key for metrics.
    Metrics,
}

/// What answers a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum RouteTarget {
    /// The gateway, through its `LocalResponder`.
    Gateway(LocalRoute),
    /// The models API.
    Models(ModelsRoute),
    /// The routes that change which models are on the disk.
    Files(FilesRoute),
    /// What was used, and what administrators have done.
    Usage(UsageRoute),
    /// The routes with which people look at the service while it works.
    Live(LiveRoute),
    /// What there is on the hub, and what of it fits.
    Hub(HubRoute),
    /// The routes about API keys.
    Keys(KeysRoute),
    /// A page for browsers.
    Page(PageRoute),
    /// A worker of a model of this kind, or of any.
    Worker(Option<ModelKind>),
}

/// A route with which people look at the service. The gateway answers all of them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum LiveRoute {
    /// `GET /events`
    Events,
    /// `GET /v1/queue`
    Queue,
    /// `GET /logs`
    Logs,
    /// `GET /logs/{id}`
    Log,
}

/// A route with which people choose a model. The gateway answers all of them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum HubRoute {
    /// `GET /hub/models`
    Search,
    /// `GET /hub/models/{id}`
    Repository,
    /// `GET /fit`
    Fit,
}

/// A route about the usage ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum UsageRoute {
    /// `GET /usage`
    Usage,
    /// `GET /audit`
    Audit,
}

/// A route of the models API. The gateway answers all of them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum ModelsRoute {
    /// `GET /v1/models`
    All,
    /// `GET /v1/models/{id}`
    One,
    /// `GET /v1/models/chat` and the like
    Of(ModelKind),
    /// `POST /v1/models/{id}/load`
    Load,
    /// `POST /v1/models/{id}/unload`
    Unload,
    /// `POST /v1/models/{id}/pin`
    Pin,
    /// `POST /v1/models/{id}/unpin`
    Unpin,
    /// `POST /models/load`, which names the model in its body
    LoadNamed,
    /// `POST /models/unload`, which names the model in its body
    UnloadNamed,
    /// `GET /info` of text-embeddings-inference
    TeiInfo,
    /// A route of Ollama's API
    Ollama(OllamaModels),
}

/// A route with files for browsers, which need no key and hold no data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum PageRoute {
    /// `GET /ui/`, and the files of that folder
    Ui,
    /// `GET /openapi.json`, for programs too
    OpenApi,
    /// `GET /docs`: Swagger UI
    Docs,
    /// `GET /redoc`: Redoc
    Redoc,
}

/// A route that changes, or tells, which models come to the disk. The gateway answers all of them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum FilesRoute {
    /// `POST /v1/models/download`, which names the model in its body
    Download,
    /// `GET /v1/models/downloads`
    Downloads,
    /// `GET /v1/models/downloads/{id}`
    OneDownload,
    /// `GET /v1/models/downloads/{id}/events`
    DownloadEvents,
    /// `DELETE /v1/models/downloads/{id}`
    CancelDownload,
    /// `DELETE /v1/models/{id}`
    Remove,
    /// `POST /api/pull` of Ollama, which names the model in its body
    OllamaPull,
    /// `DELETE /api/delete` of Ollama, which names the model in its body
    OllamaDelete,
}

impl FilesRoute {
    /// Returns whether the body of a request says what is meant.
    pub(in crate::gateway) fn has_body(self) -> bool {
        match self {
            Self::Download | Self::OllamaPull | Self::OllamaDelete => true,
            Self::Downloads | Self::OneDownload | Self::DownloadEvents | Self::CancelDownload | Self::Remove => false,
        }
    }
}

/// A route about API keys. The gateway answers all of them itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum KeysRoute {
    /// `GET /keys`
    List,
    /// `POST /keys`
    Create,
    /// `POST /keys/{id}/rotate`
    Rotate,
    /// `PATCH /keys/{id}`
    Change,
    /// `DELETE /keys/{id}`
    Remove,
}

impl KeysRoute {
    /// Returns whether a request has a body.
    pub(in crate::gateway) fn has_body(self) -> bool {
        matches!(self, Self::Create | Self::Rotate | Self::Change)
    }
}

/// A route of Ollama's API about models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum OllamaModels {
    /// `GET /api/version`
    Version,
    /// `GET /api/tags`
    Tags,
    /// `GET /api/ps`
    Loaded,
    /// `POST /api/show`, which names the model in its body
    Show,
    /// `POST /api/push` and the like, which would change the models that are here
    Change,
}

/// How an API dialect marks the end of a stream of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum StreamEnd {
    /// `data: [DONE]`: OpenAI's completions.
    Done,
    /// `event: message_stop`: Anthropic's messages.
    MessageStop,
    /// `event: response.completed` and the other final events of OpenAI's responses.
    ResponseDone,
    /// No mark: the stream ends with its body.
    Unmarked,
}

/// Dialects of requests that mean the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum DialectFamily {
    /// Scores of documents for a query.
    Rerank,
    /// Embeddings.
    Embed,
    /// Chats and completions in Ollama's API.
    Ollama,
    /// The tokens of texts.
    Tokenize,
}

/// The method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum RouteMethod {
    /// GET, and HEAD.
    Get,
    /// POST
    Post,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
}

impl RouteMethod {
    /// Returns the name.
    pub(in crate::gateway) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Returns whether a request with this method is one for the route.
    pub(in crate::gateway) fn fits(self, method: &Method) -> bool {
        match self {
            Self::Get => method == Method::GET || method == Method::HEAD,
            Self::Post => method == Method::POST,
            Self::Patch => method == Method::PATCH,
            Self::Delete => method == Method::DELETE,
        }
    }
}

/// The port on which a route is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum RoutePort {
    Gateway,
    Health,
    Both,
}

/// One row of the route table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    /// The path, in which `{id}` stands for any text.
    pub(in crate::gateway) path: &'static str,
    /// Where `{id}` stands in it.
    pub(in crate::gateway) id_at: Option<usize>,
    /// The path of the route that means the same at any server with OpenAI's API.
    pub(in crate::gateway) canonical: &'static str,
    pub(in crate::gateway) port: RoutePort,
    /// The method. A GET is read-only, and neither wakes a model nor keeps it awake.
    pub(in crate::gateway) method: RouteMethod,
    pub(in crate::gateway) access: RouteAccess,
    pub(in crate::gateway) target: RouteTarget,
    pub(in crate::gateway) shape: Shape,
    pub(in crate::gateway) stream_end: StreamEnd,
    /// Whether a request occupies one of llama-server's slots, and so waits in a queue for one.
    pub(in crate::gateway) needs_slot: bool,
    /// Whether the response may be a stream.
    pub(in crate::gateway) may_stream: bool,
    /// The dialects that requests may be written in, if they are translated.
    pub(in crate::gateway) dialects: Option<DialectFamily>,
    /// Whether a request may be sent again although a worker may already have processed it.
    pub(in crate::gateway) is_idempotent: bool,
    /// What a request does, for the page of routes.
    pub(in crate::gateway) about: &'static str,
}

/// A path of llama-server that is no route on purpose.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct ClosedPath {
    pub(in crate::gateway) methods: &'static str,
    /// The path, in which `{id}` stands for any text.
    pub(in crate::gateway) path: &'static str,
    /// Why it is no route.
    pub(in crate::gateway) why: &'static str,
}

/// The part of a route's path that stands for any text.
pub(in crate::gateway) const ID_PLACEHOLDER: &str = "{id}";

impl Route {
    /// Returns whether a request changes something for all clients, so that who has sent it is kept.
    pub(in crate::gateway) fn is_admin_act(&self) -> bool {
        self.access == RouteAccess::Key(Scope::Admin) && self.method != RouteMethod::Get
    }

    /// Returns whether the method is POST.
    pub(in crate::gateway) fn is_post(&self) -> bool {
        self.method == RouteMethod::Post
    }

    /// Returns the percent-encoded text in this path at the place of `{id}`, or an empty text if the route has no
    /// `{id}`. Returns `None` if the path does not match the route.
    pub(in crate::gateway) fn id_in<'a>(&self, path: &'a str) -> Option<&'a str> {
        // Asked of row after row of the table, so it is not looked for each time.
        let Some(at) = self.id_at else { return (self.path == path).then_some("") };
        let (before, after) = (self.path.get(..at)?, self.path.get(at + ID_PLACEHOLDER.len()..)?);
        let id = path.strip_prefix(before)?.strip_suffix(after)?;
        (!id.is_empty()).then_some(id)
    }
}

/// Returns where `{id}` stands in the path of a route.
pub(in crate::gateway) const fn id_at(path: &str) -> Option<usize> {
    let (path, id) = (path.as_bytes(), ID_PLACEHOLDER.as_bytes());
    let mut at = 0;
    while at + id.len() <= path.len() {
        if path[at] == id[0] {
            return Some(at);
        }
        at += 1;
    }
    None
}
