//! Every known way out of the sandbox, tried for real: this test program starts
//! itself again under exactly the layers that `nearfar serve` gives a process,
//! and tries. Each attempt must fail there, and must succeed without them, or
//! the test proves nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nearfar::handover::{ListenerKind, ToChild};
use nearfar::supervisor::channel::{Incoming, send};
use nearfar::supervisor::sandbox::{Places, confine, hide, probe, settle};
use nearfar::supervisor::{Handed, Role};
use rustix::net::{AddressFamily, SendFlags, Shutdown, SocketType};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open,
    set_dumpable_behavior, test_kill_process,
};

/// Says to the program started again that it is to try, and as what.
const ATTEMPT: &str = "SANDBOX_TEST_ROLE";
/// Its arguments, one a line.
const FACTS: &str = "SANDBOX_TEST_FACTS";

const MSG_FASTOPEN: SendFlags = SendFlags::from_bits_retain(0x2000_0000);

type Outcomes = BTreeMap<String, Result<(), String>>;

/// What the one who tries must know.
struct Facts {
    victim: SocketAddr,
    outside: PathBuf,
    readable: PathBuf,
    writable: PathBuf,
    abstract_name: String,
    parent: Pid,
}

impl Facts {
    fn write(&self) -> String {
        let paths = [&self.outside, &self.readable, &self.writable];
        let [outside, readable, writable] = paths.map(|path| path.display().to_string());
        let parent = self.parent.as_raw_nonzero();
        let (victim, name) = (self.victim, &self.abstract_name);
        format!("{victim}\n{outside}\n{readable}\n{writable}\n{name}\n{parent}")
    }

    fn read(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        Self {
            victim: lines[0].parse().unwrap(),
            outside: lines[1].into(),
            readable: lines[2].into(),
            writable: lines[3].into(),
            abstract_name: lines[4].to_owned(),
            parent: Pid::from_raw(lines[5].parse().unwrap()).unwrap(),
        }
    }
}

/// Inherited sockets, one for each attempt that uses one up.
struct Sockets {
    listener: OwnedFd,
    quick_listener: OwnedFd,
    accepted: OwnedFd,
    link: UnixStream,
}

/// One run: everything tried, under the role's layers or, for the control,
/// under none. Also tells whether anybody reached the victim.
fn run(role: Role, confined: bool) -> (Outcomes, usize) {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("file"), "text").unwrap();
        path
    };
    let (outside, readable, writable) = (place("outside"), place("readable"), place("writable"));
    let victim = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("nearfar-test-{}", victim.local_addr().unwrap().port());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let facts = Facts {
        victim: victim.local_addr().unwrap(),
        outside,
        readable: readable.clone(),
        writable: writable.clone(),
        abstract_name: name,
        parent: rustix::process::getpid(),
    };
    let places = Places {
        read: vec![readable],
        write: vec![writable],
        files: vec![place("files")],
        devices: Vec::new(),
    };
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let quick = TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
    let accepted = front.accept().unwrap().0;
    let (link, others) = UnixStream::pair().unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    for socket in [front.as_fd(), quick.as_fd(), accepted.as_fd()] {
        send(&ours, &ToChild::Listener(ListenerKind::Tcp), Some(socket)).unwrap();
    }
    send(&ours, &ToChild::Link(Role::Egress), Some(link.as_fd())).unwrap();
    // What a colluding neighbour would send over its link: a socket.
    let kind = ToChild::Listener(ListenerKind::Tcp);
    send(&others, &kind, Some(victim.as_fd())).unwrap();

    let state = folder.path().to_owned();
    let text = facts.write();
    // As the supervisor does: a thread confines itself and starts the child.
    let output = std::thread::spawn(move || {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["--exact", "sandbox::inside", "--nocapture"])
            .args(["--test-threads", "1"])
            .env(ATTEMPT, role.name())
            .env(FACTS, text)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if confined {
            command.env("SANDBOX_TEST_CONFINED", "1");
            let report = confine(role, &places, &state);
            assert!(report.seccomp, "{:?}", report.missing);
        }
        command.spawn().unwrap().wait_with_output().unwrap()
    });
    let output = output.join().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    victim.set_nonblocking(true).unwrap();
    let reached = std::iter::from_fn(|| victim.accept().ok()).count();
    (outcomes(&said), reached)
}

