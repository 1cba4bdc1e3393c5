//! Counters and histograms, in OpenMetrics text.

use std::sync::atomic::{AtomicU64, Ordering};

use nearfar_domain::events::FailureKind;
use nearfar_domain::explain::Verdict;
use nearfar_domain::frames::DraftLoad;
use nearfar_domain::ids::TargetId;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::{
    DecisionLabels, DeniedLabels, FailureLabels, GuardLabels, KnownTargets, RequestLabels,
    TargetLabels, TokenLabels, word,
};
use super::limits::LimitGauge;
use crate::store::Row;

const ENDPOINTS: [&str; 3] = ["openai.chat", "openai.completions", "route"];
const ZONES: [&str; 4] = ["device", "site", "cloud", ""];
const OUTCOMES: [&str; 4] = ["ok", "refused", "failed", "cancelled"];

/// Upper bounds in seconds of the time to first token: 5 ms to 30 s.
const TTFT_SECONDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0,
];
/// Upper bounds in seconds of the time per output token: 1 ms to 1 s.
const TPOT_SECONDS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1.0,
];
/// Upper bounds in seconds of a whole request: 10 ms to 10 min.
const DURATION_SECONDS: [f64; 14] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 180.0, 600.0,
];

type Histograms = Family<TargetLabels, Histogram, fn() -> Histogram>;

/// Everything that is counted in this process. Shared by reference; every
/// method is cheap and never blocks for long.
pub struct Metrics {
    known: KnownTargets,
    requests: Family<RequestLabels, Counter>,
    decisions: Family<DecisionLabels, Counter>,
    failed_legs: Family<FailureLabels, Counter>,
    retries: Counter,
    continuations: Counter,
    tokens: Family<TokenLabels, Counter>,
    identifiers: Family<GuardLabels, Counter>,
    denied: Family<DeniedLabels, Counter>,
    ttft: Histograms,
    tpot: Histograms,
    duration: Histograms,
}

/// Numbers that others keep and that are read when metrics are asked for.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Models in memory that have a draft, by target, and how it fares.
    pub drafts: Vec<(String, DraftLoad)>,
    /// Limits, in the order of the configuration.
    pub limits: Vec<LimitGauge>,
    /// Rows that the ledger had to drop since the start.
    pub dropped_rows: u64,
    /// The sending to the fleet's ledger; `None` where there is none.
    pub export: Option<ExportGauges>,
    /// The limits that several daemons share; `None` where none are.
    pub sharing: Option<SharingGauges>,
    /// Requests under way.
    pub in_flight: usize,
    /// Jobs that wait in the engine.
    pub engine_queued: u32,
    /// Jobs that the engine answers now.
    pub engine_running: u32,
    /// Whether the gate is linked to a running engine.
    pub engine_up: bool,
    /// Whether the gate is linked to a running egress.
    pub egress_up: bool,
    /// Kept answers; `None` where the cache is off.
    pub cache: Option<CacheGauges>,
}

/// What the cache counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheGauges {
    /// Requests that got the kept answer to the same request.
    pub hits: u64,
    /// Requests that got the kept answer to one that means the same.
    pub semantic_hits: u64,
    /// Requests whose answer was not there.
    pub misses: u64,
    /// Requests for which nobody looked.
    pub bypassed: u64,
    /// Answers that had to make room.
    pub evicted: u64,
    /// Answers that are kept.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// What the served ones had cost when they were made, in micro-units.
    pub saved_micro: u64,
}

/// How the sharing of limits goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct SharingGauges {
    /// Whether the server decides.
    pub up: bool,
    /// Claims that this daemon decided alone.
    pub alone: u64,
    /// How often the server went away.
    pub outages: u64,
}

