//! Kept answers on the path: nobody is asked twice, and nothing crosses the wall.

use nearfar_domain::chat::{Chat, Message, Role as Speaker};
use nearfar_domain::guard::Kind;
use nearfar_domain::scope::Grant;

use super::*;
use crate::cache::{Outcome, Wish};
use crate::config::Cache as Settings;
use crate::config::guard::Action;

fn settings() -> Settings {
    Settings {
        exact: true,
        confined: true,
        ..Settings::default()
    }
}

async fn world(engine: Script, egress: Script, cache: Settings) -> World {
    let mut plan = Plan {
        cache,
        ..Plan::default()
    };
    plan.guard.actions.insert(Kind::Email, Action::Redact);
    let world = World::empty(plan);
    world.start_engine(engine, true).await;
    world.start_egress(egress).await;
    world
}

/// The same each time, so that its answer may be kept.
fn sure(asked: Asked) -> Asked {
    let mut asked = asked;
    asked.chat.params.temperature = Some(0.0);
    asked
}

fn wish(directives: &str) -> Wish {
    let mut wish = Wish::default();
    assert_eq!(wish.add(directives), None);
    wish
}

/// Asks, reads all, and tells how the cache took part.
async fn go(world: &World, asked: Asked) -> (Outcome, Vec<Event>, Row) {
    let answer = world.answer(asked).await.unwrap();
    let outcome = answer.cache.unwrap().outcome;
    let events = read(answer).await;
    (outcome, events, world.row().await)
}

#[tokio::test]
async fn the_second_time_nobody_is_asked() {
    let world = world(always(answers()), always(answers()), settings()).await;
    let (outcome, first, row) = go(&world, sure(ask("far/big"))).await;
    assert_eq!(outcome, Outcome::Miss);
    assert_eq!((row.cost_micro, row.saved_micro), (Some(2_000), None));
    assert_eq!(world.egress_hears().await, Heard::Run("big".into()));

    let answer = world.answer(sure(ask("far/big"))).await.unwrap();
    assert_eq!((answer.zone, answer.reason), (Zone::Cloud, Reason::Cache));
    assert_eq!(
        (answer.target.to_string().as_str(), answer.attempt),
        ("far/big", 0)
    );
    assert!(answer.cache.unwrap().age.is_some());
    assert!(read(answer).await == first, "the same events");
    assert!(world.egress_heard_nothing());
    let row = world.row().await;
    assert_eq!((row.outcome.as_str(), row.reason.as_str()), ("ok", "cache"));
    assert_eq!(
        (row.target.as_str(), row.zone.as_str()),
        ("far/big", "cloud")
    );
    assert_eq!((row.cost_micro, row.saved_micro), (Some(0), Some(2_000)));
    assert_eq!(
        (row.attempts, row.prompt_tokens),
        (0, None),
        "took no tokens"
    );
    assert_eq!(row.ceiling, "cloud");
    assert!(world.no_more_rows());
    assert_eq!(world.road.admission.under_way(), 0);

    let explained = world.road.route(sure(ask("far/big"))).unwrap();
    assert_eq!(explained.verdict, Verdict::Go(Reason::Cache));
    let stats = world.road.cache.stats(Instant::now());
    assert_eq!((stats.hits, stats.misses, stats.saved_micro), (1, 1, 2_000));
}

#[tokio::test]
async fn a_whole_answer_and_a_stream_share_one_entry() {
    let world = world(always(answers()), always(answers()), settings()).await;
    let whole = Asked {
        stream: false,
        ..sure(ask("auto"))
    };
    assert_eq!(go(&world, whole).await.0, Outcome::Miss);
    let (outcome, events, _) = go(&world, sure(ask("auto"))).await;
    assert_eq!(outcome, Outcome::Hit);
    assert_eq!(text(&events), "hello");
}

#[tokio::test]
async fn a_request_that_says_so_is_answered_anew_or_not_at_all() {
    let world = world(always(answers()), always(answers()), settings()).await;
    let with = |directives: &str| Asked {
        cache: wish(directives),
        ..sure(ask("auto"))
    };
    let error = world.answer(with("only-if-cached")).await.err().unwrap();
    assert!(matches!(error, RoadError::NotCached));
    let row = world.row().await;
    assert_eq!(
        (row.outcome.as_str(), row.reason.as_str()),
        ("refused", "not_cached")
    );
    assert_eq!(go(&world, with("no-store")).await.0, Outcome::Bypass);
    assert_eq!(
        go(&world, with("")).await.0,
        Outcome::Miss,
        "was not stored"
    );
    assert_eq!(go(&world, with("only-if-cached")).await.0, Outcome::Hit);
    assert_eq!(go(&world, with("no-cache")).await.0, Outcome::Bypass);
    assert_eq!(go(&world, with("max-age=3600")).await.0, Outcome::Hit);
    assert_eq!(go(&world, ask("auto")).await.0, Outcome::Bypass, "is drawn");
}

#[tokio::test]
async fn where_there_is_no_cache_nothing_is_said_of_one() {
    let off = Settings::default();
    let world = world(always(answers()), always(answers()), off).await;
    let answer = world.answer(sure(ask("auto"))).await.unwrap();
    assert!(answer.cache.is_none());
    let asked = Asked {
        cache: wish("only-if-cached"),
        ..sure(ask("auto"))
    };
    let error = world.answer(asked).await.err().unwrap();
    assert!(matches!(error, RoadError::NotCached));
    assert_eq!(world.road.cache.stats(Instant::now()).misses, 0);
}

