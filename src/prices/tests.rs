#![allow(clippy::unwrap_used)]

use nearfar_egress::preset;

use super::*;

fn usd(list: &str, model: &str) -> Option<(u64, u64, u64)> {
    let rates = Prices::shipped().find(list, model)?.rates;
    Some((
        rates.prompt_micro_per_mtok,
        rates.cached_prompt_micro_per_mtok,
        rates.completion_micro_per_mtok,
    ))
}

#[test]
fn the_shipped_table_reads_and_every_list_of_it_alone_says_the_same() {
    let lists = table::read(SHIPPED).unwrap();
    assert!(lists.len() >= 12 && lists.iter().all(|list| list.currency == SHIPPED_CURRENCY));
    for list in &lists {
        assert!(list.source.starts_with("https://"), "{}", list.name);
        assert!(preset(&list.name).is_some(), "no preset {}", list.name);
        let alone = table::read(table::slice(SHIPPED, &list.name).unwrap()).unwrap();
        assert_eq!(&alone, std::slice::from_ref(list), "{}", list.name);
        for line in &list.lines {
            let rates = line.price.rates;
            let name = &line.patterns[0];
            assert!(
                rates.cached_prompt_micro_per_mtok <= rates.prompt_micro_per_mtok,
                "{name}: a cached prompt is never dearer"
            );
            assert!(rates.prompt_micro_per_mtok > 0, "{name}");
            if let Some(long) = line.price.long {
                let dearer = long.rates.prompt_micro_per_mtok > rates.prompt_micro_per_mtok;
                assert!(dearer && long.above_prompt_tokens >= 100_000, "{name}");
            }
        }
    }
}

#[test]
fn no_name_stands_in_two_lines_of_a_list() {
    for list in table::read(SHIPPED).unwrap() {
        let mut names: Vec<&String> = list.lines.iter().flat_map(|line| &line.patterns).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{}", list.name);
    }
}

#[test]
fn models_are_found_by_their_names_and_by_the_closest_pattern() {
    assert_eq!(
        usd("openai", "gpt-4.1-mini"),
        Some((400_000, 100_000, 1_600_000))
    );
    assert_eq!(usd("openai", "gpt-4.1-mini-of-somebody"), None);
    let haiku = usd("anthropic", "claude-haiku-4-5-20251001");
    assert_eq!(haiku, Some((1_000_000, 100_000, 5_000_000)));
    // The region's surcharge against the global profile.
    let sonnet = "anthropic.claude-sonnet-4-5-20250929-v1:0";
    let at = |profile: &str| usd("bedrock", &format!("{profile}{sonnet}")).map(|price| price.0);
    assert_eq!(at("global."), Some(3_000_000));
    assert_eq!((at("eu."), at("")), (Some(3_300_000), Some(3_300_000)));
    assert_eq!(usd("openrouter", "anything"), None);
    assert_eq!(usd("\"", "anything"), None);
}

#[test]
fn writes_hours_and_long_prompts_have_their_prices() {
    let price = Prices::shipped()
        .find("anthropic", "claude-sonnet-4-5")
        .unwrap();
    assert_eq!(price.rates.cache_write_micro_per_mtok, 3_750_000);
    assert_eq!(price.rates.cache_write_hour_micro_per_mtok, 6_000_000);
    let long = price.long.unwrap();
    assert_eq!(long.above_prompt_tokens, 200_000);
    assert_eq!(long.rates.completion_micro_per_mtok, 22_500_000);
    let gemini = Prices::shipped().find("gemini", "gemini-2.5-pro").unwrap();
    assert_eq!(gemini.rates(200_001).prompt_micro_per_mtok, 2_500_000);
}

/// Every model that a preset lists for `auto` has a price, or none is known of
/// its provider at all.
#[test]
fn presets_find_their_prices() {
    let mut providers: Vec<Provider> = ["openai", "anthropic", "gemini", "groq"]
        .iter()
        .filter_map(|name| preset(name))
        .collect();
    Prices::shipped().fill(&mut providers);
    for provider in &providers {
        for model in &provider.models {
            assert!(model.price.is_some(), "{}/{}", provider.name, model.name);
        }
    }
}

const OWN: &str = r#"
[[list]]
name = "openai"
source = "our contract"
checked = "2026-01-31"
currency = "USD"
models = [
  { match = ["gpt-4.1-mini"], prompt = 0.3, completion = 1.2 },
  { match = ["ours-*"], prompt = 1, completion = 2, reasoning = 3, checked = "2026-02-01" },
]
"#;

#[test]
fn an_own_table_wins_and_what_it_does_not_say_is_the_shipped_one() {
    let prices = Prices::with_own(OWN).unwrap();
    let prompt = |model: &str| {
        prices
            .find("openai", model)
            .map(|p| p.rates.prompt_micro_per_mtok)
    };
    assert_eq!(prompt("gpt-4.1-mini"), Some(300_000));
    assert_eq!(prompt("gpt-4.1-nano"), Some(100_000));
    assert_eq!(prompt("ours-large"), Some(1_000_000));
    let other = Prices::with_own(&OWN.replace("USD", "EUR")).unwrap();
    assert_eq!(other.currency(), "EUR");
    assert_eq!(
        other.find("openai", "gpt-4.1-nano"),
        None,
        "no sums of two currencies"
    );
}

#[test]
fn what_is_wrong_with_a_table_is_told_with_its_place() {
    let wrong = |text: &str| Prices::with_own(text).unwrap_err().to_string();
    assert!(wrong("[[list]]\nnam = 1").starts_with("line 2, column 1: unknown field"));
    assert!(wrong(&OWN.replace("2026-01-31", "soon")).contains("no date"));
    assert!(wrong(&OWN.replace("0.3", "-1")).contains("gpt-4.1-mini"));
    assert!(wrong(&OWN.replace("ours-*", "o*s")).contains("`*` at their ends"));
    assert!(wrong(&OWN.replace("\"USD\"", "\"$\"")).contains("three capital letters"));
    let two = format!("{OWN}{}", OWN.replace("USD", "EUR"));
    assert!(wrong(&two).contains("one currency"));
}

#[test]
fn a_model_that_nobody_listed_is_looked_up_once_and_names_do_not_pile_up() {
    let providers = [preset("openai").unwrap()];
    let tariffs = Tariffs::new(Prices::shipped(), &providers);
    let o3 = tariffs.price("openai", "o3").unwrap();
    assert_eq!(o3.rates.prompt_micro_per_mtok, 2_000_000);
    assert_eq!(tariffs.price("openai", "o3"), Some(o3));
    assert_eq!(tariffs.price("nobody", "o3"), None);
    for number in 0..2 * MAX_REMEMBERED {
        tariffs.price("openai", &format!("made-up-{number}"));
    }
    assert!(tariffs.remembered.lock().unwrap().len() <= MAX_REMEMBERED);
}

#[test]
fn ages_are_counted_in_days() {
    let now = 1_769_860_800_000; // 2026-01-31T12:00Z
    assert_eq!(age_days("2026-01-31", now), Some(0));
    assert_eq!(age_days("2025-01-31", now), Some(365));
    assert_eq!(age_days("1970-01-01", 0), Some(0));
    assert_eq!(age_days("31.1.2026", now), None);
}
