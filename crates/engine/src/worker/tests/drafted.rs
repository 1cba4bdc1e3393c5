//! A model with a draft, over a real link.

use nearfar_domain::frames::{DraftSource, ModelLoad};

use super::*;

/// The source of a model with this draft.
fn with_draft(source: ModelSource, draft: &ModelSource) -> ModelSource {
    match (source, draft) {
        (
            ModelSource::File {
                path,
                tokenizer,
                sha256,
                ..
            },
            ModelSource::File { path: drafts, .. },
        ) => ModelSource::File {
            path,
            tokenizer,
            sha256,
            tuning: Tuning {
                draft: Some(DraftSource {
                    name: "small".to_owned(),
                    path: drafts.clone(),
                    tokenizer: None,
                }),
                ..Tuning::default()
            },
        },
        (source, _) => source,
    }
}

fn asked() -> Chat {
    Chat {
        params: Params {
            max_tokens: Some(60),
            presence_penalty: Some(2.0),
            ..Params::default()
        },
        ..ask("what is there to see")
    }
}

#[test]
fn a_draft_is_loaded_with_its_model_and_changes_no_word() {
    let engine = Engine::start();
    let (big, small) = (
        engine.model("big", &random(3)),
        engine.model("small", &random(4)),
    );
    let mut gate = engine.link();
    gate.run(1, &big, asked());
    let alone = gate.whole(1);
    let both = with_draft(big, &small);
    gate.run(2, &both, asked());
    let drafted = gate.whole(2);
    assert_eq!(drafted.text(), alone.text());
    gate.states.clear();
    let state = gate.state_where(|state| {
        let with = |load: &ModelLoad| load.draft.as_ref().is_some_and(|d| d.name == "small");
        state.loads.iter().any(with)
    });
    // Both sets of weights count.
    let [model] = state.models.as_slice() else {
        panic!("one model, not {}", state.models.len())
    };
    let weights = |bytes: Vec<u8>| crate::tiny::ready(bytes).weight_bytes();
    assert!(model.memory_bytes >= weights(random(3)) + weights(random(4)));
}

#[test]
fn a_draft_that_does_not_go_with_its_model_is_refused_by_name() {
    let engine = Engine::start();
    let big = engine.model("big", &random(3));
    let other = engine.model("small", &chain(b'\n', &[b"x"], true));
    let missing = match &other {
        ModelSource::File { path, .. } => ModelSource::File {
            path: format!("{path}.gone"),
            tokenizer: None,
            sha256: None,
            tuning: Tuning::default(),
        },
        ModelSource::Embedded => panic!("a file"),
    };
    let mut gate = engine.link();
    for (job, draft, kind, said) in [
        (1, other, FailureKind::ModelBroken, "token 259 is missing"),
        (2, missing, FailureKind::ModelMissing, "its draft 'small'"),
    ] {
        gate.run(job, &with_draft(big.clone(), &draft), asked());
        let whole = gate.whole(job);
        assert_eq!(whole.failure(), kind);
        let Some(Event::Failed(failure)) = whole.events.last() else {
            panic!("it did not fail")
        };
        assert!(failure.message.contains(said), "{}", failure.message);
    }
}
