//! Random values for facts: names, times, prices, passwords, places …
//!
//! Only surface text; what a value belongs to is `venue`'s business.

use crate::rng::Rng;
use crate::split::{Split, draw};

const FIRST: &[&str] = &[
    "Marta", "Jonas", "Aisha", "Pedro", "Linh", "Noah", "Greta", "Omar", "Sofia", "Yuki", "Ivan", "Clara", "Tariq",
    "Elena", "Mateo", "Ingrid", "Kofi", "Priya", "Lucas", "Hanna", "Diego", "Fatima", "Oscar", "Mei", "Anton", "Rosa",
    "Samir", "Julia", "Victor", "Nadia", "Felix", "Amara", "Bruno", "Olga", "Henry", "Leila", "Theo", "Zoe", "Ravi",
    "Emma", "Milan", "Carmen", "Erik", "Dalia", "Simon", "Vera", "Hugo", "Ada", "Peter", "Maria", "John", "Anna",
    "Tom", "Laura", "Paul", "Sarah", "David", "Nina", "Marc", "Lena", "Ben", "Lisa", "Max", "Eva", "Karl", "Ines",
];
const LAST: &[&str] = &[
    "Kowalski", "Berger", "Tanaka", "Silva", "Novak", "Okafor", "Lindgren", "Moreau", "Rossi", "Nguyen", "Haddad",
    "Fischer", "Petrov", "Santos", "Jensen", "Weber", "Kim", "Costa", "Larsen", "Mehta", "Ortega", "Keller", "Dubois",
    "Hansen", "Romano", "Yilmaz", "Popescu", "Schmidt", "Garcia", "Brown", "Walsh", "Murphy", "Singh", "Chen", "Ali",
    "Baker", "Wagner", "Martin", "Lopez", "Kaya", "Horvat", "Nielsen", "Bianchi", "Sato", "Park", "Reyes", "Meyer",
    "Cohen", "Dvorak", "Laine", "Virtanen", "Osei", "Ferrari", "Brandt", "Huber", "Adams", "Clark", "Evans", "Hughes",
];
const WORDS: &[&str] = &[
    "bell", "harbour", "maple", "north", "river", "sun", "garden", "stone", "silver", "lake", "pine", "cedar", "moon",
    "rose", "amber", "falcon", "willow", "coral", "meadow", "summit", "violet", "ocean", "birch", "golden", "iron",
    "ivory", "juniper", "lantern", "mill", "orchard", "palm", "quartz", "raven", "saffron", "tulip", "velvet", "west",
    "zephyr", "alpine", "bay", "castle", "delta", "ember", "forest", "granite", "hazel", "island", "jade", "king",
    "lily", "marble", "olive", "pearl", "queen", "ridge", "sierra", "tower", "union", "valley", "winter", "copper",
    "crystal", "dune", "echo", "fern", "glacier", "heron", "indigo", "jasmine", "kestrel", "lotus", "mango", "nova",
    "opal", "panda", "rocket", "salmon", "tiger", "umbra", "vista", "walnut", "yellow", "zebra", "apple", "brook",
];
const STREETS: &[&str] = &["Street", "Road", "Avenue", "Lane", "Square", "Way", "Drive", "Boulevard", "Quay", "Alley"];

/// Upper-cases the first letter.
pub fn cap(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().collect::<String>() + chars.as_str()).unwrap_or_default()
}

/// How one venue writes times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// `7:30`, `19:00`
    Plain24,
    /// `07:30`
    Padded24,
    /// `7:30 am`, `7 pm`
    AmPm,
    /// `7:30am`, `7pm`
    AmPmTight,
    /// `7.30`, `19.00`
    Dotted,
}

impl Clock {
    /// A clock with the frequencies of written venue information.
    pub fn any(rng: &mut Rng) -> Self {
        *rng.pick(&[Self::Plain24, Self::Plain24, Self::Padded24, Self::Padded24, Self::AmPm, Self::AmPm, Self::AmPmTight, Self::Dotted])
    }

    /// Writes a time of day given in minutes.
    pub fn write(self, minutes: usize) -> String {
        let (h, m) = (minutes / 60 % 24, minutes % 60);
        let (h12, half) = ((h + 11) % 12 + 1, if h < 12 { "am" } else { "pm" });
        match self {
            Self::Plain24 => format!("{h}:{m:02}"),
            Self::Padded24 => format!("{h:02}:{m:02}"),
            Self::Dotted => format!("{h}.{m:02}"),
            Self::AmPm if m == 0 => format!("{h12} {half}"),
            Self::AmPm => format!("{h12}:{m:02} {half}"),
            Self::AmPmTight if m == 0 => format!("{h12}{half}"),
            Self::AmPmTight => format!("{h12}:{m:02}{half}"),
        }
    }

