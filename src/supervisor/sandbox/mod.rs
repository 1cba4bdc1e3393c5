//! What each process may not do: system calls ([`seccomp`]), files and TCP
//! ([`files`]), root's powers ([`caps`]).
//!
//! The thread that starts a child first confines itself with [`confine`]; the
//! child inherits all of it and so has it from its first instruction. The child
//! adds [`settle`] before anything else. A thread that was confined does
//! nothing but start its child and wait for it.
//!
//! Public so that tests can try every escape under exactly these layers.

pub mod caps;
pub mod files;
pub mod places;
pub mod seccomp;

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::process::{DumpableBehavior, Pid, set_dumpable_behavior};

use crate::handover::{Role, SandboxReport};
pub use files::Places;

/// What this kernel offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Filters on system calls.
    pub seccomp: bool,
    /// Landlock's ABI; `None` where it is not there or not switched on.
    pub landlock_abi: Option<u32>,
}

/// Finds out what this kernel offers. Leaves the caller as it is.
pub fn probe() -> Offer {
    Offer {
        seccomp: std::fs::read_to_string("/proc/self/status")
            .is_ok_and(|status| status.contains("\nSeccomp:"))
            && seccompiler::TargetArch::try_from(std::env::consts::ARCH).is_ok(),
        landlock_abi: files::abi(),
    }
}

/// Confines the calling thread, and every process that it starts, for a role.
/// Goes on past a layer that fails, and reports it.
pub fn confine(role: Role, places: &Places, state_dir: &Path) -> SandboxReport {
    let mut report = SandboxReport {
        role,
        seccomp: false,
        landlock_abi: None,
        missing: Vec::new(),
    };
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        report.missing.push(format!("no_new_privs: {error}"));
    }
    match files::restrict(role, places) {
        Ok(Some(abi)) => {
            report.landlock_abi = Some(abi);
            report.missing.extend(older_landlock(abi));
        }
        Ok(None) => report.missing.push(
            "Landlock is not there: files are guarded by their owners and modes alone; \
             start a kernel (5.13 or newer) with `landlock` in its `lsm=` list"
                .to_owned(),
        ),
        Err(error) => report.missing.push(format!("Landlock: {error}")),
    }
    if let Err(error) = caps::drop_for(role, state_dir) {
        report
            .missing
            .push(format!("root's capabilities could not be dropped: {error}"));
    }
    // Last: the calls above are among those that it takes away.
    match seccomp::spawn_filter(role).and_then(|filter| seccomp::apply(&filter)) {
        Ok(()) => report.seccomp = true,
        Err(error) => report.missing.push(format!(
            "seccomp: {error}; use a kernel with CONFIG_SECCOMP_FILTER"
        )),
    }
    report
}

fn older_landlock(abi: u32) -> Option<String> {
    match abi {
        ..4 => Some(format!(
            "Landlock ABI {abi} knows no TCP (4 does): seccomp alone keeps sockets shut"
        )),
        4..6 => Some(format!(
            "Landlock ABI {abi} knows no signal scope (6 does): a process may signal others of its user until its own filter is set"
        )),
        _ => None,
    }
}

/// What a child does to itself, before it has a second thread: it takes exec
/// and fork away, keeps its memory, environment and descriptors from others of
/// its user, and dies with its parent where it has nothing to save.
///
/// # Errors
/// When the filter is refused although the kernel has seccomp.
pub fn settle(role: Role, handover: BorrowedFd<'_>) -> io::Result<()> {
    hide()?;
    if role != Role::Gate {
        // The gate gets the time to write its ledger; see `child`.
        let signal = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(signal)?;
    }
    let filter = seccomp::start_filter(role, handover).map_err(io::Error::other)?;
    if !self_has_seccomp() {
        // The kernel has none; the supervisor has said so.
        return Ok(());
    }
    seccomp::apply(&filter).map_err(io::Error::other)
}

/// Keeps other processes of the same user from this one's memory, environment
/// and descriptors. Root with `CAP_SYS_PTRACE` outside our Landlock domains
/// still sees them; it always will.
///
/// # Errors
/// What the kernel says.
pub fn hide() -> io::Result<()> {
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

fn self_has_seccomp() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| field(&status, "Seccomp") == Some("2"))
}

/// Reads back from the kernel what a running process has, and amends the
/// report of what was asked for.
pub fn verify(pid: Pid, mut report: SandboxReport) -> SandboxReport {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = match std::fs::read_to_string(path) {
        Ok(status) => status,
        Err(error) => {
            report.seccomp = false;
            report
                .missing
                .push(format!("what is in force could not be read back: {error}"));
            return report;
        }
    };
    if report.seccomp && field(&status, "Seccomp") != Some("2") {
        report.seccomp = false;
        report
            .missing
            .push("seccomp: the process runs without its filter".to_owned());
    }
    if field(&status, "NoNewPrivs") != Some("1") {
        report
            .missing
            .push("no_new_privs is not set on the process".to_owned());
    }
    report
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn status_fields_are_matched_whole() {
        let status = "Name:\tx\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(field(status, "Seccomp"), Some("2"));
        assert_eq!(field(status, "NoNewPrivs"), Some("1"));
        assert_eq!(field(status, "Seccomp_"), None);
    }

    #[test]
    fn an_unconfined_process_is_reported_as_such() {
        let asked = SandboxReport {
            role: Role::Gate,
            seccomp: true,
            landlock_abi: None,
            missing: Vec::new(),
        };
        let mut sleeper = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&sleeper);
        let outside = !self_has_seccomp();
        let report = verify(pid, asked);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        if outside {
            assert!(!report.seccomp);
            assert_eq!(report.missing.len(), 2, "{:?}", report.missing);
        }
    }
}
