//! Limits, as far as the decision sees them: what is counted, since when, and
//! why a limit keeps a target out. Days and months are those of UTC.
//!
//! What is not here: the counting itself, which needs a clock and a lock.

use serde::{Deserialize, Serialize};

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Requests in any minute.
    RequestsPerMinute,
    /// Tokens of prompts and answers in any minute.
    TokensPerMinute,
    /// Requests at one time.
    ConcurrentRequests,
    /// Micro-units of money in a day.
    SpendMicroPerDay,
    /// Micro-units of money in a month.
    SpendMicroPerMonth,
    /// Tokens of prompts and answers in a day.
    TokensPerDay,
    /// Tokens of prompts and answers in a month.
    TokensPerMonth,
}

/// From when to when a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// The last minute, at every moment anew.
    Minute,
    /// As long as it is held.
    Held,
    /// A day of UTC.
    Day,
    /// A month of UTC.
    Month,
}

/// What is counted, whatever the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Tokens.
    Tokens,
    /// Micro-units of money.
    Micro,
}

impl Measure {
    /// All of them.
    pub const ALL: [Measure; 7] = [
        Measure::RequestsPerMinute,
        Measure::TokensPerMinute,
        Measure::ConcurrentRequests,
        Measure::SpendMicroPerDay,
        Measure::SpendMicroPerMonth,
        Measure::TokensPerDay,
        Measure::TokensPerMonth,
    ];

    /// The key in the configuration and the word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Measure::RequestsPerMinute => "requests_per_minute",
            Measure::TokensPerMinute => "tokens_per_minute",
            Measure::ConcurrentRequests => "concurrent_requests",
            Measure::SpendMicroPerDay => "spend_micro_per_day",
            Measure::SpendMicroPerMonth => "spend_micro_per_month",
            Measure::TokensPerDay => "tokens_per_day",
            Measure::TokensPerMonth => "tokens_per_month",
        }
    }

    /// The words in messages: `its requests per minute are used up`.
    pub fn words(self) -> &'static str {
        match self {
            Measure::RequestsPerMinute => "requests per minute",
            Measure::TokensPerMinute => "tokens per minute",
            Measure::ConcurrentRequests => "requests at a time",
            Measure::SpendMicroPerDay => "money per day",
            Measure::SpendMicroPerMonth => "money per month",
            Measure::TokensPerDay => "tokens per day",
            Measure::TokensPerMonth => "tokens per month",
        }
    }

    /// What is counted.
    pub fn unit(self) -> Unit {
        match self {
            Measure::RequestsPerMinute | Measure::ConcurrentRequests => Unit::Requests,
            Measure::TokensPerMinute | Measure::TokensPerDay | Measure::TokensPerMonth => {
                Unit::Tokens
            }
            Measure::SpendMicroPerDay | Measure::SpendMicroPerMonth => Unit::Micro,
        }
    }

    /// Over which time.
    pub fn span(self) -> Span {
        match self {
            Measure::RequestsPerMinute | Measure::TokensPerMinute => Span::Minute,
            Measure::ConcurrentRequests => Span::Held,
            Measure::SpendMicroPerDay | Measure::TokensPerDay => Span::Day,
            Measure::SpendMicroPerMonth | Measure::TokensPerMonth => Span::Month,
        }
    }

    /// A figure of it for people: money in currency units.
    pub fn show(self, figure: u64) -> String {
        match self.unit() {
            Unit::Micro => format!("{}.{:06}", figure / 1_000_000, figure % 1_000_000),
            Unit::Requests | Unit::Tokens => figure.to_string(),
        }
    }
}

/// Why a limit keeps a target out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barred {
    /// The limit's name.
    pub limit: String,
    /// What it counts.
    pub measure: Measure,
    /// How it does.
    pub bar: Bar,
}

/// How a limit keeps a target out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// It is used up until this time, in milliseconds since 1970.
    UsedUp {
        /// Its reset.
        until_ms: i64,
    },
    /// Requests under way hold the rest of it.
    Held,
    /// The request alone may take more than it allows at all.
    TooLarge,
    /// It counts money, and the target's price is not known.
    PriceUnknown,
}

/// A limit that is past its soft share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Soft {
    /// The limit's name.
    pub limit: String,
    /// Whether it is a limit of this very target, which is to be relieved
    /// whatever it costs.
    pub of_target: bool,
}

impl Barred {
    /// One clause for people: `over its budget until 2026-12-01 (limit \`cloud\`)`.
    pub fn describe(&self) -> String {
        let (limit, words) = (&self.limit, self.measure.words());
        match self.bar {
            Bar::UsedUp { until_ms } => match self.measure.span() {
                Span::Day | Span::Month => {
                    format!("over its budget until {} (limit `{limit}`)", date(until_ms))
                }
                Span::Minute | Span::Held => format!("over its {words} (limit `{limit}`)"),
            },
            Bar::Held => {
                format!("requests under way hold the rest of its {words} (limit `{limit}`)")
            }
            Bar::TooLarge => {
                format!("the request may take more than its {words} (limit `{limit}`)")
            }
            Bar::PriceUnknown => {
                format!("its price is not known, and limit `{limit}` counts money")
            }
        }
    }
}

const DAY_MS: i64 = 86_400_000;

/// The first moment of the day of `unix_ms`.
pub fn day_start(unix_ms: i64) -> i64 {
    unix_ms.div_euclid(DAY_MS).saturating_mul(DAY_MS)
}

/// The first moment of the month of `unix_ms`.
pub fn month_start(unix_ms: i64) -> i64 {
    let (year, month, _) = civil(unix_ms.div_euclid(DAY_MS));
    days_of(year, month).saturating_mul(DAY_MS)
}

/// The first moment of the day after that of `unix_ms`.
pub fn next_day(unix_ms: i64) -> i64 {
    day_start(unix_ms).saturating_add(DAY_MS)
}

/// The first moment of the month after that of `unix_ms`.
pub fn next_month(unix_ms: i64) -> i64 {
    let (year, month, _) = civil(unix_ms.div_euclid(DAY_MS));
    let (year, month) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    days_of(year, month).saturating_mul(DAY_MS)
}

/// `2026-12-01`.
pub fn date(unix_ms: i64) -> String {
    let (year, month, day) = civil(unix_ms.div_euclid(DAY_MS));
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-12-01T00:00:00Z`.
pub fn date_time(unix_ms: i64) -> String {
    let seconds = unix_ms.rem_euclid(DAY_MS) / 1_000;
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", date(unix_ms))
}

/// Year, month and day of a day counted from 1970, by Hinnant's
/// `civil_from_days`: years begin in March, so that the leap day is the last.
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

/// Days from 1970 to the first of a month.
fn days_of(year: i64, month: i64) -> i64 {
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

    #[test]
    fn a_reason_names_limit_and_date() {
        let barred = Barred {
            limit: "cloud".into(),
            measure: Measure::SpendMicroPerMonth,
            bar: Bar::UsedUp {
                until_ms: next_month(NOW),
            },
        };
        let said = barred.describe();
        assert_eq!(said, "over its budget until 2026-12-01 (limit `cloud`)");
        assert_eq!(Measure::SpendMicroPerDay.show(1_500_000), "1.500000");
    }
}
