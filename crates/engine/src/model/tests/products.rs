//! Products with stored matrices are what their numbers say, for every type.

use super::*;
use crate::kernels::{Activations, Isa, Team, multiply};
use crate::model::cpu::{Packer, packed_type};
use crate::model::loader::Loader;
use crate::model::reference::Slabs;

/// Activations that the types' 8-bit partners hold without loss: whole numbers
/// whose largest is 127, in every block.
fn lossless(random: &mut tiny::Random, count: usize) -> Vec<f32> {
    let number = |index: usize| match index % 32 {
        0 => 127.0,
        _ => (random.bits() % 253) as f32 - 126.0,
    };
    (0..count).map(number).collect()
}

const SIDE: usize = 256;

/// How far `out = x * weights^T` is from what it should be, in units of the sum
/// of the sizes of all terms.
fn error(weights: &[Vec<f32>], x: &[f32], out: &[f32]) -> f64 {
    let mut worst = 0f64;
    for (row, weights) in weights.iter().enumerate() {
        for (x, out) in x.chunks_exact(SIDE).zip(out.chunks_exact(SIDE)) {
            let terms = || {
                weights
                    .iter()
                    .zip(x)
                    .map(|(w, x)| f64::from(*w) * f64::from(*x))
            };
            let exact: f64 = terms().sum();
            let size: f64 = terms().map(f64::abs).sum();
            worst = worst.max((exact - f64::from(out[row])).abs() / size);
        }
    }
    worst
}

#[test]
fn products_are_exact_where_activations_are() {
    const NAME: &str = "blk.1.attn_q.weight";
    let mut random = tiny::Random(3);
    let team = Team::new(2);
    let mut packed_types = 0;
    for tiny in tiny::all().into_iter().filter(|tiny| tiny.width == SIDE) {
        let gguf = open(tiny.file()).unwrap();
        let matrix = Loader::new(&gguf, Slabs).matrix(NAME, SIDE, SIDE).unwrap();
        let weights: Vec<Vec<f32>> = (0..SIDE as u32)
            .map(|row| matrix.lookup(&[row]).unwrap())
            .collect();
        for count in [1, 3] {
            let x = lossless(&mut random, count * SIDE);
            let mut out = Vec::new();
            matrix.apply(&x, count, &mut out).unwrap();
            let off = error(&weights, &x, &out);
            assert!(off < 1e-4, "{}, {count} rows: off by {off}", tiny.name);
        }

        if packed_type(tiny.dtype).is_none() {
            continue;
        }
        packed_types += 1;
        let packed = Loader::new(&gguf, Packer { team: &team })
            .matrix(NAME, SIDE, SIDE)
            .unwrap();
        for (row, weights) in weights.iter().enumerate() {
            let mut mine = vec![0.0; SIDE];
            packed.row_into(row, &mut mine);
            let off = distance(&mine, weights);
            assert!(off < 1e-7, "{}, row {row}: off by {off}", tiny.name);
        }
        for isa in Isa::available() {
            for count in [1, 3] {
                let x = lossless(&mut random, count * SIDE);
                let mut acts = Activations::new(count, SIDE, true);
                acts.quantise(&team, isa, &x, count, SIDE);
                let mut out = vec![0.0; count * SIDE];
                multiply(&team, isa, &mut [(&packed, &mut out)], &acts, false);
                let off = error(&weights, &x, &out);
                assert!(off < 1e-5, "{} {isa:?} {count}: off by {off}", tiny.name);
            }
        }
    }
    assert_eq!(packed_types, 9, "Q5_0 and Q3_K are packed as other types");
}
