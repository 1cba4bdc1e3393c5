//! Hashing everything again.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::incoming::{hash_file, modified_ms};
use super::{CatalogError, Manifest, ModelStore, Progress};

/// What verification found out about one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The model's name; for a manifest that cannot be read, its file's.
    pub name: String,
    /// The file.
    pub file: PathBuf,
    /// How it is.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// How a file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// As it was when it was added.
    Good,
    /// Somebody touched it, but its content is the same; noted.
    Touched,
    /// Its content is not what was added.
    Changed {
        /// The SHA-256 that it has now.
        found: String,
    },
    /// It, or the manifest, cannot be read.
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl Verdict {
    /// Whether the model can be used.
    pub fn is_good(&self) -> bool {
        matches!(self, Verdict::Good | Verdict::Touched)
    }
}

impl ModelStore {
    /// Hashes every installed model again, or the one that is named. `progress`
    /// also gets the model's name.
    ///
    /// # Errors
    /// The store cannot be read, or there is no model of this name. A broken
    /// model is a finding, not an error.
    pub fn verify(
        &self,
        only: Option<&str>,
        progress: &mut dyn FnMut(&str, Progress),
    ) -> Result<Vec<Finding>, CatalogError> {
        let (manifests, bad) = match only {
            Some(name) => match self.get(name) {
                Ok(manifest) => (vec![manifest], vec![]),
                Err(error @ CatalogError::BadManifest { .. }) => (vec![], vec![error]),
                Err(error) => return Err(error),
            },
            None => self.manifests()?,
        };
        let mut findings = Vec::new();
        for manifest in manifests {
            let mut on = |at| progress(&manifest.name, at);
            findings.push(self.verify_weights(&manifest, &mut on));
            if let Some(digest) = &manifest.tokenizer {
                let file = self.blob(digest);
                let verdict = compare(hash_file(&file, &mut on), digest);
                findings.push(Finding {
                    name: manifest.name.clone(),
                    file,
                    verdict,
                });
            }
        }
        findings.extend(bad.into_iter().map(|error| {
            let file = match &error {
                CatalogError::BadManifest { path, .. } | CatalogError::Io { path, .. } => {
                    path.clone()
                }
                _ => PathBuf::new(),
            };
            let name = file
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            Finding {
                name,
                file,
                verdict: Verdict::Unreadable {
                    reason: error.to_string(),
                },
            }
        }));
        Ok(findings)
    }

    fn verify_weights(&self, manifest: &Manifest, progress: &mut dyn FnMut(Progress)) -> Finding {
        let file = self.weights(manifest);
        let mut verdict = compare(hash_file(&file, progress), &manifest.sha256);
        if verdict == Verdict::Good
            && manifest.adopted.is_some()
            && self.check_place(manifest).is_err()
        {
            verdict = match self.note_touch(manifest) {
                Ok(()) => Verdict::Touched,
                Err(error) => Verdict::Unreadable {
                    reason: error.to_string(),
                },
            };
        }
        Finding {
            name: manifest.name.clone(),
            file,
            verdict,
        }
    }

    fn note_touch(&self, manifest: &Manifest) -> Result<(), CatalogError> {
        let _lock = self.lock()?;
        // It may have been removed or replaced while it was hashed.
        let mut now = self.get(&manifest.name)?;
        if now != *manifest {
            return Ok(());
        }
        let file = self.weights(&now);
        let meta = std::fs::metadata(&file).map_err(CatalogError::io(&file, "read"))?;
        if let Some(adopted) = &mut now.adopted {
            adopted.modified_ms = modified_ms(&meta);
        }
        self.write_manifest(&now)
    }
}

fn compare(hashed: Result<(String, u64), CatalogError>, expected: &str) -> Verdict {
    match hashed {
        Ok((found, _)) if found == expected => Verdict::Good,
        Ok((found, _)) => Verdict::Changed { found },
        Err(error) => Verdict::Unreadable {
            reason: error.to_string(),
        },
    }
}