    /// A time between two hours, mostly on the half hour.
    pub fn between(self, rng: &mut Rng, split: Split, lo: usize, hi: usize) -> String {
        draw(split, rng, |rng| {
            let step = *rng.pick(&[60, 30, 30, 15, 5]);
            let minutes = lo * 60 + rng.range(0, (hi - lo) * 60 / step) * step;
            self.write(minutes)
        })
    }

    /// An opening and a closing time.
    pub fn range(self, rng: &mut Rng, split: Split, open: (usize, usize), close: (usize, usize)) -> (String, String) {
        loop {
            let mut at = |(lo, hi): (usize, usize)| {
                let step = *rng.pick(&[60, 30, 30, 15]);
                self.write(lo * 60 + rng.range(0, (hi - lo) * 60 / step) * step)
            };
            let (a, b) = (at(open), at(close));
            if a != b && crate::split::owns(split, &format!("{a}-{b}")) {
                return (a, b);
            }
        }
    }
}

/// A first and a last name, sometimes with a title or the first name alone.
pub fn person(rng: &mut Rng, split: Split) -> String {
    draw(split, rng, |rng| {
        let (first, last) = (*rng.pick(FIRST), *rng.pick(LAST));
        match rng.below(10) {
            0 => format!("Mr. {last}"),
            1 => format!("Ms. {last}"),
            2 => format!("Dr. {last}"),
            3 => format!("Dr. {first} {last}"),
            _ => format!("{first} {last}"),
        }
    })
}

/// A family name alone, as given for a booking.
pub fn surname(rng: &mut Rng, split: Split) -> String {
    draw(split, rng, |rng| if rng.chance(0.6) { (*rng.pick(LAST)).to_owned() } else { format!("{} {}", rng.pick(FIRST), rng.pick(LAST)) })
}

/// How one venue writes money.
#[derive(Debug, Clone, Copy)]
pub struct Money(usize);

impl Money {
    /// A currency and its notation.
    pub fn any(rng: &mut Rng) -> Self {
        Self(rng.below(14))
    }

    /// An amount with its currency, roughly `lo..=hi` in euros.
    pub fn amount(self, rng: &mut Rng, split: Split, lo: usize, hi: usize) -> String {
        draw(split, rng, |rng| {
            let whole = rng.range(lo, hi);
            let cents = if rng.chance(0.3) { *rng.pick(&[".50", ".90", ".20", ".75", ".99", ".80"]) } else { "" };
            let n = format!("{whole}{cents}");
            match self.0 {
                0 | 1 => format!("{n} EUR"),
                2 | 3 => format!("€{n}"),
                4 => format!("{n} euros"),
                5 | 6 => format!("${n}"),
                7 => format!("{n} dollars"),
                8 => format!("£{n}"),
                9 => format!("CHF {n}"),
                10 => format!("{n} €"),
                11 => format!("{} yen", whole * 100),
                12 => format!("{} kr", whole * 10),
                _ => format!("{n} USD"),
            }
        })
    }
}

/// A Wi-Fi network name.
pub fn network(rng: &mut Rng, split: Split) -> String {
    draw(split, rng, |rng| {
        let (a, b) = (*rng.pick(WORDS), *rng.pick(WORDS));
        let tail = *rng.pick(&["Guest", "Guests", "WiFi", "Free", "Lobby", "5G", "Net", "Public"]);
        match rng.below(6) {
            0 => format!("{}{}", cap(a), tail),
            1 => format!("{}-{}", cap(a), tail),
            2 => format!("{}_{}", cap(a), tail.to_lowercase()),
            3 => format!("{} {}", cap(a), tail),
            4 => format!("{}{}{}", cap(a), cap(b), rng.range(1, 99)),
            _ => format!("{a}-{b}"),
        }
    })
}

