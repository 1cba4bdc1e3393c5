//! `[cache]`: which answers are kept, and for how long.

use std::collections::BTreeMap;
use std::time::Duration;

use super::errors::Notes;
use super::reader::{Section, as_section, as_text, shorten, wrong_type};
use toml::Spanned;
use toml::de::DeValue;

/// What the cache is to do. By default nothing: no answer is kept that the
/// device's owner did not ask to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Whether the same request gets the kept answer.
    pub exact: bool,
    /// How long an answer is kept.
    pub ttl: Duration,
    /// Bytes that all kept answers may take.
    pub max_bytes: usize,
    /// How many are kept at most.
    pub max_entries: usize,
    /// Whether answers to requests that must stay on this device are kept, too.
    pub confined: bool,
    /// Whether answers are kept that another try would word otherwise.
    pub non_deterministic: bool,
    /// Whether a request that means the same gets the kept answer.
    pub semantic: Option<Semantic>,
    /// What holds for one feature in place of the above.
    pub features: BTreeMap<String, Feature>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            exact: false,
            ttl: Duration::from_secs(3_600),
            max_bytes: 8 << 20,
            max_entries: 4_096,
            confined: false,
            non_deterministic: false,
            semantic: None,
            features: BTreeMap::new(),
        }
    }
}

/// `[cache.semantic]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semantic {
    /// The local model that makes the vectors, without `local/`.
    pub model: String,
    /// The least cosine of two questions that are taken for one, in thousandths.
    pub threshold_permille: u16,
    /// Features that it is for; no others.
    pub features: Vec<String>,
}

/// `[cache.features.NAME]`. `None` is what holds for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feature {
    /// See [`Cache::ttl`].
    pub ttl: Option<Duration>,
    /// See [`Cache::non_deterministic`].
    pub non_deterministic: Option<bool>,
    /// See [`Semantic::threshold_permille`].
    pub threshold_permille: Option<u16>,
}

impl Cache {
    /// Whether anything is kept at all.
    pub fn is_on(&self) -> bool {
        self.exact || self.semantic.is_some()
    }
}

/// What holds where nobody says: of the pairs of questions that were measured,
/// hardly one as near had two answers (docs/cache.md).
pub const DEFAULT_THRESHOLD_PERMILLE: u16 = 970;

