#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::model::Model;
use crate::tiny::{gguf, random};

fn model() -> Model {
    Model::load(&gguf(random(7))).unwrap()
}

fn computed(model: &Model, tokens: &[u32]) -> Cache {
    let mut cache = model.new_cache();
    model.forward(&mut cache, tokens).unwrap();
    cache
}

fn numbers(from: u32, count: u32) -> Vec<u32> {
    (from..from + count).collect()
}

#[test]
fn the_longest_known_beginning_is_taken_also_within_a_block() {
    let model = model();
    let (mut tree, long) = (Prefixes::default(), numbers(0, 50));
    assert!(tree.take(&long).is_none());
    tree.put(&long, &computed(&model, &long), false);
    let mut other = numbers(0, 37);
    other.extend([200, 201]);
    assert_eq!(
        (tree.known(&other), tree.known(&long), tree.known(&[9])),
        (37, 50, 0)
    );
    let mut cache = tree.take(&other).unwrap();
    assert_eq!(cache.len(), 37);
    // Going on from there is the same as computing all of it, and leaves the
    // first sequence as it was.
    let expected = model.forward(&mut model.new_cache(), &other).unwrap();
    assert_eq!(model.forward(&mut cache, &other[37..]).unwrap(), expected);
    tree.put(&other, &cache, false);
    let mut kept = tree.take(&long[..49]).unwrap();
    let expected = model.forward(&mut model.new_cache(), &long).unwrap();
    assert_eq!(model.forward(&mut kept, &long[49..]).unwrap(), expected);
    assert_eq!(tree.nodes(), 3, "one beginning and two ends");
}

#[test]
fn beginnings_outlive_what_followed_them_and_pins_outlive_all() {
    let model = model();
    let mut tree = Prefixes::default();
    let system = numbers(0, 40);
    tree.put(&system, &computed(&model, &system), true);
    for turn in 0..5 {
        let mut tokens = system.clone();
        tokens.extend(numbers(100 + turn, 30));
        tree.put(&tokens, &computed(&model, &tokens), false);
    }
    let alone = numbers(60, 20);
    tree.put(&alone, &computed(&model, &alone), false);
    let mut recent = system.clone();
    recent.extend(numbers(104, 30));
    assert_eq!(tree.take(&recent).unwrap().len(), 70);
    let mut evicted = 0;
    while tree.known(&recent) == 70 {
        assert!(tree.evict());
        evicted += 1;
    }
    assert_eq!(evicted, 6, "what was used last goes last");
    assert_eq!(tree.known(&alone), 0);
    assert!(!tree.evict(), "the pin stays");
    assert_eq!(tree.known(&recent), 40);
    assert!(tree.unpin_oldest() && tree.evict() && tree.is_empty());
    assert_eq!(model.kv_pool().used_bytes(), 0);
}

#[test]
fn a_pin_may_end_within_a_known_sequence() {
    let model = model();
    let mut tree = Prefixes::default();
    let long = numbers(0, 60);
    let cache = computed(&model, &long);
    tree.put(&long, &cache, false);
    tree.put(&long[..25], &cache.fork(25), true);
    while tree.evict() {}
    assert_eq!(tree.known(&long), 25);
    // Old pins give way to new ones.
    for first in 1..=8 {
        let tokens = numbers(first * 20, 10);
        tree.put(&tokens, &computed(&model, &tokens), true);
    }
    while tree.evict() {}
    assert_eq!((tree.known(&long), tree.known(&numbers(160, 10))), (0, 10));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a plain list of sequences, and the blocks back to none.
    #[test]
    fn it_knows_what_a_list_knows(
        sequences in prop::collection::vec(prop::collection::vec(0u32..3, 1..40), 1..20),
        asked in prop::collection::vec(prop::collection::vec(0u32..3, 1..40), 1..10),
        pins in any::<u32>(),
    ) {
        let model = model();
        let mut tree = Prefixes::default();
        for (index, tokens) in sequences.iter().enumerate() {
            let mut cache = match tree.take(tokens) {
                Some(cache) => cache,
                None => model.new_cache(),
            };
            if cache.len() < tokens.len() {
                let held = cache.len();
                model.forward(&mut cache, &tokens[held..]).unwrap();
            }
            tree.put(tokens, &cache, pins >> index & 1 == 1);
        }
        for tokens in asked.iter().chain(&sequences) {
            let expected = sequences.iter().map(|kept| common(kept, tokens)).max().unwrap();
            prop_assert_eq!(tree.known(tokens), expected);
            prop_assert_eq!(tree.take(tokens).map_or(0, |cache| cache.len()), expected);
        }
        while tree.evict() || tree.unpin_oldest() {}
        prop_assert!(tree.is_empty());
        prop_assert_eq!(model.kv_pool().used_bytes(), 0);
    }
}

#[test]
fn one_pin_is_let_go_and_the_others_stay() {
    let model = model();
    let mut tree = Prefixes::default();
    let system = numbers(0, 40);
    let longer = |from: u32| [system.clone(), numbers(from, 20)].concat();
    let (first, second) = (longer(100), longer(150));
    for tokens in [&first, &second] {
        tree.put(tokens, &computed(&model, tokens), true);
    }
    assert!(!tree.unpin(&system), "it has no pin of its own");
    assert!(!tree.unpin(&first[..50]) && !tree.unpin(&[]) && !tree.unpin(&[9]));
    // What follows a pinned one does not hide it.
    let said = [first.clone(), numbers(200, 9)].concat();
    tree.put(&said, &computed(&model, &said), false);
    assert!(tree.unpin(&first));
    assert!(!tree.unpin(&first), "once");
    while tree.evict() {}
    assert_eq!((tree.known(&first), tree.known(&second)), (40, 60));
    assert!(tree.unpin(&second));
    while tree.evict() {}
    assert!(tree.is_empty());
}
