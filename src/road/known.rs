//! How much of a prompt this device need not compute, asked of the engine
//! before a decision in which that may tell.

use std::time::Duration;

use futures_util::StreamExt;
use nearfar_domain::events::Event;
use nearfar_domain::frames::{EngineJob, Purpose, Terms};
use nearfar_domain::privacy::Classified;
use nearfar_domain::snapshot::{Health, Snapshot};

use crate::catalog::LocalModel;
use crate::links::EngineLink;

/// Shorter prompts are computed in no time; asking would take as long.
const WORTH_ASKING: u32 = 128;
/// The decision waits no longer for this.
const PATIENCE: Duration = Duration::from_millis(20);

/// Writes into the snapshot what the engine knows of this prompt, where the
/// request has a choice between this device and others.
pub(super) async fn look(
    engine: &EngineLink,
    request: &Classified,
    prompt_tokens: u32,
    models: &[LocalModel],
    snapshot: &mut Snapshot,
) {
    let Classified::Portable(portable) = request else {
        return;
    };
    let usable = |health: Health| health == Health::Up;
    let targets = &mut snapshot.targets;
    let elsewhere = targets
        .iter()
        .any(|state| !state.target.id.is_local() && state.target.auto && usable(state.health));
    if prompt_tokens < WORTH_ASKING || !elsewhere {
        return;
    }
    let in_memory = engine.state().models;
    let here = targets.iter_mut().find(|state| {
        let name = state.target.id.model();
        state.target.id.is_local()
            && state.target.auto
            && usable(state.health)
            && in_memory.iter().any(|loaded| loaded.name == name)
    });
    let Some(here) = here else { return };
    let name = here.target.id.model();
    let Some(model) = models.iter().find(|model| model.name == name) else {
        return;
    };
    let terms = Terms {
        purpose: Purpose::Look,
        ..Terms::default()
    };
    let ask = async {
        let make =
            |job| EngineJob::portable(job, &model.name, model.source.clone(), portable).on(terms);
        let (mut events, _) = engine.run(Duration::ZERO, make).await.ok()?;
        match events.next().await {
            Some(Event::Finished { usage, .. }) => Some((usage.prompt?, usage.cached_prompt?)),
            _ => None,
        }
    };
    let Ok(Some((prompt, cached))) = tokio::time::timeout(PATIENCE, ask).await else {
        return;
    };
    // The gate counts tokens by its own estimate; the share carries over.
    let share = cached as f64 / (prompt as f64).max(1.0);
    here.cached_tokens = (share * f64::from(prompt_tokens)) as u32;
}
