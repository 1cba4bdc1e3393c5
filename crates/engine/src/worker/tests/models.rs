//! Models in memory: the budget, who makes room, and what stays behind.

use nearfar_domain::frames::{KvNumbers, LoadedModel};

use super::*;
use crate::generate::ReadyModel;
use crate::gguf::Gguf;

impl Gate {
    /// Has a model loaded and waits for what comes of it.
    fn load(&mut self, name: &str, source: &ModelSource) -> Result<LoadedModel, String> {
        self.send(&ToEngine::Load {
            model: name.to_owned(),
            source: source.clone(),
        });
        loop {
            if let FromEngine::Loaded { model, result } = self.next()
                && model == name
            {
                return result;
            }
        }
    }

    fn unload(&mut self, name: &str) {
        self.send(&ToEngine::Unload { model: name.into() });
    }

    /// Waits until just these models are in memory, in any order.
    fn wait_for_models(&mut self, names: &[&str]) -> EngineState {
        self.state_where(|state| {
            let mut there: Vec<&str> = state.models.iter().map(|m| m.name.as_str()).collect();
            there.sort_unstable();
            there == names
        })
    }
}

/// What a load of this file sets aside.
fn needed(bytes: &[u8]) -> u64 {
    let gguf = Gguf::from_static(bytes.to_vec().leak()).unwrap();
    crate::inspect::needed_bytes(&gguf, KvNumbers::default()).unwrap()
}

#[test]
fn the_longest_unused_model_makes_room() {
    let file = endless();
    let needed = needed(&file);
    let engine = Engine::with(Options {
        memory_budget: Some(needed * 5 / 2),
        ..Options::default()
    });
    let source = engine.model("a", &file);
    let mut gate = engine.link();
    for name in ["a", "b"] {
        let loaded = gate.load(name, &source).unwrap();
        assert!(loaded.memory_bytes > 0 && loaded.memory_bytes <= needed);
    }
    // `a` is asked for again, so `b` is the one unused for longest.
    gate.load("a", &source).unwrap();
    gate.load("c", &source).unwrap();
    gate.states.clear();
    let state = gate.wait_for_models(&["a", "c"]);
    assert_eq!(state.memory_budget, needed * 5 / 2);
    assert_eq!(state.loading, None);
    // Together with their caches they stay within it, too.
    let weights: u64 = state.models.iter().map(|m| m.memory_bytes).sum();
    let caches: u64 = state.loads.iter().map(|load| load.kv_budget_bytes).sum();
    assert!(caches > 0 && weights + caches <= state.memory_budget);
}

#[test]
fn a_model_in_use_makes_no_room_and_one_too_large_is_refused_with_the_figures() {
    let file = endless();
    let needed = needed(&file);
    let engine = Engine::with(Options {
        memory_budget: Some(needed * 3 / 2),
        ..Options::default()
    });
    let (source, other) = (engine.model("a", &file), engine.model("b", &file));
    // A gate that does not read keeps its answer from ending.
    let mut stuck = engine.link();
    let params = Params {
        logprobs: Some(20),
        ..Params::default()
    };
    stuck.run(
        1,
        &source,
        Chat {
            params,
            ..ask("hi")
        },
    );
    let mut gate = engine.link();
    gate.state_where(|state| state.running == 1);
    let refused = gate.load("b", &other).unwrap_err();
    assert!(refused.contains("must wait"), "{refused}");
    drop(stuck);
    gate.state_where(|state| state.running == 0);
    gate.load("b", &other).unwrap();
    gate.wait_for_models(&["b"]);
    drop(gate);

    let engine = Engine::with(Options {
        memory_budget: Some(needed - 1),
        ..Options::default()
    });
    let source = engine.model("a", &file);
    let mut gate = engine.link();
    let refused = gate.load("a", &source).unwrap_err();
    let figure = format!("{} MiB", needed >> 20);
    assert!(refused.contains(&figure), "{refused}");
    assert!(refused.contains("local.memory_budget"), "{refused}");
    // A request for it is told the same, and does not wait.
    gate.run(1, &source, ask("hi"));
    assert_eq!(gate.whole(1).failure(), FailureKind::ModelBroken);
}

