//! `POST /v1/route`: the decision without the answer; and how a decision is
//! shown as JSON wherever one is.

use nearfar_domain::explain::{Candidate, Explanation, Outcome, Verdict};
use serde_json::{Value, json};

/// A decision laid open. Metadata only.
///
/// ```json
/// {"decision": "dec_…",
///  "ceiling": {"zone": "cloud", "source": "default"},
///  "verdict": "go", "reason": "near",
///  "candidates": [
///    {"target": "local/concierge", "zone": "device",
///     "cost": {"likely_micro": 0, "most_micro": 0}, "outcome": "leg", "rank": 0,
///     "forecast": {"ttft_ms": 40.0, "total_ms": 900.0, "p_meets": 1.0,
///                  "cost_micro": 0, "most_cost_micro": 0, "score": 0.9}},
///    {"target": "openai/gpt", "zone": "cloud", "cost": null, "outcome": "excluded",
///     "exclusion": "beyond_ceiling", "why": "beyond the request's privacy ceiling"}]}
/// ```
///
/// A leg that a limit past its soft share put behind others has `behind` (the
/// limit) and `why`.
/// `verdict` is `go` or `refuse`. `cost` is what the answer will likely and at most
/// cost there, also where it will not come from; `null` is not known.
pub fn explanation_json(explanation: &Explanation) -> Value {
    let (verdict, reason) = match explanation.verdict {
        Verdict::Go(reason) => ("go", reason.as_str()),
        Verdict::Refuse(refusal) => ("refuse", refusal.as_str()),
    };
    json!({
        "decision": explanation.id.to_string(),
        "ceiling": explanation.ceiling,
        "verdict": verdict,
        "reason": reason,
        "candidates": explanation.candidates.iter().map(candidate).collect::<Vec<_>>(),
    })
}

fn candidate(candidate: &Candidate) -> Value {
    let mut shown = json!({
        "target": candidate.target.to_string(),
        "zone": candidate.zone,
        "cost": candidate.cost,
    });
    match &candidate.outcome {
        Outcome::Leg { rank, forecast } => {
            shown["outcome"] = json!("leg");
            shown["rank"] = json!(rank);
            shown["forecast"] = json!(forecast);
            if let Some(soft) = &candidate.behind {
                shown["behind"] = json!(soft);
                shown["why"] = json!(format!(
                    "behind others: limit `{}` is past its soft share",
                    soft.limit
                ));
            }
        }
        Outcome::Excluded(exclusion) => {
            shown["outcome"] = json!("excluded");
            shown["exclusion"] = json!(exclusion);
            shown["why"] = json!(exclusion.describe());
        }
    }
    shown
}