fn outcomes(said: &str) -> Outcomes {
    said.lines()
        // The harness writes the test's name in front of the first line.
        .filter_map(|line| line.split_once("attempt ").map(|(_, rest)| rest))
        .filter_map(|line| line.split_once(' '))
        .map(|(name, result)| {
            let result = match result {
                "done" => Ok(()),
                error => Err(error.to_owned()),
            };
            (name.to_owned(), result)
        })
        .collect()
}

/// Not a test by itself: the program started again lands here.
#[test]
fn inside() {
    let Ok(role) = std::env::var(ATTEMPT) else {
        return;
    };
    let role = Role::ALL.into_iter().find(|r| r.name() == role).unwrap();
    let facts = Facts::read(&std::env::var(FACTS).unwrap());
    let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut incoming = Incoming::new(UnixStream::from(socket));
    if std::env::var_os("SANDBOX_TEST_CONFINED").is_some() {
        settle(role, incoming.as_fd()).unwrap();
    }
    let mut take = || match incoming.handed().unwrap() {
        Some(Handed::Listener(_, fd)) => fd,
        Some(Handed::Link(_, link)) => link.into(),
        other => panic!("{other:?}"),
    };
    let sockets = Sockets {
        listener: take(),
        quick_listener: take(),
        accepted: take(),
        link: take().into(),
    };
    let mut out = std::io::stdout().lock();
    for (name, result) in attempts(&facts, sockets) {
        let result = match result {
            Ok(()) => "done".to_owned(),
            Err(error) => error.to_string().replace('\n', " "),
        };
        writeln!(out, "\nattempt {name} {result}").unwrap();
    }
}

fn attempts(facts: &Facts, sockets: Sockets) -> Vec<(&'static str, std::io::Result<()>)> {
    let socket = |family, kind| -> std::io::Result<()> {
        rustix::net::socket(family, kind, None)?;
        Ok(())
    };
    let reopened = |socket: &OwnedFd| -> std::io::Result<()> {
        rustix::net::connect_unspec(socket)?;
        Ok(rustix::net::connect(socket, &facts.victim)?)
    };
    let fast = |socket: &OwnedFd| -> std::io::Result<()> {
        rustix::net::shutdown(socket, Shutdown::Both)?;
        rustix::net::sendto(socket, b"out", MSG_FASTOPEN, &facts.victim)?;
        Ok(())
    };
    let files = facts.writable.with_file_name("files");
    let parent = format!("/proc/{}", facts.parent.as_raw_nonzero());
    let mut link = Incoming::new(sockets.link);
    vec![
        ("own-file-read", read(&facts.readable)),
        ("own-file-write", write(&facts.writable)),
        ("own-files-replace", replace(&files)),
        ("own-files-folder", folder(&files.join("folder"))),
        (
            "own-files-out",
            std::fs::rename(files.join("file"), facts.writable.join("moved")),
        ),
        (
            "socket-inet",
            socket(AddressFamily::INET, SocketType::STREAM),
        ),
        (
            "socket-inet6",
            socket(AddressFamily::INET6, SocketType::STREAM),
        ),
        ("socket-udp", socket(AddressFamily::INET, SocketType::DGRAM)),
        (
            "socket-unix",
            socket(AddressFamily::UNIX, SocketType::STREAM),
        ),
        (
            "socket-netlink",
            socket(AddressFamily::NETLINK, SocketType::RAW),
        ),
        ("connect", TcpStream::connect(facts.victim).map(drop)),
        ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("listener-reopened", reopened(&sockets.listener)),
        ("accepted-reopened", reopened(&sockets.accepted)),
        ("listener-fastopen", fast(&sockets.quick_listener)),
        ("abstract-unix", abstract_unix(&facts.abstract_name)),
        ("socket-from-a-neighbour", link.handed().map(drop)),
        ("descriptor-of-another", descriptor_of(facts.parent)),
        (
            "signal-another",
            test_kill_process(facts.parent).map_err(Into::into),
        ),
        (
            "environ-of-another",
            std::fs::read(format!("{parent}/environ")).map(drop),
        ),
        (
            "memory-of-another",
            std::fs::File::open(format!("{parent}/mem")).map(drop),
        ),
        (
            "files-of-another",
            std::fs::read_link(format!("{parent}/fd/0")).map(drop),
        ),
        ("file-read", read(&facts.outside)),
        ("file-write", write(&facts.outside)),
        ("exec", Command::new("/bin/true").status().map(drop)),
        ("dumpable", dumpable()),
    ]
}

