//! Keys, tokens and passwords: by their known beginnings, by their form, and by
//! the name of what they are assigned to.

use super::Kind;
use super::scanner::{Hit, Scanner};

/// Beginnings of well-known keys, and the fewest characters that follow.
const KNOWN: [(&[u8], usize); 44] = [
    (b"AKIA", 16),
    (b"ASIA", 16),
    (b"AIza", 30),
    (b"SG.", 30),
    (b"dckr_pat_", 20),
    (b"dop_v1_", 40),
    (b"doo_v1_", 40),
    (b"dor_v1_", 40),
    (b"figd_", 20),
    (b"ghp_", 30),
    (b"gho_", 30),
    (b"ghu_", 30),
    (b"ghs_", 30),
    (b"ghr_", 30),
    (b"github_pat_", 22),
    (b"glpat-", 18),
    (b"glsa_", 20),
    (b"gsk_", 24),
    (b"hf_", 24),
    (b"hvs.", 20),
    (b"lin_api_", 20),
    (b"npm_", 30),
    (b"nvapi-", 30),
    (b"ntn_", 20),
    (b"pk_live_", 16),
    (b"pk_test_", 16),
    (b"pplx-", 24),
    (b"pypi-", 30),
    (b"r8_", 30),
    (b"rk_live_", 16),
    (b"rk_test_", 16),
    (b"secret_", 30),
    (b"shpat_", 24),
    (b"sk-", 20),
    (b"sk_live_", 16),
    (b"sk_test_", 16),
    (b"sq0atp-", 20),
    (b"whsec_", 20),
    (b"xai-", 24),
    (b"xapp-", 20),
    (b"xoxb-", 20),
    (b"xoxp-", 20),
    (b"xoxa-", 20),
    (b"ya29.", 20),
];

/// The longest token that is looked at.
const MAX_TOKEN: usize = 4096;

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// The end of a token; a dot within it belongs to it.
fn token_end(text: &[u8], at: usize) -> usize {
    let limit = text.len().min(at + MAX_TOKEN);
    let mut end = at;
    while end < limit {
        let dot = text[end] == b'.' && text.get(end + 1).copied().is_some_and(is_token);
        if !is_token(text[end]) && !dot {
            break;
        }
        end += 1;
    }
    end
}

/// A token with a known beginning, or a JSON web token.
pub(super) fn known(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let text = &scanner.text[at..];
    if scanner.glued(at) {
        return None;
    }
    let first = text[0];
    let fits = KNOWN
        .iter()
        .find(|(begin, _)| begin[0] == first && text.starts_with(begin));
    if let Some((begin, least)) = fits {
        let end = token_end(scanner.text, at + begin.len());
        let tail = &scanner.text[at + begin.len()..end];
        // Words joined by hyphens are no key: `sk-learn-compatible-things`.
        let key = tail.len() >= *least && tail.iter().any(u8::is_ascii_digit);
        return key.then_some(Hit {
            kind: Kind::Secret,
            start: at,
            end,
            score: 95,
        });
    }
    if text.starts_with(b"eyJ") {
        let end = token_end(scanner.text, at);
        let token = &scanner.text[at..end];
        let dots = token.iter().filter(|b| **b == b'.').count();
        let fits = token.len() >= 30 && (2..=4).contains(&dots);
        return fits.then_some(Hit {
            kind: Kind::Secret,
            start: at,
            end,
            score: 95,
        });
    }
    None
}

/// What follows `Bearer `.
pub(super) fn bearer(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let mut end = token_end(scanner.text, at);
    while matches!(scanner.byte(end), b'+' | b'/' | b'=' | b'~') {
        end = token_end(scanner.text, end + 1);
    }
    let token = scanner.text.get(at..end)?;
    let fits = token.len() >= 16 && token.iter().any(u8::is_ascii_digit);
    fits.then_some(Hit {
        kind: Kind::Secret,
        start: at,
        end,
        score: 90,
    })
}

/// `user:password` in front of a web address's host; `named` is the scheme's end.
pub(super) fn user_part(scanner: &Scanner<'_>, named: usize) -> Option<Hit> {
    if scanner.byte(named) != b':' {
        return None;
    }
    let start = named + 3;
    let limit = scanner.text.len().min(start + 256);
    let mut colon = None;
    for at in start..limit {
        match scanner.text[at] {
            b':' if colon.is_none() => colon = Some(at),
            b'@' => {
                let fits = colon.is_some_and(|colon| colon + 1 < at);
                return fits.then_some(Hit {
                    kind: Kind::Secret,
                    start,
                    end: at,
                    score: 90,
                });
            }
            b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | 0..=b' ' => return None,
            _ => {}
        }
    }
    None
}

