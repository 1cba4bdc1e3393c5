//! Starts one process: a thread confines itself, starts the child, and waits
//! for it. What happens is told over a channel.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use nearfar_domain::frames::Reader;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::sandbox::{Places, confine, verify};
use super::{channel, environment};
use crate::handover::{Role, SandboxReport, ToSupervisor};

/// What the supervisor's loop waits for.
pub(super) enum Happening {
    /// A child runs, or could not be started.
    Started(Role, Run, io::Result<Started>),
    /// A child says that it is ready.
    Ready(Role, Run),
    /// A child ended.
    Ended(Role, Run, Ending),
    /// SIGTERM, SIGINT or SIGHUP.
    Stop(&'static str),
}

/// Counts the starts of a role, so that late news of an earlier process are
/// told from those of the present one.
pub(super) type Run = u64;

/// A child that runs.
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Kills without ever hitting a later process of the same number.
    pub(super) pidfd: Option<OwnedFd>,
    pub(super) sandbox: SandboxReport,
}

/// How a child ended.
pub(super) struct Ending(Result<ExitStatus, io::Error>);

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Ok(status) => match (status.signal(), status.code()) {
                (Some(9), _) => f.write_str("killed (SIGKILL; out of memory, or by hand)"),
                (Some(signal), _) => write!(f, "killed by signal {signal}"),
                (None, Some(code)) => write!(f, "ended with status {code}"),
                (None, None) => f.write_str("ended"),
            },
            Err(error) => write!(f, "lost: {error}"),
        }
    }
}

/// What one start needs.
pub(super) struct Plan {
    pub(super) role: Role,
    pub(super) run: Run,
    pub(super) places: Places,
    pub(super) state_dir: PathBuf,
    /// Names of the variables that hold providers' keys.
    pub(super) keys: Vec<String>,
}

/// Begins a start and returns the supervisor's end of the child's handover
/// socket. The rest comes as happenings.
///
/// # Errors
/// When no descriptor or thread is left.
pub(super) fn begin(plan: Plan, tell: &Sender<Happening>) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_write_timeout(Some(channel::WRITE_TIMEOUT))?;
    let (role, run) = (plan.role, plan.run);
    let listening = ours.try_clone()?;
    let heard = tell.clone();
    let name = format!("{role}-heard");
    std::thread::Builder::new()
        .name(name)
        .spawn(move || listen(listening, role, run, &heard))?;
    let tell = tell.clone();
    std::thread::Builder::new()
        .name(format!("{role}-parent"))
        .spawn(move || parent(plan, theirs, &tell))?;
    Ok(ours)
}

/// The child's parent thread. It lives as long as the child: a child may ask
/// to be killed when it goes.
fn parent(plan: Plan, stdin: UnixStream, tell: &Sender<Happening>) {
    let (role, run) = (plan.role, plan.run);
    // The environment is read before the thread confines itself.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("nearfar")
        .arg(role.name())
        .env_clear()
        .envs(environment::of(role, &plan.keys))
        .stdin(Stdio::from(OwnedFd::from(stdin)))
        // A Ctrl-C at the terminal is for the supervisor, which drains.
        .process_group(0);
    let report = confine(role, &plan.places, &plan.state_dir);
    let spawned = command.spawn();
    // Holds the child's end of the handover socket.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            // Nobody is left to hear it when the supervisor is on its way out.
            let _ = tell.send(Happening::Started(role, run, Err(error)));
            return;
        }
    };
    let pid = Pid::from_child(&child);
    let started = Started {
        pid,
        pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(),
        sandbox: verify(pid, report),
    };
    let _ = tell.send(Happening::Started(role, run, Ok(started)));
    let ending = Ending(child.wait());
    let _ = tell.send(Happening::Ended(role, run, ending));
}

/// Reads what a child says until it is gone.
fn listen(mut socket: UnixStream, role: Role, run: Run, tell: &Sender<Happening>) {
    let mut reader = Reader::default();
    let mut buffer = [0; 256];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => reader.push(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        }
        loop {
            match reader.next_message() {
                Ok(Some(ToSupervisor::Ready)) => {
                    if tell.send(Happening::Ready(role, run)).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%role, %error, "a process speaks nonsense to its supervisor");
                    return;
                }
            }
        }
    }
}
