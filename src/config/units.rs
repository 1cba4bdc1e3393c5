//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads `250ms`, `5s`, `2m`, `1h`, `7d` and sums of them such as `1h30m`.
///
/// Returns `None` for anything else, also for numbers without a unit: whether
/// `30` means seconds or milliseconds is not for us to guess.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (number, after) = number(rest)?;
        let unit_end = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let unit: f64 = match &after[..unit_end] {
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" | "sec" => 1e9,
            "m" | "min" => 60e9,
            "h" => 3_600e9,
            "d" => 86_400e9,
            _ => return None,
        };
        nanos = nanos.checked_add((number * unit).round() as u128)?;
        rest = after[unit_end..].trim_start();
    }
    // A century is more than anybody means, and keeps arithmetic safe.
    (nanos <= 36_525 * 86_400 * 1_000_000_000u128).then(|| Duration::from_nanos(nanos as u64))
}

/// Reads `32MiB`, `1.5GB`, `64KiB`, `1000B`. Returns bytes.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = number(text.trim())?;
    let factor: f64 = match unit.trim_start() {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        "TiB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let bytes = (number * factor).round();
    (bytes <= 1e15).then_some(bytes as u64)
}

/// A number without sign or exponent at the start of `text`, and what follows.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    if end == 0 || end > 20 {
        return None;
    }
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// A duration for people: `250ms`, `5s`, `1h30m`. Reads back with [`duration`].
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    if ms < 1_000 || !ms.is_multiple_of(1_000) {
        return format!("{ms}ms");
    }
    let seconds = ms / 1_000;
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}

/// A size for people, with one decimal.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration(" 2 m "), None, "no space between number and unit");
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "5 parsecs",
            "1e9s",
            "9999999999d",
            "..s",
            "5s5",
        ] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_know_both_families() {
        assert_eq!(size("32MiB"), Some(32 << 20));
        assert_eq!(size("1.5GB"), Some(1_500_000_000));
        for bad in ["", "32", "32 megs", "-1MiB", "99999999TiB", "0x20B"] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_shown_duration_reads_back() {
        for ms in [0, 1, 999, 1_000, 1_500, 61_000, 5_400_000, 90_061_000] {
            let is = Duration::from_millis(ms);
            assert_eq!(
                duration(&show_duration(is)),
                Some(is),
                "{}",
                show_duration(is)
            );
        }
    }
}
