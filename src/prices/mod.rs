//! What providers charge: the table that ships with nearfar, and an owner's own.
//!
//! The shipped table stays text until somebody asks, and then one provider's
//! list of it is read; what stays in memory are the prices of the models that
//! are configured or were named. Whoever knows a price better writes it into the
//! configuration, which wins over both tables.

mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nearfar_domain::price::Price;
use nearfar_egress::Provider;

pub use table::{Line, List, TableError, age_days};

const SHIPPED: &str = include_str!("prices.toml");
/// The currency of the shipped table.
const SHIPPED_CURRENCY: &str = "USD";
/// Names whose price is remembered. Clients make names up.
const MAX_REMEMBERED: usize = 256;

/// An owner's table over the shipped one.
#[derive(Debug, Default)]
pub struct Prices {
    own: Vec<List>,
}

impl Prices {
    /// The shipped table alone.
    pub fn shipped() -> Prices {
        Prices::default()
    }

    /// The owner's table over the shipped one. Costs are added up, so all prices
    /// are in one currency: one in another currency than the shipped table's
    /// stands alone.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn with_own(text: &str) -> Result<Prices, TableError> {
        let own = table::read(text)?;
        Ok(Prices { own })
    }

    /// The currency of every price.
    pub fn currency(&self) -> &str {
        self.own
            .first()
            .map_or(SHIPPED_CURRENCY, |list| &list.currency)
    }

    /// What a model costs by the list of this name; `None` where it is not known.
    pub fn find(&self, list: &str, model: &str) -> Option<Price> {
        let own = self.own.iter().filter(|own| own.name == list);
        own.filter_map(|own| own.find(model))
            .next()
            .map(|line| line.price)
            .or_else(|| self.shipped_list(list)?.find(model).map(|line| line.price))
    }

    /// A list with its lines: the owner's where there is one of this name.
    pub fn list(&self, name: &str) -> Option<List> {
        let own = self.own.iter().find(|own| own.name == name);
        own.cloned().or_else(|| self.shipped_list(name))
    }

    /// Every list: the owner's, then the shipped ones.
    pub fn lists(&self) -> Vec<List> {
        let mut lists = self.own.clone();
        if self.currency() == SHIPPED_CURRENCY {
            // The table is part of the binary, and a test reads it.
            lists.extend(table::read(SHIPPED).unwrap_or_default());
        }
        lists
    }

    fn shipped_list(&self, name: &str) -> Option<List> {
        if self.currency() != SHIPPED_CURRENCY {
            return None;
        }
        let text = table::slice(SHIPPED, name)?;
        table::read(text).ok()?.pop()
    }

    /// Gives every configured model without a price the one that is known.
    pub fn fill(&self, providers: &mut [Provider]) {
        for provider in providers {
            let name = list_of(provider).to_owned();
            let open = |model: &&mut nearfar_domain::frames::ModelCard| model.price.is_none();
            let mut models = provider.models.iter_mut().filter(open).peekable();
            if models.peek().is_none() {
                continue;
            }
            let (own, shipped) = (
                self.own.iter().find(|own| own.name == name),
                self.shipped_list(&name),
            );
            for model in models {
                let lists = own.iter().copied().chain(&shipped);
                model.price = lists
                    .filter_map(|list| list.find(&model.name))
                    .next()
                    .map(|line| line.price);
            }
        }
    }
}

/// The list that a provider's models are looked up in: that of its preset. What
/// runs elsewhere under a preset's name has no list.
pub fn list_of(provider: &Provider) -> &str {
    match provider.preset.as_deref().unwrap_or_default() {
        // The same models at the same prices.
        "azure" => "openai",
        "vertex" => "gemini",
        name => name,
    }
}

/// What the gate asks for models that nobody listed.
#[derive(Debug, Default)]
pub struct Tariffs {
    prices: Prices,
    /// Provider to list.
    lists: HashMap<String, String>,
    remembered: Mutex<HashMap<String, Option<Price>>>,
}

impl Tariffs {
    /// For these providers.
    pub fn new(prices: Prices, providers: &[Provider]) -> Self {
        let named = |provider: &Provider| (provider.name.clone(), list_of(provider).to_owned());
        Self {
            prices,
            lists: providers
                .iter()
                .map(named)
                .filter(|(_, list)| !list.is_empty())
                .collect(),
            remembered: Mutex::default(),
        }
    }

    /// What a provider's model costs; `None` where it is not known.
    pub fn price(&self, provider: &str, model: &str) -> Option<Price> {
        let list = self.lists.get(provider)?;
        let key = format!("{list}/{model}");
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = remembered.get(&key) {
            return *known;
        }
        let found = self.prices.find(list, model);
        if remembered.len() == MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(key, found);
        found
    }
}

/// A larger file is no table of prices.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// An owner's table, read from its file and found to be in order.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn text_of(path: &Path) -> Result<String, TableError> {
    let told = |what: &dyn std::fmt::Display| TableError::at(path, what);
    let file = std::fs::File::open(path).map_err(|error| told(&error))?;
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    if read.map_err(|error| told(&error))? as u64 > MAX_FILE_BYTES {
        return Err(told(&"the file is larger than 1 MiB"));
    }
    Prices::with_own(&text).map_err(|error| told(&error))?;
    Ok(text)
}

/// The owner's table, as its text came from the supervisor, which has read it;
/// empty where there is none.
pub fn handed(text: &str) -> Prices {
    Prices::with_own(text).unwrap_or_default()
}
