#![allow(clippy::unwrap_used)]
//! What is served to whom, and for how long.

use std::collections::BTreeMap;

use futures_util::{FutureExt, StreamExt, stream};
use nearfar_domain::chat::{Message, ResponseFormat, Role, Tool, ToolCall};
use nearfar_domain::embed::{Input, Inputs};
use nearfar_domain::events::{Event, Failure, FailureKind, FinishReason, ToolCallDelta, Usage};
use nearfar_domain::guard::{Kind, Kinds};
use nearfar_domain::ids::TargetId;
use nearfar_domain::route::{ModelChoice, Side};
use nearfar_domain::thought::{CacheMark, Origin};
use proptest::prelude::*;

use super::*;
use crate::config::cache::{Feature, Semantic};

const AUTO: ModelChoice = ModelChoice::Auto;

fn scope(tenant: &str) -> Scope<'_> {
    Scope {
        tenant,
        ceiling: Zone::Cloud,
        redact: false,
        kinds: Kinds::NONE,
        model: &AUTO,
        side: Side::Auto,
    }
}

fn settings() -> Settings {
    Settings {
        exact: true,
        confined: true,
        semantic: Some(Semantic {
            model: "m".into(),
            threshold_permille: 900,
            features: vec!["faq".into()],
        }),
        ..Settings::default()
    }
}

/// A question that is answered the same each time.
fn ask(text: &str) -> Chat {
    let mut chat = Chat::turns(vec![
        Message::text(Role::System, "Be brief."),
        Message::text(Role::User, text),
    ]);
    chat.params.temperature = Some(0.0);
    chat
}

fn plan(cache: &Cache, chat: &Chat) -> Option<Plan> {
    cache.plan(&scope("t"), "faq", &Wish::default(), chat)
}

fn done(reason: FinishReason) -> Event {
    Event::Finished {
        reason,
        usage: Usage {
            prompt: Some(3),
            ..Usage::default()
        },
    }
}

fn said(text: &str) -> Vec<Event> {
    vec![
        Event::Reasoning("hm".into()),
        Event::Content(text.into()),
        Event::Content(" there".into()),
        done(FinishReason::Stop),
    ]
}

fn about(nonce: Option<&str>) -> About {
    About {
        tenant: "t".into(),
        ceiling: Zone::Cloud,
        target: TargetId::parse("far/big").unwrap(),
        zone: Zone::Cloud,
        weights: String::new(),
        cost_micro: Arc::new(OnceLock::from(Some(7))),
        nonce: nonce.map(str::to_owned),
    }
}

/// Lets events pass by, and tells what came out.
fn pass(
    cache: &Arc<Cache>,
    plan: Plan,
    vector: Option<Vector>,
    nonce: Option<&str>,
    events: &[Event],
) -> Vec<Event> {
    let events = Box::pin(stream::iter(events.to_vec()));
    let recorder = Recorder::new(events, Arc::clone(cache), plan, vector, about(nonce), None);
    recorder.collect().now_or_never().unwrap()
}

fn kept(cache: &Cache, plan: &Plan) -> Option<Vec<Event>> {
    let mut tape = cache.get(plan, Instant::now())?.tape.clone();
    Some(std::iter::from_fn(|| tape.next_event()).collect())
}

fn with(settings: Settings) -> Arc<Cache> {
    Arc::new(Cache::new(settings))
}

#[test]
fn what_passed_by_comes_back_event_by_event() {
    let cache = with(settings());
    let plan = plan(&cache, &ask("hello")).unwrap();
    assert!(kept(&cache, &plan).is_none());
    let events = said("well");
    assert!(
        pass(&cache, plan, None, None, &events) == events,
        "unchanged"
    );
    assert!(kept(&cache, &plan).unwrap() == events);
    let entry = cache.get(&plan, Instant::now()).unwrap();
    assert_eq!(entry.cost_micro, Some(7));
    assert_eq!(entry.target.to_string(), "far/big");
}

