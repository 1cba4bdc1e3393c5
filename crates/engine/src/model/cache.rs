//! The keys and values of one sequence: a table of blocks.

use std::ops::Range;

use super::ModelError;
use super::pool::{BLOCK_TOKENS, Data, KvBlock, KvPool};

/// Keys and values of one sequence. It grows with the sequence, can be cut back
/// to any earlier length, and can be forked: both sequences then hold the same
/// blocks, and the one that writes to a shared block copies it first.
pub struct Cache {
    pool: KvPool,
    /// As many as `len` needs; more only while a step is under way.
    blocks: Vec<KvBlock>,
    len: usize,
}

impl Cache {
    pub(super) fn new(pool: KvPool, blocks: Vec<KvBlock>, len: usize) -> Self {
        Self { pool, blocks, len }
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
        self.blocks.truncate(self.len.div_ceil(BLOCK_TOKENS));
    }

    /// A sequence of this one's first `len` tokens (of all, when it is not so
    /// long). It shares their blocks and costs no memory until one of the two
    /// writes to the last, partly filled one.
    pub fn fork(&self, len: usize) -> Self {
        let len = self.len.min(len);
        let blocks = self.blocks[..len.div_ceil(BLOCK_TOKENS)].to_vec();
        Self::new(self.pool.clone(), blocks, len)
    }

    /// Its blocks, [`BLOCK_TOKENS`] tokens each; the last may be partly filled.
    pub fn blocks(&self) -> &[KvBlock] {
        &self.blocks
    }

    /// What it takes in memory, in bytes. Blocks that other sequences hold too
    /// are counted in each; [`KvPool::used_bytes`] counts them once.
    pub fn memory_bytes(&self) -> u64 {
        self.blocks.len() as u64 * self.pool.block_bytes()
    }

    pub(super) fn is_of(&self, pool: &KvPool) -> bool {
        self.pool.is(pool)
    }

    /// Makes room for `tokens` more, in blocks that nobody else holds.
    ///
    /// # Errors
    /// [`ModelError::NoRoom`]; the sequence is then what it was before.
    pub(super) fn reserve(&mut self, tokens: usize) -> Result<(), ModelError> {
        let end = (self.len + tokens).div_ceil(BLOCK_TOKENS);
        let result = self.grow(end);
        if result.is_err() {
            self.truncate(self.len);
        }
        result
    }

    fn grow(&mut self, blocks: usize) -> Result<(), ModelError> {
        for block in self.blocks.iter_mut().skip(self.len / BLOCK_TOKENS) {
            block.data_mut()?;
        }
        while self.blocks.len() < blocks {
            self.blocks.push(self.pool.take()?);
        }
        Ok(())
    }

    /// Writes rows of keys and values after the sequence's end, in one layer of
    /// a pool of rows; they count once [`Cache::commit`] was called.
    pub(super) fn append(
        &mut self,
        layer: usize,
        keys: &[f32],
        values: &[f32],
    ) -> Result<(), ModelError> {
        let layout = self.pool.layout();
        let width = layout.kv_heads * layout.head_dim;
        let first = layer * 2 * BLOCK_TOKENS * width;
        let rows = keys.chunks_exact(width).zip(values.chunks_exact(width));
        for (position, (key, value)) in (self.len..).zip(rows) {
            let Some(block) = self.blocks.get_mut(position / BLOCK_TOKENS) else {
                return Err(ModelError::ForeignCache);
            };
            let (Data::Rows(numbers) | Data::Device(numbers, _)) = block.data_mut()? else {
                return Err(ModelError::ForeignCache);
            };
            let at = first + position % BLOCK_TOKENS * width;
            numbers[at..at + width].copy_from_slice(key);
            let at = at + BLOCK_TOKENS * width;
            numbers[at..at + width].copy_from_slice(value);
        }
        Ok(())
    }

    /// One layer of a pool of rows, those included that are not committed.
    pub(super) fn layer(&self, layer: usize) -> Layer<'_> {
        let layout = self.pool.layout();
        let width = layout.kv_heads * layout.head_dim;
        let size = BLOCK_TOKENS * width;
        let blocks = self
            .blocks
            .iter()
            .map(|block| block.rows()[layer * 2 * size..(layer + 1) * 2 * size].split_at(size))
            .collect();
        Layer { blocks, width }
    }

    /// The tiles of all blocks up to `end` positions.
    pub(super) fn tiles(&self, end: usize) -> Vec<&[u16]> {
        let blocks = self.blocks.iter().take(end.div_ceil(BLOCK_TOKENS));
        blocks.map(KvBlock::tiles).collect()
    }

    /// The tiles of the blocks that hold `positions`, to be written to.
    pub(super) fn tiles_mut(
        &mut self,
        positions: Range<usize>,
    ) -> Result<Vec<&mut [u16]>, ModelError> {
        let blocks = positions.start / BLOCK_TOKENS..positions.end.div_ceil(BLOCK_TOKENS);
        self.blocks[blocks]
            .iter_mut()
            .map(|block| match block.data_mut()? {
                Data::Tiles(start, numbers) => Ok(&mut numbers[*start..]),
                Data::Rows(_) | Data::Device(..) => Err(ModelError::ForeignCache),
            })
            .collect()
    }

    pub(super) fn commit(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// One layer's rows of a sequence.
pub(super) struct Layer<'a> {
    /// Keys and values of each block.
    blocks: Vec<(&'a [f32], &'a [f32])>,
    width: usize,
}

impl<'a> Layer<'a> {
    /// A position's key, of all heads.
    pub(super) fn key(&self, position: usize) -> &'a [f32] {
        self.row(self.blocks[position / BLOCK_TOKENS].0, position)
    }

    /// A position's value, of all heads.
    pub(super) fn value(&self, position: usize) -> &'a [f32] {
        self.row(self.blocks[position / BLOCK_TOKENS].1, position)
    }

    fn row(&self, rows: &'a [f32], position: usize) -> &'a [f32] {
        let at = position % BLOCK_TOKENS * self.width;
        &rows[at..at + self.width]
    }
}
