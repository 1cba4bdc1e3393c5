//! Limits and budgets: how much may be used, by whom, of what.
//!
//! In reading order: `rules` says which limits apply and what a request
//! claims of each, [`book`] counts, `window` is the time that counts, `held`
//! is a reservation, `denied` why there is none. [`Limits`] puts a lock and a
//! clock around them.
//!
//! Everything is reserved before it is used: the worst case of a leg (its prompt
//! and the largest answer, at its target's price) is taken of every limit that
//! applies, of all or of none, under one lock. When the leg ends, what it really
//! took is settled. So however many requests come at once, a limit is passed
//! by no more than what one of them took beyond its reserve.
//!
//! What is not here: the decision, which keeps out or puts last the targets
//! that [`Limits::look`] marks, and the disk ([`crate::store`]).

pub mod book;
mod denied;
mod held;
mod report;
mod rules;
mod shared;
#[cfg(test)]
mod tests;
mod window;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nearfar_domain::explain::{Exclusion, Explanation, Outcome, Reason, Verdict};
use nearfar_domain::ids::TargetId;
use nearfar_domain::limit::{Soft, Span, Unit};
use nearfar_domain::route::Facts;
use nearfar_domain::snapshot::Snapshot;
use tokio::sync::Notify;

use crate::config::limit::Limit;
use book::{Book, Claim, Figures, Shortfall};
use rules::{NoPrice, claim_of_leg, claims_of_request};
use shared::{Shared, Together};

pub use denied::{Denied, Quota};
pub use held::Reservation;
pub use report::{Standing, Tally};
pub use rules::{Wanted, Who};
pub use shared::{Ask, Sharing};
pub use window::Moment;

/// All limits, for the life of the process.
#[derive(Debug)]
pub struct Limits {
    limits: Arc<[Limit]>,
    book: Mutex<Book>,
    /// Where these limits are shared with other daemons.
    shared: OnceLock<Shared>,
    counts: Vec<Counts>,
    /// Told when a budget changed.
    changed: Notify,
    started: Instant,
    /// Tokens of an answer whose request sets no bound.
    answer_tokens: u32,
}

/// What a limit did, since the start.
#[derive(Debug, Default)]
struct Counts {
    refused: AtomicU64,
    steered: AtomicU64,
    estimated: AtomicU64,
}

impl Limits {
    /// Nothing used yet. `answer_tokens` bounds answers whose requests do not,
    /// where a limit counts them.
    pub fn new(limits: Vec<Limit>, answer_tokens: u32) -> Arc<Self> {
        let limits: Arc<[Limit]> = limits.into();
        Arc::new(Self {
            book: Mutex::new(Book::new(Arc::clone(&limits))),
            shared: OnceLock::new(),
            counts: limits.iter().map(|_| Counts::default()).collect(),
            changed: Notify::new(),
            started: Instant::now(),
            answer_tokens,
            limits,
        })
    }

