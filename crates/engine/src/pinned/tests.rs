#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{Cache, KvNumbers, LoadOptions};
use crate::tiny::{gguf, random};

const ROOM: u64 = 64 << 20;
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const DIGEST: &str = "0123456789abcdef";

struct Place {
    folder: tempfile::TempDir,
    model: Model,
}

impl Place {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            model: Model::load(&gguf(random(7))).unwrap(),
        }
    }

    fn open(&self, max_bytes: u64) -> Store {
        let options = PinnedOnDisk {
            folder: self.folder.path().to_owned(),
            max_bytes,
        };
        Store::open(options, "test-pinned").unwrap()
    }

    fn shelf(&self, store: &Store) -> Shelf {
        store.shelf("tiny", DIGEST, &self.model).unwrap()
    }

    fn computed(&self, tokens: &[u32]) -> Cache {
        let mut cache = self.model.new_cache();
        self.model.forward(&mut cache, tokens).unwrap();
        cache
    }

    /// Keeps prompts, each in a run of its own, and waits for the disk.
    fn keep(&self, max_bytes: u64, prompts: &[Vec<u32>]) {
        for prompt in prompts {
            let store = self.open(max_bytes);
            self.shelf(&store).keep(prompt, self.computed(prompt));
            store.finish(PATIENCE);
            // Ages are told apart by the file system's clock.
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn only_file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    /// The prompts that a new run finds, the oldest first.
    fn found(&self, max_bytes: u64) -> Vec<Vec<u32>> {
        let store = self.open(max_bytes);
        let shelf = self.shelf(&store);
        let first: Vec<Arc<_>> = shelf.first();
        store.finish(PATIENCE);
        first.iter().map(|entry| entry.tokens().to_vec()).collect()
    }
}

fn prompt(start: u32, length: u32) -> Vec<u32> {
    (start..start + length).map(|id| id % 250).collect()
}

#[test]
fn what_was_computed_comes_back_bit_for_bit() {
    let place = Place::new();
    for length in [33, 47, 48] {
        let prompt = prompt(length, length);
        place.keep(ROOM, std::slice::from_ref(&prompt));
        let store = place.open(ROOM);
        let shelf = place.shelf(&store);
        let mut longer = prompt.clone();
        longer.extend([9, 8, 7]);
        let entry = shelf.better(&longer, 0).unwrap();
        assert_eq!(entry.tokens(), prompt);
        assert!(shelf.better(&longer, 30).is_none(), "not worth reading");
        let mut cache = shelf.read(&entry).unwrap();
        let mut expected = place.computed(&prompt);
        let model = &place.model;
        assert_eq!(
            model.forward(&mut cache, &[9, 8, 7]).unwrap(),
            model.forward(&mut expected, &[9, 8, 7]).unwrap(),
        );
        store.finish(PATIENCE);
    }
    assert_eq!(place.files().len(), 3);
    for file in place.files() {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn what_was_kept_in_another_form_is_computed_once_more() {
    let mut place = Place::new();
    let prompt = prompt(3, 41);
    place.keep(ROOM, std::slice::from_ref(&prompt));
    let options = LoadOptions {
        kv: KvNumbers::Int8,
        ..LoadOptions::default()
    };
    place.model = Model::load_with(&gguf(random(7)), &options).unwrap();
    assert!(place.found(ROOM).is_empty());
    place.keep(ROOM, std::slice::from_ref(&prompt));
    let store = place.open(ROOM);
    let shelf = place.shelf(&store);
    let entry = shelf.better(&prompt, 0).unwrap();
    let mut cache = shelf.read(&entry).unwrap();
    assert_eq!(
        place.model.forward(&mut cache, &[9, 8, 7]).unwrap(),
        place
            .model
            .forward(&mut place.computed(&prompt), &[9, 8, 7])
            .unwrap(),
    );
    store.finish(PATIENCE);
}

#[test]
fn a_prompt_that_is_let_go_leaves_the_disk_also_if_it_was_not_there_yet() {
    let place = Place::new();
    let (first, second) = (prompt(1, 40), prompt(2, 40));
    place.keep(ROOM, &[first.clone(), second.clone()]);
    let store = place.open(ROOM);
    let shelf = place.shelf(&store);
    assert!(!shelf.forget(&first[..39]));
    assert!(shelf.forget(&first) && !shelf.forget(&first));
    assert_eq!(place.files().len(), 1);
    // Still on its way to the disk, or there already.
    let third = prompt(3, 40);
    shelf.keep(&third, place.computed(&third));
    shelf.forget(&third);
    store.finish(PATIENCE);
    assert_eq!(place.found(ROOM), [second]);
}

#[test]
fn the_same_prompt_again_is_not_written_again() {
    let place = Place::new();
    let (first, second) = (prompt(1, 40), prompt(2, 40));
    place.keep(ROOM, &[first.clone(), second.clone()]);
    assert_eq!(place.found(ROOM), [first.clone(), second.clone()]);
    let nodes = |place: &Place| {
        let mut nodes: Vec<u64> = place
            .files()
            .iter()
            .map(|f| f.metadata().unwrap().ino())
            .collect();
        nodes.sort_unstable();
        nodes
    };
    let before = nodes(&place);
    place.keep(ROOM, std::slice::from_ref(&first));
    assert_eq!(nodes(&place), before);
    assert_eq!(place.found(ROOM), [second, first], "it counts as new");
}

#[test]
fn a_longer_prompt_takes_its_beginnings_place_and_a_new_one_the_oldests() {
    let place = Place::new();
    let long = prompt(0, 80);
    place.keep(ROOM, &[long[..40].to_vec(), long.clone()]);
    assert_eq!(place.found(ROOM), std::slice::from_ref(&long));
    let many: Vec<_> = (1..=8).map(|start| prompt(start, 40)).collect();
    place.keep(ROOM, &many);
    assert_eq!(place.found(ROOM), many, "the oldest is gone");
    assert_eq!(place.files().len(), MAX_PINS);
}

#[test]
fn the_bound_is_kept_also_when_it_was_lowered() {
    let place = Place::new();
    let prompts: Vec<_> = (1..=5).map(|start| prompt(start, 40)).collect();
    place.keep(ROOM, &prompts[..1]);
    let one = place.only_file().metadata().unwrap().len();
    let total = |place: &Place| -> u64 {
        place
            .files()
            .iter()
            .map(|f| f.metadata().unwrap().len())
            .sum()
    };
    place.keep(3 * one, &prompts[1..]);
    assert_eq!(total(&place), 3 * one);
    assert_eq!(place.found(3 * one), prompts[2..]);
    // Too large for the bound: nothing gives way to it.
    place.keep(3 * one, &[prompt(9, 400)]);
    assert_eq!(place.found(3 * one), prompts[2..]);
    place.open(one).finish(PATIENCE);
    assert_eq!(place.found(one), prompts[4..]);
    // Switched off: nothing is kept, and nothing stays.
    let store = place.open(0);
    assert!(store.shelf("tiny", DIGEST, &place.model).is_none());
    store.finish(PATIENCE);
    assert!(place.files().is_empty());
}

#[test]
fn another_model_another_build_and_another_layout_find_nothing() {
    let place = Place::new();
    place.keep(ROOM, &[prompt(1, 40)]);
    let store = place.open(ROOM);
    let other = store.shelf("tiny", "ffff", &place.model).unwrap();
    assert!(other.first().is_empty());
    assert_eq!(place.files().len(), 1, "it is another model's");
    store.finish(PATIENCE);
    // Another layout under the same digest: a mistake, or another build.
    let file = place.only_file();
    let wider = crate::model::LoadOptions {
        executor: crate::model::Executor::Reference,
        ..Default::default()
    };
    let wider = Model::load_with(&gguf(random(7)), &wider).unwrap();
    let store = place.open(ROOM);
    let shelf = store.shelf("tiny", DIGEST, &wider).unwrap();
    assert!(shelf.first().is_empty() && !file.exists());
    store.finish(PATIENCE);
}

#[test]
fn what_does_not_belong_there_is_removed() {
    let place = Place::new();
    place.keep(ROOM, &[prompt(1, 40)]);
    let put =
        |name: &str, bytes: &[u8]| std::fs::write(place.folder.path().join(name), bytes).unwrap();
    put("unfinished.tmp", b"half");
    put("notes.txt", b"a stranger's");
    put(&format!("{DIGEST}-00.kv"), b"neither GGUF nor anything");
    put(&format!("{DIGEST}-01.kv"), b"");
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(
        outside.path(),
        place.folder.path().join(format!("{DIGEST}-02.kv")),
    )
    .unwrap();
    assert_eq!(place.found(ROOM), [prompt(1, 40)]);
    assert!(outside.path().exists());
    let left = place.files().into_iter().filter(|f| !f.is_symlink());
    assert_eq!(left.count(), 1);
}

#[test]
fn a_file_that_goes_while_it_is_needed_is_no_matter() {
    let place = Place::new();
    place.keep(ROOM, &[prompt(1, 40)]);
    let store = place.open(ROOM);
    let shelf = place.shelf(&store);
    let entry = shelf.better(&prompt(1, 40), 0).unwrap();
    std::fs::remove_file(place.only_file()).unwrap();
    assert!(shelf.read(&entry).is_none());
    assert!(shelf.better(&prompt(1, 40), 0).is_none());
    store.finish(PATIENCE);
}

#[test]
fn without_room_in_memory_the_file_stays() {
    let place = Place::new();
    place.keep(ROOM, &[prompt(1, 40)]);
    let store = place.open(ROOM);
    let shelf = place.shelf(&store);
    let entry = shelf.better(&prompt(1, 40), 0).unwrap();
    place.model.kv_pool().set_budget_bytes(0);
    assert!(shelf.first().is_empty());
    assert!(shelf.read(&entry).is_none());
    assert_eq!(place.files().len(), 1);
    store.finish(PATIENCE);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// One flipped bit, or a cut anywhere: nothing is read, and the file goes.
    #[test]
    fn damage_shows(at in 0.0f64..1.0, bit in 0u8..8, cut in any::<bool>()) {
        let place = Place::new();
        let prompt = prompt(1, 40);
        place.keep(ROOM, std::slice::from_ref(&prompt));
        let file = place.only_file();
        let mut bytes = std::fs::read(&file).unwrap();
        let at = (at * bytes.len() as f64) as usize;
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        std::fs::write(&file, bytes).unwrap();
        let store = place.open(ROOM);
        let shelf = place.shelf(&store);
        if let Some(entry) = shelf.better(&prompt, 0) {
            prop_assert!(shelf.read(&entry).is_none());
        }
        store.finish(PATIENCE);
        prop_assert!(!file.exists());
        prop_assert_eq!(place.model.kv_pool().used_bytes(), 0);
    }
}
