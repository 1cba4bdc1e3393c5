//! Draws decision ids: 128 bits, ordered by time, so that the ledger's index
//! stays dense (the layout of UUID version 7, RFC 9562).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nearfar_domain::ids::DecisionId;

/// Stands in for randomness where the system has none to give.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A new id.
pub(super) fn draw() -> DecisionId {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since_1970.map_or(0, |time| time.as_millis());
    let mut random = [0u8; 16];
    if getrandom::fill(&mut random).is_err() {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        random[8..].copy_from_slice(&count.to_be_bytes());
    }
    layout(millis, u128::from_be_bytes(random))
}

fn layout(millis: u128, random: u128) -> DecisionId {
    const VERSION: u128 = 7 << 76;
    const VARIANT: u128 = 2 << 62;
    let time = (millis & ((1 << 48) - 1)) << 80;
    let random_a = random & (0xfff << 64);
    let random_b = random & ((1 << 62) - 1);
    DecisionId(time | VERSION | random_a | VARIANT | random_b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ids_sort_later_and_the_layout_is_uuid_7() {
        let all = u128::MAX;
        assert!(layout(2, 0).0 > layout(1, all).0);
        let text = format!("{:032x}", layout(0x0123_4567_89ab, all).0);
        assert_eq!(text, "0123456789ab7fffbfffffffffffffff");
        assert_ne!(draw(), draw());
    }
}
