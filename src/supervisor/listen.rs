//! The listeners: opened once, kept for the supervisor's life, handed to every
//! gate. A client that connects while no gate runs waits in the backlog.
#![allow(
    clippy::disallowed_methods,
    reason = "the supervisor opens all listeners"
)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use super::state_dir::{StateDir, StateDirError};
use crate::handover::ListenerKind;

/// The data API's socket inside the state directory.
const DATA_SOCKET: &str = "nearfar.sock";
/// The control API's socket inside the state directory.
pub(super) const CONTROL_SOCKET: &str = "control.sock";

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListenError {
    /// Nobody could call, or everybody.
    #[error(
        "{0} can be reached from other machines, and there is no key yet that would let anybody \
         in: make one with `nearfar key create NAME` (with the same --state-dir) and start again, \
         or listen on 127.0.0.1 or [::1]"
    )]
    NoKeys(SocketAddr),
    /// Another program has it.
    #[error(
        "{0} is taken by another program: stop that one, or choose another address with --listen"
    )]
    Taken(SocketAddr),
    /// What else the system says.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A unix socket.
    #[error(transparent)]
    Unix(#[from] StateDirError),
}

/// Every listener, open.
#[derive(Debug)]
pub(super) struct Listeners {
    /// To be handed to a gate, in this order.
    pub(super) sockets: Vec<(ListenerKind, OwnedFd)>,
    /// The addresses that TCP listeners really have.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Opens the data API on these addresses and both unix sockets. `keyed`
    /// tells whether there is a key, which addresses that other machines reach
    /// need.
    pub(super) fn open(
        addresses: &[SocketAddr],
        state: &StateDir,
        keyed: impl Fn() -> bool,
    ) -> Result<Self, ListenError> {
        if let Some(address) = addresses.iter().find(|a| !a.ip().is_loopback())
            && !keyed()
        {
            return Err(ListenError::NoKeys(*address));
        }
        let mut opened = Self {
            sockets: Vec::new(),
            addresses: Vec::new(),
        };
        for address in addresses {
            let (listener, bound) = tcp(*address)?;
            opened.sockets.push((ListenerKind::Tcp, listener.into()));
            opened.addresses.push(bound);
        }
        let data = state.listen(DATA_SOCKET)?;
        opened.sockets.push((ListenerKind::Unix, data.into()));
        let control = state.listen(CONTROL_SOCKET)?;
        opened.sockets.push((ListenerKind::Control, control.into()));
        Ok(opened)
    }
}

fn tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let bind = || -> io::Result<(TcpListener, SocketAddr)> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    bind().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken(address),
        _ => ListenError::Bind { address, source },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn other_machines_need_keys() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let everywhere = ["127.0.0.1:0".parse().unwrap(), "0.0.0.0:0".parse().unwrap()];
        let refused = Listeners::open(&everywhere, &state, || false).unwrap_err();
        assert!(matches!(refused, ListenError::NoKeys(_)), "{refused}");
        let opened = Listeners::open(&everywhere, &state, || true).unwrap();
        assert_eq!(opened.addresses.len(), 2);
        assert!(Listeners::open(&everywhere[..1], &state, || false).is_ok());
    }

    #[test]
    fn a_taken_address_is_told() {
        let (_listener, bound) = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_ne!(bound.port(), 0);
        assert!(matches!(tcp(bound).unwrap_err(), ListenError::Taken(_)));
    }
}
