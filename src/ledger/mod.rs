//! The usage ledger: what each key, person and model has used in each hour, the use that budgets count, and what
//! administrators have done. It is kept in one SQLite file.
//!
//! A request does nothing but put its event into a bounded queue. One thread adds the events up and writes them, several at
//! a time. Owns no decision about who may do what: a budget is enforced where requests are admitted.
//!
//! - `bounds.rs`: waits, queues and rows that no user needs to choose
//! - `calendar.rs`: hours, days and months in UTC
//! - `error.rs`: why the file cannot be used
//! - `event.rs`: what is recorded: the use of a request, the act of an administrator
//! - `handle.rs`: the ledger as the rest of the program sees it
//! - `inbox.rs`: the queue in front of the writer
//! - `pending.rs`: sums that are not written yet
//! - `price.rs`: what a slot costs
//! - `read/`: what the file says
//! - `schema.rs`: the tables, and how an older file gets them
//! - `write.rs`: writes sums and acts in one transaction
//! - `writer.rs`: the thread that owns the file

pub mod bounds;
mod calendar;
mod error;
mod event;
mod handle;
mod inbox;
mod pending;
mod price;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;
mod writer;

pub use calendar::BudgetPeriod;
pub use error::LedgerError;
pub use event::{AdminAct, UsageEvent};
pub use handle::{LedgerGuard, LedgerSettings, UsageLedger};
pub use price::Price;
pub use read::acts::{ActRow, AuditPage, AuditQuery, read_act_page, read_acts};
pub use read::budget_use::BudgetUse;
pub use read::csv::to_csv;
pub use read::query::{InvalidQuery, UsageQuery};
pub use read::report::{UsagePage, UsageRow, read_all_usage, read_usage};
pub use read::table::usage_table;
