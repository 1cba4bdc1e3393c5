//! Memory for keys and values, in blocks that sequences share.
//!
//! A block holds [`BLOCK_TOKENS`] positions of all layers. It is reference
//! counted: sequences that begin alike hold the same blocks, and whoever writes
//! to a shared one gets a copy of its own first ([`super::cache`]). A pool has
//! a budget in bytes. Blocks that nobody holds any more are recycled, so that a
//! long-lived process neither returns memory to the system nor asks for it at
//! every conversation. Which blocks are worth keeping is the callers' matter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ModelError;
use super::cache::Cache;
use super::tensors::{Slot, Store, slot_bytes};
use crate::kernels::TileForm;

/// Positions per block.
pub const BLOCK_TOKENS: usize = 16;

/// Tiles begin at multiples of this many bytes: one line of the cache.
const ALIGNMENT: usize = 64;

/// What a model keeps per token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// In the processor's memory.
    pub(super) layers: usize,
    /// On a device, as `f32`.
    pub(super) device_layers: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) form: Form,
}

/// How a block lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Per layer: 16 rows of keys, then 16 of values, `kv_heads x head_dim`
    /// numbers each, as `f32`.
    Rows,
    /// Per layer and head: a tile of keys, then one of values; see
    /// [`crate::kernels`].
    Tiles(TileForm),
}

impl Layout {
    /// Keys and values of a block, in numbers of the form: `f32`, or the words
    /// of tiles.
    fn numbers(&self) -> usize {
        let head = match self.form {
            Form::Rows => self.head_dim * BLOCK_TOKENS,
            Form::Tiles(form) => form.len(self.head_dim),
        };
        self.layers * self.kv_heads * 2 * head
    }

    /// Size of a block in bytes, wherever it lies.
    pub(super) fn block_bytes(&self) -> u64 {
        let number = match self.form {
            Form::Rows => number_bytes(),
            Form::Tiles(_) => size_of::<u16>() as u64,
        };
        let device = slot_bytes(self.device_layers, self.kv_heads * self.head_dim);
        self.numbers() as u64 * number + device
    }
}

/// Size of a number that is kept whole.
pub(super) const fn number_bytes() -> u64 {
    size_of::<f32>() as u64
}

/// A model's memory for keys and values. Clones are handles to the same pool.
#[derive(Clone)]
pub struct KvPool(Arc<Inner>);

struct Inner {
    layout: Layout,
    /// For a layout with layers on a device.
    store: Option<Arc<Store>>,
    /// The most blocks that there is room for on the device.
    most: u64,
    budget: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    used: u64,
    free: Vec<Data>,
}

/// A block's numbers.
pub(super) enum Data {
    Rows(Vec<f32>),
    /// The first number that is aligned, and all numbers.
    Tiles(usize, Vec<u16>),
    /// Rows of the processor's layers, and where those of the device's are.
    Device(Vec<f32>, Slot),
}

/// [`BLOCK_TOKENS`] positions of a sequence. Clones share them.
#[derive(Clone)]
pub struct KvBlock(Arc<Block>);

struct Block {
    /// `None` only while it is dropped.
    data: Option<Data>,
    pool: Arc<Inner>,
}

impl KvPool {
    /// `device`: room for the layers of the layout that are on a device, and
    /// how many blocks it is for; these bound the budget, too.
    pub(super) fn new(
        layout: Layout,
        budget_bytes: u64,
        device: Option<(Arc<Store>, usize)>,
    ) -> Self {
        let (store, most) = match device {
            Some((store, blocks)) => (Some(store), blocks as u64),
            None => (None, u64::MAX),
        };
        let budget = budget_bytes.min(most.saturating_mul(layout.block_bytes()));
        Self(Arc::new(Inner {
            layout,
            store,
            most,
            budget: AtomicU64::new(budget),
            state: Mutex::new(State::default()),
        }))
    }

    /// Size of one block, in bytes.
    pub fn block_bytes(&self) -> u64 {
        self.0.layout.block_bytes()
    }

    /// The most bytes that blocks in use may take.
    pub fn budget_bytes(&self) -> u64 {
        self.0.budget.load(Ordering::Relaxed)
    }

    /// Sets the budget, at most what a device has room for. Blocks in use stay;
    /// new ones are refused until enough of them are dropped.
    pub fn set_budget_bytes(&self, bytes: u64) {
        let bytes = bytes.min(self.0.most.saturating_mul(self.block_bytes()));
        self.0.budget.store(bytes, Ordering::Relaxed);
        let mut state = self.0.lock();
        let fit = (bytes / self.block_bytes().max(1)).saturating_sub(state.used);
        state
            .free
            .truncate(usize::try_from(fit).unwrap_or(usize::MAX));
    }

    /// Bytes of all blocks that somebody holds, each counted once.
    pub fn used_bytes(&self) -> u64 {
        self.0.lock().used * self.block_bytes()
    }

