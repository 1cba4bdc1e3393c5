//! Writes a venue's facts as a system prompt, in the many ways that people write them.

use crate::phrasing::{Attr, bank};
use crate::rng::Rng;
use crate::values::{at, cap};
use crate::venue::{Fact, Venue, fill, spoken, written};

/// Prefaces that name the venue.
const PREFACE: &[&str] = &[
    "You are the front desk assistant of {}.", "You are the concierge of {}.", "You work at the reception of {}.", "You are the voice assistant of {}.", "Front desk of {}.",
    "You are a helpful receptionist at {}.", "{}", "Venue: {}", "You are the digital concierge for {}. Be brief.", "This is {}.", "Welcome desk, {}.", "You answer guests of {}.",
    "You are the assistant at {}. Answer in one short sentence.", "Name: {}", "# {}", "You help visitors of {}.", "Act as the receptionist of {}.",
];
/// Prefaces without the venue's name.
const BARE: &[&str] = &[
    "You are the front desk assistant.", "You are a concierge.", "You are a helpful assistant.", "You are a voice assistant at the front desk.", "Answer the guest's questions.", "Reception.",
];
/// Instructions.
const RULES: &[&str] = &[
    "Answer only from these facts.", "Use only the facts below. If you do not know, say so.", "If something is not listed, say that you don't know.", "Answer briefly and truthfully.",
    "Answer from the facts. Never make things up.", "Be friendly and short.", "Facts:", "Here is what you know:", "Information for guests:", "House information:", "Use this information:",
    "Only use what is written here.", "Keep answers to one sentence.", "Known facts:",
];

/// How the body is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Bullets,
    Lines,
    Prose,
    Mixed,
    OneLine,
    Grouped,
    Sections,
}

/// The system prompt for a venue; `named` tells whether it carries the venue's name.
pub fn system(rng: &mut Rng, venue: &Venue, named: bool) -> String {
    let layout = *rng.pick(&[
        Layout::Bullets, Layout::Bullets, Layout::Lines, Layout::Lines, Layout::Prose, Layout::Prose, Layout::Prose, Layout::Mixed, Layout::OneLine, Layout::Grouped, Layout::Grouped, Layout::Sections,
    ]);
    let body = facts(rng, venue, layout);
    let mut head: Vec<String> = Vec::new();
    if named {
        head.push(rng.pick(PREFACE).replace("{}", &venue.name));
    } else if rng.chance(0.6) {
        head.push((*rng.pick(BARE)).to_owned());
    }
    if rng.chance(0.5) {
        head.push((*rng.pick(RULES)).to_owned());
    }
    let glue = *rng.pick(&[" ", "\n"]);
    let head = head.join(glue);
    match (head.is_empty(), rng.below(8)) {
        (true, _) => body,
        (_, 0) => format!("{body}\n{head}"),
        (_, 1) => format!("{head}\n\n{body}"),
        (_, 2) if layout == Layout::Prose || layout == Layout::OneLine => format!("{head} {body}"),
        _ => format!("{head}\n{body}"),
    }
}

fn facts(rng: &mut Rng, venue: &Venue, layout: Layout) -> String {
    let names: Vec<&str> = venue.things.iter().map(|t| if rng.chance(0.75) { t.names[0] } else { *rng.pick(&t.names) }).collect();
    let style = rng.below(30);
    let mut order: Vec<&Fact> = venue.facts.iter().collect();
    // Mostly the facts of one thing stay together, as people write them.
    if rng.chance(0.6) {
        let mut things: Vec<usize> = (0..venue.things.len()).collect();
        rng.shuffle(&mut things);
        order.sort_by_key(|f| things[f.thing]);
    } else {
        rng.shuffle(&mut order);
    }
    let line = |rng: &mut Rng, f: &Fact| {
        let thing = &venue.things[f.thing];
        let template = rng.pick(bank(f.attr, thing.kind).lines);
        fill(template, thing, names[f.thing], Some(f), &written(&f.slots, style))
    };
    match layout {
        Layout::Bullets => {
            let mark = *rng.pick(&["- ", "* ", "• ", "- "]);
            order.iter().map(|f| format!("{mark}{}", line(rng, f))).collect::<Vec<_>>().join("\n")
        }
        Layout::Lines => order.iter().map(|f| line(rng, f)).collect::<Vec<_>>().join("\n"),
        Layout::OneLine => {
            let glue = *rng.pick(&["; ", ". ", ", ", " | "]);
            order.iter().map(|f| line(rng, f)).collect::<Vec<_>>().join(glue) + "."
        }
        Layout::Prose => prose(rng, venue, &order, &names),
        Layout::Mixed => {
            let cut = order.len() / 2;
            let lines: Vec<String> = order[cut..].iter().map(|f| format!("- {}", line(rng, f))).collect();
            format!("{}\n{}", prose(rng, venue, &order[..cut], &names), lines.join("\n")).trim().to_owned()
        }
        Layout::Grouped => grouped(rng, venue, &names, style),
        Layout::Sections => sections(rng, venue, &order, &names, style),
    }
}

