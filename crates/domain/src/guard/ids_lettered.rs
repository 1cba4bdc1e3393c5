//! Ids of persons that have letters in them, each with its checksum.

use super::Kind;
use super::context::Class;
use super::scanner::{Hit, Scanner};

/// The longest of them, with separators.
const MAX: usize = 24;

/// The id that begins at `at`, with a letter or a digit.
pub(super) fn find(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let rest = &scanner.text[at..scanner.text.len().min(at + MAX)];
    let mut buffer = [0; MAX];
    let upper = &mut buffer[..rest.len()];
    upper.copy_from_slice(rest);
    upper.make_ascii_uppercase();
    let spoken = scanner.context.near(Class::Id, at, 64);
    /// From the text in capitals, and whether a word spoke of an id, to length
    /// and score.
    type Form = fn(&[u8], bool) -> Option<(usize, u8)>;
    const FORMS: [Form; 7] = [
        spanish,
        finnish,
        british,
        italian,
        mexican,
        singaporean,
        chinese,
    ];
    let fits = FORMS.iter().find_map(|form| form(upper, spoken))?;
    let (length, score) = fits;
    let next = scanner.byte(at + length);
    let glued = next.is_ascii_alphanumeric() || next == b'_';
    (!glued).then_some(Hit {
        kind: Kind::NationalId,
        start: at,
        end: at + length,
        score,
    })
}

/// Whether a text has this form: `A` a letter, `9` a digit, `*` either, any
/// other character itself.
fn form(text: &[u8], pattern: &[u8]) -> bool {
    text.len() >= pattern.len()
        && text.iter().zip(pattern).all(|(byte, sign)| match sign {
            b'A' => byte.is_ascii_uppercase(),
            b'9' => byte.is_ascii_digit(),
            b'*' => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            sign => byte == sign,
        })
}

fn value(digits: &[u8]) -> u32 {
    digits
        .iter()
        .filter(|b| b.is_ascii_digit())
        .fold(0, |v, b| v * 10 + u32::from(b - b'0'))
}

/// Spain: DNI and NIE, the letter by mod 23.
fn spanish(text: &[u8], _: bool) -> Option<(usize, u8)> {
    const LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";
    let foreign = matches!(text.first()?, b'X' | b'Y' | b'Z');
    let digits = if foreign { 8 } else { 0 };
    let (length, number) = if foreign && form(text, b"A9999999") {
        (
            digits,
            value(&text[1..8]) + 10_000_000 * u32::from(text[0] - b'X'),
        )
    } else if form(text, b"99999999") {
        (8, value(&text[..8]))
    } else {
        return None;
    };
    let at = if text.get(length) == Some(&b'-') {
        length + 1
    } else {
        length
    };
    let letter = LETTERS[(number % 23) as usize];
    (text.get(at) == Some(&letter)).then_some((at + 1, 85))
}

/// Finland: day of birth, sign of the century, serial, mod 31.
fn finnish(text: &[u8], _: bool) -> Option<(usize, u8)> {
    const SIGNS: &[u8; 31] = b"0123456789ABCDEFHJKLMNPRSTUVWXY";
    if !form(text, b"999999") || text.len() < 11 || !form(&text[7..], b"999*") {
        return None;
    }
    if !b"+-ABCDEFUVWXY".contains(&text[6]) {
        return None;
    }
    let (day, month) = (value(&text[..2]), value(&text[2..4]));
    let number = value(&text[..6]) * 1000 + value(&text[7..10]);
    let fits = SIGNS[(number % 31) as usize] == text[10];
    (fits && (1..=31).contains(&day) && (1..=12).contains(&month)).then_some((11, 85))
}

/// United Kingdom: national insurance number, by its rules for the first letters.
fn british(text: &[u8], spoken: bool) -> Option<(usize, u8)> {
    let spaced = form(text, b"AA 99 99 99 A");
    if !spaced && !form(text, b"AA999999A") {
        return None;
    }
    let (first, second) = (text[0], text[1]);
    let length = if spaced { 13 } else { 9 };
    let allowed = !b"DFIQUV".contains(&first)
        && !b"DFIQUVO".contains(&second)
        && ![b"BG", b"GB", b"KN", b"NK", b"NT", b"TN", b"ZZ"]
            .iter()
            .any(|p| text.starts_with(*p))
        && (b'A'..=b'D').contains(&text[length - 1]);
    allowed.then_some((length, if spoken { 95 } else { 70 }))
}

/// Italy: codice fiscale, the last letter by tables for odd and even places.
fn italian(text: &[u8], _: bool) -> Option<(usize, u8)> {
    const ODD: [u32; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
        23,
    ];
    if !form(text, b"AAAAAA**A**A***A") || !b"ABCDEHLMPRST".contains(&text[8]) {
        return None;
    }
    let sum: u32 = text[..15]
        .iter()
        .enumerate()
        .map(|(place, byte)| {
            let value = if byte.is_ascii_digit() {
                byte - b'0'
            } else {
                byte - b'A'
            };
            if place % 2 == 0 {
                ODD[usize::from(value)]
            } else {
                u32::from(value)
            }
        })
        .sum();
    (sum % 26 == u32::from(text[15] - b'A')).then_some((16, 95))
}

/// Mexico: CURP, the last digit by weights over 37 signs (Ñ counts between N and O).
fn mexican(text: &[u8], _: bool) -> Option<(usize, u8)> {
    if !form(text, b"AAAA999999AAAAAA*9") || !b"HMX".contains(&text[10]) {
        return None;
    }
    let sum: u32 = text[..17]
        .iter()
        .zip((2..=18).rev())
        .map(|(byte, weight)| {
            let value = match byte {
                b'0'..=b'9' => byte - b'0',
                b'A'..=b'N' => byte - b'A' + 10,
                other => other - b'A' + 11,
            };
            u32::from(value) * weight
        })
        .sum();
    ((10 - sum % 10) % 10 == u32::from(text[17] - b'0')).then_some((18, 95))
}

/// Singapore: NRIC and FIN, the last letter by weights and a table per series.
fn singaporean(text: &[u8], _: bool) -> Option<(usize, u8)> {
    if !form(text, b"A9999999A") {
        return None;
    }
    let sum: u32 = text[1..8]
        .iter()
        .zip([2, 7, 6, 5, 4, 3, 2])
        .map(|(byte, weight)| u32::from(byte - b'0') * weight)
        .sum();
    let (letters, more): (&[u8; 11], u32) = match text[0] {
        b'S' => (b"JZIHGFEDCBA", 0),
        b'T' => (b"JZIHGFEDCBA", 4),
        b'F' => (b"XWUTRQPNMLK", 0),
        b'G' => (b"XWUTRQPNMLK", 4),
        _ => return None,
    };
    (letters[((sum + more) % 11) as usize] == text[8]).then_some((9, 85))
}

/// China, where the last one is X.
fn chinese(text: &[u8], _: bool) -> Option<(usize, u8)> {
    if !form(text, b"99999999999999999X") {
        return None;
    }
    let mut digits = [0; 17];
    for (digit, byte) in digits.iter_mut().zip(text) {
        *digit = byte - b'0';
    }
    (super::ids::chinese(&digits) == 10).then_some((18, 95))
}
