//! Models of this device: the embedded one and those in the model store.
//!
//! [`Catalog`] is what the gate reads: an immutable list, replaced whole by
//! [`Catalog::rescan`]. [`ModelStore`] is the store on disk: `manifest` says
//! what is written about a model, `incoming` how a file gets in unseen, `adopt`
//! how files of other stores are found, `pull` what a download needs, `tuning`
//! what an owner says about how a model is run, `verify`
//! how everything is hashed again. [`known`] lists models that people use.
//! Nothing here uses a network or runs a model.

mod adopt;
mod folder;
mod incoming;
mod inspect;
pub mod known;
mod manifest;
mod pull;
mod spec;
mod store;
mod sweep;
mod tuning;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use nearfar_domain::embed::EmbeddingCard;
use nearfar_domain::frames::ModelSource;
use nearfar_domain::target::Capabilities;
use serde::{Deserialize, Serialize};

pub use adopt::{Cached, Caches, find_hf, find_ollama};
pub use incoming::Progress;
pub use inspect::{FileFacts, embedded};
pub use manifest::{Adopted, Manifest, Origin};
pub use pull::{PullLine, PullSpec, install_downloaded, plan_download};
pub use spec::{HfFile, Spec};
pub use store::{ModelStore, NewModel};
pub use tuning::{Change, Tuned};
pub use verify::{Finding, Verdict};

/// The name of the model that is part of the binary.
pub const EMBEDDED: &str = "concierge";

/// A model that this device can run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalModel {
    /// Its name, without `local/`.
    pub name: String,
    /// Where its weights are.
    pub source: ModelSource,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The architecture, as the file calls it.
    pub architecture: String,
    /// The file's length in bytes.
    pub file_bytes: u64,
    /// The file's SHA-256 in hexadecimal.
    pub sha256: String,
    /// For a model that makes vectors: what its manifest says of them.
    #[serde(default)]
    pub embedding: Option<EmbeddingCard>,
}

/// Why a model could not be added, removed or read. The texts are for people
/// and say what to do.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The disk or a file's rights.
    #[error("{} could not be {what}: {reason}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// `read`, `created`, …
        what: &'static str,
        /// The system's words.
        reason: std::io::Error,
    },
    /// Not enough room for the model.
    #[error("{} has {free} bytes free and the model needs {needed}: free some room, or add it with --link to use the file where it is", path.display())]
    NoRoom {
        /// The store's folder.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// What was asked for cannot be understood.
    #[error("{0}")]
    Spec(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// Another model has this name.
    #[error(
        "a model named '{0}' is installed already, with other content: choose another name with --name, or remove it with `nearfar model rm {0}`"
    )]
    NameTaken(String),
    /// The name belongs to the model in the binary.
    #[error("'{0}' is the model that is part of nearfar; {1}")]
    Embedded(String, &'static str),
    /// No such model.
    #[error("no model named '{0}' is installed; `nearfar model list` shows those that are")]
    NoSuchModel(String),
    /// The engine cannot run the file.
    #[error("{} cannot be used: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The engine's words.
        reason: String,
    },
    /// The file is not the one that was promised.
    #[error("{} has the SHA-256 {found}, not {expected}: it is damaged or was replaced", path.display())]
    WrongDigest {
        /// The file.
        path: PathBuf,
        /// What was promised.
        expected: String,
        /// What it is.
        found: String,
    },
    /// The file changed while it was read.
    #[error("{} changed while it was read: try again when nobody writes to it", .0.display())]
    Changed(PathBuf),
    /// A manifest cannot be read.
    #[error("the manifest {} cannot be used: {reason}; `nearfar model rm` it by its file's name and add the model again", path.display())]
    BadManifest {
        /// The manifest's file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl CatalogError {
    fn io(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> CatalogError {
        move |reason| CatalogError::Io {
            path: path.to_owned(),
            what,
            reason,
        }
    }
}

/// The name that a file of this stem gets when nobody names it.
pub fn suggested_name(stem: &str) -> String {
    manifest::name_from(stem)
}

/// The models that can be used now. Reading takes no lock.
#[derive(Debug)]
pub struct Catalog {
    store: ModelStore,
    embedded: Option<(LocalModel, FileFacts)>,
    models: ArcSwap<Vec<LocalModel>>,
    /// Scans go one after the other, so that an older one cannot win.
    scanning: Mutex<()>,
}

impl Catalog {
    /// Reads the embedded model and the model store. A store that does not
    /// exist yet is an empty one; a model that cannot be used is left out with
    /// a warning that names its file.
    pub fn open(state_dir: &Path) -> Catalog {
        let catalog = Catalog {
            store: ModelStore::new(state_dir),
            embedded: embedded(),
            models: ArcSwap::default(),
            scanning: Mutex::new(()),
        };
        catalog.rescan();
        catalog
    }

    /// The models of the last scan: the embedded one first, then by name.
    pub fn models(&self) -> Arc<Vec<LocalModel>> {
        self.models.load_full()
    }

    /// Reads the model store again and returns how many models there are.
    /// Blocks on the disk.
    pub fn rescan(&self) -> usize {
        let _one = self.scanning.lock().unwrap_or_else(PoisonError::into_inner);
        let embedded = self.embedded.iter().map(|(model, _)| model.clone());
        let mut models: Vec<LocalModel> = embedded.collect();
        for manifest in self.store.manifests_or_warn() {
            if let Err(problem) = self.store.check_place(&manifest) {
                tracing::warn!(
                    model = manifest.name,
                    file = %self.store.weights(&manifest).display(),
                    "a model is left out: {problem}"
                );
                continue;
            }
            models.push(self.store.local_model(&manifest));
        }
        let count = models.len();
        self.models.store(Arc::new(models));
        count
    }

    /// The embedded model's name, and what its file says.
    pub fn embedded_facts(&self) -> Option<(&str, &FileFacts)> {
        let (model, facts) = self.embedded.as_ref()?;
        Some((&model.name, facts))
    }

    /// The store behind it.
    pub fn store(&self) -> &ModelStore {
        &self.store
    }
}

#[cfg(test)]
mod tests;
