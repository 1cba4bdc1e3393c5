//! What can answer: its place, abilities and price.

use serde::{Deserialize, Serialize};

use crate::ids::TargetId;
use crate::price::Price;
use crate::privacy::Zone;

/// What a target can do. What is not known to be there is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Tokens of prompt and answer together; `None` where nobody said.
    pub context_tokens: Option<u32>,
    /// Can be offered tools.
    pub tools: bool,
    /// Can be made to call a tool (`required` or a named one).
    pub forced_tools: bool,
    /// Answers in JSON when asked.
    pub json_object: bool,
    /// Answers in JSON that fits a schema.
    pub json_schema: bool,
    /// Answers by a regular expression, a choice of texts or a grammar.
    pub grammar: bool,
    /// Sees pictures.
    pub vision: bool,
    /// Reports log-probabilities.
    pub logprobs: bool,
    /// Continues raw text (`/v1/completions`).
    pub raw_text: bool,
    /// Answers in words at all; a model that only makes vectors does not.
    pub chat: bool,
    /// Turns text into vectors (`/v1/embeddings`).
    pub embeddings: bool,
}

/// The wire format that a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// OpenAI's, also spoken by most others.
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// Google's, as the Gemini API and Vertex AI speak it.
    Gemini,
    /// Amazon Bedrock's Converse.
    Bedrock,
}

impl Dialect {
    /// The name in configuration, logs and the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Dialect::Openai => "openai",
            Dialect::Anthropic => "anthropic",
            Dialect::Gemini => "gemini",
            Dialect::Bedrock => "bedrock",
        }
    }
}

/// How a target is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// This device's engine.
    Local,
    /// A provider, through egress.
    Remote {
        /// The provider's zone: never `Device`.
        zone: RemoteZone,
        /// What it speaks.
        dialect: Dialect,
    },
}

/// A zone that is not this device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RemoteZone {
    /// See [`Zone::Site`].
    Site,
    /// See [`Zone::Cloud`].
    Cloud,
}

impl From<RemoteZone> for Zone {
    fn from(zone: RemoteZone) -> Zone {
        match zone {
            RemoteZone::Site => Zone::Site,
            RemoteZone::Cloud => Zone::Cloud,
        }
    }
}

/// A target as configured, without its state of the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its name.
    pub id: TargetId,
    /// How it is reached.
    pub place: Place,
    /// What it can do.
    pub capabilities: Capabilities,
    /// What it charges; `None` where nobody said.
    pub price: Option<Price>,
    /// Whether `auto` may choose it, or only a request that names it.
    pub auto: bool,
}

impl Target {
    /// The zone that a request must be allowed to reach.
    pub fn zone(&self) -> Zone {
        match self.place {
            Place::Local => Zone::Device,
            Place::Remote { zone, .. } => zone.into(),
        }
    }
}
