//! Finds identifiers in text: cards, accounts, addresses of machines and
//! people's mail, telephone numbers, ids of states, secrets.
//!
//! [`scan`] goes over a text once. Every recogniser is written by hand, looks
//! ahead a bounded number of bytes and never goes back behind what it took, so
//! the time is linear in the text whatever the text is. Checksums (Luhn,
//! mod-97, the national ones) and the words nearby ([`context`]) decide where
//! a form alone would not.
//!
//! What is not here: names of people, organisations and places, and street
//! addresses. They have no form that could be checked; a recogniser that
//! guesses would hide ordinary words and still miss most.

mod bank;
mod context;
mod coordinates;
mod ids;
mod ids_lettered;
mod net;
mod number;
mod phone;
mod scanner;
mod secrets;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// What kind of identifier was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Kind {
    /// A payment card's number, with Luhn's checksum.
    Card,
    /// An international bank account number, with its country's length and mod-97.
    Iban,
    /// A mail address.
    Email,
    /// A telephone number, international or national.
    Phone,
    /// A social security number of the United States.
    Ssn,
    /// Another state's id of a person.
    NationalId,
    /// An IPv4 or IPv6 address.
    Ip,
    /// A network card's address.
    Mac,
    /// A web address.
    Url,
    /// A place on earth.
    Coordinates,
    /// A key, a token, a password.
    Secret,
}

impl Kind {
    /// Every kind, in the order of [`Kind`].
    pub const ALL: [Kind; 11] = [
        Kind::Card,
        Kind::Iban,
        Kind::Email,
        Kind::Phone,
        Kind::Ssn,
        Kind::NationalId,
        Kind::Ip,
        Kind::Mac,
        Kind::Url,
        Kind::Coordinates,
        Kind::Secret,
    ];

    /// The name in the configuration, in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Card => "card",
            Kind::Iban => "iban",
            Kind::Email => "email",
            Kind::Phone => "phone",
            Kind::Ssn => "ssn",
            Kind::NationalId => "national_id",
            Kind::Ip => "ip",
            Kind::Mac => "mac",
            Kind::Url => "url",
            Kind::Coordinates => "coordinates",
            Kind::Secret => "secret",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// None of them.
    pub const NONE: Kinds = Kinds(0);
    /// Every one.
    pub const ALL: Kinds = Kinds((1 << Kind::ALL.len()) - 1);

    /// This set and one more.
    #[must_use]
    pub const fn with(self, kind: Kind) -> Kinds {
        Kinds(self.0 | 1 << kind as u16)
    }

    /// This set without one.
    #[must_use]
    pub const fn without(self, kind: Kind) -> Kinds {
        Kinds(self.0 & !(1 << kind as u16))
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    /// Whether a kind is in it.
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }

    /// Whether nothing is.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The kinds in it.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.into_iter().filter(move |kind| self.has(*kind))
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Kinds::NONE, Kinds::with)
    }
}

/// An identifier's place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Its first byte; on a character's boundary.
    pub start: usize,
    /// The byte after its last one; on a character's boundary.
    pub end: usize,
    /// How sure that is, from [`ACCEPTED`] to 100.
    pub score: u8,
}

/// Candidates below this score are no findings.
pub const ACCEPTED: u8 = 50;

/// Finds identifiers of some kinds. Findings come in the text's order and do
/// not overlap.
pub fn scan(text: &str, kinds: Kinds, mut found: impl FnMut(Finding)) {
    if kinds.is_empty() {
        return;
    }
    scanner::Scanner::new(text.as_bytes(), kinds).run(&mut found);
}

/// The same as [`scan`], gathered.
pub fn findings(text: &str, kinds: Kinds) -> Vec<Finding> {
    let mut all = Vec::new();
    scan(text, kinds, |finding| all.push(finding));
    all
}

/// How many were found of each kind. All that a log or a metric may know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u32; Kind::ALL.len()]);

impl Counts {
    /// One more of a kind.
    pub fn add(&mut self, kind: Kind) {
        let count = &mut self.0[kind as usize];
        *count = count.saturating_add(1);
    }

    /// How many of a kind.
    pub fn of(&self, kind: Kind) -> u32 {
        self.0[kind as usize]
    }

    /// The kinds that were found.
    pub fn kinds(&self) -> Kinds {
        Kind::ALL
            .into_iter()
            .filter(|kind| self.of(*kind) > 0)
            .collect()
    }
}
