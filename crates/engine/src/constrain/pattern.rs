//! JSON Schema's regular expressions are ECMA-262's; the grammars' are Rust's.
//!
//! Most are written alike in both and some mean something else. Here the
//! first are written as the second, so that they match the same texts. What
//! Rust's cannot say (look-around, back-references) stays and is refused when
//! the grammar is compiled.

/// White space and line ends of ECMA-262 (`\s`), as the inside of a class.
const SPACE: &str =
    r"\t-\r \u{A0}\u{1680}\u{2000}-\u{200A}\u{2028}\u{2029}\u{202F}\u{205F}\u{3000}\u{FEFF}";
/// Ends of lines, which `.` does not match.
const LINE_ENDS: &str = r"\n\r\u{2028}\u{2029}";
const EVERYTHING: &str = r"\u{0}-\u{10FFFF}";

/// The same expression for the grammars. `None` where it asks for a control
/// character that JSON writes by its number: that is never written, and the
/// compiler would pass over it.
pub(super) fn translated(pattern: &str) -> Option<String> {
    let text: Vec<char> = pattern.chars().collect();
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut at = 0;
    while let Some(&c) = text.get(at) {
        at += 1;
        match c {
            '\\' => {
                let (read, character) = escape(&text[at..], false, &mut out);
                if character.is_some_and(is_numbered) {
                    return None;
                }
                at += read;
            }
            '.' => out.push_str(&format!("[^{LINE_ENDS}]")),
            '[' => at += class(&text[at..], &mut out)?,
            _ if is_numbered(u32::from(c)) => return None,
            _ => out.push(c),
        }
    }
    Some(out)
}

/// Characters that JSON has no short way to write.
pub(super) fn is_numbered(character: u32) -> bool {
    character < 0x20 && !matches!(character, 0x08..=0x0A | 0x0C | 0x0D) || character == 0x7F
}

/// What follows `[`; gives how many characters were read. `None` for a class of
/// nothing but one control character.
fn class(text: &[char], out: &mut String) -> Option<usize> {
    let negated = text.first() == Some(&'^');
    let mut at = usize::from(negated);
    // In Rust's a bracket that closes at once stands for itself.
    if text.get(at) == Some(&']') {
        let caret = if negated { "" } else { "^" };
        out.push_str(&format!("[{caret}{EVERYTHING}]"));
        return Some(at + 1);
    }
    out.push_str(if negated { "[^" } else { "[" });
    let mut after_dash = true;
    let mut seen = Vec::new();
    while let Some(&c) = text.get(at) {
        at += 1;
        let dash = c == '-';
        let mut character = Some(u32::from(c));
        match c {
            ']' => {
                out.push(']');
                break;
            }
            '\\' => {
                let read;
                (read, character) = escape(&text[at..], true, out);
                at += read;
            }
            // Classes in classes, and their intersection and difference.
            '[' | '&' | '~' => out.extend(['\\', c]),
            '-' if after_dash => out.push_str("\\-"),
            _ => out.push(c),
        }
        if !dash && !seen.contains(&character) {
            seen.push(character);
        }
        after_dash = dash && !after_dash;
    }
    match seen[..] {
        [Some(only)] if !negated && is_numbered(only) => None,
        _ => Some(at),
    }
}

