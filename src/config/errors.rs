//! What is wrong with a configuration: every error with its place and its mend.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::Serialize;

/// One error of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The line, counted from 1; 0 for what did not come from the file.
    pub line: usize,
    /// The column, counted from 1 in characters; 0 as above.
    pub column: usize,
    /// The key at fault, such as `server.listen`, or the command line's option.
    pub key: String,
    /// The offending line, with secrets masked; empty as above.
    pub source_line: String,
    /// How many characters are at fault, from `column`.
    pub width: usize,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

/// Everything that is wrong, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigErrors {
    /// The file, where there is one.
    pub file: Option<String>,
    /// The errors.
    pub errors: Vec<ConfigError>,
}

impl std::error::Error for ConfigErrors {}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_deref().unwrap_or("configuration");
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            error.write(f, file)?;
        }
        Ok(())
    }
}

impl ConfigError {
    fn write(&self, f: &mut fmt::Formatter<'_>, file: &str) -> fmt::Result {
        if self.line == 0 {
            writeln!(f, "{}: {}", self.key, self.what)?;
        } else {
            writeln!(f, "{file}:{}:{}: {}", self.line, self.column, self.what)?;
            let number = self.line.to_string();
            let indent = " ".repeat(number.len());
            writeln!(f, " {number} | {}", self.source_line)?;
            let marks = "^".repeat(self.width.max(1));
            writeln!(
                f,
                " {indent} | {}{marks}",
                " ".repeat(self.column.saturating_sub(1))
            )?;
        }
        writeln!(f, "   mend: {}", self.mend)
    }
}

/// More errors than this are counted, not listed: a file that is something
/// else altogether must not fill the terminal.
const MAX_ERRORS: usize = 100;

/// Gathers errors while a file is read.
pub(super) struct Notes<'t> {
    text: &'t str,
    errors: Vec<(usize, ConfigError)>,
    /// Set when the text is not TOML: keys may be lost then, so nothing is
    /// said about absent ones.
    pub(super) broken: bool,
}

impl<'t> Notes<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            errors: Vec::new(),
            broken: false,
        }
    }

    /// Notes an error at a place of the file.
    pub(super) fn at(
        &mut self,
        span: Range<usize>,
        key: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let place = Place::of(self.text, span);
        self.errors.push((
            place.offset,
            ConfigError {
                line: place.line,
                column: place.column,
                key: key.into(),
                source_line: place.source_line,
                width: place.width,
                what: what.into(),
                mend: mend.into(),
            },
        ));
    }

    /// Notes that something is absent; not when the text itself is broken.
    pub(super) fn absent(
        &mut self,
        span: Range<usize>,
        key: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        if !self.broken {
            self.at(span, key, what, mend);
        }
    }

    /// Notes an error of something that is not in the file.
    pub(super) fn outside(
        &mut self,
        key: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.errors.push((
            usize::MAX,
            ConfigError {
                line: 0,
                column: 0,
                key: key.into(),
                source_line: String::new(),
                width: 0,
                what: what.into(),
                mend: mend.into(),
            },
        ));
    }

    /// The errors in the order of the file, or nothing.
    pub(super) fn finish(mut self, path: Option<&Path>) -> Option<ConfigErrors> {
        if self.errors.is_empty() {
            return None;
        }
        self.errors.sort_by_key(|(offset, _)| *offset);
        let more = self.errors.len().saturating_sub(MAX_ERRORS);
        self.errors.truncate(MAX_ERRORS);
        if more > 0 {
            self.outside(
                "configuration",
                format!("{more} further errors"),
                "mend the ones above first",
            );
        }
        Some(ConfigErrors {
            file: path.map(|p| p.display().to_string()),
            errors: self.errors.into_iter().map(|(_, error)| error).collect(),
        })
    }
}

/// A place in a text, for people.
struct Place {
    offset: usize,
    line: usize,
    column: usize,
    width: usize,
    source_line: String,
}

/// A line longer than this is cut in messages.
const MAX_SOURCE_LINE: usize = 160;

