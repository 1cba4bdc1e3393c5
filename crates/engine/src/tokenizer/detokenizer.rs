//! Bytes of tokens to text, never half a character.

/// Collects bytes and gives out whole UTF-8 characters.
#[derive(Default)]
pub struct Detokenizer {
    pending: Vec<u8>,
}

impl Detokenizer {
    /// Adds a token's bytes; returns the text that is whole now. Bytes that can
    /// never become a character come out as U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut start = 0;
        loop {
            match std::str::from_utf8(&self.pending[start..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    start = self.pending.len();
                    break;
                }
                Err(error) => {
                    let valid = start + error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.pending[start..valid]));
                    match error.error_len() {
                        // The beginning of a character: wait for the rest.
                        None => {
                            start = valid;
                            break;
                        }
                        Some(len) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            start = valid + len;
                        }
                    }
                }
            }
        }
        self.pending.drain(..start);
        text
    }

    /// What is left at the end: U+FFFD for a character that was never finished.
    pub fn finish(&mut self) -> String {
        if self.pending.is_empty() {
            return String::new();
        }
        self.pending.clear();
        char::REPLACEMENT_CHARACTER.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_cut_gives_the_same_text(text in "\\PC{0,60}", cuts in proptest::collection::vec(1..5usize, 1..8)) {
            let mut detokenizer = Detokenizer::default();
            let mut out = String::new();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                out.push_str(&detokenizer.push(now));
                rest = later;
            }
            out.push_str(&detokenizer.finish());
            prop_assert_eq!(out, text);
        }
    }

    #[test]
    fn broken_bytes_are_marked_once_each() {
        let mut detokenizer = Detokenizer::default();
        assert_eq!(detokenizer.push(b"a\xffb\xe2\x82"), "a\u{fffd}b");
        assert_eq!(detokenizer.finish(), "\u{fffd}");
    }
}
