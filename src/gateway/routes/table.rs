//! The table of routes: which exist, and which paths of llama-server are closed on purpose.
//!
//! A request for any other path gets a 404 and never reaches llama-server. `reference.rs` writes the table as a
//! page.

use super::route::{
    ClosedPath, DialectFamily, FilesRoute, HubRoute, KeysRoute, LiveRoute, LocalRoute, ModelsRoute, OllamaModels,
    PageRoute, Route, RouteAccess, RouteMethod, RoutePort, RouteTarget, StreamEnd, UsageRoute, id_at,
};
use crate::dialect::rerank::words::COMPLETION_PATH;
use crate::keys::Scope;
use crate::models::ModelKind;
use crate::refusal::Shape;

const fn worker(
    path: &'static str,
    method: RouteMethod,
    kind: Option<ModelKind>,
    stream_end: StreamEnd,
    about: &'static str,
) -> Route {
    let access = RouteAccess::Key(Scope::Inference);
    let is_read_only = matches!(method, RouteMethod::Get);
    let (port, target, shape) = (RoutePort::Gateway, RouteTarget::Worker(kind), Shape::OpenAi);
    Route {
        path,
        id_at: id_at(path),
        canonical: path,
        port,
        method,
        access,
        target,
        shape,
        stream_end,
        needs_slot: !is_read_only,
        may_stream: false,
        dialects: None,
        is_idempotent: is_read_only,
        about,
    }
}

/// A route that takes text or sound and returns numbers or text.
const fn post(path: &'static str, kind: ModelKind, about: &'static str) -> Route {
    worker(path, RouteMethod::Post, Some(kind), StreamEnd::Unmarked, about)
}

/// A route that returns the same numbers for the same input.
const fn score(path: &'static str, kind: ModelKind, about: &'static str) -> Route {
    Route { is_idempotent: true, ..post(path, kind, about) }
}

/// A route that llama-server answers without a slot, even while all slots are busy.
const fn helper(path: &'static str, kind: Option<ModelKind>, about: &'static str) -> Route {
    Route {
        needs_slot: false,
        is_idempotent: true,
        ..worker(path, RouteMethod::Post, kind, StreamEnd::Unmarked, about)
    }
}

/// A route for scores of documents, in any dialect of rerankers.
const fn rerank(path: &'static str, about: &'static str) -> Route {
    let dialects = Some(DialectFamily::Rerank);
    let route = score(path, ModelKind::Rerank, about);
    Route { canonical: "/v1/rerank", shape: Shape::Retrieval, dialects, ..route }
}

/// A route for embeddings, in a dialect whose errors have this shape.
const fn embed(path: &'static str, shape: Shape, about: &'static str) -> Route {
    let dialects = Some(DialectFamily::Embed);
    Route { canonical: "/v1/embeddings", shape, dialects, ..score(path, ModelKind::Embedding, about) }
}

/// A route for generated text in Ollama's API, whose requests become chats.
const fn ollama(path: &'static str, about: &'static str) -> Route {
    let dialects = Some(DialectFamily::Ollama);
    Route { canonical: "/v1/chat/completions", shape: Shape::Ollama, dialects, ..stream(path, StreamEnd::Done, about) }
}

/// A route of Ollama's API about models.
const fn ollama_models(path: &'static str, method: RouteMethod, route: OllamaModels, about: &'static str) -> Route {
    Route { method, needs_slot: false, shape: Shape::Ollama, ..models(path, ModelsRoute::Ollama(route), about) }
}

/// A route of Ollama's API that would change which models are here.
const fn ollama_change(path: &'static str) -> Route {
    Route {
        access: ADMIN,
        is_idempotent: false,
        ..ollama_models(path, RouteMethod::Post, OllamaModels::Change, NO_CHANGE)
    }
}

/// A route of llama-server that other servers have by another path.
const fn twin(canonical: &'static str, route: Route) -> Route {
    Route { canonical, ..route }
}

/// A route that counts the tokens of a chat.
const fn count(path: &'static str, about: &'static str) -> Route {
    helper(path, Some(ModelKind::Chat), about)
}

