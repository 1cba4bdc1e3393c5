//! `nearfar cache`: what is kept, and forgetting it.

use std::path::Path;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

use super::client::{Client, block_on};
use super::failed::Failed;
use super::style;
use crate::config::units;

/// `cache`.
#[derive(Debug, Args)]
#[command(
    about = "Answers that are kept, and forgetting them",
    long_about = "Answers that are kept: how many, whose, and what they saved. Settings are in \
        [cache] of the configuration; answers lie in the daemon's memory alone.",
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
        nearfar cache\n  \
        nearfar cache --json | jq .hit_rate\n  \
        nearfar cache clear\n  \
        nearfar cache clear --tenant acme\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub struct Cache {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    /// What to do with them.
    #[command(subcommand)]
    pub command: Option<CacheCommand>,
}

/// `cache …`.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Forget kept answers: all, or one tenant's
    #[command(after_help = "Examples:\n  \
        nearfar cache clear\n  \
        nearfar cache clear --tenant acme --json\n\n\
        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
    Clear {
        /// Only this tenant's
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the verb.
///
/// # Errors
/// No daemon.
pub(super) fn run(args: Cache, state_dir: &Path) -> Result<(), Failed> {
    let client = Client::control(state_dir);
    let path = "/admin/v1/cache";
    let text = match args.command {
        None => {
            let stats = block_on(client.get(path))?;
            if args.json {
                format!("{stats}\n")
            } else {
                render(&stats)
            }
        }
        Some(CacheCommand::Clear { tenant, json }) => {
            let path = match &tenant {
                None => path.to_owned(),
                Some(tenant) => format!("{path}?tenant={}", encoded(tenant)),
            };
            let removed = block_on(async {
                let reply = client.open(Method::DELETE, &path, &[], None).await?;
                reply.json().await
            })?;
            if json {
                format!("{removed}\n")
            } else {
                format!("{} answers forgotten\n", removed["removed"])
            }
        }
    };
    Ok(style::print(&text)?)
}

/// For a query: everything but plain letters and digits as bytes in hex.
fn encoded(text: &str) -> String {
    let bytes = text.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    bytes.collect()
}

/// The figures for people.
fn render(stats: &Value) -> String {
    let count = |name: &str| stats[name].as_u64().unwrap_or(0);
    if stats["exact"] == false && stats["semantic"].is_null() {
        return "the cache is off; see [cache] in `nearfar config example`\n".to_owned();
    }
    let rate = match stats["hit_rate"].as_f64() {
        Some(rate) => format!(" ({:.0} % of those that were looked for)", rate * 100.0),
        None => String::new(),
    };
    let size = |name: &str| units::show_size(count(name));
    let mut text = format!(
        "served    {} the same, {} that mean the same{rate}\n\
         made anew {}, not looked for {}\n\
         kept      {} of {} answers, {} of {}; {} made room, {} grew too old\n\
         saved     {} (as far as prices are known)\n",
        count("hits"),
        count("semantic_hits"),
        count("misses"),
        count("bypassed"),
        count("entries"),
        count("max_entries"),
        size("bytes"),
        size("max_bytes"),
        count("evicted"),
        count("expired"),
        style::money(count("saved_micro")),
    );
    let tenants = stats["tenants"].as_array().map(Vec::as_slice);
    let rows: Vec<Vec<String>> = tenants
        .unwrap_or_default()
        .iter()
        .map(|share| {
            vec![
                style::safe(share["tenant"].as_str().unwrap_or("-")),
                share["entries"].to_string(),
                units::show_size(share["bytes"].as_u64().unwrap_or(0)),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&style::table(&["TENANT", "ANSWERS", "SIZE"], rows, &[1, 2]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_for_people() {
        let mut stats = json!({
            "exact": true, "semantic": null, "hits": 3, "semantic_hits": 1, "misses": 4,
            "bypassed": 2, "hit_rate": 0.5, "entries": 4, "max_entries": 100, "bytes": 2048,
            "max_bytes": 8_388_608, "evicted": 1, "expired": 0, "saved_micro": 1_500_000,
            "tenants": [{"tenant": "acme\u{1b}", "entries": 4, "bytes": 2048}],
        });
        let shown = render(&stats);
        for part in [
            "3 the same, 1 that",
            "50 %",
            "2.0 KiB of 8.0 MiB",
            "1.5",
            "acme",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        assert!(!shown.contains('\u{1b}'));
        stats["exact"] = json!(false);
        assert!(render(&stats).contains("is off"));
    }

    #[test]
    fn names_are_encoded() {
        assert_eq!(encoded("a b&c/é"), "a%20b%26c%2F%C3%A9");
    }
}
