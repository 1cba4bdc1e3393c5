//! Questions about a venue, with their true answers.

use crate::phrasing::{self, Attr, bank};
use crate::rng::Rng;
use crate::split::{Split, phrase};
use crate::values::cap;
use crate::venue::{Fact, Venue, WEEK, attrs, fill, on_day, spoken, topic};
use crate::entities::{Entity, Kind};

/// The part of a schedule that is asked for; `Whole` for every other fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aspect {
    /// Everything.
    Whole,
    /// The opening time.
    Open,
    /// The closing time.
    Close,
    /// One day, Monday is 0.
    Day(usize),
}

/// What one question is about.
#[derive(Debug, Clone)]
pub struct Topic {
    /// The thing.
    pub thing: Entity,
    /// Its index, when the venue knows it.
    pub index: Option<usize>,
    /// What is asked about it.
    pub attr: Attr,
    /// Which part.
    pub aspect: Aspect,
}

/// An answer and the values that it must contain; no values: it is not in the facts.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The answer.
    pub text: String,
    /// Values that a right answer contains, letter for letter.
    pub values: Vec<String>,
}

/// The ways in which the desk says that it does not know. `{}` is the topic.
const UNKNOWN: &[&str] = &[
    "Sorry, I don't have information about {}, but I can ask the staff.", "I don't have information about {}. Shall I ask the staff for you?", "I'm sorry, I don't have that information. Would you like me to ask the staff?",
];

/// Politeness around a direct question (`{}`).
const DIRECT: &[&str] = &[
    "{}", "{}", "{}", "{}", "{} please", "quick question {}", "i have a question {}", "just wondering {}", "tell me {}", "one more thing {}", "listen {}", "also {}", "can i ask {}", "we just arrived {}", "{} do you know", "my wife asks {}", "!let me ask you {}",
];
/// Politeness around an indirect one.
const INDIRECT: &[&str] = &[
    "can you tell me {}", "could you tell me {}", "do you know {}", "do you happen to know {}", "i'd like to know {}", "i want to know {}", "i need to know {}", "i was wondering {}", "please tell me {}", "would you mind telling me {}", "can you check {}", "i wonder {}", "any idea {}", "could you please tell me {}",
    "!might you be able to say {}", "!i'm trying to find out {}",
];

/// Questions that no front desk's facts answer.
const ELSEWHERE: &[&str] = &[
    "what's the weather like tomorrow", "is it going to rain today", "who won the football game last night", "what's the capital of mongolia", "how old is the president", "what's the stock price of apple", "can you tell me the news",
    "who invented the telephone", "how do i get a visa", "how many people live in this country", "what's the exchange rate for dollars", "can you recommend a good book", "how do i cook rice", "which team plays tonight", "what's my room number", "when is my flight", "did anyone leave a message for me",
    "has my package arrived", "is my room ready", "what's the name of the guest next door", "how busy is it right now", "what did the minister say", "how tall is the eiffel tower", "when does the summer start", "what's the best car", "is my husband back already", "what's the temperature outside",
    "where did i leave my keys", "how much is a flight to rome", "do you know a joke about tax law", "translate good night to japanese", "how many calories are in a banana", "what time is it in tokyo", "who painted this picture", "what's the bill for my room",
    "!is there a storm coming", "!who is the prime minister of italy", "!what's the fastest train in the world", "!how is the traffic right now", "!did my friend already arrive", "!how much do i owe you so far", "!what is the meaning of life", "!which planet is the biggest",
];

impl Topic {
    /// Something the venue has a fact about.
    pub fn known(rng: &mut Rng, venue: &Venue) -> Self {
        let fact = rng.pick(&venue.facts);
        Self::of(rng, venue, fact)
    }

    fn of(rng: &mut Rng, venue: &Venue, fact: &Fact) -> Self {
        // Only places are asked for a part of their schedule.
        let aspect = match (fact.attr, venue.things[fact.thing].kind) {
            (Attr::Hours, Kind::Place) => match rng.below(10) {
                0..=1 => Aspect::Open,
                2..=4 => Aspect::Close,
                5..=6 => Aspect::Day(rng.below(7)),
                _ => Aspect::Whole,
            },
            _ => Aspect::Whole,
        };
        Self { thing: venue.things[fact.thing].clone(), index: Some(fact.thing), attr: fact.attr, aspect }
    }

