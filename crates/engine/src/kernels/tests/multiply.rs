use super::*;
use crate::gguf::LoadError;
use crate::kernels::{Activation, Activations, gate_up, multiply};

/// x * weights^T in f64.
fn exact(x: &[f32], weights: &[f32], columns: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for x in x.chunks_exact(columns) {
        for w in weights.chunks_exact(columns) {
            out.push(
                x.iter()
                    .zip(w)
                    .map(|(x, w)| f64::from(*x) * f64::from(*w))
                    .sum(),
            );
        }
    }
    out
}

fn width(ty: TensorType) -> usize {
    ty.block().unwrap().0
}

/// (outputs, columns in blocks of the type, rows of activations)
const SHAPES: [(usize, usize, usize); 9] = [
    (16, 1, 1),
    (1, 2, 1),
    (37, 3, 2),
    (64, 4, 3),
    (48, 5, 8),
    (33, 2, 10),
    (16, 3, 11),
    (100, 2, 21),
    (17, 7, 64),
];

fn columns(ty: TensorType, blocks: usize) -> usize {
    match width(ty) {
        // Floats need no blocks: odd widths too.
        1 => blocks * 37 + 1,
        width => width * blocks,
    }
}

#[test]
fn rows_come_back_as_they_were() {
    let (team, mut random) = (Team::new(2), Random(1));
    for ty in TYPES {
        let (rows, columns) = (37, columns(ty, 3));
        let (packed, plain) = matrix(&mut random, &team, ty, rows, columns);
        assert_eq!((packed.rows(), packed.columns()), (rows, columns));
        let mut out = vec![0.0; columns];
        for row in 0..rows {
            packed.row_into(row, &mut out);
            for (got, exact) in out.iter().zip(&plain[row * columns..]) {
                let error = (got - exact).abs();
                assert!(
                    error <= exact.abs() * 1e-6 + 1e-6,
                    "{ty:?} row {row}: {got}, not {exact}"
                );
            }
        }
    }
}

#[test]
fn the_portable_kernel_agrees_with_f64() {
    let (team, mut random) = (Team::new(2), Random(2));
    println!("relative error of a product of 64 x 2048 normal activations against f64:");
    for ty in TYPES {
        let (rows, columns) = (64, 2048);
        let (packed, plain) = matrix(&mut random, &team, ty, rows, columns);
        let x = random.normals(64 * columns);
        let mut acts = Activations::new(64, columns, packed.is_float());
        acts.quantise(&team, Isa::Scalar, &x, 64, columns);
        let mut out = vec![0.0; 64 * rows];
        multiply(&team, Isa::Scalar, &mut [(&packed, &mut out)], &acts, false);
        let error = relative_error(&exact(&x, &plain, columns), &out);
        println!("| {} | {error:.1e} |", ty.name());
        // Eight bits per activation, scaled by the largest of 32.
        let bound = if packed.is_float() { 2e-6 } else { 1.2e-2 };
        assert!(error < bound, "{ty:?}: {error}");
        assert!(
            packed.is_float() || error > 1e-4,
            "{ty:?} cannot be this exact: {error}"
        );
    }
}

#[test]
fn every_instruction_set_agrees_with_the_portable_one() {
    let (team, mut random) = (Team::new(3), Random(3));
    for ty in TYPES {
        for (rows, blocks, count) in SHAPES {
            let columns = columns(ty, blocks);
            let (packed, _) = matrix(&mut random, &team, ty, rows, columns);
            let x = random.normals(count * columns);
            let mut acts = Activations::new(count, columns, packed.is_float());
            acts.quantise(&team, Isa::Scalar, &x, count, columns);
            let mut plain = vec![0.0; count * rows];
            multiply(
                &team,
                Isa::Scalar,
                &mut [(&packed, &mut plain)],
                &acts,
                false,
            );
            let wide: Vec<f64> = plain.iter().copied().map(f64::from).collect();
            for isa in vector_isas() {
                let mut out = vec![f32::NAN; count * rows];
                multiply(&team, isa, &mut [(&packed, &mut out)], &acts, false);
                let error = relative_error(&wide, &out);
                assert!(
                    error < 3e-6,
                    "{isa:?} {ty:?} {rows}x{columns}, {count} rows: {error}"
                );
            }
        }
    }
}

