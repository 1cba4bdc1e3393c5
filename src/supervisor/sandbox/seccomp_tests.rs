//! The filters are run by a small interpreter, so that calls can be tried that
//! cannot be made without `unsafe`: foreign tables, numbers yet to come.

#![allow(clippy::unwrap_used)]
use std::os::fd::AsFd;

use super::*;

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0000 | libc::EPERM as u32;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

#[cfg(target_arch = "x86_64")]
const OWN: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OWN: u32 = 0xc000_00b7;
const I386: u32 = 0x4000_0003;

/// What the kernel would do with a call.
fn verdict(program: &BpfProgram, arch: u32, call: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0u32; 16];
    data[0] = call;
    data[1] = arch;
    for (index, argument) in arguments.iter().enumerate() {
        data[4 + 2 * index] = *argument as u32;
        data[5 + 2 * index] = (*argument >> 32) as u32;
    }
    let (mut at, mut accumulator) = (0, 0u32);
    loop {
        let op = &program[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { op.jt } else { op.jf });
        match op.code {
            0x20 => accumulator = data[op.k as usize / 4],
            0x54 => accumulator &= op.k,
            0x05 => at += op.k as usize,
            0x15 => at += jump(accumulator == op.k),
            0x25 => at += jump(accumulator > op.k),
            0x35 => at += jump(accumulator >= op.k),
            0x06 => return op.k,
            other => panic!("an instruction that the interpreter lacks: {other:#x}"),
        }
    }
}

fn on(program: &BpfProgram, call: i64, arguments: [u64; 6]) -> u32 {
    verdict(program, OWN, call as u32, arguments)
}

const NONE: [u64; 6] = [0; 6];

#[test]
fn nothing_unknown_and_nothing_foreign_passes() {
    for role in Role::ALL {
        let filter = spawn_filter(role).unwrap();
        assert_eq!(on(&filter, libc::SYS_read, NONE), ALLOW);
        assert_eq!(on(&filter, libc::SYS_execve, NONE), ALLOW);
        for call in NEWEST_CALL + 1..NEWEST_CALL + 200 {
            assert_eq!(verdict(&filter, OWN, call, NONE), ENOSYS, "{call}");
        }
        // x32: every number, also those of its own table (512 to 547).
        for call in 0..600 {
            let x32 = call | 0x4000_0000;
            assert_eq!(verdict(&filter, OWN, x32, NONE), ENOSYS, "{call}");
        }
        for call in 0..NEWEST_CALL {
            let foreign = verdict(&filter, I386, call, NONE);
            assert!(matches!(foreign, KILL | ENOSYS), "{call}: {foreign:#x}");
        }
        assert_eq!(on(&filter, libc::SYS_clone3, NONE), ENOSYS);
        for call in never() {
            assert_eq!(on(&filter, call, NONE), EPERM, "{call}");
        }
    }
}

#[test]
fn gate_and_engine_have_no_way_to_an_inet_socket() {
    for role in [Role::Gate, Role::Engine] {
        let filter = spawn_filter(role).unwrap();
        let denied = |call, arguments| assert_eq!(on(&filter, call, arguments), EPERM);
        let allowed = |call, arguments| assert_eq!(on(&filter, call, arguments), ALLOW);
        for family in 0..50 {
            denied(libc::SYS_socket, [family, 1, 0, 0, 0, 0]);
        }
        denied(libc::SYS_socketpair, [libc::AF_INET as u64, 1, 0, 0, 0, 0]);
        allowed(libc::SYS_socketpair, [libc::AF_UNIX as u64, 1, 0, 0, 0, 0]);
        for call in [libc::SYS_connect, libc::SYS_bind, libc::SYS_listen] {
            denied(call, NONE);
        }
        allowed(libc::SYS_accept4, NONE);
        // The flag together with others, and with rubbish in the upper half.
        for flags in [MSG_FASTOPEN, MSG_FASTOPEN | 0x4040, MSG_FASTOPEN | 7 << 32] {
            denied(libc::SYS_sendto, [3, 0, 0, flags, 0, 0]);
            denied(libc::SYS_sendmsg, [3, 0, flags, 0, 0, 0]);
            denied(libc::SYS_sendmmsg, [3, 0, 0, flags, 0, 0]);
        }
        allowed(libc::SYS_sendto, [3, 0, 0, 0x4000, 0, 0]);
        let tcp = libc::IPPROTO_TCP as u64;
        for option in [TCP_REPAIR, TCP_FASTOPEN, TCP_FASTOPEN_CONNECT] {
            denied(libc::SYS_setsockopt, [3, tcp, option, 0, 0, 0]);
            denied(libc::SYS_setsockopt, [3, tcp | 1 << 40, option, 0, 0, 0]);
        }
        let nodelay = libc::TCP_NODELAY as u64;
        allowed(libc::SYS_setsockopt, [3, tcp, nodelay, 0, 0, 0]);
    }
}

