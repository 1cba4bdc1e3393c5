mod presets;
mod provider;
pub use presets::{preset, presets};
pub use provider::{KeySource, Options, Provider};
