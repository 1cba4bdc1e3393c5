//! Reconciles the figures of limits and ledger with what a provider counted:
//!
//! ```sh
//! cargo bench --bench limits                   # 10,000 requests, 200 clients
//! cargo bench --bench limits -- 2000 50        # requests, clients
//! ```
//!
//! A real daemon, a real HTTP provider double that counts what it bills, clients
//! that go away in the middle, and a fault in every seventeenth answer. Ends
//! with an error where the two sides do not agree to the token.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a client and a server of its own"
)]

#[path = "../tests/support/mod.rs"]
mod support;

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .filter_map(|word| word.parse().ok())
        .collect();
    let requests = numbers.first().copied().unwrap_or(10_000);
    let clients = numbers.get(1).copied().unwrap_or(200);
    let began = std::time::Instant::now();
    let found = support::billed::reconcile(clients, requests);
    println!(
        "{requests} requests of {clients} clients in {:.1?}",
        began.elapsed()
    );
    println!(
        "{:24} {:>10} {:>12} {:>14}",
        "", "legs", "tokens", "micro-units"
    );
    let line = |name: &str, legs: String, tokens: u64, micro: u64| {
        println!("{name:24} {legs:>10} {tokens:>12} {micro:>14}");
    };
    for (name, sum) in [
        ("provider: told", found.told),
        ("provider: not told", found.untold),
        ("provider: refused", found.refused),
    ] {
        line(name, sum.legs.to_string(), sum.tokens, sum.micro);
    }
    line(
        "limits: known",
        String::new(),
        found.known[0],
        found.known[1],
    );
    line(
        "limits: estimated",
        String::new(),
        found.estimated[0],
        found.estimated[1],
    );
    println!("ledger: tokens of whole answers {}", found.ledger_tokens);
    println!("ledger: rows {:?}", found.rows);
    found.check(requests);
    println!("both sides agree to the token");
}
