//! Between the gate and egress, the only process with a network.

use serde::{Deserialize, Serialize};

use super::ledger::{LedgerBatch, LedgerEnd};
use super::shared::{SharedCall, SharedEnd};
use super::wire::WireChat;
use crate::events::Event;
use crate::ids::JobId;
use crate::price::Price;
use crate::privacy::Cleared;
use crate::target::{Capabilities, Dialect, RemoteZone};

/// One answer to be fetched from a provider.
#[derive(Serialize, Deserialize)]
pub struct EgressJob {
    /// Names the job in all later frames.
    pub job: JobId,
    /// The provider's configured name.
    pub provider: String,
    /// The model's name at the provider.
    pub model: String,
    /// The request.
    pub chat: WireChat,
    /// Text of a partial assistant turn that the answer goes on from; empty
    /// for a new one.
    pub partial: String,
    /// About how many tokens that is: they count against the request's limit.
    pub partial_tokens: u32,
    /// Whether the provider should stream. A request that is answered whole is
    /// streamed too where that lets us see its first byte.
    pub stream: bool,
    /// Whether pieces that come together may be joined: nobody sees the answer grow.
    pub joined: bool,
    /// How long each step may take.
    pub limits: TimeLimits,
}

impl EgressJob {
    /// The one encoder for what leaves. Takes proof that it may.
    pub fn new(job: JobId, cleared: &Cleared<'_>, stream: bool, limits: TimeLimits) -> Self {
        let target = cleared.leg().target();
        Self {
            job,
            provider: target.place().to_owned(),
            model: target.model().to_owned(),
            chat: WireChat::of(cleared.chat()),
            partial: cleared.partial().to_owned(),
            partial_tokens: 0,
            stream,
            joined: false,
            limits,
        }
    }

    /// The same job, for a client that wants its answer whole.
    pub fn joined(self, joined: bool) -> Self {
        Self { joined, ..self }
    }

    /// The same job, which may write so many tokens and no more, beside those of
    /// its partial answer.
    pub fn at_most(mut self, tokens: Option<u32>) -> Self {
        if let Some(tokens) = tokens {
            self.chat.bound(tokens.saturating_add(self.partial_tokens));
        }
        self
    }

    /// The same job, whose partial answer has about so many tokens.
    pub fn after(self, partial_tokens: u32) -> Self {
        Self {
            partial_tokens,
            ..self
        }
    }
}

/// Time limits of one job, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeLimits {
    /// Name resolution, TCP and TLS.
    pub connect_ms: u64,
    /// From the request's last byte to the answer's first.
    pub first_byte_ms: u64,
    /// Between two pieces of the answer.
    pub idle_ms: u64,
    /// The whole answer.
    pub total_ms: u64,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            connect_ms: 5_000,
            first_byte_ms: 60_000,
            idle_ms: 30_000,
            total_ms: 600_000,
        }
    }
}

/// From the gate to egress.
#[derive(Serialize, Deserialize)]
pub enum ToEgress {
    /// Fetch an answer; its events come back under the job's id.
    Run(Box<EgressJob>),
    /// Stop a job and close its connection. `Failed(Cancelled)` follows, unless it ended before.
    Cancel(JobId),
    /// Fetch a model's file.
    Download(Download),
    /// Store rows in the fleet's ledger.
    Ledger(LedgerBatch),
    /// A step at the counters that several daemons share.
    Shared(SharedCall),
    /// Answer with `Pong`.
    Ping(u64),
}

/// A model file to be fetched into the store's folder for incoming files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Download {
    /// Names the job.
    pub job: JobId,
    /// Hugging Face repository, `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// File inside the repository.
    pub file: String,
    /// Absolute path of the folder for incoming files.
    pub into: String,
    /// Name of the finished file inside that folder.
    pub save_as: String,
    /// The SHA-256 that it must have, in hexadecimal, where it is known.
    pub sha256: Option<String>,
    /// The most bytes to accept.
    pub max_bytes: u64,
}

/// Progress of a [`Download`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownloadEvent {
    /// Bytes on disk, and in all where the server said.
    Progress {
        /// On disk.
        have: u64,
        /// In all.
        total: Option<u64>,
    },
    /// Whole and checked.
    Finished {
        /// The file's SHA-256 in hexadecimal.
        sha256: String,
        /// Its length in bytes.
        bytes: u64,
        /// Whether somebody (the caller or the server) had named this digest
        /// before; if not, it is pinned now.
        verified: bool,
    },
    /// Given up; what was fetched stays for the next try unless it is wrong.
    Failed {
        /// For people: what and what to do.
        message: String,
        /// Whether the same call may succeed later.
        retryable: bool,
    },
}

/// From egress to the gate.
#[derive(Serialize, Deserialize)]
pub enum FromEgress {
    /// First on every link.
    Hello {
        /// [`super::VERSION`].
        version: u16,
        /// Egress's process id.
        pid: u32,
        /// Every provider that is configured; no key.
        providers: Vec<ProviderCard>,
    },
    /// A step of a job's answer.
    Event {
        /// The job.
        job: JobId,
        /// The step.
        event: Event,
    },
    /// A step of a download.
    Download {
        /// The job.
        job: JobId,
        /// The step.
        event: DownloadEvent,
    },
    /// The end of a [`LedgerBatch`].
    Ledger {
        /// The job.
        job: JobId,
        /// How it ended.
        end: LedgerEnd,
    },
    /// The end of a [`SharedCall`].
    Shared {
        /// The job.
        job: JobId,
        /// How it ended.
        end: SharedEnd,
    },
    /// The answer to `Ping`.
    Pong(u64),
}

/// What the gate may know of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderCard {
    /// Its configured name.
    pub name: String,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where it lies.
    pub zone: RemoteZone,
    /// Whether its key is there, or none is needed.
    pub ready: bool,
    /// Models that are known by name; the first is the one for `auto`.
    pub models: Vec<ModelCard>,
    /// Whether models that are not listed may be named.
    pub open_list: bool,
}

/// What the gate may know of a provider's model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Its name at the provider.
    pub name: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What it charges.
    pub price: Option<Price>,
    /// Whether `auto` may choose it.
    pub auto: bool,
    /// Whether it goes on with an assistant turn that it is given in part.
    pub prefill: bool,
}
