//! One venue: its name and its facts.

use crate::entities::{Entity, Kind, all, venue};
use crate::phrasing::{Attr, bank};
use crate::rng::Rng;
use crate::split::{Split, owns};
use crate::values::{self, Clock, Money, at, cap};

/// The days a schedule slot covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Days {
    /// Every day.
    Daily,
    /// Monday to Friday.
    Weekdays,
    /// Saturday and Sunday.
    Weekend,
    /// One day, Monday is 0.
    One(usize),
}

/// The days of the week.
pub const WEEK: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Opening times for some days; `None` is closed.
pub type Slot = (Days, Option<(String, String)>);

/// One fact.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Index into [`Venue::things`].
    pub thing: usize,
    /// What it tells.
    pub attr: Attr,
    /// The value as written; empty for schedules.
    pub value: String,
    /// A unit (`per night`) or a day (`Tuesday`), possibly empty.
    pub extra: String,
    /// The schedule of an [`Attr::Hours`] fact.
    pub slots: Vec<Slot>,
}

/// A venue with its things and the facts about them.
#[derive(Debug, Clone)]
pub struct Venue {
    /// Its name.
    pub name: String,
    /// What it is, as a noun.
    pub noun: &'static str,
    /// The things it has facts about.
    pub things: Vec<Entity>,
    /// The facts, in no order.
    pub facts: Vec<Fact>,
}

/// The attributes a kind of thing can have, with the probability of each; the first is the usual one.
pub fn attrs(kind: Kind) -> &'static [(Attr, f64)] {
    match kind {
        Kind::Place => &[(Attr::Hours, 0.75), (Attr::Location, 0.45), (Attr::Price, 0.2), (Attr::Phone, 0.12), (Attr::Host, 0.1), (Attr::Capacity, 0.1), (Attr::Age, 0.1)],
        Kind::Meal => &[(Attr::Hours, 0.85), (Attr::Price, 0.25), (Attr::Location, 0.3)],
        Kind::Item => &[(Attr::Price, 0.9), (Attr::Deposit, 0.15), (Attr::Location, 0.2)],
        Kind::Event => &[(Attr::Time, 0.85), (Attr::Location, 0.4), (Attr::Price, 0.25), (Attr::Host, 0.3)],
        Kind::Role => &[(Attr::Name, 0.85), (Attr::Phone, 0.3), (Attr::Location, 0.2)],
        Kind::Moment => &[(Attr::Time, 1.0)],
        Kind::Policy => &[(Attr::Rule, 1.0)],
        Kind::Wifi => &[(Attr::Password, 0.85), (Attr::Network, 0.75)],
        Kind::Nearby => &[(Attr::Distance, 1.0)],
        Kind::Code => &[(Attr::Code, 1.0)],
        Kind::Venue => &[(Attr::Address, 0.5), (Attr::Phone, 0.5), (Attr::Email, 0.3), (Attr::Website, 0.3)],
        Kind::Title => &[(Attr::Title, 1.0)],
        Kind::Limit => &[(Attr::Limit, 1.0)],
    }
}

fn kind_weighted(rng: &mut Rng) -> Kind {
    *rng.pick(&[
        Kind::Place, Kind::Place, Kind::Place, Kind::Place, Kind::Place, Kind::Meal, Kind::Meal, Kind::Item, Kind::Item, Kind::Item, Kind::Event, Kind::Event,
        Kind::Role, Kind::Role, Kind::Moment, Kind::Moment, Kind::Policy, Kind::Policy, Kind::Nearby, Kind::Nearby, Kind::Code, Kind::Title, Kind::Limit,
        Kind::Wifi, Kind::Wifi, Kind::Wifi, Kind::Venue, Kind::Venue,
    ])
}

fn schedule(rng: &mut Rng, split: Split, clock: Clock, kind: Kind, name: &str) -> Vec<Slot> {
    let (open, close) = match (kind, name) {
        (Kind::Meal, "breakfast") => ((6, 8), (9, 12)),
        (Kind::Meal, "lunch" | "brunch" | "the lunch buffet") => ((11, 13), (13, 16)),
        (Kind::Meal, _) => ((15, 19), (19, 24)),
        _ => ((5, 12), (14, 24)),
    };
    let mut range = |rng: &mut Rng| Some(clock.range(rng, split, open, close));
    match rng.below(10) {
        0 | 1 => vec![(Days::Weekdays, range(rng)), (Days::Weekend, range(rng))],
        2 => vec![(Days::Weekdays, range(rng)), (Days::One(5), range(rng)), (Days::One(6), if rng.chance(0.5) { None } else { range(rng) })],
        3 => vec![(Days::Daily, range(rng)), (Days::One(rng.below(7)), None)],
        _ => vec![(Days::Daily, range(rng))],
    }
}

