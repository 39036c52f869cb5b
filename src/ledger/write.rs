//! Writes sums and acts in one transaction: all of them, or none.

use std::sync::{Arc, LazyLock};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::bounds::{HIGHEST_COUNT, LONGEST_TEXT};
use super::calendar::DAY;
use super::event::AdminAct;
use super::pending::{BudgetCounts, BudgetSubject, PendingRow, PendingUsage, UsageSubject};

/// The columns of counts in `usage`, in the order of `UsageCounts::columns`.
const USAGE_COUNTS: &[&str] = &[
    "requests",
    "refused",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "charged_tokens",
    "slot_micros",
    "first_byte_micros",
    "cost_nanos",
];

const BUDGET_COUNTS: &[&str] = &["tokens", "requests", "cost_nanos"];

/// Writes everything that is pending. A statement is prepared only where it has rows, which costs more than to execute it. All
/// but that for acts, which are rare, are kept for the next time.
///
/// # Errors
/// Whatever SQLite says; nothing is written then.
pub(super) fn write(connection: &mut Connection, pending: &PendingUsage) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    write_usage(&transaction, pending)?;
    write_budgets(&transaction, pending)?;
    write_idle(&transaction, pending)?;
    write_acts(&transaction, &pending.acts)?;
    transaction.commit()
}

/// Removes rows that are about times before this one, in seconds: those of the oldest day at most, so that a clock that is far
/// ahead for a while costs little. Acts are kept.
///
/// # Errors
/// Whatever SQLite says; nothing is removed then.
pub(super) fn prune(connection: &mut Connection, before: i64) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let oldest = "SELECT min(hour) FROM (SELECT min(hour) AS hour FROM usage UNION ALL SELECT min(hour) FROM idle)";
    let oldest: Option<i64> = transaction.query_row(oldest, [], |row| row.get(0))?;
    let before = oldest.map_or(before, |oldest| before.min(oldest + DAY));
    for sql in [
        "DELETE FROM usage WHERE hour < ?1",
        "DELETE FROM refusals WHERE hour < ?1",
        "DELETE FROM idle WHERE hour < ?1",
        "DELETE FROM budgets WHERE period = 'day' AND start < ?1",
        // A month that has begun before may not be over.
        "DELETE FROM budgets WHERE period = 'month' AND start < ?1 - 31 * 86400",
    ] {
        transaction.execute(sql, [before])?;
    }
    transaction.commit()
}

/// Returns the statement that adds counts to a row, or makes it.
fn upsert(table: &str, subject: &[&str], counts: &[&str]) -> String {
    let columns = [subject, counts].concat().join(", ");
    let places: Vec<String> = (1..=subject.len() + counts.len()).map(|number| format!("?{number}")).collect();
    let sum = |count: &&str| format!("{count} = min({table}.{count} + excluded.{count}, {HIGHEST_COUNT})");
    let sums: Vec<String> = counts.iter().map(sum).collect();
    let (places, subject, sums) = (places.join(", "), subject.join(", "), sums.join(", "));
    format!("INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT ({subject}) DO UPDATE SET {sums}")
}

fn write_usage(transaction: &Transaction<'_>, pending: &PendingUsage) -> rusqlite::Result<()> {
    if pending.rows.is_empty() {
        return Ok(());
    }
    static USAGE: LazyLock<String> =
        LazyLock::new(|| upsert("usage", &["hour", "key", "person", "model"], USAGE_COUNTS));
    let mut usage = transaction.prepare_cached(&USAGE)?;
    for (UsageSubject { hour, key, person, model }, PendingRow { counts, .. }) in &pending.rows {
        let [a, b, c, d, e, f, g, h, i] = counts.columns().map(number);
        usage.execute(params![hour, text(key), text(person), text(model), a, b, c, d, e, f, g, h, i])?;
    }
    if pending.rows.values().all(|row| row.refusals.is_empty()) {
        return Ok(());
    }
    static REFUSALS: LazyLock<String> =
        LazyLock::new(|| upsert("refusals", &["hour", "key", "person", "model", "code"], &["requests"]));
    let mut refusals = transaction.prepare_cached(&REFUSALS)?;
    for (UsageSubject { hour, key, person, model }, row) in &pending.rows {
        for (code, count) in &row.refusals {
            refusals.execute(params![hour, text(key), text(person), text(model), code, number(*count)])?;
        }
    }
    Ok(())
}

fn write_budgets(transaction: &Transaction<'_>, pending: &PendingUsage) -> rusqlite::Result<()> {
    let mut due = pending.budgets().into_iter().peekable();
    if due.peek().is_none() {
        return Ok(());
    }
    static BUDGETS: LazyLock<String> =
        LazyLock::new(|| upsert("budgets", &["period", "start", "key", "person"], BUDGET_COUNTS));
    let mut budgets = transaction.prepare_cached(&BUDGETS)?;
    for (BudgetSubject { period, start, key, person }, counts) in due {
        let BudgetCounts { tokens, requests, cost_nanos } = counts;
        let [tokens, requests, cost] = [tokens, requests, cost_nanos].map(number);
        budgets.execute(params![period.as_str(), start, shortened(&key), text(&person), tokens, requests, cost])?;
    }
    Ok(())
}

fn write_idle(transaction: &Transaction<'_>, pending: &PendingUsage) -> rusqlite::Result<()> {
    if pending.idle_nanos.is_empty() {
        return Ok(());
    }
    static IDLE: LazyLock<String> = LazyLock::new(|| upsert("idle", &["hour"], &["cost_nanos"]));
    let mut idle = transaction.prepare_cached(&IDLE)?;
    for (hour, nanos) in &pending.idle_nanos {
        idle.execute([hour, nanos])?;
    }
    Ok(())
}

fn write_acts(transaction: &Transaction<'_>, acts: &[AdminAct]) -> rusqlite::Result<()> {
    if acts.is_empty() {
        return Ok(());
    }
    let columns = "time, key, address, act, target, status, outcome";
    let sql = format!("INSERT INTO audit ({columns}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
    let mut audit = transaction.prepare(&sql)?;
    for AdminAct { time, key, address, act, target, status, outcome } in acts {
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        let key = shortened(key.as_deref().unwrap_or_default());
        let time = format!("{time:.3}");
        audit.execute(params![time, key, address, act, shortened(target), status, outcome])?;
    }
    Ok(())
}

fn text(text: &Option<Arc<str>>) -> &str {
    text.as_deref().map_or("", shortened)
}

/// Returns the part of a text that fits into a column.
fn shortened(text: &str) -> &str {
    let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Returns a count as SQLite stores it.
fn number(count: u64) -> i64 {
    i64::try_from(count.min(HIGHEST_COUNT)).unwrap_or(i64::MAX)
}
