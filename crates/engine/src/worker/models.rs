//! Models in memory: loaded on first use or when asked to, several at once
//! within one budget. A model that is not used makes room for one that is
//! wanted, the longest unused first; one that cannot fit is refused with the
//! figures.
//!
//! A load runs on a thread of its own. It first says how much memory it needs
//! and waits until that was made: [`Models::room`] is the only place that
//! decides what is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::frames::{LoadedModel, LoadingModel, ModelSource};

use super::guard::THREADS;
use super::link::Input;
use super::load::{Load, Room, load_thread};
use super::memory;
use crate::embed::Embedder;
use crate::generate::ReadyModel;
use crate::model::Placement;
use crate::pinned::Store;

/// A model that could not even begin to load, and why.
pub(super) type NotBegun = (String, ModelSource, Failure);

/// A model in memory, of either kind.
#[derive(Clone)]
pub(super) enum Held {
    /// Answers in words.
    Words(Arc<ReadyModel>),
    /// Makes vectors.
    Vectors(Arc<Embedder>),
}

impl Held {
    /// Weights alone, in bytes.
    fn weight_bytes(&self) -> u64 {
        match self {
            Held::Words(ready) => ready.weight_bytes(),
            Held::Vectors(embedder) => embedder.memory_bytes(),
        }
    }

    /// The most that keys and values may take now, in bytes.
    fn cache_budget(&self) -> u64 {
        match self {
            Held::Words(ready) => ready.cache_budget(),
            Held::Vectors(_) => 0,
        }
    }

    fn memory_bytes(&self) -> u64 {
        match self {
            Held::Words(ready) => ready.memory_bytes(),
            Held::Vectors(embedder) => embedder.memory_bytes(),
        }
    }
}

/// How much memory all models may take together, and how long one stays that
/// nobody uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) budget: u64,
    /// `None`: until another one needs the room.
    pub(super) keep_alive: Option<Duration>,
    /// For models from files.
    pub(super) placement: Placement,
}

/// Every model that is in memory or on its way there.
pub(super) struct Models {
    inputs: SyncSender<Input>,
    limits: Limits,
    /// Pinned prompts on disk.
    pinned: Option<Arc<Store>>,
    memory: Vec<Resident>,
    /// At most one is being read; the others wait their turn.
    wanted: Vec<(String, ModelSource)>,
    loading: Option<Loading>,
}

/// How far the load is that runs.
struct Loading {
    name: String,
    read: Arc<AtomicU64>,
    total: u64,
    /// What it said that it needs in memory.
    needed: u64,
}

