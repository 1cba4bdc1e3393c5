//! SentencePiece BPE as models store it: tokens with scores, bytes as a last resort.
//!
//! The pair whose merged token has the highest score is merged first, the
//! leftmost among equals, until no pair forms a token. What is left unmerged
//! and is no token comes out as its bytes (`<0x0A>`). Algorithm: SentencePiece's
//! BPE encoder, in the form that llama.cpp's `llm_tokenizer_spm` gives it.

use std::collections::{BinaryHeap, HashMap};

/// A vocabulary with scores.
pub(super) struct Spm {
    ids: HashMap<String, u32>,
    scores: Vec<f32>,
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
}

struct Symbol {
    start: usize,
    len: usize,
    prev: Option<usize>,
    next: Option<usize>,
}

/// A possible merge; the heap yields the best score, then the leftmost.
#[derive(PartialEq)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    len: usize,
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score
            .total_cmp(&other.score)
            .then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Spm {
    pub(super) fn new(tokens: &[String], scores: Vec<f32>, unknown: Option<u32>) -> Self {
        let ids: HashMap<String, u32> = tokens
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), id as u32))
            .collect();
        let mut bytes = [None; 256];
        for (byte, slot) in bytes.iter_mut().enumerate() {
            *slot = ids.get(&format!("<0x{byte:02X}>")).copied();
        }
        Self {
            ids,
            scores,
            bytes,
            unknown,
        }
    }

    /// Encodes text whose spaces are already `▁`.
    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        for (start, c) in text.char_indices() {
            let index = symbols.len();
            symbols.push(Symbol {
                start,
                len: c.len_utf8(),
                prev: index.checked_sub(1),
                next: Some(index + 1),
            });
        }
        if let Some(last) = symbols.last_mut() {
            last.next = None;
        }
        let mut heap = BinaryHeap::new();
        for left in 1..symbols.len() {
            self.consider(text, &symbols, left - 1, left, &mut heap);
        }
        while let Some(pair) = heap.pop() {
            let (left, right) = (pair.left, pair.right);
            // One of the two was merged meanwhile.
            if symbols[left].len == 0
                || symbols[right].len == 0
                || symbols[left].len + symbols[right].len != pair.len
            {
                continue;
            }
            symbols[left].len += symbols[right].len;
            symbols[right].len = 0;
            let after = symbols[right].next;
            symbols[left].next = after;
            if let Some(after) = after {
                symbols[after].prev = Some(left);
                self.consider(text, &symbols, left, after, &mut heap);
            }
            if let Some(before) = symbols[left].prev {
                self.consider(text, &symbols, before, left, &mut heap);
            }
        }
        for symbol in symbols.iter().filter(|s| s.len > 0) {
            let piece = &text[symbol.start..symbol.start + symbol.len];
            if let Some(id) = self.ids.get(piece) {
                out.push(*id);
                continue;
            }
            for byte in piece.bytes() {
                out.extend(self.bytes[usize::from(byte)].or(self.unknown));
            }
        }
    }

    fn consider(
        &self,
        text: &str,
        symbols: &[Symbol],
        left: usize,
        right: usize,
        heap: &mut BinaryHeap<Pair>,
    ) {
        let start = symbols[left].start;
        let len = symbols[left].len + symbols[right].len;
        if let Some(id) = self.ids.get(&text[start..start + len]) {
            heap.push(Pair {
                score: self.scores.get(*id as usize).copied().unwrap_or(0.0),
                left,
                right,
                len,
            });
        }
    }
}
