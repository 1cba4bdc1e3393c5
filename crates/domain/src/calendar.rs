//! Days, months and dates of moments in milliseconds since 1970, in UTC and the
//! proleptic Gregorian calendar. Which moment it is now is the caller's.
//!
//! The algorithms are Howard Hinnant's ("chrono-Compatible Low-Level Date
//! Algorithms"): years begin in March, so that the leap day is their last.

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// The first moment of the day of `unix_ms`.
pub fn day_start(unix_ms: i64) -> i64 {
    unix_ms.div_euclid(DAY_MS).saturating_mul(DAY_MS)
}

/// The first moment of the month of `unix_ms`.
pub fn month_start(unix_ms: i64) -> i64 {
    let (year, month, _) = civil_of(unix_ms);
    days_of(year, month).saturating_mul(DAY_MS)
}

/// The first moment of the day after that of `unix_ms`.
pub fn next_day(unix_ms: i64) -> i64 {
    day_start(unix_ms).saturating_add(DAY_MS)
}

/// The first moment of the month after that of `unix_ms`.
pub fn next_month(unix_ms: i64) -> i64 {
    let (year, month, _) = civil_of(unix_ms);
    let (year, month) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    days_of(year, month).saturating_mul(DAY_MS)
}

/// `2026-12-01`.
pub fn date(unix_ms: i64) -> String {
    let (year, month, day) = civil_of(unix_ms);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-12-01T00:00:00Z`.
pub fn date_time(unix_ms: i64) -> String {
    let (hour, minute, second) = clock_of(unix_ms);
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", date(unix_ms))
}

/// Year, month (1 to 12) and day (from 1) of a moment.
pub fn civil_of(unix_ms: i64) -> (i64, i64, i64) {
    civil(unix_ms.div_euclid(DAY_MS))
}

/// Hour, minute and second of a moment.
pub fn clock_of(unix_ms: i64) -> (i64, i64, i64) {
    let seconds = unix_ms.rem_euclid(DAY_MS) / 1_000;
    (seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Year, month and day of a day counted from 1970: `civil_from_days`.
fn civil(day: i64) -> (i64, i64, i64) {
    // Beyond some ten thousand years nobody cares, and sums stay small.
    let shifted = day.clamp(-4_000_000, 4_000_000) + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Days from 1970 to the first of a month: `days_from_civil`.
pub fn days_of(year: i64, month: i64) -> i64 {
    let (year, march_month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let of_year = (153 * march_month + 2) / 5;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24T18:30:00Z.
    const NOW: i64 = 1_795_545_000_000;

    #[test]
    fn days_and_months_are_those_of_the_calendar() {
        assert_eq!(date_time(NOW), "2026-11-24T18:30:00Z");
        assert_eq!(date_time(day_start(NOW)), "2026-11-24T00:00:00Z");
        assert_eq!(date_time(next_day(NOW)), "2026-11-25T00:00:00Z");
        assert_eq!(date_time(month_start(NOW)), "2026-11-01T00:00:00Z");
        assert_eq!(date_time(next_month(NOW)), "2026-12-01T00:00:00Z");
        assert_eq!(
            date_time(next_month(next_month(NOW))),
            "2027-01-01T00:00:00Z"
        );
        assert_eq!(date_time(-1), "1969-12-31T23:59:59Z");
        assert_eq!(date(951_782_400_000), "2000-02-29");
    }

    #[test]
    fn every_day_of_a_leap_cycle_is_in_its_month() {
        for day in (-800_i64..150_000).step_by(7) {
            let moment = day * DAY_MS + 1;
            let (first, next) = (month_start(moment), next_month(moment));
            assert!(first <= moment && moment < next, "{day}");
            assert!((28..=31).contains(&((next - first) / DAY_MS)), "{day}");
            assert_eq!(month_start(first), first);
            assert_eq!(next_month(first), next);
        }
    }

    #[test]
    fn absurd_times_end_in_no_panic() {
        for moment in [i64::MIN, i64::MAX, 0] {
            let _ = (month_start(moment), next_month(moment), next_day(moment));
            let _ = date_time(moment);
        }
    }
}
