//! Today's date for chat templates.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Today in UTC, as `strftime` prints `%d %b %Y`.
pub(super) fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    date(seconds / 86_400)
}

/// The date so many days after 1 January 1970. Years are counted from March, so
/// that the leap day comes last (Howard Hinnant, "chrono-compatible low-level
/// date algorithms").
fn date(days: u64) -> String {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year_of_era + u64::from(month < 2);
    format!("{day:02} {} {year}", MONTHS[month as usize])
}

#[cfg(test)]
mod tests {
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
            assert_eq!(date(days), expected);
        }
    }
}
