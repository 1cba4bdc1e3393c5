//! From token bytes to the events of an answer.

use std::hash::{BuildHasher, RandomState};

use nearfar_domain::events::{Event, FinishReason, TokenLogprob, ToolCallDelta};

use crate::output::{Piece, Splitter, StopFinder};
use crate::tokenizer::Detokenizer;

/// Makes text of bytes, takes it apart, looks for stop strings in what the
/// user would read, and attaches log-probabilities.
pub(super) struct Writer {
    detokenizer: Detokenizer,
    /// None for raw text: nothing in it is a marker.
    splitter: Option<Splitter>,
    stops: StopFinder,
    /// Log-probabilities of tokens whose text has not come out yet.
    pending: Vec<TokenLogprob>,
    calls: u32,
    /// The turn ends with its first call.
    one_call: bool,
    ids: RandomState,
}

impl Writer {
    pub(super) fn new(splitter: Option<Splitter>, stops: &[String], one_call: bool) -> Self {
        Self {
            detokenizer: Detokenizer::default(),
            splitter,
            stops: StopFinder::new(stops),
            pending: Vec::new(),
            calls: 0,
            one_call,
            ids: RandomState::new(),
        }
    }

    pub(super) fn is_reasoning(&self) -> bool {
        self.splitter.as_ref().is_some_and(Splitter::is_reasoning)
    }

    /// Adds a token's bytes. Returns why the answer ends here, if it does.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        logprob: Option<TokenLogprob>,
        out: &mut Vec<Event>,
    ) -> Option<FinishReason> {
        self.pending.extend(logprob);
        let text = self.detokenizer.push(bytes);
        let pieces = match &mut self.splitter {
            Some(splitter) => splitter.push(&text),
            None => vec![Piece::Content(text)],
        };
        self.pieces(pieces, out)
    }

    /// The model ended: what was held back comes out. Returns the reason as the
    /// client is to see it.
    pub(super) fn finish(&mut self, reason: FinishReason, out: &mut Vec<Event>) -> FinishReason {
        let text = self.detokenizer.finish();
        let cut = self.splitter.as_ref().is_some_and(Splitter::in_call);
        let pieces = match &mut self.splitter {
            Some(splitter) => {
                let mut pieces = splitter.push(&text);
                pieces.extend(splitter.finish());
                pieces
            }
            None => vec![Piece::Content(text)],
        };
        if let Some(stopped) = self.pieces(pieces, out) {
            return stopped;
        }
        let rest = self.stops.finish();
        self.content(rest, out);
        // A call that is whole counts, also when the limit came right after it;
        // one that the limit cut off makes the answer too short.
        match reason {
            FinishReason::Length if cut => FinishReason::Length,
            _ if self.calls > 0 || cut => FinishReason::ToolCalls,
            reason => reason,
        }
    }

    fn pieces(&mut self, pieces: Vec<Piece>, out: &mut Vec<Event>) -> Option<FinishReason> {
        for piece in pieces {
            match piece {
                Piece::Content(text) => {
                    let (safe, stopped) = self.stops.push(&text);
                    if stopped {
                        self.keep_logprobs_of(safe.len());
                        self.content(safe, out);
                        let stop = self.stops.found().map(str::to_owned);
                        out.extend(stop.map(Event::StoppedBy));
                        let called = self.calls > 0;
                        return Some(if called {
                            FinishReason::ToolCalls
                        } else {
                            FinishReason::Stop
                        });
                    }
                    self.content(safe, out);
                }
                Piece::Reasoning(text) => {
                    self.pending.clear();
                    out.push(Event::Reasoning(text));
                }
                Piece::CallStart { name } => {
                    let rest = self.stops.finish();
                    self.content(rest, out);
                    self.pending.clear();
                    out.push(Event::ToolCall(ToolCallDelta {
                        index: self.calls,
                        id: Some(self.call_id()),
                        name: Some(name),
                        arguments: String::new(),
                    }));
                }
                Piece::CallArguments(arguments) => {
                    self.pending.clear();
                    out.push(Event::ToolCall(ToolCallDelta {
                        index: self.calls,
                        id: None,
                        name: None,
                        arguments,
                    }));
                }
                Piece::CallEnd => {
                    self.calls += 1;
                    if self.one_call {
                        return Some(FinishReason::ToolCalls);
                    }
                }
            }
        }
        None
    }

    fn content(&mut self, text: String, out: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        if !self.pending.is_empty() {
            out.push(Event::Logprobs(std::mem::take(&mut self.pending)));
        }
        out.push(Event::Content(text));
    }

    /// Before a stop string: drops the tokens behind it from what is reported.
    fn keep_logprobs_of(&mut self, bytes: usize) {
        let mut left = bytes;
        let keep = self.pending.iter().take_while(|token| {
            let any = left > 0;
            left = left.saturating_sub(token.bytes.len());
            any
        });
        let keep = keep.count();
        self.pending.truncate(keep);
    }

    /// An id that no other call of this daemon is likely to have.
    fn call_id(&self) -> String {
        format!(
            "call_{:016x}{:08x}",
            self.ids.hash_one(self.calls),
            self.ids.hash_one(u64::MAX - u64::from(self.calls)) as u32
        )
    }
}
