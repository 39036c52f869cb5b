//! What settings are resolved from, and where the text of each was found.

use super::environment::Environment;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// What settings are resolved from, before anything is looked at.
#[derive(Default)]
pub struct Inputs {
    /// Texts from flags, by lower-case key.
    pub flags: BTreeMap<&'static str, String>,
    /// The environment.
    pub environment: Environment,
    /// Paths of the gateway's routes that `HEALTH_CHECK_PATH` may not replace.
    pub reserved_paths: Vec<&'static str>,
}

/// Where the text of a setting came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// A flag on the command line.
    Flag,
    /// An environment variable, by its name as found (aliases differ).
    Variable(String),
    /// The configuration file.
    File(PathBuf),
    /// The platform, with the rule that decided.
    Platform(String),
    /// The table.
    Default,
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Platform(rule) => write!(f, "detected: {rule}"),
            Self::Default => f.write_str("default"),
        }
    }
}
