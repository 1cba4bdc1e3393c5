//! Products with stored matrices are what their numbers say, for every type.

use super::*;
use crate::model::weights::Loader;

/// Activations that the types' 8-bit partners hold without loss: whole numbers
/// whose largest is 127, in every block.
fn lossless(random: &mut tiny::Random, count: usize) -> Vec<f32> {
    let number = |index: usize| match index % 32 {
        0 => 127.0,
        _ => (random.bits() % 253) as f32 - 126.0,
    };
    (0..count).map(number).collect()
}

#[test]
fn products_are_exact_where_activations_are() {
    const SIDE: usize = 256;
    let mut random = tiny::Random(3);
    for tiny in tiny::all().into_iter().filter(|tiny| tiny.width == SIDE) {
        let gguf = open(tiny.file()).unwrap();
        let matrix = Loader::new(&gguf)
            .matrix("blk.1.attn_q.weight", SIDE, SIDE)
            .unwrap();
        for count in [1, 3] {
            let x = lossless(&mut random, count * SIDE);
            let mut out = Vec::new();
            matrix.apply(&x, count, &mut out).unwrap();
            let mut worst = 0f64;
            for row in 0..SIDE {
                let weights = matrix.lookup(&[row as u32]).unwrap();
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
            println!("{:6} {worst:.1e}", tiny.name);
            assert!(
                worst < 1e-4,
                "{} with {count} rows: off by {worst}",
                tiny.name
            );
        }
    }
}
