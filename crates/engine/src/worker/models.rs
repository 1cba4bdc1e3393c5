//! Models in memory: loaded on first use, one at a time, dropped when asked to
//! or when another one needs the room.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::frames::{LoadedModel, ModelSource};

use super::guard::{THREADS, survive};
use super::link::Input;
use super::memory;
use crate::embed::{Embedder, is_embedding_model};
use crate::generate::ReadyModel;
use crate::gguf::{Gguf, LoadError};

/// A finished load.
pub(super) struct Load {
    pub(super) name: String,
    pub(super) source: ModelSource,
    pub(super) result: Result<Held, Failure>,
    pub(super) took: Duration,
}

/// A model that could not even begin to load, and why.
pub(super) type NotBegun = (String, ModelSource, Failure);

/// Every model that is in memory or on its way there.
pub(super) struct Models {
    inputs: SyncSender<Input>,
    memory: Vec<Resident>,
    /// At most one is being read; the others wait their turn.
    wanted: Vec<(String, ModelSource)>,
    loading: bool,
}

/// A model in memory, of either kind.
#[derive(Clone)]
pub(super) enum Held {
    /// Answers in words.
    Words(Arc<ReadyModel>),
    /// Makes vectors.
    Vectors(Arc<Embedder>),
}

struct Resident {
    name: String,
    source: ModelSource,
    held: Held,
    load_ms: f64,
    used: Instant,
    /// To be dropped once no job uses it.
    leaving: bool,
}

impl Resident {
    fn in_use(&self) -> bool {
        match &self.held {
            Held::Words(ready) => Arc::strong_count(ready) > 1,
            Held::Vectors(embedder) => Arc::strong_count(embedder) > 1,
        }
    }
}

impl Models {
    pub(super) fn new(inputs: SyncSender<Input>) -> Self {
        Self {
            inputs,
            memory: Vec::new(),
            wanted: Vec::new(),
            loading: false,
        }
    }

    /// The model, if it is in memory and answers in words.
    pub(super) fn get(&mut self, name: &str, source: &ModelSource) -> Option<Arc<ReadyModel>> {
        match self.held(name, source)? {
            Held::Words(ready) => Some(ready),
            Held::Vectors(_) => None,
        }
    }

    /// The model, if it is in memory.
    pub(super) fn held(&mut self, name: &str, source: &ModelSource) -> Option<Held> {
        let resident = self
            .memory
            .iter_mut()
            .find(|r| r.name == name && r.source == *source)?;
        resident.used = Instant::now();
        resident.leaving = false;
        Some(resident.held.clone())
    }

