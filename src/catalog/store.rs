//! The model store on disk: `models/{blobs,manifests,incoming}` in the state
//! directory.
//!
//! Weights lie under the name of their SHA-256; a manifest gives them a name.
//! A file is verified before it is visible: copied or hashed, inspected by the
//! engine, and only then named, by a rename. Whoever changes the store holds
//! its lock for the moment of the change; readers take none.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nearfar_domain::frames::ModelSource;
use nearfar_domain::target::Capabilities;

use super::incoming::{self, Incoming, Progress, modified_ms, sync_folder};
use super::inspect::{FileFacts, inspect};
use super::manifest::{check_name, name_from};
use super::{Adopted, CatalogError, EMBEDDED, LocalModel, Manifest, Origin, known};

/// More installed models than this are not read.
pub(super) const MAX_MODELS: usize = 1_024;

/// The store. Holds paths alone: opening it touches nothing.
#[derive(Clone, Debug)]
pub struct ModelStore {
    root: PathBuf,
}

/// A file that is to become a model.
#[derive(Clone, Debug)]
pub struct NewModel {
    /// The GGUF file.
    pub file: PathBuf,
    /// The model's name; `None` takes the file's.
    pub name: Option<String>,
    /// Where it comes from.
    pub origin: Origin,
    /// The SHA-256 that it must have, where somebody promised one.
    pub digest: Option<String>,
    /// Use the file where it is in place of a copy.
    pub link: bool,
    /// Whether `file` is in the store's own incoming folder and may be moved.
    pub consume: bool,
    /// Whether nobody but its bringer vouches for the digest.
    pub pinned: bool,
    /// A `tokenizer.json` to be used in place of the file's own tokenizer;
    /// always copied.
    pub tokenizer: Option<PathBuf>,
}

/// The weights, checked and ready to be named.
pub(super) enum Arrived {
    Copy(Incoming),
    Moved(PathBuf),
    Linked(PathBuf, i64),
}

