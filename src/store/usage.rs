//! What was used: sums over the ledger, grouped by what the asker names.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write};
use std::str::FromStr;

use rusqlite::{Connection, params_from_iter};
use serde::{Deserialize, Serialize};

/// The most lines that one query returns.
pub const MAX_LINES: usize = 10_000;

/// The most reference targets that a line names.
pub const MAX_BASELINES: usize = 8;

/// The most groups that one query may have. Some dimensions are what clients wrote.
pub const MAX_GROUPS: usize = 100_000;

/// What usage can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The day, in UTC: `2026-01-31`.
    Day,
    /// Who pays.
    Tenant,
    /// The key's id; empty without one.
    Key,
    /// What for; empty where the request did not say.
    Feature,
    /// `openai.chat`, …
    Endpoint,
    /// The model as asked for.
    Model,
    /// Who answered; empty where nobody did.
    Target,
    /// Where that was.
    Zone,
    /// Why this target, or why none.
    Reason,
    /// `ok`, `failed`, `refused`, `cancelled`.
    Outcome,
}

/// A name that is no [`Dimension`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "usage cannot be grouped by {0:?}; name some of day, tenant, key, feature, endpoint, model, target, zone, reason, outcome, separated by commas"
)]
pub struct UnknownDimension(String);

impl Dimension {
    /// All of them, in the order of [`UsageLine::group`].
    pub const ALL: [Dimension; 10] = [
        Dimension::Day,
        Dimension::Tenant,
        Dimension::Key,
        Dimension::Feature,
        Dimension::Endpoint,
        Dimension::Model,
        Dimension::Target,
        Dimension::Zone,
        Dimension::Reason,
        Dimension::Outcome,
    ];

    /// Its name on the command line, in URLs and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Dimension::Day => "day",
            Dimension::Tenant => "tenant",
            Dimension::Key => "key",
            Dimension::Feature => "feature",
            Dimension::Endpoint => "endpoint",
            Dimension::Model => "model",
            Dimension::Target => "target",
            Dimension::Zone => "zone",
            Dimension::Reason => "reason",
            Dimension::Outcome => "outcome",
        }
    }

    /// Reads `target,feature`. Blanks around names and repeated names are fine;
    /// the empty text is no grouping.
    ///
    /// # Errors
    /// A name is not known.
    pub fn list(text: &str) -> Result<Vec<Dimension>, UnknownDimension> {
        let mut all = Vec::new();
        for name in text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            let dimension = name.parse()?;
            if !all.contains(&dimension) {
                all.push(dimension);
            }
        }
        Ok(all)
    }

    fn expression(self) -> &'static str {
        match self {
            Dimension::Day => "strftime('%Y-%m-%d', time_ms / 1000, 'unixepoch')",
            other => other.as_str(),
        }
    }
}

impl FromStr for Dimension {
    type Err = UnknownDimension;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Dimension::ALL
            .into_iter()
            .find(|dimension| dimension.as_str() == name)
            .ok_or_else(|| UnknownDimension(name.chars().take(64).collect()))
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A question to the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UsageQuery {
    /// One line for each combination of these; none gives one line for all.
    pub by: Vec<Dimension>,
    /// Requests that came at or after this, in milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Requests that came before this.
    pub until_ms: Option<i64>,
}

/// Sums over a group of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UsageLine {
    /// What the group has in common: one entry per dimension asked for.
    pub group: BTreeMap<Dimension, String>,
    /// Requests.
    pub requests: u64,
    /// Of these, answered whole.
    pub ok: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Of these, refused because no allowed target could answer.
    pub refused: u64,
    /// Of these, cancelled by the client.
    pub cancelled: u64,
    /// Prompt tokens, as far as they are known.
    pub prompt_tokens: u64,
    /// Of these, from a provider's or the engine's cache.
    pub cached_prompt_tokens: u64,
    /// Of these, written to a provider's cache.
    pub cache_written_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// Of these, reasoning.
    pub reasoning_tokens: u64,
    /// Known cost in micro-units.
    pub cost_micro: u64,
    /// Requests whose cost is not known and not in `cost_micro`.
    pub cost_unknown: u64,
    /// Of the known cost, that of legs that gave no whole answer.
    pub failed_cost_micro: u64,
    /// Answers that this device's models gave.
    pub local: u64,
    /// What these would have cost at the reference targets, as far as that is known.
    pub saved_local_micro: u64,
    /// Answers of this device's of which nobody knows what they would have cost.
    pub saved_local_unknown: u64,
    /// The targets that this was reckoned by, at most [`MAX_BASELINES`].
    pub baselines: BTreeSet<String>,
    /// Answers that came from the cache of answers.
    pub from_cache: u64,
    /// What these had cost when they were new, as far as that is known.
    pub saved_cache_micro: u64,
    /// Median time to the first visible event, in milliseconds, over requests that had one.
    pub ttft_p50_ms: Option<f64>,
    /// 95th percentile of the same (nearest rank).
    pub ttft_p95_ms: Option<f64>,
    /// Mean time to the end, in milliseconds.
    pub mean_duration_ms: f64,
}

