//! Which placeholder stands for which value.

use std::collections::HashMap;
use std::fmt;

use crate::guard::{Counts, Finding, Kind, Kinds, scan};

/// Characters of a [`Nonce`].
pub const NONCE_LENGTH: usize = 6;

/// What a request's placeholders end in. Drawn by the caller: nothing here
/// draws random numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce([u8; NONCE_LENGTH]);

impl Nonce {
    /// A nonce of 30 random bits.
    pub fn new(bits: u32) -> Self {
        const SIGNS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
        let mut signs = [0; NONCE_LENGTH];
        for (place, sign) in signs.iter_mut().enumerate() {
            *sign = SIGNS[(bits >> (5 * place)) as usize & 31];
        }
        Self(signs)
    }

    /// The characters.
    pub fn shown(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The longest placeholder, in bytes.
pub(super) const MAX_PLACEHOLDER: usize = 32;

/// The name of what a placeholder stands for: a hint to the model.
fn label(kind: Option<Kind>) -> &'static str {
    match kind {
        Some(Kind::Card) => "CARD",
        Some(Kind::Iban) => "IBAN",
        Some(Kind::Email) => "EMAIL",
        Some(Kind::Phone) => "PHONE",
        Some(Kind::Ssn) => "SSN",
        Some(Kind::NationalId) => "ID",
        Some(Kind::Ip) => "IP",
        Some(Kind::Mac) => "MAC",
        Some(Kind::Url) => "URL",
        Some(Kind::Coordinates) => "PLACE",
        Some(Kind::Secret) => "SECRET",
        None => "TEXT",
    }
}

/// A value and what stands for it.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) placeholder: String,
    pub(super) value: String,
}

/// What stands for what in one request.
#[derive(Clone)]
pub struct Vault {
    kinds: Kinds,
    nonce: Nonce,
    items: Vec<Item>,
    by_value: HashMap<String, usize>,
    /// Placeholders in lower case with the item's index, sorted: models change
    /// the case of what they repeat.
    sorted: Vec<(String, usize)>,
    counts: Counts,
}

/// Where in a text something is replaced. `kind` is `None` for what looks like
/// a placeholder.
struct Place {
    kind: Option<Kind>,
    start: usize,
    end: usize,
}

