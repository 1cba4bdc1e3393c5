//! Telephone numbers. What E.164 and the common national ways of writing make
//! likely; words nearby decide where digits alone say little.

use super::context::{Class, class_of};
use super::number::{Candidate, Sep};
use super::scanner::Scanner;

/// How far a word like "phone" reaches.
const REACH: usize = 64;

/// How sure a number is a telephone's, and where it ends with its extension.
pub(super) fn find(scanner: &Scanner<'_>, number: &Candidate<'_>) -> (u8, usize) {
    let form = i32::from(form(number));
    if form == 0 {
        return (0, number.end);
    }
    let (extension, end) = extension(scanner.text, number.end);
    let spoken = scanner.context.speaks(Class::Phone, number.start, REACH)
        || scanner.context.near(Class::Desk, number.start, 3)
        || matches!(follows(scanner, end), Some(Class::Phone | Class::Desk));
    let other = scanner.context.near(Class::Other, number.start, REACH / 2) && !spoken;
    let mut score = form;
    if spoken {
        score += 45;
    }
    if other {
        score -= 40;
    }
    if extension {
        score += 15;
    }
    if part_of_more(scanner, number.start) || is_street(scanner, end) {
        score -= 30;
    }
    (score.clamp(0, 99) as u8, end)
}

/// What the form alone says, from 0 to 90.
fn form(number: &Candidate<'_>) -> u8 {
    let count = number.digits.len();
    let first = number.digits[0];
    let groups = number.groups;
    let last = groups[groups.len() - 1].len();
    if number.plus {
        let fits = (8..=15).contains(&count) && first != 0;
        return if fits { 90 } else { 0 };
    }
    let trunk = first == 0 && number.digits[1] == 0;
    if trunk && (10..=15).contains(&count) && number.digits[2] != 0 {
        return if groups.len() > 1 { 85 } else { 50 };
    }
    if !(7..=12).contains(&count) || is_date(number) {
        return 0;
    }
    // 212-555-0187, also with a 1 in front.
    let national = if first == 1 && count == 11 { 1 } else { 0 };
    let american = count - national == 10
        && number.digits[national] >= 2
        && number.digits[national + 3] >= 2
        && (number.shape(&[3, 3, 4]) || number.shape(&[1, 3, 3, 4]));
    if american {
        return if number.parted_by(Sep::Space) { 60 } else { 85 };
    }
    if groups.len() == 1 {
        return match count {
            9..=11 => 25,
            _ => 15,
        };
    }
    // The form of a social security number.
    if number.shape(&[3, 2, 4]) && number.parted_by(Sep::Dash) {
        return 15;
    }
    let short = groups.iter().any(|group| group.len() == 1);
    let dotted = number.seps.contains(&Sep::Dot);
    if last < 2 || (dotted && short) {
        return 0;
    }
    if number.paren && groups[0].len() <= 5 {
        return 75;
    }
    if first == 0 && count >= 9 && groups[0].len() <= 5 {
        return 65;
    }
    if number.seps.contains(&Sep::Slash) && groups.len() > 2 {
        return 0;
    }
    35
}

/// 2018-01-14, 14.01.2018, 1999-2004.
fn is_date(number: &Candidate<'_>) -> bool {
    let year = |index: usize| {
        let group = number.groups[index];
        let before: usize = number.groups[..index].iter().map(|g| g.len()).sum();
        group.len() == 4 && (1800..2200).contains(&number.value(before, 4))
    };
    let small = |index: usize| number.groups[index].len() <= 2;
    match number.groups.len() {
        0 | 1 => false,
        2 => year(0) && year(1),
        _ => (year(0) && small(1) && small(2)) || (small(0) && small(1) && year(2)),
    }
}

/// `x123`, `ext. 123` after a number.
fn extension(text: &[u8], at: usize) -> (bool, usize) {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    let mut place = at;
    if byte(place) == b' ' {
        place += 1;
    }
    let rest = &text[place.min(text.len())..text.len().min(place + 6)];
    let lower = |index: usize| rest.get(index).map_or(0, u8::to_ascii_lowercase);
    place += match (lower(0), lower(1), lower(2)) {
        (b'x', ..) => 1,
        (b'e', b'x', b't') => 3,
        _ => return (false, at),
    };
    while matches!(byte(place), b'.' | b' ' | b':') && place - at < 8 {
        place += 1;
    }
    let start = place;
    while byte(place).is_ascii_digit() && place - start < 6 {
        place += 1;
    }
    let fits = place > start && !byte(place).is_ascii_alphanumeric();
    if fits { (true, place) } else { (false, at) }
}

/// The class of the word behind the number, on the same line: "… office".
fn follows(scanner: &Scanner<'_>, end: usize) -> Option<Class> {
    let mut start = end;
    while matches!(scanner.byte(start), b' ' | b'-' | b'(' | b',') && start - end < 3 {
        start += 1;
    }
    if start == end {
        return None;
    }
    let mut stop = start;
    while scanner.byte(stop).is_ascii_alphabetic() && stop - start < 16 {
        stop += 1;
    }
    class_of(&scanner.text[start.min(scanner.text.len())..stop], b"", b"")
}

/// Whether the number hangs on something in front of it: a part's number, a
/// price.
fn part_of_more(scanner: &Scanner<'_>, start: usize) -> bool {
    let before = |back: usize| start.checked_sub(back).map_or(b' ', |at| scanner.text[at]);
    match before(1) {
        b'-' | b'.' | b'/' | b':' => before(2).is_ascii_alphanumeric() && before(1) != b':',
        b'#' | b'$' | b'%' | b'=' => before(1) != b'=',
        // Of the pound and the euro.
        0xA3 | 0xAC => true,
        _ => false,
    }
}

/// Whether a street's name follows: a space and a word with a capital.
fn is_street(scanner: &Scanner<'_>, end: usize) -> bool {
    scanner.byte(end) == b' '
        && (scanner.byte(end + 1).is_ascii_uppercase() || scanner.byte(end + 1) >= 0xC3)
        && scanner.byte(end + 2).is_ascii_lowercase()
}
