//! What holds whatever comes in whatever order.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;

use super::book::{Book, Claim, Shortfall};
use super::*;
use crate::config::limit::{Applies, Which};
use nearfar_domain::events::Usage;
use nearfar_domain::ids::TargetId;
use nearfar_domain::limit::Measure;
use nearfar_domain::price::{Price, Sizes};

const DAY_MS: i64 = 86_400_000;

fn limit(name: &str, measure: Measure, most: u64) -> Limit {
    Limit {
        name: name.to_owned(),
        applies: Applies::default(),
        measure,
        most,
        soft_permille: None,
        shared: true,
    }
}

fn each_tenant(mut limit: Limit) -> Limit {
    limit.applies.tenant = Some(Which::Each);
    limit
}

fn who(tenant: &str) -> Who {
    Who {
        key: None,
        tenant: tenant.into(),
        feature: "voice".into(),
        endpoint: "openai.chat",
    }
}

fn at(ms: u64) -> Moment {
    Moment {
        unix_ms: 20_000 * DAY_MS + ms as i64,
        ticks_ms: ms,
    }
}

fn claims(amounts: &[u64]) -> Vec<Claim> {
    let each = amounts.iter().enumerate();
    each.map(|(rule, amount)| Claim {
        rule,
        subject: "".into(),
        amount: *amount,
    })
    .collect()
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// Reserve these amounts.
    Reserve([u64; 4]),
    /// Settle the oldest reservation with this share of it, in percent.
    Settle(u64),
    /// Time goes on.
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => [1..40u64, 1..400u64, 1..2u64, 0..500u64].prop_map(Step::Reserve),
        2 => (0..=100u64).prop_map(Step::Settle),
        1 => (0..40_000u64).prop_map(Step::Wait),
        1 => (0..40u64).prop_map(|hours| Step::Wait(hours * 3_600_000)),
    ]
}

proptest! {
    /// Used and held never pass a limit, whatever is reserved and settled in
    /// whatever order, and a reservation is all of its claims or none.
    #[test]
    fn no_limit_is_ever_passed(steps in proptest::collection::vec(any_step(), 1..120)) {
        let measures = [
            Measure::TokensPerMinute,
            Measure::TokensPerDay,
            Measure::ConcurrentRequests,
            Measure::SpendMicroPerMonth,
        ];
        let most = [100, 900, 3, 1_500];
        let limits: Arc<[Limit]> = measures.iter().zip(most)
            .map(|(measure, most)| limit(measure.as_str(), *measure, most))
            .collect();
        let mut book = Book::new(limits);
        let mut held: std::collections::VecDeque<Vec<Claim>> = Default::default();
        let mut now = 0;
        let subject: Arc<str> = "".into();
        for step in steps {
            match step {
                Step::Wait(ms) => now += ms,
                Step::Settle(percent) => {
                    for claim in held.pop_front().unwrap_or_default() {
                        let used = claim.amount * percent / 100;
                        book.settle(&claim, used, false, at(now));
                    }
                }
                Step::Reserve(amounts) => {
                    let before: Vec<_> = (0..4)
                        .map(|rule| book.figures(rule, &subject, at(now)))
                        .collect();
                    let mut wanted = claims(&amounts);
                    match book.reserve(&mut wanted, at(now)) {
                        Ok(()) => held.push_back(wanted),
                        Err((place, why)) => {
                            for (rule, figures) in before.iter().enumerate() {
                                prop_assert_eq!(*figures, book.figures(rule, &subject, at(now)));
                            }
                            let figures = before[place];
                            prop_assert!(figures.taken() + amounts[place] > most[place]);
                            // The time that is told is the right one.
                            if let Shortfall::UsedUp { for_ms } = why {
                                let later = book.shortfall(&wanted[place], at(now + for_ms));
                                let used_up = matches!(later, Some(Shortfall::UsedUp { .. }));
                                prop_assert!(!used_up, "{later:?}");
                            }
                        }
                    }
                }
            }
            for (rule, most) in most.iter().enumerate() {
                let figures = book.figures(rule, &subject, at(now));
                prop_assert!(figures.taken() <= *most, "{figures:?} of {most}");
            }
        }
        // What was held is all given back.
        for claim in held.into_iter().flatten() {
            book.settle(&claim, 0, false, at(now));
        }
        for rule in 0..4 {
            prop_assert_eq!(book.figures(rule, &subject, at(now)).reserved, 0);
        }
    }

    /// A budget that is restored from what was kept stands where it stood, what
    /// was under way counted in full.
    #[test]
    fn what_is_kept_is_what_was_taken(
        amounts in proptest::collection::vec((0..100u64, any::<bool>()), 0..20),
        down_ms in 0..200_000_000u64,
    ) {
        let limits: Arc<[Limit]> = vec![
            limit("day", Measure::TokensPerDay, u64::MAX),
            limit("month", Measure::SpendMicroPerMonth, u64::MAX),
        ].into();
        let mut book = Book::new(Arc::clone(&limits));
        for (amount, settled) in &amounts {
            let mut wanted = claims(&[*amount, *amount]);
            book.reserve(&mut wanted, at(0)).unwrap();
            for claim in wanted.iter().filter(|_| *settled) {
                book.settle(claim, *amount, false, at(0));
            }
        }
        let kept = book.take_changes(at(0));
        prop_assert!(book.take_changes(at(0)).is_empty());
        book.keep_all();
        prop_assert_eq!(book.take_changes(at(0)).len(), kept.len());
        let mut next = Book::new(limits);
        let later = at(down_ms);
        for one in &kept {
            next.restore(one, later);
        }
        for rule in 0..2 {
            let was = book.figures(rule, &"".into(), later);
            let is = next.figures(rule, &"".into(), later);
            // What is under way counts on the day on which it ends.
            let held = if was.used == 0 && is.used == 0 { 0 } else { was.reserved };
            prop_assert_eq!(is.used, was.used + held);
        }
    }
}

