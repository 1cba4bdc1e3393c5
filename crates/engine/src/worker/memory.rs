//! How much memory models may take.

use std::path::{Path, PathBuf};

/// Without any reading, this much is assumed to be there.
const ASSUMED: u64 = 2 << 30;

/// Memory that all models together may take when nobody says: three quarters
/// of what the machine has in all, or of what this process's control group may
/// use, whichever is less.
pub fn default_memory_budget() -> u64 {
    let system = meminfo("MemTotal:");
    let group = groups()
        .iter()
        .filter_map(|group| number(&group.join("memory.max")))
        .min();
    least(system, group).unwrap_or(ASSUMED) / 4 * 3
}

/// Memory that is free for this process, in bytes: what the kernel says is
/// available, or what the control groups leave, whichever is less. `None` where
/// neither can be read.
pub(super) fn available() -> Option<u64> {
    let left = |group: &PathBuf| {
        let most = number(&group.join("memory.max"))?;
        let now = number(&group.join("memory.current"))?;
        // Pages of files count, and go when they are needed.
        let cached = statistic(&group.join("memory.stat"), "inactive_file").unwrap_or(0);
        Some(most.saturating_sub(now.saturating_sub(cached)))
    };
    least(
        meminfo("MemAvailable:"),
        groups().iter().filter_map(left).min(),
    )
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// This process's control group and those around it (version 2).
fn groups() -> Vec<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups_of(&own)
}

fn groups_of(own: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let path = Path::new(path.unwrap_or_default());
    path.ancestors()
        .take(16)
        .filter(|part| part.components().all(|c| c.as_os_str() != ".."))
        .map(|part| root.join(part))
        .collect()
}

fn meminfo(key: &str) -> Option<u64> {
    line(&std::fs::read_to_string("/proc/meminfo").ok()?, key)
}

fn line(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// A file with one number; `max` is none.
fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// One line of a file of names and numbers.
fn statistic(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       16 kB\nMemAvailable:    8 kB\n";
        assert_eq!(line(text, "MemAvailable:"), Some(8192));
        assert_eq!(line("MemAvailable: lots", "MemAvailable:"), None);
        assert!(default_memory_budget() > 0);
    }

    #[test]
    fn every_group_around_a_process_has_a_say() {
        let found = groups_of("12:cpu:/old\n0::/system.slice/nearfar.service\n");
        let expected = ["system.slice/nearfar.service", "system.slice", ""];
        let expected = expected.map(|part| Path::new("/sys/fs/cgroup").join(part));
        assert_eq!(found, expected);
        assert_eq!(groups_of(""), [Path::new("/sys/fs/cgroup")]);
        assert_eq!(groups_of("0::/../x").len(), 1, "nothing outside");
    }
}
