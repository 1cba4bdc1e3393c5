//! How a model is run, as its manifest says.

use nearfar_domain::frames::{KvNumbers, Tuning};

use super::*;

fn draft(of: &str) -> Change {
    Change {
        draft: Some(Some(of.to_owned())),
        ..Change::default()
    }
}

fn tuning(place: &Place, name: &str) -> Tuning {
    let manifest = place.store.get(name).unwrap();
    match place.store.local_model(&manifest).source {
        ModelSource::File { tuning, .. } => tuning,
        ModelSource::Embedded => panic!("a file"),
    }
}

#[test]
fn a_draft_is_checked_written_down_and_told() {
    let place = Place::new();
    for (name, bytes) in [
        ("big", gguf(1)),
        ("small", gguf(2)),
        ("alien", gguf_with_token("llama", "qwen2", 3, "ho")),
    ] {
        let file = place.file(&format!("{name}.gguf"), &bytes);
        place.add(&new(&file)).unwrap();
    }
    assert_eq!(tuning(&place, "big"), Tuning::default());
    place.store.tune("big", &draft("small")).unwrap();
    let told = tuning(&place, "big").draft.unwrap();
    assert_eq!(told.name, "small");
    assert_eq!(std::fs::read(&told.path).unwrap(), gguf(2));
    // What does not go is refused with the reason, and changes nothing.
    for (wrong, said) in [
        ("big", "nothing from itself"),
        (EMBEDDED, "tokens of its own"),
        ("nobody", "nobody"),
        (
            "alien",
            "token 256 is \"hi\" in the model's tokenizer and \"ho\" in the draft's",
        ),
    ] {
        let error = place
            .store
            .tune("big", &draft(wrong))
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{wrong}: {error}");
    }
    assert!(place.store.tune(EMBEDDED, &draft("small")).is_err());
    assert_eq!(tuning(&place, "big").draft.unwrap().name, "small");
    // A draft in use stays, and what lost its draft otherwise runs without.
    let error = place.store.remove("small").unwrap_err().to_string();
    assert!(
        error.contains("nearfar model set big --no-draft"),
        "{error}"
    );
    std::fs::remove_file(told.path).unwrap();
    assert_eq!(tuning(&place, "big").draft, None);
    let none = Change {
        draft: Some(None),
        ..Change::default()
    };
    place.store.tune("big", &none).unwrap();
    place.store.remove("small").unwrap();
    let text = std::fs::read_to_string(place.state().join("models/manifests/big.json")).unwrap();
    assert!(
        !text.contains("tuning"),
        "what is usual is not written: {text}"
    );
}

#[test]
fn how_keys_and_values_are_kept_is_written_down_and_told() {
    let place = Place::new();
    let file = place.file("a.gguf", &gguf(1));
    place.add(&new(&file)).unwrap();
    let kept = |kv| Change {
        kv: Some(kv),
        ..Change::default()
    };
    place.store.tune("a", &kept(KvNumbers::Int8)).unwrap();
    assert_eq!(tuning(&place, "a").kv, KvNumbers::Int8);
    // Adding the same file again keeps what the owner said.
    place.add(&new(&file)).unwrap();
    assert_eq!(tuning(&place, "a").kv, KvNumbers::Int8);
    place.store.tune("a", &kept(KvNumbers::Bf16)).unwrap();
    assert_eq!(tuning(&place, "a"), Tuning::default());
}