struct Resident {
    name: String,
    source: ModelSource,
    held: Held,
    /// What was set aside for it: its weights and a cache of ordinary length.
    needed: u64,
    /// What its keys and values would take at most if it were alone.
    most_cache: u64,
    load_ms: f64,
    used: Instant,
    /// How long it stays after its last use; `None`: as long as there is room.
    keep: Option<Duration>,
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
    pub(super) fn new(
        inputs: SyncSender<Input>,
        limits: Limits,
        pinned: Option<Arc<Store>>,
    ) -> Self {
        Self {
            inputs,
            limits,
            pinned,
            memory: Vec::new(),
            wanted: Vec::new(),
            loading: None,
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
    /// There is no thread to load it on; or it is here, and not of the kind
    /// that was asked for.
    pub(super) fn want(&mut self, name: &str, source: &ModelSource) -> Result<(), Failure> {
        if self.held(name, source).is_some() {
            return Err(Failure {
                field: Some("model".to_owned()),
                ..Failure::new(
                    FailureKind::Unsupported,
                    "this model makes vectors and does not answer in words; name another one",
                )
            });
        }
        self.wanted.push((name.to_owned(), source.clone()));
        if self.loading.is_some() {
            Ok(())
        } else {
            self.load_next()
        }
    }

    fn load_next(&mut self) -> Result<(), Failure> {
        let Some((name, source)) = self.wanted.first().cloned() else {
            return Ok(());
        };
        let read = Arc::new(AtomicU64::new(0));
        let total = match &source {
            ModelSource::Embedded => crate::embedded_model().len() as u64,
            // A file that cannot be read is refused by the load, with the reason.
            ModelSource::File { path, tuning, .. } => {
                let draft = tuning.draft.as_ref().map(|draft| draft.path.as_str());
                let length = |path| std::fs::metadata(path).map_or(0, |meta| meta.len());
                std::iter::once(path.as_str())
                    .chain(draft)
                    .map(length)
                    .sum()
            }
        };
        self.loading = Some(Loading {
            name: name.clone(),
            read: Arc::clone(&read),
            total,
            needed: 0,
        });
        let (inputs, pinned) = (self.inputs.clone(), self.pinned.clone());
        let placement = self.limits.placement;
        let spawned = thread::Builder::new()
            .name(format!("{THREADS}-load"))
            .spawn(move || load_thread(name, source, read, placement, &inputs, pinned));
        match spawned {
            Ok(_) => Ok(()),
            Err(error) => {
                self.loading = None;
                self.wanted.remove(0);
                let text = format!("no thread to load on: {error}");
                Err(Failure::new(FailureKind::Overloaded, text))
            }
        }
    }

    /// Drops models that nobody uses, the longest unused first, until the new
    /// one fits, and lets its load go on.
    ///
    /// # Errors
    /// It does not fit: the figures. The load ends then.
    pub(super) fn room(&mut self, room: Room) -> Result<(), Box<Load>> {
        let made = self.make_room(&room.name, &room.source, room.needed);
        match made {
            Ok(()) => {
                if let Some(loading) = &mut self.loading {
                    loading.needed = room.needed;
                }
                // Fails only when the thread is gone, which then says so itself.
                let _ = room.go.send(());
                Ok(())
            }
            Err(failure) => Err(Box::new(Load {
                name: room.name,
                source: room.source,
                result: Err(failure),
                took: Duration::ZERO,
            })),
        }
    }

    fn make_room(&mut self, name: &str, source: &ModelSource, needed: u64) -> Result<(), Failure> {
        // Another file under the same name replaces it.
        self.memory
            .retain(|r| r.name != name || r.source == *source || r.in_use());
        let budget = self.limits.budget;
        if needed > budget {
            return Err(Failure::new(
                FailureKind::ModelBroken,
                format!(
                    "the model needs about {} MiB of memory and all models together may take {} MiB; use a smaller one, or raise local.memory_budget if the device has more",
                    needed >> 20,
                    budget >> 20
                ),
            ));
        }
        loop {
            let taken = self.taken();
            let within = taken.saturating_add(needed) <= budget;
            let free = memory::available();
            if within && free.is_none_or(|free| free >= needed) {
                return Ok(());
            }
            let idle = self.memory.iter().enumerate().filter(|(_, r)| !r.in_use());
            let Some((index, _)) = idle.min_by_key(|(_, r)| r.used) else {
                return Err(Failure::new(
                    FailureKind::Overloaded,
                    if within {
                        format!(
                            "the model needs about {} MiB of memory and {} MiB are free; use a smaller one or stop other programs",
                            needed >> 20,
                            free.unwrap_or(0) >> 20
                        )
                    } else {
                        format!(
                            "the model needs about {} MiB of memory; models that are answering take {} of the {} MiB that all may take (local.memory_budget), so it must wait for them",
                            needed >> 20,
                            taken >> 20,
                            budget >> 20
                        )
                    },
                ));
            };
            let dropped = self.memory.remove(index);
            tracing::info!(
                model = dropped.name,
                freed_mib = dropped.held.memory_bytes() >> 20,
                "a model makes room for another"
            );
        }
    }

    /// Bytes that all models in memory take or may soon take: a cache that is
    /// still short has its room all the same.
    fn taken(&self) -> u64 {
        let of = |r: &Resident| r.held.memory_bytes().max(r.needed);
        self.memory.iter().map(of).sum()
    }

    /// Gives each model its part of what the budget leaves beside all weights,
    /// in proportion to what was set aside for its keys and values. That sum
    /// fits, so no model gets less than was set aside for it.
    fn share_caches(&self) {
        let weights: u64 = self.memory.iter().map(|r| r.held.weight_bytes()).sum();
        let free = self.limits.budget.saturating_sub(weights);
        let aside = |r: &Resident| r.needed.saturating_sub(r.held.weight_bytes());
        let all: u64 = self.memory.iter().map(aside).sum();
        for resident in &self.memory {
            if let Held::Words(ready) = &resident.held {
                let part = u128::from(free) * u128::from(aside(resident)) / u128::from(all.max(1));
                let part = u64::try_from(part).unwrap_or(u64::MAX);
                // What is in use already is not taken back.
                let part = part.max(ready.cache_used());
                ready.set_cache_budget(part.min(resident.most_cache));
            }
        }
    }

    /// Takes in a finished load. Returns the failure of it, and that of the
    /// next one where it could not even begin.
    pub(super) fn loaded(&mut self, load: Load) -> (Result<LoadedModel, Failure>, Vec<NotBegun>) {
        let needed = self.loading.take().map_or(0, |loading| loading.needed);
        self.wanted
            .retain(|(name, source)| *name != load.name || *source != load.source);
        let result = load.result.map(|held| {
            let resident = Resident {
                name: load.name,
                source: load.source,
                most_cache: held.cache_budget(),
                held,
                needed,
                load_ms: load.took.as_secs_f64() * 1000.0,
                used: Instant::now(),
                keep: self.limits.keep_alive,
                leaving: false,
            };
            let described = describe(&resident);
            self.memory.push(resident);
            described
        });
        self.share_caches();
        let mut failed = Vec::new();
        while self.loading.is_none()
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
        let before = self.memory.len();
        self.memory.retain(|r| !r.leaving || r.in_use());
        if self.memory.len() != before {
            self.share_caches();
        }
    }

    /// Keeps a model for a time of its own.
    pub(super) fn keep(&mut self, name: &str, keep: Option<Duration>, now: Instant) {
        for resident in self.memory.iter_mut().filter(|r| r.name == name) {
            resident.keep = keep;
            resident.used = now;
        }
    }

    /// Drops what nobody used for as long as it is kept. One in use counts from
    /// now on.
    pub(super) fn expire(&mut self, now: Instant) {
        for resident in &mut self.memory {
            if resident.in_use() {
                resident.used = now;
            }
        }
        let before = self.memory.len();
        self.memory.retain(|r| {
            let unused = now.saturating_duration_since(r.used);
            let kept = r.keep.is_none_or(|keep| unused < keep);
            if !kept {
                tracing::info!(model = r.name, "a model that nobody uses was dropped");
            }
            kept
        });
        if self.memory.len() != before {
            self.share_caches();
        }
    }

    /// How long until [`Models::expire`] could have something to do.
    pub(super) fn next_expiry(&self, now: Instant) -> Option<Duration> {
        let due = self.memory.iter().filter_map(|r| {
            let keep = r.keep?;
            let left = keep.saturating_sub(now.saturating_duration_since(r.used));
            // Not less than this, or a model in use would be looked at all the time.
            Some(left.max(keep / 8))
        });
        due.min()
    }

    /// What is in memory, for the gate.
    pub(super) fn list(&self) -> Vec<LoadedModel> {
        self.memory.iter().map(describe).collect()
    }

    /// What is on its way there.
    pub(super) fn loading(&self) -> Option<LoadingModel> {
        let loading = self.loading.as_ref()?;
        Some(LoadingModel {
            name: loading.name.clone(),
            read_bytes: loading.read.load(Ordering::Relaxed).min(loading.total),
            total_bytes: loading.total,
        })
    }

    /// Bytes that all models may take together.
    pub(super) fn budget(&self) -> u64 {
        self.limits.budget
    }
}

fn describe(resident: &Resident) -> LoadedModel {
    let (architecture, context, tools) = match &resident.held {
        Held::Words(ready) => (
            ready.model().architecture(),
            ready.model().context_tokens(),
            ready.offers_tools(),
        ),
        Held::Vectors(embedder) => (embedder.architecture(), embedder.context_tokens(), false),
    };
    LoadedModel {
        name: resident.name.clone(),
        architecture: architecture.to_owned(),
        memory_bytes: resident.held.memory_bytes(),
        context_tokens: u32::try_from(context).unwrap_or(u32::MAX),
        tools,
        load_ms: resident.load_ms,
    }
}