#[test]
fn a_minute_takes_no_more_than_is_allowed_and_says_when_it_does_again() {
    let mut book = Book::new(vec![limit("r", Measure::RequestsPerMinute, 3)].into());
    for second in [0, 10, 20] {
        let mut one = claims(&[1]);
        book.reserve(&mut one, at(second * 1_000)).unwrap();
    }
    let mut one = claims(&[1]);
    let refused = book.reserve(&mut one, at(30_000));
    let why = Shortfall::UsedUp { for_ms: 31_000 };
    assert_eq!(refused, Err((0, why)));
    assert!(book.reserve(&mut one, at(61_000)).is_ok());
}

#[test]
fn what_alone_is_too_much_is_told_apart_from_what_is_used_up_and_held() {
    let mut book = Book::new(vec![limit("t", Measure::TokensPerDay, 100)].into());
    let ask = |book: &mut Book, amount| book.reserve(&mut claims(&[amount]), at(0));
    assert_eq!(ask(&mut book, 101), Err((0, Shortfall::TooLarge)));
    ask(&mut book, 60).unwrap();
    assert_eq!(ask(&mut book, 60), Err((0, Shortfall::Held)));
    book.settle(&claims(&[60])[0], 60, false, at(0));
    let refused = ask(&mut book, 60).unwrap_err();
    assert_eq!(
        refused.1,
        Shortfall::UsedUp {
            for_ms: DAY_MS as u64
        }
    );
    // What takes nothing is not kept out by a limit that is used up.
    ask(&mut book, 0).unwrap();
    // A limit of nothing never has room: nobody is told to wait for it.
    let mut shut = Book::new(vec![limit("t", Measure::ConcurrentRequests, 0)].into());
    assert_eq!(ask(&mut shut, 1), Err((0, Shortfall::TooLarge)));
}

