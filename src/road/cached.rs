//! Where the cache stands on the path: behind the guard, which has seen the
//! request, and before the decision, which a kept answer does not need.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use nearfar_domain::events::Event;
use nearfar_domain::explain::{Reason, Verdict};
use nearfar_domain::frames::{EngineJob, Purpose, Terms};
use nearfar_domain::guard::Kinds;
use nearfar_domain::ids::{DecisionId, TargetId};
use nearfar_domain::privacy::{Classified, Zone};

use super::{Answer, Considered, EventStream, Road, RoadError, aside};
use crate::account::{Account, Bill};
use crate::cache::{
    About, CacheUse, Entry, Flight, Lead, Outcome, Plan, Recorder, Scope, Vector, Wish,
};
use crate::catalog::LocalModel;
use crate::execute::{Begun, Places};

/// A question waits no longer than this for its vector: an answer that is made
/// anew is better than one that is late.
const VECTOR_WITHIN: Duration = Duration::from_millis(400);
/// A request waits no longer than this for another one that is the same.
const FOLLOW_WITHIN: Duration = Duration::from_secs(30);

/// What of a request the cache must know beside its content.
pub(super) struct Around {
    pub(super) tenant: Arc<str>,
    pub(super) feature: String,
    pub(super) wish: Wish,
    /// Whether it asked that identifiers be replaced.
    pub(super) redact: bool,
    pub(super) kinds: Kinds,
    /// What its placeholders end in, where there are any.
    pub(super) nonce: Option<String>,
}

/// How a request waits.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) purpose: Purpose,
    pub(super) stream: bool,
    /// The sooner one of its deadlines, in milliseconds.
    pub(super) within_ms: Option<f64>,
}

/// What came of looking.
pub(super) enum Found {
    /// An answer, and how it was found.
    Kept(Arc<Entry>, Outcome),
    /// The decision's turn; then this is done with its answer.
    Go(Box<Keeping>),
}

/// What is to be done with an answer that is being made.
pub(super) struct Keeping {
    /// `None` where the cache is off.
    outcome: Option<Outcome>,
    place: Option<Place>,
}

struct Place {
    plan: Plan,
    vector: Option<Vector>,
    lead: Option<Lead>,
    bill: Bill,
    nonce: Option<String>,
    tenant: Arc<str>,
}

impl Keeping {
    fn nothing(outcome: Option<Outcome>) -> Self {
        Self {
            outcome,
            place: None,
        }
    }

    /// Lets the account tell what the answer cost.
    pub(super) fn follow(&mut self, account: &Account) {
        if let Some(place) = &mut self.place {
            place.bill = account.bill();
        }
    }
}

impl Road {
    /// Looks for a kept answer.
    pub(super) async fn look_up(
        &self,
        considered: &Considered,
        waiting: Waiting,
    ) -> Result<Found, RoadError> {
        let wish = &considered.around.wish;
        if !self.cache.is_on() && !wish.only_if_cached || waiting.purpose != Purpose::Answer {
            return Ok(Found::Go(Box::new(Keeping::nothing(None))));
        }
        let Some(plan) = self.cache_plan(considered) else {
            return self.made_anew(wish, Outcome::Bypass, None);
        };
        if let Some(found) = self.serveable(considered, &plan) {
            return Ok(Found::Kept(found, Outcome::Hit));
        }
        let mut vector = None;
        if plan.near.is_some() {
            vector = self.vector_of(considered).await;
            let now = Instant::now();
            if let Some(vector) = &vector
                && let Some(found) = self.cache.get_near(&plan, vector, now)
                && may_serve(&found, considered)
            {
                return Ok(Found::Kept(found, Outcome::Semantic));
            }
        }
        if wish.only_if_cached {
            return self.made_anew(wish, Outcome::Miss, None);
        }
        let mut lead = None;
        if plan.may_wait() && !waiting.stream {
            lead = self.lead(considered, &plan, waiting.within_ms).await;
            // Whoever was waited for may have kept it, also in the last moment.
            if let Some(found) = self.serveable(considered, &plan) {
                return Ok(Found::Kept(found, Outcome::Hit));
            }
        }
        let place = Place {
            plan,
            vector,
            lead,
            bill: Bill::default(),
            nonce: considered.around.nonce.clone(),
            tenant: Arc::clone(&considered.around.tenant),
        };
        let outcome = if wish.no_cache {
            Outcome::Bypass
        } else {
            Outcome::Miss
        };
        self.made_anew(wish, outcome, Some(place))
    }

