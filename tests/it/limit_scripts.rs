//! The scripts of the limits store, on a real server, against the buckets that each replica counts with.

use std::num::{NonZeroU32, NonZeroU64};

use governor::Quota;
use llamagate::rate_bucket::{Bucket, DebtBucket, MINUTE};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::support::valkey::Valkey;

const TAKE: &str = concat!(
    include_str!("../../src/shared_limits/scripts/common.lua"),
    include_str!("../../src/shared_limits/scripts/take.lua")
);
const SETTLE: &str = concat!(
    include_str!("../../src/shared_limits/scripts/common.lua"),
    include_str!("../../src/shared_limits/scripts/settle.lua")
);

/// How many sequences each property is tried with; more with LLAMAGATE_TEST_SEQUENCES.
fn sequences() -> Config {
    let given = std::env::var("LLAMAGATE_TEST_SEQUENCES").ok().and_then(|number| number.parse().ok());
    Config { cases: given.unwrap_or(24), failure_persistence: None, ..Config::default() }
}

/// A server, and the name of the key of one sequence.
struct Scripts {
    connection: redis::Connection,
    key: String,
}

/// The sums of an account: what is reserved (requests, tokens), the day and the month (requests, tokens, cost).
type Sums = [i64; 8];

/// What a gateway tells of an account: its name, and what it has used of the day and of the month since its start. All that it
/// knows is that.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    own: [u64; 3],
    known: [u64; 3],
}

impl Told {
    fn arguments(&self) -> Vec<String> {
        let period = [self.own, self.known].concat();
        period.iter().chain(&period).map(u64::to_string).collect()
    }
}

impl Scripts {
    fn new(store: &Valkey, key: &str) -> Self {
        Self { connection: store.connect(), key: format!("{{{key}}}") }
    }

    fn call(&mut self, script: &str, arguments: &[String]) -> redis::Value {
        let keys =
            ["requests", "tokens", "holds", "reserved", "day", "month"].map(|name| format!("{}:{name}", self.key));
        let mut call = redis::cmd("EVAL");
        call.arg(script).arg(keys.len()).arg(&keys).arg(arguments);
        call.query(&mut self.connection).unwrap()
    }

    /// Takes one request of a limit a minute, and looks at one on tokens. Returns the verdict, the time in nanoseconds, and
    /// what is used of both.
    fn take_minute(&mut self, price: u64, size: u64, needed: u64) -> (i64, u64, u64, u64) {
        let numbers = [price, size, 0, needed, 0].map(|number| number.to_string());
        let arguments =
            [vec!["gate".to_owned()], numbers.to_vec(), ["", "10000", "0", "0"].map(str::to_owned).to_vec()];
        let answer: Vec<i64> = redis::from_redis_value(self.call(TAKE, &arguments.concat())).unwrap();
        (answer[0], answer[1] as u64 * 1000, answer[2] as u64, answer[3] as u64)
    }

    /// Ends a request. Returns the time in nanoseconds.
    fn settle(&mut self, gateway: &str, refund: u64, cost: u64, hold: &str, told: Option<&Told>) -> u64 {
        let mut arguments = vec![gateway.to_owned(), refund.to_string(), cost.to_string(), hold.to_owned()];
        arguments.push(usize::from(told.is_some()).to_string());
        arguments.extend(told.into_iter().flat_map(Told::arguments));
        let time: u64 = redis::from_redis_value(self.call(SETTLE, &arguments)).unwrap();
        time * 1000
    }

    /// Reserves tokens of a budget. Returns the verdict and the sums.
    fn reserve(&mut self, gateway: &str, hold: &str, tokens: u64, limits: [i64; 4], told: &Told) -> (i64, Sums) {
        let mut arguments: Vec<String> = ["0", "0", "0", "0", "0"].map(str::to_owned).to_vec();
        arguments.insert(0, gateway.to_owned());
        arguments.extend([hold.to_owned(), "10000".to_owned(), "0".to_owned(), "1".to_owned(), tokens.to_string()]);
        arguments.extend(limits.map(|limit| limit.to_string()));
        arguments.extend(told.arguments());
        let answer: Vec<i64> = redis::from_redis_value(self.call(TAKE, &arguments)).unwrap();
        (answer[0], answer[4..].try_into().unwrap())
    }
}