impl Venue {
    /// A venue with about `size` facts.
    pub fn random(rng: &mut Rng, split: Split, size: usize) -> Self {
        let noun = *rng.pick(values::KINDS);
        let mut it = Self { name: values::venue_name(rng, split, noun), noun, things: Vec::new(), facts: Vec::new() };
        let (clock, money, pool) = (Clock::any(rng), Money::any(rng), all());
        while it.facts.len() < size {
            let kind = kind_weighted(rng);
            let thing = if kind == Kind::Venue { venue(noun) } else { it.absent(rng, &pool, kind) };
            if it.things.iter().any(|t| t.clashes(&thing)) {
                continue;
            }
            let index = it.things.len();
            let mut any = false;
            for (attr, p) in attrs(kind) {
                if rng.chance(*p) && it.facts.len() < size + 1 {
                    any = true;
                    let fact = it.fact(rng, split, (clock, money), index, &thing, *attr);
                    it.facts.push(fact);
                }
            }
            if any {
                it.things.push(thing);
            }
        }
        it
    }

    /// Some thing of a kind, from the pool; may clash.
    fn absent(&self, rng: &mut Rng, pool: &[Entity], kind: Kind) -> Entity {
        let same: Vec<&Entity> = pool.iter().filter(|e| e.kind == kind).collect();
        (*rng.pick(&same)).clone()
    }

    /// A thing that this venue has no fact about.
    pub fn stranger(&self, rng: &mut Rng) -> Entity {
        let pool = all();
        loop {
            let kind = kind_weighted(rng);
            let thing = if kind == Kind::Venue { venue(self.noun) } else { self.absent(rng, &pool, kind) };
            if !self.things.iter().any(|t| t.clashes(&thing)) {
                return thing;
            }
        }
    }

