//! The counting: a book of counters that is reserved from and settled with. No
//! clock and no lock: both are the caller's.
//!
//! A [`Claim`] is plain data, and a reservation is all of its claims or none, so
//! that a store shared by several daemons can keep the same book: it needs the
//! limit's name, the subject, the amount and the figure that is not to be passed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nearfar_domain::limit::{Measure, Span};

use super::window::{Calendar, Moment, Rolling, end, start};
use crate::config::limit::Limit;

/// Counters that are kept at most. Tags come from clients, and a counter of
/// their own each must not fill the memory; further ones share one.
const MAX_COUNTERS: usize = 4_096;
/// Whose counter is shared.
const OTHERS: &str = "(others)";

/// A part of a limit that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The limit's place in the configuration.
    pub rule: usize,
    /// Whose counter of it.
    pub subject: Arc<str>,
    /// How much: requests, tokens or micro-units.
    pub amount: u64,
}

/// Why a claim cannot be met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortfall {
    /// It is more than the limit allows at all.
    TooLarge,
    /// What was used leaves too little for it, for so many milliseconds.
    UsedUp {
        /// Until enough is free, if nothing more is used.
        for_ms: u64,
    },
    /// What is under way holds the rest.
    Held,
}

/// A counter's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Used, in the time that counts.
    pub used: u64,
    /// The part of `used` that nobody told and that was taken to be the reserve.
    pub estimated: u64,
    /// Held by what is under way.
    pub reserved: u64,
}

impl Figures {
    /// Used or held.
    pub fn taken(self) -> u64 {
        self.used.saturating_add(self.reserved)
    }
}

/// A budget's figure as it outlives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The limit's place in the configuration.
    pub rule: usize,
    /// Whose counter of it.
    pub subject: Arc<str>,
    /// The first moment of its day or month.
    pub start_ms: i64,
    /// Used or held: what is under way counts as used, should nobody be there
    /// to settle it.
    pub used: u64,
    /// The part of `used` that is not known to be.
    pub estimated: u64,
}

#[derive(Debug)]
enum Used {
    Minute(Rolling),
    Calendar(Calendar),
    Held,
}

#[derive(Debug)]
struct Counter {
    used: Used,
    reserved: u64,
}

/// A counter: its limit's place in the configuration, and whose it is.
pub(super) type Place = (usize, Arc<str>);

/// What other daemons have of a shared limit, as it was last told.
#[derive(Clone, Copy, Debug)]
struct Elsewhere {
    used: u64,
    held: u64,
    /// For the day or month that began then.
    start_ms: i64,
    heard_ms: u64,
}

/// After so long without a word, what others held or used of a minute is over.
const WORD_MS: u64 = 61_000;

/// All counters of all limits.
#[derive(Debug)]
pub struct Book {
    limits: Arc<[Limit]>,
    counters: HashMap<Place, Counter>,
    elsewhere: HashMap<Place, Elsewhere>,
    /// Budgets that changed since they were last asked for.
    changed: HashSet<Place>,
    /// When idle counters were last looked for.
    swept_ms: Option<u64>,
}

impl Book {
    /// Nothing used.
    pub fn new(limits: Arc<[Limit]>) -> Self {
        Self {
            limits,
            counters: HashMap::new(),
            elsewhere: HashMap::new(),
            changed: HashSet::new(),
            swept_ms: None,
        }
    }

    /// Takes all claims or none. Those of limits of requests per minute are
    /// used at once; the others are held until they are settled. Claims of
    /// strangers beyond what is kept are changed to those of the shared counter.
    ///
    /// # Errors
    /// The place of the first claim that cannot be met, and why.
    pub fn reserve(&mut self, claims: &mut [Claim], now: Moment) -> Result<(), (usize, Shortfall)> {
        for claim in claims.iter_mut() {
            self.find_room(claim, now);
        }
        for (place, claim) in claims.iter().enumerate() {
            if let Some(shortfall) = self.shortfall(claim, now) {
                return Err((place, shortfall));
            }
        }
        self.take_up(claims, now);
        Ok(())
    }

    /// Sends claims of strangers beyond what is kept to the shared counters.
    pub fn find_rooms(&mut self, claims: &mut [Claim], now: Moment) {
        for claim in claims {
            self.find_room(claim, now);
        }
    }

