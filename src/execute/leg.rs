//! Starts one attempt. A confined request has local legs only; a remote leg
//! takes the clearance of a portable one. The two links share no interface.

use std::time::Duration;

use nearfar_domain::chat::{Chat, Prompt, ResponseFormat};
use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::explain::Forecast;
use nearfar_domain::frames::{EgressJob, EngineJob, Terms};
use nearfar_domain::ids::TargetId;
use nearfar_domain::price::Price;
use nearfar_domain::privacy::{Portable, Zone};
use nearfar_domain::redact::Restorer;
use nearfar_domain::route::{Leg, LocalLeg, Plan, RemoteLeg};

use super::answering::Answering;
use super::meter::Meter;
use super::{Errand, Links};
use crate::catalog::LocalModel;
use crate::limits::Reservation;

/// A leg's particulars, whichever side it is on.
#[derive(Clone, Debug)]
pub(super) struct Brief {
    pub(super) target: TargetId,
    pub(super) zone: Zone,
    pub(super) price: Option<Price>,
    pub(super) forecast: Forecast,
}

/// What there is of an answer that broke off, for the leg that goes on with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    /// Its text; empty for a new answer.
    pub(super) text: &'a str,
    /// About how many tokens that is.
    pub(super) tokens: u32,
}

impl Part<'_> {
    /// A new answer.
    pub(super) const NONE: Part<'static> = Part {
        text: "",
        tokens: 0,
    };
}

/// What was asked.
pub(super) fn chat(plan: &Plan) -> &Chat {
    match plan {
        Plan::Confined { request, .. } => request.chat(),
        Plan::Portable { request, .. } => request.chat(),
    }
}

/// Whether raw text is gone on with, which anyone can who takes any.
pub(super) fn is_text(plan: &Plan) -> bool {
    matches!(chat(plan).prompt, Prompt::Text(_))
}

/// How many legs the plan has.
pub(super) fn count(plan: &Plan) -> usize {
    match plan {
        Plan::Confined { legs, .. } => legs.len(),
        Plan::Portable { legs, .. } => legs.len(),
    }
}

/// The particulars of the plan's leg at `index`.
pub(super) fn brief(plan: &Plan, index: usize) -> Option<Brief> {
    match plan {
        Plan::Confined { legs, .. } => legs.iter().nth(index).map(of_local),
        Plan::Portable { legs, .. } => legs.iter().nth(index).map(|leg| match leg {
            Leg::Local(leg) => of_local(leg),
            Leg::Remote(leg) => Brief {
                target: leg.target().clone(),
                zone: leg.zone(),
                price: leg.price(),
                forecast: *leg.forecast(),
            },
        }),
    }
}

fn of_local(leg: &LocalLeg) -> Brief {
    Brief {
        target: leg.target().clone(),
        zone: Zone::Device,
        price: leg.price(),
        forecast: *leg.forecast(),
    }
}

/// Starts the plan's leg at `index`, on this device under `terms`, from where
/// `part` ends. Waits up to
/// `patience` for its process, if that is being restarted. Returns the answer's events and
/// the number of the link that they come over. `reservation` is what the leg may
/// take; it is given back when the leg cannot be started.
pub(super) async fn start(
    links: &Links,
    errand: &Errand,
    terms: Terms,
    index: usize,
    part: Part<'_>,
    patience: Duration,
    reservation: Reservation,
) -> Result<(Answering, u64), Failure> {
    let models = &errand.models;
    match &errand.plan {
        Plan::Confined { request, legs } => {
            let leg = legs.iter().nth(index).ok_or_else(no_leg)?;
            let model = model_of(models, leg)?;
            links
                .engine
                .run(patience, |job| {
                    EngineJob::confined(job, &model.name, model.source.clone(), request)
                        .with_embedding(model.embedding.clone())
                        .going_on_from(part.text)
                        .on(terms)
                })
                .await
                .map(|(job, generation)| {
                    let meter = Meter::new(reservation, true);
                    (errand.answering(job, None, meter), generation)
                })
        }
        Plan::Portable { request, legs } => match legs.iter().nth(index).ok_or_else(no_leg)? {
            Leg::Local(leg) => {
                let model = model_of(models, leg)?;
                links
                    .engine
                    .run(patience, |job| {
                        EngineJob::portable(job, &model.name, model.source.clone(), request)
                            .with_embedding(model.embedding.clone())
                            .going_on_from(part.text)
                            .on(terms)
                    })
                    .await
                    .map(|(job, generation)| {
                        let meter = Meter::new(reservation, true);
                        (errand.answering(job, None, meter), generation)
                    })
            }
            Leg::Remote(leg) => {
                let way = (part, patience, reservation);
                start_remote(links, errand, request, leg, way).await
            }
        },
    }
}

async fn start_remote(
    links: &Links,
    errand: &Errand,
    request: &Portable,
    leg: &RemoteLeg,
    (part, patience, reservation): (Part<'_>, Duration, Reservation),
) -> Result<(Answering, u64), Failure> {
    // The decision drew no leg beyond the ceiling; the wall checks once more.
    let cleared = request
        .clear(leg)
        .map_err(|withheld| Failure::new(FailureKind::Internal, withheld.to_string()))?
        .going_on_from(part.text);
    // Values are put back before anybody else sees the answer.
    let restorer = cleared.vault().map(|vault| {
        let json = matches!(
            request.chat().response_format,
            ResponseFormat::JsonObject | ResponseFormat::JsonSchema { .. }
        );
        Restorer::new(vault, json)
    });
    // Always streamed from the provider, so that its first byte is seen and the
    // next leg can start in time.
    let (job, generation) = links
        .egress
        .run(patience, |job| {
            EgressJob::new(job, &cleared, true, links.limits)
                .after(part.tokens)
                .joined(!errand.stream)
                .at_most(errand.account.most_tokens())
        })
        .await?;
    let meter = Meter::new(reservation, false);
    Ok((errand.answering(job, restorer, meter), generation))
}

fn model_of<'a>(models: &'a [LocalModel], leg: &LocalLeg) -> Result<&'a LocalModel, Failure> {
    let name = leg.target().model();
    let model = models.iter().find(|model| model.name == name);
    model.ok_or_else(|| {
        Failure::new(
            FailureKind::ModelMissing,
            "The model was removed from this device while the request was under way.",
        )
    })
}

fn no_leg() -> Failure {
    Failure::new(FailureKind::Internal, "The decision has no such leg.")
}
