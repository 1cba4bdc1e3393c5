//! The path of a request, in one screen. READ FIRST.
//!
//! admission -> limits -> guard -> classify -> facts -> cache -> decide -> record ->
//! execute. The fronts decode into [`Asked`] before and encode from [`Answer`] after.

mod aside;
mod cached;
mod count;
mod decision_id;
mod facts;
mod known;
mod limits;
mod names;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nearfar_domain::chat::Chat;
use nearfar_domain::events::{Event, Failure};
use nearfar_domain::explain::{Ability, Explanation, Reason, Verdict};
use nearfar_domain::frames::{Priority, Purpose, Terms};
use nearfar_domain::ids::{DecisionId, TargetId};
use nearfar_domain::privacy::{Ceiling, Classified, Say, Source, Zone, classify};
use nearfar_domain::route::{self, Decision, Facts, Leg, ModelChoice, Side};
use nearfar_domain::snapshot::{Snapshot, TargetState};

use crate::account::{Account, Bill, Books};
use crate::admission::{Admission, Identity, TurnedAway};
use crate::cache::{self, Cache, CacheUse};
use crate::catalog::LocalModel;
use crate::config::Privacy;
use crate::execute::{self, Errand, Links, Places, Purse};
use crate::guard::{self, Blocked, Guard};
use crate::health::Lengths;
use crate::limits::{Denied, Quota};
use crate::snapshot::View;
use crate::store::Row;

pub(crate) use aside::aside;
use cached::{Around, Found, Waiting};
pub use count::Counted;

/// What the path leads over. One for the life of the process.
pub struct Road {
    /// The door.
    pub admission: Admission,
    /// What the decision may see.
    pub view: View,
    /// What legs run on.
    pub links: Links,
    /// How long answers are, per feature.
    pub lengths: Arc<Lengths>,
    /// Ceilings of the device's owner.
    pub privacy: Privacy,
    /// What is let in and out.
    pub guard: Arc<Guard>,
    /// Answers that are kept.
    pub cache: Arc<Cache>,
    /// Where each request is settled.
    pub books: Books,
    /// The target that savings are always reckoned by, if there is one.
    pub savings_baseline: Option<TargetId>,
}

/// A request up to its decision.
struct Considered {
    request: Classified,
    facts: Facts,
    snapshot: Snapshot,
    models: Arc<Vec<LocalModel>>,
    /// Targets that a limit keeps out, and which.
    denied: Vec<(TargetId, Denied)>,
    around: Around,
}

