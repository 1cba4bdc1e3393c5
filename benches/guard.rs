//! How fast the guard reads: text with an identifier now and then, text with
//! none, and numbers alone.
//! `cargo bench -p nearfar-domain --bench guard` prints megabytes per second.

use std::hint::black_box;
use std::time::Instant;

use nearfar_domain::guard::{Kinds, scan};

/// Each text is repeated up to about this many bytes.
const BYTES: usize = 64 << 10;
const ROUNDS: usize = 400;

const PROSE: &str = "The committee met on Tuesday to discuss the plan for the harbour. Most of the \
     members were in favour, though some asked for another survey of the sea bed before work \
     begins. A decision is due in the spring. ";
const LETTERS: &str = "Dear Ana, please call me at +44 7700 900123 or write to \
     ana.b@mail.example.org. The invoice 20240017 was paid with card 4111 1111 1111 1111 on \
     2024-03-01, the rest goes to DE89 3704 0044 0532 0130 00. The server is 86.121.97.248. ";
const NUMBERS: &str = "17.5 220 3904 12 0.25 1999 73 44120 8 6061 3.1416 500 12 99 100 7 ";

fn main() {
    for (name, piece) in [("prose", PROSE), ("letters", LETTERS), ("numbers", NUMBERS)] {
        let text = piece.repeat(BYTES / piece.len());
        let mut best = f64::INFINITY;
        let mut count = 0_usize;
        for _ in 0..ROUNDS {
            count = 0;
            let began = Instant::now();
            scan(black_box(&text), Kinds::ALL, |_| count += 1);
            best = best.min(began.elapsed().as_secs_f64());
        }
        let speed = text.len() as f64 / 1e6 / best;
        println!(
            "{name}: {speed:.0} MB/s, {count} findings in {} bytes",
            text.len()
        );
    }
}
