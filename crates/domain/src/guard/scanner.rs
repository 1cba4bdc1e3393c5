//! The one pass: goes from token to token and asks the recognisers that such a
//! token may begin.

use super::context::{Class, Context};
use super::{Finding, Kind, Kinds, bank, coordinates, ids_lettered, net, number, secrets};

/// What a recogniser took: a kind, the byte after it, how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) score: u8,
}

/// A text under the pass.
pub(super) struct Scanner<'t> {
    pub(super) text: &'t [u8],
    pub(super) context: Context,
    kinds: Kinds,
    /// Where a token begins although a letter stands in front of it: an
    /// escape's.
    fresh: usize,
    /// The last word.
    last_word: (usize, usize),
    /// The end of the last run of characters that a mail address may have
    /// before its `@`, and whether an `@` follows.
    mail_run: (usize, bool),
}

impl<'t> Scanner<'t> {
    pub(super) fn new(text: &'t [u8], kinds: Kinds) -> Self {
        Self {
            text,
            context: Context::new(),
            kinds,
            fresh: 0,
            last_word: (0, 0),
            mail_run: (0, false),
        }
    }

    /// Goes over the text once.
    pub(super) fn run(mut self, found: &mut impl FnMut(Finding)) {
        let mut at = 0;
        while let Some(&byte) = self.text.get(at) {
            let (hit, next) = match byte {
                b'a'..=b'z' | b'A'..=b'Z' => self.word(at),
                b'0'..=b'9' => self.digits(at),
                b'+' | b'(' => (self.number(at), at + 1),
                b':' | b'=' => self.assignment(at),
                b'-' => (self.key_block(at), at + 1),
                b'\\' => {
                    self.fresh = at + escape(&self.text[at..]);
                    (None, self.fresh)
                }
                0x80.. => self.beyond_ascii(at),
                _ => (None, at + 1),
            };
            at = match hit {
                // What was not asked for is taken all the same, so that no part
                // of it is mistaken for something else; but a web address may
                // hold what was asked for.
                Some(hit) if self.kinds.has(hit.kind) => {
                    found(Finding {
                        kind: hit.kind,
                        start: hit.start,
                        end: hit.end,
                        score: hit.score,
                    });
                    hit.end.max(at + 1)
                }
                Some(hit) if hit.kind != Kind::Url => hit.end.max(at + 1),
                _ => next,
            };
        }
    }

    /// The byte at a place; 0 beyond the end.
    pub(super) fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    /// Whether a letter, a digit or `_` stands in front of a place.
    pub(super) fn glued(&self, at: usize) -> bool {
        at > 0
            && at != self.fresh
            && (self.text[at - 1].is_ascii_alphanumeric() || self.text[at - 1] == b'_')
    }

    /// A token that begins with an ASCII letter.
    fn word(&mut self, at: usize) -> (Option<Hit>, usize) {
        let end = word_end(self.text, at);
        let next = self.byte(end);
        let hit = self
            .mail(at)
            .or_else(|| self.begun_by_letter(at, end, next));
        if hit.is_none() {
            let last = &self.text[self.last_word.0..self.last_word.1];
            let before = if at - self.last_word.1 <= 1 {
                last
            } else {
                b""
            };
            let after = &self.text[end..self.text.len().min(end + 2)];
            self.context.note(&self.text[at..end], before, after, end);
            self.last_word = (at, end);
        }
        (hit, end)
    }

    fn begun_by_letter(&self, at: usize, end: usize, next: u8) -> Option<Hit> {
        if next == b':' && self.text[end..].starts_with(b"://")
            || next == b'.' && self.text[at..end].eq_ignore_ascii_case(b"www")
        {
            let url = net::url(self, at, end);
            // What it holds is more telling than the address itself.
            return secrets::user_part(self, end).or(url);
        }
        let first = self.byte(at);
        // Known keys have a sign early on, or are long and begin with A.
        let sign = matches!(next, b'-' | b'_' | b'.');
        if (sign || first == b'A' && end - at >= 16)
            && let Some(hit) = secrets::known(self, at)
        {
            return Some(hit);
        }
        if first.is_ascii_hexdigit()
            && end - at <= 8
            && let Some(hit) = net::hexadecimal(self, at, end)
        {
            return Some(hit);
        }
        // Ids and accounts have digits early on.
        let head = &self.text[at..(at + 8).min(self.text.len())];
        if head.iter().any(u8::is_ascii_digit) {
            return bank::iban(self, at).or_else(|| ids_lettered::find(self, at));
        }
        if next == b' ' && self.text[at..end].eq_ignore_ascii_case(b"bearer") {
            return secrets::bearer(self, end + 1);
        }
        None
    }