fn prose(rng: &mut Rng, venue: &Venue, order: &[&Fact], names: &[&str]) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut last = usize::MAX;
    for f in order {
        let thing = &venue.things[f.thing];
        let mut template = (*rng.pick(bank(f.attr, thing.kind).prose)).to_owned();
        if f.thing == last && template.starts_with("{E} ") && rng.chance(0.6) {
            template = template.replacen("{E}", if thing.plural { "They" } else { "It" }, 1);
        }
        last = f.thing;
        out.push(cap(&fill(&template, thing, names[f.thing], Some(f), &spoken(&f.slots))));
    }
    out.join(" ")
}

/// A short form for a list of facts about one thing.
fn fragment(f: &Fact, style: usize) -> String {
    let v = &f.value;
    let unit = if f.extra.is_empty() { String::new() } else { format!(" {}", f.extra) };
    match f.attr {
        Attr::Hours => format!("{}{}", if style.is_multiple_of(2) { "open " } else { "" }, written(&f.slots, style)),
        Attr::Price if style.is_multiple_of(4) => format!("costs {v}{unit}"),
        Attr::Price => format!("{v}{unit}"),
        Attr::Location if style.is_multiple_of(3) => at(v),
        Attr::Phone => format!("{} {v}", ["phone", "tel", "call"][style % 3]),
        Attr::Host => format!("{} {v}", ["led by", "with", "run by"][style % 3]),
        Attr::Capacity => format!("{} {v}{}", ["seats", "up to", "max"][style % 3], ["", " people", " people"][style % 3]),
        Attr::Age => format!("{} {v}", ["minimum age", "from age"][style % 2]),
        Attr::Deposit => format!("deposit {v}"),
        Attr::Network => format!("{} {v}", ["network", "name", "SSID"][style % 3]),
        Attr::Password => format!("password {v}"),
        Attr::Email => format!("email {v}"),
        Attr::Address => format!("address {v}"),
        Attr::Website => format!("website {v}"),
        Attr::Time if !f.extra.is_empty() => format!("{} {v}", f.extra),
        _ => v.clone(),
    }
}

fn grouped(rng: &mut Rng, venue: &Venue, names: &[&str], style: usize) -> String {
    let mark = *rng.pick(&["- ", "", "* "]);
    let mut lines: Vec<String> = Vec::new();
    for (i, thing) in venue.things.iter().enumerate() {
        let parts: Vec<String> = venue.facts.iter().filter(|f| f.thing == i).map(|f| fragment(f, style)).collect();
        if !parts.is_empty() {
            let _ = thing;
            lines.push(format!("{mark}{}: {}", cap(names[i]), parts.join(", ")));
        }
    }
    rng.shuffle(&mut lines);
    lines.join("\n")
}

fn sections(rng: &mut Rng, venue: &Venue, order: &[&Fact], names: &[&str], style: usize) -> String {
    let section = |a: Attr| match a {
        Attr::Hours | Attr::Time => "Times",
        Attr::Price | Attr::Deposit => "Prices",
        Attr::Location | Attr::Distance | Attr::Address => "Where things are",
        Attr::Name | Attr::Host | Attr::Phone | Attr::Email | Attr::Website => "People and contact",
        Attr::Rule | Attr::Age | Attr::Limit | Attr::Capacity => "Rules",
        _ => "Useful to know",
    };
    let mark = *rng.pick(&["## ", "", "**", "# "]);
    let mut out: Vec<String> = Vec::new();
    for title in ["Times", "Prices", "Where things are", "People and contact", "Rules", "Useful to know"] {
        let lines: Vec<String> = order
            .iter()
            .filter(|f| section(f.attr) == title)
            .map(|f| {
                let thing = &venue.things[f.thing];
                let template = rng.pick(bank(f.attr, thing.kind).lines);
                format!("- {}", fill(template, thing, names[f.thing], Some(f), &written(&f.slots, style)))
            })
            .collect();
        if !lines.is_empty() {
            let close = if mark == "**" { "**" } else { "" };
            out.push(format!("{mark}{title}{close}\n{}", lines.join("\n")));
        }
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::Split;

    #[test]
    fn every_value_stands_in_the_prompt() {
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let venue = Venue::random(&mut rng, Split::Train, 10);
            let text = system(&mut rng, &venue, true);
            for f in &venue.facts {
                assert!(text.contains(&f.value), "{:?} is missing in {text}", f);
                for (_, range) in &f.slots {
                    assert!(range.as_ref().is_none_or(|(a, b)| text.contains(a) && text.contains(b)), "{f:?} in {text}");
                }
            }
        }
    }
}
