//! Addresses of mail, machines and pages.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Kind;
use super::context::Class;
use super::scanner::{Hit, Scanner};

/// The most characters before an `@`, and of a domain.
const MAX_LOCAL: usize = 64;
const MAX_DOMAIN: usize = 253;
/// The most bytes of a web address that are looked at.
const MAX_URL: usize = 4096;

fn is_local(text: &[u8], at: usize) -> usize {
    match text[at] {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => 1,
        b'.' | b'_' | b'%' | b'+' | b'-' | b'\'' | b'&' | b'~' => 1,
        // Latin letters with marks.
        0xC3..=0xC5 => 2,
        _ => 0,
    }
}

/// The end of what may stand before an `@`.
pub(super) fn mail_run(text: &[u8], at: usize) -> usize {
    let mut end = at;
    while end < text.len() {
        match is_local(text, end) {
            0 => break,
            width => end += width,
        }
    }
    end
}

/// A mail address: what begins at `at` up to the `@` at `sign`, and a domain.
pub(super) fn mail(scanner: &Scanner<'_>, at: usize, sign: usize) -> Option<Hit> {
    if sign - at > MAX_LOCAL {
        return None;
    }
    let end = domain_end(scanner.text, sign + 1)?;
    // The run may have begun before the token did.
    let mut start = at;
    while start > 0 && matches!(scanner.text[start - 1], b'_' | b'%' | b'+' | b'~') {
        start -= 1;
    }
    Some(Hit {
        kind: Kind::Email,
        start,
        end,
        score: 95,
    })
}

/// The end of a domain with a top level of letters.
fn domain_end(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    let mut label = at;
    let mut best = None;
    while end < text.len() && end - at < MAX_DOMAIN {
        match text[end] {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => end += 1,
            // Letters with marks and of other alphabets.
            0xC3..=0xDF => end += 2,
            b'.' if end > label => {
                best = top_level(text, at, label, end).or(best);
                end += 1;
                label = end;
            }
            _ => break,
        }
    }
    top_level(text, at, label, end).or(best)
}

/// The end of a label, where it can be a top level and is not the only label.
fn top_level(text: &[u8], at: usize, label: usize, end: usize) -> Option<usize> {
    let mut word = &text[label..end];
    while let [rest @ .., b'-'] = word {
        word = rest;
    }
    let letters = word.iter().all(|b| b.is_ascii_alphabetic() || *b >= 0x80);
    let coded = word.starts_with(b"xn--");
    let fits = label > at && word.len() >= 2 && word.len() <= 63 && (letters || coded);
    fits.then_some(label + word.len())
}

/// A web address whose scheme, or `www`, ends at `named`.
pub(super) fn url(scanner: &Scanner<'_>, at: usize, named: usize) -> Option<Hit> {
    let text = scanner.text;
    if named - at > 16 {
        return None;
    }
    let host = if text[named] == b':' {
        named + 3
    } else {
        named + 1
    };
    let limit = text.len().min(at + MAX_URL);
    let mut end = host;
    let mut open = 0_i32;
    while end < limit {
        match text[end] {
            0..=b' ' | b'<' | b'>' | b'"' | b'`' | b'{' | b'}' | b'\\' | b'^' | b'|' => break,
            b'(' => open += 1,
            b')' if open == 0 => break,
            b')' => open -= 1,
            _ => {}
        }
        end += 1;
    }
    while end > host
        && matches!(
            text[end - 1],
            b'.' | b',' | b';' | b':' | b'!' | b'?' | b'\'' | b']' | b'*'
        )
    {
        end -= 1;
    }
    // A character is not cut where the limit cuts the address.
    while end < text.len() && text[end] & 0xC0 == 0x80 {
        end += 1;
    }
    let first = text.get(host).copied().unwrap_or(0);
    let fits = end > host && (first.is_ascii_alphanumeric() || first == b'[' || first >= 0x80);
    fits.then_some(Hit {
        kind: Kind::Url,
        start: at,
        end,
        score: 90,
    })
}

/// An IPv4 address. Version numbers look the same, and loopback is nobody's.
pub(super) fn ipv4(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let text = scanner.text;
    let limit = text.len().min(at + 16);
    let mut end = at;
    let mut dots = 0;
    while end < limit {
        match text[end] {
            b'0'..=b'9' => {}
            b'.' if dots < 3 && text.get(end + 1).is_some_and(u8::is_ascii_digit) => dots += 1,
            _ => break,
        }
        end += 1;
    }
    if dots != 3 || (at > 0 && matches!(text[at - 1], b'.' | b'-')) {
        return None;
    }
    let more = matches!(scanner.byte(end), b'.' | b'-') && scanner.byte(end + 1).is_ascii_digit();
    if more || scanner.byte(end).is_ascii_alphanumeric() || scanner.byte(end) == b'_' {
        return None;
    }
    let address: Ipv4Addr = std::str::from_utf8(&text[at..end]).ok()?.parse().ok()?;
    let nobody = address.is_loopback() || address.is_unspecified() || address.is_broadcast();
    let version = scanner.context.near(Class::Version, at, 4);
    (!nobody && !version).then_some(Hit {
        kind: Kind::Ip,
        start: at,
        end,
        score: 90,
    })
}

