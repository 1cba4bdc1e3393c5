//! Limits that several daemons share: one book for all of them in a server, and
//! this daemon's own beside it for when the server is away.
//!
//! While it is there, the server decides: a claim is held there first, within a
//! bounded time, then in the own book. What was used is told to it by a task of
//! its own, in numbered changes, so that one that is sent twice counts once.
//! When it does not answer in time, this daemon goes on by its own book, which
//! knows what the others had used when it was last told. When it is back, `begin`
//! tells it all that is held here and what was used meanwhile; a server that lost
//! its data learns from that what had been used at least.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nearfar_domain::frames::{
    SharedCall, SharedEnd, SharedEntry, SharedFigures, SharedOp, SharedSpan,
};
use nearfar_domain::ids::JobId;
use nearfar_domain::limit::{Measure, Span};
use serde::Serialize;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};

use super::Limits;
use super::book::{Claim, Place};
use super::window::start;

/// Asks the server. Made by whoever has a link to it.
pub type Ask =
    Box<dyn Fn(SharedCall) -> Pin<Box<dyn Future<Output = SharedEnd> + Send>> + Send + Sync>;

/// Changes gather for so long before they are told.
const GATHER: Duration = Duration::from_millis(20);
/// Figures of others are asked for this often while requests come …
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// … and this often in any case: the server forgets a daemon that is silent.
const WORD_EVERY: Duration = Duration::from_secs(10);
/// A change or a beginning, in the background.
const PATIENCE: Duration = Duration::from_secs(3);
/// The first pause after a failure, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// How the sharing goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sharing {
    /// Whether the server decides.
    pub up: bool,
    /// Why not.
    pub error: Option<String>,
    /// Claims that this daemon decided alone, since the start.
    pub alone: u64,
    /// How often the server went away, since the start.
    pub outages: u64,
}

/// The shared side of [`Limits`].
pub(super) struct Shared {
    ask: Ask,
    /// How long a request waits for the server.
    wait: Duration,
    instance: String,
    /// Read while a claim is under way to the server; a beginning writes.
    lanes: RwLock<()>,
    inner: Mutex<Inner>,
    wake: Notify,
}

#[derive(Default)]
struct Inner {
    phase: Phase,
    told: Sharing,
    term: u64,
    change: u64,
    /// What the server does not know yet.
    pending: HashMap<Place, Change>,
    /// The change that is under way, or whose end is not known.
    sent: Option<HashMap<Place, Change>>,
    /// Every counter that the server told of.
    known: HashMap<Place, SharedFigures>,
    /// Counters that requests asked for since the others' figures were.
    asked: HashSet<Place>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// This daemon decides alone.
    #[default]
    Away,
    /// It does, and tells the server what it holds.
    Beginning,
    /// The server decides.
    Up,
}

#[derive(Clone, Copy, Debug, Default)]
struct Change {
    used: u64,
    taken: u64,
    given: u64,
}

