//! The system call filters: which calls each process may never make.
//!
//! Deny-lists on top of a ceiling: every call newer than this file was written
//! against is refused with `ENOSYS`, so a future way around (as io_uring once
//! was) starts out closed. The ceiling also refuses the whole x32 table, whose
//! numbers have bit 30 set. A call through a foreign architecture's table kills
//! the process.
//!
//! Two filters per process. [`spawn_filter`] is inherited from the thread that
//! starts the child, so it holds from the first instruction; it must let the
//! exec itself pass. [`start_filter`] is added by the child before it has a
//! second thread and takes exec, fork and the like away too.
//!
//! An inet socket that a gate holds (a listener, an accepted connection) must
//! never reach outward. The ways in and what closes them: `connect` and
//! `bind` are refused altogether, so `connect(AF_UNSPEC)` cannot reopen a
//! socket; `MSG_FASTOPEN`, which connects without `connect`, is refused on every
//! send call, and its socket option too; io_uring, which makes calls that no
//! filter sees, is refused; descriptors of other processes cannot be had
//! (`pidfd_getfd`, `ptrace`), and sockets are received from nobody but the
//! supervisor ([`start_filter`]).

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, BorrowedFd};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use crate::handover::Role;

/// The newest call that this file knows (`file_setattr`, Linux 6.17). From 424
/// on the numbers are the same on all architectures.
pub const NEWEST_CALL: u32 = 469;

/// `clone3` passes its flags in memory where a filter cannot look; libc falls
/// back to `clone` on `ENOSYS`.
const CLONE3: u32 = 435;

const MSG_FASTOPEN: u64 = 0x2000_0000;
const TCP_REPAIR: u64 = 19;
const TCP_FASTOPEN: u64 = 23;
const TCP_FASTOPEN_CONNECT: u64 = 30;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// A filter that could not be built; never on an architecture that we ship.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// seccompiler does not know the architecture.
    #[error("no seccomp filter for this architecture ({0})")]
    Architecture(&'static str),
    /// The filter does not compile.
    #[error("the seccomp filter does not compile: {0}")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel refused it.
    #[error("the kernel refused the seccomp filter: {0}")]
    Apply(#[from] seccompiler::Error),
}

/// Sets one filter on the calling thread; threads and processes that it starts
/// inherit it. Sets `no_new_privs` too.
///
/// # Errors
/// When the kernel has no seccomp.
pub fn apply(program: &BpfProgram) -> Result<(), FilterError> {
    Ok(seccompiler::apply_filter(program)?)
}

/// The filter that a process of this role is started under.
///
/// # Errors
/// [`FilterError::Architecture`].
pub fn spawn_filter(role: Role) -> Result<BpfProgram, FilterError> {
    let mut rules = Rules::new();
    for call in never() {
        rules.insert(call, Vec::new());
    }
    namespaces(&mut rules)?;
    terminal(&mut rules)?;
    match role {
        Role::Gate | Role::Engine => no_network(&mut rules)?,
        Role::Egress => outbound_only(&mut rules)?,
    }
    program(rules)
}

/// What a child adds at its start. `handover` is the only descriptor on which
/// gate and engine may receive others.
///
/// # Errors
/// [`FilterError::Architecture`].
pub fn start_filter(role: Role, handover: BorrowedFd<'_>) -> Result<BpfProgram, FilterError> {
    let mut rules = Rules::new();
    for call in never_after_start() {
        rules.insert(call, Vec::new());
    }
    // A thread is a clone with CLONE_THREAD; without it, it is a process.
    rules.insert(
        libc::SYS_clone,
        vec![rule([masked(0, libc::CLONE_THREAD as u64, 0)?])?],
    );
    // Signals to itself stay: abort and stack overflow handlers use them.
    let own = u64::from(std::process::id());
    for call in [libc::SYS_kill, libc::SYS_tgkill] {
        rules.insert(call, vec![rule([is_not(0, own)?])?]);
    }
    rules.insert(
        libc::SYS_prctl,
        vec![
            rule([is(0, libc::PR_SET_DUMPABLE as u64)?])?,
            rule([is(0, libc::PR_SET_PTRACER as u64)?])?,
        ],
    );
    if role != Role::Egress {
        // Nobody but the supervisor may pass sockets in: not egress over its
        // link, and no client over a unix connection.
        let fd = handover.as_raw_fd() as u64;
        rules.insert(libc::SYS_recvmsg, vec![rule([is_not(0, fd)?])?]);
        rules.insert(libc::SYS_recvmmsg, Vec::new());
        // The number stays what it was: it can be neither closed nor covered.
        rules.insert(libc::SYS_close, vec![rule([is(0, fd)?])?]);
        rules.insert(libc::SYS_dup3, vec![rule([is(1, fd)?])?]);
        #[cfg(target_arch = "x86_64")]
        rules.insert(libc::SYS_dup2, vec![rule([is(1, fd)?])?]);
        rules.insert(libc::SYS_close_range, Vec::new());
    }
    program(rules)
}

fn program(rules: Rules) -> Result<BpfProgram, FilterError> {
    let arch = std::env::consts::ARCH;
    let target = TargetArch::try_from(arch).map_err(|_| FilterError::Architecture(arch))?;
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, target)?;
    let mut program = ceiling();
    program.append(&mut BpfProgram::try_from(filter)?);
    Ok(program)
}

