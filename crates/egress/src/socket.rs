//! A link's socket, registered for what is waited for and no more.
//!
//! Whoever waits for a unix socket to become writable is woken each time its
//! peer has read something. A socket that is registered for both ways, as
//! tokio's own is, thus wakes its writer once for every chunk of an answer, for
//! nothing. Here reading is registered for good, and writing only while the
//! peer's end is full.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use tokio::io::AsyncReadExt;
// tokio's only types that wait for one way alone. They read and write any
// descriptor; that it is a pipe's is not asked for.
use tokio::net::unix::pipe::{Receiver, Sender};

/// The end that reads.
pub struct Incoming(Receiver);

/// The end that writes.
pub struct Outgoing(UnixStream);

/// Takes over a connected socket. Called inside a runtime.
///
/// # Errors
/// The system's: out of descriptors.
pub fn split(socket: UnixStream) -> io::Result<(Incoming, Outgoing)> {
    socket.set_nonblocking(true)?;
    let incoming = Receiver::from_owned_fd_unchecked(socket.try_clone()?.into())?;
    Ok((Incoming(incoming), Outgoing(socket)))
}

impl Incoming {
    /// Reads what is there, once something is. 0 at the end. Nothing is lost when
    /// the future is dropped.
    ///
    /// # Errors
    /// The socket's.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).await
    }
}

impl Outgoing {
    /// Writes all of it.
    ///
    /// # Errors
    /// The socket's; the peer is gone.
    pub async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.0.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.room().await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the peer has read something.
    async fn room(&self) -> io::Result<()> {
        let waiting = Sender::from_owned_fd_unchecked(self.0.try_clone()?.into())?;
        waiting.writable().await
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // The peer sees the end though this process may read on.
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn everything_arrives_though_the_peer_is_slow_and_the_end_is_seen() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut incoming, mut outgoing) = split(ours).unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let expected = sent.clone();
        let (mut back, mut there) = split(theirs).unwrap();
        let peer = tokio::spawn(async move {
            let (mut seen, mut buffer) = (Vec::new(), vec![0; 5_000]);
            loop {
                match back.read(&mut buffer).await.unwrap() {
                    0 => break,
                    count => seen.extend_from_slice(&buffer[..count]),
                }
            }
            there.write_all(b"all").await.unwrap();
            seen
        });
        outgoing.write_all(&sent).await.unwrap();
        drop(outgoing);
        let mut buffer = [0; 8];
        assert_eq!(incoming.read(&mut buffer).await.unwrap(), 3);
        assert!(peer.await.unwrap() == expected);
        assert_eq!(incoming.read(&mut buffer).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_is_an_error_and_no_wait() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut incoming, mut outgoing) = split(ours).unwrap();
        drop(theirs);
        assert_eq!(incoming.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(outgoing.write_all(&[0; 1 << 20]).await.is_err());
    }
}
