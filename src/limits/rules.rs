//! Which limits apply to a request, and what it claims of each.

use std::sync::Arc;

use nearfar_domain::ids::TargetId;
use nearfar_domain::limit::{Measure, Span, Unit};
use nearfar_domain::price::{Price, Sizes};

use super::book::Claim;
use crate::config::limit::{Limit, Which};

/// Parts of a name that is kept, in bytes. Tags come from clients.
const MAX_PART: usize = 128;
/// Between the parts of a subject; no part holds it.
const BETWEEN: char = '\u{1f}';

/// Who asks, as far as limits care.
#[derive(Clone, Debug)]
pub struct Who {
    /// The key's id, where one was shown.
    pub key: Option<Arc<str>>,
    /// Who pays.
    pub tenant: Arc<str>,
    /// What for; may be empty.
    pub feature: Arc<str>,
    /// Where it came in.
    pub endpoint: &'static str,
}

/// One leg that is to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Who is to answer.
    pub target: &'a TargetId,
    /// What it charges.
    pub price: Option<Price>,
    /// How large prompt and answer may be.
    pub sizes: Sizes,
}

/// Why a claim cannot even be made: the limit counts money, and the price is
/// not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoPrice;

/// The name under which a limit counts this request, or `None` where it does
/// not apply: the values of the parts that have a limit each.
pub(super) fn subject(limit: &Limit, who: &Who, target: Option<&TargetId>) -> Option<Arc<str>> {
    let of_target = target.map(TargetId::to_string);
    let values = [
        who.key.as_deref(),
        Some(&*who.tenant),
        Some(&*who.feature),
        of_target.as_deref(),
        Some(who.endpoint),
    ];
    let mut subject = String::new();
    for ((_, which), value) in limit.applies.parts().into_iter().zip(values) {
        match (which, value) {
            (None, _) => {}
            // A key that was not shown has no limit of its own.
            (Some(_), None) => return None,
            (Some(Which::Named(name)), Some(value)) => {
                if !is_meant(name, value) {
                    return None;
                }
            }
            (Some(Which::Each), Some(value)) => {
                if !subject.is_empty() {
                    subject.push(BETWEEN);
                }
                let value = &value[..value.floor_char_boundary(MAX_PART)];
                let clean = |c: char| if c.is_control() { ' ' } else { c };
                subject.extend(value.chars().map(clean));
            }
        }
    }
    Some(subject.into())
}

/// Whether a name means this one: itself, or `PLACE/*` all of a place's.
fn is_meant(name: &str, value: &str) -> bool {
    let place = name.strip_suffix('*').filter(|place| place.ends_with('/'));
    match place {
        Some(place) => value.starts_with(place),
        None => name == value,
    }
}

/// The parts of a subject by their names: `[("tenant", "acme")]`.
pub(super) fn parts<'a>(limit: &'a Limit, subject: &'a str) -> Vec<(&'static str, &'a str)> {
    let each = limit.applies.parts().into_iter();
    let each = each.filter(|(_, which)| *which == Some(&Which::Each));
    each.map(|(part, _)| part)
        .zip(subject.split(BETWEEN))
        .collect()
}

/// Whether it is counted for a request as a whole, before anything is decided,
/// and not for each of its legs.
pub(super) fn is_of_request(limit: &Limit) -> bool {
    limit.applies.target.is_none() && limit.measure.unit() == Unit::Requests
}

/// What a request as a whole claims.
pub(super) fn claims_of_request(limits: &[Limit], who: &Who) -> Vec<Claim> {
    let of_request = limits
        .iter()
        .enumerate()
        .filter(|(_, limit)| is_of_request(limit));
    let claims = of_request.filter_map(|(rule, limit)| {
        Some(Claim {
            rule,
            subject: subject(limit, who, None)?,
            amount: 1,
        })
    });
    claims.collect()
}

/// What a leg claims of one limit: `None` where it does not apply.
pub(super) fn claim_of_leg(
    (rule, limit): (usize, &Limit),
    who: &Who,
    wanted: &Wanted<'_>,
) -> Result<Option<Claim>, NoPrice> {
    if is_of_request(limit) {
        return Ok(None);
    }
    let Some(subject) = subject(limit, who, Some(wanted.target)) else {
        return Ok(None);
    };
    let amount = match limit.measure.unit() {
        Unit::Requests => 1,
        Unit::Tokens => most_tokens(&wanted.sizes),
        Unit::Micro => match wanted.price.ok_or(NoPrice)? {
            price if price.is_free() => return Ok(None),
            // An answer without a bound has no highest price.
            price => price.estimate(&wanted.sizes).most_micro.unwrap_or(u64::MAX),
        },
    };
    Ok(Some(Claim {
        rule,
        subject,
        amount,
    }))
}

/// The longest prompt and the longest answer.
pub(super) fn most_tokens(sizes: &Sizes) -> u64 {
    let prompt = sizes.most_prompt.max(sizes.prompt);
    prompt.saturating_add(sizes.most_completion.unwrap_or(u64::MAX))
}

/// Whether any limit counts what this request's answers take.
pub(super) fn counts_answers(limits: &[Limit], who: &Who) -> bool {
    limits.iter().any(|limit| {
        // A limit of some target may be this one's; the others are compared.
        let mut of_anyone = limit.applies.clone();
        of_anyone.target = None;
        let asker = Limit {
            applies: of_anyone,
            ..limit.clone()
        };
        limit.measure.unit() != Unit::Requests && subject(&asker, who, None).is_some()
    })
}

/// Whether a figure is a budget: of a day or month.
pub(super) fn is_budget(measure: Measure) -> bool {
    matches!(measure.span(), Span::Day | Span::Month)
}
