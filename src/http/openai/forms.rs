//! OpenAI's kinds of answers, as [`crate::http::reply`] sends them.

use nearfar_domain::events::Failure;
use serde_json::Value;

use super::shape::Head;
use super::{chat, embeddings, text};
use crate::http::collect::Collected;
use crate::http::dialect::{About, Chunks, Form};

/// Which answer, and how.
pub(crate) struct OpenaiForm {
    pub(crate) kind: Kind,
    /// Whether a stream ends with a usage chunk.
    pub(crate) include_usage: bool,
}

/// The endpoint whose answer it is.
pub(crate) enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`, with the prompt where the client wants it back.
    Text { echo: Option<String> },
    /// `/v1/embeddings`: never a stream.
    Vectors { base64: bool },
}

impl OpenaiForm {
    fn head(&self, about: &About) -> Head {
        let prefix = match self.kind {
            Kind::Chat => "chatcmpl-",
            Kind::Text { .. } => "cmpl-",
            Kind::Vectors { .. } => "embd-",
        };
        Head::of(about, prefix)
    }
}

impl Form for OpenaiForm {
    fn whole(&self, about: &About, answer: &Collected) -> Result<Value, Failure> {
        let head = self.head(about);
        Ok(match &self.kind {
            Kind::Chat => chat::whole(&head, answer),
            Kind::Text { echo } => text::whole(&head, answer, echo.as_deref()),
            Kind::Vectors { base64 } => embeddings::whole(&head, answer, *base64),
        })
    }

    fn chunks(self: Box<Self>, about: About) -> Box<dyn Chunks> {
        let head = self.head(&about);
        match self.kind {
            // Vectors are not asked for as a stream.
            Kind::Chat | Kind::Vectors { .. } => {
                Box::new(chat::Chunks::new(head, self.include_usage))
            }
            Kind::Text { echo } => Box::new(text::Chunks::new(head, self.include_usage, echo)),
        }
    }
}
