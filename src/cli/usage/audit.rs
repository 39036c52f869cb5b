//! `llamagate audit`: shows what administrators have done.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::over_http::{UsageSource, read_rows, source_of};
use crate::cli::arguments::AuditArgs;
use crate::cli::client::{self, CallError};
use crate::cli::command_settings::{USAGE, resolve_groups};
use crate::cli::output::print;
use crate::ledger::{ActRow, LedgerError, read_acts};
use crate::models::list::printable;
use crate::settings::Environment;

/// Runs `llamagate audit`.
pub(in crate::cli) fn run(arguments: AuditArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.json;
    match read(arguments, environment) {
        Ok(acts) if is_json => print(&format!("{:#}\n", json!(acts))),
        Ok(acts) => print(&acts.iter().map(line).collect::<String>()),
        Err(error) => return error.report(is_json),
    }
    ExitCode::SUCCESS
}

fn read(arguments: AuditArgs, environment: Environment) -> Result<Vec<ActRow>, CallError> {
    let AuditArgs { limit, json: _, remote, flags } = arguments;
    let limit = usize::try_from(limit.get()).unwrap_or(usize::MAX);
    let (flags, environment) = match source_of(&remote, flags, environment)? {
        UsageSource::Service(client) => {
            let (rows, _) = client::run(read_rows(&client, "/audit", &[], limit))?;
            return Ok(rows.iter().map(act_of).collect());
        }
        UsageSource::File(flags, environment) => (flags, environment),
    };
    let settings = resolve_groups(flags, environment, &[USAGE]).map_err(CallError::Reported)?;
    let failed = |error: LedgerError| CallError::Broken(error.to_string());
    let path = settings.usage.usage_db.0.as_ref().ok_or_else(|| failed(LedgerError::Off))?;
    Ok(read_acts(path, limit).map_err(failed)?.into_iter().map(ActRow::from).collect())
}

/// Reads an act as the service writes it.
fn act_of(row: &Value) -> ActRow {
    let text = |name: &str| row[name].as_str().map(str::to_owned);
    ActRow {
        time: text("time").unwrap_or_default(),
        key: text("key"),
        address: text("address"),
        act: text("act").unwrap_or_default(),
        target: text("target").unwrap_or_default(),
        status: row["status"].as_u64().and_then(|status| status.try_into().ok()).unwrap_or_default(),
        outcome: text("outcome").unwrap_or_default(),
    }
}

fn line(act: &ActRow) -> String {
    let ActRow { time, key, address, act, target, status, outcome } = act;
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { printable(text) };
    let (key, address) = (key.as_deref().unwrap_or_default(), address.as_deref().unwrap_or_default());
    let (time, key, address, act) = (printable(time), or_dash(key), or_dash(address), printable(act));
    format!("{time}  {key}  {address}  {act}  {}  {status}  {}\n", or_dash(target), printable(outcome))
}
