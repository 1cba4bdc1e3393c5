//! A table of prices as it is written, and how a line is found in it.

use std::path::Path;

use nearfar_domain::calendar::{DAY_MS, days_of};
use nearfar_domain::price::{Long, Price, Rates};
use serde::Deserialize;

/// One provider's prices.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// The preset that it is for.
    pub name: String,
    /// Where the prices stand.
    pub source: String,
    /// When they were last held against it: `YYYY-MM-DD`.
    pub checked: String,
    /// What a unit is.
    pub currency: String,
    /// Models.
    pub lines: Vec<Line>,
}

/// One price and the models that have it.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Names; a `*` at an end stands for anything.
    pub patterns: Vec<String>,
    /// What they cost.
    pub price: Price,
    /// When that was looked up.
    pub checked: String,
}

/// What is wrong with a table, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TableError(String);

impl TableError {
    pub(super) fn at(path: &Path, what: &dyn std::fmt::Display) -> TableError {
        TableError(format!("the table of prices {}: {what}", path.display()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTable {
    #[serde(default)]
    list: Vec<RawList>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawList {
    name: String,
    source: String,
    checked: String,
    currency: String,
    models: Vec<RawLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLine {
    #[serde(rename = "match")]
    patterns: Vec<String>,
    prompt: f64,
    cached_prompt: Option<f64>,
    cache_write: Option<f64>,
    cache_write_hour: Option<f64>,
    completion: f64,
    reasoning: Option<f64>,
    long: Option<RawLong>,
    checked: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLong {
    above_prompt_tokens: u32,
    prompt: f64,
    cached_prompt: Option<f64>,
    cache_write: Option<f64>,
    cache_write_hour: Option<f64>,
    completion: f64,
    reasoning: Option<f64>,
}

/// The dearest unit price that is taken for one.
const MAX_UNITS: f64 = 1e6;

/// Reads a table.
pub(super) fn read(text: &str) -> Result<Vec<List>, TableError> {
    let raw: RawTable = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = at - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
        let what = error.message().lines().next().unwrap_or("cannot be read");
        TableError(format!("line {line}, column {column}: {what}"))
    })?;
    let lists = raw
        .list
        .into_iter()
        .map(list)
        .collect::<Result<Vec<List>, TableError>>()?;
    if let [first, rest @ ..] = lists.as_slice()
        && let Some(other) = rest.iter().find(|other| other.currency != first.currency)
    {
        return Err(TableError(format!(
            "list {:?} is in {} and list {:?} in {}: costs are added up, so all prices need one \
             currency",
            first.name, first.currency, other.name, other.currency
        )));
    }
    Ok(lists)
}

fn list(raw: RawList) -> Result<List, TableError> {
    let wrong = |what: String| TableError(format!("list {:?}: {what}", raw.name));
    let dates =
        std::iter::once(&raw.checked).chain(raw.models.iter().filter_map(|l| l.checked.as_ref()));
    if let Some(bad) = dates.into_iter().find(|date| days(date).is_none()) {
        return Err(wrong(format!("{bad:?} is no date like 2026-01-31")));
    }
    if raw.currency.len() != 3 || !raw.currency.chars().all(|c| c.is_ascii_uppercase()) {
        return Err(wrong(
            "a currency is three capital letters, like USD".to_owned(),
        ));
    }
    let mut lines = Vec::with_capacity(raw.models.len());
    for line in &raw.models {
        let what = line.patterns.first().map_or("", String::as_str);
        if line.patterns.is_empty() || line.patterns.iter().any(|name| inner(name).contains('*')) {
            return Err(wrong(format!(
                "{what:?}: `match` needs names, with `*` at their ends only"
            )));
        }
        let price = price(line).ok_or_else(|| {
            wrong(format!(
                "{what:?}: a price is a number of units per million tokens, from 0 to {MAX_UNITS}"
            ))
        })?;
        lines.push(Line {
            patterns: line.patterns.clone(),
            price,
            checked: line.checked.clone().unwrap_or_else(|| raw.checked.clone()),
        });
    }
    Ok(List {
        name: raw.name,
        source: raw.source,
        checked: raw.checked,
        currency: raw.currency,
        lines,
    })
}

fn price(line: &RawLine) -> Option<Price> {
    let rates = rates([
        Some(line.prompt),
        line.cached_prompt,
        line.cache_write,
        line.cache_write_hour,
        Some(line.completion),
        line.reasoning,
    ])?;
    let long = match &line.long {
        None => None,
        Some(long) => Some(Long {
            above_prompt_tokens: long.above_prompt_tokens,
            rates: self::rates([
                Some(long.prompt),
                long.cached_prompt,
                long.cache_write,
                long.cache_write_hour,
                Some(long.completion),
                long.reasoning,
            ])?,
        }),
    };
    Some(Price { rates, long })
}

/// Prompt, cached, write, write for an hour, completion, reasoning.
fn rates(units: [Option<f64>; 6]) -> Option<Rates> {
    let fits = |units: &f64| (0.0..=MAX_UNITS).contains(units);
    if !units.iter().flatten().all(fits) {
        return None;
    }
    let [prompt, cached, write, hour, completion, reasoning] =
        units.map(|units| units.map(|units| (units * 1e6).round() as u64));
    let (prompt, completion) = (prompt?, completion?);
    let write = write.unwrap_or(prompt);
    Some(Rates {
        prompt_micro_per_mtok: prompt,
        cached_prompt_micro_per_mtok: cached.unwrap_or(prompt),
        cache_write_micro_per_mtok: write,
        cache_write_hour_micro_per_mtok: hour.unwrap_or(write.max(prompt)),
        completion_micro_per_mtok: completion,
        reasoning_micro_per_mtok: reasoning.unwrap_or(completion),
    })
}

const HEAD: &str = "[[list]]\n";

/// One list's text. Each begins with its head and its name.
pub(super) fn slice<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    if name.contains(['"', '\n']) {
        return None;
    }
    let begin = text.find(&format!("{HEAD}name = \"{name}\"\n"))?;
    let rest = &text[begin..];
    let end = rest[HEAD.len()..].find(HEAD);
    Some(end.map_or(rest, |end| &rest[..HEAD.len() + end]))
}

/// A pattern without the stars at its ends.
fn inner(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('*').unwrap_or(pattern);
    pattern.strip_suffix('*').unwrap_or(pattern)
}

/// How closely a pattern fits: a whole name best, then by length.
fn fit(pattern: &str, model: &str) -> Option<usize> {
    let part = inner(pattern);
    let fits = match (pattern.starts_with('*'), pattern.ends_with('*')) {
        (false, false) => return (pattern == model).then_some(usize::MAX),
        (true, false) => model.ends_with(part),
        (false, true) => model.starts_with(part),
        (true, true) => model.contains(part),
    };
    fits.then_some(part.len())
}

impl List {
    /// The line whose pattern fits a model's name most closely.
    pub fn find(&self, model: &str) -> Option<&Line> {
        let fits = |line: &Line| line.patterns.iter().filter_map(|p| fit(p, model)).max();
        let all = self
            .lines
            .iter()
            .filter_map(|line| Some((fits(line)?, line)));
        all.max_by_key(|(fit, _)| *fit).map(|(_, line)| line)
    }
}

/// Days from a date to `now_ms`, in milliseconds since 1970; `None` where the
/// text is no date.
pub fn age_days(date: &str, now_ms: i64) -> Option<i64> {
    Some(now_ms.div_euclid(DAY_MS) - days(date)?)
}

/// Days since 1970 of `YYYY-MM-DD`.
fn days(date: &str) -> Option<i64> {
    let bytes = date.as_bytes();
    let dashes = bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-';
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let part = |range: std::ops::Range<usize>| {
        let part = date.get(range).filter(|part| digits(part))?;
        part.parse::<i64>().ok()
    };
    let (year, month, day) = (part(0..4)?, part(5..7)?, part(8..10)?);
    if !dashes
        || !(1970..=9999).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=31).contains(&day)
    {
        return None;
    }
    Some(days_of(year, month) + day - 1)
}