impl Road {
    /// Answers a request.
    ///
    /// # Errors
    /// Why there is no answer. The request is settled in every case, also when
    /// this future is dropped.
    pub async fn answer(&self, asked: Asked) -> Result<Answer, RoadError> {
        let arrived = Instant::now();
        let id = decision_id::draw();
        let mut account = self.books.open(opening_row(&asked, id), arrived);

        let ticket = self.admission.admit(&asked.identity).map_err(|turned| {
            account.refused(turned.as_str());
            RoadError::from(turned)
        })?;

        let use_limits = &self.links.use_limits;
        let who = limits::who(&asked);
        let entered = use_limits.enter(&who).await.map_err(|denied| {
            account.refused("limit");
            use_limits.refused(&denied);
            RoadError::Limited(denied, None)
        })?;

        let (deadline_ms, ttft_ms, stream) = (asked.deadline_ms, asked.ttft_ms, asked.stream);
        let terms = terms(&asked);
        let bytes = asked.chat.text_bytes();
        let considered = aside(bytes, || self.consider(asked, id))
            .inspect_err(|error| account.refused(error.word()))?;
        let ceiling = considered.request.ceiling();
        account.classified(ceiling);
        let waiting = Waiting {
            purpose: terms.purpose,
            stream,
            within_ms: deadline_ms.into_iter().chain(ttft_ms).reduce(f64::min),
        };
        let looked = self.look_up(&considered, waiting).await;
        let mut keeping = match looked.inspect_err(|error| account.refused(error.word()))? {
            Found::Kept(entry, how) => {
                let quotas = use_limits.quotas(&who, &entry.target);
                let places = Places::new(ticket, entered);
                let served = self.serve(id, &considered, (entry, how), account, places);
                return Ok(Answer { quotas, ..served });
            }
            Found::Go(keeping) => keeping,
        };
        keeping.follow(&account);
        let Considered {
            request,
            facts,
            mut snapshot,
            models,
            denied,
            ..
        } = considered;
        if facts.model == ModelChoice::Auto && terms.purpose == Purpose::Answer {
            let (engine, tokens) = (&self.links.engine, facts.prompt_tokens);
            known::look(engine, &request, tokens, &models, &mut snapshot).await;
        }

        let decided = route::decide(request, &facts, &snapshot);
        let decision = match decided {
            Ok(decision) => decision,
            Err(refused) => return Err(self.refuse(&mut account, denied, refused)),
        };
        let Verdict::Go(reason) = decision.explanation.verdict else {
            return Err(self.refuse(&mut account, denied, decision.explanation));
        };
        self.record(&mut account, &decision.explanation);
        self.reckon_savings(&mut account, &decision, &snapshot);
        let bill = account.bill();

        let purse = Purse {
            limit_micro: facts.max_cost_micro,
            sizes: facts.sizes(None),
        };
        let errand = Errand {
            plan: decision.plan,
            snapshot,
            models: Arc::clone(&models),
            facts,
            who: who.clone(),
            stream,
            arrived,
            deadline_ms,
            ttft_ms,
            purse,
            terms,
            guard: Arc::clone(&self.guard),
            account,
            places: Places::new(ticket, entered),
        };
        match execute::begin(&self.links, errand).await {
            Ok(begun) => {
                let (target, zone, attempt) = (begun.target.clone(), begun.zone, begun.attempt);
                let (cache, events) = self.keep(*keeping, begun, &models, ceiling.zone);
                Ok(Answer {
                    decision: id,
                    quotas: use_limits.quotas(&who, &target),
                    target,
                    zone,
                    reason,
                    ceiling,
                    attempt,
                    cache,
                    bill,
                    events,
                })
            }
            Err(failed) => match failed.denied {
                Some(denied) => {
                    use_limits.refused(&denied);
                    Err(RoadError::Limited(denied, None))
                }
                None => Err(RoadError::Failed {
                    decision: id,
                    target: failed.target,
                    failure: Box::new(failed.failure),
                }),
            },
        }
    }

    /// Decides and does not run. A refusal is an explanation too.
    ///
    /// # Errors
    /// When the request names no model that there is.
    pub fn route(&self, asked: Asked) -> Result<Explanation, RoadError> {
        let considered = self.consider(asked, decision_id::draw())?;
        let is_kept = self.is_kept(&considered);
        let Considered {
            request,
            facts,
            snapshot,
            ..
        } = considered;
        let decided = route::decide(request, &facts, &snapshot);
        let mut explanation =
            decided.map_or_else(|refused| refused, |decision| decision.explanation);
        if is_kept {
            explanation.verdict = Verdict::Go(Reason::Cache);
        }
        self.links.metrics.decided(explanation.verdict);
        Ok(explanation)
    }

    /// Everything up to the decision: which model, how far, how large, and what
    /// must not leave as it is.
    fn consider(&self, mut asked: Asked, id: DecisionId) -> Result<Considered, RoadError> {
        let models = self.view.models();
        let (model, mut snapshot) = names::resolve(&self.view, &models, &asked)?;
        if let ModelChoice::Named(target) = &model
            && !self.guard.allows(target)
        {
            return Err(Blocked::Model(target.to_string()).into());
        }
        let allowed = |state: &TargetState| self.guard.allows(&state.target.id);
        snapshot.targets.retain(allowed);
        let (use_limits, who) = (&self.links.use_limits, limits::who(&asked));
        let most = self.guard.answer_tokens(asked.chat.params.max_tokens);
        asked.chat.params.max_tokens = limits::bound(use_limits, &who, most);
        let expected = self
            .lengths
            .expected(asked.feature.as_deref().unwrap_or(""));
        let mut facts = facts::facts(&asked, id, model, expected);
        if asked.purpose != Purpose::Answer {
            facts.most_completion_tokens = Some(0);
        }
        let denied = use_limits.look(&who, &facts, &mut snapshot);
        let mut says = facts::says(&self.privacy, &asked);
        let redact = says.iter().any(|say| say.source == Source::Redact);
        let seen = self.guard.examine(&asked.chat, &says)?;
        says.extend_from_slice(&seen.says);
        for kind in seen.counts.kinds().iter() {
            let (action, count) = (self.guard.action(kind), seen.counts.of(kind));
            self.links.metrics.identified(kind.as_str(), action, count);
        }
        let mut around = Around {
            tenant: Arc::clone(asked.identity.tenant()),
            feature: asked.feature.unwrap_or_default(),
            wish: asked.cache,
            redact,
            kinds: seen.redact,
            nonce: None,
        };
        // The one place where the line is drawn.
        let mut request = classify(asked.chat, &says);
        if let Classified::Portable(portable) = &mut request
            && !seen.redact.is_empty()
        {
            let nonce = guard::draw_nonce();
            portable.redact(seen.redact, nonce);
            around.nonce = Some(nonce.shown().to_owned());
        }
        Ok(Considered {
            request,
            facts,
            snapshot,
            models,
            denied,
            around,
        })
    }

