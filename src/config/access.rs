//! `[access]` and `[tenants.NAME]`: who may ask, and what for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use nearfar_domain::privacy::Zone;
use nearfar_domain::scope::{Grant, Pattern};
use toml::Spanned;
use toml::de::DeValue;

use super::errors::Notes;
use super::low::zone;
use super::reader::{Section, as_section, as_text, shorten, wrong_type};

/// Who has to show a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether each request needs one; `None` where nobody said: then on
    /// addresses that other machines reach, and not on this device's own.
    pub require_key: Option<bool>,
}

impl Access {
    /// Whether requests over an address need a key; `None` is a unix socket.
    /// What other machines reach always does.
    pub fn requires_key(self, address: Option<IpAddr>) -> bool {
        let reached = address.is_some_and(|ip| !ip.is_loopback());
        reached || self.require_key.unwrap_or(false)
    }
}

/// Somebody who pays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tenant {
    /// What people call it.
    pub display_name: Option<String>,
    /// Its tier: a word of the owner's.
    pub tier: Option<String>,
    /// Targets and zones that it may use.
    pub grant: Grant,
    /// What its requests are accounted to where they do not say.
    pub feature: Option<String>,
    /// The farthest zone for its requests. Narrows what `[privacy]` allows.
    pub privacy: Option<Zone>,
}

/// What was typed under `[access]`.
#[derive(Debug, Default)]
pub(super) struct LowAccess {
    pub(super) access: Access,
    /// Where `require_key` stands.
    pub(super) require_key_at: Range<usize>,
}

const MAX_TENANTS: usize = 1_024;
const MAX_PATTERNS: usize = 64;
/// A tenant's name goes into the ledger, metrics and headers.
const MAX_NAME_BYTES: usize = 64;

/// Whether a text can be a tenant's name.
pub fn is_tenant_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.chars().all(fits)
}

pub(super) fn read(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> LowAccess {
    let low = LowAccess {
        access: Access {
            require_key: section.flag("require_key", notes),
        },
        require_key_at: section.key_span("require_key"),
    };
    section.finish(notes);
    low
}

pub(super) fn tenants(
    section: &Section<'_, '_>,
    notes: &mut Notes<'_>,
) -> BTreeMap<String, Tenant> {
    let mut tenants = BTreeMap::new();
    for (count, (name, span, value)) in section.entries().enumerate() {
        let path = section.key(&shorten(name));
        if count == MAX_TENANTS {
            let what = format!("there are more than {MAX_TENANTS} tenants");
            notes.at(span, "tenants", what, "leave some out");
            break;
        }
        if !is_tenant_name(name) {
            notes.at(
                span,
                &path,
                "this is not a tenant's name",
                "write 1 to 64 letters, digits, dots, dashes or underscores, like [tenants.acme]",
            );
            continue;
        }
        if let Some(section) = as_section(&path, value, span, notes) {
            tenants.insert(name.to_owned(), tenant(section, notes));
        }
    }
    tenants
}

fn tenant(mut section: Section<'_, '_>, notes: &mut Notes<'_>) -> Tenant {
    let word = |text: Option<Spanned<String>>| text.map(Spanned::into_inner);
    let privacy_key = section.key("privacy");
    let tenant = Tenant {
        display_name: word(section.text("name", notes)),
        tier: word(section.text("tier", notes)),
        feature: word(section.text("feature", notes)),
        privacy: section
            .text("privacy", notes)
            .and_then(|text| zone(&privacy_key, &text, notes)),
        grant: Grant {
            targets: list("targets", &mut section, notes, |key, text, notes| {
                let parsed = Pattern::parse(text.get_ref());
                if let Err(error) = &parsed {
                    let mend = error.to_string();
                    notes.at(text.span(), key, "this is no pattern of targets", mend);
                }
                parsed.ok()
            }),
            zones: list("zones", &mut section, notes, |key, text, notes| {
                zone(key, text, notes)
            }),
        },
    };
    section.finish(notes);
    tenant
}

/// A list of texts with a meaning. An empty one would allow nothing.
fn list<T>(
    name: &'static str,
    section: &mut Section<'_, '_>,
    notes: &mut Notes<'_>,
    mut read: impl FnMut(&str, &Spanned<String>, &mut Notes<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let value = section.take(name)?;
    let key = section.key(name);
    let mend = match name {
        "zones" => "write a list, like [\"device\", \"site\"], or leave it out to allow all",
        _ => "write a list, like [\"local/*\", \"openai/gpt-4o*\"], or leave it out to allow all",
    };
    let DeValue::Array(items) = value.get_ref() else {
        let what = wrong_type(&key, "a list of texts", value.get_ref());
        notes.at(value.span(), &key, what, mend);
        return None;
    };
    if items.is_empty() || items.len() > MAX_PATTERNS {
        let what = format!("`{key}` must have 1 to {MAX_PATTERNS} entries");
        notes.at(value.span(), &key, what, mend);
        return None;
    }
    let mut all = Vec::with_capacity(items.len());
    for item in items.iter() {
        if let Some(text) = as_text(&key, item, notes)
            && let Some(one) = read(&key, &text, notes)
        {
            all.push(one);
        }
    }
    Some(all)
}