impl Place {
    fn of(text: &str, span: Range<usize>) -> Self {
        let mut offset = span.start.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[offset..]
            .find(['\n', '\r'])
            .map_or(text.len(), |at| offset + at);
        let line = &text[line_start..line_end];
        let column = text[line_start..offset].chars().count() + 1;
        let mut end = span.end.clamp(offset, line_end.max(offset));
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let width = text[offset..end.max(offset)].chars().count().max(1);
        let source_line: String = mask(line)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(MAX_SOURCE_LINE)
            .collect();
        let room = (source_line.chars().count() + 1).saturating_sub(column);
        Self {
            offset,
            line: before.matches('\n').count() + 1,
            column,
            width: width.min(room).max(1),
            source_line,
        }
    }
}

/// The prefixes by which well-known keys are known.
const KEY_PREFIXES: [&str; 9] = [
    "sk-", "sk_", "gsk_", "xai-", "AIza", "hf_", "ghp_", "AKIA", "Bearer ",
];

/// Whether a text looks like a key rather than the name of one.
pub(super) fn looks_like_a_key(text: &str) -> bool {
    let text = text.trim();
    KEY_PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        || (text.len() >= 32
            && text.chars().any(|c| c.is_ascii_digit())
            && text.chars().any(|c| c.is_ascii_lowercase())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)))
}

/// Whether a key of a table names a secret itself, not where it lies.
pub(super) fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace(['-', '_'], "");
    [
        "key",
        "apikey",
        "token",
        "apitoken",
        "secret",
        "apisecret",
        "password",
        "passwd",
        "authorization",
        "auth",
        "bearer",
        "secretkey",
        "accesskey",
        "authtoken",
        "accesstoken",
    ]
    .contains(&key.as_str())
}

/// A line of the file as it may be shown: without anything that could be a key.
fn mask(line: &str) -> String {
    let named = line.split_once('=').is_some_and(|(left, _)| {
        left.split(['.', '{', ',', ' ', '\t', '"', '\''])
            .any(names_a_secret)
    });
    let mut shown = String::with_capacity(line.len());
    let mut quote = None;
    let mut inside = String::new();
    for c in line.chars() {
        match quote {
            None => {
                shown.push(c);
                if c == '"' || c == '\'' {
                    quote = Some(c);
                    inside.clear();
                }
            }
            Some(open) if c == open => {
                shown.push_str(&masked(&inside, named));
                shown.push(c);
                quote = None;
            }
            Some(_) => inside.push(c),
        }
    }
    if quote.is_some() {
        shown.push_str(&masked(&inside, named));
    }
    // A value without quotes is not TOML, but people forget them.
    if shown == line
        && let Some((left, right)) = line.split_once('=')
        && (looks_like_a_key(right) || (named && !right.trim().is_empty()))
        && !right.contains(['"', '\''])
    {
        return format!("{left}= …");
    }
    shown
}

fn masked(inside: &str, named: bool) -> String {
    if (named && inside.chars().count() > 3) || looks_like_a_key(inside) {
        return "…".to_owned();
    }
    // The user part of an address is a secret too.
    match inside.split_once("://") {
        Some((scheme, rest)) if rest.contains('@') => {
            let host = rest.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://…@{host}")
        }
        _ => inside.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        for line in [
            "api_key = \"sk-proj-abcdefghijklmnop\"",
            "key = 'hunter22'",
            "key = hunter22",
            "api-key = {a = \"hunter22\"}",
            "base_url = \"https://user:hunter22@example.com\"",
            "key_env = \"sk-hunter22\"",
            "key_env = sk-hunter22",
            "token = \"hunter22",
        ] {
            let shown = mask(line);
            assert!(!shown.contains("hunter22"), "{shown}");
            assert!(!shown.contains("abcdefgh"), "{shown}");
        }
        assert_eq!(
            mask("key_file = \"keys/openai\""),
            "key_file = \"keys/openai\""
        );
    }

    #[test]
    fn places_are_counted_in_characters() {
        let text = "a = 1\nname = \"ü\" # x\n";
        let place = Place::of(text, 13..17);
        assert_eq!((place.line, place.column, place.width), (2, 8, 3));
        let past = Place::of(text, 500..600);
        assert_eq!(past.line, 3);
    }
}
