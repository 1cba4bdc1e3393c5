//! Places on earth: pairs of decimal degrees, one of them beside its name, and
//! degrees with minutes.

use super::Kind;
use super::context::Class;
use super::scanner::{Hit, Scanner};

/// A decimal number in a text.
struct Degrees {
    value: f64,
    decimals: usize,
    /// With a letter of the compass or a sign of degrees.
    marked: bool,
    end: usize,
}

/// Coordinates whose first digit stands at `at`.
pub(super) fn find(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let text = scanner.text;
    let negative = at > 0 && text[at - 1] == b'-' && !scanner.glued(at - 1);
    let start = if negative { at - 1 } else { at };
    if start > 0 && matches!(text[start - 1], b'.' | b'/') {
        return None;
    }
    if let Some(end) = sexagesimal(text, at) {
        let end = sexagesimal_next(text, end).unwrap_or(end);
        return Some(Hit {
            kind: Kind::Coordinates,
            start,
            end,
            score: 90,
        });
    }
    let first = degrees(text, at)?;
    let spoken = scanner.context.near(Class::Place, start, 24);
    let hit = |end, score| {
        Some(Hit {
            kind: Kind::Coordinates,
            start,
            end,
            score,
        })
    };
    if first.value <= 90.0
        && let Some(second) = second(text, first.end)
        && second.value <= 180.0
    {
        let exact = first.decimals.min(second.decimals);
        let fraction = first.value < 1.0 && second.value < 1.0;
        let list = listed(text, start, second.end);
        if exact >= 3 && (spoken || (first.marked && second.marked)) {
            return hit(second.end, 90);
        }
        if (4..=8).contains(&exact) && !fraction && !list {
            return hit(second.end, 65);
        }
        return None;
    }
    // One alone, right behind "lat" or "longitude".
    let beside = scanner.context.near(Class::Place, start, 5);
    if beside && first.decimals >= 3 && first.value <= 180.0 {
        return hit(first.end, 80);
    }
    None
}

/// Up to three digits, a point, digits, and a mark.
fn degrees(text: &[u8], at: usize) -> Option<Degrees> {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    let mut end = at;
    while byte(end).is_ascii_digit() && end - at < 4 {
        end += 1;
    }
    if end == at || end - at > 3 || byte(end) != b'.' {
        return None;
    }
    let point = end;
    end += 1;
    while byte(end).is_ascii_digit() && end - point < 20 {
        end += 1;
    }
    let decimals = end - point - 1;
    if decimals < 3
        || byte(end).is_ascii_digit()
        || (byte(end) == b'.' && byte(end + 1).is_ascii_digit())
    {
        return None;
    }
    let value = std::str::from_utf8(&text[at..end]).ok()?.parse().ok()?;
    let mut marked = false;
    if text[end..].starts_with("°".as_bytes()) {
        end += 2;
        marked = true;
    }
    let letter = if byte(end) == b' ' { end + 1 } else { end };
    if matches!(byte(letter), b'N' | b'S' | b'E' | b'W')
        && !byte(letter + 1).is_ascii_alphanumeric()
    {
        end = letter + 1;
        marked = true;
    }
    (!byte(end).is_ascii_alphanumeric()).then_some(Degrees {
        value,
        decimals,
        marked,
        end,
    })
}

/// The second of a pair, behind a comma, a semicolon, a slash or a space.
fn second(text: &[u8], at: usize) -> Option<Degrees> {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    let mut place = at;
    while matches!(byte(place), b',' | b' ' | b';' | b'/') && place - at < 3 {
        place += 1;
    }
    if place == at {
        return None;
    }
    if matches!(byte(place), b'-' | b'+') {
        place += 1;
    }
    degrees(text, place)
}

/// Whether the pair stands in a longer list of numbers, such as a vector.
fn listed(text: &[u8], start: usize, end: usize) -> bool {
    let skip = |byte: &&u8| matches!(byte, b' ' | b',' | b'\n');
    let after = text[end..text.len().min(end + 4)].iter().find(|b| !skip(b));
    let before = text[start.saturating_sub(4)..start]
        .iter()
        .rev()
        .find(|b| !skip(b));
    let number = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_digit() || *b == b'-');
    number(after) || number(before)
}

/// 40°26′46″N: degrees, minutes, maybe seconds, a letter.
fn sexagesimal(text: &[u8], at: usize) -> Option<usize> {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    let digits = |mut at: usize, most: usize| {
        let from = at;
        while (byte(at).is_ascii_digit() || byte(at) == b'.') && at - from < most {
            at += 1;
        }
        (at > from).then_some(at)
    };
    let sign = |at: usize, signs: &[&str]| {
        let at = if byte(at) == b' ' { at + 1 } else { at };
        let found = signs
            .iter()
            .find(|sign| text[at.min(text.len())..].starts_with(sign.as_bytes()))?;
        let at = at + found.len();
        Some(if byte(at) == b' ' { at + 1 } else { at })
    };
    let mut end = sign(digits(at, 3)?, &["°", "º"])?;
    end = sign(digits(end, 8)?, &["′", "'", "’"])?;
    if let Some(seconds) = digits(end, 8) {
        end = sign(seconds, &["″", "\"", "”", "''"])?;
    }
    let compass = matches!(byte(end), b'N' | b'S' | b'E' | b'W' | b'O');
    (compass && !byte(end + 1).is_ascii_alphanumeric()).then_some(end + 1)
}

fn sexagesimal_next(text: &[u8], at: usize) -> Option<usize> {
    let mut place = at;
    while matches!(text.get(place), Some(b',' | b' ' | b';' | b'/')) && place - at < 3 {
        place += 1;
    }
    sexagesimal(text, place)
}