    /// Bytes that the pool takes in memory: blocks in use, and those kept to be
    /// used again.
    pub fn memory_bytes(&self) -> u64 {
        let state = self.0.lock();
        (state.used + state.free.len() as u64) * self.block_bytes()
    }

    /// Gives the memory of all blocks that nobody holds back to the system.
    pub fn release(&self) {
        let free = std::mem::take(&mut self.0.lock().free);
        drop(free);
    }

    /// An empty sequence.
    pub fn new_cache(&self) -> Cache {
        Cache::new(self.clone(), Vec::new(), 0)
    }

    /// A sequence of `tokens` positions whose keys and values were computed
    /// before: `blocks` are those that [`Cache::blocks`] gave for the same tokens.
    ///
    /// # Errors
    /// [`ModelError::ForeignCache`] when a block is another pool's, or when they
    /// are not as many as `tokens` need.
    pub fn cache_of(&self, blocks: &[KvBlock], tokens: usize) -> Result<Cache, ModelError> {
        let ours = |block: &KvBlock| Arc::ptr_eq(&block.0.pool, &self.0);
        if blocks.len() != tokens.div_ceil(BLOCK_TOKENS) || !blocks.iter().all(ours) {
            return Err(ModelError::ForeignCache);
        }
        Ok(Cache::new(self.clone(), blocks.to_vec(), tokens))
    }

    /// How a block's numbers lie, in words: two pools that say the same, of the
    /// same model, read each other's blocks.
    pub fn layout_text(&self) -> String {
        // A device's layers follow the others, in the same form.
        let Layout {
            layers,
            device_layers,
            kv_heads,
            head_dim,
            form,
        } = self.0.layout;
        let form = match form {
            Form::Rows => "f32 rows",
            Form::Tiles(TileForm::Bf16) => "bf16 tiles",
            Form::Tiles(TileForm::Int8) => "int8 tiles",
        };
        let layers = layers + device_layers;
        format!("{form}, {layers} layers x {kv_heads} heads x {head_dim}, {BLOCK_TOKENS} tokens")
    }

    /// A block that was written out with [`KvBlock::to_bytes`], under the same
    /// model and layout.
    ///
    /// # Errors
    /// [`ModelError::ForeignCache`] when the length is another;
    /// [`ModelError::NoRoom`].
    pub fn block_from_bytes(&self, bytes: &[u8]) -> Result<KvBlock, ModelError> {
        if bytes.len() as u64 != self.block_bytes() {
            return Err(ModelError::ForeignCache);
        }
        let mut block = self.take()?;
        match block.data_mut()? {
            Data::Rows(numbers) => {
                let numbers = numbers.iter_mut().zip(bytes.as_chunks::<4>().0);
                numbers.for_each(|(number, bytes)| *number = f32::from_le_bytes(*bytes));
            }
            Data::Tiles(start, numbers) => {
                let numbers = numbers[*start..].iter_mut().zip(bytes.as_chunks::<2>().0);
                numbers.for_each(|(number, bytes)| *number = u16::from_le_bytes(*bytes));
            }
            Data::Device(rows, slot) => {
                let numbers = bytes.as_chunks::<4>().0;
                let numbers: Vec<f32> = numbers.iter().map(|x| f32::from_le_bytes(*x)).collect();
                let (own, placed) = numbers.split_at(rows.len());
                rows.copy_from_slice(own);
                slot.set_numbers(placed)?;
            }
        }
        Ok(block)
    }

