//! Between the gate and this device's engine.

use serde::{Deserialize, Serialize};

use super::terms::Terms;
use super::wire::WireChat;
use crate::chat::{Chat, Message, Prompt};
use crate::embed::{EmbeddingCard, Input, Inputs};
use crate::events::Event;
use crate::ids::JobId;
use crate::privacy::{Classified, Confined, Portable};

/// Where a model's weights are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModelSource {
    /// Shipped inside the binary.
    Embedded,
    /// A GGUF file that the engine may read, with a tokenizer beside it where
    /// the file's own is not to be used.
    File {
        /// Absolute path of the GGUF file.
        path: String,
        /// Absolute path of a `tokenizer.json`.
        tokenizer: Option<String>,
        /// SHA-256 of the GGUF file in lower-case hex, where it was verified.
        /// What is kept on disk of a model is kept under it.
        sha256: Option<String>,
        /// How it is to be run, where its owner said so.
        tuning: Tuning,
    },
}

/// How a model from a file is run, beside what the file itself says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuning {
    /// A smaller model with the same tokenizer that guesses ahead of it.
    pub draft: Option<DraftSource>,
    /// How its keys and values are kept.
    pub kv: KvNumbers,
}

/// How keys and values are kept in memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum KvNumbers {
    /// 16 bits each.
    #[default]
    Bf16,
    /// 8 bits each, with a scale for each token and head: about half the memory,
    /// and a little less exact.
    Int8,
}

impl KvNumbers {
    /// As people write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl std::fmt::Display for KvNumbers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for KvNumbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "bf16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err("bf16 or int8 is wanted".to_owned()),
        }
    }
}

/// The files of a draft model; see [`ModelSource::File`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DraftSource {
    /// Its name, without `local/`.
    pub name: String,
    /// Absolute path of the GGUF file.
    pub path: String,
    /// Absolute path of a `tokenizer.json`.
    pub tokenizer: Option<String>,
}

/// One answer to be made on this device.
#[derive(Serialize, Deserialize)]
pub struct EngineJob {
    /// Names the job in all later frames.
    pub job: JobId,
    /// The model's name, without `local/`.
    pub model: String,
    /// Its weights.
    pub source: ModelSource,
    /// The request.
    pub chat: WireChat,
    /// Text of a partial assistant turn that the answer goes on from; empty
    /// for a new one.
    pub partial: String,
    /// What the model's manifest says, for a request for vectors.
    pub embedding: Option<EmbeddingCard>,
    /// How it is to be treated among the others.
    pub terms: Terms,
}

impl EngineJob {
    /// A job for a request that may not leave.
    pub fn confined(job: JobId, model: &str, source: ModelSource, request: &Confined) -> Self {
        Self {
            job,
            model: model.to_owned(),
            source,
            chat: WireChat::of(request.chat()),
            partial: String::new(),
            embedding: None,
            terms: Terms::default(),
        }
    }

    /// With what the model's manifest says of its vectors.
    pub fn with_embedding(self, embedding: Option<EmbeddingCard>) -> Self {
        Self { embedding, ..self }
    }

    /// A job for a request that could leave and is answered here.
    pub fn portable(job: JobId, model: &str, source: ModelSource, request: &Portable) -> Self {
        Self {
            job,
            model: model.to_owned(),
            source,
            chat: WireChat::of(request.chat()),
            partial: String::new(),
            embedding: None,
            terms: Terms::default(),
        }
    }

    /// A job for the vector of a request's last turn, whatever its ceiling: this
    /// device is within every one.
    pub fn question(job: JobId, model: &str, source: ModelSource, request: &Classified) -> Self {
        let chat = match request {
            Classified::Confined(confined) => confined.chat(),
            Classified::Portable(portable) => portable.chat(),
        };
        let text = match &chat.prompt {
            Prompt::Turns(turns) => turns.last().map(Message::plain_text),
            Prompt::Text(text) => Some(text.clone()),
            Prompt::Inputs(_) => None,
        };
        let inputs = Inputs {
            items: vec![Input::Text(text.unwrap_or_default())],
            dimensions: None,
            purpose: None,
        };
        Self {
            job,
            model: model.to_owned(),
            source,
            chat: WireChat::of(&Chat::inputs(inputs)),
            partial: String::new(),
            embedding: None,
            terms: Terms::default(),
        }
    }

    /// The same job, going on from this part of the answer.
    pub fn going_on_from(self, partial: &str) -> Self {
        Self {
            partial: partial.to_owned(),
            ..self
        }
    }

    /// The same job on these terms.
    pub fn on(self, terms: Terms) -> Self {
        Self { terms, ..self }
    }
}

/// From the gate to the engine.
#[derive(Serialize, Deserialize)]
pub enum ToEngine {
    /// Make an answer; its events come back under the job's id.
    Run(Box<EngineJob>),
    /// Stop a job. Its `Failed(Cancelled)` follows, unless it ended before.
    Cancel(JobId),
    /// Load a model without a request, so that the first one finds it ready.
    Load {
        /// The model's name.
        model: String,
        /// Its weights.
        source: ModelSource,
    },
    /// Drop a model's weights once no job uses them.
    Unload {
        /// The model's name.
        model: String,
    },
    /// Answer with `Pong` from the compute thread's loop, not only from the reader.
    Ping(u64),
    /// Keep a model that is in memory for so long after its last use, in place
    /// of the configured time.
    Keep {
        /// The model's name.
        model: String,
        /// In milliseconds; `None` for as long as there is room.
        for_ms: Option<u64>,
    },
}

