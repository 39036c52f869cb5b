//! The page of parameters, `docs/PARAMETERS.md`, written from the table in `parameters.rs`.

use std::fmt::Write as _;

use super::parameters::{PARAMETERS, Parameter, ParameterApi};
use super::table::ROUTES;

const INTRODUCTION: &str = "\
# Parameters

Generated from `src/gateway/routes/parameters.rs`; `UPDATE_DOCS=1 cargo test --test it docs` regenerates it.

An API says which values the parameters of its requests may have. llama-server takes most other values in silence: a
`temperature` of 5, a `top_p` of -1, a `stop` that is a number, `max_tokens` of 4294967298 as 2. The gateway refuses them
before a request waits in the queue, with the name of the parameter and what it must be, in the form of errors that the
client reads:

```json
{\"error\": {\"message\": \"temperature must be a number between 0 and 2 (STRICT_PARAMETERS)\",
           \"type\": \"invalid_request_error\", \"param\": \"temperature\", \"code\": \"invalid_parameter\"}}
```

The status is 400, and clients do not repeat the request. The ranges are those of the API, so they hold for remote
backends too. `null` counts as absent. Only members of the body itself are checked, not those of objects in it; of a name
that is there twice the last one counts. `STRICT_PARAMETERS=false` passes all values on as they are.

Not checked are members that the API does not have, such as `min_p`, or `top_k` in a chat of OpenAI's, and requests in
llama-server's own form (`/completion`, `/infill`, `/completions` without `model`): they mean what they mean at the worker.
A default that the
configuration of a model sets is not checked either.

Requests for embeddings, for scores and in Ollama's API are read as a whole, whatever `STRICT_PARAMETERS` says: a value
that cannot be obeyed, such as `dimensions: 0`, `top_n: \"x\"` or an unknown option, is refused in the same way. See
[EMBEDDINGS.md](EMBEDDINGS.md), [RERANK.md](RERANK.md) and [OLLAMA.md](OLLAMA.md).

The last column says what llama-server b11669 does with other values when it is asked directly. Where it says nothing
else, it refuses what is no number.
";

/// Returns the text of `docs/PARAMETERS.md`.
pub fn parameters_reference() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str("\n| parameter | routes | must be | llama-server itself |\n|---|---|---|---|\n");
    for row in PARAMETERS {
        let Parameter { name, rule, at_llama_server, .. } = row;
        let _ = writeln!(page, "| `{name}` | {} | {rule} | {at_llama_server} |", routes(row));
    }
    page
}

fn routes(row: &Parameter) -> String {
    let has = |path: &str| ParameterApi::of(path).is_some_and(|api| row.apis.contains(&api));
    let paths = ROUTES.iter().map(|route| route.path).filter(|path| has(path));
    paths.map(|path| format!("`{path}`")).collect::<Vec<_>>().join(", ")
}
