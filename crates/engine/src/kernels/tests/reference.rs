//! What GGUF blocks mean, straight from ggml's `dequantize_row_*`: written
//! apart from the packing, so that a slip in one shows against the other.

use crate::gguf::TensorType;
use crate::kernels::float16::{from_bf16, from_f16};

fn half(block: &[u8], at: usize) -> f32 {
    from_f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// A tensor's weights.
pub(super) fn dequantised(ty: TensorType, data: &[u8]) -> Vec<f32> {
    let (_, size) = ty.block().unwrap();
    let mut out = Vec::new();
    for block in data.chunks_exact(size) {
        match ty {
            TensorType::F32 => out.push(f32::from_le_bytes(block.try_into().unwrap())),
            TensorType::F16 => out.push(half(block, 0)),
            TensorType::BF16 => out.push(from_bf16(u16::from_le_bytes([block[0], block[1]]))),
            TensorType::Q8_0 => {
                let d = half(block, 0);
                out.extend(block[2..].iter().map(|q| d * f32::from(*q as i8)));
            }
            TensorType::Q4_0 => {
                let d = half(block, 0);
                out.extend(block[2..].iter().map(|q| d * (f32::from(q & 15) - 8.0)));
                out.extend(block[2..].iter().map(|q| d * (f32::from(q >> 4) - 8.0)));
            }
            TensorType::Q4K => k45(block, None, &block[16..], &mut out),
            TensorType::Q5K => k45(block, Some(&block[16..48]), &block[48..], &mut out),
            TensorType::Q6K => q6k(block, &mut out),
            other => panic!("{other:?}"),
        }
    }
    out
}

/// ggml's `get_scale_min_k4`.
fn scale_min_k4(j: usize, q: &[u8]) -> (f32, f32) {
    let (d, m) = if j < 4 {
        (q[j] & 63, q[j + 4] & 63)
    } else {
        (
            (q[j + 4] & 0xf) | ((q[j - 4] >> 6) << 4),
            (q[j + 4] >> 4) | ((q[j] >> 6) << 4),
        )
    };
    (f32::from(d), f32::from(m))
}

fn k45(block: &[u8], high: Option<&[u8]>, low: &[u8], out: &mut Vec<f32>) {
    let (d, min) = (half(block, 0), half(block, 2));
    for j in 0..4 {
        for upper in [false, true] {
            let is = 2 * j + usize::from(upper);
            let (sc, m) = scale_min_k4(is, &block[4..16]);
            for l in 0..32 {
                let byte = low[32 * j + l];
                let mut q = if upper { byte >> 4 } else { byte & 0xf };
                if high.is_some_and(|high| high[l] & (1 << is) != 0) {
                    q += 16;
                }
                out.push(d * sc * f32::from(q) - min * m);
            }
        }
    }
}

fn q6k(block: &[u8], out: &mut Vec<f32>) {
    let d = half(block, 208);
    for n in 0..2 {
        let (ql, qh) = (&block[64 * n..], &block[128 + 32 * n..]);
        let sc = &block[192 + 8 * n..];
        let mut part = [0f32; 128];
        for l in 0..32 {
            let is = l / 16;
            let q = [
                (ql[l] & 0xf) | ((qh[l] & 3) << 4),
                (ql[l + 32] & 0xf) | (((qh[l] >> 2) & 3) << 4),
                (ql[l] >> 4) | (((qh[l] >> 4) & 3) << 4),
                (ql[l + 32] >> 4) | (((qh[l] >> 6) & 3) << 4),
            ];
            for (quarter, q) in q.into_iter().enumerate() {
                let scale = f32::from(sc[is + 2 * quarter] as i8);
                part[l + 32 * quarter] = d * scale * (f32::from(q) - 32.0);
            }
        }
        out.extend(part);
    }
}
