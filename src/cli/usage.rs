//! `nearfar usage`: sums over the ledger.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::args::Usage;
use super::client::{Client, block_on};
use super::failed::Failed;
use super::style::{self, ms};
use crate::config::units;
use crate::store::Dimension;

/// Runs the verb.
///
/// # Errors
/// No daemon, or a time or dimension that is not one.
pub fn run(args: &Usage, state_dir: &Path) -> Result<(), Failed> {
    let by = Dimension::list(&args.by).map_err(|error| Failed::usage(format!("--by: {error}.")))?;
    let now = now_ms();
    let since = args
        .since
        .as_deref()
        .map(|text| time("--since", text, now))
        .transpose()?;
    let until = args
        .until
        .as_deref()
        .map(|text| time("--until", text, now))
        .transpose()?;
    let names: Vec<&str> = by.iter().map(|dimension| dimension.as_str()).collect();
    let mut path = format!("/admin/v1/usage?by={}", names.join(","));
    for (name, value) in [("since_ms", since), ("until_ms", until)] {
        if let Some(value) = value {
            path.push_str(&format!("&{name}={value}"));
        }
    }
    let client = Client::control(state_dir);
    let answer = block_on(client.get(&path))?;
    let text = if args.json {
        format!("{answer}\n")
    } else {
        render(&answer, &names)
    };
    Ok(style::print(&text)?)
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

/// An age such as `1d`, or a date with or without a time of day, in UTC.
fn time(option: &str, text: &str, now_ms: i64) -> Result<i64, Failed> {
    if let Some(age) = units::duration(text) {
        return Ok(now_ms.saturating_sub(age.as_millis() as i64));
    }
    date_ms(text).ok_or_else(|| {
        Failed::usage(format!("{option} {}: this is not a time.", style::safe(text)))
            .mend("Write an age such as 1d, 6h or 30m, or a date such as 2026-01-31 or 2026-01-31T12:00 (UTC).")
    })
}

/// `YYYY-MM-DD`, `YYYY-MM-DDTHH:MM`, `YYYY-MM-DDTHH:MM:SS`, each with or without `Z`.
fn date_ms(text: &str) -> Option<i64> {
    let text = text.strip_suffix('Z').unwrap_or(text);
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let date = numbers(date, '-')?;
    let &[year, month, day] = date.as_slice() else {
        return None;
    };
    let clock = numbers(clock, ':')?;
    let (hour, minute, second) = match *clock.as_slice() {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    let fits = (1970..=9999).contains(&year)
        && (1..=days).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !fits {
        return None;
    }
    // Days since 1970 of the proleptic Gregorian calendar, with the year
    // starting in March so that the leap day is its last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_number = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + (day - 1) - 719_468;
    Some(((day_number * 24 + hour) * 60 + minute) * 60_000 + second * 1_000)
}

fn numbers(text: &str, separator: char) -> Option<Vec<i64>> {
    text.split(separator)
        .map(|part| {
            let digits =
                !part.is_empty() && part.len() <= 4 && part.chars().all(|c| c.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        })
        .collect()
}

/// Usage lines for people, `by` first.
pub fn render(answer: &Value, by: &[&str]) -> String {
    let lines = answer
        .as_array()
        .or_else(|| answer["lines"].as_array())
        .map(Vec::as_slice)
        .unwrap_or_default();
    if lines.is_empty() {
        return "no requests in this time\n".to_owned();
    }
    let rows = lines.iter().map(|line| row(line, by)).collect();
    let names: Vec<String> = by.iter().map(|name| name.to_uppercase()).collect();
    let mut heading: Vec<&str> = names.iter().map(String::as_str).collect();
    heading.extend([
        "REQUESTS",
        "OK",
        "FAILED",
        "REFUSED",
        "CANCELLED",
        "PROMPT",
        "CACHED",
        "WRITTEN",
        "COST",
        "FIRST TOKEN",
        "P95",
        "DURATION",
    ]);
    let right: Vec<usize> = (by.len()..heading.len()).collect();
    style::table(&heading, rows, &right)
}

fn row(line: &Value, by: &[&str]) -> Vec<String> {
    let count = |name: &str| line[name].as_u64().unwrap_or(0).to_string();
    let time = |name: &str| line[name].as_f64().map_or_else(|| "-".to_owned(), ms);
    let mut row: Vec<String> = by
        .iter()
        .map(|name| match line["group"][*name].as_str() {
            None | Some("") => "-".to_owned(),
            Some(value) => value.to_owned(),
        })
        .collect();
    let cost = match (line["cost_micro"].as_u64(), line["cost_unknown"].as_u64()) {
        (Some(micro), None | Some(0)) => style::money(micro),
        // What is known, and how many requests it leaves out.
        (Some(micro), Some(unknown)) => format!("{} +{unknown} unknown", style::money(micro)),
        (None, _) => "-".to_owned(),
    };
    row.extend([
        count("requests"),
        count("ok"),
        count("failed"),
        count("refused"),
        count("cancelled"),
        count("prompt_tokens"),
        count("cached_prompt_tokens"),
        count("completion_tokens"),
        cost,
        time("ttft_p50_ms"),
        time("ttft_p95_ms"),
        time("mean_duration_ms"),
    ]);
    row
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn times_are_ages_or_dates() {
        assert_eq!(time("--since", "1d", 100_000_000).unwrap(), 13_600_000);
        assert_eq!(date_ms("1970-01-01"), Some(0));
        assert_eq!(date_ms("2000-02-29"), Some(951_782_400_000));
        assert_eq!(date_ms("2026-01-31T12:00"), Some(1_769_860_800_000));
        assert_eq!(date_ms("2024-12-31T23:59:59Z"), Some(1_735_689_599_000));
        for bad in [
            "",
            "soon",
            "2026-02-29",
            "2026-13-01",
            "2026-1",
            "2026-01-01T25:00",
            "١-1-1",
        ] {
            let error = time("--since", bad, 0).unwrap_err();
            assert_eq!(error.code, 2, "{bad}");
        }
    }

    #[test]
    fn unknown_cost_is_not_nothing() {
        let answer = json!({"lines": [
            {"group": {"target": "local/concierge"}, "requests": 3, "ok": 2, "failed": 0,
             "refused": 0, "cancelled": 1, "prompt_tokens": 120, "cached_prompt_tokens": 0,
             "completion_tokens": 30, "cost_micro": 0, "cost_unknown": 0,
             "ttft_p50_ms": 41.0, "ttft_p95_ms": 80.0, "mean_duration_ms": 400.0},
            {"group": {"target": ""}, "requests": 1, "refused": 1, "cost_micro": 5,
             "cost_unknown": 1, "ttft_p50_ms": null}
        ]});
        let shown = render(&answer, &["target"]);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("TARGET "), "{shown}");
        assert!(
            lines[1].contains("0.000000") && lines[1].contains("41 ms"),
            "{shown}"
        );
        assert!(lines[2].starts_with("- "), "{shown}");
        assert!(lines[2].contains("0.000005 +1 unknown"), "{shown}");
        assert_eq!(render(&json!([]), &[]), "no requests in this time\n");
    }
}
