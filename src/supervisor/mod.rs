//! `nearfar serve`: starts, confines and restarts the three processes. Sees no
//! request.
//!
//! In reading order: [`handover`](crate::handover) is what crosses to a child and [`channel`]
//! how; `serve` is the start of the supervisor, `family` its loop and `spawn`
//! the start of one process; `child` is what a process does before its own
//! work begins; [`sandbox`] is what each process may not do.
//!
//! There is no HTTP here, no content, and no store of keys: a key that came in
//! the environment is copied into egress's environment at each start and held
//! nowhere else.

mod backoff;
pub mod channel;
mod child;
mod environment;
mod family;
mod listen;
mod logging;
pub mod sandbox;
mod serve;
mod spawn;
mod state_dir;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use crate::handover::{Handed, Role};
pub use child::child;
pub use serve::{control_socket, serve};
pub use state_dir::{StateDir, StateDirError};

/// What `nearfar serve` was given on the command line.
#[derive(Clone, Debug, Default)]
pub struct ServeArgs {
    /// Addresses of the data API; they win over the configuration's.
    pub listen: Vec<SocketAddr>,
    /// The state directory; none for the configured or default one.
    pub state_dir: Option<PathBuf>,
    /// The configuration file; none for the default one, which may be absent.
    pub config: Option<PathBuf>,
}
