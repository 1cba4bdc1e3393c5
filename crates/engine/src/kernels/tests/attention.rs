use super::*;
use crate::kernels::float16::{from_bf16, to_bf16};
use crate::kernels::{AttendJob, TILE_TOKENS, TileForm, Tiles, attend};

const FORMS: [TileForm; 2] = [TileForm::Bf16, TileForm::Int8];

/// One layer of one sequence, as the cache holds it and plainly.
struct Sequence {
    form: TileForm,
    blocks: Vec<Vec<u16>>,
    offset: usize,
    /// tokens x kv_heads x head_dim, rounded as the tiles are.
    keys: Vec<f32>,
    values: Vec<f32>,
}

fn sequence(
    random: &mut Random,
    form: TileForm,
    isa: Isa,
    tokens: usize,
    kv_heads: usize,
    head_dim: usize,
) -> Sequence {
    let len = form.len(head_dim);
    let offset = 96;
    // What is not written is no number: it must not be read, or weigh nothing.
    let block = vec![to_bf16(f32::NAN); offset + kv_heads * 2 * len];
    let mut blocks = vec![block; tokens.div_ceil(TILE_TOKENS)];
    let keys = random.normals(tokens * kv_heads * head_dim);
    let values = random.normals(tokens * kv_heads * head_dim);
    for token in 0..tokens {
        for head in 0..kv_heads {
            let at = (token * kv_heads + head) * head_dim;
            let tiles = &mut blocks[token / TILE_TOKENS][offset + head * 2 * len..][..2 * len];
            let (k_tile, v_tile) = tiles.split_at_mut(len);
            form.put(
                isa,
                k_tile,
                v_tile,
                token % TILE_TOKENS,
                head_dim,
                &keys[at..][..head_dim],
                &values[at..][..head_dim],
            );
        }
    }
    let rounded = |x: &[f32]| -> Vec<f32> {
        let heads = x.chunks_exact(head_dim);
        heads.flat_map(|head| rounded(form, head)).collect()
    };
    Sequence {
        form,
        blocks,
        offset,
        keys: rounded(&keys),
        values: rounded(&values),
    }
}