#[test]
fn a_model_that_nobody_uses_leaves_after_its_time() {
    let engine = Engine::with(Options {
        keep_alive: Some(Duration::from_millis(300)),
        ..Options::default()
    });
    let source = engine.model("a", &endless());
    let mut gate = engine.link();
    gate.load("a", &source).unwrap();
    gate.wait_for_models(&["a"]);
    gate.wait_for_models(&[]);
    // While it answers it stays.
    gate.run(1, &source, ask("hi"));
    gate.wait_for_content(1);
    gate.states.clear();
    let state = gate.state_where(|state| state.running == 1);
    assert_eq!(state.models.len(), 1);
    gate.send(&ToEngine::Cancel(JobId(1)));
    gate.wait_for_models(&[]);
}

#[test]
fn a_model_may_have_a_time_of_its_own() {
    let engine = Engine::with(Options {
        keep_alive: Some(Duration::from_secs(3_600)),
        ..Options::default()
    });
    let source = engine.model("a", &endless());
    let mut gate = engine.link();
    let keep = |name: &str, for_ms| ToEngine::Keep {
        model: name.into(),
        for_ms,
    };
    for name in ["tiny", "b", "c"] {
        gate.load(name, &source).unwrap();
    }
    gate.send(&keep("tiny", None));
    gate.send(&keep("b", Some(1)));
    gate.wait_for_models(&["c", "tiny"]);
    // While it answers it stays.
    gate.run(1, &source, ask("hi"));
    gate.wait_for_content(1);
    gate.send(&keep("tiny", Some(1)));
    gate.send(&keep("c", Some(1)));
    gate.wait_for_models(&["tiny"]);
    gate.send(&ToEngine::Cancel(JobId(1)));
    gate.wait_for_models(&[]);
    gate.send(&keep("nobody", Some(1)));
}

#[test]
fn both_kinds_share_the_budget() {
    let words = endless();
    let vectors = encoder();
    let budget = needed(&words).max(needed(&vectors)) * 11 / 10;
    let engine = Engine::with(Options {
        memory_budget: Some(budget),
        ..Options::default()
    });
    let (words, vectors) = (
        engine.model("words", &words),
        engine.model("vectors", &vectors),
    );
    let mut gate = engine.link();
    // Whichever is larger, together they are too large or they are not; never
    // may more than the budget be set aside.
    for round in 0..3 {
        gate.run(2 * round, &words, ask("hi"));
        gate.wait_for_content(2 * round);
        gate.send(&ToEngine::Cancel(JobId(2 * round)));
        gate.run(2 * round + 1, &vectors, vectors_of(1));
        assert_eq!(made(&gate.whole(2 * round + 1)), 1);
        for state in gate.states.drain(..) {
            let taken: u64 = state.models.iter().map(|m| m.memory_bytes).sum();
            assert!(taken <= budget, "{taken} of {budget}");
        }
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib << 10
}

/// A few rounds here; `NEARFAR_SOAK=200 cargo test -p nearfar-engine leave_nothing`
/// for the long run.
#[test]
fn loads_and_unloads_leave_nothing_behind() {
    let rounds = std::env::var("NEARFAR_SOAK")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(8);
    let gguf = crate::embedded().unwrap();
    let weights = ReadyModel::load("x", &gguf, None)
        .unwrap()
        .model()
        .memory_bytes();
    let engine = Engine::start();
    let mut gate = engine.link();
    let round = |gate: &mut Gate| {
        gate.load("soak", &ModelSource::Embedded).unwrap();
        gate.unload("soak");
        // Frames are taken in order: it is gone when this is answered.
        gate.send(&ToEngine::Ping(7));
        while !matches!(gate.next(), FromEngine::Pong(7)) {}
        gate.states.clear();
    };
    for _ in 0..3 {
        round(&mut gate);
    }
    let before = resident();
    for _ in 0..rounds {
        round(&mut gate);
    }
    let grown = resident().saturating_sub(before);
    println!("{rounds} loads of {weights} bytes: grown by {grown} bytes");
    // Other tests run in this process too; a model that stays behind each time
    // is far more than this.
    assert!(grown < weights * 3, "grown by {grown} bytes");
}
