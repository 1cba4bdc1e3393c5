//! Today's date for chat templates.

use std::time::{SystemTime, UNIX_EPOCH};

use nearfar_domain::calendar::civil_of;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Today in UTC, as `strftime` prints `%d %b %Y`.
pub(super) fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    date(since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }))
}

/// The date of a moment in milliseconds since 1970.
fn date(unix_ms: i64) -> String {
    let (year, month, day) = civil_of(unix_ms);
    let name = MONTHS[usize::try_from(month - 1).unwrap_or(0) % MONTHS.len()];
    format!("{day:02} {name} {year}")
}

#[cfg(test)]
mod tests {
    use nearfar_domain::calendar::DAY_MS;

    use super::date;

    #[test]
    fn known_days() {
        for (days, expected) in [
            (0, "01 Jan 1970"),
            (59, "01 Mar 1970"),
            (11_016, "29 Feb 2000"),
            (11_017, "01 Mar 2000"),
            (20_781, "24 Nov 2026"),
            (20_818, "31 Dec 2026"),
        ] {
            assert_eq!(date(days * DAY_MS), expected);
        }
    }
}
