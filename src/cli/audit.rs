//! `llamagate audit`: shows what administrators have done.

use std::process::ExitCode;

use serde_json::json;

use super::arguments::AuditArgs;
use super::command_settings::{USAGE, resolve_groups};
use super::output::{fail, print};
use crate::ledger::{AdminAct, LedgerError, read_acts};
use crate::models::list::printable;
use crate::settings::Environment;

/// Runs `llamagate audit`.
pub(super) fn run(arguments: AuditArgs, environment: Environment) -> ExitCode {
    let AuditArgs { limit, json, flags } = arguments;
    let settings = match resolve_groups(flags.0, environment, &[USAGE]) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let Some(path) = &settings.usage.usage_db.0 else { return fail(&LedgerError::Off.to_string()) };
    let acts = match read_acts(path, usize::try_from(limit.get()).unwrap_or(usize::MAX)) {
        Ok(acts) => acts,
        Err(error) => return fail(&error.to_string()),
    };
    print(&if json { as_json(&acts) } else { acts.iter().map(line).collect() });
    ExitCode::SUCCESS
}

fn line(act: &AdminAct) -> String {
    let AdminAct { time, key, address, act, target, status, outcome } = act;
    let key = key.as_deref().unwrap_or("-");
    let address = address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let target = if target.is_empty() { "-".to_owned() } else { printable(target) };
    format!("{time}  {key}  {address}  {act}  {target}  {status}  {outcome}\n")
}

fn as_json(acts: &[AdminAct]) -> String {
    let acts: Vec<_> = acts
        .iter()
        .map(|AdminAct { time, key, address, act, target, status, outcome }| {
            json!({
                "time": time, "key": key, "address": address, "act": act, "target": target, "status": status,
                "outcome": outcome,
            })
        })
        .collect();
    format!("{:#}\n", json!(acts))
}
