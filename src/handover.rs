//! What the supervisor hands its children, each over one unix socket that is
//! the child's standard input: frames of [`nearfar_domain::frames`], and with
//! some of them one file descriptor (`SCM_RIGHTS`).

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The three processes under the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// HTTP, decision, accounting.
    Gate,
    /// Models.
    Engine,
    /// Providers; the only one with a network.
    Egress,
}

impl Role {
    /// All of them, in the order in which they are started.
    pub const ALL: [Role; 3] = [Role::Gate, Role::Engine, Role::Egress];

    /// The word for it on the command line, in logs and in answers.
    pub fn name(self) -> &'static str {
        match self {
            Role::Gate => "gate",
            Role::Engine => "engine",
            Role::Egress => "egress",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// First on every link: what the child needs to know to begin.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Which process it is to be.
    pub role: Role,
    /// The configuration file's text, checked by the supervisor; empty without one.
    pub config_text: String,
    /// Where the text came from, for messages.
    pub config_path: Option<PathBuf>,
    /// The owner's table of prices, checked by the supervisor; empty without one.
    pub prices_text: String,
    /// `--listen`, which wins over the file.
    pub listen: Vec<SocketAddr>,
    /// The state directory, absolute.
    pub state_dir: PathBuf,
    /// Providers found by their environment variables (names only; the
    /// variables themselves are in egress's environment alone).
    pub env_providers: Vec<String>,
    /// What of the sandbox is in force for each process.
    pub sandbox: Vec<SandboxReport>,
    /// When `nearfar serve` started, in milliseconds since 1970.
    pub started_ms: i64,
}

/// Which layers of the sandbox one process has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxReport {
    /// Which process.
    pub role: Role,
    /// Whether the seccomp filter is in force.
    pub seccomp: bool,
    /// Landlock's ABI where it is in force.
    pub landlock_abi: Option<u32>,
    /// Layers that are missing, and the mend, for people.
    pub missing: Vec<String>,
}

/// From the supervisor to a child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToChild {
    /// First.
    Setup(Box<Setup>),
    /// With a listening inet or unix socket for clients (gate only).
    Listener(ListenerKind),
    /// With a stream socket to this process (gate: engine and egress; they: the gate).
    /// Comes again whenever the other side was restarted.
    Link(Role),
    /// Another process went away or came back.
    Part {
        /// Which.
        role: Role,
        /// Its state.
        state: PartState,
    },
    /// Finish what is under way within this time and exit.
    Drain {
        /// Milliseconds.
        within_ms: u64,
    },
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenerKind {
    /// The data API over TCP.
    Tcp,
    /// The data API over a unix socket.
    Unix,
    /// The control API (unix socket): data API plus `/admin/v1/…`.
    Control,
}

/// State of a process as its supervisor sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// Started, not yet heard of.
    Starting,
    /// Running.
    Up,
    /// Gone; started again after this many milliseconds.
    Down {
        /// Milliseconds until the next start.
        restart_in_ms: u64,
    },
}

/// From a child to its supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToSupervisor {
    /// The child is ready to work.
    Ready,
}

/// [`ToChild`] after the setup, with its descriptor in its place: what the
/// child's own code works with.
#[derive(Debug)]
pub enum Handed {
    /// A listening socket, non-blocking.
    Listener(ListenerKind, OwnedFd),
    /// A stream to this process; takes the place of an earlier one.
    Link(Role, UnixStream),
    /// Another process went away or came back.
    Part {
        /// Which.
        role: Role,
        /// Its state.
        state: PartState,
    },
    /// Finish what is under way within this time and return.
    Drain {
        /// From now.
        within: Duration,
    },
}
