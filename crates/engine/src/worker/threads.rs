//! How many threads compute.

use std::collections::BTreeSet;

/// Sets the size of the pool that the inference library computes on. The first
/// call of a process counts.
pub(crate) fn set_up(wanted: Option<usize>) {
    let threads = wanted
        .filter(|threads| *threads > 0)
        .unwrap_or_else(physical_cores);
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("{}-worker-{index}", super::guard::THREADS))
        .build_global();
    if built.is_err() {
        tracing::debug!("the computing threads were started before");
    }
}

/// Threads that compute when nobody says how many: the physical cores that this
/// process may use.
pub fn usable_cores() -> usize {
    physical_cores()
}

/// Physical cores that this process may use: two threads of one core share its
/// arithmetic and only get in each other's way.
fn physical_cores() -> usize {
    // Respects the affinity mask and the control group's quota.
    let usable = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let allowed = std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            Some(cpu_list(line.trim()))
        })
        .unwrap_or_default();
    let cores: Option<BTreeSet<String>> = allowed
        .iter()
        .map(|cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            std::fs::read_to_string(path).ok()
        })
        .collect();
    // Without a view of the topology (a sandbox), every processor counts.
    let physical = cores.map_or(usable, |cores| cores.len());
    usable.min(physical.max(1))
}

/// Reads `0-3,8`. What does not parse is left out.
fn cpu_list(text: &str) -> Vec<usize> {
    text.split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.trim().parse::<usize>().ok()?..=last.trim().parse::<usize>().ok()?.min(4095))
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(cpu_list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(cpu_list("nonsense,7"), [7]);
        assert!((1..=cpu_list("0-99999999999").len().max(4096)).contains(&physical_cores()));
    }
}
