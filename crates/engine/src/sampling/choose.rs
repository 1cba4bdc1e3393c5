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

/// Draws by top-k, top-p, min-p and temperature. `uniform` is in [0, 1).
pub(super) fn draw(
    logits: &[f32],
    settings: &Settings,
    uniform: f64,
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
    let weight = |logit: f32| (f64::from(logit - most) / f64::from(settings.temperature)).exp();
    let total: f64 = candidates.iter().map(|(logit, _)| weight(*logit)).sum();
    let mut left = uniform * total;
    for (logit, id) in candidates.iter() {
        left -= weight(*logit);
        if left < 0.0 {
            return Some(*id);
        }
    }
    // Rounding can leave a crumb; it belongs to the last that has any weight.
    candidates
        .iter()
        .rev()
        .find(|(logit, _)| weight(*logit) > 0.0)
        .map(|(_, id)| *id)
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