    fn made_anew(
        &self,
        wish: &Wish,
        outcome: Outcome,
        place: Option<Place>,
    ) -> Result<Found, RoadError> {
        if self.cache.is_on() {
            self.cache.count(outcome, None);
        }
        if wish.only_if_cached {
            return Err(RoadError::NotCached);
        }
        let outcome = Some(outcome);
        Ok(Found::Go(Box::new(Keeping { outcome, place })))
    }

    fn cache_plan(&self, considered: &Considered) -> Option<Plan> {
        let Considered {
            request,
            facts,
            around,
            ..
        } = considered;
        let scope = Scope {
            tenant: &around.tenant,
            ceiling: request.ceiling().zone,
            redact: around.redact,
            kinds: around.kinds,
            model: &facts.model,
            side: facts.side,
        };
        let chat = match request {
            Classified::Confined(confined) => confined.chat(),
            Classified::Portable(portable) => portable.chat(),
        };
        aside(chat.text_bytes(), || {
            self.cache.plan(&scope, &around.feature, &around.wish, chat)
        })
    }

    fn serveable(&self, considered: &Considered, plan: &Plan) -> Option<Arc<Entry>> {
        let found = self.cache.get(plan, Instant::now())?;
        may_serve(&found, considered).then_some(found)
    }

    /// Whether a kept answer would be served to the same request.
    pub(super) fn is_kept(&self, considered: &Considered) -> bool {
        let plan = self.cache_plan(considered);
        plan.is_some_and(|plan| self.serveable(considered, &plan).is_some())
    }

    /// The lead, once nobody else has it; `None` where its answer is kept by
    /// then, or it took too long.
    async fn lead(
        &self,
        considered: &Considered,
        plan: &Plan,
        within_ms: Option<f64>,
    ) -> Option<Lead> {
        // Half of what a deadline leaves is for the answer itself.
        let wish = within_ms.map(|ms| Duration::try_from_secs_f64(ms.max(0.0) / 2e3));
        let wish = wish.and_then(Result::ok).unwrap_or(FOLLOW_WITHIN);
        let end = tokio::time::Instant::now() + wish.min(FOLLOW_WITHIN);
        loop {
            let mut other = match self.cache.fly(plan) {
                Flight::Lead(lead) => return Some(lead),
                Flight::Follow(other) => other,
            };
            // Ends with an error when the other one's lead is dropped.
            let waited = tokio::time::timeout_at(end, other.changed()).await;
            if waited.is_err() || self.serveable(considered, plan).is_some() {
                return None;
            }
        }
    }

    /// The vector of a request's question, made on this device.
    async fn vector_of(&self, considered: &Considered) -> Option<Vector> {
        let name = &self.cache.settings().semantic.as_ref()?.model;
        let models = considered.models.iter();
        let model = models
            .filter(|model| model.capabilities.embeddings)
            .find(|model| model.name == *name)?;
        let terms = Terms {
            begin_within_ms: Some(VECTOR_WITHIN.as_secs_f64() * 1e3),
            share: "cache".to_owned(),
            ..Terms::default()
        };
        let make = |job| {
            EngineJob::question(job, &model.name, model.source.clone(), &considered.request)
                .with_embedding(model.embedding.clone())
                .on(terms)
        };
        let ask = async {
            let (mut events, _) = self.links.engine.run(Duration::ZERO, make).await.ok()?;
            while let Some(event) = events.next().await {
                match event {
                    Event::Vectors(vectors) => return Vector::of(vectors.first()?),
                    event if event.is_last() => return None,
                    _ => {}
                }
            }
            None
        };
        tokio::time::timeout(VECTOR_WITHIN, ask).await.ok()?
    }

