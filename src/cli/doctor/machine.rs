//! The machine: kernel, clock, processor, disk and memory.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Finding;
use crate::catalog::ModelStore;
use crate::config::units::show_size;
use crate::supervisor::sandbox;

/// The layers that the sandbox stands on.
pub(super) fn kernel() -> Vec<Finding> {
    let offer = sandbox::probe();
    let seccomp = if offer.seccomp {
        Finding::ok("seccomp", "the kernel filters system calls")
    } else {
        Finding::fail(
            "seccomp",
            "the kernel filters no system calls: nothing keeps the engine off the network",
            "use a kernel with CONFIG_SECCOMP_FILTER on x86_64, aarch64 or riscv64",
        )
    };
    let landlock = match offer.landlock_abi {
        None => Finding::warn(
            "landlock",
            "the kernel has no Landlock: files are guarded by their owners and modes alone",
            "use a kernel 5.13 or newer with `landlock` in its `lsm=` list",
        ),
        Some(abi) if abi < 4 => Finding::warn(
            "landlock",
            format!("Landlock ABI {abi} does not know TCP: there seccomp stands alone"),
            "use a kernel 6.7 or newer for the second layer",
        ),
        Some(abi) => Finding::ok("landlock", format!("Landlock ABI {abi}")),
    };
    vec![seccomp, landlock]
}

/// Before this the clock is certainly wrong: the code is not older.
const EARLIEST: Duration = Duration::from_secs(1_735_689_600);

pub(super) fn clock() -> Finding {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(now) if now >= EARLIEST => Finding::ok("clock", "the date is plausible"),
        _ => Finding::fail(
            "clock",
            "the date lies before 2025: certificates are refused and the ledger is wrong",
            "set the clock, or wait for the time service (timedatectl)",
        ),
    }
}

/// What the engine's kernels make use of.
pub(super) fn cpu() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (wanted, missing) = features();
    if missing.is_empty() {
        Finding::ok("cpu", format!("{cores} cores with {wanted}"))
    } else {
        Finding::warn(
            "cpu",
            format!("{cores} cores without {missing}: local answers take several times longer"),
            "use a newer processor, or in a virtual machine pass the host's processor through",
        )
    }
}

#[cfg(target_arch = "x86_64")]
fn features() -> (&'static str, String) {
    let missing: Vec<&str> = [
        ("AVX2", std::arch::is_x86_feature_detected!("avx2")),
        ("FMA", std::arch::is_x86_feature_detected!("fma")),
        ("F16C", std::arch::is_x86_feature_detected!("f16c")),
    ]
    .iter()
    .filter(|(_, there)| !there)
    .map(|(name, _)| *name)
    .collect();
    ("AVX2, FMA and F16C", missing.join(", "))
}

#[cfg(target_arch = "aarch64")]
fn features() -> (&'static str, String) {
    let missing: Vec<&str> = [
        ("NEON", std::arch::is_aarch64_feature_detected!("neon")),
        (
            "dot products",
            std::arch::is_aarch64_feature_detected!("dotprod"),
        ),
    ]
    .iter()
    .filter(|(_, there)| !there)
    .map(|(name, _)| *name)
    .collect();
    ("NEON and dot products", missing.join(", "))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> (&'static str, String) {
    ("", "vector instructions that the engine knows".to_owned())
}

/// Less than this and the ledger soon cannot be written.
const DISK_FAIL: u64 = 64 << 20;
/// Less than this and hardly a model fits.
const DISK_WARN: u64 = 1 << 30;

pub(super) fn disk(state_dir: &Path) -> Finding {
    // The directory may be made later; then its nearest parent tells.
    let there = state_dir
        .ancestors()
        .find(|dir| dir.exists())
        .unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(there) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            return Finding::warn(
                "disk",
                format!(
                    "the free space at {} cannot be told: {error}",
                    there.display()
                ),
                "check that the directory can be read",
            );
        }
    };
    let what = format!("{} free at {}", show_size(free), there.display());
    match free {
        0..DISK_FAIL => Finding::fail(
            "disk",
            what,
            "make room, or move the state directory: the ledger stops when the disk is full",
        ),
        DISK_FAIL..DISK_WARN => Finding::warn("disk", what, "make room before you add models"),
        _ => Finding::ok("disk", what),
    }
}

/// Installed models against the memory that there is.
pub(super) fn memory(state_dir: &Path) -> Vec<Finding> {
    let Some((total, available)) = meminfo() else {
        return vec![Finding::warn(
            "memory",
            "/proc/meminfo cannot be read",
            "mount /proc",
        )];
    };
    let mut findings = vec![Finding::ok(
        "memory",
        format!("{} of {} free", show_size(available), show_size(total)),
    )];
    let (manifests, broken) = ModelStore::new(state_dir).manifests().unwrap_or_default();
    for manifest in manifests {
        let check = format!("model {}", manifest.name);
        // The weights, and about a fifth for caches and work space.
        let need = manifest.bytes.saturating_add(manifest.bytes / 5);
        let what = format!("needs about {}", show_size(need));
        findings.push(if need > total {
            Finding::fail(
                &check,
                format!("{what}, more than this device has"),
                format!("nearfar model rm {}, and add a smaller one", manifest.name),
            )
        } else if need > available {
            Finding::warn(
                &check,
                format!("{what}, more than is free now"),
                "stop something else, or expect it to be refused or killed",
            )
        } else {
            Finding::ok(&check, what)
        });
    }
    findings.extend(broken.iter().map(|error| {
        Finding::fail(
            "model store",
            error.to_string(),
            "see `nearfar model verify`",
        )
    }));
    findings
}

/// Total and available memory in bytes.
fn meminfo() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib.saturating_mul(1024))
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}
