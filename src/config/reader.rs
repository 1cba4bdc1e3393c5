//! Walks a parsed TOML table and takes typed values out of it, gathering
//! errors instead of stopping at the first one.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::errors::{Notes, names_a_secret};
use super::units;

/// A value of the file.
pub(super) type Raw<'a, 't> = &'a Spanned<DeValue<'t>>;

/// One table of the file, while it is read.
pub(super) struct Section<'a, 't> {
    /// What leads here, such as `providers.openai`; empty at the root.
    pub(super) path: String,
    table: &'a DeTable<'t>,
    /// Where errors about the whole table point to.
    pub(super) span: Range<usize>,
    known: Vec<&'static str>,
}

/// The most characters that a text of the file may have.
const MAX_TEXT: usize = 4096;

impl<'a, 't> Section<'a, 't> {
    pub(super) fn new(path: impl Into<String>, table: &'a DeTable<'t>, span: Range<usize>) -> Self {
        Self {
            path: path.into(),
            table,
            span,
            known: Vec::new(),
        }
    }

    /// The full name of one of its keys.
    pub(super) fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// A key's raw value; from now on the key is known.
    pub(super) fn take(&mut self, name: &'static str) -> Option<Raw<'a, 't>> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.table.get(name)
    }

    /// Where a key's name stands.
    pub(super) fn key_span(&self, name: &str) -> Range<usize> {
        self.table
            .get_key_value(name)
            .map_or_else(|| self.span.clone(), |(key, _)| key.span())
    }

    /// A subtable; an absent one is an empty one to the caller.
    pub(super) fn section(
        &mut self,
        name: &'static str,
        notes: &mut Notes<'_>,
    ) -> Option<Section<'a, 't>> {
        let value = self.take(name)?;
        let path = self.key(name);
        as_section(&path, value, self.key_span(name), notes)
    }

    pub(super) fn text(
        &mut self,
        name: &'static str,
        notes: &mut Notes<'_>,
    ) -> Option<Spanned<String>> {
        let value = self.take(name)?;
        as_text(&self.key(name), value, notes)
    }

    pub(super) fn flag(&mut self, name: &'static str, notes: &mut Notes<'_>) -> Option<bool> {
        let value = self.take(name)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                let key = self.key(name);
                let mend = match other {
                    DeValue::String(text) if text == "true" || text == "false" => {
                        format!("write {text} without quotes")
                    }
                    _ => "write true or false".to_owned(),
                };
                notes.at(
                    value.span(),
                    &key,
                    wrong_type(&key, "true or false", other),
                    mend,
                );
                None
            }
        }
    }

    /// A whole number from `min` to `max`.
    pub(super) fn integer(
        &mut self,
        name: &'static str,
        min: u64,
        max: u64,
        notes: &mut Notes<'_>,
    ) -> Option<u64> {
        let value = self.take(name)?;
        let key = self.key(name);
        let range = format!("write a whole number from {min} to {max}");
        let DeValue::Integer(number) = value.get_ref() else {
            notes.at(
                value.span(),
                &key,
                wrong_type(&key, "a whole number", value.get_ref()),
                range,
            );
            return None;
        };
        match u64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) if (min..=max).contains(&number) => Some(number),
            _ => {
                notes.at(
                    value.span(),
                    &key,
                    format!("`{key}` is out of range"),
                    range,
                );
                None
            }
        }
    }

    /// A number from 0 to `max`.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        max: f64,
        notes: &mut Notes<'_>,
    ) -> Option<f64> {
        let value = self.take(name)?;
        let key = self.key(name);
        let range = format!("write a number from 0 to {max}");
        let number = match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .ok()
                .map(|number| number as f64),
            DeValue::Float(number) => number.as_str().parse().ok(),
            other => {
                notes.at(
                    value.span(),
                    &key,
                    wrong_type(&key, "a number", other),
                    range,
                );
                return None;
            }
        };
        match number {
            Some(number) if (0.0..=max).contains(&number) => Some(number),
            _ => {
                notes.at(
                    value.span(),
                    &key,
                    format!("`{key}` is out of range"),
                    range,
                );
                None
            }
        }
    }

    /// A duration such as `"5s"`, from `min` to `max`.
    pub(super) fn duration(
        &mut self,
        name: &'static str,
        min: Duration,
        max: Duration,
        notes: &mut Notes<'_>,
    ) -> Option<Duration> {
        let value = self.take(name)?;
        let key = self.key(name);
        let text = match value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) => {
                notes.at(
                    value.span(),
                    &key,
                    format!("`{key}` has no unit"),
                    format!("write \"{0}s\" or \"{0}ms\"", number.as_str()),
                );
                return None;
            }
            other => {
                notes.at(
                    value.span(),
                    &key,
                    wrong_type(&key, "a duration", other),
                    "write it like \"5s\" or \"250ms\"",
                );
                return None;
            }
        };
        match units::duration(text) {
            Some(duration) if (min..=max).contains(&duration) => Some(duration),
            Some(_) => {
                notes.at(
                    value.span(),
                    &key,
                    format!("`{key}` is out of range"),
                    format!(
                        "write a duration from {} to {}",
                        units::show_duration(min),
                        units::show_duration(max)
                    ),
                );
                None
            }
            None => {
                notes.at(
                    value.span(),
                    &key,
                    format!("`{key}` is not a duration"),
                    "write a number with a unit (ms, s, m, h, d), like \"5s\", \"250ms\" or \"1h30m\"",
                );
                None
            }
        }
    }

    /// A size such as `"32MiB"`, or a whole number of bytes, from `min` to `max`.
    pub(super) fn size(
        &mut self,
        name: &'static str,
        min: u64,
        max: u64,
        notes: &mut Notes<'_>,
    ) -> Option<u64> {
        let value = self.take(name)?;
        let key = self.key(name);
        let size = match value.get_ref() {
            DeValue::String(text) => units::size(text),
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            other => {
                notes.at(
                    value.span(),
                    &key,
                    wrong_type(&key, "a size", other),
                    "write it like \"32MiB\"",
                );
                return None;
            }
        };
        match size {
            Some(size) if (min..=max).contains(&size) => Some(size),
            Some(_) => {
                notes.at(
                    value.span(),
                    &key,
                    format!("`{key}` is out of range"),
                    format!(
                        "write a size from {} to {}",
                        units::show_size(min),
                        units::show_size(max)
                    ),
                );
                None
            }
            None => {
                notes.at(
                    value.span(),
                    &key,
                    format!("`{key}` is not a size"),
                    "write a number with a unit (B, KiB, MiB, GiB, kB, MB, GB), like \"32MiB\"",
                );
                None
            }
        }
    }

    /// Every entry of the table, for tables whose keys are names of the user's.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'a str, Range<usize>, Raw<'a, 't>)> + use<'a, 't> {
        self.table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), key.span(), value))
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self, notes: &mut Notes<'_>) {
        for (key, value) in self.table {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let full = self.key(name);
            if names_a_secret(name) && matches!(value.get_ref(), DeValue::String(_)) {
                notes.at(
                    key.span(),
                    full,
                    format!("`{name}` looks like a key in this file"),
                    "put the key into a file that only nearfar may read, and name the file: \
                     key_file = \"/etc/nearfar/keys/NAME\"",
                );
                continue;
            }
            let place = if self.path.is_empty() {
                "at the top level".to_owned()
            } else {
                format!("in [{}]", self.path)
            };
            let mend = match nearest(name, &self.known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the keys {place} are {}", self.known.join(", ")),
            };
            notes.at(
                key.span(),
                full,
                format!("there is no key `{}` {place}", shorten(name)),
                mend,
            );
        }
    }
}