#[test]
fn strangers_without_end_share_a_counter() {
    let rule = each_tenant(limit("t", Measure::TokensPerDay, 10));
    let mut book = Book::new(vec![rule].into());
    let claim = |name: String, amount| Claim {
        rule: 0,
        subject: name.into(),
        amount,
    };
    for number in 0..4_096 {
        let mut one = [claim(format!("t{number}"), 5)];
        book.reserve(&mut one, at(0)).unwrap();
    }
    let mut stranger = [claim("another".into(), 6)];
    book.reserve(&mut stranger, at(0)).unwrap();
    assert_eq!(&*stranger[0].subject, "(others)");
    assert!(
        book.reserve(&mut [claim("and one more".into(), 6)], at(0))
            .is_err()
    );
    // Those that are known have their own.
    book.reserve(&mut [claim("t7".into(), 5)], at(0)).unwrap();
    assert_eq!(book.places().count(), 4_097);
}

const PRICE: Price = Price::plain(1_000_000, 1_000_000, 2_000_000);

fn sizes() -> Sizes {
    Sizes {
        prompt: 8,
        most_prompt: 10,
        completion: 5,
        most_completion: Some(20),
        writes_cache: false,
    }
}

fn remote() -> TargetId {
    TargetId::remote("openai", "mini").unwrap()
}

fn wanted<'a>(target: &'a TargetId, price: Option<Price>) -> Wanted<'a> {
    Wanted {
        target,
        price,
        sizes: sizes(),
    }
}

fn usage(prompt: u64, completion: Option<u64>) -> Usage {
    Usage {
        prompt: Some(prompt),
        completion,
        ..Usage::default()
    }
}

/// Tokens of the day and money of the month, each of 1,000.
fn tokens_and_money() -> Arc<Limits> {
    let limits = vec![
        limit("tokens", Measure::TokensPerDay, 1_000),
        limit("money", Measure::SpendMicroPerMonth, 1_000),
    ];
    Limits::new(limits, 4_096)
}

fn figures(limits: &Limits) -> Vec<(u64, u64, u64)> {
    let standings = limits.standings();
    standings
        .iter()
        .map(|one| (one.used, one.estimated, one.reserved))
        .collect()
}

#[tokio::test]
async fn a_leg_is_settled_at_what_it_told_and_else_at_its_reserve() {
    let target = remote();
    let asked = wanted(&target, Some(PRICE));
    let limits = tokens_and_money();
    let mut leg = limits.reserve(&who("a"), &asked).await.unwrap();
    assert_eq!(figures(&limits), [(0, 0, 30), (0, 0, 50)]);
    leg.begin();
    leg.told(&usage(11, Some(4)));
    drop(leg);
    assert_eq!(figures(&limits), [(15, 0, 0), (19, 0, 0)]);

    // Never begun: nothing was used.
    drop(limits.reserve(&who("a"), &asked).await.unwrap());
    assert_eq!(figures(&limits), [(15, 0, 0), (19, 0, 0)]);

    // Cancelled, and nobody told; then a count that is left out.
    let mut leg = limits.reserve(&who("a"), &asked).await.unwrap();
    leg.begin();
    drop(leg);
    assert_eq!(figures(&limits), [(45, 30, 0), (69, 50, 0)]);
    let mut leg = limits.reserve(&who("a"), &asked).await.unwrap();
    leg.begin();
    leg.told(&usage(11, None));
    drop(leg);
    assert_eq!(figures(&limits), [(75, 60, 0), (119, 100, 0)]);

    // Refused by its target.
    let mut leg = limits.reserve(&who("a"), &asked).await.unwrap();
    leg.begin();
    leg.free();
    drop(leg);
    assert_eq!(figures(&limits), [(75, 60, 0), (119, 100, 0)]);
    let estimated: Vec<u64> = limits.tallies().iter().map(|one| one.estimated).collect();
    assert_eq!(estimated, [2, 2]);
}

