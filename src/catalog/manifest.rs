//! What the store writes down about a model: one JSON file per name.

use std::path::{Path, PathBuf};

use nearfar_domain::embed::EmbeddingCard;
use serde::{Deserialize, Serialize};

use super::CatalogError;
use super::inspect::FileFacts;
use super::tuning::Tuned;

/// The manifests' schema version.
const SCHEMA: u32 = 1;
/// No honest manifest is longer.
const MAX_BYTES: u64 = 64 << 10;

/// An installed model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub schema: u32,
    /// Its name, without `local/`.
    pub name: String,
    /// The weights' SHA-256 in hexadecimal: also the blob's name.
    pub sha256: String,
    /// The weights' length in bytes.
    pub bytes: u64,
    /// Where the weights are, when they are not the store's own.
    pub adopted: Option<Adopted>,
    /// What the file says of itself.
    #[serde(flatten)]
    pub facts: FileFacts,
    /// SHA-256 of a `tokenizer.json` blob to be used in place of the file's own tokenizer.
    pub tokenizer: Option<String>,
    /// For a model that makes vectors: what its file has no place for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<EmbeddingCard>,
    /// How its owner wants it run.
    #[serde(default, skip_serializing_if = "Tuned::is_default")]
    pub tuning: Tuned,
    /// Where it came from.
    pub origin: Origin,
    /// When it was added, in milliseconds since 1970.
    pub added_ms: i64,
    /// Whether nobody had named the digest before: it was fixed when the file first came.
    pub pinned_at_first_pull: bool,
}

/// A file that belongs to somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Its absolute path.
    pub path: PathBuf,
    /// When it was last changed, in milliseconds since 1970, as of the last verification.
    pub modified_ms: i64,
    /// Whether the store holds a hard link to it: then the store's name works
    /// even after the owner removed theirs.
    pub hard_link: bool,
}

/// Where a model came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// A file of this machine.
    File {
        /// Its path at that time.
        path: PathBuf,
    },
    /// A Hugging Face repository, or its cache on this machine.
    HuggingFace {
        /// `owner/name`.
        repo: String,
        /// The file inside it.
        file: String,
        /// Branch, tag or commit that was asked for.
        revision: String,
    },
    /// An Ollama store of this machine.
    Ollama {
        /// The model's name there.
        model: String,
        /// Its tag.
        tag: String,
    },
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File { path } => write!(f, "{}", path.display()),
            Origin::HuggingFace {
                repo,
                file,
                revision,
            } => {
                write!(f, "hf:{repo}/{file}@{revision}")
            }
            Origin::Ollama { model, tag } => write!(f, "ollama:{model}:{tag}"),
        }
    }
}

impl Manifest {
    /// A manifest of the current schema.
    pub(super) fn new(
        name: String,
        sha256: String,
        bytes: u64,
        facts: FileFacts,
        origin: Origin,
    ) -> Self {
        Self {
            schema: SCHEMA,
            name,
            sha256,
            bytes,
            adopted: None,
            facts,
            tokenizer: None,
            embedding: None,
            tuning: Tuned::default(),
            origin,
            added_ms: now_ms(),
            pinned_at_first_pull: false,
        }
    }

    /// Reads a manifest's file and checks everything that is used as a path.
    pub(super) fn read(path: &Path) -> Result<Manifest, CatalogError> {
        let bad = |reason: String| CatalogError::BadManifest {
            path: path.to_owned(),
            reason,
        };
        let length = std::fs::metadata(path)
            .map_err(CatalogError::io(path, "read"))?
            .len();
        if length > MAX_BYTES {
            return Err(bad(format!(
                "it is {length} bytes long, more than {MAX_BYTES}"
            )));
        }
        let text = std::fs::read(path).map_err(CatalogError::io(path, "read"))?;
        let manifest: Manifest =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if manifest.schema != SCHEMA {
            return Err(bad(format!(
                "it has schema {}, this nearfar knows {SCHEMA}",
                manifest.schema
            )));
        }
        if path.file_stem().and_then(|stem| stem.to_str()) != Some(&manifest.name) {
            return Err(bad(format!("it says that its name is '{}'", manifest.name)));
        }
        check_name(&manifest.name).map_err(|error| bad(error.to_string()))?;
        let digests = [Some(&manifest.sha256), manifest.tokenizer.as_ref()];
        if !digests
            .into_iter()
            .flatten()
            .all(|digest| is_digest(digest))
        {
            return Err(bad(
                "a digest is not 64 lower-case hexadecimal digits".to_owned()
            ));
        }
        if let Some(draft) = &manifest.tuning.draft {
            check_name(draft).map_err(|error| bad(error.to_string()))?;
        }
        if manifest
            .adopted
            .as_ref()
            .is_some_and(|adopted| !adopted.path.is_absolute())
        {
            return Err(bad("the adopted file's path is not absolute".to_owned()));
        }
        Ok(manifest)
    }
}

/// Whether this can name a model: it becomes a file's name and part of a target's.
pub(super) fn check_name(name: &str) -> Result<(), CatalogError> {
    let first = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let rest = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && name.len() <= 64 {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(CatalogError::Spec(format!(
        "'{shown}' cannot name a model: use 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit first (--name)"
    )))
}

/// The name that a file suggests: its stem in lower case, all else as `-`.
pub(super) fn name_from(stem: &str) -> String {
    let mut name = String::new();
    for c in stem.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' | '.' | '_' => name.push(c),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    let trimmed = name.trim_start_matches(['.', '_', '-']);
    trimmed[..trimmed.len().min(64)]
        .trim_end_matches(['.', '_', '-'])
        .to_owned()
}

/// Whether this is a SHA-256 as the store writes it.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

pub(super) fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
        })
}