/// Sums over a group while rows go by.
#[derive(Default)]
struct Sums {
    group: Vec<String>,
    requests: u64,
    ok: u64,
    failed: u64,
    refused: u64,
    cancelled: u64,
    tokens: [u64; 5],
    cost_micro: u64,
    cost_unknown: u64,
    failed_cost_micro: u64,
    local: u64,
    saved_local_micro: u64,
    saved_local_unknown: u64,
    baselines: BTreeSet<String>,
    from_cache: u64,
    saved_cache_micro: u64,
    duration_ms: f64,
    ttfts: Vec<f32>,
}

/// Reads the rows once, in the order of the file. Grouping in SQL would sort
/// them all in memory, because the sandbox allows no temporary files; this
/// takes four bytes a row (for exact percentiles) and one entry a group.
pub(super) fn usage(
    connection: &Connection,
    query: &UsageQuery,
) -> Result<Vec<UsageLine>, Unanswered> {
    // The columns are from a closed list; values go in as parameters.
    let keys: String = query
        .by
        .iter()
        .map(|by| format!(", {}", by.expression()))
        .collect();
    let (filter, bounds) = window(query);
    let sql = format!(
        "SELECT outcome, prompt_tokens, cached_prompt_tokens, completion_tokens,
            reasoning_tokens, cache_written_tokens, cost_micro, duration_ms, ttft_ms, zone,
            reason, failed_cost_micro, baseline, saved_local_micro, saved_micro {keys}
         FROM requests {filter}"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(params_from_iter(bounds))?;
    let mut groups: HashMap<String, Sums> = HashMap::new();
    let mut key = String::new();
    while let Some(row) = rows.next()? {
        key.clear();
        for place in FIRST_KEY..FIRST_KEY + query.by.len() {
            // The length in front keeps ("a", "b") apart from ("ab", "").
            let part = text(row, place)?;
            let _ = write!(key, "{}:{part}", part.len());
        }
        if !groups.contains_key(&key) {
            if groups.len() == MAX_GROUPS {
                return Err(Unanswered::TooManyGroups);
            }
            let group = (FIRST_KEY..FIRST_KEY + query.by.len())
                .map(|place| text(row, place).map(str::to_owned))
                .collect::<rusqlite::Result<_>>()?;
            let sums = Sums {
                group,
                ..Sums::default()
            };
            groups.insert(key.clone(), sums);
        }
        if let Some(sums) = groups.get_mut(&key) {
            sums.add(row)?;
        }
    }
    let mut all: Vec<Sums> = groups.into_values().collect();
    all.sort_unstable_by(|a, b| b.requests.cmp(&a.requests).then(a.group.cmp(&b.group)));
    all.truncate(MAX_LINES);
    Ok(all.into_iter().map(|sums| sums.line(&query.by)).collect())
}

/// The place of the first grouping column.
const FIRST_KEY: usize = 15;

/// Why a question has no answer.
pub(super) enum Unanswered {
    Sqlite(rusqlite::Error),
    TooManyGroups,
}

impl From<rusqlite::Error> for Unanswered {
    fn from(error: rusqlite::Error) -> Self {
        Unanswered::Sqlite(error)
    }
}

impl Sums {
    fn add(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        self.requests += 1;
        let ok = text(row, 0)? == "ok";
        match text(row, 0)? {
            "ok" => self.ok += 1,
            "failed" => self.failed += 1,
            "refused" => self.refused += 1,
            "cancelled" => self.cancelled += 1,
            _ => {}
        }
        for (place, sum) in self.tokens.iter_mut().enumerate() {
            *sum = sum.saturating_add(count(row, 1 + place)?.unwrap_or(0));
        }
        match count(row, 6)? {
            Some(cost) => self.cost_micro = self.cost_micro.saturating_add(cost),
            None => self.cost_unknown += 1,
        }
        self.duration_ms += row.get::<_, f64>(7)?;
        if let Some(ttft) = row.get::<_, Option<f64>>(8)? {
            self.ttfts.push(ttft as f32);
        }
        let failed = count(row, 11)?.unwrap_or(0);
        self.failed_cost_micro = self.failed_cost_micro.saturating_add(failed);
        if ok {
            self.saved(row)?;
        }
        Ok(())
    }

    /// What an answer saved: one of the cache's nothing but the first one's cost,
    /// one of this device's nothing but the reference's.
    fn saved(&mut self, row: &rusqlite::Row<'_>) -> rusqlite::Result<()> {
        if matches!(text(row, 10)?, "cache" | "semantic_cache") {
            self.from_cache += 1;
            let saved = count(row, 14)?.unwrap_or(0);
            self.saved_cache_micro = self.saved_cache_micro.saturating_add(saved);
        } else if text(row, 9)? == "device" {
            self.local += 1;
            let Some(saved) = count(row, 13)? else {
                self.saved_local_unknown += 1;
                return Ok(());
            };
            self.saved_local_micro = self.saved_local_micro.saturating_add(saved);
            let baseline = text(row, 12)?;
            if self.baselines.len() < MAX_BASELINES && !self.baselines.contains(baseline) {
                self.baselines.insert(baseline.to_owned());
            }
        }
        Ok(())
    }

    fn line(mut self, by: &[Dimension]) -> UsageLine {
        let [
            prompt_tokens,
            cached_prompt_tokens,
            completion_tokens,
            reasoning_tokens,
            cache_written_tokens,
        ] = self.tokens;
        UsageLine {
            ttft_p50_ms: percentile(&mut self.ttfts, 50),
            ttft_p95_ms: percentile(&mut self.ttfts, 95),
            group: by.iter().copied().zip(self.group).collect(),
            requests: self.requests,
            ok: self.ok,
            failed: self.failed,
            refused: self.refused,
            cancelled: self.cancelled,
            prompt_tokens,
            cached_prompt_tokens,
            cache_written_tokens,
            completion_tokens,
            reasoning_tokens,
            cost_micro: self.cost_micro,
            cost_unknown: self.cost_unknown,
            failed_cost_micro: self.failed_cost_micro,
            local: self.local,
            saved_local_micro: self.saved_local_micro,
            saved_local_unknown: self.saved_local_unknown,
            baselines: self.baselines,
            from_cache: self.from_cache,
            saved_cache_micro: self.saved_cache_micro,
            mean_duration_ms: self.duration_ms / self.requests.max(1) as f64,
        }
    }
}

/// Nearest rank: the smallest value that at least `percent` of all are not above.
fn percentile(values: &mut [f32], percent: usize) -> Option<f64> {
    let rank = (values.len() * percent).div_ceil(100).checked_sub(1)?;
    let (_, value, _) = values.select_nth_unstable_by(rank, f32::total_cmp);
    Some(f64::from(*value))
}

/// The ledger's texts are never NULL; one that is not UTF-8 is damage.
fn text<'row>(row: &'row rusqlite::Row<'_>, place: usize) -> rusqlite::Result<&'row str> {
    Ok(row.get_ref(place)?.as_str().unwrap_or_default())
}

fn count(row: &rusqlite::Row<'_>, place: usize) -> rusqlite::Result<Option<u64>> {
    let value: Option<i64> = row.get(place)?;
    Ok(value.map(|value| u64::try_from(value).unwrap_or(0)))
}

fn window(query: &UsageQuery) -> (&'static str, Vec<i64>) {
    match (query.since_ms, query.until_ms) {
        (None, None) => ("", vec![]),
        (Some(since), None) => ("WHERE time_ms >= ?1", vec![since]),
        (None, Some(until)) => ("WHERE time_ms < ?1", vec![until]),
        (Some(since), Some(until)) => ("WHERE time_ms >= ?1 AND time_ms < ?2", vec![since, until]),
    }
}
