//! Times as Ollama writes them: RFC 3339 in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use nearfar_domain::calendar::{civil_of, clock_of};

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

fn text(micros: i64) -> String {
    let (ms, micro) = (micros.div_euclid(1_000), micros.rem_euclid(1_000));
    let (year, month, day) = civil_of(ms);
    let (hour, minute, second) = clock_of(ms);
    let fraction = ms.rem_euclid(1_000) * 1_000 + micro;
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
