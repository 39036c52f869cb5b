//! `keyctl`: generates, lists, rotates and removes API keys. `llamagate::keys` does the work; this file does input and
//! output.
//!
//! Standard output carries only data (a secret, a table, JSON); messages go to standard error.
//! Exit status: 0 done, 1 refused or failed, 2 wrong usage.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use jiff::Timestamp;

use llamagate::cli::detect_platform;
use llamagate::keys::changes::{BadMember, KeyChange};
use llamagate::keys::edit::{self, EditError, Rotation};
use llamagate::keys::expiry;
use llamagate::keys::list::{as_json, as_table};
use llamagate::keys::parse::{KeyEntry, KeyFile};
use llamagate::keys::secret::{self, NewSecret};
use llamagate::keys::write::{IfMissing, Updated, Written, update};
use llamagate::keys::{self, Budget, CHANGE_SEEN_WITHIN, Key, KeyFileError};
use llamagate::ledger::{LedgerError, UsageQuery, read_all_usage, usage_table};
use llamagate::settings::options::Settings;
use llamagate::settings::{Environment, Inputs, SettingProblem, resolve_only};

#[path = "keyctl/args.rs"]
mod args;

use args::{ChangedMembers, Generate, KeyFileVerb, KeyctlArguments, Rotate, Verb};

/// Returns the settings with the files that the gateway of this environment uses: `AUTH_KEYS_FILE`, `USAGE_DB` and
/// `DATA_DIR` from variables, `ENV_FILE` and the configuration file.
///
/// # Errors
///
/// Returns all problems with `ENV_FILE` and with these settings.
fn gateways_settings(env_file: Option<PathBuf>) -> Result<Settings, Vec<SettingProblem>> {
    let mut inputs = Inputs { environment: Environment::capture(), ..Inputs::default() };
    inputs.flags.extend(env_file.map(|path| ("env_file", path.to_string_lossy().into_owned())));
    inputs.read_env_file();
    if !inputs.env_file_problems.is_empty() {
        return Err(inputs.env_file_problems);
    }
    let platform = detect_platform(&inputs.environment);
    let (settings, _) = resolve_only(&inputs, &platform, &["data_dir", "auth_keys_file", "usage_db"])?;
    Ok(settings)
}

/// Shows what a key has used.
fn show_usage(name: &str, settings: &Settings) -> CommandResult {
    let path = settings.usage.usage_db.0.as_deref().ok_or(LedgerError::Off)?;
    let query = UsageQuery::read([("by", "day,model")]).unwrap_or_default().of_key(Some(name.to_owned()));
    let page = read_all_usage(path, &query)?;
    write!(io::stdout(), "{}", usage_table(&page.columns, &page.data))?;
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let cli = match KeyctlArguments::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // If even this cannot be printed, only the exit status is left.
            let _ = usage.print();
            return u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    run(cli).unwrap_or_else(|error| report(&error))
}

fn run(cli: KeyctlArguments) -> CommandResult {
    let KeyctlArguments { file, env_file, quiet, verb } = cli;
    let settings = || gateways_settings(env_file).map_err(KeyctlError::Settings);
    let verb = match verb {
        Verb::Usage { name } => return show_usage(&name, &settings()?),
        Verb::OnKeyFile(verb) => verb,
    };
    let file = match file {
        Some(file) => file,
        None => settings()?.access.auth_keys_file,
    };
    let session = Session { file, quiet, now: Timestamp::now() };
    match verb {
        KeyFileVerb::Generate(wanted) => session.generate(wanted),
        KeyFileVerb::List { json } => session.list(json),
        KeyFileVerb::Remove { name } => session.remove(&name),
        KeyFileVerb::Rotate(wanted) => session.rotate(wanted),
        KeyFileVerb::Change(wanted) => session.change(&wanted),
        KeyFileVerb::Verify => session.verify(),
        KeyFileVerb::Prune => session.prune(),
    }
}