/// The value behind `=` or `:`, whose name speaks of a secret. `at` is the byte
/// after the sign.
pub(super) fn assigned(scanner: &Scanner<'_>, at: usize) -> Option<Hit> {
    let mut start = at;
    while matches!(scanner.byte(start), b' ' | b'=' | b'>' | b'\t') && start - at < 4 {
        start += 1;
    }
    // Inside a JSON text the quotes are escaped.
    if scanner.byte(start) == b'\\' && scanner.byte(start + 1) == b'"' {
        start += 1;
    }
    let quote = Some(scanner.byte(start)).filter(|b| matches!(b, b'"' | b'\'' | b'`'));
    start += usize::from(quote.is_some());
    let limit = scanner.text.len().min(start + 512);
    let mut end = start;
    while end < limit {
        let byte = scanner.text[end];
        let escaped = byte == b'\\' && matches!(scanner.byte(end + 1), b'n' | b'r' | b't' | b'"');
        let over = match quote {
            Some(quote) => byte == quote || byte < b' ' || escaped,
            None => {
                byte <= b' '
                    || escaped
                    || matches!(
                        byte,
                        b'"' | b'\'' | b',' | b';' | b')' | b'}' | b']' | b'&' | b'<'
                    )
            }
        };
        if over {
            break;
        }
        end += 1;
    }
    while end > start
        && quote.is_none()
        && matches!(scanner.text[end - 1], b'.' | b':' | b'!' | b'?')
    {
        end -= 1;
    }
    while end < scanner.text.len() && scanner.text[end] & 0xC0 == 0x80 {
        end += 1;
    }
    let value = scanner.text.get(start..end)?;
    looks_secret(value).then_some(Hit {
        kind: Kind::Secret,
        start,
        end,
        score: 75,
    })
}

/// Whether a value is a secret and not a word, a placeholder or a call.
fn looks_secret(value: &[u8]) -> bool {
    if value.len() < 6 || value.contains(&b' ') || value.contains(&b'(') {
        return false;
    }
    if matches!(value[0], b'$' | b'{' | b'<' | b'%' | b'[' | b'*' | b'.') {
        return false;
    }
    let digit = value.iter().any(u8::is_ascii_digit);
    let lower = value.iter().any(u8::is_ascii_lowercase);
    let upper = value.iter().any(u8::is_ascii_uppercase);
    let sign = value
        .iter()
        .any(|b| !b.is_ascii_alphanumeric() && !b"._-".contains(b));
    let classes = [digit, lower, upper, sign]
        .into_iter()
        .filter(|has| *has)
        .count();
    // A name such as `os.environ` has letters and points alone; a length such as
    // 4096 digits alone.
    classes >= 2 && (digit || sign) && entropy(value) >= 2.0
}

/// Shannon's entropy of a value's bytes, in bits per byte.
fn entropy(value: &[u8]) -> f32 {
    let mut counts = [0_u16; 256];
    for byte in value {
        counts[usize::from(*byte)] += 1;
    }
    let length = value.len() as f32;
    let used = counts.iter().filter(|count| **count > 0);
    used.map(|count| {
        let share = f32::from(*count) / length;
        -share * share.log2()
    })
    .sum()
}

/// A private key's block, from its first line to its last; without a last line
/// as far as a key's lines go.
pub(super) fn key_block(text: &[u8], at: usize) -> Option<Hit> {
    let head = &text[at..text.len().min(at + 64)];
    let named = head.windows(11).position(|w| w == b"PRIVATE KEY")?;
    let mut end = at + named + 11;
    let is_body = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=-\r\n\t :,.\\".contains(&byte);
    // A line of the block has no more than its alphabet; headers have `:` and `,`.
    while end < text.len() && is_body(text[end]) {
        if text[end] == b'-' && text[end..].starts_with(b"-----END") {
            let close = text[end + 8..].iter().take(64).position(|b| *b == b'\n');
            let line = close.map_or_else(|| text[end..].len().min(48), |length| length + 8);
            let tail = &text[end + 8..end + line];
            let stop = tail
                .windows(5)
                .position(|w| w == b"-----")
                .map_or(8, |at| at + 13);
            end += stop;
            break;
        }
        end += 1;
    }
    Some(Hit {
        kind: Kind::Secret,
        start: at,
        end,
        score: 99,
    })
}
