//! `llamagate usage`: shows what each key, person and model has used.

use std::process::ExitCode;

use super::arguments::UsageArgs;
use super::command_settings::{USAGE, print_warning, resolve_groups};
use super::output::{fail, print};
use crate::ledger::{LedgerError, UsageQuery, read_all_usage, usage_table};
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
