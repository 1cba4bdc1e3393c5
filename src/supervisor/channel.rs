//! The socket between the supervisor and one child: frames, and with some of
//! them one file descriptor (`SCM_RIGHTS`).
//!
//! A frame's descriptor travels with the frame's first byte. The kernel keeps
//! descriptors in order and never gives those of two frames in one read, so the
//! receiver queues them and each frame that needs one takes the oldest.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nearfar_domain::frames::{FrameError, Reader, encode};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::handover::{Handed, Setup, ToChild, ToSupervisor};

/// Descriptors that may wait for their frames. The supervisor never has more
/// than a handful under way.
const MAX_WAITING_FDS: usize = 64;

/// How long one write to a child may block. A child that reads nothing for
/// this long hangs, and its supervisor treats it so.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

fn broken(error: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Sends one frame, with a descriptor that the receiver gets its own copy of.
///
/// # Errors
/// What the socket says; `WouldBlock` when the peer does not read.
pub fn send(socket: &UnixStream, message: &ToChild, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let frame = encode(message).map_err(broken)?;
    let sent = match fd {
        None => 0,
        Some(fd) => send_with_fd(socket, &frame, fd)?,
    };
    let mut socket = socket;
    socket.write_all(&frame[sent..])
}

fn send_with_fd(socket: &UnixStream, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let fds = [fd];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    loop {
        match sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// A child's end.
pub struct Incoming {
    socket: UnixStream,
    reader: Reader,
    fds: VecDeque<OwnedFd>,
}

impl Incoming {
    /// Takes over a stream socket, blocking.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            reader: Reader::default(),
            fds: VecDeque::new(),
        }
    }

    /// A second handle on the socket, for answers.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn replies(&self) -> io::Result<Replies> {
        Ok(Replies(self.socket.try_clone()?))
    }

    /// The descriptor itself.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Waits for the setup, which comes first.
    ///
    /// # Errors
    /// When the supervisor is gone or says something else first.
    pub fn setup(&mut self) -> io::Result<Setup> {
        match self.message()? {
            Some(ToChild::Setup(setup)) => Ok(*setup),
            Some(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the supervisor did not begin with the setup",
            )),
            None => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the supervisor is gone",
            )),
        }
    }

    /// Waits for the next thing; `None` when the supervisor is gone.
    ///
    /// # Errors
    /// When the stream breaks the protocol; it is of no use then.
    pub fn handed(&mut self) -> io::Result<Option<Handed>> {
        let Some(message) = self.message()? else {
            return Ok(None);
        };
        Ok(Some(match message {
            ToChild::Setup(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a second setup on the handover socket",
                ));
            }
            ToChild::Listener(kind) => Handed::Listener(kind, self.fd()?),
            ToChild::Link(role) => Handed::Link(role, UnixStream::from(self.fd()?)),
            ToChild::Part { role, state } => Handed::Part { role, state },
            ToChild::Drain { within_ms } => Handed::Drain {
                within: Duration::from_millis(within_ms),
            },
        }))
    }

    fn fd(&mut self) -> io::Result<OwnedFd> {
        self.fds.pop_front().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a frame came without its descriptor (is the limit of open files reached?)",
            )
        })
    }

    fn message(&mut self) -> io::Result<Option<ToChild>> {
        loop {
            if let Some(message) = self.reader.next_message().map_err(broken)? {
                return Ok(Some(message));
            }
            if self.fill()? == 0 {
                self.reader.finish().map_err(broken)?;
                return Ok(None);
            }
        }
    }

    /// One read, with whatever descriptors come along.
    fn fill(&mut self) -> io::Result<usize> {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut buffer)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if self.fds.len() > MAX_WAITING_FDS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "more descriptors than frames on the handover socket",
            ));
        }
        self.reader.push(&buffer[..received.bytes]);
        Ok(received.bytes)
    }
}

/// What a child says to its supervisor.
pub struct Replies(UnixStream);

impl Replies {
    /// Tells the supervisor that the child is ready to work.
    ///
    /// # Errors
    /// When the supervisor is gone.
    pub fn ready(&self) -> io::Result<()> {
        let mut socket = &self.0;
        socket.write_all(&encode(&ToSupervisor::Ready).map_err(broken)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::{Read, Seek};

    use super::*;
    use crate::handover::{ListenerKind, PartState, Role};

    fn setup() -> Setup {
        Setup {
            role: Role::Gate,
            config_text: "x".repeat(300_000),
            prices_text: String::new(),
            config_path: None,
            listen: Vec::new(),
            state_dir: "/state".into(),
            env_providers: vec!["openai".into()],
            sandbox: Vec::new(),
            started_ms: 1,
        }
    }

    fn file_with(text: &str) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        file
    }

    fn text_of(fd: OwnedFd) -> String {
        let mut text = String::new();
        std::fs::File::from(fd).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn descriptors_reach_their_frames_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            send(&ours, &ToChild::Setup(Box::new(setup())), None).unwrap();
            let part = ToChild::Part {
                role: Role::Engine,
                state: PartState::Up,
            };
            for n in 0..40 {
                send(&ours, &part, None).unwrap();
                let file = file_with(&n.to_string());
                let kind = ToChild::Listener(ListenerKind::Tcp);
                send(&ours, &kind, Some(file.as_fd())).unwrap();
            }
            send(&ours, &ToChild::Drain { within_ms: 7 }, None).unwrap();
        });
        let mut incoming = Incoming::new(theirs);
        assert_eq!(incoming.setup().unwrap().config_text.len(), 300_000);
        for n in 0..40 {
            assert!(matches!(
                incoming.handed().unwrap(),
                Some(Handed::Part { .. })
            ));
            match incoming.handed().unwrap() {
                Some(Handed::Listener(ListenerKind::Tcp, fd)) => {
                    assert!(
                        rustix::io::fcntl_getfd(&fd)
                            .unwrap()
                            .contains(rustix::io::FdFlags::CLOEXEC)
                    );
                    assert_eq!(text_of(fd), n.to_string());
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            incoming.handed().unwrap(),
            Some(Handed::Drain { within }) if within == Duration::from_millis(7)
        ));
        writer.join().unwrap();
        assert!(incoming.handed().unwrap().is_none());
    }

    #[test]
    fn a_frame_in_single_bytes_still_finds_its_descriptor() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let frame = encode(&ToChild::Listener(ListenerKind::Control)).unwrap();
        let file = file_with("here");
        assert_eq!(send_with_fd(&ours, &frame[..1], file.as_fd()).unwrap(), 1);
        let writer = std::thread::spawn(move || {
            for byte in &frame[1..] {
                ours.write_all(&[*byte]).unwrap();
            }
        });
        let mut incoming = Incoming::new(theirs);
        match incoming.handed().unwrap() {
            Some(Handed::Listener(ListenerKind::Control, fd)) => assert_eq!(text_of(fd), "here"),
            other => panic!("{other:?}"),
        }
        writer.join().unwrap();
    }

    #[test]
    fn a_frame_without_its_descriptor_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&ours, &ToChild::Link(Role::Engine), None).unwrap();
        assert!(Incoming::new(theirs).handed().is_err());
    }

    #[test]
    fn a_cut_stream_is_an_error_and_a_closed_one_the_end() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.write_all(&[9, 0, 0, 0, 1]).unwrap();
        drop(ours);
        assert!(Incoming::new(theirs).handed().is_err());
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(ours);
        assert!(Incoming::new(theirs).handed().unwrap().is_none());
    }
}
