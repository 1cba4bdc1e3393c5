use super::*;
use crate::kernels::elementwise::{exp, tanh};
use crate::kernels::{Activations, RopeStyle, add, add_row, rms_norm, rope, scale, softcap};

#[test]
fn exp_and_tanh_are_close_everywhere() {
    for step in -8700..=8800 {
        let x = step as f32 / 100.0;
        let exact = f64::from(x).exp();
        let error = (f64::from(exp(x)) - exact).abs() / exact;
        assert!(error < 3e-7, "exp({x}) is off by {error}");
        let x = x / 8.0;
        let error = (f64::from(tanh(x)) - f64::from(x).tanh()).abs();
        assert!(error < 3e-7, "tanh({x}) is off by {error}");
    }
    assert!(exp(-1000.0) < 1.3e-38 && exp(-1000.0) >= 0.0);
    assert!(exp(f32::NEG_INFINITY) < 1.3e-38);
}

#[test]
fn the_norm_follows_its_definition() {
    let mut random = Random(7);
    for isa in Isa::available() {
        for columns in [1, 15, 16, 100, 1024] {
            let x = random.normals(3 * columns);
            let weight = random.normals(columns);
            let exact: Vec<f64> = x
                .chunks_exact(columns)
                .flat_map(|x| {
                    let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
                    let factor = 1.0 / (squares / columns as f64 + 1e-5).sqrt();
                    x.iter()
                        .zip(&weight)
                        .map(move |(x, w)| f64::from(*x) * factor * f64::from(*w))
                        .collect::<Vec<_>>()
                })
                .collect();
            let mut out = x.clone();
            rms_norm(isa, &mut out, &weight, 1e-5);
            assert!(relative_error(&exact, &out) < 1e-6);
        }
    }
}

#[test]
fn the_fused_norm_quantises_what_the_norm_gives() {
    let (team, mut random) = (Team::new(2), Random(8));
    for isa in Isa::available() {
        let (rows, columns) = (9, 96);
        let x = random.normals(rows * columns);
        let weight = random.normals(columns);
        let mut normed = x.clone();
        rms_norm(isa, &mut normed, &weight, 1e-6);
        let mut apart = Activations::new(rows, columns, true);
        apart.quantise(&team, isa, &normed, rows, columns);
        let mut fused = Activations::new(rows, columns, true);
        fused.norm_quantise(&team, isa, &x, &weight, 1e-6, rows);
        let (apart, fused) = (apart.view(), fused.view());
        assert_eq!((fused.count, fused.columns), (rows, columns));
        let wide: Vec<f64> = apart.floats.iter().copied().map(f64::from).collect();
        assert!(relative_error(&wide, fused.floats) < 1e-6);
        for (at, exact) in normed.iter().enumerate() {
            let value = fused.scales[at / 32] * f32::from(fused.quants[at]);
            let error = (value - exact).abs();
            assert!(
                error <= fused.scales[at / 32] * 0.51,
                "{isa:?}: {value}, not {exact}"
            );
            assert!(fused.quants[at] != -128);
        }
        for at in 0..rows * columns / 16 {
            let sum: i32 = fused.quants[at * 16..][..16]
                .iter()
                .map(|q| i32::from(*q))
                .sum();
            assert_eq!(fused.offsets[at], -32 * sum);
        }
        for at in 0..rows * columns / 32 {
            let sum: i32 = fused.quants[at * 32..][..32]
                .iter()
                .map(|q| i32::from(*q))
                .sum();
            assert_eq!(fused.sums[at], fused.scales[at] * sum as f32);
        }
    }
}

#[test]
fn both_rotations_follow_their_definition() {
    let mut random = Random(9);
    // 10 of 12 numbers turn: a partial rotation.
    let (heads, head_dim, half) = (3, 12, 5);
    let angles = random.normals(half);
    let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
    let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
    let x = random.normals(heads * head_dim);
    for isa in Isa::available() {
        for style in [RopeStyle::Neighbours, RopeStyle::Halves] {
            let mut got = x.clone();
            rope(isa, style, &mut got, head_dim, &cos, &sin);
            let mut exact: Vec<f64> = x.iter().copied().map(f64::from).collect();
            for head in exact.chunks_exact_mut(head_dim) {
                for i in 0..half {
                    let (p, q) = match style {
                        RopeStyle::Neighbours => (2 * i, 2 * i + 1),
                        RopeStyle::Halves => (i, i + half),
                    };
                    let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
                    let (a, b) = (head[p], head[q]);
                    head[p] = a * c - b * s;
                    head[q] = a * s + b * c;
                }
            }
            assert!(relative_error(&exact, &got) < 1e-6, "{isa:?} {style:?}");
            assert_eq!(got[10..12], x[10..12], "what lies behind does not turn");
        }
    }
}

#[test]
fn sums_scales_and_caps() {
    for isa in Isa::available() {
        let mut x = vec![1.0, 2.0, 3.0, 4.0];
        add(isa, &mut x, &[1.0, 1.0, 1.0, 1.0]);
        add_row(isa, &mut x, &[10.0, 20.0]);
        assert_eq!(x, [12.0, 23.0, 14.0, 25.0]);
        scale(isa, &mut x, 2.0);
        assert_eq!(x, [24.0, 46.0, 28.0, 50.0]);
        softcap(isa, &mut x, 30.0);
        let exact: Vec<f64> = [24.0f64, 46.0, 28.0, 50.0]
            .iter()
            .map(|x| 30.0 * (x / 30.0).tanh())
            .collect();
        assert!(relative_error(&exact, &x) < 1e-6);
    }
}
