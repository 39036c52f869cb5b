//! `llamagate usage`: shows what each key, person and model has used. `llamagate audit`: shows what administrators have done.

use std::process::ExitCode;

use serde_json::json;

use super::arguments::{AuditArgs, UsageArgs};
use super::command_settings::{USAGE, print_warning, resolve_groups};
use super::output::{fail, print};
use crate::ledger::{AdminAct, LedgerError, UsageQuery, read_acts, read_all_usage, usage_table};
use crate::models::list::printable;
use crate::settings::Environment;

/// Runs `llamagate usage`.
pub(super) fn run(arguments: UsageArgs, environment: Environment) -> ExitCode {
    let UsageArgs { from, to, by, name, json, flags } = arguments;
    let settings = match resolve_groups(flags.0, environment, &[USAGE]) {
        Ok(settings) => settings,
        Err(code) => return code,
    };
    let parameters = [("from", &from), ("to", &to), ("by", &by)];
    let given = parameters.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let query = match UsageQuery::read(given) {
        Ok(query) => query.of_key(name),
        Err(error) => return fail(&format!("--{error}")),
    };
    let Some(path) = &settings.usage.usage_db.0 else { return fail(&LedgerError::Off.to_string()) };
    let page = match read_all_usage(path, &query) {
        Ok(page) => page,
        Err(error) => return fail(&error.to_string()),
    };
    if page.has_more {
        print_warning(&"there are more rows than are shown: narrow --from and --to, or group by less");
    }
    if !json {
        print(&usage_table(&page.columns, &page.data));
        return ExitCode::SUCCESS;
    }
    match serde_json::to_string_pretty(&page.data) {
        Ok(json) => print(&(json + "\n")),
        Err(error) => return fail(&error.to_string()),
    }
    ExitCode::SUCCESS
}

/// Runs `llamagate audit`.
pub(super) fn run_audit(arguments: AuditArgs, environment: Environment) -> ExitCode {
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