/// One token's key or value of one head, as a tile holds it.
fn rounded(form: TileForm, head: &[f32]) -> Vec<f32> {
    match form {
        TileForm::Bf16 => head.iter().map(|x| from_bf16(to_bf16(*x))).collect(),
        TileForm::Int8 => {
            let most = head.iter().fold(0f32, |most, x| most.max(x.abs()));
            let whole = |x: &f32| (x * (127.0 / most)).round_ties_even();
            head.iter().map(|x| whole(x) * (most / 127.0)).collect()
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    first: usize,
    rows: usize,
    window: Option<usize>,
    softcap: Option<f32>,
}

/// Softmax attention in f64, as the textbook has it.
fn exact(case: Case, queries: &[f32], sequence: &Sequence) -> Vec<f64> {
    let Case {
        heads,
        kv_heads,
        head_dim,
        ..
    } = case;
    let mut out = Vec::new();
    for row in 0..case.rows {
        let position = case.first + row;
        let start = case.window.map_or(0, |w| (position + 1).saturating_sub(w));
        for head in 0..heads {
            let kv = head / (heads / kv_heads);
            let query = &queries[(row * heads + head) * head_dim..][..head_dim];
            let at = |token: usize| (token * kv_heads + kv) * head_dim;
            let scores: Vec<f64> = (start..=position)
                .map(|token| {
                    let key = &sequence.keys[at(token)..][..head_dim];
                    let score: f64 = query
                        .iter()
                        .zip(key)
                        .map(|(q, k)| f64::from(*q) * f64::from(*k))
                        .sum();
                    case.softcap.map_or(score, |cap| {
                        f64::from(cap) * (score / f64::from(cap)).tanh()
                    })
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for dim in 0..head_dim {
                let value: f64 = weights
                    .iter()
                    .zip(start..)
                    .map(|(w, token)| w * f64::from(sequence.values[at(token) + dim]))
                    .sum();
                out.push(value / sum);
            }
        }
    }
    out
}

fn queries(random: &mut Random, case: Case) -> Vec<f32> {
    // Scores of a standard deviation of about 2, as trained models have them.
    let scale = 2.0 / (case.head_dim as f32).sqrt();
    random
        .normals(case.rows * case.heads * case.head_dim)
        .iter()
        .map(|x| x * scale)
        .collect()
}

fn run(isa: Isa, team: &Team, case: Case, queries: &[f32], sequence: &Sequence) -> Vec<f32> {
    let blocks: Vec<&[u16]> = sequence.blocks.iter().map(Vec::as_slice).collect();
    let mut out = vec![f32::NAN; queries.len()];
    attend(
        team,
        isa,
        &mut [AttendJob {
            queries,
            out: &mut out,
            heads: case.heads,
            kv_heads: case.kv_heads,
            first: case.first,
            window: case.window,
            softcap: case.softcap,
            tiles: Tiles::of(sequence.form, &blocks, sequence.offset, case.head_dim),
        }],
    );
    out
}

fn bound(isa: Isa) -> f64 {
    match isa {
        // Queries and weights are rounded to bf16, too.
        Isa::Avx512 => 8e-3,
        _ => 3e-6,
    }
}

fn check(random: &mut Random, team: &Team, case: Case) {
    let all = Isa::available();
    for (isa, form) in all
        .into_iter()
        .flat_map(|isa| FORMS.map(|form| (isa, form)))
    {
        let sequence = sequence(
            random,
            form,
            isa,
            case.first + case.rows,
            case.kv_heads,
            case.head_dim,
        );
        let queries = queries(random, case);
        let got = run(isa, team, case, &queries, &sequence);
        let error = relative_error(&exact(case, &queries, &sequence), &got);
        assert!(error < bound(isa), "{isa:?} {form:?} {case:?}: {error}");
    }
}

#[test]
fn attention_agrees_with_plain_softmax() {
    let (team, mut random) = (Team::new(2), Random(20));
    for (heads, kv_heads, head_dim) in [
        (2, 1, 64),
        (4, 4, 80),
        (16, 8, 128),
        (8, 2, 64),
        (6, 2, 32),
        (3, 1, 256),
        (40, 2, 64),
        (1, 1, 2),
        (2, 2, 34),
    ] {
        for (first, rows) in [
            (0, 1),
            (0, 5),
            (15, 1),
            (16, 1),
            (31, 3),
            (0, 70),
            (200, 1),
            (130, 9),
        ] {
            check(
                &mut random,
                &team,
                Case {
                    heads,
                    kv_heads,
                    head_dim,
                    first,
                    rows,
                    window: None,
                    softcap: None,
                },
            );
        }
    }
}

#[test]
fn windows_and_softcaps_hold() {
    let (team, mut random) = (Team::new(2), Random(21));
    for window in [1, 2, 15, 16, 17, 64, 100, 1000] {
        for (first, rows) in [(0, 1), (0, 40), (99, 1), (160, 17)] {
            let case = Case {
                heads: 4,
                kv_heads: 2,
                head_dim: 64,
                first,
                rows,
                window: Some(window),
                softcap: None,
            };
            check(&mut random, &team, case);
            check(
                &mut random,
                &team,
                Case {
                    softcap: Some(3.0),
                    ..case
                },
            );
        }
    }
}

#[test]
fn long_contexts_stay_exact() {
    let (team, mut random) = (Team::new(2), Random(22));
    for (first, rows) in [(4095, 1), (3000, 6)] {
        check(
            &mut random,
            &team,
            Case {
                heads: 4,
                kv_heads: 2,
                head_dim: 64,
                first,
                rows,
                window: None,
                softcap: None,
            },
        );
    }
}

/// Scores that rise with every span, far apart: each must outweigh the last.
#[test]
fn the_running_maximum_follows_rising_scores() {
    let team = Team::new(1);
    let case = Case {
        heads: 1,
        kv_heads: 1,
        head_dim: 2,
        first: 299,
        rows: 1,
        window: None,
        softcap: None,
    };
    for isa in Isa::available() {
        for sign in [1.0f32, -1.0] {
            let mut sequence = sequence(&mut Random(23), TileForm::Bf16, isa, 300, 1, 2);
            let len = TileForm::Bf16.len(2);
            for token in 0..300 {
                let block = &mut sequence.blocks[token / 16][sequence.offset..][..2 * len];
                let (k_tile, v_tile) = block.split_at_mut(len);
                let key = [sign * token as f32, 0.0];
                TileForm::Bf16.put(
                    isa,
                    k_tile,
                    v_tile,
                    token % 16,
                    2,
                    &key,
                    &[token as f32, 1.0],
                );
            }
            let got = run(isa, &team, case, &[16.0, 0.0], &sequence);
            let best = if sign > 0.0 { 299.0 } else { 0.0 };
            // bf16 holds 299 as 300.
            assert!(
                (got[0] - best).abs() <= 1.0 && (got[1] - 1.0).abs() < 1e-3,
                "{isa:?}: {got:?}"
            );
        }
    }
}

#[test]
fn several_sequences_run_together() {
    let (team, mut random) = (Team::new(3), Random(24));
    let all = Isa::available();
    for (isa, form) in all
        .into_iter()
        .flat_map(|isa| FORMS.map(|form| (isa, form)))
    {
        let cases: Vec<Case> = [(0, 1), (50, 1), (7, 20), (300, 1)]
            .iter()
            .map(|(first, rows)| Case {
                heads: 8,
                kv_heads: 4,
                head_dim: 64,
                first: *first,
                rows: *rows,
                window: None,
                softcap: None,
            })
            .collect();
        let sequences: Vec<Sequence> = cases
            .iter()
            .map(|case| sequence(&mut random, form, isa, case.first + case.rows, 4, 64))
            .collect();
        let queries: Vec<Vec<f32>> = cases
            .iter()
            .map(|case| queries(&mut random, *case))
            .collect();
        let blocks: Vec<Vec<&[u16]>> = sequences
            .iter()
            .map(|s| s.blocks.iter().map(Vec::as_slice).collect())
            .collect();
        let mut outs: Vec<Vec<f32>> = queries.iter().map(|q| vec![f32::NAN; q.len()]).collect();
        let mut jobs: Vec<AttendJob<'_>> = outs
            .iter_mut()
            .enumerate()
            .map(|(i, out)| AttendJob {
                queries: &queries[i],
                out,
                heads: 8,
                kv_heads: 4,
                first: cases[i].first,
                window: None,
                softcap: None,
                tiles: Tiles::of(form, &blocks[i], sequences[i].offset, 64),
            })
            .collect();
        attend(&team, isa, &mut jobs);
        drop(jobs);
        for i in 0..cases.len() {
            // Alone or together, and on however many threads: the same bits.
            let alone = run(isa, &Team::new(1), cases[i], &queries[i], &sequences[i]);
            assert_eq!(alone, outs[i], "{isa:?} {form:?} sequence {i}");
        }
    }
}

/// A tile's error stays below half a step of its token's largest number, and
/// what is no number stays none.
#[test]
fn bytes_are_as_close_as_their_scale_allows_and_hide_no_damage() {
    let mut random = Random(25);
    for isa in Isa::available() {
        let form = TileForm::Int8;
        let len = form.len(32);
        let (mut k_tile, mut v_tile) = (vec![0u16; len], vec![0u16; len]);
        let query = [1.0f32; 32];
        for slot in 0..16 {
            let (key, mut value) = (random.normals(32), random.normals(32));
            if slot == 9 {
                value[3] = f32::NAN;
            }
            form.put(isa, &mut k_tile, &mut v_tile, slot, 32, &key, &value);
            let close = rounded(form, &key);
            let most = key.iter().fold(0f32, |most, x| most.max(x.abs()));
            for (x, rounded) in key.iter().zip(&close) {
                assert!((x - rounded).abs() <= most / 254.0 * 1.0001);
            }
            let block = [k_tile.as_slice(), &v_tile].concat();
            let sequence = Sequence {
                form,
                blocks: vec![block],
                offset: 0,
                keys: Vec::new(),
                values: Vec::new(),
            };
            let case = Case {
                heads: 1,
                kv_heads: 1,
                head_dim: 32,
                first: slot,
                rows: 1,
                window: None,
                softcap: None,
            };
            let got = run(isa, &Team::new(1), case, &query, &sequence);
            assert_eq!(got.iter().any(|x| x.is_nan()), slot >= 9, "{isa:?} {slot}");
        }
        // Zeroed from a place on: as if only those before had been written.
        let (mut k, mut v) = (k_tile.clone(), v_tile.clone());
        form.clear_after(&mut k, &mut v, 5, 32);
        let (mut k_again, mut v_again) = (k.clone(), v.clone());
        form.clear_after(&mut k_again, &mut v_again, 5, 32);
        assert!(k == k_again && v == v_again);
        form.clear_after(&mut k, &mut v, 0, 32);
        assert!(k.iter().chain(&v).all(|word| *word == 0));
    }
}

/// Numbers that are all zero have no scale, and stay zero.
#[test]
fn zeros_stay_zeros() {
    for (isa, form) in Isa::available()
        .into_iter()
        .flat_map(|isa| FORMS.map(|form| (isa, form)))
    {
        let len = form.len(16);
        let mut block = vec![0u16; 2 * len];
        let (k_tile, v_tile) = block.split_at_mut(len);
        form.put(isa, k_tile, v_tile, 0, 16, &[0.0; 16], &[0.0; 16]);
        assert!(block.iter().all(|word| *word == 0), "{isa:?} {form:?}");
    }
}
