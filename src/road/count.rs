//! How many tokens a prompt takes, for the target that would answer it.

use std::time::Duration;

use futures_util::StreamExt;
use nearfar_domain::events::{Event, Failure, FailureKind};
use nearfar_domain::explain::Verdict;
use nearfar_domain::frames::{EngineJob, Purpose, Terms};
use nearfar_domain::ids::TargetId;
use nearfar_domain::route::{self, Leg, Plan};

use super::{Asked, Considered, Road, RoadError, decision_id};
use crate::catalog::LocalModel;

/// How long a model may take into memory before the count gives up.
const LOADING: Duration = Duration::from_secs(120);

/// A prompt's length.
pub struct Counted {
    /// Whose tokens they are.
    pub target: TargetId,
    /// How many.
    pub tokens: u64,
    /// Whether they were counted, or else estimated.
    pub exact: bool,
}

impl Road {
    /// Counts a prompt's tokens. Nothing leaves the device for it, and nothing
    /// is answered, so there is no row in the ledger.
    ///
    /// # Errors
    /// Why nobody would answer the request, or why its model cannot count.
    pub async fn count(&self, asked: Asked) -> Result<Counted, RoadError> {
        let _ticket = self.admission.admit(&asked.identity)?;
        let id = decision_id::draw();
        let Considered {
            request,
            mut facts,
            mut snapshot,
            models,
            ..
        } = self.consider(asked, id)?;
        // Counting takes nothing.
        for state in &mut snapshot.targets {
            (state.barred, state.soft) = (None, None);
        }
        let estimate = u64::from(facts.prompt_tokens);
        // Also one that is too long to be answered is to be counted.
        facts.prompt_tokens = 0;
        facts.reserved_tokens = 0;
        let refused = |explanation| RoadError::Refused(Box::new(explanation));
        let decision = route::decide(request, &facts, &snapshot).map_err(refused)?;
        if let Verdict::Refuse(_) = decision.explanation.verdict {
            return Err(refused(decision.explanation));
        }
        let target = first(&decision.plan);
        if !target.is_local() {
            let exact = false;
            return Ok(Counted {
                target,
                tokens: estimate,
                exact,
            });
        }
        let model = models.iter().find(|model| model.name == target.model());
        let counted = match model {
            Some(model) => self.measure(&decision.plan, model).await,
            None => Err(Failure::new(
                FailureKind::ModelMissing,
                "The model was removed from this device while its tokens were counted.",
            )),
        };
        match counted {
            Ok(tokens) => Ok(Counted {
                target,
                tokens,
                exact: true,
            }),
            Err(failure) => Err(RoadError::Failed {
                decision: id,
                target,
                failure: Box::new(failure),
            }),
        }
    }

    /// Asks the engine, and has the model loaded where it is not there.
    async fn measure(&self, plan: &Plan, model: &LocalModel) -> Result<u64, Failure> {
        let missing = match self.ask(plan, model).await {
            Err(failure) if failure.kind == FailureKind::ModelMissing => failure,
            counted => return counted,
        };
        let engine = &self.links.engine;
        engine.load(&model.name, &model.source).await;
        let mut loads = engine.loads();
        let loaded = loads.wait_for(|loads| loads.contains_key(&model.name));
        match tokio::time::timeout(LOADING, loaded).await {
            Ok(Ok(loads)) => {
                if let Some(Err(why)) = loads.get(&model.name) {
                    return Err(Failure::new(FailureKind::ModelBroken, why.clone()));
                }
            }
            _ => return Err(missing),
        }
        self.ask(plan, model).await
    }

    async fn ask(&self, plan: &Plan, model: &LocalModel) -> Result<u64, Failure> {
        let terms = Terms {
            purpose: Purpose::Look,
            ..Terms::default()
        };
        let source = model.source.clone();
        let make = |job| match plan {
            Plan::Confined { request, .. } => {
                EngineJob::confined(job, &model.name, source, request).on(terms)
            }
            Plan::Portable { request, .. } => {
                EngineJob::portable(job, &model.name, source, request).on(terms)
            }
        };
        let (mut events, _) = self.links.engine.run(Duration::from_secs(5), make).await?;
        while let Some(event) = events.next().await {
            match event {
                Event::Finished { usage, .. } => {
                    let untold = "The engine did not tell the prompt's length.";
                    return usage
                        .prompt
                        .ok_or_else(|| Failure::new(FailureKind::Internal, untold));
                }
                Event::Failed(failure) => return Err(failure),
                _ => {}
            }
        }
        Err(crate::links::lost())
    }
}

fn first(plan: &Plan) -> TargetId {
    let target = match plan {
        Plan::Confined { legs, .. } => legs.iter().next().map(|leg| leg.target()),
        Plan::Portable { legs, .. } => legs.iter().next().map(|leg| match leg {
            Leg::Local(leg) => leg.target(),
            Leg::Remote(leg) => leg.target(),
        }),
    };
    // Legs are never empty.
    target.cloned().unwrap_or_else(|| TargetId::local(""))
}
