//! The three processes and what keeps them: starts, introductions, restarts,
//! the drain. One thread, one loop; it sleeps until something happens.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};

use super::backoff::{Backoff, dice};
use super::channel::send;
use super::listen::Listeners;
use super::sandbox::places;
use super::spawn::{self, Happening, Plan, Run, Started};
use super::state_dir::StateDir;
use crate::config::Config;
use crate::handover::{PartState, Role, SandboxReport, Setup, ToChild};

/// How long engine and egress have to end once the gate has.
const REST_DRAIN: Duration = Duration::from_millis(500);
/// What a process may take beyond its drain before it is killed.
const GRACE: Duration = Duration::from_secs(1);

/// Everything that the supervisor looks after.
pub(super) struct Family {
    config: Config,
    setup: Setup,
    keys: Vec<String>,
    /// Holds the lock on the state directory.
    state: StateDir,
    listeners: Listeners,
    members: [Member; 3],
    tell: Sender<Happening>,
    happenings: Receiver<Happening>,
    /// Whether the service manager was told that we are up.
    announced: bool,
    stopping: Option<Stopping>,
}

/// One of the three.
struct Member {
    /// Which start the facts below are about.
    run: Run,
    life: Life,
    /// The handover socket, once there is a process at its other end.
    socket: Option<UnixStream>,
    /// Whether it has its setup, so that links and news may follow.
    introduced: bool,
    state: PartState,
    sandbox: Option<SandboxReport>,
    backoff: Backoff,
}

enum Life {
    /// A thread is starting it.
    Starting,
    /// It runs.
    Running { process: Process, since: Instant },
    /// It ended and is started again then.
    Waiting { until: Instant },
    /// It ended and stays so.
    Over,
}

struct Process {
    pid: Pid,
    pidfd: Option<OwnedFd>,
}

/// How far a stop has come.
struct Stopping {
    /// The gate first: it finishes answers. Then the others.
    gate_done: bool,
    /// When whoever is left at this stage is killed.
    deadline: Instant,
    /// Whether anybody had to be.
    killed: bool,
}

impl Process {
    fn kill(&self) {
        // It may have ended in the meantime, which is as good.
        let _ = match &self.pidfd {
            Some(pidfd) => pidfd_send_signal(pidfd, Signal::KILL),
            None => kill_process(self.pid, Signal::KILL),
        };
    }
}

impl Family {
    /// Begins to start all three, the gate first.
    pub(super) fn start(
        config: Config,
        setup: Setup,
        keys: Vec<String>,
        state: StateDir,
        listeners: Listeners,
        tell: Sender<Happening>,
        happenings: Receiver<Happening>,
    ) -> Self {
        let member = |_| Member {
            run: 0,
            life: Life::Over,
            socket: None,
            introduced: false,
            state: PartState::Starting,
            sandbox: None,
            backoff: Backoff::default(),
        };
        let mut family = Self {
            config,
            setup,
            keys,
            state,
            listeners,
            members: Role::ALL.map(member),
            tell,
            happenings,
            announced: false,
            stopping: None,
        };
        for role in Role::ALL {
            family.begin(role);
        }
        family
    }