    /// Takes claims that somebody else said yes to.
    pub fn take_up(&mut self, claims: &[Claim], now: Moment) {
        for claim in claims {
            let measure = self.limits[claim.rule].measure;
            let counter = self.counter(claim, now);
            match &mut counter.used {
                Used::Minute(rolling) if measure == Measure::RequestsPerMinute => {
                    rolling.add(now.ticks_ms, claim.amount);
                }
                _ => counter.reserved = counter.reserved.saturating_add(claim.amount),
            }
            self.note(claim);
        }
    }

    /// Takes up what a shared counter has of all daemons. `unsent` is what of it
    /// is ours and not told yet: used, and no longer held.
    pub fn hear(&mut self, place: Place, all: (u64, u64), unsent: (u64, u64), now: Moment) {
        let own = self.own_figures(place.0, &place.1, now);
        let told_used = own.used.saturating_sub(unsent.0);
        let told_held = own.reserved.saturating_add(unsent.1);
        let elsewhere = Elsewhere {
            used: all.0.saturating_sub(told_used),
            held: all.1.saturating_sub(told_held),
            start_ms: start(self.limits[place.0].measure.span(), now.unix_ms),
            heard_ms: now.ticks_ms,
        };
        if self.counters.contains_key(&place) {
            self.elsewhere.insert(place, elsewhere);
        }
    }

    /// Ends the hold of a claim that [`Book::reserve`] took: `used` of it was
    /// used, which may be more than was held, and whether that is an estimate.
    pub fn settle(&mut self, claim: &Claim, used: u64, estimated: bool, now: Moment) {
        let measure = self.limits[claim.rule].measure;
        if measure == Measure::RequestsPerMinute {
            return;
        }
        let span = measure.span();
        let counter = self.counter(claim, now);
        counter.reserved = counter.reserved.saturating_sub(claim.amount);
        match &mut counter.used {
            Used::Minute(rolling) => rolling.add(now.ticks_ms, used),
            Used::Calendar(calendar) => {
                *calendar = calendar.at(span, now.unix_ms);
                calendar.used = calendar.used.saturating_add(used);
                if estimated {
                    calendar.estimated = calendar.estimated.saturating_add(used);
                }
            }
            Used::Held => {}
        }
        self.note(claim);
    }

    /// Why a claim could not be met now; `None` when it could.
    pub fn shortfall(&self, claim: &Claim, now: Moment) -> Option<Shortfall> {
        let limit = &self.limits[claim.rule];
        let figures = self.figures(claim.rule, &claim.subject, now);
        // What takes nothing of a limit is not kept out by it.
        if claim.amount == 0 || figures.taken().saturating_add(claim.amount) <= limit.most {
            return None;
        }
        if claim.amount > limit.most {
            return Some(Shortfall::TooLarge);
        }
        if figures.used.saturating_add(claim.amount) <= limit.most {
            return Some(Shortfall::Held);
        }
        let room = limit.most.saturating_sub(claim.amount);
        let for_ms = match self.get(claim.rule, &claim.subject).map(|c| &c.used) {
            Some(Used::Minute(rolling)) => rolling.until(now.ticks_ms, room),
            _ => until_end(limit.measure.span(), now),
        };
        Some(Shortfall::UsedUp { for_ms })
    }

    /// A counter's figures, with what other daemons have of it; zeros where there
    /// is none.
    pub fn figures(&self, rule: usize, subject: &Arc<str>, now: Moment) -> Figures {
        let mut figures = self.own_figures(rule, subject, now);
        if self.elsewhere.is_empty() {
            return figures;
        }
        let Some(elsewhere) = self.elsewhere.get(&(rule, Arc::clone(subject))) else {
            return figures;
        };
        let span = self.limits[rule].measure.span();
        let recent = now.ticks_ms.saturating_sub(elsewhere.heard_ms) < WORD_MS;
        if recent {
            figures.reserved = figures.reserved.saturating_add(elsewhere.held);
        }
        let counts = match span {
            Span::Minute | Span::Held => recent,
            Span::Day | Span::Month => elsewhere.start_ms == start(span, now.unix_ms),
        };
        if counts {
            figures.used = figures.used.saturating_add(elsewhere.used);
        }
        figures
    }

    /// A counter's figures of this daemon alone.
    pub fn own_figures(&self, rule: usize, subject: &Arc<str>, now: Moment) -> Figures {
        let Some(counter) = self.get(rule, subject) else {
            return Figures::default();
        };
        let (used, estimated) = match &counter.used {
            Used::Minute(rolling) => (rolling.used(now.ticks_ms), 0),
            Used::Calendar(calendar) => {
                let span = self.limits[rule].measure.span();
                let calendar = calendar.at(span, now.unix_ms);
                (calendar.used, calendar.estimated)
            }
            Used::Held => (0, 0),
        };
        Figures {
            used,
            estimated,
            reserved: counter.reserved,
        }
    }

