//! Reads one row's block of a GGUF tensor into its place in a tile.
//! Block formats: `ggml-common.h` and `ggml-quants.c` of ggml.

use super::layout::{Kind, LINE, ROWS, k6, k45, pair};

/// Writes the raw block `block` of row `row` into its tile row, as block `b`.
pub(super) fn place(kind: Kind, tiles: &mut [u8], row: usize, b: usize, block: &[u8]) {
    match kind {
        Kind::Q4_0 => q4_0(tiles, row, b, block),
        Kind::Q8_0 => q8_0(tiles, row, b, block),
        Kind::Q4K => q4k(&mut tiles[b * k45::TILE4..][..k45::TILE4], row, block),
        Kind::Q5K => q5k(&mut tiles[b * k45::TILE5..][..k45::TILE5], row, block),
        Kind::Q6K => q6k(&mut tiles[b * k6::TILE..][..k6::TILE], row, block),
        Kind::F16 | Kind::BF16 => tiles[(b * ROWS + row) * 2..][..2].copy_from_slice(block),
        Kind::F32 => tiles[(b * ROWS + row) * 4..][..4].copy_from_slice(block),
    }
}

/// Copies a little-endian half to the row's place among 16.
fn half(to: &mut [u8], row: usize, from: &[u8]) {
    to[row * 2..row * 2 + 2].copy_from_slice(&from[..2]);
}

/// Writes 4-bit quants as lines of nibbles: columns 8i..8i+4 low, the next four
/// high.
fn nibbles(lines: &mut [u8], row: usize, quants: &[u8]) {
    for (line, quants) in lines.chunks_exact_mut(LINE).zip(quants.chunks_exact(8)) {
        for column in 0..4 {
            line[row * 4 + column] = (quants[column] & 15) | ((quants[column + 4] & 15) << 4);
        }
    }
}

/// `f16 d; u8 qs[16]`: column j in a low nibble, column j + 16 in the high one.
fn q4_0(tiles: &mut [u8], row: usize, b: usize, block: &[u8]) {
    half(&mut tiles[pair::scales(pair::TILE4, b)..], row, block);
    let mut quants = [0u8; 32];
    for (column, byte) in block[2..18].iter().enumerate() {
        quants[column] = byte & 15;
        quants[column + 16] = byte >> 4;
    }
    let start = pair::quants(pair::TILE4, pair::BLOCK4, b);
    nibbles(&mut tiles[start..][..pair::BLOCK4], row, &quants);
}

/// `f16 d; i8 qs[32]`
fn q8_0(tiles: &mut [u8], row: usize, b: usize, block: &[u8]) {
    half(&mut tiles[pair::scales(pair::TILE8, b)..], row, block);
    let start = pair::quants(pair::TILE8, pair::BLOCK8, b);
    let lines = &mut tiles[start..][..pair::BLOCK8];
    for (line, quants) in lines
        .chunks_exact_mut(LINE)
        .zip(block[2..34].chunks_exact(4))
    {
        for column in 0..4 {
            line[row * 4 + column] = quants[column] ^ 0x80;
        }
    }
}

/// The 6-bit scale and minimum of each 32 columns, from 12 packed bytes.
fn scales_and_minima(packed: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|j| {
        if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            (
                (packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4),
                (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4),
            )
        }
    })
}

/// What `Q4K` and `Q5K` have in common: `f16 d, dmin; u8 scales[12]` first.
fn k45_head(tile: &mut [u8], row: usize, block: &[u8]) {
    half(tile, row, block);
    half(&mut tile[k45::MIN..], row, &block[2..]);
    for (j, (scale, minimum)) in scales_and_minima(&block[4..16]).into_iter().enumerate() {
        tile[k45::SCALES + j * ROWS + row] = scale;
        tile[k45::MINIMA + j * ROWS + row] = minimum;
    }
}

/// The nibbles of `Q4K` and `Q5K`: per 64 columns 32 bytes, low halves first.
fn k45_low(packed: &[u8]) -> [u8; 256] {
    let mut quants = [0u8; 256];
    for (quants, packed) in quants.chunks_exact_mut(64).zip(packed.chunks_exact(32)) {
        for (column, byte) in packed.iter().enumerate() {
            quants[column] = byte & 15;
            quants[column + 32] = byte >> 4;
        }
    }
    quants
}

/// `head; u8 qs[128]`
fn q4k(tile: &mut [u8], row: usize, block: &[u8]) {
    k45_head(tile, row, block);
    nibbles(&mut tile[k45::LINES..], row, &k45_low(&block[16..144]));
}

/// `head; u8 qh[32]; u8 qs[128]`: bit s of `qh[j]` is the fifth bit of column
/// 32s + j.
fn q5k(tile: &mut [u8], row: usize, block: &[u8]) {
    k45_head(tile, row, block);
    let quants = k45_low(&block[48..176]);
    let bits = &block[16..48];
    let subs = tile[k45::LINES..].chunks_exact_mut(k45::SUB5);
    for (sub, (lines, quants)) in subs.zip(quants.chunks_exact(32)).enumerate() {
        let (low, high) = lines.split_at_mut(k45::HIGH);
        nibbles(low, row, quants);
        for column in 0..4 {
            high[row * 4 + column] = (0..8).fold(0, |byte, group| {
                byte | (((bits[group * 4 + column] >> sub) & 1) << group)
            });
        }
    }
}

/// `u8 ql[128], qh[64]; i8 scales[16]; f16 d`, in two halves of 128 columns.
fn q6k(tile: &mut [u8], row: usize, block: &[u8]) {
    half(tile, row, &block[208..]);
    for (j, scale) in block[192..208].iter().enumerate() {
        tile[k6::SCALES + j * ROWS + row] = *scale;
    }
    let mut quants = [0u8; 256];
    for (part, quants) in quants.chunks_exact_mut(128).enumerate() {
        let low = &block[part * 64..][..64];
        let high = &block[128 + part * 32..][..32];
        for j in 0..32 {
            quants[j] = (low[j] & 15) | ((high[j] & 3) << 4);
            quants[j + 32] = (low[j + 32] & 15) | (((high[j] >> 2) & 3) << 4);
            quants[j + 64] = (low[j] >> 4) | (((high[j] >> 4) & 3) << 4);
            quants[j + 96] = (low[j + 32] >> 4) | ((high[j] >> 6) << 4);
        }
    }
    let halves = tile[k6::LINES..].chunks_exact_mut(k6::HALF);
    for (lines, quants) in halves.zip(quants.chunks_exact(16)) {
        let (low, high) = lines.split_at_mut(k6::HIGH);
        nibbles(low, row, quants);
        for column in 0..4 {
            high[row * 4 + column] = (0..4).fold(0, |byte, group| {
                byte | ((quants[group * 4 + column] >> 4) << (2 * group))
            });
        }
    }
}