/// What became of claims.
pub(super) enum Together<'a> {
    /// The server holds them; the lane is left once the own book does, too.
    Held(RwLockReadGuard<'a, ()>),
    /// The place of the first that it did not hold.
    Denied(usize),
    /// The own book decides.
    Alone,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(ask: Ask, wait: Duration) -> Self {
        let drawn = [getrandom::u64(), getrandom::u64()].map(|draw| draw.unwrap_or(0));
        Self {
            ask,
            wait,
            instance: format!("{:016x}{:016x}", drawn[0], drawn[1]),
            lanes: RwLock::new(()),
            inner: Mutex::default(),
            wake: Notify::new(),
        }
    }

    pub(super) fn sharing(&self) -> Sharing {
        let inner = self.inner();
        Sharing {
            up: inner.phase == Phase::Up,
            ..inner.told.clone()
        }
    }

    /// Asks for claims, for a bounded time.
    pub(super) async fn reserve(&self, limits: &Limits, claims: &[Claim]) -> Together<'_> {
        let Ok(lane) = self.lanes.try_read() else {
            return Together::Alone;
        };
        let call = {
            let mut inner = self.inner();
            if inner.phase != Phase::Up {
                return Together::Alone;
            }
            inner.asked.extend(claims.iter().map(place));
            let entries = claims.iter().map(|claim| SharedEntry {
                amount: claim.amount,
                ..entry(limits, &place(claim))
            });
            self.call(&inner, SharedOp::Reserve, entries.collect())
        };
        let mut unsure = Unsure(Some(self));
        let end = tokio::time::timeout(self.wait, (self.ask)(call)).await;
        unsure.0 = None;
        match end {
            Ok(SharedEnd::Done(figures)) => {
                self.hear(limits, claims.iter().map(place), &figures);
                Together::Held(lane)
            }
            Ok(SharedEnd::Denied { place: at, figures }) => {
                self.hear(limits, claims.iter().map(place), &figures);
                Together::Denied((at as usize).min(claims.len().saturating_sub(1)))
            }
            Ok(SharedEnd::Stale) => {
                self.lost("it had forgotten this daemon");
                Together::Alone
            }
            Ok(SharedEnd::Failed { message }) => {
                self.lost(&message);
                Together::Alone
            }
            Err(_) => {
                self.lost(&format!("no word within {} ms", self.wait.as_millis()));
                Together::Alone
            }
        }
    }

    /// Claims that the own book took alone.
    pub(super) fn took_alone(&self, limits: &Limits, claims: &[Claim]) {
        let mut inner = self.inner();
        inner.told.alone += 1;
        let beginning = inner.phase != Phase::Away;
        for claim in claims {
            let at_once = at_once(limits, claim.rule);
            let change = inner.pending.entry(place(claim)).or_default();
            if at_once {
                change.used = change.used.saturating_add(claim.amount);
            } else if beginning {
                // What is held in the book by now may not be in what was told.
                change.taken = change.taken.saturating_add(claim.amount);
            }
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// A claim has ended: so much of it was used.
    pub(super) fn settled(&self, limits: &Limits, claim: &Claim, used: u64) {
        if at_once(limits, claim.rule) {
            return;
        }
        let mut inner = self.inner();
        let away = inner.phase == Phase::Away;
        let change = inner.pending.entry(place(claim)).or_default();
        change.used = change.used.saturating_add(used);
        if !away {
            change.given = change.given.saturating_add(claim.amount);
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// A request was kept from this by the own book: the others' figures are to
    /// be asked for.
    pub(super) fn wanted(&self, claim: &Claim) {
        let mut inner = self.inner();
        if inner.phase == Phase::Up {
            inner.asked.insert(place(claim));
        }
    }

    /// Tells the server of everything, for ever.
    pub(super) async fn keep(&self, limits: &Limits) {
        let mut pause = PAUSES[0];
        let mut last_word = tokio::time::Instant::now();
        loop {
            if self.inner().phase != Phase::Up {
                if self.begin(limits).await {
                    pause = PAUSES[0];
                    last_word = tokio::time::Instant::now();
                } else {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES[1]);
                }
                continue;
            }
            tokio::select! {
                () = self.wake.notified() => tokio::time::sleep(GATHER).await,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let due = last_word.elapsed() >= WORD_EVERY;
            if self.tell(limits, due).await {
                last_word = tokio::time::Instant::now();
            }
        }
    }

    /// Tells what changed, and asks for the figures of counters that are wanted.
    async fn tell(&self, limits: &Limits, due: bool) -> bool {
        let (call, places) = {
            let mut inner = self.inner();
            let asked = std::mem::take(&mut inner.asked);
            if inner.phase != Phase::Up || (inner.pending.is_empty() && asked.is_empty() && !due) {
                return false;
            }
            let changes = std::mem::take(&mut inner.pending);
            inner.change += 1;
            let mut places: Vec<Place> = changes.keys().cloned().collect();
            places.extend(
                asked
                    .into_iter()
                    .filter(|place| !changes.contains_key(place)),
            );
            let entries = places.iter().map(|place| {
                let change = changes.get(place).copied().unwrap_or_default();
                SharedEntry {
                    // Has what dead daemons held looked for.
                    amount: 1,
                    used: change.used,
                    taken: change.taken,
                    given: change.given,
                    ..entry(limits, place)
                }
            });
            let call = self.call(&inner, SharedOp::Settle, entries.collect());
            inner.sent = Some(changes);
            (call, places)
        };
        match tokio::time::timeout(PATIENCE, (self.ask)(call)).await {
            Ok(SharedEnd::Done(figures)) => {
                self.inner().sent = None;
                self.hear(limits, places.into_iter(), &figures);
                true
            }
            Ok(SharedEnd::Failed { message }) => self.lost(&message),
            Ok(_) => self.lost("it had forgotten this daemon"),
            Err(_) => self.lost("no word"),
        }
    }

    /// Tells the server all that this daemon holds, and what it does not know to
    /// be used. Returns whether the server decides from now on.
    async fn begin(&self, limits: &Limits) -> bool {
        // Claims that are under way end within their bounded time.
        let _lanes = self.lanes.write().await;
        let (call, places) = {
            // The book first, as everywhere.
            let book = limits.book();
            let now = limits.now();
            let mut inner = self.inner();
            inner.phase = Phase::Beginning;
            inner.term += 1;
            if inner.sent.is_none() {
                inner.sent = Some(std::mem::take(&mut inner.pending));
                inner.change += 1;
            }
            for change in inner.pending.values_mut() {
                (change.taken, change.given) = (0, 0);
            }
            let shared = |rule: usize| limits.limits[rule].shared;
            let counters = book.places().filter(|(rule, _)| shared(*rule));
            let mut places: HashSet<Place> = counters
                .map(|(rule, subject)| (rule, Arc::clone(subject)))
                .collect();
            places.extend(inner.sent.iter().flat_map(HashMap::keys).cloned());
            places.extend(inner.known.keys().cloned());
            let places: Vec<Place> = places.into_iter().collect();
            let entries = places.iter().map(|place| {
                let mine = book.own_figures(place.0, &place.1, now);
                let start_ms = match limits.limits[place.0].measure.span() {
                    span @ (Span::Day | Span::Month) => start(span, now.unix_ms),
                    Span::Minute | Span::Held => 0,
                };
                let of = |changes: Option<&HashMap<Place, Change>>| {
                    changes.and_then(|c| c.get(place)).map_or(0, |c| c.used)
                };
                let (sent, later) = (of(inner.sent.as_ref()), of(Some(&inner.pending)));
                let told_before = mine.used.saturating_sub(sent.saturating_add(later));
                let known = inner.known.get(place);
                let known = known.filter(|known| known.start_ms == start_ms);
                SharedEntry {
                    used: sent,
                    holds: mine.reserved,
                    floor: known.map_or(0, |known| known.used).max(told_before),
                    floor_start_ms: start_ms,
                    ..entry(limits, place)
                }
            });
            let call = self.call(&inner, SharedOp::Begin, entries.collect());
            (call, places)
        };
        match tokio::time::timeout(PATIENCE, (self.ask)(call)).await {
            Ok(SharedEnd::Done(figures)) => {
                let mut inner = self.inner();
                inner.sent = None;
                inner.phase = Phase::Up;
                if inner.told.error.take().is_some() {
                    tracing::info!("the shared limits are counted together again");
                }
                drop(inner);
                self.hear(limits, places.into_iter(), &figures);
                self.wake.notify_one();
                true
            }
            Ok(SharedEnd::Failed { message }) => self.lost(&message),
            Ok(_) => self.lost("it refused this daemon"),
            Err(_) => self.lost("no word"),
        }
    }

    /// The server is away: an alarm when that is news.
    fn lost(&self, error: &str) -> bool {
        let mut inner = self.inner();
        if inner.phase == Phase::Up {
            inner.told.outages += 1;
        }
        inner.phase = Phase::Away;
        if inner.told.error.is_none() {
            tracing::warn!(
                error,
                "the shared limits are away; this daemon counts alone"
            );
        }
        inner.told.error = Some(error.to_owned());
        drop(inner);
        self.wake.notify_one();
        false
    }

    fn hear(
        &self,
        limits: &Limits,
        places: impl Iterator<Item = Place>,
        figures: &[SharedFigures],
    ) {
        let heard: Vec<_> = places.zip(figures.iter().copied()).collect();
        let mut inner = self.inner();
        let unsent: Vec<Change> = heard
            .iter()
            .map(|(place, figures)| {
                inner.known.insert(place.clone(), *figures);
                let pending = inner.pending.get(place).copied().unwrap_or_default();
                let sent = inner.sent.as_ref().and_then(|sent| sent.get(place));
                let sent = sent.copied().unwrap_or_default();
                Change {
                    used: pending.used.saturating_add(sent.used),
                    taken: pending.taken.saturating_add(sent.taken),
                    given: pending.given.saturating_add(sent.given),
                }
            })
            .collect();
        drop(inner);
        for ((place, figures), unsent) in heard.into_iter().zip(unsent) {
            let mut book = limits.book();
            let all = (figures.used, figures.held);
            book.hear(place, all, (unsent.used, unsent.given), limits.now());
        }
    }

    fn call(&self, inner: &Inner, op: SharedOp, entries: Vec<SharedEntry>) -> SharedCall {
        SharedCall {
            job: JobId(0),
            op,
            instance: self.instance.clone(),
            term: inner.term,
            change: inner.change,
            entries,
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claim whose client went away while it was under way: nobody knows whether
/// the server holds it, so that it is told anew what is held.
struct Unsure<'a>(Option<&'a Shared>);

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.0 {
            shared.inner().phase = Phase::Away;
            shared.wake.notify_one();
        }
    }
}

fn place(claim: &Claim) -> Place {
    (claim.rule, Arc::clone(&claim.subject))
}

/// Whether a reserve of a limit counts as used at once.
fn at_once(limits: &Limits, rule: usize) -> bool {
    limits.limits[rule].measure == Measure::RequestsPerMinute
}

/// A counter, with nothing to be done.
fn entry(limits: &Limits, (rule, subject): &Place) -> SharedEntry {
    let limit = &limits.limits[*rule];
    SharedEntry {
        counter: format!(
            "{}\u{1f}{}\u{1f}{subject}",
            limit.measure.as_str(),
            limit.name
        ),
        span: match limit.measure.span() {
            Span::Minute => SharedSpan::Minute,
            Span::Held => SharedSpan::Held,
            Span::Day => SharedSpan::Day,
            Span::Month => SharedSpan::Month,
        },
        at_once: at_once(limits, *rule),
        most: limit.most,
        amount: 0,
        used: 0,
        taken: 0,
        given: 0,
        holds: 0,
        floor: 0,
        floor_start_ms: 0,
    }
}
