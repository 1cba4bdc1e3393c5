//! What the double counts as its owner would: how many tokens each request was
//! billed for, and whether the client was told.
//!
//! The user's words `bill 40 12` make an answer of 12 tokens to a prompt of 40;
//! with `slowly` each token takes its time.

use serde_json::Value;

use super::script::Answer;

/// One request's bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Tokens of the prompt that it was billed for.
    pub prompt: u64,
    /// Tokens of the answer, those that were sent.
    pub completion: u64,
    /// How it ended.
    pub ending: Ending,
}

/// How a bill came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer was whole, and its usage was sent with it.
    Told,
    /// The answer broke off, whoever's fault it was: nobody was told.
    Untold,
    /// It was refused with an error, and nothing was computed.
    Refused,
}

/// The answer that the words `bill PROMPT COMPLETION` ask for.
pub fn wanted(said: &str) -> Option<Answer> {
    let (_, rest) = said.split_once("bill ")?;
    let mut numbers = rest.split_whitespace().map(str::parse::<u64>);
    let (prompt, completion) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(Answer {
        text: (0..completion).map(|_| "tick ".to_owned()).collect(),
        usage: [prompt, 0, completion, 0],
        ..Answer::default()
    })
}

/// The bill of a request whose body says what it is billed, after `sent` events
/// of its reply; `None` for any other.
pub fn of(request: &Value, sent: usize, status: u16, whole: bool) -> Option<Bill> {
    let last = request["messages"].as_array()?.last()?;
    let [prompt, _, completion, _] = wanted(last["content"].as_str()?)?.usage;
    let ending = match (status, whole) {
        (400.., _) => Ending::Refused,
        (_, true) => Ending::Told,
        (_, false) => Ending::Untold,
    };
    // The first event has the role, and those behind the text have none.
    let so_far = (sent as u64).saturating_sub(1).min(completion);
    Some(match ending {
        Ending::Told => Bill {
            prompt,
            completion,
            ending,
        },
        Ending::Untold => Bill {
            prompt,
            completion: so_far,
            ending,
        },
        Ending::Refused => Bill {
            prompt: 0,
            completion: 0,
            ending,
        },
    })
}
