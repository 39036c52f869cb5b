//! The command line. Unknown flags are accepted, with or without a value.

use std::path::PathBuf;

/// The arguments that the fake uses.
#[derive(Debug)]
pub(super) struct Arguments {
    pub(super) model: PathBuf,
    pub(super) alias: Option<String>,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) keys: Vec<String>,
    pub(super) slots: usize,
    pub(super) context: u64,
    pub(super) embedding: bool,
    pub(super) reranking: bool,
    pub(super) metrics: bool,
    pub(super) slots_endpoint: bool,
}

impl Arguments {
    /// Parses the arguments after the program's name, and reads the key file.
    pub(super) fn parse(argv: &[String]) -> Result<Self, String> {
        let mut arguments = Arguments {
            model: PathBuf::new(),
            alias: None,
            host: "127.0.0.1".into(),
            port: 8080,
            keys: Vec::new(),
            slots: 4, // the result of llama-server's "auto"
            context: 4096,
            embedding: false,
            reranking: false,
            metrics: false,
            slots_endpoint: true,
        };
        let mut rest = argv.iter().map(String::as_str).peekable();
        while let Some(argument) = rest.next() {
            let (flag, inline) = match argument.split_once('=') {
                Some((flag, value)) if flag.starts_with("--") => (flag, Some(value)),
                _ => (argument, None),
            };
            match flag {
                "--embedding" | "--embeddings" => arguments.embedding = true,
                "--reranking" | "--rerank" => arguments.reranking = true,
                "--metrics" => arguments.metrics = true,
                "--no-slots" => arguments.slots_endpoint = false,
                _ if !flag.starts_with('-') => return Err(format!("invalid argument: {flag}")),
                _ => {
                    let value = inline.or_else(|| rest.next_if(|next| is_value(next)));
                    arguments.set(flag, value)?;
                }
            }
        }
        if arguments.model.as_os_str().is_empty() {
            return Err("the fake needs a model: -m PATH".into());
        }
        Ok(arguments)
    }

    fn set(&mut self, flag: &str, value: Option<&str>) -> Result<(), String> {
        let needed = || value.ok_or_else(|| format!("expected value for argument {flag}"));
        let number = || needed()?.parse::<i64>().map_err(|_| format!("{flag} wants a number"));
        match flag {
            "-m" | "--model" => self.model = needed()?.into(),
            "-a" | "--alias" => self.alias = Some(needed()?.into()),
            "--host" => self.host = needed()?.into(),
            "--port" => self.port = u16::try_from(number()?).map_err(|_| "port out of range")?,
            "-np" | "--parallel" => self.slots = usize::try_from(number()?).unwrap_or(4),
            "-c" | "--ctx-size" => self.context = u64::try_from(number()?).map_err(|_| "bad context")?,
            "--api-key" => self.keys.extend(needed()?.split(',').map(String::from)),
            "--api-key-file" => self.keys.extend(read_keys(needed()?)?),
            _ => {} // unknown flags are accepted
        }
        Ok(())
    }

    /// Returns the model's name: the alias, else the file name.
    pub(super) fn model_name(&self) -> String {
        match &self.alias {
            Some(alias) => alias.clone(),
            None => self.model.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }
}

/// Whether the argument is a value. A negative number is one (`--seed -1`); anything else with a dash is a flag.
fn is_value(argument: &str) -> bool {
    !argument.starts_with('-') || argument.parse::<f64>().is_ok()
}

fn read_keys(path: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("failed to open file '{path}': {e}"))?;
    let keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(keys.map(String::from).collect())
}