const fn stream(path: &'static str, stream_end: StreamEnd, about: &'static str) -> Route {
    Route { may_stream: true, ..worker(path, RouteMethod::Post, Some(ModelKind::Chat), stream_end, about) }
}

/// The route of a call that scores a document by a completion. Clients have `/completion` for that, which is for chat.
pub(in crate::gateway) static SCORING_COMPLETION: Route =
    score(COMPLETION_PATH, ModelKind::Rerank, "the probabilities of two words");

const fn get(path: &'static str, about: &'static str) -> Route {
    worker(path, RouteMethod::Get, None, StreamEnd::Unmarked, about)
}

const fn models(path: &'static str, models_route: ModelsRoute, about: &'static str) -> Route {
    Route { target: RouteTarget::Models(models_route), ..get(path, about) }
}

const fn models_command(path: &'static str, models_route: ModelsRoute, about: &'static str) -> Route {
    Route { method: RouteMethod::Post, access: ADMIN, is_idempotent: false, ..models(path, models_route, about) }
}

const fn files(method: RouteMethod, path: &'static str, files_route: FilesRoute, about: &'static str) -> Route {
    Route { method, access: ADMIN, target: RouteTarget::Files(files_route), is_idempotent: false, ..get(path, about) }
}

const fn live(path: &'static str, route: LiveRoute, access: RouteAccess, about: &'static str) -> Route {
    Route { access, target: RouteTarget::Live(route), ..get(path, about) }
}

const fn hub(path: &'static str, route: HubRoute, about: &'static str) -> Route {
    Route { access: ADMIN, target: RouteTarget::Hub(route), ..get(path, about) }
}

const fn keys(method: RouteMethod, path: &'static str, route: KeysRoute, about: &'static str) -> Route {
    Route { method, access: ADMIN, target: RouteTarget::Keys(route), is_idempotent: false, ..get(path, about) }
}

const fn page(path: &'static str, page_route: PageRoute, about: &'static str) -> Route {
    Route { access: RouteAccess::Open, target: RouteTarget::Page(page_route), ..get(path, about) }
}

const fn local(
    port: RoutePort,
    path: &'static str,
    local: LocalRoute,
    access: RouteAccess,
    about: &'static str,
) -> Route {
    Route { port, access, target: RouteTarget::Gateway(local), ..get(path, about) }
}

const fn open(port: RoutePort, path: &'static str, local_route: LocalRoute, about: &'static str) -> Route {
    local(port, path, local_route, RouteAccess::Open, about)
}

const fn closed(methods: &'static str, path: &'static str, why: &'static str) -> ClosedPath {
    ClosedPath { methods, path, why }
}

const NO_CHANGE: &str = "501: models come from the hub as they are";
const ADMIN: RouteAccess = RouteAccess::Key(Scope::Admin);
pub(in crate::gateway) const PING: &str = "/ping";

/// The folder of the page.
pub(in crate::gateway) const UI: &str = "/ui";

/// The path of completions with a suffix in Mistral's API, and that at llama-server.
pub(in crate::gateway) const FIM: &str = "/v1/fim/completions";
pub(in crate::gateway) const INFILL: &str = "/infill";

