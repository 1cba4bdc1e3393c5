//! A pinned prompt as a file: all numbers little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `NEARFARP` |
//! | 4 | version of this layout |
//! | 4, n | what computed it, as text: see [`super::shelf`] |
//! | 4 | number of tokens |
//! | 8 | bytes per block of keys and values |
//! | 4 each | token ids |
//! | 32 | BLAKE3 of all before |
//! | blocks | keys and values, [`BLOCK_TOKENS`] tokens each |
//! | 32 | BLAKE3 of all before |
//!
//! The head has a sum of its own, so that a model's load reads heads alone.

use std::io::{self, Read, Write};

use blake3::Hasher;

use crate::model::{BLOCK_TOKENS, Cache, KvBlock, KvPool, ModelError};

const MAGIC: [u8; 8] = *b"NEARFARP";
const VERSION: u32 = 1;
const SUM: usize = blake3::OUT_LEN;
/// No identity is longer, in bytes.
const MAX_IDENTITY: u32 = 512;
/// No pinned prompt is longer, in tokens.
pub(super) const MAX_TOKENS: u32 = 1 << 20;
/// No block is larger, in bytes.
const MAX_BLOCK: u64 = 1 << 30;

/// Why a file is of no use. Says nothing about content.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    /// It does not begin as ours do.
    #[error("it is none of ours")]
    NotOurs,
    /// Another layout of files.
    #[error("it has version {0} and this build reads {VERSION}")]
    Version(u32),
    /// Another model, build or layout of keys and values.
    #[error("another model or another version of nearfar computed it")]
    Foreign,
    /// Too short, too long, or a sum does not fit.
    #[error("it is damaged")]
    Damaged,
    /// The disk.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is sound, and memory has no room for it now.
    #[error("there is no room for it in memory")]
    NoRoom,
}

/// What stands before the keys and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// What computed it.
    pub(super) identity: String,
    /// The prompt.
    pub(super) tokens: Vec<u32>,
    /// Bytes per block.
    pub(super) block_bytes: u64,
}

impl Head {
    /// Blocks that the tokens take.
    pub(super) fn blocks(&self) -> usize {
        self.tokens.len().div_ceil(BLOCK_TOKENS)
    }

    /// Bytes of keys and values.
    pub(super) fn kv_bytes(&self) -> u64 {
        self.block_bytes.saturating_mul(self.blocks() as u64)
    }

    /// Length of the whole file.
    pub(super) fn file_bytes(&self) -> u64 {
        let head = MAGIC.len() + 4 + 4 + self.identity.len() + 4 + 8 + 4 * self.tokens.len();
        (head + 2 * SUM) as u64 + self.kv_bytes()
    }

    /// Reads a head from a file of `length` bytes. The hasher goes on with the
    /// blocks.
    pub(super) fn read(file: &mut impl Read, length: u64) -> Result<(Self, Hasher), Unusable> {
        let mut source = Source {
            file,
            hasher: Hasher::new(),
        };
        if source.array::<8>().map_err(|_| Unusable::NotOurs)? != MAGIC {
            return Err(Unusable::NotOurs);
        }
        let version = source.number()?;
        if version != VERSION {
            return Err(Unusable::Version(version));
        }
        let identity = source.number()?;
        if identity > MAX_IDENTITY {
            return Err(Unusable::Damaged);
        }
        let identity = source.bytes(identity as usize)?;
        let count = source.number()?;
        let block_bytes = u64::from_le_bytes(source.array()?);
        // Before anything is allocated for them.
        let fits = count > 0 && count <= MAX_TOKENS && block_bytes <= MAX_BLOCK;
        if !fits || u64::from(count) * 4 > length {
            return Err(Unusable::Damaged);
        }
        let tokens = source.bytes(count as usize * 4)?;
        let tokens = tokens.as_chunks::<4>().0.iter();
        let head = Self {
            identity: String::from_utf8(identity).map_err(|_| Unusable::Damaged)?,
            tokens: tokens.map(|id| u32::from_le_bytes(*id)).collect(),
            block_bytes,
        };
        let expected = source.hasher.finalize();
        let sum: [u8; SUM] = source.array()?;
        if expected != sum || head.file_bytes() != length {
            return Err(Unusable::Damaged);
        }
        Ok((head, source.hasher))
    }

    fn bytes(&self) -> Vec<u8> {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(count(self.identity.len()));
        bytes.extend(self.identity.as_bytes());
        bytes.extend(count(self.tokens.len()));
        bytes.extend(self.block_bytes.to_le_bytes());
        bytes.extend(self.tokens.iter().flat_map(|id| id.to_le_bytes()));
        let sum = blake3::hash(&bytes);
        bytes.extend(sum.as_bytes());
        bytes
    }
}

/// Reads and hashes.
struct Source<'a, R> {
    file: &'a mut R,
    hasher: Hasher,
}

impl<R: Read> Source<'_, R> {
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, Unusable> {
        let mut bytes = vec![0; count];
        fill(self.file, &mut bytes)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unusable> {
        let mut bytes = [0; N];
        fill(self.file, &mut bytes)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, Unusable> {
        Ok(u32::from_le_bytes(self.array()?))
    }
}

/// A file that ends too soon is damaged; all else is the disk's.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), Unusable> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Unusable::Damaged,
        _ => Unusable::Io(error),
    })
}

/// Writes a prompt: `cache` is the sequence of the head's tokens.
pub(super) fn write(file: &mut impl Write, head: &Head, cache: &Cache) -> io::Result<()> {
    let bytes = head.bytes();
    let mut hasher = Hasher::new();
    hasher.update(&bytes);
    file.write_all(&bytes)?;
    let mut left = head.tokens.len();
    for block in cache.blocks() {
        let bytes = block.to_bytes(left.min(BLOCK_TOKENS));
        if bytes.is_empty() {
            return Err(io::Error::other(
                "the device does not give its keys and values",
            ));
        }
        left = left.saturating_sub(BLOCK_TOKENS);
        hasher.update(&bytes);
        file.write_all(&bytes)?;
    }
    file.write_all(hasher.finalize().as_bytes())
}

/// Reads the keys and values that follow a head. What is not whole never
/// becomes a sequence.
pub(super) fn read(
    file: &mut impl Read,
    head: &Head,
    mut hasher: Hasher,
    pool: &KvPool,
) -> Result<Cache, Unusable> {
    let mut blocks: Vec<KvBlock> = Vec::with_capacity(head.blocks());
    let length = usize::try_from(head.block_bytes).map_err(|_| Unusable::Damaged)?;
    let mut bytes = vec![0; length];
    for _ in 0..head.blocks() {
        fill(file, &mut bytes)?;
        hasher.update(&bytes);
        let block = pool.block_from_bytes(&bytes);
        blocks.push(block.map_err(|error| match error {
            ModelError::NoRoom { .. } => Unusable::NoRoom,
            _ => Unusable::Foreign,
        })?);
    }
    let mut sum = [0; SUM];
    fill(file, &mut sum)?;
    if hasher.finalize() != sum {
        return Err(Unusable::Damaged);
    }
    pool.cache_of(&blocks, head.tokens.len())
        .map_err(|_| Unusable::Foreign)
}
