//! `llamagate usage`: shows what each key, person and model has used.

use std::process::ExitCode;

use serde_json::Value;

use super::over_http::{UsageSource, read_rows, source_of};
use crate::cli::arguments::UsageArgs;
use crate::cli::client::{self, CallError, ServiceClient};
use crate::cli::command_settings::{USAGE, print_warning, resolve_groups};
use crate::cli::output::print;
use crate::ledger::bounds::COMMAND_ROWS;
use crate::ledger::{LedgerError, UsageQuery, UsageRow, read_all_usage, usage_table};
use crate::settings::Environment;

/// What `--by` is without the flag.
const DEFAULT_BY: &str = "day,key,person,model";

/// The rows that are shown, and whether there are more.
struct ShownUsage {
    columns: Vec<&'static str>,
    rows: Vec<UsageRow>,
    has_more: bool,
}

/// Runs `llamagate usage`.
pub(in crate::cli) fn run(arguments: UsageArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.json;
    match read(arguments, environment).and_then(|shown| show(&shown, is_json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(is_json),
    }
}

fn read(arguments: UsageArgs, environment: Environment) -> Result<ShownUsage, CallError> {
    let UsageArgs { from, to, by, name, json: _, remote, flags } = arguments;
    let parameters = [("from", from), ("to", to), ("by", by)];
    let given: Vec<(&str, String)> = parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let query = UsageQuery::read(given.iter().map(|(name, value)| (*name, value.as_str())));
    // Also for a service, whose answer would name the parameter and not the flag.
    let query = query.map_err(|error| CallError::Usage(format!("--{error}")))?;
    let (flags, environment) = match source_of(&remote, flags, environment)? {
        UsageSource::Service(client) => return client::run(ask(&client, given, name)),
        UsageSource::File(flags, environment) => (flags, environment),
    };
    let settings = resolve_groups(flags, environment, &[USAGE]).map_err(CallError::Reported)?;
    let failed = |error: LedgerError| CallError::Broken(error.to_string());
    let path = settings.usage.usage_db.0.as_ref().ok_or_else(|| failed(LedgerError::Off))?;
    let page = read_all_usage(path, &query.of_key(name)).map_err(failed)?;
    Ok(ShownUsage { columns: page.columns, rows: page.data, has_more: page.has_more })
}

/// Asks a service. It does not choose among keys, so of one key the rows of all are asked for, with their keys.
async fn ask(
    client: &ServiceClient,
    mut parameters: Vec<(&'static str, String)>,
    name: Option<String>,
) -> Result<ShownUsage, CallError> {
    let given = parameters.iter().position(|(name, _)| *name == "by").map(|at| parameters.remove(at).1);
    let by = given.unwrap_or_else(|| DEFAULT_BY.to_owned());
    let has_key = by.split(',').any(|group| group == "key");
    parameters.push(("by", if name.is_some() && !has_key { format!("{by},key") } else { by.clone() }));
    let (rows, has_more) = read_rows(client, "/usage", &parameters, COMMAND_ROWS).await?;
    let is_shown = |row: &&Value| name.as_deref().is_none_or(|name| row["key"] == name);
    let mut rows: Vec<UsageRow> = rows.iter().filter(is_shown).map(row_of).collect();
    if !has_key {
        rows.iter_mut().for_each(|row| row.key = None);
    }
    let groups: Vec<&str> = by.split(',').collect();
    let is_time = groups.iter().any(|group| ["hour", "day", "month"].contains(group));
    let columns = ["key", "person", "model"].into_iter().filter(|name| groups.contains(name));
    Ok(ShownUsage { columns: is_time.then_some("start").into_iter().chain(columns).collect(), rows, has_more })
}

/// Reads a row as the service writes it.
fn row_of(row: &Value) -> UsageRow {
    let name = |column: &str| row.get(column).map(|name| name.as_str().map(str::to_owned));
    let count = |column: &str| row[column].as_u64().unwrap_or_default();
    let amount = |column: &str| row[column].as_f64().unwrap_or_default();
    UsageRow {
        start: row["start"].as_str().map(str::to_owned),
        key: name("key"),
        person: name("person"),
        model: name("model"),
        requests: count("requests"),
        refused: count("refused"),
        prompt_tokens: count("prompt_tokens"),
        cached_tokens: count("cached_tokens"),
        completion_tokens: count("completion_tokens"),
        slot_seconds: amount("slot_seconds"),
        first_byte_seconds: amount("first_byte_seconds"),
        cost: amount("cost"),
    }
}

fn show(shown: &ShownUsage, is_json: bool) -> Result<(), CallError> {
    let ShownUsage { columns, rows, has_more } = shown;
    if *has_more {
        print_warning(&"there are more rows than are shown: narrow --from and --to, or group by less");
    }
    if is_json {
        let json = serde_json::to_string_pretty(rows).map_err(|error| CallError::Broken(error.to_string()))?;
        print(&(json + "\n"));
    } else {
        print(&usage_table(columns, rows));
    }
    Ok(())
}
