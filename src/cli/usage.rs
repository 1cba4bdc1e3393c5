//! `nearfar usage`: sums over the ledger.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

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
    } else if args.csv {
        csv(&answer, &names)
    } else {
        render(&answer, &names, args.times)
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

/// The lines of an answer.
fn lines(answer: &Value) -> &[Value] {
    let lines = answer.as_array().or_else(|| answer["lines"].as_array());
    lines.map(Vec::as_slice).unwrap_or_default()
}

/// Counts of a line, in the order of the comma-separated form.
const COUNTS: [&str; 19] = [
    "requests",
    "ok",
    "failed",
    "refused",
    "cancelled",
    "prompt_tokens",
    "cached_prompt_tokens",
    "cache_written_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cost_micro",
    "cost_unknown",
    "failed_cost_micro",
    "local",
    "saved_local_micro",
    "saved_local_unknown",
    "from_cache",
    "saved_cache_micro",
    "mean_duration_ms",
];

/// Usage lines for spreadsheets (RFC 4180).
pub fn csv(answer: &Value, by: &[&str]) -> String {
    let mut names = by.to_vec();
    names.extend(COUNTS);
    names.extend(["ttft_p50_ms", "ttft_p95_ms", "baselines"]);
    let mut text = names.join(",") + "\r\n";
    for line in lines(answer) {
        let groups = by
            .iter()
            .map(|name| line["group"][*name].as_str().unwrap_or_default());
        let mut cells: Vec<String> = groups.map(quoted).collect();
        let numbers = COUNTS.iter().chain(&["ttft_p50_ms", "ttft_p95_ms"]);
        cells.extend(numbers.map(|name| match &line[*name] {
            Value::Null => String::new(),
            number => number.to_string(),
        }));
        cells.push(quoted(&baselines(line).join(" ")));
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn baselines(line: &Value) -> Vec<&str> {
    let list = line["baselines"].as_array();
    list.map_or_else(Vec::new, |list| {
        list.iter().filter_map(Value::as_str).collect()
    })
}

/// Usage lines for people, `by` first, and their sum.
pub fn render(answer: &Value, by: &[&str], times: bool) -> String {
    let lines = lines(answer);
    if lines.is_empty() {
        return "no requests in this time\n".to_owned();
    }
    let sum = total(lines);
    let mut rows: Vec<Vec<String>> = lines.iter().map(|line| row(line, by, times)).collect();
    if lines.len() > 1 && !by.is_empty() {
        let mut last = row(&sum, by, times);
        last[0] = "total".to_owned();
        rows.push(last);
    }
    let names: Vec<String> = by.iter().map(|name| name.to_uppercase()).collect();
    let mut heading: Vec<&str> = names.iter().map(String::as_str).collect();
    heading.extend([
        "REQUESTS",
        "OK",
        "PROMPT",
        "CACHED",
        "WRITTEN",
        "REASONING",
        "COST",
    ]);
    heading.extend(["LOCAL", "SAVED", "CACHE", "SAVED", "FAILED LEGS"]);
    if times {
        heading.extend([
            "FAILED",
            "REFUSED",
            "CANCELLED",
            "FIRST TOKEN",
            "P95",
            "DURATION",
        ]);
    }
    let right: Vec<usize> = (by.len()..heading.len()).collect();
    let mut shown = style::table(&heading, rows, &right);
    shown.push_str(&savings(lines, &sum));
    shown
}

/// What the savings of a screen are reckoned by.
fn savings(lines: &[Value], sum: &Value) -> String {
    if sum["local"].as_u64().unwrap_or(0) == 0 {
        return String::new();
    }
    let mut names: Vec<&str> = lines.iter().flat_map(|line| baselines(line)).collect();
    names.sort_unstable();
    names.dedup();
    let unknown = sum["saved_local_unknown"].as_u64().unwrap_or(0);
    let mut told = match names.as_slice() {
        [] => String::new(),
        names => format!(
            "LOCAL answers saved what the same tokens would have cost at {}",
            names.join(", ")
        ),
    };
    if unknown > 0 {
        let what = "have no reference with a known price (see savings_baseline)";
        let joined = if told.is_empty() { "" } else { "; " };
        told.push_str(&format!("{joined}{unknown} local answers {what}"));
    }
    format!("\n{}\n", style::safe(&told))
}

/// The sum of all lines. Medians have none.
fn total(lines: &[Value]) -> Value {
    let mut sum = json!({});
    for name in COUNTS.iter().filter(|name| !name.ends_with("_ms")) {
        let counts = lines.iter().filter_map(|line| line[*name].as_u64());
        sum[*name] = json!(counts.fold(0u64, u64::saturating_add));
    }
    sum
}

fn row(line: &Value, by: &[&str], times: bool) -> Vec<String> {
    let number = |name: &str| line[name].as_u64().unwrap_or(0);
    let count = |name: &str| number(name).to_string();
    let money = |name: &str| style::money(number(name));
    let time = |name: &str| line[name].as_f64().map_or_else(|| "-".to_owned(), ms);
    let mut row: Vec<String> = by
        .iter()
        .map(|name| match line["group"][*name].as_str() {
            None | Some("") => "-".to_owned(),
            Some(value) => value.to_owned(),
        })
        .collect();
    let with_unknown = |name: &str, unknown: u64| match unknown {
        0 => money(name),
        // What is known, and how many requests it leaves out.
        unknown => format!("{} +{unknown} unknown", money(name)),
    };
    let share = |part: u64| match (part, number("ok")) {
        (0, _) | (_, 0) => "-".to_owned(),
        (part, ok) => format!("{} %", (part * 100 + ok / 2) / ok),
    };
    let saved = |part: &str, name: &str| match number(part) {
        0 => "-".to_owned(),
        _ => money(name),
    };
    row.extend([
        count("requests"),
        count("ok"),
        count("prompt_tokens"),
        count("cached_prompt_tokens"),
        count("completion_tokens"),
        count("reasoning_tokens"),
        with_unknown("cost_micro", number("cost_unknown")),
        share(number("local")),
        match (number("local"), number("saved_local_unknown")) {
            (0, _) => "-".to_owned(),
            (local, unknown) if local == unknown => "unknown".to_owned(),
            _ => money("saved_local_micro"),
        },
        share(number("from_cache")),
        saved("from_cache", "saved_cache_micro"),
        saved("failed_cost_micro", "failed_cost_micro"),
    ]);
    if times {
        row.extend([
            count("failed"),
            count("refused"),
            count("cancelled"),
            time("ttft_p50_ms"),
            time("ttft_p95_ms"),
            time("mean_duration_ms"),
        ]);
    }
    row
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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

    fn answer() -> Value {
        json!({"lines": [
            {"group": {"target": "local/concierge"}, "requests": 4, "ok": 3, "failed": 0,
             "refused": 0, "cancelled": 1, "prompt_tokens": 120, "cached_prompt_tokens": 0,
             "completion_tokens": 30, "cost_micro": 0, "cost_unknown": 0, "local": 3,
             "saved_local_micro": 1_200, "saved_local_unknown": 1,
             "baselines": ["openai/gpt-4.1-mini"],
             "ttft_p50_ms": 41.0, "ttft_p95_ms": 80.0, "mean_duration_ms": 400.0},
            {"group": {"target": "odd, \"name\""}, "requests": 1, "refused": 1, "cost_micro": 5,
             "cost_unknown": 1, "failed_cost_micro": 2, "ttft_p50_ms": null}
        ]})
    }

    #[test]
    fn unknown_cost_is_not_nothing_and_savings_name_their_reference() {
        let shown = render(&answer(), &["target"], false);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("TARGET "), "{shown}");
        let here: Vec<&str> = lines[1].split_whitespace().collect();
        assert_eq!(
            here[1..],
            [
                "4", "3", "120", "0", "30", "0", "0.000000", "100", "%", "0.001200", "-", "-", "-"
            ],
            "{shown}"
        );
        assert!(lines[2].contains("0.000005 +1 unknown"), "{shown}");
        assert!(
            lines[3].starts_with("total ") && lines[3].contains(" 5 "),
            "{shown}"
        );
        assert!(
            shown.contains("would have cost at openai/gpt-4.1-mini; 1 local answers have no"),
            "{shown}"
        );
        let times = render(&answer(), &["target"], true);
        assert!(
            times.contains("FIRST TOKEN") && times.contains("41 ms"),
            "{times}"
        );
        assert_eq!(render(&json!([]), &[], false), "no requests in this time\n");
    }

    #[test]
    fn spreadsheets_get_every_count() {
        let text = csv(&answer(), &["target"]);
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert!(lines[0].starts_with("target,requests,ok,") && lines[0].ends_with(",baselines"));
        assert!(lines[1].ends_with(",openai/gpt-4.1-mini"), "{text}");
        assert!(lines[2].starts_with("\"odd, \"\"name\"\"\",1,,"), "{text}");
        let columns = |line: &str| line.split(',').count();
        assert_eq!(columns(lines[0]), columns(lines[1]));
    }
}
