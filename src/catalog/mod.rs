//! Models of this device: the embedded one and those in the model store.

use nearfar_domain::frames::ModelSource;
use nearfar_domain::target::Capabilities;

/// A model that this device can run.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}
