//! A copy of the process environment, taken once at the start. All other code reads the copy, so that tests can pass
//! their own. Owns which variables a child process inherits.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The environment variables as they were at the start of the process.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// The variables that `ENV_FILE` sets.
    from_file: BTreeSet<String>,
    /// The variables that an alias sets, with the name of the alias.
    by_alias: BTreeMap<String, &'static str>,
}

impl Environment {
    /// Copies the environment of this process. Bytes that are not UTF-8 become U+FFFD.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn capture() -> Self {
        // `std::env::vars` panics on text that is not UTF-8.
        let lossy = |text: &OsStr| text.to_string_lossy().into_owned();
        std::env::vars_os().map(|(name, value)| (lossy(&name), lossy(&value))).collect()
    }

    /// Returns the value of a variable. An empty value counts as unset, because `FOO=` in a compose file means that.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Sets a variable of ours to the value that an alias gives it.
    pub(super) fn set_by_alias(&mut self, own: &str, alias: &'static str, value: String) {
        if self.from_file.contains(alias) {
            self.from_file.insert(own.to_owned());
        } else {
            self.from_file.remove(own);
        }
        self.variables.insert(own.to_owned(), value);
        self.by_alias.insert(own.to_owned(), alias);
    }

    /// Returns the name under which a variable of ours was set: its own, or that of an alias.
    pub(super) fn name_of<'a>(&'a self, own: &'a str) -> &'a str {
        self.by_alias.get(own).copied().unwrap_or(own)
    }

    /// Adds a variable of `ENV_FILE`, unless the environment of the process sets it.
    pub(super) fn add_from_file(&mut self, name: String, value: String) {
        // Of two lines with the same name the last one wins, as in a shell.
        if self.get(&name).is_none() || self.from_file.contains(&name) {
            self.from_file.insert(name.clone());
            self.variables.insert(name, value);
        }
    }

    /// Whether `ENV_FILE` sets this variable.
    pub(super) fn is_from_file(&self, name: &str) -> bool {
        self.from_file.contains(name)
    }

    /// Returns the names of the variables of `ENV_FILE` that hold a secret, in their order. One that is read as ours is
    /// named as the file has it.
    pub(super) fn secrets_of_file(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| is_secret(name) && self.is_from_file(name) && !self.by_alias.contains_key(*name))
    }

    /// Returns the names of the variables that have a value, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().filter(|(_, value)| !value.is_empty()).map(|(name, _)| name.as_str())
    }

    /// Returns the first executable file of that name in the folders of `PATH`.
    pub fn find_program(&self, name: &str) -> Option<PathBuf> {
        let folders = self.get("PATH")?;
        std::env::split_paths(folders).map(|folder| folder.join(name)).find(|path| is_executable(path))
    }

    /// Returns the folders in which Hugging Face's own tools keep downloads if `HF_HUB_CACHE` is not set, in the order
    /// in which they try them.
    pub(super) fn hub_caches(&self) -> impl Iterator<Item = PathBuf> {
        let below = |name: &str, path: &str| self.get(name).map(|folder| Path::new(folder).join(path));
        let homes = [
            below("HF_HOME", "hub"),
            below("XDG_CACHE_HOME", "huggingface/hub"),
            below("HOME", ".cache/huggingface/hub"),
        ];
        homes.into_iter().flatten()
    }

    /// Returns the folder of the user, in which other programs keep their models.
    pub(super) fn home(&self) -> Option<&Path> {
        self.get("HOME").map(Path::new)
    }

    /// Returns the files in which Hugging Face's own tools keep the token, in the order in which they try them.
    pub(super) fn hub_token_files(&self) -> impl Iterator<Item = PathBuf> {
        self.hub_caches().map(|cache| cache.with_file_name("token"))
    }

    /// Returns the variables that a llama-server child inherits: those for libraries, GPUs and the locale. Excluded are
    /// secrets, and variables that configure llama-server itself (`LLAMA_*`).
    pub fn for_child(&self) -> Vec<(String, String)> {
        const NAMES: &[&str] = &["PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"];
        const PREFIXES: &[&str] = &[
            "CUDA_", "NVIDIA_", "GGML_", "HIP_", "HSA_", "ROCR_", "ROCM_", "VK_", "ONEAPI_", "SYCL_", "OMP_", "NCCL_",
        ];
        self.variables
            .iter()
            .filter(|(name, _)| {
                NAMES.contains(&name.as_str()) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Returns the variables that an rpc-server inherits: those of [`Self::for_child`], and those that say where it keeps its
    /// cache.
    pub fn for_rpc_server(&self) -> Vec<(String, String)> {
        let mut inherited = self.for_child();
        for name in ["HOME", "XDG_CACHE_HOME", "LLAMA_CACHE"] {
            inherited.extend(self.get(name).map(|value| (name.to_owned(), value.to_owned())));
        }
        inherited
    }

    /// Returns the variables that a user's command inherits, such as vLLM or `mlx_lm.server`: those of
    /// [`Self::for_child`], and those with which Python and Hugging Face find the user's programs, models and caches
    /// (`HOME`, `XDG_CACHE_HOME`, `HF_*`, `TRANSFORMERS_*`, `VIRTUAL_ENV` and the user's name). `HF_TOKEN` is the only
    /// secret among them, for gated models; other variables named as a key, token, secret or password are excluded.
    pub fn for_command(&self) -> Vec<(String, String)> {
        const NAMES: &[&str] = &["HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "VIRTUAL_ENV", "HF_TOKEN"];
        const PREFIXES: &[&str] = &["HF_", "TRANSFORMERS_"];
        let mut inherited = self.for_child();
        let more = self.variables.iter().filter(|(name, _)| {
            NAMES.contains(&name.as_str())
                || (!is_secret(name) && PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        });
        inherited.extend(more.map(|(name, value)| (name.clone(), value.clone())));
        inherited
    }
}

/// Whether the name of a variable says that its value is a secret.
fn is_secret(name: &str) -> bool {
    ["KEY", "TOKEN", "SECRET", "PASSWORD"].iter().any(|word| name.ends_with(word))
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let clean = |(name, value): (String, String)| {
            let clean = as_meant(&name, &value).to_owned();
            (name, clean)
        };
        Self { variables: pairs.into_iter().map(clean).collect(), ..Self::default() }
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Environment {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(pairs: I) -> Self {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// Returns a value without what platforms and editors add to it: blanks, carriage returns and line feeds around it, a
/// byte order mark, and quotes around the whole, which `docker --env-file` and web forms do not remove. The quotes of
/// `EXTRA_ARGS` are a shell's, and [`ExtraArgs`](super::values::ExtraArgs) reads them.
fn as_meant<'a>(name: &str, value: &'a str) -> &'a str {
    let is_around = |c: char| c.is_whitespace() || c == '\u{feff}';
    let value = value.trim_matches(is_around);
    if name == "EXTRA_ARGS" {
        return value;
    }
    let inner = ['"', '\''].iter().find_map(|quote| {
        let inner = value.strip_prefix(*quote)?.strip_suffix(*quote)?;
        (!inner.contains(*quote)).then_some(inner)
    });
    inner.map_or(value, |inner| inner.trim_matches(is_around))
}

impl<const N: usize> From<[(&str, &str); N]> for Environment {
    fn from(pairs: [(&str, &str); N]) -> Self {
        pairs.into_iter().collect()
    }
}

/// Returns whether the path is a file with an execute bit for any user.
pub fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_not_set() {
        assert_eq!(Environment::from([("PORT", "")]).get("PORT"), None);
    }

    #[test]
    fn what_platforms_add_to_a_value_was_a_part_of_it() {
        for (delivered, meant) in [
            ("8000\r", "8000"),
            ("8000 \t\r\n", "8000"),
            (" 8000", "8000"),
            ("\u{feff}8000", "8000"),
            ("\"8000\"", "8000"),
            ("'8000'\r", "8000"),
            ("\"8000\r\"", "8000"),
            ("\"a b\"", "a b"),
            ("a\nb", "a\nb"),
            ("\"a\" \"b\"", "\"a\" \"b\""),
            ("it's", "it's"),
            ("\"", "\""),
        ] {
            assert_eq!(Environment::from([("X", delivered)]).get("X"), Some(meant), "{delivered:?}");
        }
        for blank in [" ", "\r", "\n\n", "\"\"", "' '", "\u{feff}"] {
            assert_eq!(Environment::from([("X", blank)]).get("X"), None, "{blank:?} is unset");
        }
        let child = Environment::from([("CUDA_VISIBLE_DEVICES", "0\r"), ("PATH", "\"/bin\"")]).for_child();
        let expected = [("CUDA_VISIBLE_DEVICES", "0"), ("PATH", "/bin")];
        assert_eq!(child, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let arguments = Environment::from([("EXTRA_ARGS", "\"--jinja --temp 1\"\r")]);
        assert_eq!(arguments.get("EXTRA_ARGS"), Some("\"--jinja --temp 1\""));
    }

    #[test]
    fn a_child_inherits_neither_llama_settings_nor_secrets() {
        let environment = Environment::from([
            ("PATH", "/bin"),
            ("CUDA_VISIBLE_DEVICES", "0"),
            ("LLAMA_ARG_HOST", "0.0.0.0"),
            ("LLAMA_API_KEY", "x"),
            ("HF_TOKEN", "x"),
            ("RUNPOD_API_KEY", "x"),
            ("HOME", "/root"),
        ]);
        let names: Vec<_> = environment.for_child().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["CUDA_VISIBLE_DEVICES", "PATH"]);
    }

    #[test]
    fn a_command_inherits_the_locations_of_models_and_no_secret_but_hf_token() {
        let environment = Environment::from([
            ("PATH", "/bin"),
            ("HOME", "/home/u"),
            ("HF_HOME", "/cache"),
            ("HF_TOKEN", "x"),
            ("HF_OTHER_TOKEN", "x"),
            ("TRANSFORMERS_OFFLINE", "1"),
            ("XDG_CACHE_HOME", "/cache"),
            ("OPENAI_API_KEY", "x"),
            ("LLAMA_API_KEY", "x"),
            ("RUNPOD_API_KEY", "x"),
            ("AUTH_KEYS_FILE", "x"),
        ]);
        let names: Vec<_> = environment.for_command().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "HF_HOME", "HF_TOKEN", "HOME", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME"]);
    }
}
