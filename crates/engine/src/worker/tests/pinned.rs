//! Pinned prompts over a restart of the engine, and of a model.

use std::time::Instant;

use nearfar_domain::frames::Purpose;

use super::*;

const WORDS: &str = "you answer for the house and know where the towels are";

fn pin() -> Terms {
    Terms {
        purpose: Purpose::Prefill { pin: true },
        ..Terms::default()
    }
}

fn on(folder: &tempfile::TempDir) -> Options {
    Options {
        pinned: Some(PinnedOnDisk {
            folder: folder.path().to_owned(),
            max_bytes: 64 << 20,
        }),
        ..Options::default()
    }
}

fn verified(source: ModelSource) -> ModelSource {
    match source {
        ModelSource::File {
            path, tokenizer, ..
        } => ModelSource::File {
            path,
            tokenizer,
            sha256: Some("ab".repeat(32)),
            tuning: Tuning::default(),
        },
        embedded => embedded,
    }
}

fn text(gate: &mut Gate, job: u64, source: &ModelSource) -> (String, u32) {
    let chat = Chat {
        params: Params {
            max_tokens: Some(4),
            ..Params::default()
        },
        ..ask(WORDS)
    };
    gate.run(job, source, chat);
    let whole = gate.whole(job);
    (whole.text(), whole.timings.cached_tokens)
}

#[test]
fn a_pinned_prompt_outlives_the_engine() {
    let kept = tempfile::tempdir().unwrap();
    let engine = Engine::with(on(&kept));
    let source = verified(engine.model("random", &random(8)));
    let mut gate = engine.link();
    gate.run_on(1, &source, ask(WORDS), pin());
    let whole = gate.whole(1);
    let Some(Event::Finished { usage, .. }) = whole.events.last() else {
        panic!("it failed")
    };
    let prompt = u32::try_from(usage.prompt.unwrap()).unwrap();
    let (warm, cached) = text(&mut gate, 2, &source);
    assert_eq!(cached + 1, prompt);
    let is_whole = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|e| e.path().extension().is_some_and(|end| end == "kv"))
    };
    let begun = Instant::now();
    while !std::fs::read_dir(kept.path()).unwrap().any(is_whole) {
        assert!(begun.elapsed() < PATIENCE, "it was never written");
        thread::sleep(Duration::from_millis(5));
    }
    drop(gate);
    engine.stop();

    let engine = Engine::with(on(&kept));
    let source = verified(engine.model("random", &random(8)));
    let mut gate = engine.link();
    // The very first request, which may come before all is read.
    assert_eq!(text(&mut gate, 1, &source), (warm.clone(), prompt - 1));
    // A model that was dropped from memory finds it, too.
    gate.send(&ToEngine::Unload {
        model: "tiny".into(),
    });
    gate.state_where(|state| state.models.is_empty());
    assert_eq!(text(&mut gate, 2, &source), (warm.clone(), prompt - 1));
    drop(gate);
    engine.stop();

    // Other weights find nothing, whatever their file says.
    let engine = Engine::with(on(&kept));
    let source = engine.model("random", &random(8));
    let mut gate = engine.link();
    assert_eq!(text(&mut gate, 1, &source), (warm, 0));
    drop(gate);
    engine.stop();
}

#[test]
fn a_folder_that_cannot_be_written_to_costs_no_answer() {
    let gone = tempfile::tempdir().unwrap();
    let options = on(&gone);
    gone.close().unwrap();
    let engine = Engine::with(options);
    let source = verified(engine.model("random", &random(8)));
    let mut gate = engine.link();
    gate.run_on(1, &source, ask(WORDS), pin());
    assert!(matches!(
        gate.whole(1).events.last(),
        Some(Event::Finished { .. })
    ));
    assert!(text(&mut gate, 2, &source).1 > 0, "in memory it is there");
    drop(gate);
    engine.stop();
}