/// A token of hexadecimal digits may begin an IPv6 address, a MAC address, or a
/// UUID, which is none of them.
pub(super) fn hexadecimal(scanner: &Scanner<'_>, at: usize, end: usize) -> Option<Hit> {
    let length = end - at;
    match scanner.byte(end) {
        b':' if length == 2 => mac(scanner, at).or_else(|| ipv6(scanner, at)),
        b'-' if length == 2 => mac(scanner, at),
        b'.' if length == 4 => mac_of_fours(scanner, at),
        b':' if length <= 4 => ipv6(scanner, at),
        _ => None,
    }
}

/// The end of a UUID.
pub(super) fn uuid(text: &[u8], at: usize) -> Option<usize> {
    let token = text.get(at..at + 36)?;
    let fits = token.iter().enumerate().all(|(index, byte)| match index {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    fits.then_some(at + 36)
}

/// Six pairs, parted by `:` or `-`.
fn mac(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let token = scanner.text.get(at..at + 17)?;
    let sign = token[2];
    let fits = token
        .iter()
        .enumerate()
        .all(|(index, byte)| match index % 3 {
            2 => *byte == sign,
            _ => byte.is_ascii_hexdigit(),
        });
    let next = scanner.byte(at + 17);
    let more =
        next.is_ascii_alphanumeric() || (next == sign && scanner.byte(at + 18).is_ascii_hexdigit());
    // Six pairs of decimal digits may be anything.
    let sure = sign == b':'
        || token.iter().any(u8::is_ascii_alphabetic)
        || scanner.context.near(Class::Mac, at, 24);
    let nobody = token.iter().all(|b| *b == b'0' || *b == sign);
    let before = at > 0 && matches!(scanner.text[at - 1], b':' | b'-');
    (fits && !more && sure && !nobody && !before).then_some(Hit {
        kind: Kind::Mac,
        start: at,
        end: at + 17,
        score: 90,
    })
}

/// Three groups of four, as Cisco writes it.
fn mac_of_fours(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let token = scanner.text.get(at..at + 14)?;
    let fits = token.iter().enumerate().all(|(index, byte)| match index {
        4 | 9 => *byte == b'.',
        _ => byte.is_ascii_hexdigit(),
    });
    let next = scanner.byte(at + 14);
    let more =
        next.is_ascii_alphanumeric() || next == b'.' && scanner.byte(at + 15).is_ascii_hexdigit();
    let sure = token.iter().any(u8::is_ascii_alphabetic) && token.iter().any(u8::is_ascii_digit)
        || scanner.context.near(Class::Mac, at, 24);
    (fits && !more && sure).then_some(Hit {
        kind: Kind::Mac,
        start: at,
        end: at + 14,
        score: 80,
    })
}

/// An IPv6 address, also one that begins with `::`.
pub(super) fn ipv6(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let text = scanner.text;
    let limit = text.len().min(at + 46);
    let mut end = at;
    let (mut colons, mut digits, mut decimal) = (0, 0, false);
    while end < limit {
        match text[end] {
            b':' => colons += 1,
            byte if byte.is_ascii_hexdigit() => {
                digits += 1;
                decimal |= byte.is_ascii_digit();
            }
            b'.' if text.get(end + 1).is_some_and(u8::is_ascii_digit) => {}
            _ => break,
        }
        end += 1;
    }
    // A colon that ends a sentence's part is not the address's.
    if end > at + 1 && text[end - 1] == b':' && text[end - 2] != b':' {
        end -= 1;
        colons -= 1;
    }
    let glued = scanner.byte(end).is_ascii_alphanumeric() || scanner.byte(end) == b'_';
    // Paths of programs have colons too: `bad::face`.
    if colons < 2 || glued || digits < 3 || !decimal {
        return None;
    }
    let address: Ipv6Addr = std::str::from_utf8(&text[at..end]).ok()?.parse().ok()?;
    let nobody = address.is_loopback() || address.is_unspecified();
    (!nobody).then_some(Hit {
        kind: Kind::Ip,
        start: at,
        end,
        score: 90,
    })
}
