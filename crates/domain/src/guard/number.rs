//! Runs of digits: read once into groups, then judged as a card, an id of a
//! person or a telephone number.

use super::Kind;
use super::scanner::{Hit, Scanner};
use super::{ACCEPTED, bank, ids, phone};

/// What parts two groups of digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sep {
    Space,
    Dash,
    Dot,
    Slash,
    Paren,
}

/// More groups, or more digits, are no number of a person's.
const MAX_GROUPS: usize = 8;
const MAX_DIGITS: usize = 24;
/// Fewer digits are no number of a person's either.
const LEAST: usize = 7;

/// One group: where it stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Group {
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Group {
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Digits in groups, as far as they go on.
struct Run {
    digits: [u8; MAX_DIGITS],
    groups: [Group; MAX_GROUPS],
    /// `seps[i]` stands after `groups[i]`.
    seps: [Sep; MAX_GROUPS],
    count: usize,
    plus: bool,
    paren: bool,
}

/// The first groups of a run, as one number.
pub(super) struct Candidate<'r> {
    /// Values from 0 to 9.
    pub(super) digits: &'r [u8],
    pub(super) groups: &'r [Group],
    /// One less than groups.
    pub(super) seps: &'r [Sep],
    pub(super) plus: bool,
    /// Whether it begins with `(`.
    pub(super) paren: bool,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Candidate<'_> {
    /// Whether the groups have these lengths.
    pub(super) fn shape(&self, lengths: &[usize]) -> bool {
        self.groups.len() == lengths.len()
            && self
                .groups
                .iter()
                .zip(lengths)
                .all(|(group, length)| group.len() == *length)
    }

    /// Whether all separators are this one.
    pub(super) fn parted_by(&self, sep: Sep) -> bool {
        !self.seps.is_empty() && self.seps.iter().all(|s| *s == sep)
    }

    /// Some digits as a number.
    pub(super) fn value(&self, from: usize, count: usize) -> u32 {
        let digits = &self.digits[from..from + count];
        digits
            .iter()
            .fold(0, |value, digit| value * 10 + u32::from(*digit))
    }
}

/// The best reading of the digits that begin at `at`, maybe after `+` or `(`.
pub(super) fn find(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    // Inside a longer number it is not for us to say where that begins.
    if at >= 2
        && matches!(scanner.text[at - 1], b'-' | b'.' | b'/' | b',')
        && scanner.text[at - 2].is_ascii_digit()
    {
        return None;
    }
    let run = read(scanner.text, at)?;
    let mut best: Option<Hit> = None;
    let mut digits: usize = run.groups[..run.count].iter().map(Group::len).sum();
    for count in (1..=run.count).rev() {
        if count < run.count {
            digits -= run.groups[count].len();
        }
        if digits < LEAST {
            break;
        }
        let candidate = Candidate {
            digits: &run.digits[..digits],
            groups: &run.groups[..count],
            seps: &run.seps[..count - 1],
            plus: run.plus,
            paren: run.paren,
            start: at,
            end: run.groups[count - 1].end,
        };
        let hit = judge(scanner, &candidate);
        if let Some(hit) = hit
            && best.is_none_or(|best| best.score < hit.score)
        {
            best = Some(hit);
        }
        if best.is_some_and(|best| best.score >= 85) {
            break;
        }
    }
    best
}

fn judge(scanner: &Scanner<'_>, candidate: &Candidate<'_>) -> Option<Hit> {
    let next = scanner.byte(candidate.end);
    let extension = matches!(next, b'x' | b'X') && scanner.byte(candidate.end + 1).is_ascii_digit();
    let goes_on =
        matches!(next, b'-' | b'.' | b'/') && scanner.byte(candidate.end + 1).is_ascii_digit();
    if ((next.is_ascii_alphanumeric() || next == b'_') && !extension) || goes_on {
        return None;
    }
    let hit = |kind, score| Hit {
        kind,
        start: candidate.start,
        end: candidate.end,
        score,
    };
    let mut best = hit(Kind::Card, bank::card(scanner, candidate));
    if !extension {
        let (kind, score) = ids::find(scanner, candidate);
        if score > best.score {
            best = hit(kind, score);
        }
    } else {
        best.score = 0;
    }
    let (score, end) = phone::find(scanner, candidate);
    if score > best.score {
        best = Hit {
            end,
            ..hit(Kind::Phone, score)
        };
    }
    (best.score >= ACCEPTED).then_some(best)
}

/// Reads the run. `None` when it has fewer than [`LEAST`] digits.
fn read(text: &[u8], at: usize) -> Option<Run> {
    let mut run = Run {
        digits: [0; MAX_DIGITS],
        groups: [Group::default(); MAX_GROUPS],
        seps: [Sep::Space; MAX_GROUPS],
        count: 0,
        plus: false,
        paren: false,
    };
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    let mut place = at;
    if byte(place) == b'+' {
        run.plus = true;
        place += 1;
    }
    if byte(place) == b'(' {
        run.paren = true;
        place += 1;
        if byte(place) == b'+' {
            run.plus = true;
            place += 1;
        }
    }
    let mut digits = 0;
    loop {
        let start = place;
        while byte(place).is_ascii_digit() {
            if digits == MAX_DIGITS {
                // What was read before this group may still be a number.
                return (run.count > 0).then_some(run);
            }
            run.digits[digits] = byte(place) - b'0';
            digits += 1;
            place += 1;
        }
        if place == start {
            break;
        }
        run.groups[run.count] = Group { start, end: place };
        run.count += 1;
        let Some((sep, next)) = separator(text, place) else {
            break;
        };
        if run.count == MAX_GROUPS {
            break;
        }
        run.seps[run.count - 1] = sep;
        place = next;
    }
    (digits >= LEAST).then_some(run)
}

/// What parts a group from the next one, and where that begins.
fn separator(text: &[u8], at: usize) -> Option<(Sep, usize)> {
    let rest = &text[at..text.len().min(at + 5)];
    let (sep, length) = match rest {
        [b' ', b'-' | b'/', b' ', ..] => (Sep::Dash, 3),
        [b' ', b'(', ..] | [b')', b' ' | b'-' | b'.' | b'/', ..] => (Sep::Paren, 2),
        [0xC2, 0xA0, b'(', ..] => (Sep::Paren, 3),
        [b')', 0xC2, 0xA0, ..] => (Sep::Paren, 3),
        [b'-', b'(', ..] => (Sep::Paren, 2),
        [b')' | b'(', ..] => (Sep::Paren, 1),
        [0xC2, 0xA0, ..] => (Sep::Space, 2),
        // A hyphen that does not break.
        [0xE2, 0x80, 0x90..=0x93, ..] => (Sep::Dash, 3),
        [b' ', ..] => (Sep::Space, 1),
        [b'-', ..] => (Sep::Dash, 1),
        [b'.', ..] => (Sep::Dot, 1),
        [b'/', ..] => (Sep::Slash, 1),
        _ => return None,
    };
    let next = at + length;
    // `+41 (0)85`: two in a row.
    text.get(next)?.is_ascii_digit().then_some((sep, next))
}