    /// Who would answer if this device did not: the configured target, else the
    /// decision's first leg at a provider. Where its price is not known, nothing
    /// is said to be saved.
    fn reckon_savings(&self, account: &mut Account, decision: &Decision, snapshot: &Snapshot) {
        let instead = match &self.savings_baseline {
            Some(target) => {
                let listed = snapshot.targets.iter().find(|s| s.target.id == *target);
                let price = match listed {
                    Some(state) => state.target.price,
                    None => self.view.tariffs.price(target.place(), target.model()),
                };
                price.map(|price| (target.to_string(), price))
            }
            None => match &decision.plan {
                route::Plan::Confined { .. } => None,
                route::Plan::Portable { legs, .. } => legs.iter().find_map(|leg| match leg {
                    Leg::Local(_) => None,
                    Leg::Remote(leg) => Some((leg.target().to_string(), leg.price()?)),
                }),
            },
        };
        if let Some((target, price)) = instead {
            account.instead(&target, price);
        }
    }

    fn record(&self, account: &mut Account, explanation: &Explanation) {
        self.links.metrics.decided(explanation.verdict);
        self.links.use_limits.decided(explanation);
        if let Verdict::Go(reason) = explanation.verdict {
            account.decided(reason.as_str());
        }
    }

    fn refuse(
        &self,
        account: &mut Account,
        denied: Vec<(TargetId, Denied)>,
        explanation: Explanation,
    ) -> RoadError {
        self.links.metrics.decided(explanation.verdict);
        if let Verdict::Refuse(refusal) = explanation.verdict {
            account.refused(refusal.as_str());
        }
        limits::refused(&self.links.use_limits, denied, explanation)
    }
}

/// How the engine is to treat the request among others.
fn terms(asked: &Asked) -> Terms {
    let feature = asked.feature.as_deref().unwrap_or_default();
    Terms {
        priority: asked.priority,
        share: format!("{}/{feature}", asked.identity.tenant()),
        begin_within_ms: None,
        purpose: asked.purpose,
    }
}

/// What is known of a request before anything was decided.
fn opening_row(asked: &Asked, id: DecisionId) -> Row {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let time_ms = since_1970.map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(0));
    Row {
        time_ms,
        decision: id.to_string(),
        tenant: asked.identity.tenant().to_string(),
        key: asked
            .identity
            .key()
            .map(|key| key.to_string())
            .unwrap_or_default(),
        feature: asked.feature.clone().unwrap_or_default(),
        prompt_version: asked.prompt_version.clone().unwrap_or_default(),
        conversation: asked.conversation.clone().unwrap_or_default(),
        endpoint: asked.endpoint.to_owned(),
        model: asked.model.clone(),
        target: String::new(),
        zone: String::new(),
        ceiling: String::new(),
        ceiling_source: String::new(),
        reason: String::new(),
        outcome: String::new(),
        failure: String::new(),
        attempts: 0,
        prompt_tokens: None,
        cached_prompt_tokens: None,
        completion_tokens: None,
        reasoning_tokens: None,
        cost_micro: None,
        saved_micro: None,
        cache_written_tokens: None,
        failed_cost_micro: None,
        baseline: String::new(),
        saved_local_micro: None,
        ttft_ms: None,
        duration_ms: 0.0,
        stream: asked.stream,
        failed_legs: Vec::new(),
    }
}