#[test]
fn only_whole_answers_are_kept() {
    let cut = |last: Option<Event>| {
        let mut events = said("well");
        events.pop();
        events.extend(last);
        events
    };
    let failed = Event::Failed(Failure::new(FailureKind::Cut, ""));
    let started = Event::Started { model: "m".into() };
    let mut continued = said("well");
    continued.insert(2, started);
    let call = Event::ToolCall(ToolCallDelta {
        index: 0,
        id: Some("c".into()),
        name: Some("f".into()),
        arguments: "{}".into(),
    });
    for (events, is_kept) in [
        (cut(None), false),
        (cut(Some(failed)), false),
        (cut(Some(done(FinishReason::Length))), false),
        (cut(Some(done(FinishReason::ContentFilter))), false),
        (continued, false),
        (vec![done(FinishReason::Stop)], false),
        (vec![call, done(FinishReason::ToolCalls)], true),
        (said("well"), true),
    ] {
        let cache = with(settings());
        let plan = plan(&cache, &ask("hello")).unwrap();
        pass(&cache, plan, None, None, &events);
        assert_eq!(kept(&cache, &plan).is_some(), is_kept, "{events:?}");
    }
}

#[test]
fn an_answer_that_nobody_read_to_its_end_is_not_kept() {
    let cache = with(settings());
    let plan = plan(&cache, &ask("hello")).unwrap();
    let events = Box::pin(stream::iter(said("well")));
    let mut recorder = Recorder::new(events, Arc::clone(&cache), plan, None, about(None), None);
    recorder.next().now_or_never().unwrap().unwrap();
    drop(recorder);
    assert!(kept(&cache, &plan).is_none());
}

#[test]
fn what_is_left_of_a_placeholder_is_not_kept() {
    for (text, is_kept) in [
        ("write to [EMAIL-1-k7q2mx", false),
        ("write to email-1-K7Q2MX", false),
        ("write to ana@example.org", true),
    ] {
        let cache = with(settings());
        let plan = plan(&cache, &ask("hello")).unwrap();
        let (head, tail) = text.split_at(text.len() - 3);
        let events = [
            Event::Content(head.into()),
            Event::Content(tail.into()),
            done(FinishReason::Stop),
        ];
        pass(&cache, plan, None, Some("k7q2mx"), &events);
        assert_eq!(kept(&cache, &plan).is_some(), is_kept, "{text}");
    }
}

#[test]
fn what_another_try_would_word_otherwise_is_not_asked_for() {
    let mut cache = Cache::new(settings());
    let drawn = |temperature, seed| {
        let mut chat = ask("hello");
        chat.params.temperature = temperature;
        chat.params.seed = seed;
        chat
    };
    assert!(plan(&cache, &drawn(None, None)).is_none());
    assert!(plan(&cache, &drawn(Some(0.7), None)).is_none());
    assert!(plan(&cache, &drawn(Some(0.7), Some(1))).is_some());
    assert!(plan(&cache, &drawn(None, Some(1))).is_some());
    let vectors = Chat::inputs(Inputs {
        items: vec![Input::Text("hello".into())],
        dimensions: None,
        purpose: None,
    });
    assert!(plan(&cache, &vectors).is_some());
    let own = Feature {
        non_deterministic: Some(true),
        ..Feature::default()
    };
    cache.settings.features = BTreeMap::from([("faq".to_owned(), own)]);
    let allowed = plan(&cache, &drawn(None, None)).unwrap();
    assert!(!allowed.may_wait(), "each of several gets its own wording");
    let other = cache.plan(&scope("t"), "other", &Wish::default(), &drawn(None, None));
    assert!(other.is_none());
}

