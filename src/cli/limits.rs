//! `nearfar limits`: what limits allow, and what is left of them.

use std::path::Path;

use serde_json::Value;

use super::args::Limits;
use super::client::{Client, block_on};
use super::failed::Failed;
use super::style;

/// Runs the verb.
///
/// # Errors
/// No daemon.
pub fn run(args: &Limits, state_dir: &Path) -> Result<(), Failed> {
    let client = Client::control(state_dir);
    let answer = block_on(client.get("/admin/v1/limits"))?;
    let text = if args.json {
        format!("{answer}\n")
    } else {
        render(&answer)
    };
    Ok(style::print(&text)?)
}

/// The limits for people.
pub fn render(answer: &Value) -> String {
    let limits = answer["limits"].as_array().map(Vec::as_slice);
    let limits = limits.unwrap_or_default();
    if limits.is_empty() {
        return "no limits are configured, or none was used yet; see [[limit]] in `nearfar config \
                example`\n"
            .to_owned();
    }
    let heading = [
        "LIMIT",
        "OF",
        "COUNTS",
        "ALLOWED",
        "USED",
        "ESTIMATED",
        "RESERVED",
        "LEFT",
        "SOFT FROM",
        "RESETS",
    ];
    let rows = limits.iter().map(row).collect();
    style::table(&heading, rows, &[3, 4, 5, 6, 7, 8])
}

fn row(limit: &Value) -> Vec<String> {
    let text = |name: &str| limit[name].as_str().unwrap_or("-").to_owned();
    let measure = text("measure");
    let money = measure.starts_with("spend_micro");
    let figure = |name: &str| match limit[name].as_u64() {
        Some(figure) if money => style::money(figure),
        Some(figure) => figure.to_string(),
        None => "-".to_owned(),
    };
    let parts = limit["of"].as_object().into_iter().flatten();
    let own: Vec<String> = parts
        .map(|(part, name)| format!("{part} {}", name.as_str().unwrap_or_default()))
        .collect();
    let of = if own.is_empty() {
        text("applies_to")
    } else {
        own.join(", ")
    };
    let counts = measure.replace("spend_micro", "money").replace('_', " ");
    vec![
        text("limit"),
        of,
        counts,
        figure("most"),
        figure("used"),
        figure("estimated"),
        figure("reserved"),
        figure("left"),
        figure("soft"),
        text("resets_at"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn money_is_shown_in_units_and_whose_it_is() {
        let answer = json!({"limits": [
            {"limit": "shop", "applies_to": "each tenant", "measure": "spend_micro_per_day",
             "of": {"tenant": "acme"}, "most": 5_000_000, "used": 1_200_000, "estimated": 0,
             "reserved": 30_000, "left": 3_770_000, "soft": 4_000_000,
             "resets_in_ms": 10, "resets_at": "2026-11-25T00:00:00Z"},
            {"limit": "all", "applies_to": "everything", "measure": "concurrent_requests",
             "of": {}, "most": 4, "used": 0, "estimated": 0, "reserved": 1, "left": 3,
             "soft": null, "resets_in_ms": 0, "resets_at": null}
        ]});
        let shown = render(&answer);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines[1].starts_with("shop   tenant acme  money per day"),
            "{shown}"
        );
        assert!(
            lines[1].contains("5.000000") && lines[1].contains("3.770000"),
            "{shown}"
        );
        assert!(lines[2].contains("everything") && lines[2].contains("concurrent requests"));
        assert!(render(&json!({"limits": []})).contains("[[limit]]"));
    }
}
