//! A request's measures: what the decision may know of it.

use std::sync::Arc;

use nearfar_domain::chat::{Part, Prompt};
use nearfar_domain::ids::DecisionId;
use nearfar_domain::privacy::{Say, Source, Zone};
use nearfar_domain::route::{Facts, ModelChoice, Side};

use super::Asked;
use crate::config::Privacy;

/// Bytes of text in a token. Tokenizers differ: English has about 4, other
/// languages and small vocabularies fewer.
const BYTES_PER_TOKEN: f64 = 3.5;
/// What a template adds to each turn.
const TOKENS_PER_TURN: usize = 5;
/// What a picture takes, about.
const TOKENS_PER_PICTURE: usize = 800;
/// The same, at the worst: common languages have more bytes in a token with
/// every provider's tokenizer; only text that is made to be costly has fewer.
const FEWEST_BYTES_PER_TOKEN: f64 = 2.0;
/// A picture in its full size, at all but a few models.
const MOST_TOKENS_PER_PICTURE: usize = 3_200;
/// Room that an answer must find in the context. A client's limit is a bound
/// and not a wish: an answer that reaches the end of the context says so.
const MOST_RESERVED: u32 = 256;

/// All that speak about privacy: the owner's default, the owner's ceiling for
/// the feature, the tenant and the key, the request itself.
pub(super) fn says(privacy: &Privacy, asked: &Asked) -> Vec<Say> {
    let config = |zone| Say {
        source: Source::Config,
        zone,
    };
    let feature = asked.feature.as_ref();
    let mut says = vec![config(privacy.default)];
    says.extend(feature.and_then(|name| privacy.features.get(name).copied().map(config)));
    says.extend(asked.identity.says());
    says.extend_from_slice(&asked.says);
    if asked.side == Side::Local {
        // Asking for local is asking not to leave.
        says.push(Say {
            source: Source::Route,
            zone: Zone::Device,
        });
    }
    says
}

/// The facts of a request. `expected` is how long answers for its feature are.
pub(super) fn facts(asked: &Asked, id: DecisionId, model: ModelChoice, expected: u32) -> Facts {
    let limit = match asked.chat.prompt {
        // Vectors are no tokens of an answer.
        Prompt::Inputs(_) => 0,
        _ => asked.chat.params.max_tokens.unwrap_or(u32::MAX),
    };
    Facts {
        id,
        prompt_tokens: tokens(asked, BYTES_PER_TOKEN, TOKENS_PER_PICTURE),
        expected_tokens: expected.min(limit).max(1),
        reserved_tokens: MOST_RESERVED.min(limit),
        needs: asked.needs.clone(),
        model,
        scope: Arc::clone(asked.identity.scope()),
        side: asked.side,
        deadline_ms: asked.deadline_ms,
        ttft_ms: asked.ttft_ms,
        max_cost_micro: asked.max_cost_micro,
        most_prompt_tokens: tokens(asked, FEWEST_BYTES_PER_TOKEN, MOST_TOKENS_PER_PICTURE),
        most_completion_tokens: match asked.chat.prompt {
            Prompt::Inputs(_) => Some(0),
            _ => asked.chat.params.max_tokens,
        },
        writes_cache: writes_cache(asked),
    }
}

/// Whether the client marks parts of the prompt for the provider's cache.
fn writes_cache(asked: &Asked) -> bool {
    let turns = match &asked.chat.prompt {
        Prompt::Turns(turns) => turns.as_slice(),
        Prompt::Text(_) | Prompt::Inputs(_) => &[],
    };
    !asked.chat.tool_cache_marks.is_empty() || turns.iter().any(|turn| !turn.cache_marks.is_empty())
}

fn tokens(asked: &Asked, bytes_per_token: f64, per_picture: usize) -> u32 {
    let text = (asked.chat.text_bytes() as f64 / bytes_per_token).ceil() as usize;
    let (turns, pictures) = match &asked.chat.prompt {
        Prompt::Text(_) | Prompt::Inputs(_) => (0, 0),
        Prompt::Turns(turns) => {
            let parts = turns.iter().flat_map(|turn| &turn.content);
            let pictures = parts.filter(|part| matches!(part, Part::Image { .. }));
            (turns.len(), pictures.count())
        }
    };
    let around = turns
        .saturating_mul(TOKENS_PER_TURN)
        .saturating_add(pictures.saturating_mul(per_picture));
    u32::try_from(text.saturating_add(around)).unwrap_or(u32::MAX)
}