#[test]
fn egress_connects_and_never_listens() {
    let filter = spawn_filter(Role::Egress).unwrap();
    let socket = |family: i32, kind: i32| {
        let arguments = [family as u64, kind as u64, 0, 0, 0, 0];
        on(&filter, libc::SYS_socket, arguments)
    };
    let stream = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    for family in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX] {
        assert_eq!(socket(family, stream), ALLOW);
    }
    assert_eq!(socket(libc::AF_INET6, libc::SOCK_DGRAM), ALLOW);
    assert_eq!(socket(libc::AF_NETLINK, libc::SOCK_RAW), ALLOW);
    for family in [
        libc::AF_PACKET,
        libc::AF_VSOCK,
        libc::AF_ALG,
        libc::AF_BLUETOOTH,
    ] {
        assert_eq!(socket(family, stream), EPERM);
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        assert_eq!(socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC), EPERM);
    }
    for call in [libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4] {
        assert_eq!(on(&filter, call, NONE), EPERM);
    }
    assert_eq!(on(&filter, libc::SYS_connect, NONE), ALLOW);
}

#[test]
fn namespaces_and_the_terminal_are_out_of_reach() {
    let filter = spawn_filter(Role::Engine).unwrap();
    let clone = |flags: i32| on(&filter, libc::SYS_clone, [flags as u64, 0, 0, 0, 0, 0]);
    let thread = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
    assert_eq!(clone(thread), ALLOW);
    for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNET, libc::CLONE_NEWNS] {
        assert_eq!(clone(flag | libc::SIGCHLD), EPERM);
        assert_eq!(clone(flag | thread), EPERM);
    }
    let ioctl = |request: u64| on(&filter, libc::SYS_ioctl, [0, request, 0, 0, 0, 0]);
    assert_eq!(ioctl(libc::TIOCSTI), EPERM);
    assert_eq!(ioctl(libc::TIOCSTI | 1 << 32), EPERM);
    assert_eq!(ioctl(libc::TIOCGWINSZ), ALLOW);
}

#[test]
fn a_settled_child_starts_nothing_and_takes_sockets_from_the_supervisor_alone() {
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let fd = socket.as_raw_fd() as u64;
    let own = u64::from(std::process::id());
    for role in Role::ALL {
        let filter = start_filter(role, socket.as_fd()).unwrap();
        for call in never_after_start() {
            assert_eq!(on(&filter, call, NONE), EPERM, "{call}");
        }
        let clone = |flags: i32| on(&filter, libc::SYS_clone, [flags as u64, 0, 0, 0, 0, 0]);
        assert_eq!(clone(libc::SIGCHLD), EPERM);
        assert_eq!(clone(libc::CLONE_VM | libc::CLONE_VFORK), EPERM);
        assert_eq!(clone(libc::CLONE_VM | libc::CLONE_THREAD), ALLOW);
        let kill = |pid| on(&filter, libc::SYS_kill, [pid, 9, 0, 0, 0, 0]);
        assert_eq!(kill(own), ALLOW);
        assert_eq!(kill(1), EPERM);
        assert_eq!(kill(u64::MAX), EPERM);
        let dumpable = [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0];
        assert_eq!(on(&filter, libc::SYS_prctl, dumpable), EPERM);
    }
    for role in [Role::Gate, Role::Engine] {
        let filter = start_filter(role, socket.as_fd()).unwrap();
        let first = |call, value| on(&filter, call, [value, 0, 0, 0, 0, 0]);
        assert_eq!(first(libc::SYS_recvmsg, fd), ALLOW);
        assert_eq!(first(libc::SYS_recvmsg, fd + 1), EPERM);
        assert_eq!(first(libc::SYS_recvmmsg, fd), EPERM);
        assert_eq!(first(libc::SYS_close, fd), EPERM);
        assert_eq!(first(libc::SYS_close, fd + 1), ALLOW);
        assert_eq!(on(&filter, libc::SYS_dup3, [9, fd, 0, 0, 0, 0]), EPERM);
    }
}
