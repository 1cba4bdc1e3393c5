//! Limits, as far as the decision sees them: what is counted, since when, and
//! why a limit keeps a target out. Days and months are those of UTC.
//!
//! What is not here: the counting itself, which needs a clock and a lock.

use serde::{Deserialize, Serialize};

use crate::calendar::date;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_names_limit_and_date() {
        let barred = Barred {
            limit: "cloud".into(),
            measure: Measure::SpendMicroPerMonth,
            bar: Bar::UsedUp {
                // 2026-12-01T00:00:00Z.
                until_ms: 1_796_083_200_000,
            },
        };
        let said = barred.describe();
        assert_eq!(said, "over its budget until 2026-12-01 (limit `cloud`)");
        assert_eq!(Measure::SpendMicroPerDay.show(1_500_000), "1.500000");
    }
}
