//! The state of a service as text: a table of its models, and what is under way.

use std::fmt::Write as _;

use serde_json::Value;

use super::state::LiveState;
use super::wrap::wrapped;
use crate::cli::client::{Paint, Style};
use crate::models::list::printable;

/// Bytes of a mebibyte.
const MIB: f64 = 1024.0 * 1024.0;

/// The columns of the table.
const HEAD: [&str; 6] = ["MODEL", "STATE", "SLOTS", "WAITING", "TOKENS/S", "MEMORY"];
/// The columns that a narrow terminal does without, the first one first, by their place.
const LEFT_OUT_FIRST: [usize; 4] = [3, 4, 2, 5];
/// Columns of the terminal between two of the table.
const GAP: usize = 2;
/// Shortest form of a name on a narrow terminal.
const SHORTEST_NAME: usize = 12;

/// Returns the table of the models, and below it what is loaded from elsewhere and what has failed. On a terminal of this
/// many columns, names are shortened and columns left out to fit.
pub(super) fn text(state: &LiveState, paint: Paint, columns: Option<usize>) -> String {
    let mut rows: Vec<[String; 6]> = state.models.iter().map(|model| row(state, model)).collect();
    let width = |rows: &[[String; 6]], column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEAD[column].len()]).max().unwrap_or(0)
    };
    let mut shown: Vec<(usize, usize)> = (0..HEAD.len()).map(|column| (column, width(&rows, column))).collect();
    if let Some(columns) = columns {
        fit(&mut shown, &mut rows, columns);
    }
    let line = |cells: &[String]| {
        let cells = shown.iter().map(|(column, width)| format!("{:<width$}", cells[*column]));
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    let mut text = paint.text(Style::Dim, &line(&HEAD.map(str::to_owned))) + "\n";
    for (row, model) in rows.iter().zip(&state.models) {
        let row = line(row);
        let row = match model["state"].as_str() {
            Some("ready") => paint.text(Style::Green, &row),
            Some("failed" | "backoff" | "unhealthy") => paint.text(Style::Red, &row),
            Some("stopped") => paint.text(Style::Dim, &row),
            _ => row,
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{row}");
    }
    for download in state.downloads.iter().filter(|download| is_under_way(download)) {
        let _ = writeln!(text, "download {}  {}", name(&download["model"]), progress(download));
    }
    for model in &state.models {
        if let Some(hint) = hint(model) {
            let line = format!("{}: {hint}", name(&model["id"]));
            text += &columns.map_or_else(|| format!("{line}\n"), |columns| wrapped(&line, columns));
        }
    }
    text
}

/// Leaves columns out and shortens names until the table is as narrow as the terminal, if it can be.
fn fit(shown: &mut Vec<(usize, usize)>, rows: &mut [[String; 6]], columns: usize) {
    let total = |shown: &[(usize, usize)]| shown.iter().map(|(_, width)| width + GAP).sum::<usize>() - GAP;
    let name = shown[0].1;
    // What is needed if names are as short as they may be.
    let needed = |shown: &[(usize, usize)]| total(shown) - name + name.min(SHORTEST_NAME);
    for column in LEFT_OUT_FIRST {
        if needed(shown) > columns {
            shown.retain(|(shown, _)| *shown != column);
        }
    }
    let too_wide = total(shown).saturating_sub(columns);
    let longest = (name - too_wide.min(name)).max(name.min(SHORTEST_NAME));
    shown[0].1 = longest;
    for row in rows {
        if row[0].chars().count() > longest {
            row[0] = row[0].chars().take(longest - 1).chain(['\u{2026}']).collect();
        }
    }
}

/// Returns one line about the service as a whole.
pub(super) fn headline(state: &LiveState) -> String {
    let pace = &state.throughput;
    let number = |name: &str| pace[name].as_f64().unwrap_or(0.0);
    let first_byte = pace["time_to_first_byte_ms"].as_f64().map(|ms| format!(", first byte {ms:.0} ms"));
    let used = state.memory["used_bytes"].as_u64().map(mib).unwrap_or_default();
    let budget = state.memory["budget_bytes"].as_u64().map(|bytes| format!(" of {}", mib(bytes))).unwrap_or_default();
    format!(
        "llamagate {}: {}; {:.1} tokens/s, {:.0} running, {:.0} waiting{}; memory {used}{budget}",
        name(&state.version),
        name(&state.status),
        number("tokens_per_second"),
        number("running"),
        number("waiting"),
        first_byte.unwrap_or_default(),
    )
}

fn row(state: &LiveState, model: &Value) -> [String; 6] {
    let queue = state.queue_of(model);
    let count = |name: &str| queue.and_then(|queue| queue[name].as_u64()).unwrap_or(0);
    let pace = state.pace_of(model);
    [
        name(&model["id"]),
        state_of(model),
        format!("{}/{}", count("active"), count("slots")),
        count("waiting").to_string(),
        if pace > 0.0 { format!("{pace:.1}") } else { "-".to_owned() },
        state.memory_of(model).map_or_else(|| "-".to_owned(), mib),
    ]
}

/// Returns the state of a model in a few words, with how far its load is.
fn state_of(model: &Value) -> String {
    let workers = model["workers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let state = name(&model["state"]);
    if state == "stopped" && workers.iter().any(|worker| worker["asleep"] == true) {
        return "asleep".to_owned();
    }
    let load = workers.iter().map(|worker| &worker["load"]).find(|load| load.is_object());
    load.map_or(state.clone(), |load| format!("{state} {}", progress(load)))
}

/// Returns how far something is: the share of its bytes, and the time that is left.
fn progress(of: &Value) -> String {
    let total = of["total"].as_f64().filter(|total| *total > 0.0);
    let share = of["bytes"].as_f64().zip(total).map(|(bytes, total)| format!("{:.0} %", bytes * 100.0 / total));
    let left = of["seconds_left"].as_u64().map(|left| format!(", {left} s left"));
    share.unwrap_or_default() + &left.unwrap_or_default()
}

/// Returns what to do about a model that cannot serve.
fn hint(model: &Value) -> Option<String> {
    if !matches!(model["state"].as_str(), Some("failed" | "backoff" | "unhealthy")) {
        return None;
    }
    let texts =
        |worker: &Value| worker["last_exit"]["hint"].as_str().or_else(|| worker["last_error"].as_str()).map(printable);
    model["workers"].as_array()?.iter().find_map(texts)
}

fn is_under_way(download: &Value) -> bool {
    matches!(download["state"].as_str(), Some("queued" | "downloading" | "verifying" | "waiting"))
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / MIB)
}

/// Returns a text without what would move the cursor of a terminal.
fn name(text: &Value) -> String {
    text.as_str().map(printable).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Environment;
    use serde_json::json;

    #[test]
    fn the_table_says_what_a_model_does_and_what_to_do_about_it() {
        let mut state = LiveState::default();
        let paint = Paint::for_stream(&Environment::from([("NO_COLOR", "1")]), &std::io::stdout());
        let load = json!({"bytes": 50, "total": 200, "seconds_left": 3});
        let failed = json!({"worker": 0, "last_exit": {"hint": "the file is damaged"}});
        state.take("snapshot", json!({
            "status": "degraded", "version": "0.1.0",
            "models": [
                {"id": "a", "state": "ready", "workers": []},
                {"id": "b\u{1b}[2J", "state": "loading", "workers": [{"worker": 0, "load": load}]},
                {"id": "c", "state": "stopped", "workers": [{"worker": 0, "asleep": true}]},
                {"id": "d", "state": "failed", "workers": [failed]},
            ],
            "queues": [{"model": "a", "active": 2, "slots": 4, "waiting": 1}],
            "downloads": [{"id": "1", "model": "org/m", "state": "downloading", "bytes": 1, "total": 4}],
            "memory": {"used_bytes": 1048576, "budget_bytes": 4194304, "models": [{"model": "a", "bytes": 1048576}]},
            "throughput": {"tokens_per_second": 12.5, "running": 2, "waiting": 1, "time_to_first_byte_ms": null,
                "models": [{"model": "a", "tokens_per_second": 12.5}]},
        }));
        let expected = "MODEL  STATE                   SLOTS  WAITING  TOKENS/S  MEMORY\n\
                        a      ready                   2/4    1        12.5      1 MiB\n\
                        b\u{fffd}[2J  loading 25 %, 3 s left  0/0    0        -         -\n\
                        c      asleep                  0/0    0        -         -\n\
                        d      failed                  0/0    0        -         -\n\
                        download org/m  25 %\n\
                        d: the file is damaged\n";
        assert_eq!(text(&state, paint, None), expected);
        assert_eq!(text(&state, paint, Some(80)), expected);
        let narrow = "MODEL  STATE                   MEMORY\n\
                      a      ready                   1 MiB\n\
                      b\u{fffd}[2J  loading 25 %, 3 s left  -\n\
                      c      asleep                  -\n\
                      d      failed                  -\n\
                      download org/m  25 %\n\
                      d: the file is damaged\n";
        assert_eq!(text(&state, paint, Some(40)), narrow);
        state.take("model", json!({"id": "a-model-with-a-very-long-name", "state": "ready", "workers": []}));
        let shortened = text(&state, paint, Some(40));
        let cut = shortened.lines().find(|line| line.starts_with("a-model-with-a")).unwrap_or_default();
        assert!(cut.ends_with("\u{2026}  ready"), "{shortened}");
        assert!(shortened.lines().take(6).all(|line| line.chars().count() <= 40), "{shortened}");
        assert_eq!(
            headline(&state),
            "llamagate 0.1.0: degraded; 12.5 tokens/s, 2 running, 1 waiting; memory 1 MiB of 4 MiB"
        );
    }
}