/// Loads the call's number and refuses what is above the ceiling; all else
/// falls through to the program behind it. Runs before the architecture is
/// checked: it only ever refuses, so no foreign call gains by it.
fn ceiling() -> BpfProgram {
    const LOAD_WORD: u16 = 0x20;
    const JUMP_GREATER: u16 = 0x25;
    const JUMP_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const RET_ERRNO: u32 = 0x0005_0000;
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        op(LOAD_WORD, 0, 0, 0),
        op(JUMP_GREATER, 1, 0, NEWEST_CALL),
        op(JUMP_EQUAL, 0, 1, CLONE3),
        op(RETURN, 0, 0, RET_ERRNO | libc::ENOSYS as u32),
    ]
}

/// Calls that no process of ours needs, from its first instruction.
fn never() -> Vec<i64> {
    let calls = vec![
        // Other processes: their memory, descriptors, identity.
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_process_mrelease,
        libc::SYS_pidfd_getfd,
        libc::SYS_kcmp,
        // Ways to make calls, or to run code, past this filter.
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
        libc::SYS_bpf,
        libc::SYS_userfaultfd,
        libc::SYS_perf_event_open,
        // Kernel keyrings.
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        // Files past the path: no Landlock rule would see them.
        libc::SYS_open_by_handle_at,
        libc::SYS_name_to_handle_at,
        // Mounts and roots.
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        OPEN_TREE_ATTR,
        // Namespaces.
        libc::SYS_unshare,
        libc::SYS_setns,
        // The machine.
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_acct,
        libc::SYS_quotactl,
        libc::SYS_quotactl_fd,
        libc::SYS_syslog,
        libc::SYS_vhangup,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_adjtimex,
        libc::SYS_fanotify_init,
        libc::SYS_lookup_dcookie,
        // Changes how the next exec lays out memory; nothing of ours asks.
        libc::SYS_personality,
    ];
    #[cfg(target_arch = "x86_64")]
    let calls = [
        calls,
        vec![
            libc::SYS_iopl,
            libc::SYS_ioperm,
            libc::SYS_modify_ldt,
            libc::SYS_uselib,
            libc::SYS__sysctl,
        ],
    ]
    .concat();
    calls
}

/// Linux 6.15; the same number everywhere.
const OPEN_TREE_ATTR: i64 = 467;

/// Calls that a child has no use for once it runs.
fn never_after_start() -> Vec<i64> {
    let calls = vec![
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_tkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_send_signal,
        libc::SYS_setpgid,
        libc::SYS_setsid,
    ];
    #[cfg(target_arch = "x86_64")]
    let calls = [calls, vec![libc::SYS_fork, libc::SYS_vfork]].concat();
    calls
}

