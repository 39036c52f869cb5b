//! The inputs of settings, and the source of each value.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::environment::Environment;
use super::problem::SettingProblem;

/// The raw inputs that settings are resolved from.
#[derive(Clone, Default)]
pub struct Inputs {
    /// Texts from flags, by lower-case key.
    pub flags: BTreeMap<&'static str, String>,
    /// The environment variables.
    pub environment: Environment,
    /// What is wrong with `ENV_FILE`, whose variables are among those of the environment.
    pub env_file_problems: Vec<SettingProblem>,
    /// Whether `ENV_FILE` could not be read at all.
    pub is_env_file_unread: bool,
    /// Whether users other than its owner may read or write `ENV_FILE`.
    pub is_env_file_open: bool,
    /// Paths of the gateway's routes that `HEALTH_CHECK_PATH` may not replace.
    pub reserved_paths: Vec<&'static str>,
}

/// The source of a setting's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueSource {
    /// A flag on the command line.
    Flag,
    /// An environment variable, with the name that was set (the setting's own or an alias).
    Variable(String),
    /// A variable of `ENV_FILE`, in the same way.
    EnvFile(String),
    /// The configuration file.
    File(PathBuf),
    /// Platform detection, with the rule that applied.
    Platform(String),
    /// The default in the table of settings.
    Default,
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::EnvFile(name) => write!(f, "variable {name} of ENV_FILE"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Platform(rule) => write!(f, "detected: {rule}"),
            Self::Default => f.write_str("default"),
        }
    }
}
