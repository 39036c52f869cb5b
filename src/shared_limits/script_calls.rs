//! The scripts: their texts, the keys and arguments of each call, and what the answers mean.
//!
//! All keys of an API key have the same hash tag, so that they lie on one node of a cluster. A name of a key is
//! `llamagate:{KEY_ID}:` and what it holds.

use jiff::Timestamp;
use redis::{Cmd, FromRedisValue as _, ParsingError, RedisError, RedisResult, Value};

use super::bounds::HOLD_TERM;
use super::held::HeldLimits;
use super::orders::{AccountSums, HoldId, LimitTake, LimitVerdict, LimitsTaken, Settlement, ToldAccount, UseSums};

/// One of the scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreScript {
    Take,
    Settle,
    Renew,
}

/// How a script is named in a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum ScriptName<'a> {
    /// By the hash of its text, which the server has.
    Hash(&'a str),
    /// By its text.
    Text,
}

/// The largest number that a double holds exactly, like all smaller ones.
const MOST: u64 = (1 << 53) - 1;

impl StoreScript {
    pub(super) const ALL: [Self; 3] = [Self::Take, Self::Settle, Self::Renew];

    /// Returns the whole text.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Take => concat!(include_str!("scripts/common.lua"), "\n", include_str!("scripts/take.lua")),
            Self::Settle => concat!(include_str!("scripts/common.lua"), "\n", include_str!("scripts/settle.lua")),
            Self::Renew => concat!(include_str!("scripts/common.lua"), "\n", include_str!("scripts/renew.lua")),
        }
    }

    /// Returns the beginning of a call: the script and its keys.
    fn call(self, name: ScriptName<'_>, keys: &[String]) -> Cmd {
        let mut call = match name {
            ScriptName::Hash(hash) => {
                let mut call = redis::cmd("EVALSHA");
                call.arg(hash);
                call
            }
            ScriptName::Text => {
                let mut call = redis::cmd("EVAL");
                call.arg(self.text());
                call
            }
        };
        call.arg(keys.len()).arg(keys);
        call
    }
}

/// What can be sent as a call of a script.
pub(super) trait ScriptCall {
    const SCRIPT: StoreScript;

    /// Returns the call, from this gateway.
    fn command(&self, name: ScriptName<'_>, gateway: &str) -> Cmd;
}

impl ScriptCall for LimitTake {
    const SCRIPT: StoreScript = StoreScript::Take;

    fn command(&self, name: ScriptName<'_>, gateway: &str) -> Cmd {
        let keys = keys_of(&self.key, self.accounts.iter().map(|account| &account.told));
        let mut call = Self::SCRIPT.call(name, &keys);
        let (price, size) = self.request.map_or((0, 0), |request| (request.price, request.size));
        call.arg(gateway).arg(price).arg(exact(size)).arg(exact(self.requests_known));
        call.arg(exact(self.tokens_needed.unwrap_or(0))).arg(exact(self.tokens_known));
        call.arg(hold_name(self.hold, gateway)).arg(term()).arg(exact(self.most_holds.unwrap_or(0)));
        call.arg(self.accounts.len());
        for account in &self.accounts {
            call.arg(exact(account.tokens));
            for limit in account.limits {
                match limit {
                    Some(limit) => call.arg(exact(limit)),
                    None => call.arg(-1),
                };
            }
            add_told(&mut call, &account.told);
        }
        call
    }
}

impl ScriptCall for Settlement {
    const SCRIPT: StoreScript = StoreScript::Settle;

    fn command(&self, name: ScriptName<'_>, gateway: &str) -> Cmd {
        let mut call = Self::SCRIPT.call(name, &keys_of(&self.key, self.accounts.iter()));
        // The bucket has refilled since then.
        let waited = u64::try_from(self.ended.elapsed().as_nanos()).unwrap_or(u64::MAX);
        call.arg(gateway).arg(exact(self.refund)).arg(exact(self.token_cost.saturating_sub(waited)));
        call.arg(hold_name(self.hold, gateway)).arg(self.accounts.len());
        self.accounts.iter().for_each(|told| add_told(&mut call, told));
        call
    }
}

impl ScriptCall for (HoldId, HeldLimits) {
    const SCRIPT: StoreScript = StoreScript::Renew;

