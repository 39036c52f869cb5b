//! Reads the ledger, on connections that cannot write.
//!
//! - `acts.rs`: the acts of administrators
//! - `budget_use.rs`: what the budgets of the current day and month have used
//! - `csv.rs`: rows as comma-separated values
//! - `query.rs`: which rows are asked for
//! - `report.rs`: reads them
//! - `table.rs`: rows as a table with totals, for people

pub(super) mod acts;
pub(super) mod budget_use;
pub(super) mod csv;
pub(super) mod query;
pub(super) mod report;
pub(super) mod table;