    /// Something that is not in the facts: mostly a missing fact about a thing that is there, or
    /// a thing of a kind whose siblings are there.
    pub fn unknown(rng: &mut Rng, venue: &Venue) -> Self {
        if rng.chance(0.5) {
            for _ in 0..20 {
                let index = rng.below(venue.things.len());
                let thing = &venue.things[index];
                let (attr, _) = *rng.pick(attrs(thing.kind));
                if venue.find(index, attr).is_none() {
                    let aspect = if attr == Attr::Hours { *rng.pick(&[Aspect::Whole, Aspect::Open, Aspect::Close, Aspect::Day(6)]) } else { Aspect::Whole };
                    return Self { thing: thing.clone(), index: Some(index), attr, aspect };
                }
            }
        }
        let thing = venue.stranger(rng);
        let all = attrs(thing.kind);
        let (attr, _) = if rng.chance(0.6) { all[0] } else { *rng.pick(all) };
        let aspect = if attr == Attr::Hours { *rng.pick(&[Aspect::Whole, Aspect::Whole, Aspect::Open, Aspect::Close, Aspect::Day(5)]) } else { Aspect::Whole };
        Self { thing, index: None, attr, aspect }
    }

    /// The question in clean words.
    pub fn ask(&self, rng: &mut Rng, split: Split) -> String {
        let table = match (self.attr, self.aspect, self.thing.kind) {
            (Attr::Hours, Aspect::Open, Kind::Place) => phrasing::OPENS,
            (Attr::Hours, Aspect::Close, Kind::Place) => phrasing::CLOSES,
            (Attr::Hours, Aspect::Day(_), Kind::Place) => phrasing::DAY,
            _ => bank(self.attr, self.thing.kind).ask,
        };
        let name = if rng.chance(0.7) { self.thing.names[0] } else { *rng.pick(&self.thing.names) };
        let entry = phrase(split, rng, table);
        let (direct, indirect) = entry.split_once('|').map_or((entry, None), |(d, i)| (d, Some(i)));
        let day = if let Aspect::Day(d) = self.aspect { WEEK[d] } else { "today" };
        let put = |t: &str| fill(&t.replace("{day}", day), &self.thing, name, None, "");
        let frames = split;
        match indirect {
            Some(form) if rng.chance(0.45) => phrase(frames, rng, INDIRECT).replace("{}", &put(form)),
            _ => phrase(if rng.chance(0.5) { Split::Train } else { frames }, rng, DIRECT).replace("{}", &put(direct)),
        }
    }

    /// The question as a follow-up to one about the same thing, if it has such a form.
    pub fn ask_again(&self, rng: &mut Rng, split: Split) -> Option<String> {
        let table = match (self.attr, self.aspect) {
            (Attr::Hours, Aspect::Open) => phrasing::OPENS_FOLLOW,
            (Attr::Hours, Aspect::Close) => phrasing::CLOSES_FOLLOW,
            (Attr::Hours, Aspect::Day(_)) => phrasing::DAY_FOLLOW,
            _ => bank(self.attr, self.thing.kind).follow,
        };
        // A table whose only held-out entries are missing serves both sides.
        let entry = phrase(split, rng, table);
        let day = if let Aspect::Day(d) = self.aspect { WEEK[d] } else { "" };
        Some(entry.replace("{day}", day))
    }

    /// The same question about another thing, in short.
    pub fn ask_of_other(&self, rng: &mut Rng, split: Split) -> String {
        const OTHER: &[&str] = &["and {}", "what about {}", "and for {}", "how about {}", "and {} too", "same question for {}", "!and what's it like for {}", "!now for {}"];
        let name = *rng.pick(&self.thing.names);
        let with = self.thing.with_article(name);
        phrase(split, rng, OTHER).replace("{}", &with)
    }

    /// The true answer.
    pub fn answer(&self, rng: &mut Rng, venue: &Venue) -> Reply {
        let name = self.thing.names[0];
        let Some(fact) = self.index.and_then(|i| venue.find(i, self.attr)) else {
            let what = topic(&self.thing, name, self.attr);
            return Reply { text: rng.pick(UNKNOWN).replace("{}", &what), values: Vec::new() };
        };
        let thing = &self.thing;
        let subject = cap(&thing.with_article(name));
        let is = if thing.plural { "are" } else { "is" };
        let verb = if thing.kind == Kind::Meal { "available" } else { "open" };
        if self.attr == Attr::Hours {
            let whole = || {
                let mut values = Vec::new();
                for (_, range) in &fact.slots {
                    values.extend(range.iter().flat_map(|(a, b)| [a.clone(), b.clone()]));
                    if range.is_none() {
                        values.push("closed".to_owned());
                    }
                }
                values
            };
            let one = match fact.slots.as_slice() {
                [(_, Some(range))] => Some(range),
                _ => None,
            };
            return match (self.aspect, one) {
                (Aspect::Open, Some((a, _))) if thing.kind == Kind::Place => {
                    let text = fill(rng.pick(phrasing::OPENS_SAY), thing, name, None, "").replace("{a}", a);
                    Reply { text, values: vec![a.clone()] }
                }
                (Aspect::Close, Some((_, b))) if thing.kind == Kind::Place => {
                    let text = fill(rng.pick(phrasing::CLOSES_SAY), thing, name, None, "").replace("{b}", b);
                    Reply { text, values: vec![b.clone()] }
                }
                (Aspect::Day(day), _) => match on_day(&fact.slots, day) {
                    Some((a, b)) => Reply { text: format!("On {}, {} {is} {verb} from {a} to {b}.", WEEK[day], thing.with_article(name)), values: vec![a.clone(), b.clone()] },
                    None => Reply { text: format!("{subject} {is} closed on {}.", WEEK[day]), values: vec!["closed".to_owned()] },
                },
                _ => Reply { text: format!("{subject} {is} {verb} {}.", spoken(&fact.slots)), values: whole() },
            };
        }
        let template = rng.pick(bank(self.attr, thing.kind).say);
        let mut values = vec![fact.value.clone()];
        if self.attr == Attr::Time && WEEK.contains(&fact.extra.as_str()) {
            values.push(fact.extra.clone());
        }
        Reply { text: cap(&fill(template, thing, name, Some(fact), "")), values }
    }

