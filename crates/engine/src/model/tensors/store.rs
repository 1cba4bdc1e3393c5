//! Keys and values on a device: one tensor of each per layer, taken once and
//! given out in slots of a block's length.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Error, Tensor};

use crate::model::pool::{BLOCK_TOKENS, number_bytes};

/// Room for the keys and values of a model's layers on a device, as `f32` rows
/// of `kv_heads x head_dim`, [`BLOCK_TOKENS`] of them to a slot.
pub(in crate::model) struct Store {
    /// Keys and values of each layer: `slots * BLOCK_TOKENS x width`.
    layers: Vec<[Tensor; 2]>,
    free: Mutex<Vec<u32>>,
}

/// One block's place in a [`Store`]; free again once it is dropped.
pub(in crate::model) struct Slot {
    index: u32,
    store: Arc<Store>,
}

impl Store {
    pub(in crate::model) fn new(
        device: &Device,
        layers: usize,
        width: usize,
        slots: usize,
    ) -> Result<Arc<Self>, Error> {
        let shape = (slots * BLOCK_TOKENS, width);
        let room = || Tensor::zeros(shape, DType::F32, device);
        let layers = (0..layers)
            .map(|_| Ok([room()?, room()?]))
            .collect::<Result<_, Error>>()?;
        Ok(Arc::new(Self {
            layers,
            // The first slots are given out first.
            free: Mutex::new((0..slots as u32).rev().collect()),
        }))
    }

    /// A slot that nobody holds. What was written there before is still there:
    /// only rows that a sequence has written are ever read.
    pub(in crate::model) fn take(self: &Arc<Self>) -> Option<Slot> {
        let index = self.lock().pop()?;
        Some(Slot {
            index,
            store: Arc::clone(self),
        })
    }

    /// Writes rows of a layer's keys and values into a slot, from row `at` on.
    pub(super) fn write(
        &self,
        layer: usize,
        slot: u32,
        at: usize,
        rows: [&Tensor; 2],
    ) -> Result<(), Error> {
        for (room, rows) in self.layers[layer].iter().zip(rows) {
            room.slice_set(rows, 0, slot as usize * BLOCK_TOKENS + at)?;
        }
        Ok(())
    }

    /// The given rows of a layer's keys and values.
    pub(super) fn read(&self, layer: usize, rows: &Tensor) -> Result<[Tensor; 2], Error> {
        let [keys, values] = &self.layers[layer];
        Ok([keys.index_select(rows, 0)?, values.index_select(rows, 0)?])
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        // No code that could panic leaves the list half-changed.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Its number, among the store's.
    pub(in crate::model) fn index(&self) -> u32 {
        self.index
    }

    pub(in crate::model) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn rows(&self, room: &Tensor) -> Result<Tensor, Error> {
        room.narrow(0, self.index as usize * BLOCK_TOKENS, BLOCK_TOKENS)
    }

    /// Takes over what another slot of the same store holds.
    pub(in crate::model) fn copy(&self, other: &Self) -> Result<(), Error> {
        for (layer, rooms) in self.store.layers.iter().enumerate() {
            let rows = [
                other.rows(&rooms[0])?.force_contiguous()?,
                other.rows(&rooms[1])?.force_contiguous()?,
            ];
            self.store
                .write(layer, self.index, 0, [&rows[0], &rows[1]])?;
        }
        Ok(())
    }

    /// All numbers, layer by layer, keys before values.
    pub(in crate::model) fn numbers(&self) -> Result<Vec<f32>, Error> {
        let mut numbers = Vec::new();
        for room in self.store.layers.iter().flatten() {
            numbers.extend(self.rows(room)?.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(numbers)
    }

    /// Takes over what [`Slot::numbers`] gave.
    pub(in crate::model) fn set_numbers(&self, numbers: &[f32]) -> Result<(), Error> {
        let mut numbers = numbers.chunks_exact(self.block_numbers() / 2);
        for (layer, rooms) in self.store.layers.iter().enumerate() {
            let mut next = || {
                let numbers = numbers.next().unwrap_or_default();
                let width = rooms[0].dim(1)?;
                Tensor::from_slice(numbers, (BLOCK_TOKENS, width), rooms[0].device())
            };
            let rows = [next()?, next()?];
            self.store
                .write(layer, self.index, 0, [&rows[0], &rows[1]])?;
        }
        Ok(())
    }

    /// Numbers of one layer, keys and values.
    fn block_numbers(&self) -> usize {
        let first = self.store.layers.first();
        let width = first.map_or(0, |[keys, _]| keys.dims()[1]);
        (2 * BLOCK_TOKENS * width).max(2)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.store.lock().push(self.index);
    }
}

/// What a slot takes, in bytes.
pub(in crate::model) fn slot_bytes(layers: usize, width: usize) -> u64 {
    (layers * 2 * BLOCK_TOKENS * width) as u64 * number_bytes()
}