/// How the sending to the fleet's ledger goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExportGauges {
    /// Rows that it does not have yet.
    pub behind_rows: u64,
    /// Rows that it took since the start.
    pub sent_rows: u64,
    /// Batches that it did not take since the start.
    pub failed_batches: u64,
    /// Whether it took the last batch.
    pub up: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        Self {
            known: KnownTargets::default(),
            requests: Family::default(),
            decisions: Family::default(),
            failed_legs: Family::default(),
            retries: Counter::default(),
            continuations: Counter::default(),
            tokens: Family::default(),
            identifiers: Family::default(),
            denied: Family::default(),
            ttft: Family::new_with_constructor(|| Histogram::new(TTFT_SECONDS)),
            tpot: Family::new_with_constructor(|| Histogram::new(TPOT_SECONDS)),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_SECONDS)),
        }
    }

    /// Counts a decision, also one that was only asked for and not run.
    pub fn decided(&self, verdict: Verdict) {
        let labels = match verdict {
            Verdict::Go(reason) => DecisionLabels {
                verdict: "go",
                reason: reason.as_str(),
            },
            Verdict::Refuse(refusal) => DecisionLabels {
                verdict: "refuse",
                reason: refusal.as_str(),
            },
        };
        self.decisions.get_or_create(&labels).inc();
    }

    /// Counts a leg that gave no whole answer, whether or not another leg did.
    pub fn leg_failed(&self, target: &TargetId, kind: FailureKind) {
        let target = self.known.label(&target.to_string());
        let kind = kind.as_str();
        self.failed_legs
            .get_or_create(&FailureLabels { target, kind })
            .inc();
    }

    /// Counts a leg that is tried once more.
    pub fn retried(&self) {
        self.retries.inc();
    }

    /// Counts an answer that broke off and goes on at another leg.
    pub fn continued(&self) {
        self.continuations.inc();
    }

    /// Counts a request that nobody was let in with, by a word for why.
    pub fn denied(&self, why: &'static str) {
        self.denied.get_or_create(&DeniedLabels { why }).inc();
    }

    /// Counts identifiers that the guard found in a request, and what is done
    /// about them; writes them to the log. Neither knows more than their kind.
    pub fn identified(&self, kind: &'static str, action: &'static str, count: u32) {
        tracing::info!(kind, action, count, "identifiers in a request");
        let labels = GuardLabels { kind, action };
        self.identifiers
            .get_or_create(&labels)
            .inc_by(u64::from(count));
    }

    /// Counts a settled request and writes its line to the log: the one place
    /// where both happen.
    pub fn request_ended(&self, row: &Row) {
        super::log::request_line(row);
        let target = self.known.label(&row.target);
        self.requests
            .get_or_create(&RequestLabels {
                endpoint: word(&row.endpoint, &ENDPOINTS),
                target: target.clone(),
                zone: word(&row.zone, &ZONES),
                outcome: word(&row.outcome, &OUTCOMES),
            })
            .inc();
        if target.is_empty() {
            return;
        }
        self.count_tokens(&target, row);
        if row.attempts == 0 {
            // A kept answer's times say nothing of its target.
            return;
        }
        let labels = TargetLabels { target };
        self.duration
            .get_or_create(&labels)
            .observe(row.duration_ms / 1e3);
        if let Some(ttft_ms) = row.ttft_ms {
            self.ttft.get_or_create(&labels).observe(ttft_ms / 1e3);
        }
        if let Some(tpot) = tpot_seconds(row) {
            self.tpot.get_or_create(&labels).observe(tpot);
        }
    }

    fn count_tokens(&self, target: &str, row: &Row) {
        let counts = [
            ("prompt", row.prompt_tokens),
            ("cached_prompt", row.cached_prompt_tokens),
            ("completion", row.completion_tokens),
            ("reasoning", row.reasoning_tokens),
        ];
        for (kind, count) in counts {
            let Some(count) = count else { continue };
            self.tokens
                .get_or_create(&TokenLabels {
                    target: target.to_owned(),
                    kind,
                })
                .inc_by(count);
        }
    }

    /// All series as OpenMetrics text, which Prometheus reads.
    pub fn render(&self, gauges: &Gauges) -> String {
        let mut registry = Registry::with_prefix("nearfar");
        let up = |up: bool| ConstGauge::new(i64::from(up));
        registry.register("requests", "Requests by outcome", self.requests.clone());
        registry.register("decisions", "Decisions by reason", self.decisions.clone());
        registry.register(
            "failed_legs",
            "Attempts that gave no whole answer",
            self.failed_legs.clone(),
        );
        registry.register(
            "retries",
            "Legs that were tried once more",
            self.retries.clone(),
        );
        registry.register(
            "continuations",
            "Answers that broke off and went on at another leg",
            self.continuations.clone(),
        );
        registry.register(
            "guard_identifiers",
            "Identifiers found in requests",
            self.identifiers.clone(),
        );
        registry.register(
            "denied_requests",
            "Requests without a key that is good here",
            self.denied.clone(),
        );
        registry.register("tokens", "Tokens, as targets told", self.tokens.clone());
        registry.register("ttft_seconds", "Time to first token", self.ttft.clone());
        registry.register("tpot_seconds", "Time per output token", self.tpot.clone());
        registry.register(
            "request_duration_seconds",
            "Whole requests",
            self.duration.clone(),
        );
        registry.register(
            "requests_in_flight",
            "Requests under way",
            ConstGauge::new(i64::try_from(gauges.in_flight).unwrap_or(i64::MAX)),
        );
        registry.register(
            "ledger_dropped_rows",
            "Rows that the ledger had to drop",
            ConstCounter::new(gauges.dropped_rows),
        );
        if let Some(sharing) = gauges.sharing {
            register_sharing(&mut registry, sharing);
        }
        if let Some(export) = gauges.export {
            register_export(&mut registry, export);
        }
        registry.register(
            "engine_queue",
            "Jobs that wait in the engine",
            ConstGauge::new(i64::from(gauges.engine_queued)),
        );
        registry.register(
            "engine_running",
            "Jobs that the engine answers now",
            ConstGauge::new(i64::from(gauges.engine_running)),
        );
        register_drafts(&mut registry, &gauges.drafts);
        registry.register("engine_up", "Whether the engine runs", up(gauges.engine_up));
        super::limits::register(&mut registry, &gauges.limits);
        registry.register("egress_up", "Whether egress runs", up(gauges.egress_up));
        if let Some(cache) = &gauges.cache {
            cache.register(&mut registry);
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }
}