    /// A related question about the same venue: same thing, another fact (there or not), or the
    /// same fact of another thing, or another part of the schedule. With its words.
    pub fn follow(&self, rng: &mut Rng, split: Split, venue: &Venue) -> Option<(Self, String)> {
        let index = self.index?;
        if self.attr == Attr::Hours && self.thing.kind == Kind::Place && rng.chance(0.5) {
            let aspect = match self.aspect {
                Aspect::Open => Aspect::Close,
                Aspect::Close if rng.chance(0.5) => Aspect::Open,
                _ => Aspect::Day(rng.below(7)),
            };
            let next = Self { aspect, ..self.clone() };
            let words = next.ask_again(rng, split)?;
            return Some((next, words));
        }
        if rng.chance(0.4) {
            let same: Vec<usize> = (0..venue.things.len()).filter(|i| *i != index && venue.things[*i].kind == self.thing.kind && venue.find(*i, self.attr).is_some()).collect();
            if !same.is_empty() {
                let other = *rng.pick(&same);
                let aspect = if self.thing.kind == Kind::Place { self.aspect } else { Aspect::Whole };
                let next = Self { thing: venue.things[other].clone(), index: Some(other), attr: self.attr, aspect };
                let words = next.ask_of_other(rng, split);
                return Some((next, words));
            }
        }
        for _ in 0..8 {
            let (attr, _) = *rng.pick(attrs(self.thing.kind));
            // A follow-up mostly asks for something that is there.
            if attr == self.attr || (venue.find(index, attr).is_none() && rng.chance(0.6)) || (self.thing.kind == Kind::Wifi && attr == Attr::Network && rng.chance(0.5)) {
                continue;
            }
            let next = Self { thing: self.thing.clone(), index: Some(index), attr, aspect: Aspect::Whole };
            let words = next.ask_again(rng, split)?;
            return Some((next, words));
        }
        None
    }
}

/// A question from elsewhere and the answer that it is not known.
pub fn elsewhere(rng: &mut Rng, split: Split) -> (String, Reply) {
    let text = *rng.pick(&["I'm sorry, I don't have that information. Would you like me to ask the staff?", "Sorry, I don't have that information, but I can ask the staff."]);
    (phrase(split, rng, ELSEWHERE).to_owned(), Reply { text: text.to_owned(), values: Vec::new() })
}

/// Whether an answer says that the desk does not know.
pub fn says_unknown(text: &str) -> bool {
    let low = text.to_lowercase();
    low.contains("don't have") && low.contains("information")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_contain_their_values_and_unknowns_say_so() {
        for seed in 0..2000 {
            let mut rng = Rng::new(seed);
            let split = if seed % 2 == 0 { Split::Train } else { Split::HeldOut };
            let venue = Venue::random(&mut rng, split, 6);
            let reply = Topic::known(&mut rng, &venue).answer(&mut rng, &venue);
            assert!(!reply.values.is_empty() && !says_unknown(&reply.text), "{reply:?}");
            assert!(reply.values.iter().all(|v| reply.text.to_lowercase().contains(&v.to_lowercase())), "{reply:?}");
            assert!(!reply.text.contains('{'), "{reply:?}");
            let topic = Topic::unknown(&mut rng, &venue);
            let reply = topic.answer(&mut rng, &venue);
            assert!(reply.values.is_empty() && says_unknown(&reply.text), "{reply:?}");
            assert!(!topic.ask(&mut rng, split).contains('{'));
        }
    }
}
