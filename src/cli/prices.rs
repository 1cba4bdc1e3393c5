//! `nearfar prices`: what models cost, where that stands and how old it is.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use nearfar_domain::price::{Price, Rates};
use serde_json::{Value, json};

use super::args::Prices as Args;
use super::failed::Failed;
use super::style;
use crate::config::{Config, Overrides, paths};
use crate::prices::{self, Line, List, Prices};

/// Prices that were looked up longer ago than this are told of.
pub(super) const OLD_DAYS: i64 = 180;

/// Runs the verb. Needs no daemon.
///
/// # Errors
/// The configuration or the own table cannot be read.
pub(super) fn run(args: &Args) -> Result<(), Failed> {
    let path = args.config.clone().or_else(paths::found_config);
    let config = read_config(path.as_deref())?;
    let prices = table(&config)?;
    let own = configured(&config, &prices);
    let lists: Vec<List> = match &args.provider {
        None => prices.lists(),
        Some(name) => {
            let known = config
                .providers
                .iter()
                .find(|provider| provider.name == *name);
            let name = known.map_or(name.as_str(), prices::list_of);
            let found = prices.list(name);
            if found.is_none() && own.is_empty() {
                return Err(Failed::new(format!(
                    "There is no list of prices for {}.",
                    style::safe(name)
                ))
                .mend("`nearfar prices` without a name shows all."));
            }
            found.into_iter().collect()
        }
    };
    let now_ms = now_ms();
    let text = if args.json {
        format!("{}\n", as_json(&lists, &own, prices.currency(), now_ms))
    } else {
        render(&lists, &own, prices.currency(), now_ms)
    };
    Ok(style::print(&text)?)
}

pub(super) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}

fn read_config(path: Option<&Path>) -> Result<Config, Failed> {
    let text = match path {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| Failed::new(format!("{} cannot be read: {error}.", path.display())))?,
    };
    Config::parse(&text, path, &Overrides::default()).map_err(|errors| {
        Failed::new(errors.to_string()).mend("`nearfar config check` tells more.")
    })
}

/// The tables that hold for a configuration.
pub(super) fn table(config: &Config) -> Result<Prices, Failed> {
    let Some(path) = &config.prices else {
        return Ok(Prices::shipped());
    };
    let text = prices::text_of(path).map_err(|error| Failed::new(format!("{error}.")))?;
    Ok(prices::handed(&text))
}

/// A configured model and its price, which the file said or a table.
pub(super) struct Configured {
    pub(super) target: String,
    pub(super) price: Option<Price>,
    /// When it was looked up; `None` where the configuration says it.
    pub(super) checked: Option<String>,
}

/// Every configured model.
pub(super) fn configured(config: &Config, prices: &Prices) -> Vec<Configured> {
    let mut all = Vec::new();
    for provider in &config.providers {
        let list = prices.list(prices::list_of(provider));
        for model in &provider.models {
            let line = list.as_ref().and_then(|list| list.find(&model.name));
            let said = model.price.is_some();
            all.push(Configured {
                target: format!("{}/{}", provider.name, model.name),
                price: model.price.or(line.map(|line| line.price)),
                checked: line.filter(|_| !said).map(|line| line.checked.clone()),
            });
        }
    }
    all
}

fn as_json(lists: &[List], own: &[Configured], currency: &str, now_ms: i64) -> Value {
    let line = |line: &Line| {
        json!({
            "match": line.patterns,
            "price": line.price,
            "checked": line.checked,
            "age_days": prices::age_days(&line.checked, now_ms),
        })
    };
    let lists: Vec<Value> = lists
        .iter()
        .map(|list| {
            json!({
                "name": list.name,
                "source": list.source,
                "checked": list.checked,
                "age_days": prices::age_days(&list.checked, now_ms),
                "currency": list.currency,
                "models": list.lines.iter().map(line).collect::<Vec<_>>(),
            })
        })
        .collect();
    let configured: Vec<Value> = own
        .iter()
        .map(|own| {
            json!({
                "target": own.target,
                "price": own.price,
                "from": match (&own.price, &own.checked) {
                    (None, _) => None,
                    (Some(_), None) => Some("configuration"),
                    (Some(_), Some(_)) => Some("table"),
                },
                "checked": own.checked,
            })
        })
        .collect();
    json!({"currency": currency, "configured": configured, "lists": lists})
}

const HEADING: [&str; 8] = [
    "MODEL",
    "PROMPT",
    "CACHED",
    "WRITE",
    "WRITE 1H",
    "COMPLETION",
    "REASONING",
    "CHECKED",
];

