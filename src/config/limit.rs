//! `[[limit]]`: how much may be used, by whom, of what.

use nearfar_domain::limit::{Measure, Span};
use toml::Spanned;
use toml::de::DeValue;

use super::errors::Notes;
use super::reader::{Raw, Section, as_section, nearest, shorten, wrong_type};

/// One figure that is not to be passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What messages call it, and what its use is kept under across restarts.
    pub name: String,
    /// What it applies to.
    pub applies: Applies,
    /// What it counts.
    pub measure: Measure,
    /// How much is allowed.
    pub most: u64,
    /// The share, in thousandths, from which requests are steered to cheaper
    /// and nearer targets.
    pub soft_permille: Option<u16>,
    /// Whether it is counted together with other daemons, where `[shared]` says
    /// which.
    pub shared: bool,
}

/// What a limit applies to; `None` is everything, together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applies {
    /// Keys, by their id.
    pub key: Option<Which>,
    /// Who pays.
    pub tenant: Option<Which>,
    /// What for.
    pub feature: Option<Which>,
    /// Who answers; `PROVIDER/*` is all of a provider's models together.
    pub target: Option<Which>,
    /// The endpoint.
    pub endpoint: Option<Which>,
}

/// Which ones of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Each by itself has the whole limit.
    Each,
    /// This one.
    Named(String),
}

