//! Times as Ollama writes them: RFC 3339 in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// This moment, to the microsecond.
pub(super) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| {
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    });
    text(micros)
}

/// A time in milliseconds since 1970.
pub(super) fn of_ms(ms: i64) -> String {
    text(ms.saturating_mul(1_000))
}

/// Days to a date after Howard Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms": years begin in March, so that the leap day is their last.
fn text(micros: i64) -> String {
    const DAY: i64 = 86_400;
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (ms, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999000Z"),
            (1_763_971_261_050, "2025-11-24T08:01:01.050000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999000Z"),
        ] {
            assert_eq!(of_ms(ms), expected);
        }
        assert!(now().as_str() > "2025" && now().ends_with('Z'));
    }
}
