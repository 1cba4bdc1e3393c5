//! Tokens: what a client shows. `nf_<id>_<secret>`, where the id finds the key
//! and the secret proves it.
//!
//! The secret has 190 random bits, so a fast hash keeps it (there is nothing to
//! guess, and nothing that a slow hash would slow down but us).

use sha2::{Digest, Sha256};

use crate::store::TokenHash;

/// What our tokens begin with. What begins so and is not known is refused, also
/// where no key is required: somebody meant to show one.
pub(super) const PREFIX: &str = "nf_";
/// Characters of the id. 12 of 36 are 62 bits: no two keys meet.
const ID_LENGTH: usize = 12;
/// Characters of the secret. 32 of 62 are 190 bits.
const SECRET_LENGTH: usize = 32;
const ALPHABET: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// A token as it is shown once, at its making. Deliberately without `Debug`,
/// `Display` and `Clone`.
pub struct Token(String);

impl Token {
    /// A new token of a key. `None` where the system has no randomness to give.
    pub fn draw(id: &str) -> Option<Self> {
        let short = id.strip_prefix("key_").unwrap_or(id);
        let secret = random(SECRET_LENGTH, ALPHABET.len())?;
        Some(Self(format!("{PREFIX}{short}_{secret}")))
    }

    /// For the one who asked for it, and nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A new key's id: `key_…`. `None` where the system has no randomness to give.
pub(super) fn draw_id() -> Option<String> {
    // Digits and small letters: ids are read out and typed.
    Some(format!("key_{}", random(ID_LENGTH, 36)?))
}

/// The id that a token claims; `None` for what is no token of ours.
pub(super) fn claimed_id(token: &str) -> Option<String> {
    let (id, secret) = token.strip_prefix(PREFIX)?.split_once('_')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let ours = id.len() == ID_LENGTH && secret.len() == SECRET_LENGTH;
    (ours && plain(id) && plain(secret)).then(|| format!("key_{id}"))
}

/// What is kept of a token.
pub(super) fn hash(token: &str) -> TokenHash {
    // The words in front keep it from being the hash of anything else.
    let digest = Sha256::new()
        .chain_update(b"nearfar key v1\0")
        .chain_update(token.as_bytes())
        .finalize();
    TokenHash(digest.into())
}

/// Compares in a time that does not depend on where they differ.
pub(super) fn is_same(a: &TokenHash, b: &TokenHash) -> bool {
    let pairs = a.0.iter().zip(&b.0);
    let differences = pairs.fold(0, |all, (a, b)| all | std::hint::black_box(a ^ b));
    std::hint::black_box(differences) == 0
}

/// Characters drawn evenly from the first `choices` of the alphabet.
fn random(length: usize, choices: usize) -> Option<String> {
    // Bytes past the last whole round of choices would favour the first ones.
    let limit = 256 - 256 % choices;
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut bytes = [0u8; 64];
        getrandom::fill(&mut bytes).ok()?;
        let fair = bytes.iter().map(|byte| usize::from(*byte));
        for byte in fair.filter(|byte| *byte < limit) {
            if text.len() < length {
                text.push(char::from(ALPHABET[byte % choices]));
            }
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_names_its_key_and_its_hash_is_its_own() {
        let id = draw_id().unwrap();
        let (token, other) = (Token::draw(&id).unwrap(), Token::draw(&id).unwrap());
        assert_eq!(claimed_id(token.reveal()), Some(id));
        assert!(is_same(&hash(token.reveal()), &hash(token.reveal())));
        assert!(!is_same(&hash(token.reveal()), &hash(other.reveal())));
        let shown = format!("{:?}", hash(token.reveal()));
        assert_eq!(shown, "TokenHash(…)");
    }

    #[test]
    fn what_is_no_token_claims_nothing() {
        let id = draw_id().unwrap();
        let token = Token::draw(&id).unwrap();
        let whole = token.reveal();
        let cut = &whole[..whole.len() - 1];
        let long = format!("{whole}a");
        let odd = whole.replace('_', "-");
        for text in ["", "nf_", "unused", "sk-proj-1", cut, &long, &odd, "nf__"] {
            assert_eq!(claimed_id(text), None, "{text}");
        }
    }

    #[test]
    fn every_character_is_drawn() {
        let text = random(20_000, ALPHABET.len()).unwrap();
        assert!(ALPHABET.iter().all(|byte| text.contains(char::from(*byte))));
    }
}