impl ModelStore {
    /// The store of this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            root: state_dir.join("models"),
        }
    }

    /// Where weights and tokenizers lie.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Where files wait that nobody may use yet; downloads go here.
    pub fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// Every installed model by name, and what was wrong with manifests that
    /// could not be read.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub fn manifests(&self) -> Result<(Vec<Manifest>, Vec<CatalogError>), CatalogError> {
        let folder = self.manifests_folder();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok((Vec::new(), Vec::new()));
            }
            Err(error) => return Err(CatalogError::io(&folder, "read")(error)),
        };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "json"))
            .collect();
        paths.sort();
        paths.truncate(MAX_MODELS);
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for path in paths {
            match Manifest::read(&path) {
                Ok(manifest) => good.push(manifest),
                Err(error) => bad.push(error),
            }
        }
        Ok((good, bad))
    }

    /// As [`ModelStore::manifests`], with problems in the log.
    pub(super) fn manifests_or_warn(&self) -> Vec<Manifest> {
        match self.manifests() {
            Ok((good, bad)) => {
                for problem in bad {
                    tracing::warn!("a model is left out: {problem}");
                }
                good
            }
            Err(problem) => {
                tracing::warn!("the model store cannot be read: {problem}");
                Vec::new()
            }
        }
    }

    /// One installed model.
    ///
    /// # Errors
    /// There is none of this name, or its manifest is broken.
    pub fn get(&self, name: &str) -> Result<Manifest, CatalogError> {
        check_name(name)?;
        let path = self.manifest_path(name);
        if !path.exists() {
            return Err(CatalogError::NoSuchModel(name.to_owned()));
        }
        Manifest::read(&path)
    }

    /// The file that holds a model's weights.
    pub fn weights(&self, manifest: &Manifest) -> PathBuf {
        match &manifest.adopted {
            Some(adopted) if !adopted.hard_link => adopted.path.clone(),
            _ => self.blob(&manifest.sha256),
        }
    }

    /// Files outside the store that the engine must be able to read.
    pub fn outside_files(&self) -> Vec<PathBuf> {
        let outside = |m: &Manifest| m.adopted.as_ref().is_some_and(|a| !a.hard_link);
        let manifests = self.manifests_or_warn();
        manifests
            .iter()
            .filter(|m| outside(m))
            .map(|m| self.weights(m))
            .collect()
    }

    /// Whether the weights look as they did when they were verified: length,
    /// and for a file of somebody else's the time of its last change. Cheap.
    ///
    /// # Errors
    /// For people: what is different and what to do.
    pub fn check_place(&self, manifest: &Manifest) -> Result<(), String> {
        let name = &manifest.name;
        let meta = std::fs::metadata(self.weights(manifest)).map_err(|error| {
            format!("its file cannot be read ({error}): remove it with `nearfar model rm {name}` and add it again")
        })?;
        if meta.len() != manifest.bytes {
            return Err(format!(
                "its file has {} bytes, not {}: remove it with `nearfar model rm {name}` and add it again",
                meta.len(),
                manifest.bytes
            ));
        }
        match &manifest.adopted {
            Some(adopted) if adopted.modified_ms != modified_ms(&meta) => Err(format!(
                "its file was touched since it was verified: `nearfar model verify {name}` checks it again"
            )),
            _ => Ok(()),
        }
    }

    /// A model as the gate and the engine see it.
    pub fn local_model(&self, manifest: &Manifest) -> LocalModel {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        LocalModel {
            name: manifest.name.clone(),
            source: ModelSource::File {
                path: text(self.weights(manifest)),
                tokenizer: manifest
                    .tokenizer
                    .as_ref()
                    .map(|digest| text(self.blob(digest))),
                sha256: Some(manifest.sha256.clone()),
                tuning: self.tuning_of(manifest),
            },
            capabilities: capabilities(&manifest.facts),
            architecture: manifest.facts.architecture.clone(),
            file_bytes: manifest.bytes,
            sha256: manifest.sha256.clone(),
            embedding: manifest.embedding.clone(),
        }
    }

    /// Adds a model: checks the file, brings it in, verifies it and names it.
    /// Adding the same file under the same name again changes nothing.
    ///
    /// # Errors
    /// [`CatalogError`]; nothing is visible then, and nothing is left behind.
    pub fn add(
        &self,
        new: &NewModel,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Manifest, CatalogError> {
        let name = self.name_for(new)?;
        let file = std::path::absolute(&new.file).map_err(CatalogError::io(&new.file, "found"))?;
        let meta = std::fs::metadata(&file).map_err(CatalogError::io(&file, "read"))?;
        if meta.is_dir() {
            return self.add_folder(&file, name, new);
        }
        if !meta.is_file() {
            return Err(CatalogError::Spec(format!(
                "{} is not a file: give a GGUF file, or a folder with config.json, model.safetensors and tokenizer.json",
                file.display()
            )));
        }
        // Before gigabytes are moved: what the engine would refuse, and what cannot fit.
        let facts = inspect(&file, new.tokenizer.as_deref())?;
        let taken = self.get(&name).ok();
        if taken
            .as_ref()
            .is_some_and(|other| other.bytes != meta.len())
        {
            return Err(CatalogError::NameTaken(name));
        }
        self.prepare()?;
        let (arrived, sha256, bytes) = self.bring_in(&file, new, meta.len(), progress)?;
        if let Some(expected) = new.digest.as_ref().filter(|expected| **expected != sha256) {
            return Err(CatalogError::WrongDigest {
                path: file,
                expected: expected.clone(),
                found: sha256,
            });
        }
        let facts = match &arrived {
            Arrived::Copy(copy) => {
                inspect(copy.path(), new.tokenizer.as_deref()).map_err(|error| match error {
                    CatalogError::Unusable { reason, .. } => CatalogError::Unusable {
                        path: file.clone(),
                        reason,
                    },
                    other => other,
                })?
            }
            Arrived::Moved(_) | Arrived::Linked(..) => facts,
        };
        let mut manifest = Manifest::new(name, sha256, bytes, facts, new.origin.clone());
        manifest.pinned_at_first_pull = new.pinned;
        manifest.embedding = known::embedding_of(&new.origin);
        let sidecar = new
            .tokenizer
            .as_ref()
            .map(|from| self.bring_sidecar(from))
            .transpose()?;
        self.make_visible(manifest, arrived, sidecar)
    }

    /// Removes a model, and its weights unless another name uses them. A broken
    /// manifest can be removed too.
    ///
    /// # Errors
    /// There is no such model, or the disk refuses.
    pub fn remove(&self, name: &str) -> Result<(), CatalogError> {
        if name == EMBEDDED {
            return Err(CatalogError::Embedded(
                name.to_owned(),
                "it cannot be removed",
            ));
        }
        check_name(name)?;
        let path = self.manifest_path(name);
        if !path.exists() {
            return Err(CatalogError::NoSuchModel(name.to_owned()));
        }
        self.check_no_draft(name)?;
        let _lock = self.lock()?;
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(CatalogError::NoSuchModel(name.to_owned()));
            }
            Err(error) => return Err(CatalogError::io(&path, "removed")(error)),
        }
        sync_folder(&path)?;
        self.sweep();
        Ok(())
    }

    /// Writes a manifest in place of the one of the same name.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<(), CatalogError> {
        let path = self.manifest_path(&manifest.name);
        let mut text = serde_json::to_vec_pretty(manifest)
            .map_err(|error| CatalogError::io(&path, "written")(error.into()))?;
        text.push(b'\n');
        let mut file = Incoming::create(&self.incoming())?;
        file.write_all(&text)?;
        file.place(&path)
    }

    /// Held by whoever changes the store, for the moment of the change.
    pub(super) fn lock(&self) -> Result<File, CatalogError> {
        let path = self.root.join("lock");
        let lock = || {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(CatalogError::io(&path, "locked"))
    }

    /// Where a blob lies.
    pub(super) fn blob(&self, digest: &str) -> PathBuf {
        self.blobs().join(format!("sha256-{digest}"))
    }

    /// Makes the folders.
    pub(super) fn prepare(&self) -> Result<(), CatalogError> {
        for folder in [self.blobs(), self.manifests_folder(), self.incoming()] {
            std::fs::create_dir_all(&folder).map_err(CatalogError::io(&folder, "created"))?;
        }
        Ok(())
    }

    /// Bytes that can still be written to the store's file system, where it says so.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let figures = rustix::fs::statvfs(&self.root).ok()?;
        Some(figures.f_bavail.saturating_mul(figures.f_frsize))
    }

    pub(super) fn manifest_path(&self, name: &str) -> PathBuf {
        self.manifests_folder().join(format!("{name}.json"))
    }

    /// Where the engine keeps what clients pinned, under the weights' digests.
    pub(super) fn pinned(&self) -> PathBuf {
        self.root.join("pinned")
    }

    fn manifests_folder(&self) -> PathBuf {
        self.root.join("manifests")
    }

    fn name_for(&self, new: &NewModel) -> Result<String, CatalogError> {
        let name = match &new.name {
            Some(name) => name.clone(),
            None => {
                let folder = new.file.is_dir();
                let stem = if folder {
                    Path::file_name
                } else {
                    Path::file_stem
                };
                let stem = stem(&new.file).unwrap_or_default();
                name_from(&stem.to_string_lossy())
            }
        };
        check_name(&name)?;
        if name == EMBEDDED {
            return Err(CatalogError::Embedded(
                name,
                "choose another name with --name",
            ));
        }
        Ok(name)
    }

    fn bring_in(
        &self,
        file: &Path,
        new: &NewModel,
        length: u64,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Arrived, String, u64), CatalogError> {
        if new.consume {
            let (digest, bytes) = incoming::hash_file(file, progress)?;
            return Ok((Arrived::Moved(file.to_owned()), digest, bytes));
        }
        if new.link {
            // A link's name may change its meaning; the file behind it is what was verified.
            let file = file
                .canonicalize()
                .map_err(CatalogError::io(file, "found"))?;
            let (digest, bytes) = incoming::hash_file(&file, progress)?;
            let meta = std::fs::metadata(&file).map_err(CatalogError::io(&file, "read"))?;
            return Ok((Arrived::Linked(file, modified_ms(&meta)), digest, bytes));
        }
        let free = self.free_bytes().unwrap_or(u64::MAX);
        if free < length {
            return Err(CatalogError::NoRoom {
                path: self.root.clone(),
                free,
                needed: length,
            });
        }
        let mut copy = self.new_incoming()?;
        let (digest, bytes) = copy.fill(file, progress)?;
        Ok((Arrived::Copy(copy), digest, bytes))
    }

    fn bring_sidecar(&self, from: &Path) -> Result<(Incoming, String), CatalogError> {
        let mut copy = self.new_incoming()?;
        let (digest, _) = copy.fill(from, &mut |_| {})?;
        Ok((copy, digest))
    }

    /// A new file in the incoming folder, after what others left there was cleared away.
    pub(super) fn new_incoming(&self) -> Result<Incoming, CatalogError> {
        let _lock = self.lock()?;
        incoming::sweep(&self.incoming());
        Incoming::create(&self.incoming())
    }

    pub(super) fn make_visible(
        &self,
        mut manifest: Manifest,
        arrived: Arrived,
        sidecar: Option<(Incoming, String)>,
    ) -> Result<Manifest, CatalogError> {
        let _lock = self.lock()?;
        let path = self.manifest_path(&manifest.name);
        let before = path.exists().then(|| Manifest::read(&path)).transpose()?;
        if before
            .as_ref()
            .is_some_and(|other| other.sha256 != manifest.sha256)
        {
            return Err(CatalogError::NameTaken(manifest.name));
        }
        let blob = self.blob(&manifest.sha256);
        match arrived {
            Arrived::Copy(copy) => {
                make_read_only(copy.path())?;
                copy.place(&blob)?;
                self.disown(&manifest.sha256)?;
            }
            Arrived::Moved(from) => {
                make_read_only(&from)?;
                incoming::place(&from, &blob)?;
                self.disown(&manifest.sha256)?;
            }
            Arrived::Linked(path, modified_ms) => {
                let hard_link = self.hard_link(&path, &blob, manifest.bytes)?;
                manifest.adopted = Some(Adopted {
                    path,
                    modified_ms,
                    hard_link,
                });
                if self.is_another_file(&manifest)? {
                    manifest.adopted = self.owner(&manifest.sha256)?;
                }
            }
        }
        // The same model again keeps the day it first came, and what was said of it.
        if let Some(before) = before {
            manifest.added_ms = before.added_ms;
            manifest.tokenizer = before.tokenizer;
            manifest.tuning = before.tuning;
        }
        if let Some((copy, digest)) = sidecar {
            make_read_only(copy.path())?;
            copy.place(&self.blob(&digest))?;
            manifest.tokenizer = Some(digest);
        }
        self.write_manifest(&manifest)?;
        Ok(manifest)
    }

    /// A hard link keeps the weights readable inside the store, where the
    /// engine's sandbox allows reading, and alive when their owner forgets
    /// them. Not possible across file systems, nor for files of other users.
    fn hard_link(&self, from: &Path, blob: &Path, bytes: u64) -> Result<bool, CatalogError> {
        match std::fs::hard_link(from, blob) {
            Ok(()) => sync_folder(blob).map(|()| true),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                Ok(std::fs::metadata(blob).is_ok_and(|meta| meta.len() == bytes))
            }
            Err(error) => {
                tracing::debug!(file = %from.display(), "no hard link: {error}");
                Ok(false)
            }
        }
    }

    /// Whose file a blob is, where it is not the store's own.
    fn owner(&self, digest: &str) -> Result<Option<Adopted>, CatalogError> {
        let (manifests, _) = self.manifests()?;
        Ok(manifests
            .into_iter()
            .filter(|other| other.sha256 == digest)
            .filter_map(|other| other.adopted)
            .find(|adopted| adopted.hard_link))
    }

    /// After a copy took a link's place: the blob is the store's own for
    /// everybody who names it.
    fn disown(&self, digest: &str) -> Result<(), CatalogError> {
        let (manifests, _) = self.manifests()?;
        for mut other in manifests {
            let linked = other.adopted.as_ref().is_some_and(|a| a.hard_link);
            if other.sha256 == digest && linked {
                other.adopted = None;
                self.write_manifest(&other)?;
            }
        }
        Ok(())
    }

    /// Whether the blob is there already and not a link to the adopted file.
    fn is_another_file(&self, manifest: &Manifest) -> Result<bool, CatalogError> {
        use std::os::unix::fs::MetadataExt;
        let Some(adopted) = manifest.adopted.as_ref().filter(|a| a.hard_link) else {
            return Ok(false);
        };
        let inode = |path: &Path| {
            let meta = std::fs::metadata(path).map_err(CatalogError::io(path, "read"))?;
            Ok((meta.dev(), meta.ino()))
        };
        Ok(inode(&adopted.path)? != inode(&self.blob(&manifest.sha256))?)
    }
}

/// What the engine can do with a model. Grammars work with every vocabulary; a
/// call can be demanded where the template's format of calls is known.
pub(super) fn capabilities(facts: &FileFacts) -> Capabilities {
    let chat = facts.dimensions.is_none();
    Capabilities {
        context_tokens: Some(facts.context_tokens),
        tools: facts.tools,
        forced_tools: facts.tools,
        json_object: true,
        json_schema: true,
        grammar: true,
        vision: false,
        logprobs: chat,
        raw_text: chat,
        chat,
        embeddings: !chat,
    }
}

fn make_read_only(path: &Path) -> Result<(), CatalogError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o444))
        .map_err(CatalogError::io(path, "made read-only"))
}
