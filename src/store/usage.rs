//! What was used: sums over the ledger, grouped by what the asker names.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rusqlite::{Connection, params_from_iter};
use serde::{Deserialize, Serialize};

/// The most lines that one query returns.
pub const MAX_LINES: usize = 10_000;

/// What usage can be grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The day, in UTC: `2026-01-31`.
    Day,
    /// Who pays.
    Tenant,
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
    "usage cannot be grouped by {0:?}; name some of day, tenant, feature, endpoint, model, target, zone, reason, outcome, separated by commas"
)]
pub struct UnknownDimension(String);

impl Dimension {
    /// All of them, in the order of [`UsageLine::group`].
    pub const ALL: [Dimension; 9] = [
        Dimension::Day,
        Dimension::Tenant,
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
    /// Of these, from a cache.
    pub cached_prompt_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// Of these, reasoning.
    pub reasoning_tokens: u64,
    /// Known cost in micro-units.
    pub cost_micro: u64,
    /// Requests whose cost is not known and not in `cost_micro`.
    pub cost_unknown: u64,
    /// Median time to the first visible event, in milliseconds, over requests that had one.
    pub ttft_p50_ms: Option<f64>,
    /// 95th percentile of the same (nearest rank).
    pub ttft_p95_ms: Option<f64>,
    /// Mean time to the end, in milliseconds.
    pub mean_duration_ms: f64,
}

pub(super) fn usage(
    connection: &Connection,
    query: &UsageQuery,
) -> rusqlite::Result<Vec<UsageLine>> {
    // The columns are from a closed list; values go in as parameters.
    let keys: String = query
        .by
        .iter()
        .map(|by| format!(", {} AS k_{by}", by.expression()))
        .collect();
    let names: String = query.by.iter().map(|by| format!(", k_{by}")).collect();
    let grouped = match query.by.is_empty() {
        true => String::new(),
        false => format!("GROUP BY {}", &names[2..]),
    };
    let partition = match query.by.is_empty() {
        true => String::new(),
        false => format!("PARTITION BY {}", &names[2..]),
    };
    let (filter, bounds) = window(query);
    let sql = format!(
        "SELECT count(*), sum(outcome = 'ok'), sum(outcome = 'failed'), sum(outcome = 'refused'),
            sum(outcome = 'cancelled'), sum(prompt_tokens), sum(cached_prompt_tokens),
            sum(completion_tokens), sum(reasoning_tokens), sum(cost_micro),
            sum(cost_micro IS NULL), avg(duration_ms),
            max(CASE WHEN rank = (with_ttft * 50 + 99) / 100 THEN ttft_ms END),
            max(CASE WHEN rank = (with_ttft * 95 + 99) / 100 THEN ttft_ms END) {names}
         FROM (
            SELECT *, count(ttft_ms) OVER ({partition}) AS with_ttft,
                row_number() OVER ({partition} ORDER BY ttft_ms NULLS LAST) AS rank
            FROM (SELECT outcome, prompt_tokens, cached_prompt_tokens, completion_tokens,
                reasoning_tokens, cost_micro, ttft_ms, duration_ms {keys}
                FROM requests {filter})
         ) {grouped}
         ORDER BY 1 DESC {names} LIMIT {MAX_LINES}"
    );
    let mut statement = connection.prepare(&sql)?;
    let lines = statement.query_map(params_from_iter(bounds), |row| {
        // Sums over no rows are NULL; counts are never negative.
        let sum = |column: usize| -> rusqlite::Result<u64> {
            let value: Option<i64> = row.get(column)?;
            Ok(u64::try_from(value.unwrap_or(0)).unwrap_or(0))
        };
        let mut group = BTreeMap::new();
        for (place, by) in query.by.iter().enumerate() {
            let value: Option<String> = row.get(14 + place)?;
            group.insert(*by, value.unwrap_or_default());
        }
        Ok(UsageLine {
            group,
            requests: sum(0)?,
            ok: sum(1)?,
            failed: sum(2)?,
            refused: sum(3)?,
            cancelled: sum(4)?,
            prompt_tokens: sum(5)?,
            cached_prompt_tokens: sum(6)?,
            completion_tokens: sum(7)?,
            reasoning_tokens: sum(8)?,
            cost_micro: sum(9)?,
            cost_unknown: sum(10)?,
            mean_duration_ms: row.get::<_, Option<f64>>(11)?.unwrap_or(0.0),
            ttft_p50_ms: row.get(12)?,
            ttft_p95_ms: row.get(13)?,
        })
    })?;
    let mut lines: Vec<UsageLine> = lines.collect::<rusqlite::Result<_>>()?;
    // Without grouping SQL gives one line even over no rows.
    lines.retain(|line| line.requests > 0);
    Ok(lines)
}

fn window(query: &UsageQuery) -> (&'static str, Vec<i64>) {
    match (query.since_ms, query.until_ms) {
        (None, None) => ("", vec![]),
        (Some(since), None) => ("WHERE time_ms >= ?1", vec![since]),
        (None, Some(until)) => ("WHERE time_ms < ?1", vec![until]),
        (Some(since), Some(until)) => ("WHERE time_ms >= ?1 AND time_ms < ?2", vec![since, until]),
    }
}
