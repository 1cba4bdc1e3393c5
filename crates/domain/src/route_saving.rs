//! The order of legs while a limit is past its soft share: what is dearer than
//! it need be comes last, this device first.

use super::Forecast;
use crate::limit::Soft;
use crate::privacy::Zone;
use crate::snapshot::Snapshot;

/// Puts `scored`, best first, into the order that spares the limits. Returns
/// those that were put behind others, each with the limit that asked for it.
///
/// A limit of a target's own puts that target last whatever it costs; any other
/// puts those last that cost more than the cheapest. An unknown price is no low
/// one. Where no limit is past its share, nothing changes.
pub(super) fn order(scored: &mut [(usize, Forecast)], snapshot: &Snapshot) -> Vec<(usize, Soft)> {
    let soft = |index: usize| snapshot.targets[index].soft.as_ref();
    if scored.iter().all(|(index, _)| soft(*index).is_none()) {
        return Vec::new();
    }
    let costs = scored
        .iter()
        .filter_map(|(_, forecast)| forecast.cost_micro);
    let cheapest = costs.min();
    let mut behind = Vec::new();
    for (index, forecast) in scored.iter() {
        let dearer = match (forecast.cost_micro, cheapest) {
            (Some(cost), Some(cheapest)) => cost > cheapest,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if let Some(soft) = soft(*index).filter(|soft| soft.of_target || dearer) {
            behind.push((*index, soft.clone()));
        }
    }
    // Stable: among equals the score's order stays.
    scored.sort_by_key(|(index, _)| {
        let is_behind = behind.iter().any(|(other, _)| other == index);
        let far = snapshot.targets[*index].target.zone() != Zone::Device;
        (is_behind, far)
    });
    behind
}