#[test]
fn nothing_is_asked_where_it_must_not_be() {
    let off = Cache::new(Settings::default());
    assert!(plan(&off, &ask("hello")).is_none());
    let near_only = Cache::new(Settings {
        exact: false,
        ..settings()
    });
    let elsewhere = near_only.plan(&scope("t"), "x", &Wish::default(), &ask("hello"));
    assert!(elsewhere.is_none(), "not a feature of the semantic cache");
    let cache = Cache::new(Settings {
        confined: false,
        ..settings()
    });
    let confined = Scope {
        ceiling: Zone::Device,
        ..scope("t")
    };
    assert!(
        cache
            .plan(&confined, "faq", &Wish::default(), &ask("hello"))
            .is_none()
    );
    let mut wish = Wish::default();
    wish.add("no-store");
    assert!(
        cache
            .plan(&scope("t"), "faq", &wish, &ask("hello"))
            .is_none()
    );
    let shows = |url: &str| {
        let mut chat = ask("what is this");
        if let Prompt::Turns(turns) = &mut chat.prompt {
            turns[1].content.push(Part::Image {
                url: url.into(),
                detail: None,
            });
        }
        chat
    };
    assert!(plan(&cache, &shows("https://example.org/now.jpg")).is_none());
    let drawn = plan(&cache, &shows("data:image/png;base64,AA==")).unwrap();
    assert!(drawn.near.is_none(), "a picture is no question of words");
}

#[test]
fn wishes_are_kept() {
    let cache = with(settings());
    let of = |directives: &str| {
        let mut wish = Wish::default();
        wish.add(directives);
        cache
            .plan(&scope("t"), "faq", &wish, &ask("hello"))
            .unwrap()
    };
    let plain = of("");
    pass(&cache, plain, None, None, &said("one"));
    let entry = cache.get(&plain, Instant::now()).unwrap();
    let later = entry.made + Duration::from_secs(10);
    assert!(cache.get(&of("max-age=10"), later).is_some());
    assert!(cache.get(&of("max-age=9"), later).is_none());
    assert!(cache.get(&of("no-cache"), Instant::now()).is_none());
    pass(&cache, of("no-cache"), None, None, &said("two"));
    assert!(
        kept(&cache, &plain).unwrap() == said("two"),
        "made anew, and kept"
    );
    assert!(
        cache
            .get(&plain, entry.expires + Duration::from_secs(1))
            .is_none()
    );
    assert_eq!(cache.stats(Instant::now()).expired, 1);
}

#[test]
fn room_is_made_for_what_is_used() {
    let cache = with(Settings {
        max_entries: 3,
        ..settings()
    });
    let plans: Vec<Plan> = ["a", "b", "c", "d"]
        .map(|text| plan(&cache, &ask(text)).unwrap())
        .into();
    for plan in &plans[..3] {
        pass(&cache, *plan, None, None, &said("x"));
    }
    assert!(kept(&cache, &plans[0]).is_some());
    pass(&cache, plans[3], None, None, &said("x"));
    let there = plans.iter().map(|plan| kept(&cache, plan).is_some());
    assert_eq!(there.collect::<Vec<_>>(), [true, false, true, true]);
    assert_eq!(cache.stats(Instant::now()).evicted, 1);
    assert_eq!(cache.clear(Some("other")), 0);
    assert_eq!(cache.clear(Some("t")), 3);
    let stats = cache.stats(Instant::now());
    assert_eq!((stats.entries, stats.bytes), (0, 0));
}

#[test]
fn bytes_are_bounded_and_no_answer_takes_most_of_them() {
    let cache = with(Settings {
        max_bytes: 64 << 10,
        ..settings()
    });
    let large = plan(&cache, &ask("large")).unwrap();
    pass(&cache, large, None, None, &said(&"x".repeat(9 << 10)));
    assert!(kept(&cache, &large).is_none());
    for n in 0..100 {
        let plan = plan(&cache, &ask(&format!("q{n}"))).unwrap();
        let vector = Vector::of(&[1.0; 384]);
        pass(&cache, plan, vector, None, &said(&"x".repeat(2 << 10)));
        assert!(kept(&cache, &plan).is_some());
        assert!(cache.stats(Instant::now()).bytes <= 64 << 10);
    }
    let stats = cache.stats(Instant::now());
    assert!(stats.entries > 15 && stats.evicted > 0, "{stats:?}");
    assert_eq!(cache.shares(Instant::now())[0].bytes, stats.bytes);
    assert_eq!(cache.clear(None), stats.entries);
    assert_eq!(cache.stats(Instant::now()).bytes, 0);
}