    fn command(&self, name: ScriptName<'_>, gateway: &str) -> Cmd {
        let (hold, HeldLimits { key, accounts }) = self;
        let keys: Vec<String> = accounts.iter().flat_map(|(person, _)| hold_keys(key, person.as_deref())).collect();
        let mut call = Self::SCRIPT.call(name, &keys);
        call.arg(hold_name(Some(*hold), gateway)).arg(term());
        for (_, tokens) in accounts {
            match tokens {
                Some(tokens) => call.arg(exact(*tokens)),
                None => call.arg(""),
            };
        }
        call
    }
}

/// Returns a number that Lua reads as it is.
fn exact(number: u64) -> u64 {
    number.min(MOST)
}

fn term() -> u64 {
    HOLD_TERM.as_secs() * 1000
}

fn hold_name(hold: Option<HoldId>, gateway: &str) -> String {
    hold.map_or_else(String::new, |HoldId(number)| format!("{gateway}:{number}"))
}

/// Returns the keys of a key's buckets and accounts. Without budgets, the account of the key has its holds alone.
fn keys_of<'a>(key: &str, accounts: impl Iterator<Item = &'a ToldAccount>) -> Vec<String> {
    let mut keys = ["requests", "tokens"].map(|bucket| format!("llamagate:{{{key}}}:{bucket}")).to_vec();
    for told in accounts {
        let person = told.person.as_deref();
        keys.extend(hold_keys(key, person));
        keys.push(format!("{}day:{}", prefix(key, person), told.day.start));
        keys.push(format!("{}month:{}", prefix(key, person), told.month.start));
    }
    if keys.len() == 2 {
        keys.extend(hold_keys(key, None));
    }
    keys
}

/// Returns the keys of the holds of an account, and of what they have reserved.
fn hold_keys(key: &str, person: Option<&str>) -> [String; 2] {
    ["holds", "reserved"].map(|name| format!("{}{name}", prefix(key, person)))
}

fn prefix(key: &str, person: Option<&str>) -> String {
    match person {
        Some(person) => format!("llamagate:{{{key}}}:person:{person}:"),
        None => format!("llamagate:{{{key}}}:"),
    }
}

fn add_told(call: &mut Cmd, told: &ToldAccount) {
    for period in [&told.day, &told.month] {
        for UseSums { requests, tokens, cost } in [period.own, period.known] {
            call.arg(exact(requests)).arg(exact(tokens)).arg(exact(cost));
        }
    }
}

/// Reads the answer to a take that asked about this many accounts.
///
/// # Errors
/// The answer is none of this script's.
pub(super) fn read_taken(answer: Value, accounts: usize) -> RedisResult<LimitsTaken> {
    let numbers = Vec::<i64>::from_redis_value(answer)?;
    let unexpected = || RedisError::from(ParsingError::from("an answer that is none of the script's".to_owned()));
    let mut numbers = numbers.into_iter().map(|number| u64::try_from(number).unwrap_or(0));
    let mut next = || numbers.next().ok_or_else(unexpected);
    let verdict = match next()? {
        0 => LimitVerdict::Taken,
        1 => LimitVerdict::Requests,
        2 => LimitVerdict::Tokens,
        3 => LimitVerdict::Holds,
        place => LimitVerdict::Account(usize::try_from(place - 4).unwrap_or(usize::MAX)),
    };
    let micros = i64::try_from(next()?).unwrap_or(i64::MAX);
    let time = Timestamp::from_microsecond(micros).map_err(|_| unexpected())?;
    let (requests_used, tokens_used) = (next()?, next()?);
    let mut read_account = || {
        let reserved = UseSums { requests: next()?, tokens: next()?, cost: 0 };
        let mut sums = || Ok::<_, RedisError>(UseSums { requests: next()?, tokens: next()?, cost: next()? });
        Ok(AccountSums { reserved, day: sums()?, month: sums()? })
    };
    let accounts = (0..accounts).map(|_| read_account()).collect::<RedisResult<Vec<_>>>()?;
    Ok(LimitsTaken { verdict, time, requests_used, tokens_used, accounts })
}