#[derive(Debug, Clone)]
enum BucketStep {
    Take,
    Refund,
    Spend(u64),
}

fn bucket_steps() -> impl Strategy<Value = Vec<BucketStep>> {
    let step = prop_oneof![
        4 => Just(BucketStep::Take),
        1 => Just(BucketStep::Refund),
        2 => (0..3000_u64).prop_map(BucketStep::Spend),
    ];
    prop::collection::vec(step, 1..120)
}

/// The store's clock goes on between two steps, by what a round trip takes: high limits refill much meanwhile, low ones
/// nothing.
#[test]
fn the_scripts_decide_as_the_buckets_of_a_replica_do() {
    let store = Valkey::start();
    let limits = prop_oneof![1..50_u32, 1_000..100_000_u32, 1_000_000..u32::MAX];
    let tokens = prop_oneof![1..5_000_u64, 1_000_000..1_000_000_000_000_u64];
    let mut sequence = 0;
    let run = |(limit, tokens, steps): (u32, u64, Vec<BucketStep>)| {
        sequence += 1;
        let mut scripts = Scripts::new(&store, &format!("buckets-{sequence}"));
        let (limit, tokens) = (NonZeroU32::new(limit).unwrap(), NonZeroU64::new(tokens).unwrap());
        let quota = Quota::per_minute(limit);
        let price = Bucket::price(limit);
        let size = price * u64::from(limit.get());
        let (mut requests, debts) = (Bucket::default(), DebtBucket::default());
        for step in steps {
            match step {
                BucketStep::Take => {
                    let (verdict, now, used, tokens_used) =
                        scripts.take_minute(price, size, DebtBucket::least_left(tokens));
                    let are_tokens_left = debts.check(tokens, now).is_ok();
                    let expected = match requests.check(quota, now) {
                        Err(_) => 1,
                        Ok(_) if !are_tokens_left => 2,
                        Ok(_) => 0,
                    };
                    prop_assert_eq!(verdict, expected);
                    if verdict == 0 {
                        requests.take(quota, now).unwrap();
                    }
                    prop_assert_eq!(used, requests.full_at().saturating_sub(now));
                    prop_assert_eq!(tokens_used, debts.full_at().saturating_sub(now));
                }
                BucketStep::Refund => {
                    let now = scripts.settle("gate", price, 0, "", None);
                    requests = Bucket::with_used(requests.full_at().saturating_sub(price).max(now));
                }
                BucketStep::Spend(amount) => {
                    let cost = DebtBucket::price(amount, tokens).min(10 * MINUTE);
                    let now = scripts.settle("gate", 0, cost, "", None);
                    if cost > 0 {
                        // The same cost, as a limit of a unit a nanosecond has it.
                        debts.charge(cost, NonZeroU64::new(MINUTE).unwrap(), std::time::Duration::MAX, now);
                    }
                }
            }
        }
        Ok(())
    };
    let run = std::cell::RefCell::new(run);
    TestRunner::new(sequences()).run(&(limits, tokens, bucket_steps()), |input| run.borrow_mut()(input)).unwrap();
}

#[derive(Debug, Clone)]
enum BudgetStep {
    /// A gateway reserves this many tokens.
    Reserve(usize, u64),
    /// The oldest request in flight of a gateway ends with this many tokens.
    End(usize, u64),
    /// The end of a request is not told.
    Lose(usize, u64),
    /// A gateway tells its end twice.
    EndTwice(usize, u64),
}