    /// Milliseconds until what is used now counts no more.
    pub fn resets_in_ms(&self, rule: usize, subject: &Arc<str>, now: Moment) -> u64 {
        let span = self.limits[rule].measure.span();
        match self.get(rule, subject).map(|counter| &counter.used) {
            Some(Used::Minute(rolling)) => rolling.until(now.ticks_ms, 0),
            _ if span == Span::Day || span == Span::Month => until_end(span, now),
            _ => 0,
        }
    }

    /// Every counter: its limit and whose it is.
    pub fn places(&self) -> impl Iterator<Item = (usize, &Arc<str>)> {
        self.counters.keys().map(|(rule, subject)| (*rule, subject))
    }

    /// The budgets that changed since this was last asked.
    pub fn take_changes(&mut self, now: Moment) -> Vec<Kept> {
        let changed = std::mem::take(&mut self.changed);
        let kept = changed.into_iter().map(|(rule, subject)| {
            let figures = self.own_figures(rule, &subject, now);
            let span = self.limits[rule].measure.span();
            Kept {
                start_ms: start(span, now.unix_ms),
                used: figures.taken(),
                estimated: figures.estimated.saturating_add(figures.reserved),
                rule,
                subject,
            }
        });
        kept.collect()
    }

    /// All budgets are to be kept anew.
    pub fn keep_all(&mut self) {
        let all = self.counters.iter();
        let budgets = all.filter(|(_, counter)| matches!(counter.used, Used::Calendar(_)));
        self.changed.extend(budgets.map(|(place, _)| place.clone()));
    }

    /// Takes up what was kept. Days and months that are over count no more;
    /// those that are to come, for a clock that is behind, count now.
    pub fn restore(&mut self, kept: &Kept, now: Moment) {
        let span = self.limits[kept.rule].measure.span();
        let claim = Claim {
            rule: kept.rule,
            subject: Arc::clone(&kept.subject),
            amount: 0,
        };
        let known = Calendar {
            start_ms: kept.start_ms,
            used: kept.used,
            estimated: kept.estimated,
        };
        if self.counters.len() < MAX_COUNTERS
            && let Used::Calendar(calendar) = &mut self.counter(&claim, now).used
        {
            *calendar = known.at(span, now.unix_ms);
        }
    }

    fn get(&self, rule: usize, subject: &Arc<str>) -> Option<&Counter> {
        self.counters.get(&(rule, Arc::clone(subject)))
    }

    fn counter(&mut self, claim: &Claim, now: Moment) -> &mut Counter {
        let span = self.limits[claim.rule].measure.span();
        let place = (claim.rule, Arc::clone(&claim.subject));
        self.counters.entry(place).or_insert_with(|| Counter {
            used: match span {
                Span::Minute => Used::Minute(Rolling::new()),
                Span::Held => Used::Held,
                Span::Day | Span::Month => {
                    Used::Calendar(Calendar::default().at(span, now.unix_ms))
                }
            },
            reserved: 0,
        })
    }

    /// Sends a claim of somebody unknown to the shared counter when there are
    /// too many already.
    fn find_room(&mut self, claim: &mut Claim, now: Moment) {
        if self.counters.len() < MAX_COUNTERS || self.get(claim.rule, &claim.subject).is_some() {
            return;
        }
        let due = |swept: u64| now.ticks_ms.saturating_sub(swept) >= 1_000;
        if self.swept_ms.is_none_or(due) {
            self.swept_ms = Some(now.ticks_ms);
            self.sweep(now);
        }
        if self.counters.len() >= MAX_COUNTERS {
            claim.subject = OTHERS.into();
        }
    }

    /// Drops counters that count nothing.
    fn sweep(&mut self, now: Moment) {
        let idle: Vec<Place> = self
            .counters
            .keys()
            .filter(|(rule, subject)| self.figures(*rule, subject, now) == Figures::default())
            .cloned()
            .collect();
        for place in idle {
            self.counters.remove(&place);
            self.elsewhere.remove(&place);
        }
    }

    fn note(&mut self, claim: &Claim) {
        let span = self.limits[claim.rule].measure.span();
        if matches!(span, Span::Day | Span::Month) {
            self.changed
                .insert((claim.rule, Arc::clone(&claim.subject)));
        }
    }
}

fn until_end(span: Span, now: Moment) -> u64 {
    let left = end(span, now.unix_ms).saturating_sub(now.unix_ms);
    u64::try_from(left).unwrap_or(0).max(1)
}