    pub(super) fn layout(&self) -> Layout {
        self.0.layout
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A block of zeros: tiles are computed with whole, and what was left in a
    /// recycled block must not reach a result, not even times 0.
    pub(super) fn take(&self) -> Result<KvBlock, ModelError> {
        let bytes = self.block_bytes();
        let budget = self.budget_bytes();
        let recycled = {
            let mut state = self.0.lock();
            if (state.used + 1).saturating_mul(bytes) > budget {
                return Err(ModelError::NoRoom {
                    used_bytes: state.used * bytes,
                    budget_bytes: budget,
                });
            }
            state.used += 1;
            state.free.pop()
        };
        let data = match (recycled, &self.0.store) {
            (Some(mut data), _) => {
                data.clear();
                data
            }
            (None, None) => Data::new(self.0.layout),
            (None, Some(store)) => match store.take() {
                Some(slot) => Data::Device(vec![0.0; self.0.layout.numbers()], slot),
                None => {
                    self.0.lock().used -= 1;
                    return Err(ModelError::NoRoom {
                        used_bytes: self.used_bytes(),
                        budget_bytes: budget,
                    });
                }
            },
        };
        Ok(KvBlock(Arc::new(Block {
            data: Some(data),
            pool: Arc::clone(&self.0),
        })))
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that could panic leaves the state half-changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KvBlock {
    /// The block's numbers in their order in memory, little-endian,
    /// [`KvPool::block_bytes`] long: those of its first `filled` positions, and
    /// zeros for all others, whoever they belong to. None at all where a device
    /// no longer gives its own.
    pub fn to_bytes(&self, filled: usize) -> Vec<u8> {
        let layout = self.0.pool.layout;
        let mut bytes = vec![0; usize::try_from(layout.block_bytes()).unwrap_or(0)];
        match &self.0.data {
            Some(Data::Rows(_) | Data::Device(..)) => {
                let placed = self.slot().map_or(Ok(Vec::new()), Slot::numbers);
                let Ok(placed) = placed else {
                    return Vec::new();
                };
                let numbers = [self.rows(), &placed].concat();
                let width = layout.kv_heads * layout.head_dim;
                let part = BLOCK_TOKENS * width;
                let count = filled.min(BLOCK_TOKENS) * width;
                let parts = numbers.chunks_exact(part);
                for (part, bytes) in parts.zip(bytes.chunks_exact_mut(part * size_of::<f32>())) {
                    let bytes = bytes.as_chunks_mut::<4>().0.iter_mut();
                    let numbers = part[..count].iter();
                    bytes.zip(numbers).for_each(|(to, x)| *to = x.to_le_bytes());
                }
            }
            Some(Data::Tiles(start, numbers)) => {
                let copy;
                let mut numbers = &numbers[*start..];
                if let (true, Form::Tiles(form)) = (filled < BLOCK_TOKENS, layout.form) {
                    copy = filled_tiles(form, numbers, filled, layout.head_dim);
                    numbers = &copy;
                }
                let bytes = bytes.as_chunks_mut::<2>().0.iter_mut();
                bytes.zip(numbers).for_each(|(to, x)| *to = x.to_le_bytes());
            }
            None => {}
        }
        bytes
    }

    /// How many sequences and other holders share this block.
    pub fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// All rows; empty where the block holds tiles.
    pub(super) fn rows(&self) -> &[f32] {
        match &self.0.data {
            Some(Data::Rows(numbers) | Data::Device(numbers, _)) => numbers,
            _ => &[],
        }
    }

    /// Where the rows of layers on a device are.
    pub(super) fn slot(&self) -> Option<&Slot> {
        match &self.0.data {
            Some(Data::Device(_, slot)) => Some(slot),
            _ => None,
        }
    }

    /// All tiles; empty where the block holds rows.
    pub(super) fn tiles(&self) -> &[u16] {
        match &self.0.data {
            Some(Data::Tiles(start, numbers)) => &numbers[*start..],
            _ => &[],
        }
    }

    /// The numbers, to be written to; this block becomes a copy of its own
    /// where it is shared.
    pub(super) fn data_mut(&mut self) -> Result<&mut Data, ModelError> {
        if Arc::get_mut(&mut self.0).is_none() {
            let pool = KvPool(Arc::clone(&self.0.pool));
            let mut copy = pool.take()?;
            match copy.data_mut()? {
                Data::Rows(numbers) => numbers.copy_from_slice(self.rows()),
                Data::Tiles(start, numbers) => numbers[*start..].copy_from_slice(self.tiles()),
                Data::Device(numbers, slot) => {
                    numbers.copy_from_slice(self.rows());
                    let own = self.slot().ok_or(ModelError::ForeignCache)?;
                    slot.copy(own)?;
                }
            }
            *self = copy;
        }
        Arc::get_mut(&mut self.0)
            .and_then(|block| block.data.as_mut())
            .ok_or(ModelError::ForeignCache)
    }
}

/// A block's tiles with nothing after the first `filled` positions.
fn filled_tiles(form: TileForm, tiles: &[u16], filled: usize, head_dim: usize) -> Vec<u16> {
    let mut copy = tiles.to_vec();
    let tile = form.len(head_dim);
    for pair in copy.chunks_exact_mut(2 * tile) {
        let (keys, values) = pair.split_at_mut(tile);
        form.clear_after(keys, values, filled, head_dim);
    }
    copy
}

impl Data {
    fn new(layout: Layout) -> Self {
        let numbers = layout.numbers();
        match layout.form {
            Form::Rows => Self::Rows(vec![0.0; numbers]),
            Form::Tiles(_) => {
                let slack = ALIGNMENT / size_of::<u16>();
                let mut data = vec![0u16; numbers + slack];
                let start = data.as_ptr().align_offset(ALIGNMENT).min(slack);
                data.truncate(start + numbers);
                Self::Tiles(start, data)
            }
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Rows(numbers) => numbers.fill(0.0),
            Self::Tiles(_, numbers) => numbers.fill(0),
            // Of a device's rows only those are read that were written.
            Self::Device(numbers, _) => numbers.fill(0.0),
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(data) = self.data.take() else { return };
        let budget = self.pool.budget.load(Ordering::Relaxed);
        let mut state = self.pool.lock();
        state.used = state.used.saturating_sub(1);
        let kept = state.used + state.free.len() as u64 + 1;
        if kept.saturating_mul(self.pool.layout.block_bytes()) <= budget {
            state.free.push(data);
        }
    }
}
