//! A model's load, from the files' headers to a model at work, on a thread of
//! its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::frames::{KvNumbers, ModelSource};

use super::guard::survive;
use super::link::Input;
use super::models::Held;
use crate::embed::{Embedder, is_embedding_model};
use crate::generate::{ReadyModel, Restore};
use crate::gguf::{Gguf, LoadError};
use crate::inspect::needed_bytes;
use crate::model::{LoadOptions, Placement};
use crate::pinned::Store;

/// A finished load.
pub(super) struct Load {
    pub(super) name: String,
    pub(super) source: ModelSource,
    pub(super) result: Result<Held, Failure>,
    pub(super) took: Duration,
}

/// A load that knows how much memory it needs and waits for a word. Dropping
/// it ends the load.
pub(super) struct Room {
    pub(super) name: String,
    pub(super) source: ModelSource,
    pub(super) needed: u64,
    pub(super) go: SyncSender<()>,
}

/// A whole load, from the file's header to the model; then, with the model at
/// work, its pinned prompts.
pub(super) fn load_thread(
    name: String,
    source: ModelSource,
    read: Arc<AtomicU64>,
    placement: Placement,
    inputs: &SyncSender<Input>,
    pinned: Option<Arc<Store>>,
) {
    let begun = Instant::now();
    // `None`: it was refused, and that was told.
    let result = survive(|| {
        let files = Files::open(&source, &read)?;
        let needed = files.needed_bytes(&source)?;
        let (go, wait) = sync_channel(1);
        let room = Room {
            name: name.clone(),
            source: source.clone(),
            needed,
            go,
        };
        // Fails only when the compute thread is gone; so does the wait then.
        let _ = inputs.send(Input::Room(Box::new(room)));
        if wait.recv().is_err() {
            return Ok(None);
        }
        load(&name, &source, &files, placement).map(Some)
    });
    let result = match result {
        Some(Ok(None)) => return,
        Some(Ok(Some(held))) => Ok(held),
        Some(Err(failure)) => Err(failure),
        None => Err(Failure::new(
            FailureKind::ModelBroken,
            "loading the model failed by a mistake of ours; its file is probably damaged",
        )),
    };
    let restore = match (&result, &pinned) {
        (Ok(Held::Words(ready)), Some(pinned)) => survive(|| shelve(pinned, ready, &source)),
        _ => None,
    };
    let load = Load {
        name,
        source,
        result,
        took: begun.elapsed(),
    };
    // Fails only when the compute thread is gone.
    let _ = inputs.send(Input::Loaded(Box::new(load)));
    drop(pinned);
    if let Some(Some(restore)) = restore {
        survive(|| restore.run());
    }
}

/// Looks up what is pinned on disk of a model. A file without a verified digest
/// has nothing there.
fn shelve(pinned: &Store, ready: &ReadyModel, source: &ModelSource) -> Option<Restore> {
    let digest = match source {
        ModelSource::Embedded => {
            let hash = blake3::hash(crate::embedded_model()).to_hex();
            format!("embedded{}", &hash[..32])
        }
        ModelSource::File { sha256, .. } => sha256.clone()?,
    };
    let shelf = pinned.shelf(ready.name(), &digest, ready.model())?;
    Some(ready.use_shelf(shelf))
}

/// A model's files, opened.
struct Files {
    model: Gguf,
    draft: Option<Gguf>,
}

impl Files {
    fn open(source: &ModelSource, read: &Arc<AtomicU64>) -> Result<Self, Failure> {
        let counted = |opened: Result<Gguf, LoadError>| {
            opened.map(|mut gguf| {
                gguf.count_reads(Arc::clone(read));
                gguf
            })
        };
        let (model, draft) = match source {
            ModelSource::Embedded => (crate::embedded(), None),
            ModelSource::File { path, tuning, .. } => {
                let draft = tuning.draft.as_ref();
                let draft = draft.map(|draft| (draft, Gguf::open(Path::new(&draft.path))));
                (Gguf::open(Path::new(path)), draft)
            }
        };
        let draft = draft.map(|(draft, opened)| {
            counted(opened).map_err(|error| drafts_refusal(&draft.name, &error))
        });
        Ok(Self {
            model: counted(model).map_err(|error| refusal(&error))?,
            draft: draft.transpose()?,
        })
    }

    fn needed_bytes(&self, source: &ModelSource) -> Result<u64, Failure> {
        let files = std::iter::once(&self.model).chain(&self.draft);
        let needed = files.map(|gguf| needed_bytes(gguf, kv(source)));
        needed
            .sum::<Result<u64, _>>()
            .map_err(|error| refusal(&error))
    }
}

/// How a model keeps keys and values; its draft does the same.
fn kv(source: &ModelSource) -> KvNumbers {
    match source {
        ModelSource::Embedded => KvNumbers::default(),
        ModelSource::File { tuning, .. } => tuning.kv,
    }
}

fn load(
    name: &str,
    source: &ModelSource,
    files: &Files,
    placement: Placement,
) -> Result<Held, Failure> {
    let words = |ready| Held::Words(Arc::new(ready));
    let gguf = &files.model;
    let (tokenizer, tuning) = match source {
        ModelSource::Embedded => {
            let loaded = ReadyModel::load(name, gguf, None);
            let loaded = loaded.map(|ready| words(ready.greedy_by_default()));
            return loaded.map_err(|error| refusal(&error));
        }
        ModelSource::File {
            tokenizer, tuning, ..
        } => (tokenizer.as_deref().map(Path::new), tuning),
    };
    if is_embedding_model(gguf) {
        let made = Embedder::load(name, gguf, tokenizer);
        return made
            .map(|made| Held::Vectors(Arc::new(made)))
            .map_err(|error| refusal(&error));
    }
    let options = LoadOptions {
        placement,
        kv: kv(source),
        ..LoadOptions::default()
    };
    let ready = ReadyModel::load_with(name, gguf, tokenizer, &options);
    let ready = ready.map_err(|error| refusal(&error))?;
    let (Some(draft), Some(gguf)) = (&tuning.draft, &files.draft) else {
        return Ok(words(ready));
    };
    // A device has room for the model first: its draft stays with the processor.
    let tokenizer = draft.tokenizer.as_deref().map(Path::new);
    let options = LoadOptions {
        kv: kv(source),
        ..LoadOptions::default()
    };
    let drafting = ReadyModel::load_with(&draft.name, gguf, tokenizer, &options)
        .map_err(|error| drafts_refusal(&draft.name, &error))?;
    let ready = ready
        .with_draft(drafting)
        .map_err(|error| refusal(&error))?;
    Ok(words(ready))
}

/// Why the file of a model's draft cannot be used.
fn drafts_refusal(name: &str, error: &LoadError) -> Failure {
    let Failure { kind, message, .. } = refusal(error);
    Failure::new(kind, format!("its draft '{name}': {message}"))
}

fn refusal(error: &LoadError) -> Failure {
    let kind = match error {
        LoadError::Io(io) if io.kind() == std::io::ErrorKind::NotFound => FailureKind::ModelMissing,
        _ => FailureKind::ModelBroken,
    };
    Failure::new(kind, error.to_string())
}
