//! What `nearfar gate|engine|egress` does before its own work begins: take the
//! handover socket, give up what is left to give up, read the setup.

use std::ffi::CStr;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use super::channel::{Incoming, Replies};
use super::{logging, sandbox};
use crate::config::{Config, Overrides};
use crate::handover::{Handed, Role, Setup};

/// A child whose supervisor is gone has this long to end by itself.
const ORPHANED: Duration = Duration::from_millis(500);

/// Frames of the supervisor that may wait for the child's own code.
const QUEUE: usize = 32;

/// Threads that serve requests in the gate: they wait, they do not compute. With
/// a second one every chunk of a stream would wake both, for each looks whether
/// there is work for it, too. What takes long (a large request is read, searched
/// for identifiers) hands the thread's other work to one that is started for it.
const GATE_WORKERS: usize = 1;

/// Runs one of the three processes. Meant to be started by [`super::serve`]
/// alone; says so when it is not.
pub fn child(role: Role) -> ExitCode {
    let socket = match take_handover() {
        Ok(socket) => socket,
        Err(error) => {
            // Not a log line: a person typed the command.
            let _ = writeln!(
                io::stderr(),
                "nearfar {role} is started by `nearfar serve`, not by hand ({error})"
            );
            return ExitCode::from(2);
        }
    };
    let incoming = Incoming::new(socket);
    if let Err(error) = sandbox::settle(role, incoming.as_fd()) {
        let _ = writeln!(
            io::stderr(),
            "nearfar {role}: no sandbox, no start: {error}"
        );
        return ExitCode::FAILURE;
    }
    logging::begin();
    // For `ps` and `top`; the name does not matter for anything else.
    let _ = rustix::thread::set_name(comm(role));
    match run(role, incoming) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%role, %error, "cannot go on");
            ExitCode::FAILURE
        }
    }
}

fn comm(role: Role) -> &'static CStr {
    match role {
        Role::Gate => c"nearfar-gate",
        Role::Engine => c"nearfar-engine",
        Role::Egress => c"nearfar-egress",
    }
}

/// The socket at standard input, under a number of its own. Standard input
/// itself stays open on it; nothing reads there, and descriptors are received
/// on the new number alone (see [`sandbox::seccomp::start_filter`]).
fn take_handover() -> io::Result<UnixStream> {
    let stdin = io::stdin();
    if rustix::net::sockopt::socket_domain(&stdin)? != rustix::net::AddressFamily::UNIX {
        return Err(io::Error::other("standard input is no unix socket"));
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3)?;
    Ok(UnixStream::from(socket))
}

fn run(role: Role, mut incoming: Incoming) -> io::Result<()> {
    let setup = incoming.setup()?;
    if setup.role != role {
        return Err(io::Error::other("the setup is for another process"));
    }
    let overrides = Overrides {
        listen: setup.listen.clone(),
        state_dir: setup.state_dir.clone(),
        env_providers: setup.env_providers.clone(),
    };
    // The supervisor has read the same text, so an error here is ours.
    let mut config = Config::parse(&setup.config_text, setup.config_path.as_deref(), &overrides)
        .map_err(io::Error::other)?;
    if role != Role::Engine {
        crate::prices::handed(&setup.prices_text).fill(&mut config.providers);
    }
    let replies = incoming.replies()?;
    match role {
        Role::Gate => gate(setup, config, incoming, replies),
        Role::Engine => engine(&config, incoming, &replies),
        Role::Egress => egress(&setup, config, incoming, &replies),
    }
}

/// Reads what the supervisor hands on, on a thread of its own, until the
/// supervisor is gone; after `take` said no, without a listener. A child
/// without a supervisor ends: by itself when its channels close, by force soon
/// after.
fn receive(
    mut incoming: Incoming,
    take: impl FnMut(Handed) -> bool + Send + 'static,
) -> io::Result<()> {
    let reading = move || {
        let mut take = Some(take);
        loop {
            match incoming.handed() {
                Ok(Some(handed)) => {
                    if take.as_mut().is_some_and(|take| !take(handed)) {
                        take = None;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the handover from the supervisor broke");
                    break;
                }
            }
        }
        drop(take);
        std::thread::sleep(ORPHANED);
        tracing::warn!("the supervisor is gone, and so is this process");
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("handover".to_owned())
        .spawn(reading)?;
    Ok(())
}

fn gate(setup: Setup, config: Config, incoming: Incoming, replies: Replies) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(GATE_WORKERS)
        .max_blocking_threads(8)
        .thread_name("gate")
        .enable_all()
        .build()?;
    let (give, handed) = tokio::sync::mpsc::channel(QUEUE);
    receive(incoming, move |handed| give.blocking_send(handed).is_ok())?;
    let ready = move || {
        if let Err(error) = replies.ready() {
            tracing::warn!(%error, "the supervisor does not listen");
        }
    };
    let ended = runtime.block_on(crate::app::run(setup, config, handed, ready));
    // Whatever still runs has had its time.
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}

fn engine(config: &Config, incoming: Incoming, replies: &Replies) -> io::Result<()> {
    let (give, links) = std::sync::mpsc::channel();
    let mut give = Some(give);
    receive(incoming, move |handed| {
        match handed {
            Handed::Link(_, link) => give.as_ref().is_none_or(|give| give.send(link).is_ok()),
            // The gate has drained before: no job is left, nor one to come.
            Handed::Drain { .. } => {
                give = None;
                true
            }
            Handed::Listener(..) | Handed::Part { .. } => true,
        }
    })?;
    replies.ready()?;
    nearfar_engine::serve(
        links,
        nearfar_engine::Options {
            threads: config.local.threads,
            memory_budget: config.local.memory_budget,
            keep_alive: config.local.keep_alive,
            pinned: Some(nearfar_engine::PinnedOnDisk {
                folder: config.state_dir.join(sandbox::places::PINNED),
                max_bytes: config.local.pinned_on_disk,
            }),
            placement: config.local.placement,
        },
    )
}

fn egress(setup: &Setup, config: Config, incoming: Incoming, replies: &Replies) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Name resolution and the writing of downloads.
        .max_blocking_threads(4)
        .build()?;
    let (give, links) = tokio::sync::mpsc::channel(QUEUE);
    let (stop, drain) = tokio::sync::watch::channel(false);
    receive(incoming, move |handed| match handed {
        Handed::Link(_, link) => give.blocking_send(link).is_ok(),
        Handed::Drain { .. } => {
            stop.send_replace(true);
            true
        }
        Handed::Listener(..) | Handed::Part { .. } => true,
    })?;
    replies.ready()?;
    let options = nearfar_egress::Options {
        providers: config.providers,
        credentials_dir: config.credentials_dir,
        incoming_dir: setup.state_dir.join("models/incoming"),
        shared: config.shared.map(|shared| shared.server),
        fleet_ledger: config.fleet_ledger.map(|mut ledger| {
            if ledger.device.is_empty() {
                // Egress may read `/proc`, whatever else it may not.
                let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
                ledger.device = host.unwrap_or_default().trim().to_owned();
            }
            ledger
        }),
    };
    let ended = runtime.block_on(nearfar_egress::serve(links, options, drain));
    runtime.shutdown_timeout(Duration::from_millis(200));
    ended
}
