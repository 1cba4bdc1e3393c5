//! Makes clean text sound like speech that went through a recogniser.
//!
//! Text between [`KEEP`] marks (an argument that must be copied) is never damaged.

use crate::rng::Rng;

/// Surrounds a passage that must survive letter for letter.
pub const KEEP: char = '\u{1}';

const FILLERS: &[&str] = &["uh", "um", "hey", "so", "ok so", "excuse me", "hi", "hello", "well", "er", "hmm", "yeah", "right", "hi there", "sorry", "good morning", "please"];
const TAILS: &[&str] = &["please", "thanks", "thank you", "then", "by the way", "if you know", "again", "actually"];
const HEARD: &[(&str, &str)] = &[
    ("breakfast", "break fast"), ("check-out", "check out"), ("check-in", "check in"), ("wifi", "wi fi"), ("Wi-Fi", "wifi"), ("their", "there"), ("where", "were"), ("what's", "whats"),
    ("what is", "whats"), ("password", "pass word"), ("you're", "your"), ("going to", "gonna"), ("want to", "wanna"), ("how much", "howmuch"), ("i'm", "im"), ("can't", "cant"), ("where's", "wheres"), ("who is", "whos"), ("don't", "dont"), ("do i", "do i do i"), ("what time", "wht time"), ("you", "u"), ("are", "r"),
];

/// How untidy one guest speaks.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    lower: bool,
    mark: bool,
    noise: f64,
}

impl Manner {
    /// A guest.
    pub fn any(rng: &mut Rng) -> Self {
        let lower = rng.chance(0.65);
        Self { lower, mark: rng.chance(if lower { 0.3 } else { 0.85 }), noise: *rng.pick(&[0.0, 0.0, 0.15, 0.3, 0.6]) }
    }

    /// Says a text in this manner; `question` puts the right mark at its end.
    pub fn say(self, rng: &mut Rng, text: &str, question: bool) -> String {
        let mut text = text.to_owned();
        if rng.chance(self.noise) {
            text = false_start(rng, &text);
        }
        for (from, to) in HEARD {
            if text.contains(from) && rng.chance(self.noise * 0.3) && !text.contains(KEEP) {
                text = text.replacen(from, to, 1);
            }
        }
        let mut out = String::new();
        for (i, piece) in text.split(KEEP).enumerate() {
            if i % 2 == 1 {
                out.push_str(piece);
            } else {
                out.push_str(&self.damage(rng, piece));
            }
        }
        if rng.chance(0.12 + self.noise * 0.5) {
            out = format!("{}{} {out}", rng.pick(FILLERS), if self.lower { "" } else { "," });
        }
        if rng.chance(0.08 + self.noise * 0.1) {
            out = format!("{out} {}", rng.pick(TAILS));
        }
        if !self.lower {
            out = crate::values::cap(&out).replace(" i ", " I ").replace(" i'", " I'");
        }
        if self.mark {
            out.push(if question { '?' } else { '.' });
        }
        out
    }

    fn damage(self, rng: &mut Rng, piece: &str) -> String {
        let words: Vec<String> = piece
            .split(' ')
            .map(|word| {
                let word = if self.lower { word.to_lowercase() } else { word.to_owned() };
                if word.len() >= 4 && word.bytes().all(|b| b.is_ascii_alphabetic()) && rng.chance(self.noise * 0.09) { typo(rng, &word) } else { word }
            })
            .collect();
        words.join(" ")
    }
}

fn typo(rng: &mut Rng, word: &str) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let i = rng.range(1, letters.len() - 2);
    match rng.below(4) {
        0 => letters.swap(i, i + 1),
        1 => {
            letters.remove(i);
        }
        2 => letters.insert(i, letters[i]),
        _ => letters[i] = char::from(b'a' + rng.below(26) as u8),
    }
    letters.into_iter().collect()
}

/// Says the first words twice, or begins another sentence first.
fn false_start(rng: &mut Rng, text: &str) -> String {
    let words: Vec<&str> = text.split(' ').collect();
    if words.len() < 4 || text.contains(KEEP) {
        return text.to_owned();
    }
    match rng.below(5) {
        0 => format!("{} {text}", words[..2].join(" ")),
        1 => format!("{} uh {text}", words[..rng.range(1, 2)].join(" ")),
        2 => format!("i was wondering uh {text}"),
        3 => {
            let i = rng.range(1, words.len() - 1);
            format!("{} um {}", words[..i].join(" "), words[i..].join(" "))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_passages_survive() {
        let mut rng = Rng::new(9);
        for _ in 0..500 {
            let manner = Manner::any(&mut rng);
            let said = manner.say(&mut rng, "wake me in \u{1}Room 12B\u{1} at \u{1}7:30\u{1}", false);
            assert!(said.contains("Room 12B") && said.contains("7:30") && !said.contains(KEEP), "{said}");
        }
    }
}