    /// A token that begins with a digit.
    fn digits(&mut self, at: usize) -> (Option<Hit>, usize) {
        let mut end = at;
        while self.byte(end).is_ascii_digit() {
            end += 1;
        }
        let glued = self.glued(at);
        if glued {
            return (None, end);
        }
        if let Some(hit) = self.mail(at) {
            return (Some(hit), hit.end);
        }
        let whole = word_end(self.text, at);
        if let Some(end) = net::uuid(self.text, at) {
            return (None, end);
        }
        let pointed = self.byte(end) == b'.';
        // A sign of degrees, maybe behind a space.
        let turned = self.byte(end) >= 0xC2 || self.byte(end + 1) == 0xC2;
        if let Some(hit) = net::hexadecimal(self, at, whole)
            .or_else(|| if pointed { net::ipv4(self, at) } else { None })
            .or_else(|| {
                if pointed || turned {
                    coordinates::find(self, at)
                } else {
                    None
                }
            })
        {
            return (Some(hit), hit.end);
        }
        let extension = matches!(self.byte(end), b'x' | b'X')
            && self.byte(end + 1).is_ascii_digit()
            && end - at >= 4;
        let letters = whole > end && self.byte(end).is_ascii_alphabetic() && !extension;
        // Such as 131052-308T: the letter comes late.
        if letters || self.byte(end) == b'-' || self.byte(end) == b'+' {
            if let Some(hit) = ids_lettered::find(self, at) {
                return (Some(hit), hit.end);
            }
            if letters {
                return (None, whole);
            }
        }
        (self.number(at), end)
    }

    fn number(&self, at: usize) -> Option<Hit> {
        if self.glued(at) {
            return None;
        }
        number::find(self, at)
    }

    /// `:` or `=`: a secret may follow its name, or an IPv6 address begins.
    fn assignment(&self, at: usize) -> (Option<Hit>, usize) {
        if self.byte(at) == b':' && self.byte(at + 1) == b':' && !self.glued(at) {
            let hit = net::ipv6(self, at);
            return (hit, at + 2);
        }
        let named = self.context.near(Class::Secret, at, 3);
        let hit = if named {
            secrets::assigned(self, at + 1)
        } else {
            None
        };
        (hit, at + 1)
    }

    fn key_block(&self, at: usize) -> Option<Hit> {
        if !self.text[at..].starts_with(b"-----BEGIN") {
            return None;
        }
        secrets::key_block(self.text, at)
    }

    /// Letters of other scripts make words; signs and spaces part them.
    fn beyond_ascii(&mut self, at: usize) -> (Option<Hit>, usize) {
        if !is_letter_beyond(self.text, at) {
            return (None, at + width(self.text[at]));
        }
        if let Some(hit) = self.mail(at) {
            return (Some(hit), hit.end);
        }
        let end = word_end(self.text, at);
        self.context.note(&self.text[at..end], b"", b"", end);
        self.last_word = (at, end);
        (None, end)
    }

    /// A mail address whose first character stands here.
    fn mail(&mut self, at: usize) -> Option<Hit> {
        if at >= self.mail_run.0 {
            let end = net::mail_run(self.text, at);
            self.mail_run = (end, self.byte(end) == b'@');
        }
        let (end, followed) = self.mail_run;
        if !followed {
            return None;
        }
        let hit = net::mail(self, at, end);
        if hit.is_none() {
            self.mail_run.1 = false;
        }
        hit
    }
}

/// The bytes of an escape, as JSON and programs write them: its letter must not
/// be taken for the beginning of what follows.
fn escape(text: &[u8]) -> usize {
    match text {
        [_, b'u', a, b, c, d, ..] if [a, b, c, d].iter().all(|x| x.is_ascii_hexdigit()) => 6,
        [
            _,
            b'n' | b'r' | b't' | b'f' | b'b' | b'"' | b'\\' | b'/',
            ..,
        ] => 2,
        _ => 1,
    }
}

/// The byte after a word: letters and digits, and letters of other scripts. A
/// digit after such a letter begins a token of its own, for some scripts put no
/// spaces.
fn word_end(text: &[u8], at: usize) -> usize {
    let mut end = at;
    // Of the last letter: 0 ASCII, 1 with marks or of an alphabet, 2 of a script
    // that puts no spaces.
    let mut script = u8::from(text[at] >= 0x80) + u8::from(text[at] >= 0xE0);
    while let Some(&byte) = text.get(end) {
        match byte {
            b'0'..=b'9' if script > 0 => break,
            b'a'..=b'z' | b'A'..=b'Z' if script == 2 => break,
            0xE0.. if script < 2 => break,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => {
                script = 0;
                end += 1;
            }
            0x80.. if is_letter_beyond(text, end) => {
                script = 1 + u8::from(byte >= 0xE0);
                end += width(byte);
            }
            _ => break,
        }
    }
    end.min(text.len())
}

/// Whether the character beyond ASCII at a place is part of a word. Judged by
/// its first bytes: Latin signs, general and fullwidth punctuation are not.
fn is_letter_beyond(text: &[u8], at: usize) -> bool {
    match text[at] {
        0xC2 | 0xE2 | 0xEF => false,
        0xE3 => text.get(at + 1) != Some(&0x80),
        byte => byte >= 0xC3,
    }
}

/// The bytes of a character, by its first one.
fn width(first: u8) -> usize {
    match first {
        0xF0.. => 4,
        0xE0.. => 3,
        0xC0.. => 2,
        _ => 1,
    }
}
