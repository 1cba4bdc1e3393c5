//! Finding model files that other programs already keep on this machine, so
//! that they need not be copied or downloaded again. Layouts:
//! Ollama: `manifests/HOST/OWNER/NAME/TAG` (an OCI manifest) and `blobs/sha256-…`;
//! Hugging Face: `models--OWNER--NAME/{refs/REVISION, snapshots/COMMIT/FILE}`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::manifest::is_digest;
use super::{CatalogError, HfFile};

/// Where to look; the caller reads the environment.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// Ollama's model folders (`~/.ollama/models`), best first.
    pub ollama: Vec<PathBuf>,
    /// Hugging Face's cache folders (`~/.cache/huggingface/hub`), best first.
    pub hugging_face: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct OciManifest {
    layers: Vec<OciLayer>,
}

#[derive(Deserialize)]
struct OciLayer {
    #[serde(rename = "mediaType")]
    media_type: String,
    digest: String,
}

/// A file of somebody else's, and the SHA-256 that it must have where they say.
pub type Cached = (PathBuf, Option<String>);

/// The weights' file of an Ollama model and the SHA-256 that Ollama says it has.
///
/// # Errors
/// [`CatalogError::NotFound`] when no folder has it, with the folders that were
/// looked in; [`CatalogError::Spec`] when its manifest makes no sense.
pub fn find_ollama(caches: &Caches, model: &str, tag: &str) -> Result<Cached, CatalogError> {
    let place = match model.split('/').count() {
        1 => format!("registry.ollama.ai/library/{model}"),
        2 => format!("registry.ollama.ai/{model}"),
        _ => model.to_owned(),
    };
    for folder in &caches.ollama {
        let path = folder.join("manifests").join(&place).join(tag);
        let Some(text) = read_small(&path)? else {
            continue;
        };
        let bad = |reason: String| {
            CatalogError::Spec(format!(
                "Ollama's manifest {} cannot be used: {reason}; run `ollama pull {model}:{tag}`",
                path.display()
            ))
        };
        let manifest: OciManifest =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        let layer = manifest
            .layers
            .iter()
            .find(|layer| layer.media_type == "application/vnd.ollama.image.model")
            .ok_or_else(|| bad("it names no model layer".to_owned()))?;
        let digest = layer
            .digest
            .strip_prefix("sha256:")
            .filter(|digest| is_digest(digest))
            .ok_or_else(|| bad("its digest is no SHA-256".to_owned()))?;
        let blob = folder.join("blobs").join(format!("sha256-{digest}"));
        if !blob.is_file() {
            return Err(bad(format!("its file {} is missing", blob.display())));
        }
        return Ok((blob, Some(digest.to_owned())));
    }
    Err(CatalogError::NotFound(format!(
        "Ollama has no model '{model}:{tag}' in {}: `ollama list` shows what it has, and OLLAMA_MODELS names another folder",
        list(&caches.ollama)
    )))
}

/// The file in a Hugging Face cache, with its links resolved, and the SHA-256
/// that it must have where its name tells: the cache names large files by it.
/// `None` when no cache has it. A branch counts as the commit that the cache
/// last saw it at.
///
/// # Errors
/// A cache is there and cannot be read.
pub fn find_hf(caches: &Caches, wanted: &HfFile) -> Result<Option<Cached>, CatalogError> {
    for folder in &caches.hugging_face {
        let repo = folder.join(format!("models--{}", wanted.repo.replace('/', "--")));
        let commit = match read_small(&repo.join("refs").join(&wanted.revision))? {
            Some(commit) => String::from_utf8_lossy(&commit).trim().to_owned(),
            None => wanted.revision.clone(),
        };
        if commit.is_empty() || !commit.bytes().all(|b| b.is_ascii_alphanumeric()) {
            continue;
        }
        let file = repo.join("snapshots").join(commit).join(&wanted.file);
        match file.canonicalize() {
            Ok(path) if path.is_file() => {
                let name = path.file_name().and_then(|name| name.to_str());
                let digest = name.filter(|name| is_digest(name)).map(str::to_owned);
                return Ok(Some((path, digest)));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn list(folders: &[PathBuf]) -> String {
    if folders.is_empty() {
        return "any known folder".to_owned();
    }
    let shown: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    shown.join(" or ")
}

/// A small file's content; `None` when it is not there.
fn read_small(path: &Path) -> Result<Option<Vec<u8>>, CatalogError> {
    use std::io::{ErrorKind, Read};
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(CatalogError::io(path, "read")(error)),
    };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    let mut text = Vec::new();
    file.take(1 << 20)
        .read_to_end(&mut text)
        .map_err(CatalogError::io(path, "read"))?;
    Ok(Some(text))
}
