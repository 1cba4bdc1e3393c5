//! Models from Hugging Face: what egress is asked to fetch, and what becomes
//! of the file that it brings. Egress has the network and no say over the
//! store; the file is hashed and inspected here before anybody sees it.

use std::path::Path;

use nearfar_domain::frames::{Download, DownloadEvent};
use nearfar_domain::ids::JobId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::incoming::hex;
use super::manifest::{check_name, is_digest, name_from};
use super::{CatalogError, EMBEDDED, HfFile, Manifest, ModelStore, NewModel, Origin, known};

/// No download is longer.
const MAX_BYTES: u64 = 256 << 30;
/// Room that a download leaves free for everything else on the file system.
const LEAVE_FREE: u64 = 256 << 20;

/// What `POST /admin/v1/models` takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PullSpec {
    /// `OWNER/REPO/FILE.gguf[@REVISION]`, with or without `hf:` before it, or a
    /// name from the list of known models.
    pub hf: String,
    /// The model's name; without it, the file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The SHA-256 that the file must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// One line of the answer to `POST /admin/v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PullLine {
    /// Bytes on disk, and in all where the server said.
    Progress {
        /// On disk.
        have: u64,
        /// In all.
        total: Option<u64>,
    },
    /// The file is whole; it is being checked.
    Fetched {
        /// Its length in bytes.
        bytes: u64,
    },
    /// Last: the model can be used.
    Installed {
        /// Its manifest.
        model: Box<Manifest>,
    },
    /// Last: it cannot.
    Failed {
        /// For people: what and what to do.
        message: String,
        /// Whether the same call may succeed later.
        retryable: bool,
    },
}

impl From<DownloadEvent> for PullLine {
    fn from(event: DownloadEvent) -> Self {
        match event {
            DownloadEvent::Progress { have, total } => PullLine::Progress { have, total },
            DownloadEvent::Finished { bytes, .. } => PullLine::Fetched { bytes },
            DownloadEvent::Failed { message, retryable } => PullLine::Failed { message, retryable },
        }
    }
}

struct Wanted {
    file: HfFile,
    name: String,
    sha256: Option<String>,
}

impl PullSpec {
    fn wanted(&self) -> Result<Wanted, CatalogError> {
        let text = self.hf.strip_prefix("hf:").unwrap_or(&self.hf);
        let (file, listed) = match known::find(text) {
            Some(model) => (model.hf_file(), Some(model)),
            None => {
                let file = HfFile::parse(text)?;
                let listed = known::all().iter().find(|model| model.hf_file() == file);
                (file, listed)
            }
        };
        let name = match (&self.name, listed) {
            (Some(name), _) => name.clone(),
            (None, Some(model)) => model.name.clone(),
            (None, None) => name_from(file.stem()),
        };
        check_name(&name)?;
        if name == EMBEDDED {
            return Err(CatalogError::Embedded(name, "choose another name"));
        }
        let given = self
            .sha256
            .as_ref()
            .map(|digest| digest.to_ascii_lowercase());
        if given.as_ref().is_some_and(|digest| !is_digest(digest)) {
            return Err(CatalogError::Spec(
                "sha256 is not 64 hexadecimal digits".to_owned(),
            ));
        }
        let sha256 = given.or_else(|| listed.and_then(|model| model.source.sha256.clone()));
        Ok(Wanted { file, name, sha256 })
    }
}

/// What egress is to fetch for this. The same file goes by the same name in the
/// incoming folder, so that a broken download can be gone on with.
///
/// # Errors
/// The spec makes no sense, its name is taken, or the store's folders cannot be made.
pub fn plan_download(
    store: &ModelStore,
    job: JobId,
    spec: &PullSpec,
) -> Result<Download, CatalogError> {
    let wanted = spec.wanted()?;
    if store.manifest_path(&wanted.name).exists() {
        return Err(CatalogError::NameTaken(wanted.name));
    }
    store.prepare()?;
    let into = std::path::absolute(store.incoming())
        .map_err(CatalogError::io(&store.incoming(), "found"))?;
    let id = hex(&Sha256::digest(wanted.file.to_string()));
    let room = store
        .free_bytes()
        .unwrap_or(u64::MAX)
        .saturating_sub(LEAVE_FREE);
    Ok(Download {
        job,
        repo: wanted.file.repo,
        revision: wanted.file.revision,
        file: wanted.file.file,
        into: into.to_string_lossy().into_owned(),
        save_as: format!("hf-{}.gguf", &id[..24]),
        sha256: wanted.sha256,
        max_bytes: room.min(MAX_BYTES),
    })
}

/// Installs what egress fetched for this spec: hashes it, has the engine
/// inspect it, and names it. Blocks for as long as hashing takes. A file that
/// is refused is removed.
///
/// `sha256` is what egress says of it, `verified` whether the server had named
/// that digest too (else it is pinned now).
///
/// # Errors
/// [`CatalogError`]: the file is not the promised one, or the engine refuses it.
pub fn install_downloaded(
    store: &ModelStore,
    file: &Path,
    spec: &PullSpec,
    sha256: &str,
    verified: bool,
) -> Result<Manifest, CatalogError> {
    let wanted = spec.wanted()?;
    let new = NewModel {
        file: file.to_owned(),
        name: Some(wanted.name),
        origin: Origin::HuggingFace {
            repo: wanted.file.repo,
            file: wanted.file.file,
            revision: wanted.file.revision,
        },
        digest: wanted.sha256.or_else(|| Some(sha256.to_owned())),
        link: false,
        consume: true,
        pinned: !verified,
        tokenizer: None,
    };
    let installed = store.add(&new, &mut |_| {});
    if matches!(
        installed,
        Err(CatalogError::Unusable { .. } | CatalogError::WrongDigest { .. })
    ) {
        let _ = std::fs::remove_file(file);
    }
    installed
}
