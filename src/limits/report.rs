//! What limits have counted, for people, for metrics and for the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nearfar_domain::calendar::date_time;
use nearfar_domain::limit::{Measure, Span};
use serde::Serialize;

use super::book::Kept;
use super::{Limits, rules, soft_figure};
use crate::config::limit::Limit;
use crate::store::LimitUse;

/// One limit's counter, as people and programs see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Standing {
    /// The limit's name.
    pub limit: String,
    /// What it applies to: `each tenant, target openai/*`.
    pub applies_to: String,
    /// What it counts.
    pub measure: Measure,
    /// Whose counter it is, by part: `{"tenant": "acme"}`. Empty where the
    /// limit has one counter.
    pub of: BTreeMap<&'static str, String>,
    /// How much is allowed.
    pub most: u64,
    /// How much is used.
    pub used: u64,
    /// The part of `used` that nobody told: the reserve of legs that broke off.
    pub estimated: u64,
    /// Held by what is under way.
    pub reserved: u64,
    /// What is left beside both.
    pub left: u64,
    /// From how much on requests are steered elsewhere.
    pub soft: Option<u64>,
    /// Until what is used now counts no more; for money and tokens of a day or
    /// month, until its end.
    pub resets_in_ms: u64,
    /// The same as a date with a time in UTC; `None` for what is only held.
    pub resets_at: Option<String>,
}

/// One limit, as metrics show it. Names of tenants and features are in none.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// The limit's name.
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

impl Limits {
    /// Every counter, limits in the order of the configuration; a limit that
    /// nobody has used yet has one line of nothing where it has one counter.
    pub fn standings(&self) -> Vec<Standing> {
        let (now, book) = (self.now(), self.book());
        let mut places: Vec<(usize, Arc<str>)> = book
            .places()
            .map(|(rule, subject)| (rule, Arc::clone(subject)))
            .collect();
        for (rule, limit) in self.limits.iter().enumerate() {
            let each = !rules::parts(limit, "").is_empty();
            if !each && !places.iter().any(|(other, _)| *other == rule) {
                places.push((rule, "".into()));
            }
        }
        places.sort();
        let standings = places.into_iter().map(|(rule, subject)| {
            let limit = &self.limits[rule];
            let figures = book.figures(rule, &subject, now);
            let resets_in_ms = book.resets_in_ms(rule, &subject, now);
            let resets_ms = i64::try_from(resets_in_ms).unwrap_or(i64::MAX);
            let at = now.unix_ms.saturating_add(resets_ms);
            let parts = rules::parts(limit, &subject);
            Standing {
                limit: limit.name.clone(),
                applies_to: limit.applies.describe(),
                measure: limit.measure,
                of: parts
                    .into_iter()
                    .map(|(part, name)| (part, name.to_owned()))
                    .collect(),
                most: limit.most,
                used: figures.used,
                estimated: figures.estimated,
                reserved: figures.reserved,
                left: limit.most.saturating_sub(figures.taken()),
                soft: limit
                    .soft_permille
                    .map(|share| soft_figure(limit.most, share)),
                resets_in_ms,
                resets_at: (limit.measure.span() != Span::Held).then(|| date_time(at)),
            }
        });
        standings.collect()
    }

    /// Every limit, for metrics.
    pub fn tallies(&self) -> Vec<Tally> {
        let (now, book) = (self.now(), self.book());
        let mut fullest = vec![0.0f64; self.limits.len()];
        for (rule, subject) in book.places() {
            let taken = book.figures(rule, subject, now).taken();
            let share = taken as f64 / (self.limits[rule].most.max(1)) as f64;
            fullest[rule] = fullest[rule].max(share);
        }
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let each = self.limits.iter().zip(&self.counts).zip(fullest);
        let tallies = each.map(|((limit, counts), fullest)| Tally {
            limit: limit.name.clone(),
            measure: limit.measure.as_str(),
            fullest,
            refused: count(&counts.refused),
            steered: count(&counts.steered),
            estimated: count(&counts.estimated),
        });
        tallies.collect()
    }

    /// Waits until a budget has changed.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The budgets that changed since this was last asked, for the disk.
    pub fn take_changes(&self) -> Vec<LimitUse> {
        let now = self.now();
        let kept = self.book().take_changes(now);
        let rows = kept.into_iter().map(|kept| {
            let limit = &self.limits[kept.rule];
            LimitUse {
                limit: limit.name.clone(),
                measure: limit.measure.as_str().to_owned(),
                subject: kept.subject.to_string(),
                start_ms: kept.start_ms,
                used: kept.used,
                estimated: kept.estimated,
            }
        });
        rows.collect()
    }

    /// What [`Limits::take_changes`] gave could not be kept: it comes again.
    pub fn keep_all(&self) {
        self.book().keep_all();
        self.changed.notify_one();
    }

    /// Takes up what the disk has kept. Rows of limits that there are no more
    /// are passed over.
    pub fn restore(&self, rows: &[LimitUse]) {
        let now = self.now();
        let mut book = self.book();
        for row in rows {
            let same =
                |limit: &Limit| limit.name == row.limit && limit.measure.as_str() == row.measure;
            let Some(rule) = self.limits.iter().position(same) else {
                continue;
            };
            let kept = Kept {
                rule,
                subject: row.subject.as_str().into(),
                start_ms: row.start_ms,
                used: row.used,
                estimated: row.estimated,
            };
            book.restore(&kept, now);
        }
    }
}
