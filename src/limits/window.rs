//! Figures over a time: the last minute, or a day or month of the calendar.

use nearfar_domain::calendar::{day_start, month_start, next_day, next_month};
use nearfar_domain::limit::Span;

/// One moment on both clocks: the calendar's, which may be set, and one that
/// only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970.
    pub unix_ms: i64,
    /// Milliseconds since some moment, the same for a process's life.
    pub ticks_ms: u64,
}

const SLOT_MS: u64 = 1_000;
/// A minute and the slot that has begun: so every 60 seconds lie within what is
/// counted, and a minute never takes more than is allowed.
const SLOTS: usize = 61;

/// What was used in the last minute, in slots of a second. A figure counts for
/// 60 to 61 seconds.
#[derive(Clone, Debug)]
pub(super) struct Rolling {
    slots: Box<[u64; SLOTS]>,
    /// The number of the newest slot that was written.
    newest: u64,
}

impl Rolling {
    pub(super) fn new() -> Self {
        Self {
            slots: Box::new([0; SLOTS]),
            newest: 0,
        }
    }

    /// The slots that still count at `slot`, oldest first, with their numbers.
    fn live(&self, slot: u64) -> impl Iterator<Item = (u64, u64)> {
        let slot = slot.max(self.newest);
        let first = slot.saturating_sub(SLOTS as u64 - 1);
        // Those behind the newest were not written since they counted last.
        (first..=self.newest).map(|number| (number, self.slots[(number % SLOTS as u64) as usize]))
    }

    pub(super) fn used(&self, ticks_ms: u64) -> u64 {
        let live = self.live(ticks_ms / SLOT_MS);
        live.fold(0, |sum, (_, used)| sum.saturating_add(used))
    }

    pub(super) fn add(&mut self, ticks_ms: u64, amount: u64) {
        let slot = (ticks_ms / SLOT_MS).max(self.newest);
        let stale = (slot - self.newest).min(SLOTS as u64);
        for number in slot - stale..slot {
            self.slots[((number + 1) % SLOTS as u64) as usize] = 0;
        }
        self.newest = slot;
        let place = &mut self.slots[(slot % SLOTS as u64) as usize];
        *place = place.saturating_add(amount);
    }

    /// Milliseconds until no more than `room` is used, if nothing is added.
    pub(super) fn until(&self, ticks_ms: u64, room: u64) -> u64 {
        let mut left = self.used(ticks_ms);
        for (number, used) in self.live(ticks_ms / SLOT_MS) {
            if left <= room {
                break;
            }
            left = left.saturating_sub(used);
            if left <= room {
                let free = (number + SLOTS as u64) * SLOT_MS;
                return free.saturating_sub(ticks_ms).max(1);
            }
        }
        0
    }
}

/// What was used in a day or month of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calendar {
    /// Its first moment.
    pub(super) start_ms: i64,
    pub(super) used: u64,
    /// The part of `used` that nobody told and that was taken to be the reserve.
    pub(super) estimated: u64,
}

impl Calendar {
    /// The figures at a time. A clock that was set back brings nothing back, so
    /// nobody gains a budget by it: what was used stays used.
    pub(super) fn at(self, span: Span, unix_ms: i64) -> Calendar {
        let start_ms = start(span, unix_ms);
        if start_ms > self.start_ms {
            return Calendar {
                start_ms,
                ..Calendar::default()
            };
        }
        Calendar { start_ms, ..self }
    }
}

/// The first moment of the day or month.
pub(super) fn start(span: Span, unix_ms: i64) -> i64 {
    match span {
        Span::Month => month_start(unix_ms),
        Span::Day | Span::Minute | Span::Held => day_start(unix_ms),
    }
}

/// The first moment of the next one.
pub(super) fn end(span: Span, unix_ms: i64) -> i64 {
    match span {
        Span::Month => next_month(unix_ms),
        Span::Day | Span::Minute | Span::Held => next_day(unix_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The rolling figure is never below what the last 60 seconds took, nor
        /// above what the last 61 seconds took, and `until` is right to a slot.
        #[test]
        fn a_minute_is_never_counted_short(
            steps in proptest::collection::vec((0..20_000u64, 0..50u64), 1..60),
            room in 0..200u64,
        ) {
            let mut rolling = Rolling::new();
            let mut log: Vec<(u64, u64)> = Vec::new();
            let mut now = 0;
            for (pause, amount) in steps {
                now += pause;
                rolling.add(now, amount);
                log.push((now, amount));
                let within = |window: u64| -> u64 {
                    log.iter().filter(|(at, _)| now - at < window).map(|(_, amount)| amount).sum()
                };
                let used = rolling.used(now);
                prop_assert!(used >= within(60_000), "{used}");
                prop_assert!(used <= within(61_000), "{used}");
                let wait = rolling.until(now, room);
                prop_assert!(rolling.used(now + wait) <= room);
                prop_assert!(wait == 0 || rolling.used(now + wait - 1) > room);
            }
            prop_assert_eq!(rolling.used(now + 61_000), 0);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_gives_nothing_back() {
        let day = 86_400_000;
        let used = Calendar {
            start_ms: 10 * day,
            used: 5,
            estimated: 1,
        };
        assert_eq!(used.at(Span::Day, 10 * day + 7), used);
        assert_eq!(used.at(Span::Day, 11 * day).used, 0);
        let back = used.at(Span::Day, 3 * day + 9);
        assert_eq!((back.start_ms, back.used), (3 * day, 5));
        // And it does not wait for the wrong date to come again.
        assert_eq!(back.at(Span::Day, 4 * day).used, 0);
    }
}
