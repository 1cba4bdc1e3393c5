//! From the model's name in a request to the target that it means.

use nearfar_domain::ids::TargetId;
use nearfar_domain::route::ModelChoice;
use nearfar_domain::scope::Scope;
use nearfar_domain::snapshot::{Snapshot, TargetState};

use super::{Asked, RoadError};
use crate::catalog::LocalModel;
use crate::snapshot::View;

/// Longer names are nobody's.
const MAX_NAME_BYTES: usize = 256;
/// Names that an error lists at most.
const MAX_LISTED: usize = 6;

/// Which model is meant, and the snapshot in which it is looked for.
pub(super) fn resolve(
    view: &View,
    models: &[LocalModel],
    asked: &Asked,
) -> Result<(ModelChoice, Snapshot), RoadError> {
    let name = match &asked.target {
        // The route tag wins over the body's model.
        Some(target) => target.to_string(),
        None => asked.model.trim().to_owned(),
    };
    if name.len() > MAX_NAME_BYTES {
        return Err(RoadError::Field(
            "model",
            format!("A model's name has at most {MAX_NAME_BYTES} bytes."),
        ));
    }
    let alias = view.aliases.get(&name).filter(|_| asked.target.is_none());
    if let Some(targets) = alias {
        let snapshot = view.look(models, |sources| sources.snapshot(targets));
        return Ok((ModelChoice::AnyOf(targets.clone()), snapshot));
    }
    let full = TargetId::parse(&name);
    let snapshot = view.look(models, |sources| sources.snapshot(full.as_slice()));
    let model = choose(&name, full, &snapshot, asked.identity.scope())?;
    Ok((model, snapshot))
}

/// `auto`, a full name, or a bare name that one target alone has.
fn choose(
    name: &str,
    full: Option<TargetId>,
    snapshot: &Snapshot,
    scope: &Scope,
) -> Result<ModelChoice, RoadError> {
    if name.is_empty() || name == "auto" {
        return Ok(ModelChoice::Auto);
    }
    let ids = || snapshot.targets.iter().map(|state| &state.target.id);
    if let Some(full) = full
        && ids().any(|id| *id == full)
    {
        return Ok(ModelChoice::Named(full));
    }
    // Names that the caller may not use are not proposed, and give no doubt.
    let allowed = |state: &&TargetState| scope.allows(&state.target.id, state.target.zone());
    let usable = || snapshot.targets.iter().filter(allowed);
    let usable = || usable().map(|state| &state.target.id);
    // A provider's own names may have slashes, so a full name that is not there
    // may still be a bare one.
    let mut bare: Vec<&TargetId> = usable().filter(|id| id.model() == name).collect();
    if bare.is_empty() {
        // The decision refuses it, with the reason.
        bare.extend(ids().find(|id| id.model() == name));
    }
    match bare.as_slice() {
        [one] => Ok(ModelChoice::Named((*one).clone())),
        [] => Err(no_such(name, &usable().collect::<Vec<_>>())),
        several => Err(RoadError::NoSuchModel(format!(
            "Several targets have a model of this name. Name one of them: {}.",
            list(several.iter().map(|id| id.to_string()))
        ))),
    }
}

fn no_such(name: &str, ids: &[&TargetId]) -> RoadError {
    let lower = name.to_ascii_lowercase();
    let mut near: Vec<(usize, String)> = ids
        .iter()
        .filter_map(|id| {
            let (full, model) = (id.to_string().to_ascii_lowercase(), id.model());
            let model = model.to_ascii_lowercase();
            let contained = full.contains(&lower) || (model.len() > 2 && lower.contains(&model));
            let distance = distance(&lower, &full).min(distance(&lower, &model));
            let close = contained || distance <= 1 + lower.len() / 4;
            close.then(|| (if contained { 0 } else { distance }, id.to_string()))
        })
        .collect();
    near.sort();
    let text = if near.is_empty() {
        format!(
            "There is no such model. Use auto, or one of: {}.",
            list(ids.iter().map(|id| id.to_string()))
        )
    } else {
        format!(
            "There is no such model. Did you mean: {}? Or use auto.",
            list(near.into_iter().map(|(_, id)| id))
        )
    };
    RoadError::NoSuchModel(text)
}

fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let left_out = names.len().saturating_sub(MAX_LISTED);
    let mut text = names.take(MAX_LISTED).collect::<Vec<_>>().join(", ");
    if left_out > 0 {
        text.push_str(&format!(" and {left_out} more (see /v1/models)"));
    }
    text
}

/// Levenshtein distance in bytes; both names are short.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nearfar_domain::snapshot::{Health, Latency};
    use nearfar_domain::target::{Capabilities, Place, Target};

    use super::*;

    fn snapshot(names: &[&str]) -> Snapshot {
        let state = |name: &&str| TargetState {
            cached_tokens: 0,
            barred: None,
            soft: None,
            target: Target {
                id: TargetId::parse(name).unwrap(),
                place: Place::Local,
                capabilities: Capabilities {
                    context_tokens: None,
                    tools: false,
                    forced_tools: false,
                    json_object: false,
                    json_schema: false,
                    grammar: false,
                    vision: false,
                    logprobs: false,
                    raw_text: false,
                    chat: true,
                    embeddings: false,
                },
                price: None,
                auto: false,
            },
            health: Health::Up,
            wait_ms: 0.0,
            latency: Latency {
                ttft_ms: 1.0,
                ms_per_prompt_token: 1.0,
                ms_per_token: 1.0,
                log_sd: 1.0,
            },
        };
        Snapshot {
            targets: names.iter().map(state).collect(),
        }
    }

    fn chosen(name: &str) -> Result<ModelChoice, String> {
        let world = snapshot(&[
            "local/concierge",
            "local/shared",
            "openai/gpt-4o-mini",
            "openrouter/meta-llama/llama-3.2-3b",
            "openrouter/shared",
        ]);
        choose(name, TargetId::parse(name), &world, &Scope::all()).map_err(|error| match error {
            RoadError::NoSuchModel(text) => text,
            other => format!("{other:?}"),
        })
    }

    fn named(name: &str) -> Result<ModelChoice, String> {
        Ok(ModelChoice::Named(TargetId::parse(name).unwrap()))
    }

    #[test]
    fn auto_full_and_unique_bare_names_are_understood() {
        assert_eq!(chosen(""), Ok(ModelChoice::Auto));
        assert_eq!(chosen("auto"), Ok(ModelChoice::Auto));
        assert_eq!(chosen("openai/gpt-4o-mini"), named("openai/gpt-4o-mini"));
        assert_eq!(chosen("concierge"), named("local/concierge"));
        assert_eq!(
            chosen("meta-llama/llama-3.2-3b"),
            named("openrouter/meta-llama/llama-3.2-3b")
        );
    }

    #[test]
    fn what_is_not_there_or_not_clear_is_told_with_the_mend() {
        let text = chosen("shared").unwrap_err();
        assert!(text.contains("local/shared, openrouter/shared"), "{text}");
        let text = chosen("gpt-40-mini").unwrap_err();
        assert!(text.contains("Did you mean: openai/gpt-4o-mini?"), "{text}");
        let text = chosen("zebra").unwrap_err();
        assert!(text.contains("one of: local/concierge"), "{text}");
    }
}