impl Applies {
    /// Its parts by their names.
    pub fn parts(&self) -> [(&'static str, Option<&Which>); 5] {
        [
            ("key", self.key.as_ref()),
            ("tenant", self.tenant.as_ref()),
            ("feature", self.feature.as_ref()),
            ("target", self.target.as_ref()),
            ("endpoint", self.endpoint.as_ref()),
        ]
    }

    /// `each tenant, feature voice`, or `everything`.
    pub fn describe(&self) -> String {
        let said = self.parts().into_iter().filter_map(|(part, which)| {
            Some(match which? {
                Which::Each => format!("each {part}"),
                Which::Named(name) => format!("{part} {name}"),
            })
        });
        let said: Vec<String> = said.collect();
        if said.is_empty() {
            return "everything".to_owned();
        }
        said.join(", ")
    }
}

/// Where requests come in.
pub const ENDPOINTS: [&str; 10] = [
    "openai.chat",
    "openai.completions",
    "openai.responses",
    "openai.embeddings",
    "anthropic.messages",
    "ollama.chat",
    "ollama.generate",
    "ollama.embed",
    "ollama.embeddings",
    "prefill",
];

const MAX_LIMITS: usize = 128;
const MAX_NAME: usize = 128;
/// The largest figure: a million million tokens or units are no limit.
const MOST: u64 = 1_000_000_000_000_000;

pub(super) fn read(value: Raw<'_, '_>, notes: &mut Notes<'_>) -> Vec<Limit> {
    let mut limits: Vec<Limit> = Vec::new();
    let DeValue::Array(items) = value.get_ref() else {
        let what = wrong_type("limit", "a list of tables", value.get_ref());
        let mend = "write a section [[limit]] for each limit; time limits stand in [limits]";
        notes.at(value.span(), "limit", what, mend);
        return limits;
    };
    if items.len() > MAX_LIMITS {
        let what = format!("there are more than {MAX_LIMITS} limits");
        let mend = "leave some out, or write \"each\" in place of names";
        notes.at(value.span(), "limit", what, mend);
        return limits;
    }
    for item in items {
        let Some(section) = as_section("limit", item, item.span(), notes) else {
            continue;
        };
        let span = section.span.clone();
        let more = one(section, notes);
        if let Some(first) = more.first()
            && limits.iter().any(|other| other.name == first.name)
        {
            let what = format!("two limits are called `{}`", shorten(&first.name));
            let mend = "write name = \"…\", a different one for each; use is kept under it";
            notes.at(span, "limit.name", what, mend);
            continue;
        }
        limits.extend(more);
    }
    limits
}

/// One section: a limit for each of its figures.
fn one(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Vec<Limit> {
    let name = section.text("name", notes);
    let name = name.and_then(|name| named("limit.name", &name, notes));
    let mut part = |key: &'static str, notes: &mut Notes<'_>| {
        let text = section.text(key, notes)?;
        which(key, &text, notes)
    };
    let applies = Applies {
        key: part("key", notes),
        tenant: part("tenant", notes),
        feature: part("feature", notes),
        target: part("target", notes),
        endpoint: part("endpoint", notes),
    };
    let soft_permille = soft(&mut section, notes);
    let shared = section.flag("shared", notes).unwrap_or(true);
    let mut figures = Vec::new();
    let mut said = false;
    for measure in Measure::ALL {
        let key = measure.as_str();
        said |= section.take(key).is_some();
        // Nothing at all is an allowance, too: it shuts out.
        if let Some(most) = section.integer(key, 0, MOST, notes) {
            figures.push((measure, most));
        }
    }
    if !said {
        notes.absent(
            section.span.clone(),
            "limit",
            "this limit limits nothing",
            "write a figure, like requests_per_minute = 60 or spend_micro_per_day = 5000000",
        );
    }
    if soft_permille.is_some()
        && !figures.is_empty()
        && figures.iter().all(|(m, _)| m.span() == Span::Held)
    {
        notes.at(
            section.key_span("soft"),
            "limit.soft",
            "requests at a time have no soft share",
            "leave soft out, or limit tokens or money",
        );
    }
    section.finish(notes);
    let name = name.unwrap_or_else(|| applies.describe());
    figures
        .into_iter()
        .map(|(measure, most)| Limit {
            name: name.clone(),
            applies: applies.clone(),
            measure,
            most,
            soft_permille: soft_permille.filter(|_| measure.span() != Span::Held),
            shared,
        })
        .collect()
}

fn named(key: &str, text: &Spanned<String>, notes: &mut Notes<'_>) -> Option<String> {
    if text.get_ref().len() <= MAX_NAME {
        return Some(text.get_ref().clone());
    }
    let mend = format!("write at most {MAX_NAME} characters");
    notes.at(text.span(), key, format!("`{key}` is too long"), mend);
    None
}

fn which(part: &'static str, text: &Spanned<String>, notes: &mut Notes<'_>) -> Option<Which> {
    let key = format!("limit.{part}");
    let name = named(&key, text, notes)?;
    if name == "each" {
        return Some(Which::Each);
    }
    let wrong = match part {
        "endpoint" if !ENDPOINTS.contains(&name.as_str()) => Some((
            format!("`{}` is not an endpoint", shorten(&name)),
            match nearest(&name, &ENDPOINTS) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("write \"each\" or one of {}", ENDPOINTS.join(", ")),
            },
        )),
        "target" if !is_target(&name) => Some((
            format!("`{}` is not a target", shorten(&name)),
            "write \"each\", PROVIDER/MODEL, local/MODEL, or PROVIDER/* for all of a provider's \
             models together"
                .to_owned(),
        )),
        _ => None,
    };
    if let Some((what, mend)) = wrong {
        notes.at(text.span(), key, what, mend);
        return None;
    }
    Some(Which::Named(name))
}

/// `PLACE/MODEL` or `PLACE/*`.
fn is_target(name: &str) -> bool {
    name.split_once('/').is_some_and(|(place, model)| {
        let whole = model == "*" || !model.contains('*');
        !place.is_empty() && !place.contains('*') && !model.is_empty() && whole
    })
}

/// A share from 0.01 to 1 as thousandths.
fn soft(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Option<u16> {
    let share = section.number("soft", 1.0, notes)?;
    if share >= 0.01 {
        return Some((share * 1_000.0).round() as u16);
    }
    notes.at(
        section.key_span("soft"),
        "limit.soft",
        "`limit.soft` is out of range",
        "write a share from 0.01 to 1, like 0.8",
    );
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Config, Overrides};
    use super::*;

    fn parse(text: &str) -> Result<Vec<Limit>, String> {
        let overrides = Overrides {
            state_dir: "/state".into(),
            ..Overrides::default()
        };
        Config::parse(text, None, &overrides)
            .map(|config| config.use_limits)
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn a_section_may_hold_several_figures() {
        let limits = parse(
            "[[limit]]\nname = \"shop\"\ntenant = \"each\"\nfeature = \"voice\"\nsoft = 0.8\n\
             requests_per_minute = 60\nspend_micro_per_month = 5_000_000\n",
        )
        .unwrap();
        let applies = Applies {
            tenant: Some(Which::Each),
            feature: Some(Which::Named("voice".into())),
            ..Applies::default()
        };
        assert_eq!(applies.describe(), "each tenant, feature voice");
        let measures: Vec<_> = limits.iter().map(|l| (l.measure, l.most)).collect();
        assert_eq!(
            measures,
            [
                (Measure::RequestsPerMinute, 60),
                (Measure::SpendMicroPerMonth, 5_000_000)
            ]
        );
        for limit in &limits {
            assert_eq!(limit.name, "shop");
            assert_eq!(limit.applies, applies);
            assert_eq!(limit.soft_permille, Some(800));
        }
        let unnamed = parse("[[limit]]\ntokens_per_day = 5\n").unwrap();
        assert_eq!(unnamed[0].name, "everything");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_mend() {
        for (text, place, mend) in [
            ("[[limit]]\ntenant = \"a\"\n", "1:1", "write a figure"),
            (
                "[[limit]]\nrequests_per_minuet = 6\n",
                "2:1",
                "did you mean `requests_per_minute`?",
            ),
            (
                "[[limit]]\ntokens_per_day = -1\n",
                "2:18",
                "write a whole number from 0",
            ),
            (
                "[[limit]]\ntokens_per_day = 1\nsoft = 80\n",
                "3:8",
                "write a number from 0 to 1",
            ),
            (
                "[[limit]]\nconcurrent_requests = 1\nsoft = 0.5\n",
                "3:1",
                "leave soft out",
            ),
            (
                "[[limit]]\ntokens_per_day = 1\ntarget = \"gpt-4o\"\n",
                "3:10",
                "PROVIDER/*",
            ),
            (
                "[[limit]]\ntokens_per_day = 1\nendpoint = \"openai.chta\"\n",
                "3:12",
                "did you mean \"openai.chat\"?",
            ),
            (
                "[[limit]]\ntokens_per_day = 1\n[[limit]]\nrequests_per_minute = 1\n",
                "3:1",
                "write name",
            ),
            ("[limit]\ntokens_per_day = 1\n", "1:1", "[[limit]]"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(&format!(":{place}:")), "{text}: {said}");
            assert!(said.contains(mend), "{text}: {said}");
        }
    }
}