    /// Whether there are none, so that nothing is to be asked.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    /// Now, on both clocks.
    pub fn now(&self) -> Moment {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_ms = since_1970.map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(0));
        Moment {
            unix_ms,
            ticks_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// The bound that an answer gets whose request sets none; `None` where no
    /// limit counts what this one takes.
    pub fn answer_bound(&self, who: &Who) -> Option<u32> {
        rules::counts_answers(&self.limits, who).then_some(self.answer_tokens)
    }

    /// Lets a request in, before it is decided: its place among requests of a
    /// minute and at a time. Async, because a server that is shared with other
    /// daemons may have to be asked.
    ///
    /// # Errors
    /// The limit that it would pass.
    pub async fn enter(self: &Arc<Self>, who: &Who) -> Result<Reservation, Box<Denied>> {
        if self.is_empty() {
            return Ok(Reservation::default());
        }
        let claims = claims_of_request(&self.limits, who);
        let mut entered = self.take(claims, self.now()).await?;
        entered.begin();
        Ok(entered)
    }

    /// Marks the targets that a limit keeps from this request, and those whose
    /// limits are past their soft share. Returns the limit that keeps each of
    /// the former out.
    pub fn look(
        &self,
        who: &Who,
        facts: &Facts,
        snapshot: &mut Snapshot,
    ) -> Vec<(TargetId, Denied)> {
        let mut all = Vec::new();
        if self.is_empty() {
            return all;
        }
        let now = self.now();
        let book = self.book();
        for state in &mut snapshot.targets {
            let wanted = Wanted {
                target: &state.target.id,
                price: state.target.price,
                sizes: facts.sizes(state.target.capabilities.context_tokens),
            };
            for (rule, limit) in self.limits.iter().enumerate() {
                let denied = match claim_of_leg((rule, limit), who, &wanted) {
                    Ok(None) => {
                        // A limit of requests as a whole steers, too.
                        if let Some(soft) = self.soft_of_request(rule, who, &book, now) {
                            state.soft.get_or_insert(soft);
                        }
                        continue;
                    }
                    Ok(Some(claim)) => {
                        if self.is_past_soft(&claim, &book, now) {
                            state.soft.get_or_insert_with(|| soft(limit));
                        }
                        let shortfall = book.shortfall(&claim, now);
                        if let (Some(_), true, Some(shared)) =
                            (&shortfall, limit.shared, self.shared.get())
                        {
                            // What others hold may be old news.
                            shared.wanted(&claim);
                        }
                        shortfall.map(|why| self.denied(&claim, Some(why), &book, now))
                    }
                    Err(NoPrice) => {
                        let subject = rules::subject(limit, who, Some(wanted.target));
                        let claim = Claim {
                            rule,
                            subject: subject.unwrap_or_default(),
                            amount: 0,
                        };
                        Some(self.denied(&claim, None, &book, now))
                    }
                };
                let Some(denied) = denied else { continue };
                if state.barred.is_none() {
                    state.barred = Some(denied.barred());
                    all.push((state.target.id.clone(), denied));
                }
            }
        }
        all
    }

    /// Reserves the worst case of a leg of every limit that applies, of all or
    /// of none. Async, as [`Limits::enter`] is.
    ///
    /// # Errors
    /// The limit that it could pass.
    pub async fn reserve(
        self: &Arc<Self>,
        who: &Who,
        wanted: &Wanted<'_>,
    ) -> Result<Reservation, Box<Denied>> {
        if self.is_empty() {
            return Ok(Reservation::default());
        }
        let now = self.now();
        let mut claims = Vec::new();
        for (rule, limit) in self.limits.iter().enumerate() {
            match claim_of_leg((rule, limit), who, wanted) {
                Ok(claim) => claims.extend(claim),
                Err(NoPrice) => {
                    let claim = Claim {
                        rule,
                        subject: rules::subject(limit, who, Some(wanted.target))
                            .unwrap_or_default(),
                        amount: 0,
                    };
                    return Err(Box::new(self.denied(&claim, None, &self.book(), now)));
                }
            }
        }
        let reservation = self.take(claims, now).await?;
        Ok(reservation.of_leg(wanted.price, wanted.sizes))
    }

    /// What is left of the limits whose figures clients know how to read: the
    /// tightest of requests and the tightest of tokens, per minute.
    pub fn quotas(&self, who: &Who, target: &TargetId) -> Vec<Quota> {
        let mut quotas: Vec<Quota> = Vec::new();
        if self.is_empty() {
            return quotas;
        }
        let (now, book) = (self.now(), self.book());
        for (rule, limit) in self.limits.iter().enumerate() {
            if limit.measure.span() != Span::Minute {
                continue;
            }
            let Some(subject) = rules::subject(limit, who, Some(target)) else {
                continue;
            };
            let figures = book.figures(rule, &subject, now);
            let quota = Quota {
                unit: limit.measure.unit(),
                most: limit.most,
                left: limit.most.saturating_sub(figures.taken()),
                resets_in_ms: book.resets_in_ms(rule, &subject, now),
            };
            match quotas.iter_mut().find(|other| other.unit == quota.unit) {
                Some(other) if other.left <= quota.left => {}
                Some(other) => *other = quota,
                None => quotas.push(quota),
            }
        }
        quotas
    }

    /// Counts a refusal.
    pub fn refused(&self, denied: &Denied) {
        let same = |limit: &Limit| limit.name == denied.limit && limit.measure == denied.measure;
        if let Some(rule) = self.limits.iter().position(same) {
            self.counts[rule].refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a decision that limits changed.
    pub fn decided(&self, explanation: &Explanation) {
        if self.is_empty() || explanation.verdict != Verdict::Go(Reason::Limit) {
            return;
        }
        for (rule, limit) in self.limits.iter().enumerate() {
            let by_it = explanation.candidates.iter().any(|candidate| {
                let behind = candidate.behind.as_ref();
                let out = match &candidate.outcome {
                    Outcome::Excluded(Exclusion::OverLimit(barred)) => {
                        barred.limit == limit.name && barred.measure == limit.measure
                    }
                    _ => false,
                };
                out || behind.is_some_and(|soft| soft.limit == limit.name)
            });
            if by_it {
                self.counts[rule].steered.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Has these limits counted together with other daemons', which are asked
    /// for at most `wait`. Once, before the first request.
    pub fn share(&self, ask: Ask, wait: Duration) {
        // A second sharer would be a mistake of ours; the first one stays.
        let _ = self.shared.set(Shared::new(ask, wait));
    }

    /// Keeps the shared limits told, for ever; ends at once where there are none.
    pub async fn keep_shared(&self) {
        if let Some(shared) = self.shared.get() {
            shared.keep(self).await;
        }
    }

    /// How the sharing goes; `None` where nothing is shared.
    pub fn sharing(&self) -> Option<Sharing> {
        self.shared.get().map(Shared::sharing)
    }

    async fn take(
        self: &Arc<Self>,
        claims: Vec<Claim>,
        now: Moment,
    ) -> Result<Reservation, Box<Denied>> {
        if claims.is_empty() {
            return Ok(Reservation::default());
        }
        let Some(shared) = self.shared.get() else {
            return self.take_alone(claims, now, None);
        };
        let is_shared = |claim: &Claim| self.limits[claim.rule].shared;
        let (mut common, own): (Vec<Claim>, Vec<Claim>) = claims.into_iter().partition(is_shared);
        // Dropped on the way, it gives back what it holds.
        let mut taken = match own.is_empty() {
            true => Reservation::new(Arc::clone(self), Vec::new()),
            false => self.take_alone(own, now, None)?,
        };
        if common.is_empty() {
            return Ok(taken);
        }
        self.book().find_rooms(&mut common, now);
        match shared.reserve(self, &common).await {
            Together::Held(lane) => {
                self.book().take_up(&common, now);
                drop(lane);
                self.changed.notify_one();
                taken.join(Reservation::new(Arc::clone(self), common));
            }
            Together::Denied(place) => {
                let book = self.book();
                let why = book.shortfall(&common[place], now);
                let why = why.unwrap_or(Shortfall::Held);
                return Err(Box::new(self.denied(&common[place], Some(why), &book, now)));
            }
            Together::Alone => taken.join(self.take_alone(common, now, Some(shared))?),
        }
        Ok(taken)
    }

    fn take_alone(
        self: &Arc<Self>,
        mut claims: Vec<Claim>,
        now: Moment,
        shared: Option<&Shared>,
    ) -> Result<Reservation, Box<Denied>> {
        let mut book = self.book();
        match book.reserve(&mut claims, now) {
            Ok(()) => {
                if let Some(shared) = shared {
                    // Under the book's lock, as all that is told of it.
                    shared.took_alone(self, &claims);
                }
                drop(book);
                self.changed.notify_one();
                Ok(Reservation::new(Arc::clone(self), claims))
            }
            Err((place, why)) => {
                let denied = self.denied(&claims[place], Some(why), &book, now);
                Err(Box::new(denied))
            }
        }
    }

    /// Ends the hold of claims. `spent` says, by unit and by what was held, what
    /// was used and whether that is an estimate.
    fn settle(&self, claims: &[Claim], spent: impl Fn(Unit, u64) -> (u64, bool)) {
        let now = self.now();
        let mut book = self.book();
        for claim in claims {
            let (used, estimated) = spent(self.limits[claim.rule].measure.unit(), claim.amount);
            book.settle(claim, used, estimated, now);
            if let Some(shared) = self.shared.get().filter(|_| self.limits[claim.rule].shared) {
                shared.settled(self, claim, used);
            }
            if estimated && used > 0 {
                self.counts[claim.rule]
                    .estimated
                    .fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(book);
        self.changed.notify_one();
    }

    fn is_past_soft(&self, claim: &Claim, book: &Book, now: Moment) -> bool {
        let limit = &self.limits[claim.rule];
        let Some(share) = limit.soft_permille else {
            return false;
        };
        let taken = book.figures(claim.rule, &claim.subject, now).taken();
        claim.amount > 0 && taken.saturating_add(claim.amount) > soft_figure(limit.most, share)
    }

    fn soft_of_request(&self, rule: usize, who: &Who, book: &Book, now: Moment) -> Option<Soft> {
        let limit = &self.limits[rule];
        let share = limit
            .soft_permille
            .filter(|_| rules::is_of_request(limit))?;
        let subject = rules::subject(limit, who, None)?;
        let taken = book.figures(rule, &subject, now).taken();
        (taken > soft_figure(limit.most, share)).then(|| soft(limit))
    }

    fn denied(
        &self,
        claim: &Claim,
        shortfall: Option<Shortfall>,
        book: &Book,
        now: Moment,
    ) -> Denied {
        let limit = &self.limits[claim.rule];
        let figures: Figures = book.figures(claim.rule, &claim.subject, now);
        let parts = rules::parts(limit, &claim.subject);
        let of: Vec<String> = limit
            .applies
            .parts()
            .into_iter()
            .filter_map(|(part, which)| {
                which?;
                let own = parts.iter().find(|(name, _)| *name == part);
                Some(match (own, which) {
                    (Some((_, value)), _) => format!("{part} {value}"),
                    (None, Some(crate::config::limit::Which::Named(name))) => {
                        format!("{part} {name}")
                    }
                    (None, _) => format!("each {part}"),
                })
            })
            .collect();
        Denied {
            limit: limit.name.clone(),
            measure: limit.measure,
            of: if of.is_empty() {
                "everything".to_owned()
            } else {
                of.join(", ")
            },
            most: limit.most,
            figures,
            wanted: claim.amount,
            shortfall,
            at: now,
            resets_in_ms: book.resets_in_ms(claim.rule, &claim.subject, now),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn soft(limit: &Limit) -> Soft {
    Soft {
        limit: limit.name.clone(),
        of_target: limit.applies.target.is_some(),
    }
}

fn soft_figure(most: u64, permille: u16) -> u64 {
    let figure = u128::from(most) * u128::from(permille) / 1_000;
    u64::try_from(figure).unwrap_or(u64::MAX)
}