/// Quants and activations of the largest size and one sign: sums of products
/// that overflow 16 bits where a kernel is careless.
#[test]
fn extreme_quants_do_not_saturate() {
    let team = Team::new(1);
    for ty in [
        TensorType::Q8_0,
        TensorType::Q4_0,
        TensorType::Q4K,
        TensorType::Q5K,
        TensorType::Q6K,
    ] {
        for byte in [0x00u8, 0x7f, 0x80, 0xff] {
            let (width, size) = ty.block().unwrap();
            let columns = width * 4;
            let mut data = vec![byte; size * 4 * 16];
            for block in data.chunks_exact_mut(size) {
                let one = 0x3c00u16.to_le_bytes();
                match ty {
                    TensorType::Q6K => block[208..210].copy_from_slice(&one),
                    TensorType::Q4K | TensorType::Q5K => {
                        block[0..2].copy_from_slice(&one);
                        block[2..4].copy_from_slice(&one);
                    }
                    _ => block[0..2].copy_from_slice(&one),
                }
            }
            let packed = Packed::pack(&team, ty, &data, 16, columns).unwrap();
            let plain = dequantised(ty, &data);
            for x in [1.0f32, -1.0] {
                for count in [1, 4, 10] {
                    let x = vec![x; count * columns];
                    let exact = exact(&x, &plain, columns);
                    for isa in Isa::available() {
                        let mut acts = Activations::new(count, columns, false);
                        acts.quantise(&team, isa, &x, count, columns);
                        let mut out = vec![0.0; count * 16];
                        multiply(&team, isa, &mut [(&packed, &mut out)], &acts, false);
                        for (out, exact) in out.iter().zip(&exact) {
                            let error = (f64::from(*out) - exact).abs();
                            assert!(
                                error <= exact.abs() * 1e-5 + 1e-2,
                                "{isa:?} {ty:?} of {byte:#x}, {count} rows: {out}, not {exact}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn several_matrices_share_a_pass_and_add_to_the_residual() {
    let (team, mut random) = (Team::new(3), Random(4));
    let (columns, count) = (256, 5);
    let shapes = [
        (TensorType::Q4K, 70),
        (TensorType::Q6K, 16),
        (TensorType::Q8_0, 33),
    ];
    let matrices: Vec<(Packed, Vec<f32>)> = shapes
        .iter()
        .map(|(ty, rows)| matrix(&mut random, &team, *ty, *rows, columns))
        .collect();
    let x = random.normals(count * columns);
    for isa in Isa::available() {
        let mut acts = Activations::new(8, 512, false);
        acts.quantise(&team, isa, &x, count, columns);
        let mut outs: Vec<Vec<f32>> = shapes.iter().map(|(_, n)| vec![100.0; n * count]).collect();
        let mut targets: Vec<(&Packed, &mut [f32])> = matrices
            .iter()
            .zip(&mut outs)
            .map(|((packed, _), out)| (packed, out.as_mut_slice()))
            .collect();
        multiply(&team, isa, &mut targets, &acts, true);
        for ((_, plain), out) in matrices.iter().zip(&outs) {
            let product: Vec<f32> = out.iter().map(|x| x - 100.0).collect();
            let error = relative_error(&exact(&x, plain, columns), &product);
            assert!(error < 1.2e-2, "{isa:?}: {error}");
        }
    }
}

#[test]
fn gate_and_up_follow_their_definition() {
    let (team, mut random) = (Team::new(2), Random(5));
    let (rows, columns) = (50, 256);
    for (gate_type, up_type) in [
        (TensorType::Q4K, TensorType::Q6K),
        (TensorType::F16, TensorType::Q8_0),
    ] {
        let (gate, gate_plain) = matrix(&mut random, &team, gate_type, rows, columns);
        let (up, up_plain) = matrix(&mut random, &team, up_type, rows, columns);
        for count in [1, 13] {
            let x: Vec<f32> = random
                .normals(count * columns)
                .iter()
                .map(|x| x * 0.1)
                .collect();
            let gates = exact(&x, &gate_plain, columns);
            let ups = exact(&x, &up_plain, columns);
            for activation in [Activation::Silu, Activation::GeluTanh] {
                let nonlinear = |x: f64| match activation {
                    Activation::Silu => x / (1.0 + (-x).exp()),
                    Activation::GeluTanh => {
                        let y = 0.797_884_560_802_865_4 * (x + 0.044_715 * x.powi(3));
                        0.5 * x * (1.0 + y.tanh())
                    }
                };
                let exact: Vec<f64> = gates
                    .iter()
                    .zip(&ups)
                    .map(|(g, u)| nonlinear(*g) * u)
                    .collect();
                for isa in Isa::available() {
                    let mut acts = Activations::new(count, columns, true);
                    acts.quantise(&team, isa, &x, count, columns);
                    let mut out = vec![f32::NAN; count * rows];
                    gate_up(&team, isa, &gate, &up, &acts, activation, &mut out);
                    let error = relative_error(&exact, &out);
                    assert!(
                        error < 2e-2,
                        "{isa:?} {activation:?}, {count} rows: {error}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let team = Team::new(1);
    let refused = |ty, bytes: usize, rows, columns| {
        Packed::pack(&team, ty, &vec![0; bytes], rows, columns)
            .err()
            .unwrap()
    };
    for (ty, columns) in [
        (TensorType::Q4K, 128),
        (TensorType::Q6K, 257),
        (TensorType::Q8_0, 33),
    ] {
        assert!(
            matches!(refused(ty, 4096, 16, columns), LoadError::Unsupported(_)),
            "{ty:?}"
        );
    }
    assert!(matches!(
        refused(TensorType::Q2K, 84, 1, 256),
        LoadError::Unsupported(_)
    ));
    assert!(matches!(
        refused(TensorType::Q8_0, 33, 1, 32),
        LoadError::Damaged(_)
    ));
    assert!(matches!(
        refused(TensorType::Q8_0, 0, 0, 32),
        LoadError::Unsupported(_)
    ));
    assert!(matches!(
        refused(TensorType::F32, 16, usize::MAX, 4),
        LoadError::Unsupported(_)
    ));
}

#[test]
fn rows_that_are_no_numbers_are_survived() {
    let (team, mut random) = (Team::new(1), Random(6));
    let (packed, _) = matrix(&mut random, &team, TensorType::Q4K, 16, 256);
    for isa in Isa::available() {
        for bad in [f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE, 1e-40] {
            let mut x = vec![bad; 256];
            x[3] = -1.0;
            let mut acts = Activations::new(1, 256, false);
            acts.quantise(&team, isa, &x, 1, 256);
            let mut out = vec![0.0; 16];
            multiply(&team, isa, &mut [(&packed, &mut out)], &acts, false);
        }
    }
}

/// Every type, on random and on extreme quants, where sums in few bits would
/// saturate.
#[test]
fn extreme_quants_agree_with_the_portable_kernel() {
    let (team, mut random) = (Team::new(1), Random(30));
    for ty in TYPES {
        for extreme in [None, Some(0x00), Some(0x7f), Some(0x80), Some(0xff)] {
            let columns = columns(ty, 3);
            let mut data = random_blocks(&mut random, ty, 16, columns);
            if let Some(byte) = extreme {
                let (_, size) = ty.block().unwrap();
                for block in data.chunks_exact_mut(size) {
                    match ty {
                        TensorType::Q4_0 | TensorType::Q8_0 => block[2..].fill(byte),
                        TensorType::Q4K | TensorType::Q5K => block[4..].fill(byte),
                        TensorType::Q6K => block[..208].fill(byte),
                        _ => {}
                    }
                }
            }
            let packed = Packed::pack(&team, ty, &data, 16, columns).unwrap();
            for count in 1..=4 {
                let mut x = random.normals(count * columns);
                if extreme.is_some() {
                    let sign = if random.below(2) == 0 { 1.0 } else { -1.0 };
                    x.fill(sign);
                }
                let mut acts = Activations::new(count, columns, packed.is_float());
                acts.quantise(&team, Isa::Scalar, &x, count, columns);
                let mut plain = vec![0.0; count * 16];
                multiply(
                    &team,
                    Isa::Scalar,
                    &mut [(&packed, &mut plain)],
                    &acts,
                    false,
                );
                let wide: Vec<f64> = plain.iter().copied().map(f64::from).collect();
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; count * 16];
                    multiply(&team, isa, &mut [(&packed, &mut out)], &acts, false);
                    let error = relative_error(&wide, &out);
                    assert!(
                        error < 3e-6,
                        "{isa:?} {ty:?} {extreme:?}, {count} rows: {error}"
                    );
                }
            }
        }
    }
}
