//! What a removed model leaves behind in the store: its weights, and the prompts
//! that clients pinned for it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::store::MAX_MODELS;
use super::{ModelStore, incoming};

impl ModelStore {
    /// Removes what no manifest names. Not while a manifest is unreadable: it
    /// may name anything. To be called under the lock.
    pub(super) fn sweep(&self) {
        incoming::sweep(&self.incoming());
        let Ok((manifests, bad)) = self.manifests() else {
            return;
        };
        if !bad.is_empty() || manifests.len() >= MAX_MODELS {
            return;
        }
        let used: HashSet<PathBuf> = manifests
            .iter()
            .flat_map(|m| [Some(&m.sha256), m.tokenizer.as_ref()])
            .flatten()
            .map(|digest| self.blob(digest))
            .collect();
        remove(&self.blobs(), |name, path| {
            name.starts_with("sha256-") && !used.contains(path)
        });
        let models: HashSet<&str> = manifests.iter().map(|m| m.sha256.as_str()).collect();
        // `DIGEST-HASH.kv`; the model that ships inside the binary stays.
        remove(&self.pinned(), |name, _| {
            name.split_once('-').is_some_and(|(digest, _)| {
                !digest.starts_with("embedded") && !models.contains(digest)
            })
        });
    }
}

fn remove(folder: &Path, unused: impl Fn(&str, &Path) -> bool) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        if unused(&entry.file_name().to_string_lossy(), &path)
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(file = %path.display(), "an unused file could not be removed: {error}");
        }
    }
}