    fn fact(&self, rng: &mut Rng, split: Split, (clock, money): (Clock, Money), thing: usize, entity: &Entity, attr: Attr) -> Fact {
        let mut extra = String::new();
        let mut slots = Vec::new();
        let value = match attr {
            Attr::Hours => {
                slots = schedule(rng, split, clock, entity.kind, entity.names[0]);
                String::new()
            }
            Attr::Price => {
                if rng.chance(0.4) {
                    extra = (*rng.pick(&["per night", "per person", "per hour", "per day", "each", "per week"])).to_owned();
                }
                let high = *rng.pick(&[9, 30, 99, 400]);
                if rng.chance(0.08) { extra.clear(); "free".to_owned() } else { money.amount(rng, split, 1, high) }
            }
            Attr::Deposit => money.amount(rng, split, 5, 200),
            Attr::Location => values::place(rng, split),
            Attr::Phone => values::phone(rng, split),
            Attr::Host | Attr::Name => values::person(rng, split),
            Attr::Capacity => crate::split::draw(split, rng, |rng| if rng.chance(0.5) { rng.range(4, 60).to_string() } else { (rng.range(2, 60) * 10).to_string() }),
            Attr::Age => rng.range(3, 21).to_string(),
            Attr::Time => {
                if entity.kind == Kind::Event && rng.chance(0.5) {
                    extra = (*rng.pick(&["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "every day", "tomorrow", "today"])).to_owned();
                }
                clock.between(rng, split, 6, 23)
            }
            Attr::Rule => self.rule(rng, split, money),
            Attr::Network => values::network(rng, split),
            Attr::Password => values::password(rng, split),
            Attr::Distance => values::distance(rng, split),
            Attr::Code => values::code(rng, split),
            Attr::Address => values::address(rng, split),
            Attr::Email => values::online(rng, split, true),
            Attr::Website => values::online(rng, split, false),
            Attr::Title => {
                let dish = ["dish", "soup", "dessert", "vegan"].iter().any(|w| entity.names[0].contains(w));
                values::title(rng, split, dish)
            }
            Attr::Limit => values::duration(rng, split),
        };
        Fact { thing, attr, value, extra, slots }
    }

    fn rule(&self, rng: &mut Rng, split: Split, money: Money) -> String {
        match rng.below(10) {
            0..=2 => "allowed".to_owned(),
            3..=5 => "not allowed".to_owned(),
            6 => (*rng.pick(&["welcome", "forbidden", "not permitted", "strictly forbidden", "permitted"])).to_owned(),
            7 => format!("only allowed {}", at(&values::place(rng, split))),
            8 => format!("allowed for {} per {}", money.amount(rng, split, 3, 40), rng.pick(&["night", "day", "stay"])),
            _ => format!("{} {}", rng.pick(&["allowed until", "not allowed after", "allowed after"]), Clock::any(rng).between(rng, split, 8, 23)),
        }
    }

    /// The fact about a thing, if the venue has one.
    pub fn find(&self, thing: usize, attr: Attr) -> Option<&Fact> {
        self.facts.iter().find(|f| f.thing == thing && f.attr == attr)
    }
}

/// How a schedule is written in a `key: value` line; `style` varies the notation.
pub fn written(slots: &[Slot], style: usize) -> String {
    let days = |d: Days| match (d, style % 3) {
        (Days::Daily, _) => String::new(),
        (Days::Weekdays, 0) => "Mon-Fri ".to_owned(),
        (Days::Weekdays, 1) => "Monday to Friday ".to_owned(),
        (Days::Weekdays, _) => "weekdays ".to_owned(),
        (Days::Weekend, 0) => "Sat-Sun ".to_owned(),
        (Days::Weekend, 1) => "Saturday and Sunday ".to_owned(),
        (Days::Weekend, _) => "weekends ".to_owned(),
        (Days::One(n), 0) => format!("{} ", &WEEK[n][..3]),
        (Days::One(n), _) => format!("{} ", WEEK[n]),
    };
    let parts: Vec<String> = slots
        .iter()
        .map(|(d, range)| match range {
            Some((a, b)) => {
                let glue = ["-", " to ", " - ", "-", "–", " until "][style % 6];
                format!("{}{a}{glue}{b}", days(*d))
            }
            None if style.is_multiple_of(2) => format!("closed on {}s", days(*d).trim()),
            None => format!("{}closed", days(*d)),
        })
        .collect();
    let daily = slots.len() == 1 && style % 5 == 4;
    if daily { format!("daily {}", parts.join(", ")) } else { parts.join(", ") }
}

/// How a schedule is spoken.
pub fn spoken(slots: &[Slot]) -> String {
    let parts: Vec<String> = slots
        .iter()
        .map(|(d, range)| {
            let day = match d {
                Days::Daily => String::new(),
                Days::Weekdays => " on weekdays".to_owned(),
                Days::Weekend => " on weekends".to_owned(),
                Days::One(n) => format!(" on {}", WEEK[*n]),
            };
            range.as_ref().map_or_else(|| format!("closed{day}"), |(a, b)| format!("from {a} to {b}{day}"))
        })
        .collect();
    match parts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => parts.concat(),
    }
}

/// The opening times on one day (Monday is 0); `None` is closed.
pub fn on_day(slots: &[Slot], day: usize) -> Option<&(String, String)> {
    let covers = |d: Days| match d {
        Days::Daily => 1,
        Days::Weekdays if day < 5 => 2,
        Days::Weekend if day >= 5 => 2,
        Days::One(n) if n == day => 3,
        _ => 0,
    };
    slots.iter().filter(|(d, _)| covers(*d) > 0).max_by_key(|(d, _)| covers(*d)).and_then(|(_, r)| r.as_ref())
}

/// Fills a phrasing's marks for a thing called `name`; see `phrasing`.
pub fn fill(template: &str, entity: &Entity, name: &str, fact: Option<&Fact>, schedule: &str) -> String {
    if !template.contains('{') {
        return template.to_owned();
    }
    let with = entity.with_article(name);
    let plural = entity.plural;
    let (value, extra) = fact.map_or(("", ""), |f| (f.value.as_str(), f.extra.as_str()));
    let unit = if extra.is_empty() { String::new() } else { format!(" {extra}") };
    let when = match extra {
        "" => format!("at {value}"),
        "every day" | "tomorrow" | "today" => format!("{extra} at {value}"),
        day => format!("on {day} at {value}"),
    };
    template
        .replace("{e}", &with)
        .replace("{E}", &cap(&with))
        .replace("{n}", name)
        .replace("{N}", &cap(name))
        .replace("{is}", if plural { "are" } else { "is" })
        .replace("{do}", if plural { "do" } else { "does" })
        .replace("{s}", if plural { "" } else { "s" })
        .replace("{at}", &at(value))
        .replace("{when}", &when)
        .replace("{r}", schedule)
        .replace("{u}", &unit)
        .replace("{v}", value)
}

/// The topic of a question, for the answer that it is not known.
pub fn topic(entity: &Entity, name: &str, attr: Attr) -> String {
    fill(bank(attr, entity.kind).topic, entity, name, None, "")
}

/// Whether a fixed text may serve this side; venue names are split like every other value.
pub fn name_is_on(split: Split, venue: &Venue) -> bool {
    owns(split, &venue.name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn range(a: &str, b: &str) -> Option<(String, String)> {
        Some((a.to_owned(), b.to_owned()))
    }

    #[test]
    fn a_single_day_beats_the_general_rule() {
        let slots = vec![(Days::Daily, range("7:00", "21:00")), (Days::One(0), None)];
        assert!(on_day(&slots, 0).is_none());
        assert_eq!(on_day(&slots, 3).unwrap().0, "7:00");
        assert_eq!(spoken(&slots), "from 7:00 to 21:00 and closed on Monday");
    }

    #[test]
    fn weekends_are_found() {
        let slots = vec![(Days::Weekdays, range("7:00", "21:00")), (Days::Weekend, range("9:00", "18:00"))];
        assert_eq!(on_day(&slots, 6).unwrap().1, "18:00");
        assert_eq!(written(&slots, 0), "Mon-Fri 7:00-21:00, Sat-Sun 9:00-18:00");
    }

    #[test]
    fn held_out_venues_have_held_out_names_and_prices() {
        let mut rng = Rng::new(5);
        for _ in 0..20 {
            let venue = Venue::random(&mut rng, Split::HeldOut, 8);
            assert!(name_is_on(Split::HeldOut, &venue) && !name_is_on(Split::Train, &venue));
            assert!(venue.facts.iter().filter(|f| f.attr == Attr::Password).all(|f| owns(Split::HeldOut, &f.value)));
        }
    }
}
