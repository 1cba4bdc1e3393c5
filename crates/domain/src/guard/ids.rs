//! Ids of persons that are made of digits, each with its checksum. Where the
//! form fits too much by chance, a word nearby must speak of an id.
//!
//! Sources: the issuing states' own rules; the checksums are the ones that
//! Wikipedia's "National identification number" and the linked pages describe.

use super::Kind;
use super::bank::luhn;
use super::context::Class;
use super::number::{Candidate, Sep};
use super::scanner::Scanner;

/// How far a word like "ssn" reaches.
const REACH: usize = 64;

/// Which id it is, and how sure that is.
pub(super) fn find(scanner: &Scanner<'_>, number: &Candidate<'_>) -> (Kind, u8) {
    if number.plus || number.paren {
        return (Kind::Ssn, 0);
    }
    let social = social_security(scanner, number);
    let spoken = scanner.context.near(Class::Id, number.start, REACH);
    let national = match number.digits.len() {
        9 => nine(number, spoken),
        10 => ten(number, spoken),
        11 => eleven(number, spoken),
        12 => twelve(number, spoken),
        13 => thirteen(number, spoken),
        15 => fifteen(number, spoken),
        18 => eighteen(number),
        _ => 0,
    };
    if national > social {
        (Kind::NationalId, national)
    } else {
        (Kind::Ssn, social)
    }
}

/// United States: area, group, serial; none of them zero, no area 666. Areas
/// from 900 on are the tax office's.
fn social_security(scanner: &Scanner<'_>, number: &Candidate<'_>) -> u8 {
    if number.digits.len() != 9 {
        return 0;
    }
    let (area, group, serial) = (number.value(0, 3), number.value(3, 2), number.value(5, 4));
    if area == 0 || area == 666 || group == 0 || serial == 0 {
        return 0;
    }
    let spoken = scanner.context.near(Class::Ssn, number.start, REACH);
    let other = scanner.context.near(Class::Other, number.start, REACH / 2);
    let tax = area >= 900 && (50..=99).contains(&group);
    let base = if !number.shape(&[3, 2, 4]) {
        if number.groups.len() == 1 { 10 } else { 0 }
    } else if number.parted_by(Sep::Dash) {
        if area < 900 || tax { 85 } else { 30 }
    } else {
        30
    };
    match (base, spoken, other) {
        (0, ..) => 0,
        (base, true, _) => (base + 60).min(99),
        (base, false, true) => base / 2,
        (base, false, false) => base,
    }
}

/// Sum of digits times weights.
fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits
        .iter()
        .zip(weights)
        .map(|(digit, weight)| u32::from(*digit) * weight)
        .sum()
}

fn is_day(day: u32, month: u32) -> bool {
    (1..=31).contains(&day) && (1..=12).contains(&month)
}

/// A checksum that fits a fraction of all numbers counts only with a word.
fn with_word(fits: bool, spoken: bool) -> u8 {
    if fits && spoken { 90 } else { 0 }
}

/// Netherlands (BSN), Canada (SIN), Australia (TFN), Portugal (NIF).
fn nine(number: &Candidate<'_>, spoken: bool) -> u8 {
    let digits = number.digits;
    let eleven = weighted(&digits[..8], &[9, 8, 7, 6, 5, 4, 3, 2]);
    let bsn = eleven % 11 == u32::from(digits[8]);
    let tfn = weighted(digits, &[1, 4, 3, 7, 5, 8, 6, 9, 10]).is_multiple_of(11);
    let nif = match eleven % 11 {
        0 | 1 => digits[8] == 0,
        rest => u32::from(digits[8]) == 11 - rest,
    };
    with_word(bsn || tfn || nif || luhn(digits), spoken)
}