    /// Looks after them until a stop is done.
    pub(super) fn look_after(mut self) -> ExitCode {
        loop {
            let happening = match self.next_deadline() {
                None => self
                    .happenings
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => {
                    let wait = at.saturating_duration_since(Instant::now());
                    self.happenings.recv_timeout(wait)
                }
            };
            match happening {
                Ok(happening) => self.on(happening),
                // Our own sender lives as long as we do.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            self.on_time(Instant::now());
            if let Some(stopping) = &self.stopping
                && self.members.iter().all(|m| matches!(m.life, Life::Over))
            {
                tracing::info!("stopped");
                return if stopping.killed {
                    ExitCode::FAILURE
                } else {
                    ExitCode::SUCCESS
                };
            }
        }
    }

    fn on(&mut self, happening: Happening) {
        match happening {
            Happening::Started(role, run, result) if self.is_current(role, run) => match result {
                Ok(started) => self.on_started(role, started),
                Err(error) => {
                    tracing::error!(%role, %error, "cannot be started");
                    self.on_end(role, Duration::ZERO);
                }
            },
            Happening::Ready(role, run) if self.is_current(role, run) => {
                self.member(role).state = PartState::Up;
                self.tell_gate(role);
                if role == Role::Gate && !self.announced {
                    self.announced = true;
                    notify(&[sd_notify::NotifyState::Ready]);
                }
            }
            Happening::Ended(role, run, ending) if self.is_current(role, run) => {
                let ran = match &self.member(role).life {
                    Life::Running { since, .. } => since.elapsed(),
                    Life::Starting | Life::Waiting { .. } | Life::Over => Duration::ZERO,
                };
                if self.stopping.is_none() {
                    tracing::error!(%role, reason = %ending, "a process ended");
                }
                self.on_end(role, ran);
            }
            Happening::Stop(signal) => self.on_stop(signal),
            // News of an earlier process.
            Happening::Started(..) | Happening::Ready(..) | Happening::Ended(..) => {}
        }
    }

    fn begin(&mut self, role: Role) {
        let run = self.member(role).run + 1;
        let plan = Plan {
            role,
            run,
            places: places::of(role, &self.config, self.state.path()),
            state_dir: self.state.path().to_owned(),
            keys: self.keys.clone(),
        };
        let begun = spawn::begin(plan, &self.tell);
        let member = self.member(role);
        member.run = run;
        member.introduced = false;
        member.state = PartState::Starting;
        match begun {
            Ok(socket) => {
                member.socket = Some(socket);
                member.life = Life::Starting;
            }
            Err(error) => {
                tracing::error!(%role, %error, "cannot be started");
                self.on_end(role, Duration::ZERO);
            }
        }
    }

    fn on_started(&mut self, role: Role, started: Started) {
        let Started {
            pid,
            pidfd,
            sandbox,
        } = started;
        tracing::info!(%role, pid = pid.as_raw_nonzero(), "started");
        for missing in &sandbox.missing {
            tracing::warn!(%role, layer = missing, "the sandbox is not whole");
        }
        let stopping = self.stopping.is_some();
        let member = self.member(role);
        member.sandbox = Some(sandbox);
        member.life = Life::Running {
            process: Process { pid, pidfd },
            since: Instant::now(),
        };
        if stopping {
            // The stop was asked for while this one was on its way.
            self.kill(role);
            return;
        }
        self.introduce_all();
    }

    /// Introduces whoever runs and is not yet. The gate's setup tells about all
    /// sandboxes, so at the very start it waits for the others' to be known.
    fn introduce_all(&mut self) {
        let known = self
            .members
            .iter()
            .all(|m| m.sandbox.is_some() || m.run > 1);
        for role in Role::ALL {
            let member = self.member(role);
            let waits = matches!(member.life, Life::Running { .. }) && !member.introduced;
            if waits && (known || role != Role::Gate) {
                self.introduce(role);
            }
        }
    }

    /// Gives a process its setup, its listeners, links to its neighbours, and
    /// them links to it.
    fn introduce(&mut self, role: Role) {
        let mut setup = self.setup.clone();
        setup.role = role;
        setup.sandbox = self
            .members
            .iter()
            .filter_map(|m| m.sandbox.clone())
            .collect();
        self.member(role).introduced = true;
        self.say(role, &ToChild::Setup(Box::new(setup)), None);
        if role == Role::Gate {
            for index in 0..self.listeners.sockets.len() {
                let (kind, socket) = &self.listeners.sockets[index];
                match socket.try_clone() {
                    Ok(socket) => self.say(role, &ToChild::Listener(*kind), Some(socket)),
                    Err(error) => tracing::error!(%error, "a listener cannot be handed on"),
                }
            }
            for other in [Role::Engine, Role::Egress] {
                self.link(other);
                self.tell_gate(other);
            }
        } else {
            self.link(role);
            self.tell_gate(role);
        }
    }

    /// Connects the gate and another process, where both can be told.
    fn link(&mut self, other: Role) {
        let ready = |family: &mut Self, role| family.member(role).introduced;
        if !(ready(self, Role::Gate) && ready(self, other)) {
            return;
        }
        match UnixStream::pair() {
            Ok((gates, others)) => {
                self.say(other, &ToChild::Link(Role::Gate), Some(others.into()));
                self.say(Role::Gate, &ToChild::Link(other), Some(gates.into()));
            }
            Err(error) => tracing::error!(role = %other, %error, "no link to the gate"),
        }
    }

    /// Tells the gate how another process is.
    fn tell_gate(&mut self, role: Role) {
        let state = self.member(role).state;
        if role != Role::Gate && self.member(Role::Gate).introduced {
            self.say(Role::Gate, &ToChild::Part { role, state }, None);
        }
    }

    /// Sends; a process that cannot be told anything is of no use and goes.
    fn say(&mut self, role: Role, message: &ToChild, fd: Option<OwnedFd>) {
        let Some(socket) = &self.member(role).socket else {
            return;
        };
        let sent = send(socket, message, fd.as_ref().map(AsFd::as_fd));
        if let Err(error) = sent {
            tracing::warn!(%role, %error, "does not listen to its supervisor");
            self.member(role).introduced = false;
            self.kill(role);
        }
    }

    /// After a process ended, or could not be started.
    fn on_end(&mut self, role: Role, ran: Duration) {
        let stopping = self.stopping.is_some();
        let member = self.member(role);
        member.socket = None;
        member.introduced = false;
        if stopping {
            member.life = Life::Over;
            return;
        }
        let wait = member.backoff.after(ran, dice());
        let ms = wait.as_millis() as u64;
        member.life = Life::Waiting {
            until: Instant::now() + wait,
        };
        member.state = PartState::Down { restart_in_ms: ms };
        tracing::info!(%role, ms, "started again soon");
        self.tell_gate(role);
        // At the very start the gate may have been waiting for this one.
        self.introduce_all();
    }

    fn on_stop(&mut self, signal: &str) {
        if let Some(stopping) = &mut self.stopping {
            tracing::warn!(signal, "stopping at once");
            stopping.killed = true;
            stopping.deadline = Instant::now();
            stopping.gate_done = true;
            return;
        }
        let within = self.config.server.drain;
        tracing::info!(signal, within_ms = within.as_millis() as u64, "stopping");
        notify(&[sd_notify::NotifyState::Stopping]);
        self.stopping = Some(Stopping {
            gate_done: false,
            deadline: Instant::now() + within + GRACE,
            killed: false,
        });
        for member in &mut self.members {
            if matches!(member.life, Life::Waiting { .. }) {
                member.life = Life::Over;
            }
        }
        if self.member(Role::Gate).introduced {
            let within_ms = within.as_millis() as u64;
            self.say(Role::Gate, &ToChild::Drain { within_ms }, None);
        } else {
            self.kill(Role::Gate);
        }
    }

    /// What is due: restarts, the next stage of a stop, the end of patience.
    fn on_time(&mut self, now: Instant) {
        let Some(stopping) = &self.stopping else {
            for role in Role::ALL {
                if matches!(self.member(role).life, Life::Waiting { until } if until <= now) {
                    self.begin(role);
                }
            }
            return;
        };
        let gate_over = matches!(self.members[0].life, Life::Over);
        if !stopping.gate_done && gate_over {
            self.drain_rest(now);
        } else if stopping.deadline <= now {
            let stage: &[Role] = if stopping.gate_done {
                &Role::ALL
            } else {
                &[Role::Gate]
            };
            for role in stage {
                if self.kill(*role)
                    && let Some(stopping) = &mut self.stopping
                {
                    tracing::warn!(%role, "did not end in time");
                    stopping.killed = true;
                }
            }
            if let Some(stopping) = &mut self.stopping {
                stopping.deadline = now + GRACE;
            }
        }
    }

    fn drain_rest(&mut self, now: Instant) {
        if let Some(stopping) = &mut self.stopping {
            stopping.gate_done = true;
            stopping.deadline = now + REST_DRAIN + GRACE;
        }
        let within_ms = REST_DRAIN.as_millis() as u64;
        for role in [Role::Engine, Role::Egress] {
            if self.member(role).introduced {
                self.say(role, &ToChild::Drain { within_ms }, None);
            } else {
                self.kill(role);
            }
        }
    }

    /// When the loop has to wake without a happening.
    fn next_deadline(&self) -> Option<Instant> {
        match &self.stopping {
            Some(stopping) => Some(stopping.deadline),
            None => self
                .members
                .iter()
                .filter_map(|member| match member.life {
                    Life::Waiting { until } => Some(until),
                    Life::Starting | Life::Running { .. } | Life::Over => None,
                })
                .min(),
        }
    }

    /// Kills a process that runs; its end comes as a happening.
    fn kill(&mut self, role: Role) -> bool {
        match &self.member(role).life {
            Life::Running { process, .. } => {
                process.kill();
                true
            }
            Life::Starting | Life::Waiting { .. } | Life::Over => false,
        }
    }

    fn is_current(&mut self, role: Role, run: Run) -> bool {
        self.member(role).run == run
    }

    fn member(&mut self, role: Role) -> &mut Member {
        let index = match role {
            Role::Gate => 0,
            Role::Engine => 1,
            Role::Egress => 2,
        };
        &mut self.members[index]
    }
}

/// Tells the service manager, where there is one.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