#[test]
fn questions_that_mean_the_same_are_found_by_their_vectors() {
    let cache = with(settings());
    let one = plan(&cache, &ask("when do you open")).unwrap();
    let other = plan(&cache, &ask("what are your opening hours")).unwrap();
    let vector = |x: f32| Vector::of(&[1.0, x, 0.0]).unwrap();
    pass(&cache, one, Some(vector(0.0)), None, &said("at nine"));
    let now = Instant::now();
    assert!(cache.get(&other, now).is_none());
    assert!(cache.get_near(&other, &vector(0.4), now).is_some());
    assert!(cache.get_near(&other, &vector(0.6), now).is_none());
    // Another number, the same words in another order, another turn before,
    // another form: another question.
    let turned = plan(&cache, &ask("when you do open?")).unwrap();
    assert!(cache.get_near(&turned, &vector(0.0), now).is_none());
    let marked = plan(&cache, &ask("When do you open?")).unwrap();
    assert!(cache.get_near(&marked, &vector(0.0), now).is_some());
    let numbered = plan(&cache, &ask("when do you open on the 3rd")).unwrap();
    assert!(cache.get_near(&numbered, &vector(0.0), now).is_none());
    let mut longer = ask("when do you open");
    if let Prompt::Turns(turns) = &mut longer.prompt {
        turns.insert(1, Message::text(Role::User, "I mean the pool."));
    }
    let longer = plan(&cache, &longer).unwrap();
    assert!(cache.get_near(&longer, &vector(0.0), now).is_none());
    let mut json = ask("when do you open");
    json.response_format = ResponseFormat::JsonObject;
    assert!(plan(&cache, &json).unwrap().near.is_none());
    let mut tools = ask("when do you open");
    tools.tools.push(Tool {
        name: "f".into(),
        description: None,
        parameters: None,
        strict: None,
    });
    assert!(plan(&cache, &tools).unwrap().near.is_none());
    cache.clear(None);
    assert!(cache.get_near(&other, &vector(0.0), now).is_none());
}

#[tokio::test]
async fn who_waits_is_woken_when_the_lead_goes() {
    let cache = Cache::new(settings());
    let plan = plan(&cache, &ask("hello")).unwrap();
    let Flight::Lead(lead) = cache.fly(&plan) else {
        panic!("nobody else flies");
    };
    let Flight::Follow(mut waiting) = cache.fly(&plan) else {
        panic!("one leads already");
    };
    assert!(waiting.changed().now_or_never().is_none());
    drop(lead);
    assert!(waiting.changed().now_or_never().unwrap().is_err());
    assert!(matches!(cache.fly(&plan), Flight::Lead(_)));
}

/// Everything that must tell two requests apart.
#[derive(Clone, Debug, PartialEq)]
struct Case {
    tenant: u8,
    ceiling: u8,
    redact: bool,
    kinds: u8,
    model: u8,
    side: u8,
    edit: u8,
}

fn case() -> impl Strategy<Value = Case> {
    let sides = (
        0..3u8,
        0..3u8,
        any::<bool>(),
        0..3u8,
        0..3u8,
        0..3u8,
        0..EDITS,
    );
    sides.prop_map(|(tenant, ceiling, redact, kinds, model, side, edit)| Case {
        tenant,
        ceiling,
        redact,
        kinds,
        model,
        side,
        edit,
    })
}

const EDITS: u8 = 24;

/// One of many requests, no two of which are the same.
fn edited(edit: u8) -> Chat {
    let mut chat = ask("hello");
    let params = &mut chat.params;
    match edit {
        0 => {}
        1 => params.seed = Some(1),
        2 => params.top_p = Some(0.5),
        3 => params.top_k = Some(5),
        4 => params.max_tokens = Some(5),
        5 => params.stop = vec!["a".into()],
        6 => params.stop = vec!["a".into(), String::new()],
        7 => params.logprobs = Some(0),
        8 => params.logit_bias = vec![(1, 1.0)],
        9 => params.reasoning_effort = Some("low".into()),
        10 => params.enable_thinking = Some(false),
        11 => chat.response_format = ResponseFormat::JsonObject,
        12 => chat.response_format = ResponseFormat::Regex("a".into()),
        13 => chat.passthrough = "{\"n\":1}".into(),
        14 => {
            chat.passthrough = "{\"n\":1}".into();
            chat.passthrough_of = Origin::Anthropic;
        }
        15 => chat.tool_choice = nearfar_domain::chat::ToolChoice::Required,
        16 => chat.tools.push(tool(None)),
        17 => chat.tools.push(tool(Some("{}"))),
        18 => chat.prompt = Prompt::Text("hello".into()),
        _ => {
            if let Prompt::Turns(turns) = &mut chat.prompt {
                let last = &mut turns[1];
                match edit {
                    19 => last.content = vec![Part::Text("hel".into()), Part::Text("lo".into())],
                    20 => last.name = Some("ana".into()),
                    21 => last.role = Role::Assistant,
                    22 => last.tool_calls.push(ToolCall::default()),
                    _ => turns.push(Message::text(Role::User, "")),
                }
            }
        }
    }
    chat
}