/// Sweden (personnummer), Denmark (CPR), United Kingdom (NHS).
fn ten(number: &Candidate<'_>, spoken: bool) -> u8 {
    let digits = number.digits;
    let parted = number.shape(&[6, 4]) && number.parted_by(Sep::Dash);
    let swedish = is_day(number.value(4, 2) % 60, number.value(2, 2)) && luhn(digits);
    let danish = is_day(number.value(0, 2), number.value(2, 2)) && parted;
    let rest = 11 - weighted(&digits[..9], &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    let nhs = rest % 11 == u32::from(digits[9]) && rest != 10;
    match (swedish, parted) {
        (true, true) => 85,
        _ if danish && spoken => 90,
        _ if danish => 55,
        _ => with_word(swedish || nhs, spoken),
    }
}

/// Brazil (CPF), Poland (PESEL), Norway, Belgium, Germany (tax id).
fn eleven(number: &Candidate<'_>, spoken: bool) -> u8 {
    let digits = number.digits;
    if digits.iter().all(|digit| *digit == digits[0]) {
        return 0;
    }
    let check = |sum: u32| match 11 - sum % 11 {
        10 | 11 => 0,
        rest => rest,
    };
    let cpf = check(weighted(&digits[..9], &[10, 9, 8, 7, 6, 5, 4, 3, 2])) == u32::from(digits[9])
        && check(weighted(&digits[..10], &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]))
            == u32::from(digits[10]);
    if cpf && number.shape(&[3, 3, 3, 2]) {
        return 95;
    }
    let base = u64::from(number.value(0, 9));
    let rest = 97_u64.wrapping_sub(u64::from(number.value(9, 2)));
    let belgian = is_day(number.value(4, 2), number.value(2, 2) % 20)
        && (base % 97 == rest || (2_000_000_000 + base) % 97 == rest);
    if belgian && number.shape(&[2, 2, 2, 3, 2]) {
        return 95;
    }
    let pesel = is_day(number.value(4, 2), number.value(2, 2) % 20)
        && (10 - weighted(&digits[..10], &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]) % 10) % 10
            == u32::from(digits[10]);
    let norwegian = is_day(number.value(0, 2) % 40, number.value(2, 2) % 40)
        && weighted(&digits[..10], &[3, 7, 6, 1, 8, 9, 4, 5, 2, 1]).is_multiple_of(11)
        && weighted(digits, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1]).is_multiple_of(11);
    match (norwegian || belgian, cpf || pesel || german_tax(digits)) {
        (true, _) if spoken => 95,
        (_, true) if spoken => 95,
        // Two checks and a date, or one of ten numbers with a date.
        (true, _) => 65,
        (_, true) if pesel && number.groups.len() == 1 => 55,
        _ => 0,
    }
}

/// ISO 7064, MOD 11,10; no leading zero.
fn german_tax(digits: &[u8]) -> bool {
    let product = digits[..10].iter().fold(10_u32, |product, digit| {
        let sum = (u32::from(*digit) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    digits[0] != 0 && (11 - product) % 10 == u32::from(digits[10])
}

/// India (Aadhaar, Verhoeff's checksum), Sweden with its century.
fn twelve(number: &Candidate<'_>, spoken: bool) -> u8 {
    let digits = number.digits;
    let swedish = matches!(number.value(0, 2), 18..=20)
        && is_day(number.value(6, 2) % 60, number.value(4, 2))
        && luhn(&digits[2..]);
    if swedish && number.shape(&[8, 4]) {
        return 90;
    }
    let aadhaar = digits[0] >= 2 && verhoeff(digits);
    if aadhaar && number.shape(&[4, 4, 4]) {
        return if spoken { 95 } else { 70 };
    }
    with_word(aadhaar || swedish, spoken)
}

/// Verhoeff, "Error detecting decimal codes", 1969: products in the dihedral
/// group of order ten, each place permuted once more.
fn verhoeff(digits: &[u8]) -> bool {
    const PERMUTATION: [u8; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    let product = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => 5 + (a + b - 5) % 5,
        (false, true) => 5 + (a - 5 + 5 - b) % 5,
        (false, false) => (a + 5 - b) % 5,
    };
    let mut check = 0;
    for (place, digit) in digits.iter().rev().enumerate() {
        let permuted = (0..place % 8).fold(*digit, |value, _| PERMUTATION[usize::from(value)]);
        check = product(check, permuted);
    }
    check == 0
}

/// Switzerland (AHV, as EAN-13), South Africa, South Korea.
fn thirteen(number: &Candidate<'_>, spoken: bool) -> u8 {
    let digits = number.digits;
    let ean = weighted(digits, &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]).is_multiple_of(10);
    if ean && number.value(0, 3) == 756 {
        return 90;
    }
    let born = is_day(number.value(4, 2), number.value(2, 2));
    if born && number.shape(&[6, 7]) && number.parted_by(Sep::Dash) && (1..=8).contains(&digits[6])
    {
        return 75;
    }
    let african = born && digits[10] <= 2 && luhn(digits);
    match (african, spoken) {
        (true, true) => 95,
        (true, false) if number.groups.len() == 1 => 60,
        _ => 0,
    }
}

/// France (NIR with its key): sex, year, month, place, mod 97.
fn fifteen(number: &Candidate<'_>, spoken: bool) -> u8 {
    let month = number.value(3, 2);
    let person = matches!(number.digits[0], 1 | 2) && (1..=12).contains(&month);
    let base = number.digits[..13]
        .iter()
        .fold(0_u64, |v, digit| v * 10 + u64::from(*digit));
    let key = 97 - base % 97 == u64::from(number.value(13, 2));
    match (person && key, spoken) {
        (true, true) => 95,
        (true, false) => 85,
        _ => 0,
    }
}

/// China (GB 11643, ISO 7064 MOD 11-2), where the last one is a digit.
fn eighteen(number: &Candidate<'_>) -> u8 {
    let fits = chinese(&number.digits[..17]) == number.digits[17];
    if fits
        && number.groups.len() == 1
        && is_day(number.value(12, 2), number.value(10, 2))
        && matches!(number.value(6, 2), 18..=20)
    {
        95
    } else {
        0
    }
}

/// The check digit of seventeen; 10 is written X.
pub(super) fn chinese(digits: &[u8]) -> u8 {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    ((12 - weighted(digits, &WEIGHTS) % 11) % 11) as u8
}
