//! What the double is told to do.

use std::time::Duration;

/// How one request is met.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    pub fault: Fault,
    /// `None`: an answer that follows from the request.
    pub answer: Option<Answer>,
}

/// What goes wrong. Events are counted as pieces of the reply's body: SSE events
/// of a stream, the whole body otherwise.
#[derive(Clone, Debug, Default)]
pub enum Fault {
    #[default]
    None,
    /// RST instead of a reply.
    ResetBeforeHeaders,
    /// FIN instead of a reply.
    CloseBeforeHeaders,
    /// Never a byte.
    StallBeforeHeaders,
    /// A byte of the head after each pause, without end.
    SlowHeaders(Duration),
    /// Head, then never a byte of the body.
    StallBeforeBody,
    /// An error status. `body: None` is the provider's own shape.
    Status {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Option<String>,
    },
    /// 200 and nothing.
    EmptyBody,
    /// 200 and what is not JSON.
    Garbage,
    /// The connection ends after so many events, in the middle of the next one.
    Cut { after: usize, reset: bool },
    /// The stream ends after so many events, in good order.
    End { after: usize },
    /// Nothing more after so many events.
    Stall { after: usize },
    /// Every byte in a segment of its own.
    ByteByByte,
    /// Lines that end in CR LF.
    Crlf,
    /// No `[DONE]`, no `message_stop`.
    NoEndMarker,
    /// No blank line after the last event.
    NoLastBlankLine,
    /// An error event after so many events.
    ErrorEvent { after: usize },
    /// A file's bytes end after so many.
    CutFile { after_bytes: usize },
    /// The connection ends so many bytes into the first occurrence of a text.
    CutInside { text: &'static str, bytes: usize },
    /// After so many events, one that is not JSON; then the rest.
    BadEvent { after: usize },
    /// After so many events, a byte after each pause.
    Drip { after: usize, pause: Duration },
    /// The first event and the last three come twice.
    Twice,
    /// A usage that is none.
    WrongUsage,
    /// 200 and a web page.
    Page,
    /// 200 and a few kilobytes that unpack to many megabytes.
    GzipBomb,
}

impl Fault {
    /// An error status in the provider's own shape.
    pub fn status(status: u16) -> Fault {
        Fault::Status {
            status,
            headers: Vec::new(),
            body: None,
        }
    }
}

impl From<Fault> for Behaviour {
    fn from(fault: Fault) -> Self {
        Behaviour {
            fault,
            answer: None,
        }
    }
}

impl From<Answer> for Behaviour {
    fn from(answer: Answer) -> Self {
        Behaviour {
            fault: Fault::None,
            answer: Some(answer),
        }
    }
}

/// What the model says.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Pieces of text.
    pub text: Vec<String>,
    /// Pieces of reasoning, before the text.
    pub reasoning: Vec<String>,
    /// Calls: name and arguments.
    pub calls: Vec<(String, String)>,
    /// A refusal instead of text.
    pub refusal: Option<String>,
    /// The answer ended at its token limit.
    pub cut_by_limit: bool,
    /// The provider's filter ended the answer.
    pub filtered: bool,
    /// The answer ended before this stop string.
    pub stopped_by: Option<String>,
    /// Tokens of prompt, cached prompt, completion, reasoning.
    pub usage: [u64; 4],
    /// Pause before each event.
    pub gap: Duration,
}

impl Default for Answer {
    fn default() -> Self {
        Answer {
            text: Vec::new(),
            reasoning: Vec::new(),
            calls: Vec::new(),
            refusal: None,
            cut_by_limit: false,
            filtered: false,
            stopped_by: None,
            usage: [21, 8, 5, 0],
            gap: Duration::ZERO,
        }
    }
}

impl Answer {
    /// A text, in pieces of a word.
    pub fn text(text: &str) -> Answer {
        Answer {
            text: text.split_inclusive(' ').map(str::to_owned).collect(),
            ..Answer::default()
        }
    }

    /// One call.
    pub fn call(name: &str, arguments: &str) -> Answer {
        Answer {
            calls: vec![(name.to_owned(), arguments.to_owned())],
            ..Answer::default()
        }
    }

    /// The same with one more call.
    pub fn and_call(mut self, name: &str, arguments: &str) -> Answer {
        self.calls.push((name.to_owned(), arguments.to_owned()));
        self
    }

    /// The same with reasoning before it.
    pub fn after_thinking(mut self, thought: &str) -> Answer {
        self.reasoning = thought.split_inclusive(' ').map(str::to_owned).collect();
        self.usage[3] = 2;
        self
    }

    /// The same, slower.
    pub fn with_gap(mut self, gap: Duration) -> Answer {
        self.gap = gap;
        self
    }

    /// The same with a fault.
    pub fn but(self, fault: Fault) -> Behaviour {
        Behaviour {
            fault,
            answer: Some(self),
        }
    }

    pub(super) fn whole_text(&self) -> String {
        self.text.concat()
    }
}

/// A text in pieces of at most so many bytes, as arguments stream.
pub(super) fn pieces(text: &str, size: usize) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for character in text.chars() {
        match out.last_mut() {
            Some(last) if last.len() < size => last.push(character),
            _ => out.push(character.to_string()),
        }
    }
    out
}
