//! Figures of budgets, so that they outlive a restart: one row per counter, the
//! newest figure alone. What it means, the limits know.

use rusqlite::{Connection, Transaction, params};

/// Largest figure kept.
const MOST: u64 = i64::MAX as u64;
/// Longer than any month, twice.
const FORGOTTEN_MS: i64 = 62 * 86_400_000;
/// Rows that are read at most; there are never more counters.
const MAX_ROWS: u32 = 8_192;

/// One counter's figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitUse {
    /// The limit's name in the configuration.
    pub limit: String,
    /// What it counts.
    pub measure: String,
    /// Whose counter it is; empty where the limit has one.
    pub subject: String,
    /// The first moment of its day or month, in milliseconds since 1970.
    pub start_ms: i64,
    /// Used since then, tokens or micro-units.
    pub used: u64,
    /// The part of `used` that is not known to be.
    pub estimated: u64,
}

/// Replaces what was kept of these counters.
pub(super) fn keep(transaction: &Transaction<'_>, figures: &[LimitUse]) -> rusqlite::Result<()> {
    let mut insert = transaction.prepare_cached(
        "INSERT OR REPLACE INTO limit_use (name, measure, subject, start_ms, used, estimated)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for one in figures {
        insert.execute(params![
            one.limit,
            one.measure,
            one.subject,
            one.start_ms,
            one.used.min(MOST) as i64,
            one.estimated.min(MOST) as i64,
        ])?;
    }
    // Of those that nobody used since the month before last nothing counts.
    if let Some(newest) = figures.iter().map(|one| one.start_ms).max() {
        transaction.execute(
            "DELETE FROM limit_use WHERE start_ms < ?1",
            [newest.saturating_sub(FORGOTTEN_MS)],
        )?;
    }
    Ok(())
}

/// All that is kept.
pub(super) fn all(connection: &Connection) -> rusqlite::Result<Vec<LimitUse>> {
    let mut select = connection.prepare(
        "SELECT name, measure, subject, start_ms, used, estimated FROM limit_use
         ORDER BY start_ms DESC LIMIT ?1",
    )?;
    let rows = select.query_map([MAX_ROWS], |row| {
        Ok(LimitUse {
            limit: row.get(0)?,
            measure: row.get(1)?,
            subject: row.get(2)?,
            start_ms: row.get(3)?,
            used: row.get::<_, i64>(4)?.max(0) as u64,
            estimated: row.get::<_, i64>(5)?.max(0) as u64,
        })
    })?;
    rows.collect()
}