#[tokio::test]
async fn an_unknown_price_is_not_nothing() {
    let target = remote();
    let limits = tokens_and_money();
    let denied = limits.reserve(&who("a"), &wanted(&target, None)).await;
    let denied = denied.unwrap_err();
    assert_eq!((denied.limit.as_str(), denied.shortfall), ("money", None));
    assert!(denied.message().contains("price"), "{}", denied.message());
    assert!(denied.is_final());
    assert_eq!(figures(&limits), [(0, 0, 0), (0, 0, 0)]);
    // A free target takes no money, also when there is none.
    let here = TargetId::local("m");
    let free = limits
        .reserve(&who("a"), &wanted(&here, Some(Price::FREE)))
        .await;
    assert!(free.is_ok());
}

#[tokio::test]
async fn each_has_its_own_and_names_are_compared() {
    let mut of_feature = limit("voice", Measure::RequestsPerMinute, 1);
    of_feature.applies.feature = Some(Which::Named("other".into()));
    let mut of_place = limit("place", Measure::ConcurrentRequests, 1);
    of_place.applies.target = Some(Which::Named("openai/*".into()));
    let limits = vec![
        each_tenant(limit("tenants", Measure::RequestsPerMinute, 1)),
        of_feature,
        of_place,
    ];
    let limits = Limits::new(limits, 4_096);
    let first = limits.enter(&who("a")).await;
    assert!(first.is_ok());
    let denied = limits.enter(&who("a")).await.unwrap_err();
    assert_eq!(denied.limit, "tenants");
    assert_eq!(denied.of, "tenant a");
    assert!(denied.retry_after_ms().is_some() && !denied.is_final());
    assert!(limits.enter(&who("b")).await.is_ok());

    let (mini, large) = (remote(), TargetId::remote("openai", "large").unwrap());
    let held = limits
        .reserve(&who("a"), &wanted(&mini, None))
        .await
        .unwrap();
    let denied = limits
        .reserve(&who("b"), &wanted(&large, None))
        .await
        .unwrap_err();
    assert_eq!(
        (denied.limit.as_str(), denied.shortfall),
        ("place", Some(Shortfall::Held))
    );
    let elsewhere = TargetId::remote("other", "large").unwrap();
    assert!(
        limits
            .reserve(&who("b"), &wanted(&elsewhere, None))
            .await
            .is_ok()
    );
    drop(held);
    assert!(
        limits
            .reserve(&who("b"), &wanted(&large, None))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn budgets_outlive_a_restart_by_their_names() {
    let target = remote();
    let limits = tokens_and_money();
    let mut leg = limits
        .reserve(&who("a"), &wanted(&target, Some(PRICE)))
        .await
        .unwrap();
    leg.begin();
    leg.told(&usage(10, Some(5)));
    drop(leg);
    let under_way = limits
        .reserve(&who("a"), &wanted(&target, Some(PRICE)))
        .await
        .unwrap();
    let rows = limits.take_changes();
    let next = tokens_and_money();
    next.restore(&rows);
    assert_eq!(figures(&next), [(45, 30, 0), (70, 50, 0)]);
    drop(under_way);
    let renamed = Limits::new(vec![limit("new", Measure::TokensPerDay, 1_000)], 4_096);
    renamed.restore(&rows);
    assert_eq!(figures(&renamed), [(0, 0, 0)]);
}

#[test]
fn answers_get_a_bound_only_where_one_is_counted() {
    let mut of_target = limit("t", Measure::TokensPerDay, 10);
    of_target.applies.target = Some(Which::Named("openai/mini".into()));
    of_target.applies.tenant = Some(Which::Named("a".into()));
    let limits = Limits::new(vec![of_target], 77);
    assert_eq!(limits.answer_bound(&who("a")), Some(77));
    assert_eq!(limits.answer_bound(&who("b")), None);
    let requests = limit("r", Measure::RequestsPerMinute, 10);
    assert_eq!(
        Limits::new(vec![requests], 77).answer_bound(&who("a")),
        None
    );
}
