//! Budgets of keys and of the people behind them: requests, tokens and cost in a day or a month of the calendar.
//!
//! What a request may use is reserved when it is admitted, and settled by what it used when its record closes; a request
//! that is refused after that uses nothing. Owns what is used and what is reserved. The limits come from the key file with
//! each request; what was used before the start comes from the ledger.
//!
//! - `account.rs`: what one key or person has used and reserved
//! - `accounts.rs`: the accounts of all keys and people
//! - `reservation.rs`: what one request holds until it ends

pub(crate) mod account;
pub(crate) mod accounts;
pub(crate) mod reservation;