/// A request as a front dialect decoded it, whatever the dialect was.
pub struct Asked {
    /// Who asks.
    pub identity: Arc<Identity>,
    /// Which front and endpoint: `openai.chat`, `openai.completions`, `route`.
    pub endpoint: &'static str,
    /// The model's name as the client wrote it: `auto`, `local/x`, `provider/x`, or a bare name.
    pub model: String,
    /// The content.
    pub chat: Chat,
    /// Abilities without which an answer would be wrong.
    pub needs: Vec<Ability>,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// Everything that the request itself says about privacy.
    pub says: Vec<Say>,
    /// Which side was asked for.
    pub side: Side,
    /// A target that the route tag names; wins over `model`.
    pub target: Option<TargetId>,
    /// Whole answer within, in milliseconds.
    pub deadline_ms: Option<f64>,
    /// First token within, in milliseconds.
    pub ttft_ms: Option<f64>,
    /// At most this dear, in micro-units.
    pub max_cost_micro: Option<u64>,
    /// Whether somebody waits for the answer.
    pub priority: Priority,
    /// Whether an answer is wanted at all.
    pub purpose: Purpose,
    /// What it is accounted to.
    pub feature: Option<String>,
    /// What it says about kept answers.
    pub cache: cache::Wish,
    /// Which conversation it belongs to.
    pub conversation: Option<String>,
    /// `name@version` of the prompt.
    pub prompt_version: Option<String>,
}

/// An answer that has begun: its first visible event is there, so the target is settled.
pub struct Answer {
    /// The decision's id.
    pub decision: DecisionId,
    /// The target that really answers (after failover).
    pub target: TargetId,
    /// Its zone.
    pub zone: Zone,
    /// Why the first leg was the first.
    pub reason: Reason,
    /// How far the request may go, and who said so.
    pub ceiling: Ceiling,
    /// What is left of limits per minute.
    pub quotas: Vec<Quota>,
    /// 1 for the first leg; 0 for a kept answer.
    pub attempt: u32,
    /// How the cache took part; `None` where it is off.
    pub cache: Option<CacheUse>,
    /// What it costs, once it has ended.
    pub bill: Bill,
    /// The rest; the first event is the first visible one, or `Finished`.
    /// Ends after `Finished` or `Failed`. Dropping it cancels the leg and accounts the request.
    pub events: EventStream,
}

/// Events of one answer; bounded, so a slow client slows its leg and nothing else.
pub type EventStream = std::pin::Pin<Box<dyn futures_util::Stream<Item = Event> + Send>>;

/// Why there is no answer.
#[derive(Debug)]
pub enum RoadError {
    /// A field of the request does not fit this daemon: (field, what to do).
    Field(&'static str, String),
    /// The guard does not let it go on.
    Blocked(Blocked),
    /// No such model: what to do.
    NoSuchModel(String),
    /// As many requests as allowed are under way.
    Busy {
        /// The limit.
        limit: usize,
    },
    /// nearfar is stopping.
    Draining,
    /// A limit is reached; the decision, where it came to one.
    Limited(Box<Denied>, Option<Box<Explanation>>),
    /// Only a kept answer would do, and there is none.
    NotCached,
    /// No allowed target can answer.
    Refused(Box<Explanation>),
    /// Every leg failed; this is what the last one said.
    Failed {
        /// The decision.
        decision: DecisionId,
        /// The leg that failed last.
        target: TargetId,
        /// What it said.
        failure: Box<Failure>,
    },
}

impl RoadError {
    /// The reason in the ledger, where nothing was decided.
    fn word(&self) -> &'static str {
        match self {
            RoadError::Blocked(blocked) => blocked.code(),
            RoadError::NotCached => "not_cached",
            _ => "no_such_model",
        }
    }
}

impl From<Blocked> for RoadError {
    fn from(blocked: Blocked) -> Self {
        RoadError::Blocked(blocked)
    }
}

impl From<TurnedAway> for RoadError {
    fn from(turned: TurnedAway) -> Self {
        match turned {
            TurnedAway::Busy { limit } => RoadError::Busy { limit },
            TurnedAway::Draining => RoadError::Draining,
        }
    }
}