fn render(lists: &[List], own: &[Configured], currency: &str, now_ms: i64) -> String {
    let mut shown = format!("{currency} per million tokens\n");
    if !own.is_empty() {
        let rows = own.iter().flat_map(|own| {
            let checked = own.checked.as_deref().unwrap_or(match own.price {
                Some(_) => "configured",
                None => "",
            });
            rows(&own.target, own.price.as_ref(), checked)
        });
        shown.push_str("\nconfigured models\n");
        shown.push_str(&style::table(&HEADING, rows.collect(), &[1, 2, 3, 4, 5, 6]));
    }
    for list in lists {
        let age = prices::age_days(&list.checked, now_ms).unwrap_or(0);
        shown.push_str(&format!(
            "\n{}  {} ({age} days ago, {})\n",
            style::safe(&list.name),
            style::safe(&list.source),
            style::safe(&list.checked)
        ));
        let rows = list.lines.iter().flat_map(|line| {
            let more = line.patterns.len() - 1;
            let first = &line.patterns[0];
            let name = match more {
                0 => first.clone(),
                more => format!("{first} +{more}"),
            };
            rows(&name, Some(&line.price), &line.checked)
        });
        shown.push_str(&style::table(&HEADING, rows.collect(), &[1, 2, 3, 4, 5, 6]));
    }
    shown
}

/// A model's line, and one more for its long prompts.
fn rows(name: &str, price: Option<&Price>, checked: &str) -> Vec<Vec<String>> {
    let row = |name: String, rates: Option<&Rates>, checked: &str| {
        let cells = rates.map(|rates| {
            [
                rates.prompt_micro_per_mtok,
                rates.cached_prompt_micro_per_mtok,
                rates.cache_write_micro_per_mtok,
                rates.cache_write_hour_micro_per_mtok,
                rates.completion_micro_per_mtok,
                rates.reasoning_micro_per_mtok,
            ]
        });
        let mut row = vec![name];
        row.extend((0..6).map(|at| cells.map_or_else(|| "unknown".to_owned(), |c| units(c[at]))));
        row.push(checked.to_owned());
        row
    };
    let mut rows = vec![row(
        name.to_owned(),
        price.map(|price| &price.rates),
        checked,
    )];
    if let Some(long) = price.and_then(|price| price.long.as_ref()) {
        let name = format!("  above {} tokens", long.above_prompt_tokens);
        rows.push(row(name, Some(&long.rates), ""));
    }
    rows
}

/// Micro-units as units, without zeros at the end: `0.075`.
fn units(micro: u64) -> String {
    let text = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
    let text = text.trim_end_matches('0');
    text.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prices_are_shown_with_source_and_age() {
        let list = Prices::shipped().list("anthropic").unwrap();
        let shown = render(&[list], &[], "USD", 1_785_283_200_000 + 86_400_000 * 100);
        assert!(
            shown.contains("https://www.anthropic.com/pricing#api (100 days ago,"),
            "{shown}"
        );
        let line = shown
            .lines()
            .find(|line| line.starts_with("claude-sonnet-4-5*"))
            .unwrap();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            cells[cells.len() - 7..],
            ["3", "0.3", "3.75", "6", "15", "15", "2026-07-29"]
        );
        assert!(shown.contains("  above 200000 tokens"), "{shown}");
    }

    #[test]
    fn a_configured_price_wins_and_an_unknown_one_is_unknown() {
        let text = "[providers.openai]\nkey_env = \"K\"\n\
             [[providers.openai.models]]\nname = \"gpt-4.1\"\n\
             price = { prompt = 1, completion = 2 }\n\
             [[providers.openai.models]]\nname = \"gpt-4.1-mini\"\n\
             [[providers.openai.models]]\nname = \"nobody-knows\"\n";
        let config = Config::parse(text, None, &Overrides::default()).unwrap();
        let own = configured(&config, &Prices::shipped());
        let shown = as_json(&[], &own, "USD", 0);
        let at = |place: usize| &shown["configured"][place];
        assert_eq!(at(0)["from"], "configuration");
        assert_eq!(at(0)["price"]["rates"]["prompt_micro_per_mtok"], 1_000_000);
        assert_eq!(at(1)["from"], "table");
        assert_eq!(at(2)["price"], Value::Null);
        let table = render(&[], &own, "USD", 0);
        assert!(table.contains("openai/nobody-knows  unknown"), "{table}");
    }

    #[test]
    fn units_lose_no_digit() {
        assert_eq!(units(75_000), "0.075");
        assert_eq!(units(3_000_000), "3");
        assert_eq!(units(3_625), "0.003625");
        assert_eq!(units(0), "0");
    }
}
