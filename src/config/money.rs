//! What the file says about money and names: prices, what savings are reckoned
//! by, aliases.

use std::collections::BTreeMap;

use nearfar_domain::ids::TargetId;
use nearfar_domain::price::{Long, Price, Rates};
use toml::Spanned;
use toml::de::DeValue;

use super::errors::Notes;
use super::reader::{Section, as_text, shorten, wrong_type};

/// Aliases that a file may have, and targets of one.
const MAX_ALIASES: usize = 256;
const MAX_TARGETS: usize = 32;
/// Names that mean something already.
const TAKEN: [&str; 3] = ["auto", "local", "remote"];

/// Own names for some targets each: a request that names one means these and no
/// others, and nearfar decides among them.
pub type Aliases = BTreeMap<String, Vec<TargetId>>;

/// A price in currency units per million tokens.
pub(super) fn price(section: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Price> {
    let mut table = section.section("price", notes)?;
    let rates = rates(&mut table, notes);
    let long = table.section("long", notes).and_then(|mut table| {
        let above = table.integer("above_prompt_tokens", 1, u64::from(u32::MAX), notes);
        let rates = self::rates(&mut table, notes);
        if !table
            .entries()
            .any(|(key, ..)| key == "above_prompt_tokens")
        {
            notes.absent(
                table.span.clone(),
                &table.path,
                "the price of long prompts needs `above_prompt_tokens`",
                "write long = { above_prompt_tokens = 200_000, prompt = 2.5, completion = 15 }",
            );
        }
        table.finish(notes);
        Some(Long {
            above_prompt_tokens: u32::try_from(above?).unwrap_or(u32::MAX),
            rates: rates?,
        })
    });
    table.finish(notes);
    rates.map(|rates| Price { rates, long })
}

/// Currency units per million tokens, into micro-units.
fn rates(table: &mut Section<'_, '_>, notes: &mut Notes<'_>) -> Option<Rates> {
    let mut units = |name| table.number(name, 1e6, notes);
    let prompt = units("prompt");
    let cached = units("cached_prompt");
    let write = units("cache_write");
    let hour = units("cache_write_hour");
    let completion = units("completion");
    let reasoning = units("reasoning");
    let said = ["prompt", "completion"].map(|name| table.entries().any(|(key, ..)| key == name));
    if said != [true, true] {
        notes.absent(
            table.span.clone(),
            &table.path,
            "a price needs `prompt` and `completion`",
            "write price = { prompt = 0.15, completion = 0.60 }, in currency units per million \
             tokens, or leave the price out",
        );
    }
    let micro = |units: f64| (units * 1e6).round() as u64;
    let (prompt, completion) = (micro(prompt?), micro(completion?));
    let write = write.map_or(prompt, micro);
    Some(Rates {
        prompt_micro_per_mtok: prompt,
        cached_prompt_micro_per_mtok: cached.map_or(prompt, micro),
        cache_write_micro_per_mtok: write,
        cache_write_hour_micro_per_mtok: hour.map_or(write.max(prompt), micro),
        completion_micro_per_mtok: completion,
        reasoning_micro_per_mtok: reasoning.map_or(completion, micro),
    })
}

/// A target's whole name.
pub(super) fn target(key: &str, text: &Spanned<String>, notes: &mut Notes<'_>) -> Option<TargetId> {
    let found = TargetId::parse(text.get_ref());
    if found.is_none() {
        notes.at(
            text.span(),
            key,
            format!("`{}` is not a target's whole name", shorten(text.get_ref())),
            "write it with its place, like \"local/concierge\" or \"openai/gpt-4.1-mini\"",
        );
    }
    found
}

/// `[aliases]`: a name and one target or a list of them.
pub(super) fn aliases(section: &Section<'_, '_>, notes: &mut Notes<'_>) -> Aliases {
    let mut aliases = Aliases::new();
    for (count, (name, span, value)) in section.entries().enumerate() {
        let key = section.key(&shorten(name));
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-:".contains(c);
        let wrong = if count == MAX_ALIASES {
            Some((
                format!("there are more than {MAX_ALIASES} aliases"),
                "leave some out",
            ))
        } else if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
            Some((
                "an alias must have 1 to 64 of a-z, A-Z, 0-9, `.`, `_`, `-` and `:`".to_owned(),
                "rename it, like fast = [\"local/concierge\"]",
            ))
        } else if TAKEN.contains(&name) {
            Some((
                format!("the name `{name}` has a meaning already"),
                "give the alias another name",
            ))
        } else {
            None
        };
        if let Some((what, mend)) = wrong {
            notes.at(span, &key, what, mend);
            if count == MAX_ALIASES {
                break;
            }
            continue;
        }
        let items = match value.get_ref() {
            DeValue::String(_) => std::slice::from_ref(value),
            DeValue::Array(items) if (1..=MAX_TARGETS).contains(&items.len()) => &items[..],
            other => {
                notes.at(
                    value.span(),
                    &key,
                    wrong_type(&key, "a list of targets", other),
                    format!("write 1 to {MAX_TARGETS} targets, like [\"local/concierge\"]"),
                );
                continue;
            }
        };
        let mut targets: Vec<TargetId> = Vec::with_capacity(items.len());
        for item in items {
            let text = as_text(&key, item, notes);
            let found = text.and_then(|text| target(&key, &text, notes));
            if let Some(found) = found
                && !targets.contains(&found)
            {
                targets.push(found);
            }
        }
        aliases.insert(name.to_owned(), targets);
    }
    aliases
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use crate::config::{Config, Overrides};

    fn config(text: &str) -> Config {
        let path = Path::new("/etc/nearfar/nearfar.toml");
        Config::parse(text, Some(path), &Overrides::default()).unwrap()
    }

    #[test]
    fn prices_aliases_and_the_baseline_are_read() {
        let read = config(
            "prices = \"own.toml\"\nsavings_baseline = \"openai/gpt-4.1-mini\"\n\
             [aliases]\nfast = [\"local/concierge\", \"openai/a/b\"]\none = \"local/concierge\"\n\
             [local]\nprice = { prompt = 0.01, completion = 0.2, long = { above_prompt_tokens = 1000, \
             prompt = 0.02, completion = 0.3 } }\n",
        );
        assert_eq!(read.prices.unwrap(), Path::new("/etc/nearfar/own.toml"));
        assert_eq!(read.savings_baseline.unwrap().model(), "gpt-4.1-mini");
        let names: Vec<String> = read.aliases["fast"]
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["local/concierge", "openai/a/b"]);
        assert_eq!(read.aliases["one"].len(), 1);
        let price = read.local.price;
        assert_eq!(price.rates.reasoning_micro_per_mtok, 200_000);
        assert_eq!(price.rates(1_001).prompt_micro_per_mtok, 20_000);
        assert_eq!(price.rates(1_000).prompt_micro_per_mtok, 10_000);
        assert_eq!(config("").local.price, nearfar_domain::price::Price::FREE);
    }

    #[test]
    fn what_is_wrong_with_aliases_and_prices_has_its_place() {
        for (text, place, says) in [
            ("savings_baseline = \"gpt\"", "1:20", "whole name"),
            (
                "[aliases]\nauto = \"local/a\"",
                "2:1",
                "has a meaning already",
            ),
            ("[aliases]\n\"a b\" = \"local/a\"", "2:1", "1 to 64"),
            ("[aliases]\nfast = []", "2:8", "list of targets"),
            ("[aliases]\nfast = [\"a\"]", "2:9", "whole name"),
            (
                "[local]\nprice = { prompt = 1 }",
                "2:1",
                "needs `prompt` and `completion`",
            ),
            (
                "[local]\nprice = { prompt = 1, completion = 1, long = { prompt = 1, completion = 1 } }",
                "2:39",
                "above_prompt_tokens",
            ),
        ] {
            let told = Config::parse(text, None, &Overrides::default())
                .unwrap_err()
                .errors;
            let found = told.iter().find(|error| {
                let text = format!("{}{}{}", error.key, error.what, error.mend);
                text.contains(says)
            });
            let found = found.unwrap_or_else(|| panic!("{text}: {told:?}"));
            assert_eq!(format!("{}:{}", found.line, found.column), place, "{text}");
        }
    }
}
