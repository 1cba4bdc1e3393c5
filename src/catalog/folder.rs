//! A folder as Hugging Face has it, made into one file of the store.

use std::path::Path;

use nearfar_engine::embed::convert_folder;
use sha2::{Digest, Sha256};

use super::incoming::hex;
use super::inspect::inspect;
use super::store::Arrived;
use super::{CatalogError, Manifest, ModelStore, NewModel};

impl ModelStore {
    /// Converts the folder, checks what came out as any other file, and names it.
    pub(super) fn add_folder(
        &self,
        folder: &Path,
        name: String,
        new: &NewModel,
    ) -> Result<Manifest, CatalogError> {
        let unused = [
            (new.link, "--link"),
            (new.digest.is_some(), "--sha256"),
            (new.tokenizer.is_some(), "--tokenizer"),
        ];
        if let Some((_, option)) = unused.iter().find(|(given, _)| *given) {
            return Err(CatalogError::Spec(format!(
                "{option} goes with a file, and {} is a folder, which is made into one: leave it out",
                folder.display()
            )));
        }
        if !folder.join("config.json").exists() {
            return Err(CatalogError::Spec(format!(
                "{} is a folder without a config.json: give a GGUF file, or a folder with \
                 config.json, model.safetensors and tokenizer.json",
                folder.display()
            )));
        }
        let unusable = |reason: String| CatalogError::Unusable {
            path: folder.to_owned(),
            reason,
        };
        let converted = convert_folder(folder).map_err(|error| unusable(error.to_string()))?;
        let mut bytes = Vec::new();
        let written = converted.file.write(&mut bytes);
        written.map_err(CatalogError::io(folder, "converted"))?;
        drop(converted.file);
        self.prepare()?;
        let needed = bytes.len() as u64;
        if let Some(free) = self.free_bytes().filter(|free| *free < needed) {
            return Err(CatalogError::NoRoom {
                path: self.incoming(),
                free,
                needed,
            });
        }
        let mut copy = self.new_incoming()?;
        copy.write_all(&bytes)?;
        let digest = hex(&Sha256::digest(&bytes));
        let facts = inspect(copy.path(), None).map_err(|error| match error {
            CatalogError::Unusable { reason, .. } => unusable(reason),
            other => other,
        })?;
        let mut manifest = Manifest::new(name, digest, needed, facts, new.origin.clone());
        manifest.embedding = Some(converted.card);
        self.make_visible(manifest, Arrived::Copy(copy), None)
    }
}
