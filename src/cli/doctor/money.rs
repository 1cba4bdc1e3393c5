//! Whether what is configured has prices, and how old they are.

use super::Finding;
use crate::cli::prices::{OLD_DAYS, configured, now_ms, table};
use crate::config::Config;
use crate::prices::age_days;

const CHECK: &str = "prices";

/// Prices that were looked up long ago, and models without any.
pub(super) fn prices(config: &Config) -> Vec<Finding> {
    if config.providers.is_empty() {
        return Vec::new();
    }
    let prices = match table(config) {
        Ok(prices) => prices,
        Err(error) => {
            let mend = "mend the file that `prices` names, or leave the key out";
            return vec![Finding::fail(CHECK, error.to_string(), mend)];
        }
    };
    let models = configured(config, &prices);
    let now_ms = now_ms();
    let mut findings = Vec::new();
    let unknown: Vec<&str> = models
        .iter()
        .filter(|model| model.price.is_none())
        .map(|model| model.target.as_str())
        .collect();
    if !unknown.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "not known of {}: their cost counts as unknown",
                some(&unknown)
            ),
            "write price = { prompt = …, completion = … } beside the model",
        ));
    }
    let old: Vec<&str> = models
        .iter()
        .filter(|model| {
            let checked = model.checked.as_deref();
            let age = checked.and_then(|date| age_days(date, now_ms));
            age.is_some_and(|days| days > OLD_DAYS)
        })
        .map(|model| model.target.as_str())
        .collect();
    if !old.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            format!("looked up more than {OLD_DAYS} days ago: {}", some(&old)),
            "`nearfar prices` shows sources; write what changed into the configuration, or a \
             table of your own",
        ));
    }
    if findings.is_empty() && !models.is_empty() {
        let what = format!(
            "known of {} models, none older than {OLD_DAYS} days",
            models.len()
        );
        findings.push(Finding::ok(CHECK, what));
    }
    findings
}

/// A few names, and how many more.
fn some(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Overrides;

    #[test]
    fn models_without_a_price_are_told_and_a_configured_price_is_never_old() {
        let text = "[providers.lan]\nbase_url = \"http://127.0.0.1:1/v1\"\n\
             [[providers.lan.models]]\nname = \"a\"\n\
             [[providers.lan.models]]\nname = \"b\"\nprice = { prompt = 0, completion = 0 }\n";
        let config = Config::parse(text, None, &Overrides::default()).unwrap();
        let findings = prices(&config);
        assert_eq!(findings.len(), 1);
        assert!(
            findings[0].what.contains("not known of lan/a:"),
            "{}",
            findings[0].what
        );
        assert!(prices(&Config::parse("", None, &Overrides::default()).unwrap()).is_empty());
    }
}