    /// Every model in memory that answers in words.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<ReadyModel>> {
        self.memory
            .iter()
            .filter_map(|resident| match &resident.held {
                Held::Words(ready) => Some(ready),
                Held::Vectors(_) => None,
            })
    }

    /// Whether it is being loaded or waits for that.
    pub(super) fn is_coming(&self, name: &str, source: &ModelSource) -> bool {
        self.wanted.iter().any(|(n, s)| n == name && s == source)
    }

    /// Begins to load a model that is not here and not coming.
    ///
    /// # Errors
    /// There is no room for it, or no thread to load it on; or it is here, and
    /// not of the kind that was asked for.
    pub(super) fn want(&mut self, name: &str, source: &ModelSource) -> Result<(), Failure> {
        if self.held(name, source).is_some() {
            return Err(Failure {
                field: Some("model".to_owned()),
                ..Failure::new(
                    FailureKind::BadRequest,
                    "this model makes vectors and does not answer in words; name another one",
                )
            });
        }
        self.wanted.push((name.to_owned(), source.clone()));
        if self.loading {
            Ok(())
        } else {
            self.load_next()
        }
    }

    fn load_next(&mut self) -> Result<(), Failure> {
        let Some((name, source)) = self.wanted.first().cloned() else {
            return Ok(());
        };
        let begun = self.make_room(&name, &source).and_then(|()| {
            let inputs = self.inputs.clone();
            thread::Builder::new()
                .name(format!("{THREADS}-load"))
                .spawn(move || {
                    let begun = Instant::now();
                    let result = survive(|| load(&name, &source)).unwrap_or_else(|| {
                        Err(Failure::new(
                            FailureKind::ModelBroken,
                            "loading the model failed by a mistake of ours; its file is probably damaged",
                        ))
                    });
                    let load = Load { name, source, result, took: begun.elapsed() };
                    // Fails only when the compute thread is gone.
                    let _ = inputs.send(Input::Loaded(Box::new(load)));
                })
                .map_err(|error| Failure::new(FailureKind::Overloaded, format!("no thread to load on: {error}")))
        });
        self.loading = begun.is_ok();
        if begun.is_err() {
            self.wanted.remove(0);
        }
        begun.map(|_| ())
    }

    /// Drops models that nobody uses, the longest unused first, until the new
    /// one fits.
    fn make_room(&mut self, name: &str, source: &ModelSource) -> Result<(), Failure> {
        // Another file under the same name replaces it.
        self.memory
            .retain(|r| r.name != name || r.source == *source || r.in_use());
        let ModelSource::File { path, .. } = source else {
            return Ok(());
        };
        // A file that cannot be read is refused by the load, with the reason.
        let Ok(needed) = std::fs::metadata(path).map(|file| file.len()) else {
            return Ok(());
        };
        while let Some(free) = memory::available() {
            if free >= needed {
                break;
            }
            let idle = self.memory.iter().enumerate().filter(|(_, r)| !r.in_use());
            match idle.min_by_key(|(_, r)| r.used).map(|(index, _)| index) {
                Some(index) => drop(self.memory.remove(index)),
                None => {
                    return Err(Failure::new(
                        FailureKind::Overloaded,
                        format!(
                            "the model needs {} MiB of memory and {} MiB are free; use a smaller one or stop other programs",
                            needed >> 20,
                            free >> 20
                        ),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes in a finished load. Returns the failure of it, and that of the
    /// next one where it could not even begin.
    pub(super) fn loaded(&mut self, load: Load) -> (Result<LoadedModel, Failure>, Vec<NotBegun>) {
        self.loading = false;
        self.wanted
            .retain(|(name, source)| *name != load.name || *source != load.source);
        let result = load.result.map(|held| {
            let resident = Resident {
                name: load.name,
                source: load.source,
                held,
                load_ms: load.took.as_secs_f64() * 1000.0,
                used: Instant::now(),
                leaving: false,
            };
            let described = describe(&resident);
            self.memory.push(resident);
            described
        });
        let mut failed = Vec::new();
        while !self.loading
            && let Some((name, source)) = self.wanted.first().cloned()
        {
            if let Err(failure) = self.load_next() {
                failed.push((name, source, failure));
            }
        }
        (result, failed)
    }

    /// Drops a model as soon as no job uses it.
    pub(super) fn unload(&mut self, name: &str) {
        for resident in self.memory.iter_mut().filter(|r| r.name == name) {
            resident.leaving = true;
        }
        self.drop_leaving();
    }

    /// To be called when jobs ended.
    pub(super) fn drop_leaving(&mut self) {
        self.memory.retain(|r| !r.leaving || r.in_use());
    }

    /// What is in memory, for the gate.
    pub(super) fn list(&self) -> Vec<LoadedModel> {
        self.memory.iter().map(describe).collect()
    }
}

fn describe(resident: &Resident) -> LoadedModel {
    let (architecture, memory_bytes, context, tools) = match &resident.held {
        Held::Words(ready) => (
            ready.model().architecture(),
            ready.memory_bytes(),
            ready.model().context_tokens(),
            ready.offers_tools(),
        ),
        Held::Vectors(embedder) => (
            embedder.architecture(),
            embedder.memory_bytes(),
            embedder.context_tokens(),
            false,
        ),
    };
    LoadedModel {
        name: resident.name.clone(),
        architecture: architecture.to_owned(),
        memory_bytes,
        context_tokens: u32::try_from(context).unwrap_or(u32::MAX),
        tools,
        load_ms: resident.load_ms,
    }
}

fn load(name: &str, source: &ModelSource) -> Result<Held, Failure> {
    let words = |ready| Held::Words(Arc::new(ready));
    let loaded = match source {
        ModelSource::Embedded => crate::embedded()
            .and_then(|gguf| ReadyModel::load(name, &gguf, None))
            .map(|ready| words(ready.greedy_by_default())),
        ModelSource::File { path, tokenizer } => Gguf::open(Path::new(path)).and_then(|gguf| {
            let tokenizer = tokenizer.as_deref().map(Path::new);
            if is_embedding_model(&gguf) {
                let embedder = Embedder::load(name, &gguf, tokenizer)?;
                Ok(Held::Vectors(Arc::new(embedder)))
            } else {
                ReadyModel::load(name, &gguf, tokenizer).map(words)
            }
        }),
    };
    loaded.map_err(|error| {
        let kind = match &error {
            LoadError::Io(io) if io.kind() == std::io::ErrorKind::NotFound => {
                FailureKind::ModelMissing
            }
            _ => FailureKind::ModelBroken,
        };
        Failure::new(kind, error.to_string())
    })
}