/// Left out where no model has a draft.
fn register_drafts(registry: &mut Registry, drafts: &[(String, DraftLoad)]) {
    type PerTarget = Family<TargetLabels, Gauge<f64, AtomicU64>>;
    if drafts.is_empty() {
        return;
    }
    let (acceptance, gain) = (PerTarget::default(), PerTarget::default());
    for (target, draft) in drafts {
        let labels = TargetLabels {
            target: target.clone(),
        };
        for (family, value) in [(&acceptance, draft.acceptance), (&gain, draft.gain)] {
            if let Some(value) = value {
                family.get_or_create(&labels).set(value);
            }
        }
    }
    registry.register(
        "draft_acceptance_ratio",
        "Share of a draft model's proposals that the model chose, of late",
        acceptance,
    );
    registry.register(
        "draft_gain_ratio",
        "Speed with a draft model over speed without; 1 where it does not pay",
        gain,
    );
}

impl CacheGauges {
    fn register(&self, registry: &mut Registry) {
        for (name, help, count) in [
            ("cache_hits", "Answers from the cache", self.hits),
            (
                "cache_semantic_hits",
                "Answers from the cache to questions that mean the same",
                self.semantic_hits,
            ),
            ("cache_misses", "Answers that were not kept", self.misses),
            ("cache_bypassed", "Requests not looked for", self.bypassed),
            ("cache_evicted", "Answers that made room", self.evicted),
            (
                "cache_saved_micro",
                "What served answers had cost, in micro-units",
                self.saved_micro,
            ),
        ] {
            registry.register(name, help, ConstCounter::new(count));
        }
        for (name, help, value) in [
            ("cache_entries", "Answers that are kept", self.entries),
            ("cache_bytes", "Bytes of kept answers", self.bytes),
        ] {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            registry.register(name, help, ConstGauge::new(value));
        }
    }
}

fn register_sharing(registry: &mut Registry, sharing: SharingGauges) {
    registry.register(
        "shared_limits_up",
        "Whether limits are counted together with other daemons",
        ConstGauge::new(i64::from(sharing.up)),
    );
    registry.register(
        "shared_limits_alone",
        "Claims that were decided without the server",
        ConstCounter::new(sharing.alone),
    );
    registry.register(
        "shared_limits_outages",
        "How often the server went away",
        ConstCounter::new(sharing.outages),
    );
}

fn register_export(registry: &mut Registry, export: ExportGauges) {
    registry.register(
        "ledger_export_behind_rows",
        "Rows that the fleet's ledger does not have yet",
        ConstGauge::new(i64::try_from(export.behind_rows).unwrap_or(i64::MAX)),
    );
    registry.register(
        "ledger_exported_rows",
        "Rows that the fleet's ledger took",
        ConstCounter::new(export.sent_rows),
    );
    registry.register(
        "ledger_export_failed_batches",
        "Batches of rows that the fleet's ledger did not take",
        ConstCounter::new(export.failed_batches),
    );
    registry.register(
        "ledger_export_up",
        "Whether the fleet's ledger took the last batch",
        ConstGauge::new(i64::from(export.up)),
    );
}