/// Prints why a subcommand failed. Returns the exit code of that.
fn report(error: &KeyctlError) -> ExitCode {
    match error {
        KeyctlError::Settings(problems) => {
            for problem in problems {
                print_message(&format!("error: {problem}"));
            }
            print_message("hint: --file FILE names the key file itself");
        }
        KeyctlError::Edit(error) => print_error(&error.to_string(), &error.hint()),
        // The reader of a pipe, such as `head`, has read enough.
        KeyctlError::Stdio(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        KeyctlError::Stdio(error) => print_error(
            &format!("standard input or output failed: {error}"),
            "if a new secret was to be printed, it is lost; keyctl rotate makes another",
        ),
        KeyctlError::Member(error) => print_error(&error.to_string(), SET_HINT),
        KeyctlError::NoValue(given) => print_error(&format!("'{given}' has no value"), SET_HINT),
        KeyctlError::Usage(error) => {
            print_error(&error.to_string(), "USAGE_DB is the file that the gateway records in")
        }
    }
    ExitCode::FAILURE
}

const SET_HINT: &str = "write --set MEMBER=VALUE as in the key file, such as --set rate_limit=60 --set expires=30d";

fn print_error(error: &str, hint: &str) {
    print_message(&format!("error: {error}\nhint: {hint}"));
}

/// Prints a line to standard error. Not with `eprintln`, which panics if standard error is closed.
fn print_message(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Why a subcommand failed.
enum KeyctlError {
    /// The settings of the gateway that say which files it uses.
    Settings(Vec<SettingProblem>),
    /// The key file could not be read or edited.
    Edit(EditError),
    /// Standard input or output failed.
    Stdio(io::Error),
    /// Usage could not be read.
    Usage(LedgerError),
    /// A member or its value is not right.
    Member(BadMember),
    /// `--set` without a value.
    NoValue(String),
}

impl From<BadMember> for KeyctlError {
    fn from(error: BadMember) -> Self {
        Self::Member(error)
    }
}

impl From<LedgerError> for KeyctlError {
    fn from(error: LedgerError) -> Self {
        Self::Usage(error)
    }
}

impl From<EditError> for KeyctlError {
    fn from(error: EditError) -> Self {
        Self::Edit(error)
    }
}

impl From<KeyFileError> for KeyctlError {
    fn from(error: KeyFileError) -> Self {
        Self::Edit(error.into())
    }
}

impl From<io::Error> for KeyctlError {
    fn from(error: io::Error) -> Self {
        Self::Stdio(error)
    }
}

type CommandResult = Result<ExitCode, KeyctlError>;

/// One run of the program: the key file, whether to print messages, and the current time.
struct Session {
    file: PathBuf,
    quiet: bool,
    now: Timestamp,
}

impl Session {
    fn generate(&self, wanted: Generate) -> CommandResult {
        let key = Key {
            id: wanted.name.clone(),
            rate_limit: wanted.rate_limit,
            expires: wanted.expires.resolve(self.now),
            scopes: wanted.scope.into_iter().collect(),
            models: wanted.models,
            tokens_per_minute: wanted.tokens_per_minute,
            max_concurrent: wanted.max_concurrent,
            budget: Budget {
                requests_per_day: wanted.requests_per_day,
                tokens_per_day: wanted.tokens_per_day,
                tokens_per_month: wanted.tokens_per_month,
                cost_per_month: wanted.cost_per_month,
                person_tokens_per_day: wanted.person_tokens_per_day,
            },
            priority: wanted.priority,
            trust_user_headers: wanted.trust_user_headers,
        };
        let secret = NewSecret::generate().map_err(EditError::from)?;
        let stored = secret.stored(wanted.plain);
        // Stored before it is shown, so that a secret that was printed always works.
        let updated = update(&self.file, IfMissing::Create, |file| edit::add(file, key, stored, self.now))?;
        self.print_secret(&format!("generated key '{}'", wanted.name), &secret)?;
        self.report_update(&updated);
        Ok(ExitCode::SUCCESS)
    }

    fn rotate(&self, wanted: Rotate) -> CommandResult {
        let secret = NewSecret::generate().map_err(EditError::from)?;
        let rotation = Rotation {
            secret: secret.stored(wanted.plain),
            old_ends: expiry::after(self.now, wanted.overlap),
            expires: wanted.expires.map(|expires| expires.resolve(self.now)),
        };
        let old_ends = rotation.old_ends;
        let name = &wanted.name;
        let updated = update(&self.file, IfMissing::Fail, |file| edit::rotate(file, name, rotation, self.now))?;
        self.print_secret(&format!("rotated key '{name}'"), &secret)?;
        if old_ends > self.now {
            self.print_note(&format!("the old secret stays valid until {old_ends} at the latest"));
        } else {
            self.print_note("the old secret is gone");
        }
        self.report_update(&updated);
        Ok(ExitCode::SUCCESS)
    }

    fn remove(&self, name: &str) -> CommandResult {
        let updated = update(&self.file, IfMissing::Fail, |file| edit::remove(file, name))?;
        self.print_note(&format!("removed key '{name}' ({})", counted(updated.value, "line")));
        self.report_update(&updated);
        Ok(ExitCode::SUCCESS)
    }

    fn change(&self, wanted: &ChangedMembers) -> CommandResult {
        let mut change = KeyChange::default();
        for given in &wanted.set {
            let (member, value) = given.split_once('=').ok_or_else(|| KeyctlError::NoValue(given.clone()))?;
            change.set(member, Some(value), self.now)?;
        }
        for member in &wanted.unset {
            change.set(member, None, self.now)?;
        }
        let name = &wanted.name;
        let updated = update(&self.file, IfMissing::Fail, |file| edit::change(file, name, &change))?;
        self.print_note(&format!("changed key '{name}'"));
        self.report_update(&updated);
        Ok(ExitCode::SUCCESS)
    }

    fn prune(&self) -> CommandResult {
        let updated = update(&self.file, IfMissing::Fail, |file| Ok::<_, KeyFileError>(edit::prune(file, self.now)))?;
        match updated.value.as_slice() {
            [] => self.print_note("no key has expired"),
            names => {
                self.print_note(&format!("dropped {}: {}", counted(names.len(), "expired line"), names.join(", ")))
            }
        }
        self.report_update(&updated);
        Ok(ExitCode::SUCCESS)
    }

    fn list(&self, json: bool) -> CommandResult {
        let file = keys::read(&self.file)?;
        let text = if json { as_json(&file, self.now) } else { as_table(&file, self.now) };
        writeln!(io::stdout(), "{text}")?;
        self.print_note(&format!("{} configured", counted(file.entries().count(), "key")));
        self.warn_of_bad_lines(&file);
        Ok(ExitCode::SUCCESS)
    }

    fn verify(&self) -> CommandResult {
        let file = keys::read(&self.file)?;
        if io::stdin().is_terminal() {
            self.print_note("paste the secret and press Enter");
        }
        let secret = read_secret()?;
        let (verdict, status) = match file.find(&secret) {
            _ if !secret::is_well_formed(&secret) => {
                ("malformed: a secret is 16 to 128 of A-Z a-z 0-9 _ -".to_owned(), ExitCode::FAILURE)
            }
            None => ("unknown: no line of the key file holds this secret".to_owned(), ExitCode::FAILURE),
            Some((line, KeyEntry { key, .. })) => {
                let end = key.expires.map_or("never".to_owned(), |end| end.to_string());
                if key.has_expired(self.now) {
                    (format!("expired: key '{}' in line {line} ended {end}", key.id), ExitCode::FAILURE)
                } else {
                    (
                        format!("valid: key '{}' in line {line}, scope {}, ends {end}", key.id, key.scopes),
                        ExitCode::SUCCESS,
                    )
                }
            }
        };
        writeln!(io::stdout(), "{verdict}")?;
        self.warn_of_bad_lines(&file);
        Ok(status)
    }

    fn print_secret(&self, what: &str, secret: &NewSecret) -> io::Result<()> {
        self.print_note(&format!("{what}; its secret is shown only this once:"));
        writeln!(io::stdout(), "{}", secret.reveal())
    }

    /// Prints the messages that follow every edit.
    fn report_update<T>(&self, updated: &Updated<T>) {
        self.warn_of_bad_lines(&updated.file);
        if updated.written == Written::Unchanged {
            return;
        }
        if !updated.locked {
            self.print_note("warning: this file system has no locks; do not run two keyctl at once");
        }
        if updated.file.entries().next().is_some() {
            self.print_note(&format!("a running gateway picks this up within {} s", CHANGE_SEEN_WITHIN.as_secs()));
        } else {
            // Even with `--quiet`, because a key that was just removed may still work.
            print_message(
                "warning: the file holds no key now, and a running gateway keeps the keys it has until there is one",
            );
            print_message("hint: make another key, or stop the gateway");
        }
    }

    fn warn_of_bad_lines(&self, file: &KeyFile) {
        for (line, problem) in file.problems() {
            self.print_note(&format!("warning: line {line} is skipped: {problem}"));
        }
    }

    /// Prints a message to standard error, unless `--quiet` is given.
    fn print_note(&self, text: &str) {
        if !self.quiet {
            print_message(text);
        }
    }
}

/// Reads one line from standard input, or the start of a longer one, which cannot be a secret anyway.
fn read_secret() -> io::Result<String> {
    let mut line = Vec::new();
    // Room for spaces around the secret and for the line ending.
    let bound = *secret::SECRET_LENGTH.end() as u64 + 64;
    io::stdin().lock().take(bound).read_until(b'\n', &mut line)?;
    Ok(String::from_utf8_lossy(&line).trim().to_owned())
}

fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}
