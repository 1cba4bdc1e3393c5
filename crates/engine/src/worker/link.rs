//! One link to a gate: a reader thread, a writer thread, and between the
//! writer and the compute thread a bounded queue that never blocks the latter.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use nearfar_domain::events::Failure;
use nearfar_domain::frames::{FromEngine, Reader, ToEngine, VERSION, encode};

use super::guard::THREADS;
use super::load::{Load, Room};
use super::queue::JobKey;
use super::vectors::Stage;
use crate::generate::Prepared;

/// Names a link for the life of the process.
pub(super) type LinkId = u64;

/// Frames on their way to the writer.
const QUEUED_FRAMES: usize = 64;
/// Frames that wait for room in that queue. Jobs pause as soon as one does;
/// only answers to a peer that asks and never reads can get this far.
const MAX_WAITING: usize = 4096;

/// All that reaches the compute thread.
pub(super) enum Input {
    /// A new link.
    Link(UnixStream),
    /// No link will follow.
    NoMoreLinks,
    /// A frame of a link.
    Frame(LinkId, ToEngine),
    /// A link ended.
    Closed(LinkId),
    /// A load waits for memory.
    Room(Box<Room>),
    /// A model's load ended.
    Loaded(Box<Load>),
    /// A job's prompt is ready, or refused. The time is what it took.
    Prepared(JobKey, Result<Box<Prepared>, Failure>, Duration),
    /// What the thread that makes vectors has to say of its job.
    Vectors(JobKey, Stage),
}

/// The compute thread's end of a link.
pub(super) struct Link {
    stream: UnixStream,
    queue: SyncSender<Vec<u8>>,
    waiting: VecDeque<Vec<u8>>,
}

impl Link {
    /// Starts a link's threads and sends `Hello`.
    pub(super) fn start(
        id: LinkId,
        stream: UnixStream,
        inputs: &SyncSender<Input>,
    ) -> std::io::Result<Self> {
        let (queue, frames) = sync_channel(QUEUED_FRAMES);
        let (reading, writing) = (stream.try_clone()?, stream.try_clone()?);
        let inputs = inputs.clone();
        thread::Builder::new()
            .name(format!("{THREADS}-reader"))
            .spawn(move || {
                read(id, reading, &inputs);
                // Fails only when the compute thread is gone.
                let _ = inputs.send(Input::Closed(id));
            })?;
        thread::Builder::new()
            .name(format!("{THREADS}-writer"))
            .spawn(move || write(writing, &frames))?;
        let mut link = Self {
            stream,
            queue,
            waiting: VecDeque::new(),
        };
        link.send(&FromEngine::Hello {
            version: VERSION,
            pid: std::process::id(),
        });
        Ok(link)
    }

    /// Whether everything so far has found room on its way to the peer.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends a frame, or keeps it until there is room.
    pub(super) fn send(&mut self, frame: &FromEngine) {
        match encode(frame) {
            Ok(bytes) => self.waiting.push_back(bytes),
            Err(error) => {
                tracing::error!(%error, "a frame to the gate cannot be written; closing its link");
                self.close();
            }
        }
        self.flush();
    }

    /// Moves on what has room now.
    pub(super) fn flush(&mut self) {
        while let Some(frame) = self.waiting.pop_front() {
            match self.queue.try_send(frame) {
                Ok(()) => {}
                Err(TrySendError::Full(frame)) => {
                    self.waiting.push_front(frame);
                    break;
                }
                // The writer is gone; the reader will say that the link is closed.
                Err(TrySendError::Disconnected(_)) => self.waiting.clear(),
            }
        }
        if self.waiting.len() > MAX_WAITING {
            tracing::warn!("a gate asks and does not read; closing its link");
            self.waiting.clear();
            self.close();
        }
    }

    fn close(&self) {
        // The reader sees the end and reports it.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

fn read(id: LinkId, mut stream: UnixStream, inputs: &SyncSender<Input>) {
    let mut reader = Reader::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        reader.push(&buffer[..count]);
        loop {
            match reader.next_message::<ToEngine>() {
                Ok(Some(frame)) => {
                    if inputs.send(Input::Frame(id, frame)).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "a gate sent what is not a frame; closing its link");
                    let _ = stream.shutdown(Shutdown::Both);
                    return;
                }
            }
        }
    }
    if let Err(error) = reader.finish() {
        tracing::warn!(%error, "a link to the gate ended");
    }
}

fn write(mut stream: UnixStream, frames: &Receiver<Vec<u8>>) {
    for frame in frames {
        if stream.write_all(&frame).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
    }
}