fn namespaces(rules: &mut Rules) -> Result<(), FilterError> {
    let flags = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
    ];
    let mut any = Vec::new();
    for flag in flags {
        any.push(rule([masked(0, flag as u64, flag as u64)?])?);
    }
    rules.insert(libc::SYS_clone, any);
    Ok(())
}

/// A terminal that the logs go to must not be typed into: `TIOCSTI` and
/// `TIOCLINUX` would put words into the operator's shell.
fn terminal(rules: &mut Rules) -> Result<(), FilterError> {
    const TIOCLINUX: u64 = 0x541c;
    let any = vec![rule([is(1, libc::TIOCSTI)?])?, rule([is(1, TIOCLINUX)?])?];
    rules.insert(libc::SYS_ioctl, any);
    Ok(())
}

/// Gate and engine: no socket of any kind but pairs of unix sockets, and
/// nothing that could turn a socket that they were given outward.
fn no_network(rules: &mut Rules) -> Result<(), FilterError> {
    for call in [
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_listen,
    ] {
        rules.insert(call, Vec::new());
    }
    let unix = libc::AF_UNIX as u64;
    rules.insert(libc::SYS_socketpair, vec![rule([is_not(0, unix)?])?]);
    for (call, flags) in [
        (libc::SYS_sendto, 3),
        (libc::SYS_sendmsg, 2),
        (libc::SYS_sendmmsg, 3),
    ] {
        let fast = masked(flags, MSG_FASTOPEN, MSG_FASTOPEN)?;
        rules.insert(call, vec![rule([fast])?]);
    }
    let mut options = Vec::new();
    for option in [TCP_REPAIR, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT] {
        let level = is(1, libc::IPPROTO_TCP as u64)?;
        options.push(rule([level, is(2, option)?])?);
    }
    rules.insert(libc::SYS_setsockopt, options);
    Ok(())
}

/// Egress: connects, never listens; inet, unix (the system's resolvers) and
/// netlink (address selection) only, and no raw sockets.
fn outbound_only(rules: &mut Rules) -> Result<(), FilterError> {
    for call in [libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4] {
        rules.insert(call, Vec::new());
    }
    const TYPE: u64 = 0xf;
    let raw = libc::SOCK_RAW as u64;
    let other = rule([
        is_not(0, libc::AF_INET as u64)?,
        is_not(0, libc::AF_INET6 as u64)?,
        is_not(0, libc::AF_UNIX as u64)?,
        is_not(0, libc::AF_NETLINK as u64)?,
    ])?;
    let raw4 = rule([is(0, libc::AF_INET as u64)?, masked(1, TYPE, raw)?])?;
    let raw6 = rule([is(0, libc::AF_INET6 as u64)?, masked(1, TYPE, raw)?])?;
    rules.insert(libc::SYS_socket, vec![other, raw4, raw6]);
    Ok(())
}

/// All conditions together.
fn rule<const N: usize>(conditions: [SeccompCondition; N]) -> Result<SeccompRule, FilterError> {
    Ok(SeccompRule::new(conditions.to_vec())?)
}

// The kernel takes all of these arguments as 32-bit ints and ignores the upper
// half of the register, so the filter must too.

fn is(argument: u8, value: u64) -> Result<SeccompCondition, FilterError> {
    condition(argument, SeccompCmpOp::Eq, value)
}

fn is_not(argument: u8, value: u64) -> Result<SeccompCondition, FilterError> {
    condition(argument, SeccompCmpOp::Ne, value)
}

fn masked(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, FilterError> {
    condition(argument, SeccompCmpOp::MaskedEq(mask), value)
}

fn condition(argument: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, FilterError> {
    let length = SeccompCmpArgLen::Dword;
    Ok(SeccompCondition::new(argument, length, op, value)?)
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
