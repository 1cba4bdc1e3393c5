//! Loading and dropping models, where a request asks for no more than that.

use std::time::Duration;

use nearfar_domain::events::{Failure, FailureKind};
use nearfar_domain::ids::TargetId;
use nearfar_domain::privacy::Zone;

use super::options::KeepAlive;
use crate::admission::Identity;
use crate::catalog::LocalModel;
use crate::gate::Gate;
use crate::http::problem::Problem;
use crate::http::tags::Tags;

/// How often a load is looked at when nothing is heard of it.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a name in a request means to this device's memory.
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time, for the length of a request"
)]
pub(super) enum Named {
    /// A model of this device.
    Here(LocalModel),
    /// A provider's model: it has no place in this device's memory.
    Elsewhere(String),
}

/// Finds the model that a request means.
///
/// # Errors
/// When there is none of this name, or the caller may not use it.
pub(super) fn named(
    gate: &Gate,
    identity: &Identity,
    model: &str,
    tags: &Tags,
) -> Result<Named, Problem> {
    let may_use = |model: &LocalModel| {
        let target = TargetId::local(&model.name);
        identity.scope().allows(&target, Zone::Device)
    };
    let name = match &tags.target {
        Some(target) => target.to_string(),
        None => model.trim().to_owned(),
    };
    if name.is_empty() || name == "auto" {
        return match gate.default_model().filter(may_use) {
            Some(model) => Ok(Named::Here(model)),
            None => Ok(Named::Elsewhere(name)),
        };
    }
    let models = gate.catalog().models();
    let bare = name.strip_prefix("local/").unwrap_or(&name);
    if let Some(model) = models.iter().find(|model| model.name == bare) {
        if !may_use(model) {
            return Err(Problem::not_this_model());
        }
        return Ok(Named::Here(model.clone()));
    }
    let targets = gate.targets_for(identity);
    let is_it = |id: String| id == name || id.split_once('/').is_some_and(|(_, m)| m == name);
    if targets
        .iter()
        .any(|state| is_it(state.target.id.to_string()))
    {
        return Ok(Named::Elsewhere(name));
    }
    Err(Problem::no_such_model(
        "There is no such model. GET /api/tags lists those that there are.",
    ))
}

/// Does what was said of the model's memory. A model that is answering stays
/// until it has.
pub(super) async fn keep(gate: &Gate, model: &LocalModel, keep_alive: KeepAlive) {
    match keep_alive {
        KeepAlive::Unsaid => {}
        KeepAlive::Drop => gate.unload_model(model).await,
        KeepAlive::For(time) => gate.keep_model(model, Some(time)).await,
        KeepAlive::Always => gate.keep_model(model, None).await,
    }
}

/// Has a model loaded and waits until it is there. Hanging up does not stop it.
///
/// # Errors
/// Why it cannot be loaded.
pub(super) async fn load(gate: &Gate, model: &LocalModel) -> Result<(), Problem> {
    let failed = |kind, message| Err(Problem::failed(&Failure::new(kind, message)));
    let mut loads = gate.load_model(model).await;
    loop {
        let settled = loads.borrow_and_update().get(&model.name).cloned();
        match settled {
            Some(Ok(_)) => return Ok(()),
            Some(Err(message)) => return failed(FailureKind::ModelBroken, message),
            None if gate.parts().engine.pid.is_none() => {
                let message = "The engine of this device is not running. It is being restarted; \
                               try again.";
                return failed(FailureKind::Crashed, message.to_owned());
            }
            None => {
                let _ = tokio::time::timeout(LOOK_EVERY, loads.changed()).await;
            }
        }
    }
}
