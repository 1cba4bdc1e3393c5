//! The arithmetic of choosing: pure functions over logits that are known to
//! hold no NaN.

use std::cmp::Ordering;

use super::Settings;

/// Higher logit first, then lower id.
fn best_first(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// How many candidates are sorted before looking whether they suffice.
const FIRST_BLOCK: usize = 128;

/// The most likely token.
pub(super) fn greedy(logits: &[f32]) -> Option<u32> {
    let mut best: Option<(usize, f32)> = None;
    for (id, logit) in logits.iter().enumerate() {
        if best.is_none_or(|(_, most)| *logit > most) {
            best = Some((id, *logit));
        }
    }
    best.filter(|(_, logit)| logit.is_finite())
        .map(|(id, _)| id as u32)
}

/// ln Σ exp(logit), in double precision.
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - most).exp())
        .sum();
    f64::from(most) + sum.ln()
}

/// The `n` best, best first.
pub(super) fn top_n(logits: &[f32], n: usize, candidates: &mut Vec<(f32, u32)>) -> Vec<(f32, u32)> {
    if n == 0 {
        return Vec::new();
    }
    fill(logits, candidates);
    keep_best(candidates, n);
    candidates.sort_unstable_by(best_first);
    candidates.clone()
}

/// Draws by top-k, top-p, min-p and temperature.
///
/// A race: each candidate gets a time that is exponentially distributed with its
/// weight as the rate, and the first wins, which is a draw from the weights. The
/// times depend on `number` and the candidate's id alone, so that draws from two
/// similar distributions with one number are mostly the same ("Coupling without
/// Communication and Drafter-Invariant Speculative Decoding", Daliri, Musco and
/// Suresh 2024).
pub(super) fn draw(
    logits: &[f32],
    settings: &Settings,
    number: u64,
    candidates: &mut Vec<(f32, u32)>,
) -> Option<u32> {
    fill(logits, candidates);
    if settings.top_k > 0 {
        keep_best(candidates, settings.top_k);
    }
    let most = candidates
        .iter()
        .map(|(logit, _)| *logit)
        .fold(f32::NEG_INFINITY, f32::max);
    if settings.top_p < 1.0 || settings.min_p > 0.0 {
        let mass: f64 = candidates
            .iter()
            .map(|(logit, _)| f64::from(logit - most).exp())
            .sum();
        // Both cuts keep a prefix of the sorted candidates, so the one that is
        // cheap without sorting goes first.
        if settings.min_p > 0.0 {
            let least = most + settings.min_p.ln();
            candidates.retain(|(logit, _)| *logit >= least);
        }
        if settings.top_p < 1.0 {
            nucleus(candidates, f64::from(settings.top_p) * mass, most);
        }
    }
    let mut best: Option<(f64, u32)> = None;
    for (logit, id) in candidates.iter() {
        // ln(weight); the race's time is exp(-score).
        let weight = f64::from(logit - most) / f64::from(settings.temperature);
        let chance = chance(number, *id);
        if let Some((lead, _)) = best {
            // The time is -ln(chance), at least 1 - chance; exp(x) >= 1 + x. So
            // this one is behind, and most are found to be so without a logarithm.
            let behind = lead - weight;
            if behind > 0.0 && (1.0 - chance) * (1.0 + behind) > 1.0 {
                continue;
            }
        }
        let score = weight - (-chance.ln()).ln();
        if best.is_none_or(|(lead, _)| score > lead) {
            best = Some((score, *id));
        }
    }
    best.map(|(_, id)| id)
}

/// A number in (0, 1) that belongs to a draw and a token: both, well mixed
/// (SplitMix64's finaliser, Steele et al. 2014).
fn chance(number: u64, id: u32) -> f64 {
    let mut x = number
        ^ u64::from(id)
            .wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    ((x >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

fn fill(logits: &[f32], candidates: &mut Vec<(f32, u32)>) {
    candidates.clear();
    candidates.extend(
        logits
            .iter()
            .zip(0u32..)
            .filter(|(logit, _)| logit.is_finite())
            .map(|(logit, id)| (*logit, id)),
    );
}

fn keep_best(candidates: &mut Vec<(f32, u32)>, n: usize) {
    if n < candidates.len() {
        candidates.select_nth_unstable_by(n, best_first);
        candidates.truncate(n);
        // Selection leaves them in no order; the draw walks them in id order.
        candidates.sort_unstable_by_key(|(_, id)| *id);
    }
}

/// Keeps the smallest set of best candidates whose mass (relative to
/// `exp(most)`) reaches `wanted`; at least one.
fn nucleus(candidates: &mut Vec<(f32, u32)>, wanted: f64, most: f32) {
    let (mut sorted, mut block, mut mass) = (0, FIRST_BLOCK, 0.0);
    while sorted < candidates.len() {
        let rest = &mut candidates[sorted..];
        let count = block.min(rest.len());
        if count < rest.len() {
            rest.select_nth_unstable_by(count, best_first);
        }
        rest[..count].sort_unstable_by(best_first);
        for (index, (logit, _)) in rest[..count].iter().enumerate() {
            mass += f64::from(logit - most).exp();
            if mass >= wanted {
                candidates.truncate(sorted + index + 1);
                return;
            }
        }
        sorted += count;
        block *= 4;
    }
}
