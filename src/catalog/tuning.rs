//! How an owner wants a model run: what its file cannot say.

use std::path::PathBuf;

use nearfar_domain::frames::{DraftSource, KvNumbers, Tuning};
use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::store::ModelStore;
use super::{CatalogError, EMBEDDED};

/// What a manifest says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuned {
    /// The name of a smaller installed model that guesses ahead of this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
    /// How keys and values are kept.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kv: KvNumbers,
}

fn is_default(kv: &KvNumbers) -> bool {
    *kv == KvNumbers::default()
}

impl Tuned {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A change to it; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Another draft, or none.
    pub draft: Option<Option<String>>,
    /// Another way to keep keys and values.
    pub kv: Option<KvNumbers>,
}

impl ModelStore {
    /// Changes how a model is run and writes that down.
    ///
    /// # Errors
    /// There is no such model, or the draft does not go with it: why.
    pub fn tune(&self, name: &str, change: &Change) -> Result<Manifest, CatalogError> {
        if name == EMBEDDED {
            return Err(CatalogError::Embedded(
                name.to_owned(),
                "how it is run cannot be changed",
            ));
        }
        self.get(name)?;
        let _lock = self.lock()?;
        let mut manifest = self.get(name)?;
        if let Some(draft) = &change.draft {
            if let Some(draft) = draft {
                self.check_draft(&manifest, draft)?;
            }
            manifest.tuning.draft = draft.clone();
        }
        if let Some(kv) = change.kv {
            if manifest.facts.dimensions.is_some() {
                return Err(CatalogError::Spec(format!(
                    "'{name}' makes vectors and keeps no keys and values"
                )));
            }
            manifest.tuning.kv = kv;
        }
        self.write_manifest(&manifest)?;
        Ok(manifest)
    }

    fn check_draft(&self, model: &Manifest, name: &str) -> Result<(), CatalogError> {
        let wrong = |reason: &str| {
            Err(CatalogError::Spec(format!(
                "'{name}' cannot be the draft of '{}': {reason}",
                model.name
            )))
        };
        if name == EMBEDDED {
            return wrong("it has tokens of its own; take a smaller model of the same family");
        }
        if name == model.name {
            return wrong(
                "a model gains nothing from itself; take a smaller one of the same family",
            );
        }
        let draft = self.get(name)?;
        if model.facts.dimensions.is_some() || draft.facts.dimensions.is_some() {
            return wrong("only models that answer in words have drafts and are drafts");
        }
        let (of, drafts) = (self.files(model), self.files(&draft));
        let difference = nearfar_engine::token_difference(
            (&of.0, of.1.as_deref()),
            (&drafts.0, drafts.1.as_deref()),
        );
        match difference {
            Ok(None) => Ok(()),
            Ok(Some(difference)) => wrong(&format!(
                "{difference}; take a smaller model of the same family"
            )),
            Err(error) => wrong(&error.to_string()),
        }
    }

    /// Weights, and a tokenizer beside them.
    fn files(&self, manifest: &Manifest) -> (PathBuf, Option<PathBuf>) {
        let tokenizer = manifest.tokenizer.as_ref().map(|digest| self.blob(digest));
        (self.weights(manifest), tokenizer)
    }

    /// As the engine is told. A draft that is not there any more is left out,
    /// with a warning: the model answers without it, only slower.
    pub(super) fn tuning_of(&self, manifest: &Manifest) -> Tuning {
        let draft = manifest.tuning.draft.as_ref().and_then(|name| {
            let text = |path: PathBuf| path.to_string_lossy().into_owned();
            let found = self.get(name).map_err(|error| error.to_string());
            let checked = found.and_then(|draft| self.check_place(&draft).map(|()| draft));
            match checked {
                Ok(draft) => {
                    let (path, tokenizer) = self.files(&draft);
                    Some(DraftSource {
                        name: draft.name,
                        path: text(path),
                        tokenizer: tokenizer.map(text),
                    })
                }
                Err(problem) => {
                    tracing::warn!(
                        model = manifest.name,
                        draft = name,
                        "its draft is left out: {problem}"
                    );
                    None
                }
            }
        });
        Tuning {
            draft,
            kv: manifest.tuning.kv,
        }
    }

    /// Refuses what would leave a model without its draft.
    pub(super) fn check_no_draft(&self, name: &str) -> Result<(), CatalogError> {
        let manifests = self.manifests_or_warn();
        let user = manifests
            .iter()
            .find(|other| other.tuning.draft.as_deref() == Some(name));
        match user {
            None => Ok(()),
            Some(user) => Err(CatalogError::Spec(format!(
                "'{name}' is the draft of '{0}': `nearfar model set {0} --no-draft` first",
                user.name
            ))),
        }
    }
}