/// What follows `\`; gives how many characters were read, and which one they
/// stand for where it is one.
fn escape(text: &[char], in_class: bool, out: &mut String) -> (usize, Option<u32>) {
    let Some(&c) = text.first() else {
        out.push('\\');
        return (0, None);
    };
    let control = match c {
        's' if in_class => {
            out.push_str(SPACE);
            return (1, None);
        }
        's' | 'S' => {
            let caret = if c == 'S' { "^" } else { "" };
            out.push_str(&format!("[{caret}{SPACE}]"));
            return (1, None);
        }
        'b' if in_class => {
            out.push_str("\\x08");
            return (1, Some(8));
        }
        // Edges of words in Rust's.
        '<' | '>' => {
            out.push(c);
            return (1, Some(u32::from(c)));
        }
        'x' => {
            if let Some((character, read)) = hex(&text[1..], 2) {
                out.push('\\');
                out.extend(&text[..=read]);
                return (1 + read, Some(character));
            }
            None
        }
        'u' => {
            let pair = hex(&text[1..], 4).zip(text.get(5..7).and_then(|then| match then {
                ['\\', 'u'] => hex(&text[7..], 4),
                _ => None,
            }));
            let pair = pair.map(|((high, _), (low, _))| [high as u16, low as u16]);
            if let Some(pair) = pair
                && let [Ok(character)] = char::decode_utf16(pair).collect::<Vec<_>>()[..]
            {
                out.push_str(&format!("\\u{{{:X}}}", u32::from(character)));
                return (11, Some(u32::from(character)));
            }
            if let Some((character, read)) = hex(&text[1..], 4) {
                out.push('\\');
                out.extend(&text[..=read]);
                return (1 + read, Some(character));
            }
            None
        }
        'c' => {
            let letter = text.get(1).filter(|letter| letter.is_ascii_alphabetic());
            letter.map(|letter| u32::from(*letter) % 32)
        }
        '0' => Some(0),
        'a' => Some(7),
        'v' => Some(11),
        _ => None,
    };
    match control {
        Some(control) if c == 'c' || c == '0' => {
            out.push_str(&format!("\\x{control:02X}"));
            (if c == 'c' { 2 } else { 1 }, control.into())
        }
        _ => {
            out.extend(['\\', c]);
            (1, control)
        }
    }
}

/// So many hexadecimal digits, or any number of them in braces, and how many
/// characters those are.
fn hex(text: &[char], digits: usize) -> Option<(u32, usize)> {
    let (digits, read): (String, usize) = match text {
        ['{', rest @ ..] => {
            let end = rest.iter().position(|c| *c == '}')?;
            (rest[..end].iter().collect(), end + 2)
        }
        _ => (text.get(..digits)?.iter().collect(), digits),
    };
    Some((u32::from_str_radix(&digits, 16).ok()?, read))
}

#[cfg(test)]
mod tests {
    use super::translated;

    #[test]
    fn what_means_the_same_stays() {
        for same in [
            "",
            "^a+$",
            r"^[A-Z]{2}\d{1,3}$",
            r"[^\d_-]",
            r"[a-z-]",
            r"(?:a|b)\/\.\\",
            "[+-]",
            r"\u00e9\x41",
            "é",
        ] {
            assert_eq!(translated(same).as_deref(), Some(same));
        }
    }

    #[test]
    fn what_means_something_else_is_written_otherwise() {
        for (pattern, expected) in [
            ("a.", r"a[^\n\r\u{2028}\u{2029}]"),
            ("[.]", "[.]"),
            ("[a[b]]", r"[a\[b]]"),
            ("[a&&b~~c]", r"[a\&\&b\~\~c]"),
            ("[+--]", r"[+-\-]"),
            ("[--a]", r"[\--a]"),
            ("[]a]", r"[^\u{0}-\u{10FFFF}]a]"),
            ("[^]", r"[\u{0}-\u{10FFFF}]"),
            (r"\cM[\b][\cC-\cX\0]", r"\x0D[\x08][\x03-\x18\x00]"),
            (r"\ud83d\udc32*", r"\u{1F432}*"),
            (r"\<b\>", "<b>"),
            ("[a", "[a"),
            ("a\\", "a\\"),
        ] {
            assert_eq!(translated(pattern).as_deref(), Some(expected), "{pattern}");
        }
        let spaces = translated(r"[^\s]\S").unwrap_or_default();
        assert_eq!(spaces.matches(r"\u{FEFF}").count(), 2);
    }

    #[test]
    fn what_is_never_written_is_told() {
        for pattern in [
            "a\u{1}",
            r"a\x01b",
            r"\0",
            r"\cC",
            r"\u0007",
            r"\u{7f}",
            r"\x{1f}",
            r"\v",
            r"\a",
            r"[\x01]",
            r"[\x01-\x01]",
            "[\u{7F}]",
        ] {
            assert_eq!(translated(pattern), None, "{pattern}");
        }
        for pattern in [
            r"\t\n\r\f",
            r"[\x00-\x1f]",
            r"[^\x00]",
            r"[\x01\s]",
            "\u{9}",
            r"\\x01",
        ] {
            assert!(translated(pattern).is_some(), "{pattern}");
        }
    }
}
