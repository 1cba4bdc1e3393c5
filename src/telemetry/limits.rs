//! Limits as metrics: by their names in the configuration, never by those of
//! tenants, keys and features, which are many and some of which clients write.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One limit's numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitGauge {
    /// Its name in the configuration.
    pub limit: String,
    /// What it counts.
    pub measure: &'static str,
    /// Of its fullest counter, the share that is used or held.
    pub fullest: f64,
    /// Requests and legs that it refused.
    pub refused: u64,
    /// Decisions that it changed.
    pub steered: u64,
    /// Settled at the reserve, because nobody told what was used.
    pub estimated: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: String,
    measure: &'static str,
}

/// Adds the series of all limits; none where there are no limits.
pub(super) fn register(registry: &mut Registry, limits: &[LimitGauge]) {
    if limits.is_empty() {
        return;
    }
    let fullest: Family<LimitLabels, Gauge<f64, std::sync::atomic::AtomicU64>> = Family::default();
    let [refused, steered, estimated]: [Family<LimitLabels, Counter>; 3] = Default::default();
    for one in limits {
        let labels = LimitLabels {
            limit: one.limit.clone(),
            measure: one.measure,
        };
        fullest.get_or_create(&labels).set(one.fullest);
        refused.get_or_create(&labels).inc_by(one.refused);
        steered.get_or_create(&labels).inc_by(one.steered);
        estimated.get_or_create(&labels).inc_by(one.estimated);
    }
    registry.register(
        "limit_fullest_ratio",
        "Used or held share of a limit's fullest counter",
        fullest,
    );
    registry.register("limit_refused", "Requests that a limit refused", refused);
    registry.register("limit_steered", "Decisions that a limit changed", steered);
    registry.register(
        "limit_estimated",
        "Legs settled at their reserve, because nobody told what they took",
        estimated,
    );
}