/// Whatever gateways do, a request is admitted exactly if a plain list of all that was told allows it.
#[test]
fn the_scripts_keep_budgets_as_a_plain_list_does() {
    let store = Valkey::start();
    let gateway = 0..3_usize;
    let step = prop_oneof![
        4 => (gateway.clone(), 0..60_u64).prop_map(|(of, tokens)| BudgetStep::Reserve(of, tokens)),
        2 => (gateway.clone(), 0..60_u64).prop_map(|(of, tokens)| BudgetStep::End(of, tokens)),
        1 => (gateway.clone(), 0..60_u64).prop_map(|(of, tokens)| BudgetStep::Lose(of, tokens)),
        1 => (gateway, 0..60_u64).prop_map(|(of, tokens)| BudgetStep::EndTwice(of, tokens)),
    ];
    let mut sequence = 0;
    let run = |(requests, tokens, steps): (u64, u64, Vec<BudgetStep>)| {
        sequence += 1;
        let mut scripts = Scripts::new(&store, &format!("budgets-{sequence}"));
        // What each gateway has used, what of it the store was told, and its requests in flight as it knows them.
        let (mut own, mut told) = ([Told::default(); 3], [[0_u64; 3]; 3]);
        let mut in_flight: [Vec<(String, u64)>; 3] = Default::default();
        let mut reserved: Vec<(String, u64)> = Vec::new();
        let mut number = 0;
        for step in steps {
            match step {
                BudgetStep::Reserve(of, wanted) => {
                    number += 1;
                    let hold = format!("gate-{of}:{number}");
                    let limits = [requests as i64, tokens as i64, -1, -1];
                    let (verdict, sums) = scripts.reserve(&format!("gate-{of}"), &hold, wanted, limits, &own[of]);
                    told[of] = own[of].own;
                    let sum = |place: usize| told.iter().map(|told| told[place]).sum::<u64>();
                    let held: u64 = reserved.iter().map(|(_, tokens)| tokens).sum();
                    let left = tokens.saturating_sub(sum(1)).saturating_sub(held);
                    let fits = sum(0) + (reserved.len() as u64) < requests && left > 0 && wanted <= left;
                    prop_assert_eq!(verdict, if fits { 0 } else { 4 });
                    if fits {
                        reserved.push((hold.clone(), wanted));
                        in_flight[of].push((hold, wanted));
                    }
                    let held: u64 = reserved.iter().map(|(_, tokens)| tokens).sum();
                    let expected = [reserved.len() as u64, held, sum(0), sum(1), 0, sum(0), sum(1), 0];
                    prop_assert_eq!(sums, expected.map(|number| number as i64));
                }
                BudgetStep::End(of, used) | BudgetStep::EndTwice(of, used) | BudgetStep::Lose(of, used)
                    if !in_flight[of].is_empty() =>
                {
                    let (hold, _) = in_flight[of].remove(0);
                    for sums in [&mut own[of].own, &mut own[of].known] {
                        sums[0] += 1;
                        sums[1] += used;
                    }
                    let times = match step {
                        BudgetStep::Lose(..) => 0,
                        BudgetStep::EndTwice(..) => 2,
                        _ => 1,
                    };
                    for _ in 0..times {
                        scripts.settle(&format!("gate-{of}"), 0, 0, &hold, Some(&own[of]));
                        told[of] = own[of].own;
                        reserved.retain(|(held, _)| *held != hold);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    };
    let run = std::cell::RefCell::new(run);
    let input = (1..20_u64, 1..400_u64, prop::collection::vec(step, 1..60));
    TestRunner::new(sequences()).run(&input, |input| run.borrow_mut()(input)).unwrap();
}

#[test]
fn what_a_gateway_knows_from_before_its_start_raises_the_sum_and_is_not_added_to_it() {
    let store = Valkey::start();
    let mut scripts = Scripts::new(&store, "known");
    let told = |own, known| Told { own: [own, own, 0], known: [known, known, 0] };
    let mut ask = |gateway: &str, told: &Told| scripts.reserve(gateway, "", 0, [-1; 4], told).1[2];
    assert_eq!(ask("one", &told(3, 3)), 3);
    assert_eq!(ask("two", &told(0, 2)), 3, "the two are among the three");
    assert_eq!(ask("two", &told(1, 3)), 4);
    assert_eq!(ask("three", &told(0, 9)), 9);
    assert_eq!(ask("one", &told(4, 4)), 10);
    assert_eq!(ask("one", &told(4, 4)), 10, "told again");
    assert_eq!(ask("one", &told(2, 2)), 10, "told late");
}

#[test]
fn a_store_clock_that_was_set_back_neither_refills_nor_stops_a_bucket() {
    let store = Valkey::start();
    let mut scripts = Scripts::new(&store, "clock");
    let price = MINUTE / 60;
    let (_, now, used, _) = scripts.take_minute(price, MINUTE, 0);
    assert_eq!(used, price);
    // As if it had been an hour later then.
    let bucket = "{clock}:requests";
    redis::cmd("HSET").arg(bucket).arg("at").arg(now / 1000 + 3_600_000_000).exec(&mut scripts.connection).unwrap();
    let (verdict, now, used, _) = scripts.take_minute(price, MINUTE, 0);
    assert_eq!((verdict, used), (0, 2 * price), "nothing was refilled");
    let (_, later, used, _) = scripts.take_minute(price, MINUTE, 0);
    assert_eq!(used, 3 * price - (later - now), "and it refills from now on");
}

#[test]
fn a_full_bucket_refills_after_the_store_clock_was_set_back_though_every_take_is_refused() {
    let store = Valkey::start();
    let mut scripts = Scripts::new(&store, "full");
    // Of requests two a minute are allowed; of tokens none is left.
    for (bucket, price, needed, expected) in [("requests", MINUTE / 2, 0, 1), ("tokens", 0, 1, 2)] {
        let (_, now, ..) = scripts.take_minute(0, MINUTE, 0);
        let bucket = format!("{}:{bucket}", scripts.key);
        let ahead = now / 1000 + 3_600_000_000;
        let mut set = redis::cmd("HSET");
        set.arg(&bucket).arg("at").arg(ahead).arg("used").arg(MINUTE).exec(&mut scripts.connection).unwrap();
        let (verdict, now, ..) = scripts.take_minute(price, MINUTE, needed);
        assert_eq!(verdict, expected);
        let at: u64 = redis::cmd("HGET").arg(&bucket).arg("at").query(&mut scripts.connection).unwrap();
        assert_eq!(at * 1000, now, "{bucket} refills from the refusal on");
    }
}

#[test]
fn starts_of_a_gateway_without_end_do_not_fill_the_store() {
    let store = Valkey::start();
    let mut scripts = Scripts::new(&store, "starts");
    let told = |own, known| Told { own: [own; 3], known: [known; 3] };
    assert_eq!(scripts.reserve("first", "", 0, [-1; 4], &told(1, 1)).1[5], 1);
    let month = format!("{}:month", scripts.key);
    let fill = "for i = 1, 30000 do redis.call('HSET', KEYS[1], 'earlier-' .. i, 1) end";
    redis::cmd("EVAL").arg(fill).arg(1).arg(&month).exec(&mut scripts.connection).unwrap();
    let fields =
        |scripts: &mut Scripts| -> u64 { redis::cmd("HLEN").arg(&month).query(&mut scripts.connection).unwrap() };
    let before = fields(&mut scripts);
    assert_eq!(scripts.reserve("late", "", 0, [-1; 4], &told(2, 5)).1[5], 5, "what it knows counts");
    assert_eq!(fields(&mut scripts), before);
    assert_eq!(scripts.reserve("first", "", 0, [-1; 4], &told(4, 4)).1[5], 8, "those who are known go on");
    assert_eq!(fields(&mut scripts), before);
}
