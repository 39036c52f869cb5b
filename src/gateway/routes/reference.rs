//! The page of routes, `docs/ROUTES.md`, written from the table in `table.rs`.

use std::fmt::Write as _;

use super::route::{Route, RouteAccess, RoutePort, RouteTarget};
use super::table::{CLOSED, ROUTES};

const INTRODUCTION: &str = "\
# Routes

Generated from `src/gateway/routes/table.rs`; `UPDATE_DOCS=1 cargo test --test it docs` regenerates it.

Any other path is answered with 404 `route_not_found`, and so is any other method. HEAD is allowed where GET is.

A path may be spelled as clients build it from a base address: `//v1/models`, `/v1/v1/models`, `/v1/models/` and
`/v1/mode%6Cs` mean `/v1/models`, without a redirect. The id of a model keeps its slashes: `/v1/models/org/name` and
`/v1/models/org%2Fname` mean the same. `/openai/v1/...` means `/v1/...`, and `/openai/deployments/NAME/...` means
`/v1/...` with the model NAME, whatever the body says, for inference (clients of Azure's API). A worker gets the path as
it stands here.

A WebSocket handshake on a route of the API is refused with 426 `upgrade_required`, so that a client falls back to HTTP
at once.

Columns: *key* is the scope that the key needs, or `-` where no key is needed. *model* is the kind of model that the
route is for. *slot* says whether a request takes one of llama-server's slots, waits in the queue for it, and counts as
one of the key's requests a minute; see [LIMITS.md](LIMITS.md).
";

/// Returns the text of `docs/ROUTES.md`.
pub fn routes_reference() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str(
        "\n## Inference\n\n| method | path | key | model | slot | what it gives |\n|---|---|---|---|---|---|\n",
    );
    for route in ROUTES {
        let RouteTarget::Worker(kind) = route.target else { continue };
        let kind = kind.map_or("any", |kind| kind.as_str());
        let slot = if route.needs_slot { "yes" } else { "-" };
        let (method, path, key, about) = (route.method.as_str(), route.path, key(route), route.about);
        let _ = writeln!(page, "| {method} | `{path}` | {key} | {kind} | {slot} | {about} |");
    }
    page.push_str("\n## Answered by the gateway itself\n\n| port | method | path | key | what it gives or does |\n|---|---|---|---|---|\n");
    for route in ROUTES.iter().filter(|route| !matches!(route.target, RouteTarget::Worker(_))) {
        let port = match route.port {
            RoutePort::Gateway => "gateway",
            RoutePort::Health => "health",
            RoutePort::Both => "both",
        };
        let (method, path, key, about) = (route.method.as_str(), route.path, key(route), route.about);
        let _ = writeln!(page, "| {port} | {method} | `{path}` | {key} | {about} |");
    }
    page.push_str("\n## Closed on purpose\n\nllama-server has these, and the gateway never passes them on, however they are spelled.\nllama-server's own web page is not served either.\n\n| method | path | why |\n|---|---|---|\n");
    for closed in CLOSED {
        let _ = writeln!(page, "| {} | `{}` | {} |", closed.methods, closed.path, closed.why);
    }
    page
}

fn key(route: &Route) -> &'static str {
    match route.access {
        RouteAccess::Open => "-",
        RouteAccess::Key(scope) => scope.as_str(),
        RouteAccess::AnyKey => "any",
        RouteAccess::Metrics => "`metrics` with `METRICS_AUTH_ENABLED`, else -",
    }
}
