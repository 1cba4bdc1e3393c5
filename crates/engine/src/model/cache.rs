//! The keys and values of one sequence.

/// Rows are reserved in steps of at least this many tokens.
const STEP_TOKENS: usize = 128;

/// Keys and values of one sequence, per layer, as plain `f32` rows. It grows
/// with the sequence and can be cut back to any earlier length.
pub struct Cache {
    layers: Vec<LayerCache>,
    /// Keys (or values) of one token in one layer: heads times head size.
    kv_width: usize,
    len: usize,
}

/// One layer's rows: `tokens x kv_width` each.
pub(super) struct LayerCache {
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
}

impl Cache {
    pub(super) fn new(layers: usize, kv_width: usize) -> Self {
        let layer = || LayerCache {
            keys: Vec::new(),
            values: Vec::new(),
        };
        Self {
            layers: (0..layers).map(|_| layer()).collect(),
            kv_width,
            len: 0,
        }
    }

    /// Length of the sequence, in tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was computed yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all tokens from `len` on; nothing when it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        for layer in &mut self.layers {
            layer.keys.truncate(self.len * self.kv_width);
            layer.values.truncate(self.len * self.kv_width);
        }
    }

    /// What it takes in memory, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let floats: usize = self
            .layers
            .iter()
            .map(|l| l.keys.capacity() + l.values.capacity())
            .sum();
        (floats * size_of::<f32>()) as u64
    }

    pub(super) fn fits(&self, layers: usize, kv_width: usize) -> bool {
        self.layers.len() == layers && self.kv_width == kv_width
    }

    /// Appends rows to one layer; they count once [`Cache::commit`] was called.
    pub(super) fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) -> &LayerCache {
        let kv_width = self.kv_width;
        let layer = &mut self.layers[layer];
        grow(&mut layer.keys, keys.len(), kv_width);
        grow(&mut layer.values, values.len(), kv_width);
        layer.keys.extend_from_slice(keys);
        layer.values.extend_from_slice(values);
        layer
    }

    pub(super) fn commit(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// Makes room by a quarter at a time: doubling wastes too much on small devices.
fn grow(rows: &mut Vec<f32>, more: usize, kv_width: usize) {
    if rows.capacity() - rows.len() < more {
        rows.reserve_exact(more.max(STEP_TOKENS * kv_width).max(rows.len() / 4));
    }
}