fn read(folder: &Path) -> std::io::Result<()> {
    std::fs::read(folder.join("file")).map(drop)
}

fn write(folder: &Path) -> std::io::Result<()> {
    std::fs::write(folder.join("new"), "text")?;
    std::fs::remove_file(folder.join("new"))
}

/// As a file is written that must be whole or not there.
fn replace(folder: &Path) -> std::io::Result<()> {
    use std::io::Write;
    let mut new = std::fs::File::create_new(folder.join("new"))?;
    new.write_all(b"text")?;
    new.sync_all()?;
    std::fs::rename(folder.join("new"), folder.join("newest"))?;
    std::fs::File::open(folder)?.sync_all()?;
    std::fs::File::open(folder.join("newest"))?.set_modified(std::time::SystemTime::now())?;
    std::fs::remove_file(folder.join("newest"))
}

fn folder(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir(path)?;
    std::fs::remove_dir(path)
}

fn abstract_unix(name: &str) -> std::io::Result<()> {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    UnixStream::connect_addr(&address).map(drop)
}

fn descriptor_of(pid: Pid) -> std::io::Result<()> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    pidfd_getfd(&process, 1, PidfdGetfdFlags::empty())?;
    Ok(())
}

fn dumpable() -> std::io::Result<()> {
    hide()?;
    Ok(set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}

/// What only Landlock closes, and from which ABI on.
fn needs_landlock(name: &str) -> Option<u32> {
    match name {
        "environ-of-another" | "memory-of-another" | "files-of-another" => Some(1),
        "file-read" | "file-write" | "own-files-folder" | "own-files-out" => Some(1),
        "abstract-unix" => Some(6),
        _ => None,
    }
}

/// What a role may do.
fn allowed(role: Role, name: &str) -> bool {
    match name {
        "own-file-read" | "own-file-write" | "own-files-replace" => true,
        "socket-inet"
        | "socket-inet6"
        | "socket-udp"
        | "socket-unix"
        | "socket-netlink"
        | "connect"
        | "listener-reopened"
        | "accepted-reopened"
        | "listener-fastopen"
        | "socket-from-a-neighbour" => role == Role::Egress,
        _ => false,
    }
}

fn check(role: Role) {
    let offer = probe();
    if !offer.seccomp {
        eprintln!("SKIPPED: this kernel has no seccomp, so no escape is tried");
        return;
    }
    let (tried, reached) = run(role, true);
    assert!(tried.len() >= 26, "{tried:?}");
    for (name, result) in &tried {
        if allowed(role, name) {
            assert_eq!(*result, Ok(()), "{role} may: {name}");
            continue;
        }
        match needs_landlock(name) {
            Some(abi) if offer.landlock_abi.is_none_or(|have| have < abi) => {
                eprintln!(
                    "SKIPPED: {name} needs Landlock ABI {abi}: {:?}",
                    offer.landlock_abi
                );
            }
            _ => assert!(result.is_err(), "{role} must not: {name}"),
        }
    }
    if role == Role::Egress {
        assert!(reached > 0, "egress must reach out");
    } else {
        assert_eq!(reached, 0, "somebody reached the victim");
    }
}

#[test]
fn the_gate_does_not_get_out() {
    check(Role::Gate);
}

#[test]
fn the_engine_does_not_get_out() {
    check(Role::Engine);
}

#[test]
fn egress_goes_out_and_does_nothing_else() {
    check(Role::Egress);
}

/// The positive control: without the layers every one of them works, so the
/// failures above are the sandbox's doing.
#[test]
fn without_the_sandbox_every_escape_works() {
    let (tried, reached) = run(Role::Gate, false);
    for (name, result) in &tried {
        // Yama and the like may guard other processes by themselves.
        let guarded = name.ends_with("-of-another") && !rustix::process::geteuid().is_root();
        if guarded && result.is_err() {
            eprintln!("SKIPPED: {name} fails on this machine without our sandbox too");
            continue;
        }
        if name == "listener-fastopen" && !fast_open_is_on() {
            eprintln!("SKIPPED: {name}: TCP fast open is switched off on this machine");
            continue;
        }
        assert_eq!(*result, Ok(()), "{name}");
    }
    assert!(reached >= 3, "the victim saw {reached} connections");
}

fn fast_open_is_on() -> bool {
    std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen")
        .is_ok_and(|text| text.trim().parse::<u32>().is_ok_and(|bits| bits & 1 == 1))
}