/// From the engine to the gate.
#[derive(Serialize, Deserialize)]
pub enum FromEngine {
    /// First on every link.
    Hello {
        /// [`super::VERSION`].
        version: u16,
        /// The engine's process id.
        pid: u32,
    },
    /// A step of a job's answer.
    Event {
        /// The job.
        job: JobId,
        /// The step.
        event: Event,
    },
    /// After a job's last event: what it took.
    Done {
        /// The job.
        job: JobId,
        /// Where the time went.
        timings: Timings,
    },
    /// A model became ready or could not be loaded.
    Loaded {
        /// The model's name.
        model: String,
        /// Its figures, or the reason in public words.
        result: Result<LoadedModel, String>,
    },
    /// Sent whenever it changes, and at least once a second while busy.
    State(EngineState),
    /// The answer to `Ping`.
    Pong(u64),
}

/// Where a job's time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// Waiting in the queue, in milliseconds.
    pub queue_ms: f64,
    /// Loading the model, in milliseconds; 0 when it was there.
    pub load_ms: f64,
    /// Computing the prompt, in milliseconds.
    pub prefill_ms: f64,
    /// Tokens that prefill really computed (the prompt less its cached prefix).
    pub prefill_tokens: u32,
    /// Writing the answer after its first token, in milliseconds.
    pub decode_ms: f64,
    /// Tokens written.
    pub decode_tokens: u32,
    /// Tokens of the prompt that were found computed.
    pub cached_tokens: u32,
    /// Tokens guessed ahead of the model, and how many of those it then chose.
    pub guessed_tokens: u32,
    /// See `guessed_tokens`.
    pub accepted_tokens: u32,
    /// Those of the guessed tokens that a draft model made.
    pub drafted_tokens: u32,
    /// Those of the accepted tokens that a draft model had guessed.
    pub drafted_accepted: u32,
    /// How sure the model was of what it wrote.
    pub confidence: Confidence,
}

/// How sure a model was of an answer's tokens: figures over all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Confidence {
    /// Tokens that the figures are over.
    pub tokens: u32,
    /// Least of the margins. A margin is the probability of the likeliest token
    /// less that of the second, in the model's own distribution: 0 to 1.
    pub min_margin: f32,
    /// Mean of the margins.
    pub mean_margin: f32,
    /// Mean of the entropies of the model's own distribution, in nats.
    pub mean_entropy: f32,
}

/// What the engine is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineState {
    /// Jobs that wait.
    pub queued: u32,
    /// Jobs that are being answered.
    pub running: u32,
    /// Expected wait of a new job, in milliseconds.
    pub wait_ms: f64,
    /// Models in memory.
    pub models: Vec<LoadedModel>,
    /// How busy and how fast each model in memory is, by name.
    pub loads: Vec<ModelLoad>,
    /// A model on its way there.
    pub loading: Option<LoadingModel>,
    /// Bytes that all models may take together.
    pub memory_budget: u64,
}

/// A model at work: what it has to do and how fast it was measured to be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelLoad {
    /// The model's name, without `local/`.
    pub name: String,
    /// Answers that it is making.
    pub running: u32,
    /// Tokens of their prompts that are still to be computed.
    pub prompt_tokens_ahead: u32,
    /// Milliseconds per token of a prompt; `None` until measured.
    pub ms_per_prompt_token: Option<f64>,
    /// Milliseconds between two tokens of an answer, with as many answers at
    /// once as there are now; `None` until measured.
    pub ms_per_token: Option<f64>,
    /// Keys and values of running answers and kept prefixes, in bytes.
    pub kv_bytes: u64,
    /// The most that these may take, in bytes.
    pub kv_budget_bytes: u64,
    /// How its draft model fares, where it has one.
    pub draft: Option<DraftLoad>,
}

/// A draft model at work for another one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DraftLoad {
    /// The draft's name, without `local/`.
    pub name: String,
    /// Share of its proposals that the model chose, of late: 0 to 1; `None`
    /// before there was any.
    pub acceptance: Option<f64>,
    /// Speed with it over speed without it, as the measured times and the
    /// acceptance promise; 1 where it does not pay, so that it makes no
    /// proposals but a few now and then. `None` until measured.
    pub gain: Option<f64>,
    /// Proposals since the model was loaded.
    pub proposed_tokens: u64,
    /// Those of them that the model chose.
    pub accepted_tokens: u64,
}

/// How far a load is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadingModel {
    /// Its name, without `local/`.
    pub name: String,
    /// Bytes of its file that were read.
    pub read_bytes: u64,
    /// Bytes of its file.
    pub total_bytes: u64,
}

/// A model in memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// Its name, without `local/`.
    pub name: String,
    /// The architecture, as the file calls it.
    pub architecture: String,
    /// Weights and caches, in bytes.
    pub memory_bytes: u64,
    /// The longest context, in tokens.
    pub context_tokens: u32,
    /// Whether its template offers tools.
    pub tools: bool,
    /// How long it took to load, in milliseconds.
    pub load_ms: f64,
}