const MAX_FEATURES: usize = 1_024;
const SECOND: Duration = Duration::from_secs(1);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn read(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Cache {
    let default = Cache::default();
    let exact = section.flag("exact", notes);
    let ttl = section.duration("ttl", SECOND, MONTH, notes);
    let bytes = section.size("max_bytes", 64 << 10, 1 << 30, notes);
    let entries = section.integer("max_entries", 1, 1 << 20, notes);
    let confined = section.flag("confined", notes);
    let non_deterministic = section.flag("non_deterministic", notes);
    let semantic = section
        .section("semantic", notes)
        .and_then(|section| semantic(section, notes));
    let mut features = BTreeMap::new();
    if let Some(tables) = section.section("features", notes) {
        for (count, (name, span, value)) in tables.entries().enumerate() {
            let key = tables.key(&shorten(name));
            if count == MAX_FEATURES || !is_feature(name) {
                let what = match count {
                    MAX_FEATURES => "there are more than 1024 features",
                    _ => "a feature's name must have 1 to 128 printable characters",
                };
                notes.at(span, &key, what, "leave it out, or shorten its name");
                break;
            }
            if let Some(table) = as_section(&key, value, span, notes) {
                features.insert(name.to_owned(), feature(table, notes));
            }
        }
    }
    section.finish(notes);
    Cache {
        exact: exact.unwrap_or(default.exact),
        ttl: ttl.unwrap_or(default.ttl),
        max_bytes: bytes.map_or(default.max_bytes, |bytes| bytes as usize),
        max_entries: entries.map_or(default.max_entries, |count| count as usize),
        confined: confined.unwrap_or(default.confined),
        non_deterministic: non_deterministic.unwrap_or(default.non_deterministic),
        semantic,
        features,
    }
}

fn is_feature(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && !name.chars().any(char::is_control)
}

fn feature(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Feature {
    let feature = Feature {
        ttl: section.duration("ttl", SECOND, MONTH, notes),
        non_deterministic: section.flag("non_deterministic", notes),
        threshold_permille: threshold(&mut section, notes),
    };
    section.finish(notes);
    feature
}

fn threshold(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Option<u16> {
    let cosine = section.number("threshold", 1.0, notes)?;
    Some((cosine * 1e3).round() as u16)
}

fn semantic(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Semantic> {
    let said = section.take("model").is_some();
    let model = section
        .text("model", notes)
        .and_then(|name| super::local_model("cache.semantic.model", &name, notes));
    if !said {
        notes.absent(
            section.span.clone(),
            section.key("model"),
            "a semantic cache needs a model that makes vectors",
            "write model = \"…\", a local embedding model that `nearfar model list` shows",
        );
    }
    let threshold = threshold(&mut section, notes);
    let features = names("features", &mut section, notes);
    if features.as_ref().is_none_or(Vec::is_empty) && section.take("features").is_none() {
        notes.absent(
            section.span.clone(),
            section.key("features"),
            "a semantic cache is for features that are named",
            "write features = [\"…\"], as requests name them in x-nearfar-feature",
        );
    }
    section.finish(notes);
    Some(Semantic {
        model: model?,
        threshold_permille: threshold.unwrap_or(DEFAULT_THRESHOLD_PERMILLE),
        features: features?,
    })
}

fn names(
    name: &'static str,
    section: &mut Section<'_, '_>,
    notes: &mut Notes<'_>,
) -> Option<Vec<String>> {
    let value = section.take(name)?;
    let key = section.key(name);
    match value.get_ref() {
        DeValue::Array(items) if (1..=MAX_FEATURES).contains(&items.len()) => {
            let texts = items.iter().filter_map(|item| as_text(&key, item, notes));
            Some(texts.map(Spanned::into_inner).collect())
        }
        other => {
            notes.at(
                value.span(),
                &key,
                wrong_type(&key, "a list of 1 to 1024 names", other),
                "write a list of features, like [\"faq\"]",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Config, ConfigErrors, Overrides};

    fn parse(text: &str) -> Result<Cache, ConfigErrors> {
        Config::parse(text, None, &Overrides::default()).map(|config| config.cache)
    }

    #[test]
    fn nothing_is_kept_unless_somebody_says_so() {
        assert_eq!(parse("").unwrap(), Cache::default());
        assert!(!parse("[cache]\nttl = \"1m\"").unwrap().is_on());
        assert!(parse("[cache]\nexact = true").unwrap().is_on());
    }

    #[test]
    fn everything_can_be_said() {
        let cache = parse(
            r#"
            [cache]
            exact = true
            ttl = "10m"
            max_bytes = "1MiB"
            max_entries = 64
            confined = true
            [cache.semantic]
            model = "local/minilm"
            threshold = 0.9
            features = ["faq", "help"]
            [cache.features.faq]
            non_deterministic = true
            threshold = 1
            ttl = "1m"
            "#,
        )
        .unwrap();
        assert_eq!((cache.max_bytes, cache.max_entries), (1 << 20, 64));
        assert!(cache.confined && !cache.non_deterministic);
        let semantic = cache.semantic.unwrap();
        assert_eq!(
            (semantic.model.as_str(), semantic.threshold_permille),
            ("minilm", 900)
        );
        assert_eq!(semantic.features, ["faq", "help"]);
        assert_eq!(cache.features["faq"].threshold_permille, Some(1_000));
        assert_eq!(cache.features["faq"].ttl, Some(Duration::from_secs(60)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let errors = parse(
            "[cache]\nexakt = true\nttl = 5\n[cache.semantic]\nthreshold = 2\n\
             [cache.features.x]\nttl = \"1\"\n",
        )
        .unwrap_err()
        .errors;
        let told: Vec<(usize, &str)> = errors.iter().map(|e| (e.line, e.what.as_str())).collect();
        let has = |line, part: &str| {
            told.iter()
                .any(|(l, what)| *l == line && what.contains(part))
        };
        assert!(has(2, "no key `exakt`"), "{told:?}");
        assert!(has(3, "no unit"), "{told:?}");
        assert!(
            has(4, "needs a model") && has(4, "features that are named"),
            "{told:?}"
        );
        assert!(has(5, "out of range"), "{told:?}");
        assert!(has(7, "not a duration"), "{told:?}");
    }
}