    /// A kept answer as an answer of its own.
    pub(super) fn serve(
        &self,
        decision: DecisionId,
        considered: &Considered,
        (entry, outcome): (Arc<Entry>, Outcome),
        mut account: Account,
        places: Places,
    ) -> Answer {
        let reason = match outcome {
            Outcome::Semantic => Reason::SemanticCache,
            _ => Reason::Cache,
        };
        self.links.metrics.decided(Verdict::Go(reason));
        self.cache.count(outcome, entry.cost_micro);
        account.decided(reason.as_str());
        account.kept(&entry.target, entry.zone, entry.cost_micro);
        Answer {
            decision,
            target: entry.target.clone(),
            zone: entry.zone,
            reason,
            ceiling: considered.request.ceiling(),
            quotas: Vec::new(),
            bill: account.bill(),
            attempt: 0,
            cache: Some(CacheUse {
                outcome,
                age: Some(entry.made.elapsed()),
            }),
            events: replay(&entry, account, places),
        }
    }

    /// An answer that is being made: its events are written down on their way,
    /// where it is to be kept.
    pub(super) fn keep(
        &self,
        keeping: Keeping,
        begun: Begun,
        models: &[LocalModel],
        ceiling: Zone,
    ) -> (Option<CacheUse>, EventStream) {
        let made_use = keeping
            .outcome
            .map(|outcome| CacheUse { outcome, age: None });
        let Some(place) = keeping.place else {
            return (made_use, begun.events);
        };
        let weights = weights(models, &begun.target).unwrap_or_default();
        let about = About {
            tenant: place.tenant,
            ceiling,
            target: begun.target,
            zone: begun.zone,
            weights: weights.to_owned(),
            cost_micro: place.bill,
            nonce: place.nonce,
        };
        let cache = Arc::clone(&self.cache);
        let recorder = Recorder::new(
            begun.events,
            cache,
            place.plan,
            place.vector,
            about,
            place.lead,
        );
        (made_use, Box::pin(recorder))
    }
}

/// Whether a request could have got this answer anew. The key says most of it;
/// what the device has and allows may have changed since.
fn may_serve(entry: &Entry, considered: &Considered) -> bool {
    let ceiling = considered.request.ceiling().zone;
    let targets = &considered.snapshot.targets;
    let is_there = targets.iter().any(|state| state.target.id == entry.target);
    let same_weights = !entry.target.is_local()
        || weights(&considered.models, &entry.target) == Some(&entry.weights);
    let in_scope = considered.facts.scope.allows(&entry.target, entry.zone);
    entry.tenant == considered.around.tenant
        && entry.ceiling == ceiling
        && entry.zone <= ceiling
        && in_scope
        && is_there
        && same_weights
}

/// The digest of a local model as it is now.
fn weights<'a>(models: &'a [LocalModel], target: &TargetId) -> Option<&'a str> {
    let name = target.model();
    let model = models.iter().find(|model| model.name == name);
    model
        .filter(|_| target.is_local())
        .map(|model| model.sha256.as_str())
}

/// A kept answer's events. The request is settled when the last one is read.
fn replay(entry: &Entry, account: Account, places: Places) -> EventStream {
    let mut tape = entry.tape.clone();
    let mut held = Some((account, places));
    Box::pin(futures_util::stream::poll_fn(move |_| {
        let event = tape.next_event();
        match (&event, &mut held) {
            (Some(event), Some((account, _))) => {
                account.first_piece();
                if event.is_last() {
                    account.served();
                    held = None;
                }
            }
            _ => held = None,
        }
        Poll::Ready(event)
    }))
}
