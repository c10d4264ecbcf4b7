//! Where the configuration comes from.

use std::path::PathBuf;
use tidegate_config::environment::Environment;
use tidegate_config::{Faults, Loaded};

/// Where the configuration comes from, at the start and at every reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// A site file.
    File(PathBuf),
    /// Text that does not change: standard input or the quick start.
    Text {
        /// Stands for the file in messages.
        name: String,
        /// YAML.
        text: String,
    },
}

impl ConfigSource {
    /// Loads the configuration as it is now.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(&self, environment: &dyn Environment) -> Result<Loaded, Faults> {
        match self {
            Self::File(path) => tidegate_config::load(path, environment),
            Self::Text { name, text } => tidegate_config::load_str(name, text, environment),
        }
    }

    /// The file's path as it was given, or what stands for it.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text { name, .. } => name.clone(),
        }
    }
}