/// A password: words with digits, or random characters.
pub fn password(rng: &mut Rng, split: Split) -> String {
    draw(split, rng, |rng| {
        let (a, b) = (*rng.pick(WORDS), *rng.pick(WORDS));
        match rng.below(7) {
            0 => format!("{a}{}", rng.range(10, 9999)),
            1 => format!("{a}-{b}-{}", rng.range(1, 99)),
            2 => format!("{}{}!", cap(a), rng.range(100, 9999)),
            3 => format!("{a}{b}"),
            4 => (0..rng.range(6, 8)).map(|_| char::from(b'0' + rng.below(10) as u8)).collect(),
            5 => format!("{}{}{}", cap(a), cap(b), rng.range(1, 999)),
            _ => (0..rng.range(6, 10))
                .map(|_| char::from(*rng.pick(b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789")))
                .collect(),
        }
    })
}

/// A phone number or an extension.
pub fn phone(rng: &mut Rng, split: Split) -> String {
    draw(split, rng, |rng| {
        let mut group = |n: usize| (0..n).map(|_| char::from(b'0' + rng.below(10) as u8)).collect::<String>();
        let (a, b, c, d) = (group(2), group(3), group(2), group(2));
        match rng.below(7) {
            0 => format!("+41 {a} {b} {c} {d}"),
            1 => format!("+49 {b} {c}{d}{a}"),
            2 => format!("555-{c}{d}"),
            3 => format!("0{a} {b} {c}{d}"),
            4 => format!("extension {b}"),
            5 => format!("ext. {a}"),
            _ => format!("+44 {c}{a} {b}{d}"),
        }
    })
}

/// A door, gate or locker code.
pub fn code(rng: &mut Rng, split: Split) -> String {
    draw(split, rng, |rng| {
        let digits: String = (0..rng.range(4, 6)).map(|_| char::from(b'0' + rng.below(10) as u8)).collect();
        match rng.below(4) {
            0 => format!("{digits}#"),
            1 => format!("{}{digits}", char::from(b'A' + rng.below(6) as u8)),
            _ => digits,
        }
    })
}

/// A place inside a building, written without its preposition (see [`at`]).
pub fn place(rng: &mut Rng, split: Split) -> String {
    const NEAR: &[&str] = &[
        "the lift", "the lobby", "reception", "the main entrance", "the stairs", "the bar", "the garden", "the car park",
        "the east exit", "the fountain", "the vending machines", "gate 4", "the elevators", "the courtyard", "the terrace",
    ];
    const ORDINAL: &[&str] = &["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "top", "ground", "ninth", "tenth"];
    const WING: &[&str] = &["east wing", "west wing", "north wing", "south wing", "basement", "main hall", "lobby", "annex", "garden house", "courtyard", "atrium", "old tower"];
    draw(split, rng, |rng| match rng.below(10) {
        0 | 1 => format!("{} floor", rng.pick(ORDINAL)),
        2 | 3 => format!("floor {}", rng.range(1, 24)),
        4 => format!("room {}", rng.range(1, 420)),
        5 => format!("level {}", rng.range(1, 9)),
        6 => format!("building {}", char::from(b'A' + rng.below(8) as u8)),
        7 => (*rng.pick(WING)).to_owned(),
        8 => format!("{} {}", rng.pick(&["next to", "behind", "opposite", "across from", "near", "to the left of"]), rng.pick(NEAR)),
        _ => format!("{} floor, {} {}", rng.pick(ORDINAL), rng.pick(&["next to", "behind", "opposite", "near"]), rng.pick(NEAR)),
    })
}

/// The place with the preposition it needs: `floor 3` gives `on floor 3`.
pub fn at(place: &str) -> String {
    let first = place.split(' ').next().unwrap_or("");
    let prep = match first {
        "floor" | "level" => "on ",
        "room" | "building" => "in ",
        "next" | "behind" | "opposite" | "across" | "near" | "to" => "",
        _ if place.contains(" floor") => "on the ",
        _ => "in the ",
    };
    format!("{prep}{place}")
}

/// A postal address.
pub fn address(rng: &mut Rng, split: Split) -> String {
    draw(split, rng, |rng| {
        let (word, street, n) = (cap(rng.pick(WORDS)), *rng.pick(STREETS), rng.range(1, 240));
        if rng.chance(0.3) { format!("{n} {word} {street}, {}ton", cap(rng.pick(WORDS))) } else { format!("{n} {word} {street}") }
    })
}

/// A mail address or a web site, from two words.
pub fn online(rng: &mut Rng, split: Split, mail: bool) -> String {
    draw(split, rng, |rng| {
        let (a, b) = (*rng.pick(WORDS), *rng.pick(WORDS));
        let end = *rng.pick(&["com", "org", "net", "example", "eu"]);
        if mail {
            format!("{}@{a}{b}.{end}", rng.pick(&["hello", "info", "desk", "booking", "contact", "office"]))
        } else {
            format!("{}{a}{b}.{end}", rng.pick(&["www.", "", ""]))
        }
    })
}

/// How far away something is.
pub fn distance(rng: &mut Rng, split: Split) -> String {
    draw(split, rng, |rng| match rng.below(7) {
        0 => format!("{} m", rng.range(1, 19) * 50),
        1 => format!("{} meters", rng.range(2, 40) * 25),
        2 => format!("{}.{} km", rng.range(0, 9), rng.range(1, 9)),
        3 => format!("{} km", rng.range(1, 40)),
        4 => format!("{} minutes by {}", rng.range(3, 50), rng.pick(&["bus", "car", "taxi", "tram", "train"])),
        5 => format!("{} miles", rng.range(1, 20)),
        _ => format!("{} minutes on foot", rng.range(2, 30)),
    })
}

/// A length of time, for limits.
pub fn duration(rng: &mut Rng, split: Split) -> String {
    draw(split, rng, |rng| match rng.below(4) {
        0 => format!("{} minutes", rng.range(2, 24) * 5),
        1 => format!("{} hours", rng.range(2, 72)),
        2 => format!("{} days", rng.range(2, 60)),
        _ => format!("{} weeks", rng.range(2, 12)),
    })
}

/// A title or a dish: two or three words.
pub fn title(rng: &mut Rng, split: Split, dish: bool) -> String {
    const BASE: &[&str] = &["soup", "risotto", "curry", "salad", "stew", "pasta", "pie", "tart", "burger", "noodles", "tacos", "gratin", "sandwich", "omelette", "dumplings"];
    const FOOD: &[&str] = &["pumpkin", "mushroom", "lentil", "salmon", "chicken", "tomato", "leek", "beef", "tofu", "spinach", "lemon", "potato", "carrot", "pepper", "prawn", "bean", "cheese", "apple", "onion", "trout"];
    draw(split, rng, |rng| {
        if dish {
            format!("{} {}", rng.pick(FOOD), rng.pick(BASE))
        } else {
            match rng.below(3) {
                0 => format!("{} {}", cap(rng.pick(WORDS)), cap(rng.pick(WORDS))),
                1 => format!("The {} {}", cap(rng.pick(WORDS)), cap(rng.pick(WORDS))),
                _ => format!("{} of {}", cap(rng.pick(WORDS)), cap(rng.pick(WORDS))),
            }
        }
    })
}

/// The kinds of venue, as a noun.
pub const KINDS: &[&str] = &[
    "hotel", "clinic", "gym", "museum", "library", "co-working space", "restaurant", "campsite", "airport lounge", "spa",
    "hostel", "guest house", "theatre", "office building", "dental practice", "school", "aquarium", "ski lodge", "marina",
    "conference centre", "shopping mall", "hospital", "swimming pool", "retirement home", "cinema", "university campus",
];

/// A venue's name for its kind.
pub fn venue_name(rng: &mut Rng, split: Split, kind: &str) -> String {
    draw(split, rng, |rng| {
        let (a, b) = (cap(rng.pick(WORDS)), cap(rng.pick(WORDS)));
        let noun = kind.split(' ').map(cap).collect::<Vec<_>>().join(" ");
        match rng.below(7) {
            0 => format!("{noun} {a}"),
            1 => format!("{a} {noun}"),
            2 => format!("the {a} {noun}"),
            3 => format!("{a} {b} {noun}"),
            4 => format!("{noun} {}", rng.pick(LAST)),
            5 => format!("{a} & {b}"),
            _ => format!("{}'s {noun}", rng.pick(FIRST)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_write_noon_and_midnight() {
        assert_eq!(Clock::AmPm.write(0), "12 am");
        assert_eq!(Clock::AmPm.write(12 * 60 + 30), "12:30 pm");
        assert_eq!(Clock::Padded24.write(7 * 60 + 5), "07:05");
        assert_eq!(Clock::Plain24.write(24 * 60), "0:00");
    }

    #[test]
    fn places_get_their_preposition() {
        assert_eq!(at("floor 3"), "on floor 3");
        assert_eq!(at("second floor, near the bar"), "on the second floor, near the bar");
        assert_eq!(at("room 12"), "in room 12");
        assert_eq!(at("behind reception"), "behind reception");
        assert_eq!(at("east wing"), "in the east wing");
    }
}