/// Time per output token after the first, where both are known.
fn tpot_seconds(row: &Row) -> Option<f64> {
    let further = row.completion_tokens?.checked_sub(1).filter(|n| *n > 0)?;
    let decode_ms = row.duration_ms - row.ttft_ms?;
    // A cut answer's usage does not belong to its time.
    (row.outcome == "ok" && decode_ms >= 0.0).then(|| decode_ms / 1e3 / further as f64)
}

/// Draws the ids that replies carry as `x-request-id`: unique in this process
/// and, with the start's random part, in practice beyond it.
#[derive(Debug)]
pub(crate) struct RequestIds {
    start: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        let start = getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()));
        Self {
            start,
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn draw(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("req_{:016x}{number:08x}", self.start)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nearfar_domain::explain::{Reason, Refusal};

    fn row() -> Row {
        Row {
            time_ms: 1,
            decision: "dec_1".into(),
            tenant: "default".into(),
            key: String::new(),
            feature: String::new(),
            prompt_version: String::new(),
            conversation: String::new(),
            endpoint: "openai.chat".into(),
            model: "secret-model-that-a-client-made-up".into(),
            target: "local/concierge".into(),
            zone: "device".into(),
            ceiling: "cloud".into(),
            ceiling_source: "default".into(),
            reason: "near".into(),
            outcome: "ok".into(),
            failure: String::new(),
            attempts: 1,
            prompt_tokens: Some(40),
            cached_prompt_tokens: Some(30),
            completion_tokens: Some(11),
            reasoning_tokens: None,
            cost_micro: Some(0),
            saved_micro: None,
            cache_written_tokens: None,
            failed_cost_micro: None,
            baseline: String::new(),
            saved_local_micro: None,
            ttft_ms: Some(40.0),
            duration_ms: 140.0,
            stream: true,
            failed_legs: Vec::new(),
        }
    }

    #[test]
    fn a_settled_request_shows_in_every_series() {
        let metrics = Metrics::new();
        metrics.decided(Verdict::Go(Reason::Near));
        metrics.decided(Verdict::Refuse(Refusal::Privacy));
        metrics.leg_failed(&TargetId::local("concierge"), FailureKind::Crashed);
        metrics.request_ended(&row());
        let text = metrics.render(&Gauges {
            dropped_rows: 3,
            in_flight: 1,
            engine_queued: 2,
            ..Gauges::default()
        });
        for line in [
            "nearfar_requests_total{endpoint=\"openai.chat\",target=\"local/concierge\",\
             zone=\"device\",outcome=\"ok\"} 1",
            "nearfar_decisions_total{verdict=\"go\",reason=\"near\"} 1",
            "nearfar_decisions_total{verdict=\"refuse\",reason=\"privacy\"} 1",
            "nearfar_failed_legs_total{target=\"local/concierge\",kind=\"crashed\"} 1",
            "nearfar_tokens_total{target=\"local/concierge\",kind=\"prompt\"} 40",
            "nearfar_tokens_total{target=\"local/concierge\",kind=\"completion\"} 11",
            "nearfar_ttft_seconds_bucket{le=\"0.05\",target=\"local/concierge\"} 1",
            "nearfar_tpot_seconds_bucket{le=\"0.005\",target=\"local/concierge\"} 0",
            "nearfar_tpot_seconds_bucket{le=\"0.01\",target=\"local/concierge\"} 1",
            "nearfar_request_duration_seconds_count{target=\"local/concierge\"} 1",
            "nearfar_requests_in_flight 1",
            "nearfar_ledger_dropped_rows_total 3",
            "nearfar_engine_queue 2",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "missing {line} in:\n{text}"
            );
        }
        assert!(!text.contains("secret"), "the model asked for is no label");
    }

    #[test]
    fn a_refused_request_has_no_target() {
        let metrics = Metrics::new();
        metrics.request_ended(&Row {
            target: String::new(),
            zone: String::new(),
            outcome: "refused".into(),
            reason: "privacy".into(),
            endpoint: "made-up".into(),
            ttft_ms: None,
            ..row()
        });
        let text = metrics.render(&Gauges::default());
        let line = "nearfar_requests_total{endpoint=\"other\",target=\"\",zone=\"\",\
                    outcome=\"refused\"} 1";
        assert!(text.lines().any(|l| l == line), "{text}");
    }

    #[test]
    fn ids_differ() {
        let ids = RequestIds::new();
        assert_ne!(ids.draw(), ids.draw());
    }
}
