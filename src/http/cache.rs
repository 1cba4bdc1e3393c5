//! The cache in the control API: what is kept, and forgetting it.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use super::api::Api;
use super::problem::Problem;
use super::query;
use super::reply::json as answer;
use crate::cache::{Cache, Share};

/// What is kept and what was counted: see [`stats_json`].
pub(super) async fn show(State(api): State<Arc<Api>>) -> Response {
    answer(StatusCode::OK, &stats_json(api.gate.cache()))
}

/// `?tenant=NAME` → `{"removed": 3}`; all without a tenant.
pub(super) async fn clear(
    State(api): State<Arc<Api>>,
    request: Request,
) -> Result<Response, Problem> {
    let mut tenant = None;
    for (name, value) in query::pairs(request.uri().query()) {
        if name != "tenant" {
            return Err(Problem::field(&name, "The only parameter is tenant."));
        }
        tenant = Some(value);
    }
    let removed = api.gate.cache().clear(tenant.as_deref());
    Ok(answer(StatusCode::OK, &json!({"removed": removed})))
}

/// Counts since the start, and what is kept now. No content, no hashes.
///
/// ```json
/// {"exact": true, "semantic": null, "ttl_s": 3600, "max_bytes": 8388608,
///  "max_entries": 4096, "confined": false, "non_deterministic": false,
///  "hits": 3, "semantic_hits": 0, "misses": 5, "bypassed": 1, "hit_rate": 0.375,
///  "stored": 5, "evicted": 0, "expired": 0, "entries": 5, "bytes": 4100,
///  "saved_micro": 1200,
///  "tenants": [{"tenant": "default", "entries": 5, "bytes": 4100}]}
/// ```
fn stats_json(cache: &Cache) -> Value {
    let (settings, now) = (cache.settings(), Instant::now());
    let stats = cache.stats(now);
    let served = stats.hits + stats.semantic_hits;
    let asked = served + stats.misses;
    let rate = (asked > 0).then(|| served as f64 / asked as f64);
    let semantic = settings.semantic.as_ref().map(|semantic| {
        json!({
            "model": semantic.model,
            "threshold": f64::from(semantic.threshold_permille) / 1e3,
            "features": semantic.features,
        })
    });
    let tenants: Vec<Value> = cache.shares(now).iter().map(share).collect();
    json!({
        "exact": settings.exact,
        "semantic": semantic,
        "ttl_s": settings.ttl.as_secs(),
        "max_bytes": settings.max_bytes,
        "max_entries": settings.max_entries,
        "confined": settings.confined,
        "non_deterministic": settings.non_deterministic,
        "hits": stats.hits,
        "semantic_hits": stats.semantic_hits,
        "misses": stats.misses,
        "bypassed": stats.bypassed,
        "hit_rate": rate,
        "stored": stats.stored,
        "evicted": stats.evicted,
        "expired": stats.expired,
        "entries": stats.entries,
        "bytes": stats.bytes,
        "saved_micro": stats.saved_micro,
        "tenants": tenants,
    })
}

fn share(share: &Share) -> Value {
    json!({"tenant": share.tenant, "entries": share.entries, "bytes": share.bytes})
}