fn tool(parameters: Option<&str>) -> Tool {
    Tool {
        name: "f".into(),
        description: None,
        parameters: parameters.map(str::to_owned),
        strict: None,
    }
}

fn plan_of(cache: &Cache, case: &Case) -> Plan {
    let model = match case.model {
        0 => ModelChoice::Auto,
        n => ModelChoice::Named(TargetId::local(format!("m{n}"))),
    };
    let tenant = ["a", "b", "ab"][usize::from(case.tenant)];
    let scope = Scope {
        tenant,
        ceiling: [Zone::Device, Zone::Site, Zone::Cloud][usize::from(case.ceiling)],
        redact: case.redact,
        kinds: [Kinds::NONE, Kinds::ALL, Kinds::NONE.with(Kind::Email)][usize::from(case.kinds)],
        model: &model,
        side: [Side::Auto, Side::Local, Side::Remote][usize::from(case.side)],
    };
    let chat = edited(case.edit);
    cache.plan(&scope, "faq", &Wish::default(), &chat).unwrap()
}

proptest! {
    #[test]
    fn no_answer_crosses_tenant_ceiling_redaction_route_or_request(
        one in case(),
        other in case(),
        at in 0..7u8,
    ) {
        // Also pairs that differ in one thing alone.
        let other = if at == 6 { other } else {
            let mut near = one.clone();
            match at {
                0 => near.tenant = other.tenant,
                1 => near.ceiling = other.ceiling,
                2 => near.redact = other.redact,
                3 => near.kinds = other.kinds,
                4 => near.model = other.model,
                _ => near.side = other.side,
            }
            near
        };
        let cache = with(settings());
        let (a, b) = (plan_of(&cache, &one), plan_of(&cache, &other));
        let vector = Vector::of(&[1.0, 2.0]).unwrap();
        pass(&cache, a, Some(vector.clone()), None, &said("x"));
        let now = Instant::now();
        prop_assert_eq!(cache.get(&b, now).is_some(), one == other);
        let near = cache.get_near(&b, &vector, now).is_some();
        if near {
            // Its words may differ, nothing else.
            let question = |case: &Case| Case { edit: 0, ..case.clone() };
            prop_assert_eq!(question(&one), question(&other));
        }
        prop_assert!(near || one != other || a.near.is_none());
    }

    #[test]
    fn hashes_of_two_daemons_differ(text in ".{0,40}") {
        let (one, other) = (with(settings()), with(settings()));
        let chat = ask(&text);
        prop_assert!(plan(&one, &chat).unwrap().key == plan(&one, &chat).unwrap().key);
        prop_assert!(plan(&one, &chat).unwrap().key != plan(&other, &chat).unwrap().key);
    }
}

#[test]
fn no_two_edits_are_the_same_request() {
    let cache = Cache::new(settings());
    let keys: std::collections::BTreeSet<Key> = (0..EDITS)
        .map(|edit| plan(&cache, &edited(edit)).unwrap().key)
        .collect();
    assert_eq!(keys.len(), usize::from(EDITS));
    // What changes no answer makes no other request.
    let mut marked = ask("hello");
    if let Prompt::Turns(turns) = &mut marked.prompt {
        turns[0].cache_marks.push(CacheMark {
            after: 1,
            long: false,
        });
    }
    assert!(plan(&cache, &marked).unwrap().key == plan(&cache, &ask("hello")).unwrap().key);
}
