//! `llamagate launch`: asks the service, shows what changes, and writes it.

use std::fs;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, stderr, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::agent::AgentTarget;
use super::args::LaunchArgs;
use super::diff;
use crate::cli::client::{self, CallError, Paint, ServiceAddress, ServiceClient};
use crate::cli::files;
use crate::cli::output::{print, print_stderr};
use crate::models::list::printable;
use crate::settings::Environment;

/// Bytes that a configuration may have.
const LARGEST_CONFIG: u64 = 4 * 1024 * 1024;
/// Bytes that are read at most of an answer.
const LONGEST_ANSWER: u64 = 1024;

/// Runs `llamagate launch`.
pub(in crate::cli) fn run(arguments: LaunchArgs, environment: Environment) -> ExitCode {
    let is_json = arguments.client.json;
    match launch(arguments, environment) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(is_json),
    }
}

fn launch(arguments: LaunchArgs, environment: Environment) -> Result<(), CallError> {
    let LaunchArgs { agent, model, yes, client } = arguments;
    let is_json = client.json;
    let path = agent.path(&environment).ok_or_else(|| CallError::Usage("HOME is not set".to_owned()))?;
    let paint = Paint::for_stream(&environment, &stderr());
    let service = ServiceClient::new(ServiceAddress::of(client, environment)?)?;
    if let Some(name) = service.address().certificate_name() {
        return Err(CallError::Usage(format!(
            "the certificate of this service is for {name}, and agents take it for no other: give --url https://{name}, with the \
             port that leads here unless that is 443"
        )));
    }
    let (base, key) = (service.address().base().to_owned(), service.address().key().map(str::to_owned));
    let model = client::run(find_model(&service, model))?;
    let target = AgentTarget { base, model, key };
    let shown_path = printable(&path.display().to_string());
    let of_file = |fault: &dyn std::fmt::Display| CallError::Broken(format!("{shown_path}: {fault}"));
    let before = read(&path).map_err(|error| of_file(&error))?;
    let after = agent.configure(&before, &target).map_err(|fault| of_file(&fault))?;
    let mut backup = None;
    if after != before {
        if !yes {
            let key = target.key.as_deref();
            print_stderr(&format!("{shown_path}:\n{}", diff::shown(&before, &after, key, paint)));
            ask()?;
        }
        backup = write(&path, &before, &after).map_err(|error| of_file(&error))?;
    }
    let is_changed = after != before;
    if is_json {
        let (agent, model) = (agent.program(), &target.model);
        let report = json!({"path": path, "agent": agent, "model": model, "changed": is_changed, "backup": backup});
        print(&format!("{report}\n"));
        return Ok(());
    }
    let what = if is_changed { "is written" } else { "is as it should be" };
    let backup = backup.map(|backup| format!(" (before: {})", backup.display())).unwrap_or_default();
    print(&format!("{shown_path} {what}{backup}. Start it: {}\n", agent.program()));
    if let Some(file) = service.address().certificate_file() {
        let file = printable(&file.display().to_string());
        print(&format!("It must trust the certificate: export NODE_EXTRA_CA_CERTS={file} SSL_CERT_FILE={file}\n"));
    }
    if service.address().has_client_certificate() {
        print(
            "This command has shown a certificate. If the service asks for one (TLS_CLIENT_CA), the agent must show one too.\n",
        );
    }
    if target.key.is_some() && agent.reads_key_variable() {
        print("It reads the key from the environment: export LLAMAGATE_KEY=...\n");
    }
    Ok(())
}

/// Returns the model that was asked for if there is one of this name, or the first chat model.
async fn find_model(service: &ServiceClient, wanted: Option<String>) -> Result<String, CallError> {
    if let Some(wanted) = wanted {
        let name: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
        // Also an alias, or the name of an adapter.
        service.get_json(&format!("/v1/models/{}", name.replace('+', "%20").replace("%2F", "/"))).await?;
        return Ok(wanted);
    }
    let list = service.get_json("/v1/models/chat").await?;
    let first = list.as_array().or_else(|| list["data"].as_array()).and_then(|models| models.first().cloned());
    let id = first.as_ref().and_then(|model| model["id"].as_str().or_else(|| model.as_str()));
    let none = || CallError::Broken("the service has no chat model that this key may use".to_owned());
    id.map(str::to_owned).ok_or_else(none)
}

/// Reads a configuration; one that is not there is empty.
fn read(path: &Path) -> io::Result<String> {
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        file => file?,
    };
    let mut text = String::new();
    file.take(LARGEST_CONFIG + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LARGEST_CONFIG {
        true => Err(io::Error::other(format!("it has more than {LARGEST_CONFIG} bytes"))),
        false => Ok(text),
    }
}

/// Writes the configuration. One that was there is kept under the name that is returned.
fn write(path: &Path, before: &str, after: &str) -> io::Result<Option<PathBuf>> {
    if path.symlink_metadata().is_err() {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // A key may be in it.
        return files::write_private(path, after).map(|()| None);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.bak", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ")));
    let backup = PathBuf::from(name);
    files::write_with_mode_of(&backup, before, path)?;
    files::write(path, after, true)?;
    Ok(Some(backup))
}

/// Asks on the terminal.
fn ask() -> Result<(), CallError> {
    if !stdin().is_terminal() {
        return Err(CallError::Usage("nothing is written: there is no terminal to ask on; give --yes".to_owned()));
    }
    print_stderr("Write this? [y/N] ");
    let mut answer = String::new();
    let read = BufReader::new(stdin().lock().take(LONGEST_ANSWER)).read_line(&mut answer);
    let is_yes = read.is_ok() && ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
    if is_yes { Ok(()) } else { Err(CallError::Broken("nothing is written".to_owned())) }
}