#[tokio::test]
async fn no_entry_is_shared_between_ceilings() {
    let world = world(always(answers()), always(answers()), settings()).await;
    for tag in ["cloud", "site", "device", "redact"] {
        let asked = || sure(tagged("auto", tag));
        assert_eq!(go(&world, asked()).await.0, Outcome::Miss, "{tag}");
        assert_eq!(go(&world, asked()).await.0, Outcome::Hit, "{tag}");
    }
    // What a provider said is not told to a confined request of the same words.
    assert_eq!(go(&world, sure(ask("far/big"))).await.0, Outcome::Miss);
    let confined = world.answer(sure(tagged("far/big", "device"))).await;
    assert!(matches!(confined.err(), Some(RoadError::Refused(_))));
}

#[tokio::test]
async fn confined_answers_are_kept_only_where_the_owner_says_so() {
    let careful = Settings {
        confined: false,
        ..settings()
    };
    let world = world(always(answers()), always(answers()), careful).await;
    for _ in 0..2 {
        let asked = sure(tagged("auto", "device"));
        assert_eq!(go(&world, asked).await.0, Outcome::Bypass);
    }
    let stats = world.road.cache.stats(Instant::now());
    assert_eq!((stats.entries, stats.bypassed), (0, 2));
}

#[tokio::test]
async fn what_broke_off_or_failed_is_not_kept() {
    let half = vec![content("half"), fail(FailureKind::Internal)];
    let rest = vec![content(" rest"), finish()];
    let near: Script = Arc::new(move |job| match job {
        0 => half.clone(),
        _ => answers(),
    });
    let world = world(near, always(rest), settings()).await;
    let (outcome, events, _) = go(&world, sure(ask("auto"))).await;
    assert_eq!(
        (outcome, text(&events).as_str()),
        (Outcome::Miss, "half rest")
    );
    let (outcome, events, _) = go(&world, sure(ask("auto"))).await;
    assert_eq!((outcome, text(&events).as_str()), (Outcome::Miss, "hello"));
    assert_eq!(go(&world, sure(ask("auto"))).await.0, Outcome::Hit);
}

#[tokio::test]
async fn tenants_share_nothing_and_a_key_gets_what_it_may_use() {
    let world = world(always(answers()), always(answers()), settings()).await;
    let by = |tenant: &str, zones: Option<Vec<Zone>>| {
        let grant = Grant {
            targets: None,
            zones,
        };
        let identity = Identity::tenant_of(tenant.into()).narrowed(grant);
        Asked {
            identity: Arc::new(identity),
            side: Side::Remote,
            ..sure(ask("auto"))
        }
    };
    assert_eq!(go(&world, by("a", None)).await.0, Outcome::Miss);
    assert_eq!(go(&world, by("b", None)).await.0, Outcome::Miss);
    assert_eq!(go(&world, by("a", None)).await.0, Outcome::Hit);
    // The same tenant and ceiling, and a key that may not use who answered.
    let near = vec![Zone::Device, Zone::Site];
    let refused = world.answer(by("a", Some(near))).await;
    assert!(matches!(refused.err(), Some(RoadError::Refused(_))));
    assert_eq!(world.road.cache.clear(Some("a")), 1);
    world.row().await;
    assert_eq!(go(&world, by("b", None)).await.0, Outcome::Hit);
}

#[tokio::test]
async fn identifiers_come_back_as_they_were_said() {
    let world = world(always(answers()), always(answers()), settings()).await;
    let said = |text: &str| {
        let mut asked = sure(ask("far/big"));
        asked.chat = Chat {
            params: asked.chat.params,
            ..Chat::turns(vec![Message::text(Speaker::User, text)])
        };
        asked
    };
    let (ana, bob) = ("write to ana@example.org", "write to bob@example.org");
    assert_eq!(go(&world, said(ana)).await.0, Outcome::Miss);
    assert_eq!(go(&world, said(bob)).await.0, Outcome::Miss);
    assert_eq!(go(&world, said(ana)).await.0, Outcome::Hit);
}

#[tokio::test]
async fn those_who_want_the_same_whole_answer_wait_for_one() {
    let far: Script = Arc::new(|job| match job {
        // The first one never ends.
        0 => vec![content("none")],
        _ => vec![content("one"), finish()],
    });
    let world = world(always(answers()), far, settings()).await;
    let ask_so = || {
        let (road, asked) = (Arc::clone(&world.road), sure(ask("far/big")));
        tokio::spawn(async move {
            let asked = Asked {
                stream: false,
                ..asked
            };
            let answer = road.answer(asked).await.unwrap();
            (answer.cache.unwrap().outcome, text(&read(answer).await))
        })
    };
    let first = ask_so();
    assert_eq!(world.egress_hears().await, Heard::Run("big".into()));
    let others = [ask_so(), ask_so()];
    while world.road.admission.under_way() < 3 {
        tokio::task::yield_now().await;
    }
    // Whoever leads may go: another one leads then.
    first.abort();
    assert!(first.await.is_err());
    assert_eq!(world.egress_hears().await, Heard::Cancel);
    assert_eq!(world.egress_hears().await, Heard::Run("big".into()));
    let mut outcomes = Vec::new();
    for other in others {
        let (outcome, said) = other.await.unwrap();
        assert_eq!(said, "one");
        outcomes.push(outcome);
    }
    outcomes.sort_by_key(|outcome| outcome.as_str());
    assert_eq!(outcomes, [Outcome::Hit, Outcome::Miss]);
    assert!(world.egress_heard_nothing());
}
