//! What jobs owe each other: places, turns, and what they leave behind.

use std::collections::BTreeSet;

use nearfar_domain::frames::{Priority, Purpose};

use super::*;

fn limited(max_tokens: u32) -> Chat {
    Chat {
        params: Params {
            max_tokens: Some(max_tokens),
            ..Params::default()
        },
        ..ask("hi")
    }
}

/// An answer whose frames overflow every buffer of a gate that does not read.
fn verbose() -> Chat {
    Chat {
        params: Params {
            logprobs: Some(20),
            ..Params::default()
        },
        ..ask("hi")
    }
}

/// Reads until so many jobs of this gate have begun, and no further.
fn have_begun(gate: &mut Gate, mut jobs: usize) {
    while jobs > 0 {
        if let FromEngine::Event {
            event: Event::Started { .. },
            ..
        } = gate.next()
        {
            jobs -= 1;
        }
    }
}

#[test]
fn a_job_that_cannot_begin_in_time_says_so() {
    let engine = Engine::start();
    let source = engine.model("endless", &endless());
    let mut stuck = engine.link();
    let mut gate = engine.link();
    for job in 0..16 {
        stuck.run(job, &source, verbose());
    }
    have_begun(&mut stuck, 16);
    let within = |ms| Terms {
        begin_within_ms: Some(ms),
        ..Terms::default()
    };
    // A place is expected within a third of a second: not soon enough.
    gate.run_on(1, &source, limited(1), within(1.0));
    let refused = gate.whole(1);
    assert_eq!(refused.failure(), FailureKind::Overloaded);
    // Soon enough by what is known, but no place becomes free.
    gate.run_on(2, &source, limited(1), within(900.0));
    assert_eq!(gate.whole(2).failure(), FailureKind::TimedOut);
    // The places come back with the gate that held them.
    drop(stuck);
    gate.run_on(3, &source, limited(1), within(60_000.0));
    assert_eq!(gate.whole(3).text(), "la ");
}

#[test]
fn batch_jobs_leave_places_for_interactive_ones() {
    let engine = Engine::start();
    let source = engine.model("endless", &endless());
    let mut stuck = engine.link();
    let mut gate = engine.link();
    let batch = Terms {
        priority: Priority::Batch,
        ..Terms::default()
    };
    for job in 0..20 {
        stuck.run_on(job, &source, verbose(), batch.clone());
    }
    have_begun(&mut stuck, 12);
    gate.run(1, &source, limited(2));
    assert_eq!(gate.whole(1).text(), "la li ");
}

#[test]
fn a_prompt_is_computed_ahead_and_found_again() {
    let engine = Engine::start();
    let source = engine.model("random", &random(8));
    let mut gate = engine.link();
    let ahead = Terms {
        purpose: Purpose::Prefill { pin: true },
        ..Terms::default()
    };
    gate.run_on(1, &source, limited(4), ahead);
    let whole = gate.whole(1);
    let Some(Event::Finished { usage, .. }) = whole.events.last() else {
        panic!("it failed")
    };
    assert_eq!((usage.cached_prompt, usage.completion), (Some(0), None));
    assert_eq!(whole.events.len(), 2, "begun and ended, nothing between");
    gate.run(2, &source, limited(4));
    let timings = gate.whole(2).timings;
    assert_eq!(timings.prefill_tokens, 1);
    assert_eq!(u64::from(timings.cached_tokens) + 1, usage.prompt.unwrap());
}

#[test]
fn a_look_tells_what_is_known_and_computes_nothing() {
    let engine = Engine::start();
    let source = engine.model("random", &random(8));
    let mut gate = engine.link();
    let look = Terms {
        purpose: Purpose::Look,
        ..Terms::default()
    };
    let known = |whole: &Whole| match whole.events.last() {
        Some(Event::Finished { usage, .. }) => (usage.prompt, usage.cached_prompt),
        _ => panic!("it failed"),
    };
    gate.run_on(1, &source, limited(4), look.clone());
    assert_eq!(gate.whole(1).failure(), FailureKind::ModelMissing);
    gate.run(2, &source, limited(4));
    gate.whole(2);
    gate.run_on(3, &source, limited(4), look);
    let looked = gate.whole(3);
    let (prompt, cached) = known(&looked);
    assert!(prompt.is_some_and(|prompt| prompt > 10) && prompt == cached);
    assert_eq!(looked.events.len(), 1);
}

#[test]
fn the_state_tells_how_fast_and_how_full_a_model_is() {
    let engine = Engine::start();
    let source = engine.model("random", &random(8));
    let mut gate = engine.link();
    gate.run(1, &source, limited(8));
    gate.whole(1);
    let state = gate.state_where(|state| {
        let idle = state.running == 0 && state.queued == 0;
        idle && state.loads.iter().any(|load| load.kv_bytes > 0)
    });
    let load = &state.loads[0];
    assert_eq!((load.name.as_str(), load.running), ("tiny", 0));
    assert!(load.ms_per_prompt_token.is_some_and(|ms| ms > 0.0));
    assert!(load.ms_per_token.is_some_and(|ms| ms > 0.0));
    assert!(load.kv_bytes <= load.kv_budget_bytes);
}

/// Two thousand jobs, a third of them cancelled at any moment: each ends once,
/// and nothing is held afterwards.
#[test]
fn many_jobs_with_cancels_lose_no_place() {
    let engine = Engine::start();
    let source = engine.model("random", &random(9));
    let mut gate = engine.link();
    let mut random = 7u32;
    let mut next = move |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 8) % below
    };
    let (mut begun, mut open) = (0u64, BTreeSet::new());
    let mut ended = 0;
    while ended < 2_000 {
        while begun < 2_000 && open.len() < 24 {
            let text = format!("question {} of the day", next(40));
            let chat = Chat {
                params: limited(1 + next(6)).params,
                ..ask(&text)
            };
            let terms = Terms {
                priority: [Priority::Interactive, Priority::Batch][next(2) as usize],
                share: format!("user {}", next(3)),
                ..Terms::default()
            };
            gate.run_on(begun, &source, chat, terms);
            open.insert(begun);
            begun += 1;
        }
        if next(3) == 0 {
            let victim = open.iter().nth(next(24) as usize).copied();
            if let Some(victim) = victim {
                gate.send(&ToEngine::Cancel(JobId(victim)));
            }
        }
        loop {
            match gate.next() {
                FromEngine::Event {
                    event: Event::Failed(failure),
                    ..
                } => assert_eq!(failure.kind, FailureKind::Cancelled),
                FromEngine::Done { job, .. } => {
                    assert!(open.remove(&job.0), "it ended twice");
                    ended += 1;
                    break;
                }
                _ => {}
            }
        }
    }
    gate.states.clear();
    gate.run(9_999, &source, limited(1));
    gate.whole(9_999);
    let state = gate.state_where(|state| state.running == 0 && state.queued == 0);
    assert!(state.loads[0].kv_bytes <= state.loads[0].kv_budget_bytes);
    gate.send(&ToEngine::Unload {
        model: "tiny".into(),
    });
    gate.state_where(|state| state.models.is_empty());
}
