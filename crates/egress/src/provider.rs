//! What a provider is, as configuration describes it. No key is ever in here:
//! only the place where egress finds it.

use std::path::PathBuf;

use nearfar_domain::frames::ModelCard;
use nearfar_domain::target::{Dialect, RemoteZone};

use crate::auth::Auth;
use crate::openai::Habits;

/// A cloud or site service that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// The name in target ids: `openai` in `openai/gpt-4.1-mini`.
    pub name: String,
    /// The preset that it is, at that one's own address: its prices hold here.
    pub preset: Option<String>,
    /// What it speaks.
    pub dialect: Dialect,
    /// Where its paths start. OpenAI's includes `/v1`, Gemini's `/v1beta`,
    /// Anthropic's nothing, as their own clients have it. `{model}` in it stands
    /// for the model's name, and a query is sent with every request.
    pub base_url: String,
    /// Where it lies: as configured, whatever the address looks like.
    pub zone: RemoteZone,
    /// Where egress finds its key.
    pub key: KeySource,
    /// How the key is shown.
    pub auth: Auth,
    /// How it deviates from OpenAI, where it speaks its dialect.
    pub habits: Habits,
    /// Models known by name; the first is the one for `auto`.
    pub models: Vec<ModelCard>,
    /// Whether models that are not listed may be named.
    pub open_list: bool,
}

/// Where a key is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// The provider takes none.
    None,
    /// The file's text, without its last newline.
    File(PathBuf),
    /// An environment variable of this name.
    Env(String),
    /// A file of this name inside the credentials directory.
    Credential(String),
}

impl KeySource {
    /// The place, for people.
    pub fn describe(&self) -> String {
        match self {
            KeySource::None => "no key".to_owned(),
            KeySource::File(path) => format!("the file {}", path.display()),
            KeySource::Env(name) => format!("the environment variable {name}"),
            KeySource::Credential(name) => format!("the credential {name}"),
        }
    }
}

/// What the egress process needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Every provider that may be asked.
    pub providers: Vec<Provider>,
    /// Where [`KeySource::Credential`] names files; systemd's
    /// `$CREDENTIALS_DIRECTORY` when it is not given.
    pub credentials_dir: Option<PathBuf>,
    /// The only folder that downloads may be written to.
    pub incoming_dir: PathBuf,
    /// The fleet's ledger, where there is one.
    pub fleet_ledger: Option<crate::ledger::LedgerOptions>,
    /// Counters that several daemons share, where there are some.
    pub shared: Option<crate::shared::SharedOptions>,
}
