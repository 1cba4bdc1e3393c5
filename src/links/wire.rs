//! Frames over one socket, both ways, until either end is gone.

use std::sync::Arc;

use nearfar_domain::frames::{self, FrameError};
use nearfar_domain::ids::JobId;
use nearfar_egress::socket::{self, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::jobs::{Cancels, Flight};

/// Frames that may wait for the writer. Whoever asks for more waits.
pub(crate) const MAX_OUTGOING: usize = 16;

/// A frame on its way out.
pub(crate) struct Outgoing {
    /// With its length prefix.
    pub(crate) frame: Vec<u8>,
    /// The job that it starts; not sent when nobody wants it any more.
    pub(crate) flight: Option<Arc<Flight>>,
}

/// Why a link ended. For the log: it holds no content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkEnd {
    #[error("the peer closed the link")]
    Closed,
    #[error("the link failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("the link is out of step: {0}")]
    Frame(#[from] FrameError),
    #[error("the first frame was not a hello")]
    NoHello,
    #[error("the peer speaks version {0} of the frames, this process speaks {ours}", ours = frames::VERSION)]
    Version(u16),
    #[error("the link was replaced")]
    Replaced,
}

/// Moves frames until the link ends. `cancel` writes the frame that stops a
/// job; `take` sees every message.
pub(crate) async fn pump<In, Out>(
    stream: std::os::unix::net::UnixStream,
    outgoing: mpsc::Receiver<Outgoing>,
    cancels: Arc<Cancels>,
    cancel: fn(JobId) -> Out,
    take: impl FnMut(In) -> Result<(), LinkEnd>,
) -> LinkEnd
where
    In: DeserializeOwned,
    Out: Serialize,
{
    let (read, write) = match socket::split(stream) {
        Ok(halves) => halves,
        Err(error) => return LinkEnd::Io(error),
    };
    tokio::select! {
        end = read_all(read, take) => end,
        end = write_all(write, outgoing, cancels, cancel) => end,
    }
}

async fn read_all<In: DeserializeOwned>(
    mut stream: Incoming,
    mut take: impl FnMut(In) -> Result<(), LinkEnd>,
) -> LinkEnd {
    let mut reader = frames::Reader::default();
    let mut chunk = vec![0; 16 << 10];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => {
                return reader
                    .finish()
                    .map_or_else(LinkEnd::from, |()| LinkEnd::Closed);
            }
            Ok(read) => reader.push(&chunk[..read]),
            Err(error) => return LinkEnd::Io(error),
        }
        loop {
            match reader.next_message::<In>() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    if let Err(end) = take(message) {
                        return end;
                    }
                }
                Err(error) => return LinkEnd::Frame(error),
            }
        }
    }
}

async fn write_all<Out: Serialize>(
    mut stream: socket::Outgoing,
    mut outgoing: mpsc::Receiver<Outgoing>,
    cancels: Arc<Cancels>,
    cancel: fn(JobId) -> Out,
) -> LinkEnd {
    loop {
        // Cancels first: they free what the frames behind them wait for.
        let next = tokio::select! {
            biased;
            () = cancels.notify.notified() => None,
            next = outgoing.recv() => match next {
                Some(next) => Some(next),
                None => return LinkEnd::Replaced,
            },
        };
        for job in cancels.take() {
            let frame = match frames::encode(&cancel(job)) {
                Ok(frame) => frame,
                Err(error) => return LinkEnd::Frame(error),
            };
            if let Err(error) = stream.write_all(&frame).await {
                return LinkEnd::Io(error);
            }
        }
        if let Some(Outgoing { frame, flight }) = next
            && flight.is_none_or(|flight| flight.take_off())
            && let Err(error) = stream.write_all(&frame).await
        {
            return LinkEnd::Io(error);
        }
    }
}