impl Vault {
    /// An empty vault that replaces these kinds.
    pub fn new(kinds: Kinds, nonce: Nonce) -> Self {
        Self {
            kinds,
            nonce,
            items: Vec::new(),
            by_value: HashMap::new(),
            sorted: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// How many places of each kind were replaced.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether nothing was replaced.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Replaces what a text holds; `None` where it holds nothing.
    pub fn redact(&mut self, text: &str) -> Option<String> {
        self.replace(text, self.kinds, false, |_, placeholder, out| {
            out.push_str(placeholder)
        })
    }

    /// The same for JSON text: values are kept without its escapes, and a
    /// number becomes a string. `kinds` narrows what is replaced.
    pub fn redact_json(&mut self, json: &str, kinds: Kinds) -> Option<String> {
        let mut strings = Strings::new(json);
        let kinds = self.kinds.and(kinds);
        self.replace(json, kinds, true, |start, placeholder, out| {
            if strings.inside(start) {
                out.push_str(placeholder);
            } else {
                out.push('"');
                out.push_str(placeholder);
                out.push('"');
            }
        })
    }

    /// The same for a regular expression, where brackets mean something.
    pub(super) fn redact_pattern(&mut self, pattern: &str) -> Option<String> {
        self.replace(pattern, self.kinds, false, |_, placeholder, out| {
            out.push_str(&placeholder.replace('[', "\\[").replace(']', "\\]"));
        })
    }

    fn replace(
        &mut self,
        text: &str,
        kinds: Kinds,
        json: bool,
        mut write: impl FnMut(usize, &str, &mut String),
    ) -> Option<String> {
        let places = places(text, kinds);
        if places.is_empty() {
            return None;
        }
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        for place in places {
            out.push_str(&text[at..place.start]);
            let raw = &text[place.start..place.end];
            let index = if json && raw.contains('\\') {
                // Such as a key's block with its lines.
                let value = serde_json::from_str::<String>(&format!("\"{raw}\""));
                self.item(place.kind, value.as_deref().unwrap_or(raw))
            } else {
                self.item(place.kind, raw)
            };
            write(place.start, &self.items[index].placeholder, &mut out);
            at = place.end;
        }
        out.push_str(&text[at..]);
        Some(out)
    }

    /// The item of a value; the same value has the same one.
    fn item(&mut self, kind: Option<Kind>, raw: &str) -> usize {
        if let Some(kind) = kind {
            self.counts.add(kind);
        }
        if let Some(index) = self.by_value.get(raw) {
            return *index;
        }
        let index = self.items.len();
        let (label, nonce) = (label(kind), self.nonce.shown());
        self.items.push(Item {
            placeholder: format!("[{label}-{}-{nonce}]", index + 1),
            value: raw.to_owned(),
        });
        self.by_value.insert(raw.to_owned(), index);
        index
    }

    /// Makes it ready to restore.
    pub(super) fn settle(&mut self) {
        let lower = |item: &Item| item.placeholder.to_ascii_lowercase();
        self.sorted = self
            .items
            .iter()
            .enumerate()
            .map(|(i, item)| (lower(item), i))
            .collect();
        self.sorted.sort_unstable();
    }

    /// The value that a placeholder stands for, in whatever case it is written.
    pub(super) fn value_of(&self, placeholder: &str) -> Option<&str> {
        let (buffer, length) = lower(placeholder)?;
        let key = &buffer[..length];
        let found = self
            .sorted
            .binary_search_by(|(known, _)| known.as_bytes().cmp(key));
        found
            .ok()
            .map(|at| self.items[self.sorted[at].1].value.as_str())
    }

    /// Whether a placeholder begins so.
    pub(super) fn begins(&self, text: &str) -> bool {
        let Some((buffer, length)) = lower(text) else {
            return false;
        };
        let key = &buffer[..length];
        let at = self
            .sorted
            .partition_point(|(known, _)| known.as_bytes() < key);
        self.sorted
            .get(at)
            .is_some_and(|(known, _)| known.as_bytes().starts_with(key))
    }
}

fn lower(text: &str) -> Option<([u8; MAX_PLACEHOLDER], usize)> {
    let mut buffer = [0; MAX_PLACEHOLDER];
    let part = buffer.get_mut(..text.len())?;
    part.copy_from_slice(text.as_bytes());
    part.make_ascii_lowercase();
    Some((buffer, text.len()))
}

/// Everything to be replaced, in order and apart. Where an identifier and a
/// look-alike overlap they are one place.
fn places(text: &str, kinds: Kinds) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    scan(text, kinds, |finding: Finding| {
        // An escape's backslash stays with what it escapes.
        let end = finding.end - usize::from(text[..finding.end].ends_with('\\'));
        if end > finding.start {
            places.push(Place {
                kind: Some(finding.kind),
                start: finding.start,
                end,
            });
        }
    });
    let looks: Vec<Place> = look_alikes(text).collect();
    if looks.is_empty() {
        return places;
    }
    places.extend(looks);
    places.sort_by_key(|place| place.start);
    let mut apart: Vec<Place> = Vec::with_capacity(places.len());
    for place in places {
        match apart.last_mut() {
            Some(last) if place.start < last.end => {
                last.end = last.end.max(place.end);
                last.kind = last.kind.or(place.kind);
            }
            _ => apart.push(place),
        }
    }
    apart
}

/// Text in the form of a placeholder, whoever wrote it.
fn look_alikes(text: &str) -> impl Iterator<Item = Place> {
    text.match_indices('[').filter_map(|(start, _)| {
        let rest = &text.as_bytes()[start + 1..];
        let run = |from: usize, fits: fn(&u8) -> bool| {
            rest[from..]
                .iter()
                .take(MAX_PLACEHOLDER)
                .take_while(|b| fits(b))
                .count()
        };
        let letters = run(0, u8::is_ascii_alphabetic);
        let number = letters + 1;
        let digits = run(number.min(rest.len()), u8::is_ascii_digit);
        let nonce = number + digits + 1;
        let signs = run(nonce.min(rest.len()), u8::is_ascii_alphanumeric);
        let close = nonce + signs;
        let fits = letters > 0
            && digits > 0
            && signs == NONCE_LENGTH
            && rest.get(letters) == Some(&b'-')
            && rest.get(nonce - 1) == Some(&b'-')
            && rest.get(close) == Some(&b']');
        fits.then_some(Place {
            kind: None,
            start,
            end: start + close + 2,
        })
    })
}

/// Follows JSON text and tells whether a place is inside a string.
struct Strings<'j> {
    json: &'j [u8],
    at: usize,
    inside: bool,
}

impl<'j> Strings<'j> {
    fn new(json: &'j str) -> Self {
        Self {
            json: json.as_bytes(),
            at: 0,
            inside: false,
        }
    }

    /// Asked in ascending order.
    fn inside(&mut self, place: usize) -> bool {
        while self.at < place {
            match self.json[self.at] {
                b'\\' if self.inside => self.at += 1,
                b'"' => self.inside = !self.inside,
                _ => {}
            }
            self.at += 1;
        }
        self.inside
    }
}

// Values are content.
impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({} values)", self.items.len())
    }
}