/// Every route. A path without `/v1` is for clients whose base address lacks it, as at llama-server.
pub(in crate::gateway) const ROUTES: &[Route] = &[
    stream("/v1/chat/completions", StreamEnd::Done, "a chat, in OpenAI's API"),
    twin("/v1/chat/completions", stream("/chat/completions", StreamEnd::Done, "as `/v1/chat/completions`")),
    stream("/v1/completions", StreamEnd::Done, "a completion, in OpenAI's API"),
    stream("/v1/responses", StreamEnd::ResponseDone, "a response, in OpenAI's API"),
    twin("/v1/responses", stream("/responses", StreamEnd::ResponseDone, "as `/v1/responses`")),
    Route {
        shape: Shape::Anthropic,
        ..stream("/v1/messages", StreamEnd::MessageStop, "a message, in Anthropic's API")
    },
    Route { shape: Shape::Anthropic, ..count("/v1/messages/count_tokens", "the tokens of a message") },
    count("/v1/chat/completions/input_tokens", "the tokens of a chat"),
    twin(
        "/v1/chat/completions/input_tokens",
        count("/chat/completions/input_tokens", "as `/v1/chat/completions/input_tokens`"),
    ),
    count("/v1/responses/input_tokens", "the tokens of a response's input"),
    twin("/v1/responses/input_tokens", count("/responses/input_tokens", "as `/v1/responses/input_tokens`")),
    embed("/v1/embeddings", Shape::Retrieval, "embeddings, in OpenAI's API, with the members of Jina's and Voyage's"),
    embed("/embeddings", Shape::Retrieval, "as `/v1/embeddings`; with `content` in llama-server's own form"),
    embed("/v1/embed", Shape::Retrieval, "embeddings, in Cohere's first version"),
    embed("/v2/embed", Shape::Retrieval, "embeddings, in Cohere's second version"),
    embed("/embed", Shape::Tei, "embeddings, in the API of text-embeddings-inference"),
    embed("/", Shape::Tei, "as `/embed`"),
    embed("/embed_all", Shape::Tei, "the vectors of all tokens"),
    embed("/embed_sparse", Shape::Tei, "sparse vectors"),
    embed("/similarity", Shape::Tei, "how similar sentences are to a first one"),
    embed("/api/embed", Shape::Ollama, "embeddings, in Ollama's API"),
    embed("/api/embeddings", Shape::Ollama, "the embedding of one text, in Ollama's older API"),
    ollama("/api/chat", "a chat, in Ollama's API"),
    ollama("/api/generate", "a completion, in Ollama's API"),
    ollama_models(
        "/api/version",
        RouteMethod::Get,
        OllamaModels::Version,
        "the version of Ollama's API that is served",
    ),
    ollama_models(
        "/api/tags",
        RouteMethod::Get,
        OllamaModels::Tags,
        "the models that the key may use, in Ollama's API",
    ),
    ollama_models("/api/ps", RouteMethod::Get, OllamaModels::Loaded, "the models that are loaded, in Ollama's API"),
    ollama_models("/api/show", RouteMethod::Post, OllamaModels::Show, "one model, in Ollama's API"),
    Route {
        shape: Shape::Ollama,
        ..files(RouteMethod::Post, "/api/pull", FilesRoute::OllamaPull, "downloads a model, in Ollama's API")
    },
    Route {
        shape: Shape::Ollama,
        ..files(
            RouteMethod::Delete,
            "/api/delete",
            FilesRoute::OllamaDelete,
            "removes a model from the disk, in Ollama's API",
        )
    },
    ollama_change("/api/push"),
    ollama_change("/api/create"),
    ollama_change("/api/copy"),
    score("/embedding", ModelKind::Embedding, "as `/embeddings`"),
    rerank("/v1/rerank", "the relevance of documents to a query, in the dialect that the body tells"),
    rerank("/v1/reranking", "as `/v1/rerank`"),
    rerank("/rerank", "as `/v1/rerank`"),
    rerank("/reranking", "as `/v1/rerank`"),
    rerank("/api/v1/rerank", "as `/v1/rerank`"),
    rerank("/v1/reranks", "as `/v1/rerank`"),
    rerank("/v2/rerank", "the relevance of documents to a query, in Cohere's second version"),
    rerank("/score", "the relevance of pairs of texts, in vLLM's API"),
    rerank("/v1/score", "as `/score`"),
    rerank("/v1/ranking", "the relevance of passages to a query, in NVIDIA NIM's API"),
    post("/v1/audio/transcriptions", ModelKind::Chat, "the text of a recording, which comes as a form"),
    twin("/v1/audio/transcriptions", post("/audio/transcriptions", ModelKind::Chat, "as `/v1/audio/transcriptions`")),
    post("/v1/systemone", ModelKind::Chat, "a decision of a model that is made for it"),
    stream("/completion", StreamEnd::Unmarked, "a completion, in llama-server's own form"),
    twin("/v1/completions", stream("/completions", StreamEnd::Unmarked, "as `/completion`")),
    stream(FIM, StreamEnd::Done, "the code between a prompt and a suffix, in Mistral's API"),
    stream(INFILL, StreamEnd::Unmarked, "the code between a prefix and a suffix"),
    Route {
        dialects: Some(DialectFamily::Tokenize),
        ..helper("/tokenize", None, "the tokens of a text; with `inputs` as text-embeddings-inference gives them")
    },
    helper("/detokenize", None, "the text of tokens"),
    helper("/apply-template", None, "the prompt that the chat template makes of messages"),
    models("/v1/models", ModelsRoute::All, "the models that the key may use"),
    models("/models", ModelsRoute::All, "as `/v1/models`"),
    files(
        RouteMethod::Post,
        "/v1/models/download",
        FilesRoute::Download,
        "downloads the model that `model` names in the body, and answers at once",
    ),
    files(RouteMethod::Get, "/v1/models/downloads", FilesRoute::Downloads, "the downloads, the newest first"),
    files(
        RouteMethod::Get,
        "/v1/models/downloads/{id}/events",
        FilesRoute::DownloadEvents,
        "a download, as server-sent events until it has ended",
    ),
    files(RouteMethod::Get, "/v1/models/downloads/{id}", FilesRoute::OneDownload, "one download"),
    files(
        RouteMethod::Delete,
        "/v1/models/downloads/{id}",
        FilesRoute::CancelDownload,
        "cancels a download and keeps what has arrived, or forgets one that has ended",
    ),
    models("/v1/models/chat", ModelsRoute::Of(ModelKind::Chat), "the chat models, as a plain list"),
    models("/v1/models/embeddings", ModelsRoute::Of(ModelKind::Embedding), "the embedding models, as a plain list"),
    models("/v1/models/rerank", ModelsRoute::Of(ModelKind::Rerank), "the rerankers, as a plain list"),
    Route {
        access: RouteAccess::Open,
        shape: Shape::Tei,
        ..models(
            "/info",
            ModelsRoute::TeiInfo,
            "the embedding model or reranker, as text-embeddings-inference describes it; `?model=ID` names it",
        )
    },
    models_command("/v1/models/{id}/load", ModelsRoute::Load, "loads a model"),
    models_command("/v1/models/{id}/unload", ModelsRoute::Unload, "unloads a model"),
    models_command(
        "/v1/models/{id}/pin",
        ModelsRoute::Pin,
        "keeps a model in memory once it is loaded: it is neither evicted nor unloaded after its idle time",
    ),
    models_command("/v1/models/{id}/unpin", ModelsRoute::Unpin, "lets a model be evicted and unloaded again"),
    models_command("/models/load", ModelsRoute::LoadNamed, "loads the model that `model` names in the body"),
    models_command("/models/unload", ModelsRoute::UnloadNamed, "unloads the model that `model` names in the body"),
    files(
        RouteMethod::Delete,
        "/v1/models/{id}",
        FilesRoute::Remove,
        "removes a model from the disk, unless it is in use",
    ),
    models("/v1/models/{id}", ModelsRoute::One, "one model; its id may have slashes"),
    models("/models/{id}", ModelsRoute::One, "as `/v1/models/{id}`"),
    Route {
        access: RouteAccess::AnyKey,
        target: RouteTarget::Usage(UsageRoute::Usage),
        ..get("/usage", "what the key has used, or with an `admin` key what every key has (see [USAGE.md](USAGE.md))")
    },
    Route {
        access: ADMIN,
        target: RouteTarget::Usage(UsageRoute::Audit),
        ..get("/audit", "what administrators have done, the newest first (see [USAGE.md](USAGE.md))")
    },
    hub(
        "/hub/models",
        HubRoute::Search,
        "repositories of the hub with GGUF files: `?q=` has words of their names, `&limit=` says how many",
    ),
    hub(
        "/hub/models/{id}",
        HubRoute::Repository,
        "the models of a repository with their sizes; `?fit=true` says of each whether it fits",
    ),
    hub("/fit", HubRoute::Fit, "whether a model fits into memory, from its header alone; `?model=NAME` names it"),
    live("/events", LiveRoute::Events, ADMIN, "what happens, as server-sent events (see [EVENTS.md](EVENTS.md))"),
    live(
        "/v1/queue",
        LiveRoute::Queue,
        RouteAccess::AnyKey,
        "the places of the key's waiting requests, or with an `admin` key of all",
    ),
    live("/logs", LiveRoute::Logs, ADMIN, "the logs that there are: that of each worker, and the access log"),
    live(
        "/logs/{id}",
        LiveRoute::Log,
        ADMIN,
        "the last lines of a log; `?follow=true` sends what is written from then on, too",
    ),
    keys(RouteMethod::Get, "/keys", KeysRoute::List, "the API keys: limits, standing and use, never a secret"),
    keys(RouteMethod::Post, "/keys", KeysRoute::Create, "makes a key; its secret is only in this answer"),
    keys(RouteMethod::Post, "/keys/{id}/rotate", KeysRoute::Rotate, "gives a key a new secret"),
    keys(RouteMethod::Patch, "/keys/{id}", KeysRoute::Change, "changes the limits of a key, or when it ends"),
    keys(RouteMethod::Delete, "/keys/{id}", KeysRoute::Remove, "removes a key and all of its secrets"),
    get("/props", "llama-server's properties; `?model=ID` names the model"),
    get("/lora-adapters", "the LoRA adapters of a model; `?model=ID` names it"),
    Route { access: ADMIN, ..get("/slots", "llama-server's slots; `?model=ID` names the model") },
    open(RoutePort::Gateway, PING, LocalRoute::Ping, "whether the process is alive"),
    open(
        RoutePort::Health,
        PING,
        LocalRoute::Probe,
        "200 if a request would be served, 204 while models load, else 503",
    ),
    open(RoutePort::Health, "/livez", LocalRoute::Livez, "whether the process is alive"),
    open(RoutePort::Health, "/readyz", LocalRoute::Readyz, "200 if a request is served at once, else 503"),
    open(RoutePort::Both, "/health", LocalRoute::Health, "the state of all models"),
    open(RoutePort::Both, "/v1/health", LocalRoute::Health, "as `/health`"),
    page(UI, PageRoute::Ui, "the page for browsers, with `UI_ENABLED` (see [PAGE.md](PAGE.md))"),
    page("/ui/{id}", PageRoute::Ui, "a file of the page"),
    page("/openapi.json", PageRoute::OpenApi, "this API, in OpenAPI 3.1 (see [OPENAPI.md](OPENAPI.md))"),
    page("/docs", PageRoute::Docs, "this API for people, who can try calls, with `UI_ENABLED`"),
    page("/redoc", PageRoute::Redoc, "this API to read and to print, with `UI_ENABLED`"),
    open(
        RoutePort::Both,
        "/",
        LocalRoute::Root,
        "the name and the version of this program; a browser is led to `/ui/`",
    ),
    open(RoutePort::Gateway, "/api/hello", LocalRoute::Hello, "whether anything answers, for Claude Code"),
    local(RoutePort::Both, "/metrics", LocalRoute::Metrics, RouteAccess::Metrics, "metrics, as JSON or for Prometheus"),
    Route {
        method: RouteMethod::Post,
        ..local(RoutePort::Gateway, "/reload", LocalRoute::Reload, ADMIN, "reads keys and configuration again")
    },
    Route {
        method: RouteMethod::Post,
        ..local(RoutePort::Gateway, "/keys/{id}/resume", LocalRoute::ResumeKey, ADMIN, "lifts the suspension of a key")
    },
    local(RoutePort::Gateway, "/lb/stats", LocalRoute::LbStats, ADMIN, "the workers and the queue of each model"),
];

/// Paths of llama-server that are no routes on purpose. Clients that ask for them get the same 404 as for any other path.
pub(in crate::gateway) const CLOSED: &[ClosedPath] = &[
    closed("POST", "/props", "it changes llama-server's settings for everybody"),
    closed("POST", "/slots/{id}", "it saves, restores and erases what other clients have in a slot"),
    closed("POST", "/lora-adapters", "it changes the answers to everybody; `lora` in a request does it for one"),
    closed("GET, POST", "/tools", "it runs programs and reads files"),
    closed("GET, POST", "/cors-proxy", "it fetches any address from inside the network"),
    closed("GET, DELETE", "/v1/stream", "streams that can be resumed would go on after their clients have left"),
    closed("POST", "/v1/streams/lookup", "as `/v1/stream`"),
    closed("POST", "/v1/chat/completions/control", "it changes the requests of other clients"),
    closed("GET", "/models/sse", "states of models are in `/health` and `/v1/models`"),
];