pub(super) fn as_section<'a, 't>(
    path: &str,
    value: Raw<'a, 't>,
    key_span: Range<usize>,
    notes: &mut Notes<'_>,
) -> Option<Section<'a, 't>> {
    match value.get_ref() {
        DeValue::Table(table) => Some(Section::new(path, table, key_span)),
        other => {
            notes.at(
                value.span(),
                path,
                wrong_type(path, "a table", other),
                format!("write a section [{path}]"),
            );
            None
        }
    }
}

pub(super) fn as_text(
    key: &str,
    value: Raw<'_, '_>,
    notes: &mut Notes<'_>,
) -> Option<Spanned<String>> {
    let DeValue::String(text) = value.get_ref() else {
        notes.at(
            value.span(),
            key,
            wrong_type(key, "a text", value.get_ref()),
            "write it in quotes",
        );
        return None;
    };
    let (what, mend) = if text.trim().is_empty() {
        ("is empty", "write a value, or leave the key out")
    } else if text.len() > MAX_TEXT {
        ("is too long", "write at most 4096 characters")
    } else if text.chars().any(char::is_control) {
        (
            "holds control characters",
            "write it on one line, without tabs",
        )
    } else {
        return Some(Spanned::new(value.span(), text.clone().into_owned()));
    };
    notes.at(value.span(), key, format!("`{key}` {what}"), mend);
    None
}

/// "`key` must be a table, not a string".
pub(super) fn wrong_type(key: &str, wanted: &str, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("`{key}` must be {wanted}, not {found}")
}

/// The candidate that was probably meant, if one is near enough.
pub(super) fn nearest<'c>(word: &str, candidates: &[&'c str]) -> Option<&'c str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance where swapping two neighbours counts once (restricted
/// Damerau-Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + change);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row[j] = best;
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// A name of the user's, short enough for a message.
pub(super) fn shorten(name: &str) -> String {
    let clean: String = name
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(48)
        .collect();
    if super::errors::looks_like_a_key(name) {
        return "…".to_owned();
    }
    if name.chars().count() > 48 {
        format!("{clean}…")
    } else {
        clean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word() {
        let known = ["listen", "drain", "max_requests", "max_connections"];
        assert_eq!(nearest("listne", &known), Some("listen"));
        assert_eq!(nearest("Max-Request", &known), Some("max_requests"));
        assert_eq!(nearest("colour", &known), None);
    }
}
