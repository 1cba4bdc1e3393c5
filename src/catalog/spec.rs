//! What can be added, as people write it.

use std::path::PathBuf;

use super::CatalogError;
use super::known::{self, Known};

/// What `nearfar model add` was asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    /// A file of this machine.
    File(PathBuf),
    /// `hf:OWNER/REPO/FILE[@REVISION]`.
    Hf(HfFile),
    /// `ollama:NAME[:TAG]`.
    Ollama {
        /// `llama3.2`, `owner/name` or `host/owner/name`.
        model: String,
        /// `latest` unless it was said.
        tag: String,
    },
    /// A name of the list of known models.
    Known(&'static Known),
}

/// A file in a Hugging Face repository. The parts are checked: they can be used
/// in paths and URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HfFile {
    /// `owner/name`.
    pub repo: String,
    /// The file, maybe in a folder.
    pub file: String,
    /// Branch, tag or commit; `main` unless it was said.
    pub revision: String,
}

impl Spec {
    /// Reads what was typed: a prefix decides; else a known name that is no
    /// file here; else a path.
    ///
    /// # Errors
    /// [`CatalogError::Spec`] with the mend.
    pub fn parse(text: &str) -> Result<Spec, CatalogError> {
        if let Some(rest) = text.strip_prefix("hf:") {
            return HfFile::parse(rest).map(Spec::Hf);
        }
        if let Some(rest) = text.strip_prefix("ollama:") {
            return parse_ollama(rest);
        }
        let path = PathBuf::from(text);
        if text.contains('/') || text.ends_with(".gguf") || path.exists() {
            return Ok(Spec::File(path));
        }
        if let Some(model) = known::find(text) {
            return Ok(Spec::Known(model));
        }
        let shown: String = text.chars().take(120).collect();
        Err(CatalogError::Spec(format!(
            "'{shown}' is no file here and no known model: give a GGUF file, hf:OWNER/REPO/FILE.gguf, \
             ollama:NAME, or a name that `nearfar model catalogue` lists"
        )))
    }
}

impl HfFile {
    /// Reads `OWNER/REPO/FILE[@REVISION]`; the file may lie in folders.
    ///
    /// # Errors
    /// [`CatalogError::Spec`] with the mend.
    pub fn parse(text: &str) -> Result<HfFile, CatalogError> {
        let wrong = |problem: &str| {
            let shown: String = text.chars().take(200).collect();
            CatalogError::Spec(format!(
                "hf:{shown} {problem}: write hf:OWNER/REPO/FILE.gguf, with @REVISION after it if it is not main"
            ))
        };
        let (path, revision) = match text.split_once('@') {
            Some((path, revision)) => (path, revision),
            None => (text, "main"),
        };
        let mut parts = path.splitn(3, '/');
        let (Some(owner), Some(name), Some(file)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong("does not name a file in a repository"));
        };
        if !is_part(owner) || !is_part(name) {
            return Err(wrong(
                "has an owner or repository that Hugging Face does not allow",
            ));
        }
        if file.len() > 255 || !file.split('/').all(is_part) {
            return Err(wrong(
                "has a file name with empty parts, '..' or unusual characters",
            ));
        }
        if !file.ends_with(".gguf") {
            return Err(wrong("is not a GGUF file"));
        }
        if revision.len() > 128 || !revision.split('/').all(is_part) {
            return Err(wrong("has a revision that cannot be one"));
        }
        Ok(HfFile {
            repo: format!("{owner}/{name}"),
            file: file.to_owned(),
            revision: revision.to_owned(),
        })
    }

    /// The file's name without folders and ending.
    pub fn stem(&self) -> &str {
        let name = self.file.rsplit('/').next().unwrap_or(&self.file);
        name.strip_suffix(".gguf").unwrap_or(name)
    }
}

impl std::fmt::Display for HfFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "hf:{}/{}@{}", self.repo, self.file, self.revision)
    }
}

fn parse_ollama(text: &str) -> Result<Spec, CatalogError> {
    let (model, tag) = match text.rsplit_once(':') {
        Some((model, tag)) => (model, tag),
        None => (text, "latest"),
    };
    let parts = model.split('/').count();
    if parts > 3 || !model.split('/').all(is_part) || !is_part(tag) {
        let shown: String = text.chars().take(200).collect();
        return Err(CatalogError::Spec(format!(
            "ollama:{shown} is no name of an Ollama model: write ollama:NAME or ollama:NAME:TAG as `ollama list` shows it"
        )));
    }
    Ok(Spec::Ollama {
        model: model.to_owned(),
        tag: tag.to_owned(),
    })
}

/// One part of a path that comes from outside: it can be neither empty nor a
/// way up, and holds nothing that a URL or a shell would read as its own.
fn is_part(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 128
        && part != "."
        && part != ".."
        && part
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'+'))
}
