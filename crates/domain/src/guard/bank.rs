//! Payment cards and bank accounts.

use super::Kind;
use super::context::Class;
use super::number::{Candidate, Sep};
use super::scanner::{Hit, Scanner};

/// How sure a number is a payment card's. Networks by ISO/IEC 7812 prefixes,
/// the checksum by Luhn.
pub(super) fn card(scanner: &Scanner<'_>, number: &Candidate<'_>) -> u8 {
    let digits = number.digits;
    if !(12..=19).contains(&digits.len()) || number.plus || !luhn(digits) {
        return 0;
    }
    let even = number.groups.len() == 1
        || (number.seps.iter().all(|sep| *sep == number.seps[0])
            && matches!(number.seps[0], Sep::Space | Sep::Dash)
            && number.groups[0].len() == 4);
    if !even || digits.iter().all(|digit| *digit == digits[0]) {
        return 0;
    }
    let spoken = scanner.context.speaks(Class::Card, number.start, 64);
    match (network(digits), spoken) {
        (true, true) => 99,
        (true, false) if digits.len() >= 14 => 90,
        // Short numbers fit by chance too often.
        (true, false) => 40,
        (false, true) if digits.len() >= 13 => 70,
        (false, _) => 0,
    }
}

/// Whether prefix and length are of a known network.
fn network(digits: &[u8]) -> bool {
    let prefix = |count: usize| {
        digits[..count]
            .iter()
            .fold(0_u32, |value, digit| value * 10 + u32::from(*digit))
    };
    let (length, two, three, four) = (digits.len(), prefix(2), prefix(3), prefix(4));
    match digits[0] {
        4 => matches!(length, 13 | 16 | 19),
        3 => match two {
            34 | 37 => length == 15,
            30 => (three == 309 || (300..=305).contains(&three)) && length >= 14,
            36 | 38 | 39 => length >= 14,
            35 => (3528..=3589).contains(&four) && length >= 16,
            _ => false,
        },
        0 => four == 604,
        1 => four == 1800 && length == 15,
        2 => {
            (2221..=2720).contains(&four) && length == 16
                || four == 2131 && length == 15
                || (2200..=2204).contains(&four) && length >= 16
        }
        // Mastercard; Maestro takes the rest of 5 and 6 at any length.
        5 => (51..=55).contains(&two) && length == 16 || matches!(two, 50 | 56..=59),
        6 => true,
        8 | 9 => matches!(two, 81 | 97) && length >= 16,
        _ => false,
    }
}

/// Luhn's checksum (ISO/IEC 7812-1, annex B).
pub(super) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(*digit);
            match (place % 2, digit * 2) {
                (0, _) => digit,
                (_, doubled) if doubled > 9 => doubled - 9,
                (_, doubled) => doubled,
            }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Lengths of the countries' account numbers (SWIFT's IBAN registry).
const LENGTHS: [(u8, &[u8]); 20] = [
    (15, b"NO"),
    (16, b"BE"),
    (18, b"DKFOFIGLNLSDFK"),
    (19, b"MKSI"),
    (20, b"ATBAEEKZLTLUXKMN"),
    (21, b"HRLVLICH"),
    (22, b"BGBHCRGEDEIEMERSGBVA"),
    (23, b"AEILGITLIQOMSO"),
    (24, b"ADCZMDPKRSSASKESSETNVGDZ"),
    (25, b"PTSTLY"),
    (26, b"ISTRYE"),
    (27, b"FRGRITMRMCSMDJBI"),
    (28, b"ALAZBYCYDOGTHULBNIPLSVHN"),
    (29, b"BRPSQAUA"),
    (30, b"JOKWMU"),
    (31, b"MTSC"),
    (32, b"LC"),
    (33, b"RU"),
    (22, b"ME"),
    (24, b"RO"),
];

fn length_of(country: [u8; 2]) -> Option<usize> {
    let known = |list: &[u8]| list.chunks_exact(2).any(|code| code == country);
    LENGTHS
        .iter()
        .find(|(_, list)| known(list))
        .map(|(length, _)| usize::from(*length))
}

/// An IBAN in one piece or in groups of four (ISO 13616), mod-97 (ISO 7064).
pub(super) fn iban(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let head: [u8; 4] = scanner.text.get(at..at + 4)?.try_into().ok()?;
    let [a, b, c, d] = head;
    if !(a.is_ascii_alphabetic()
        && b.is_ascii_alphabetic()
        && c.is_ascii_digit()
        && d.is_ascii_digit())
    {
        return None;
    }
    let length = length_of([a.to_ascii_uppercase(), b.to_ascii_uppercase()])?;
    let mut account = [0; 34];
    let mut count = 0;
    let mut end = at;
    let spaced = matches!(scanner.byte(at + 4), b' ' | b'-');
    while count < length {
        let byte = scanner.byte(end);
        if byte.is_ascii_alphanumeric() {
            account[count] = byte.to_ascii_uppercase();
            count += 1;
        } else if !(spaced && count % 4 == 0 && count > 0 && matches!(byte, b' ' | b'-')) {
            return None;
        }
        end += 1;
    }
    if scanner.byte(end).is_ascii_alphanumeric() {
        return None;
    }
    (remainder(&account[..length]) == 1).then_some(Hit {
        kind: Kind::Iban,
        start: at,
        end,
        score: 99,
    })
}

/// Mod 97 of the account with its first four characters behind, letters as 10 to 35.
fn remainder(account: &[u8]) -> u32 {
    let turned = account[4..].iter().chain(&account[..4]);
    turned.fold(0, |rest, byte| match byte {
        b'0'..=b'9' => (rest * 10 + u32::from(byte - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
    })
}
