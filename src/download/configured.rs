//! Makes the downloader that settings describe.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::bounds::LONGEST_TOKEN;
use super::downloader::Downloader;
use super::hub::{Hub, Token};
use super::transfer::DownloadLimits;
use crate::settings::options::{Downloads, Settings};
use crate::settings::values::{HubToken, Value as _};

impl Downloader {
    /// Returns the downloader that settings describe, and a warning about its token if there is one.
    ///
    /// # Errors
    /// TLS or the name resolver cannot be set up.
    pub fn of_settings(settings: &Settings) -> io::Result<(Self, Option<String>)> {
        let downloads = &settings.downloads;
        let (token, warning) = token_of(downloads);
        let limits = DownloadLimits {
            connections: downloads.download_connections.0,
            retries: downloads.download_retries,
            max_rate: downloads.download_max_rate.0.map(|rate| rate.0 as u64),
        };
        let downloader = Self {
            hub: Hub::new(downloads.hf_endpoint.0.clone(), token)?,
            cache: settings.files.hf_hub_cache.clone(),
            models_dir: settings.files.models_dir.clone(),
            limits,
        };
        Ok((downloader, warning))
    }
}

fn token_of(downloads: &Downloads) -> (Option<Token>, Option<String>) {
    if let Some(token) = &downloads.hf_token {
        return match token.reveal() {
            Some(token) => (Token::new(token), None),
            None => {
                (None, Some("HF_TOKEN is the placeholder of an example: the hub is asked without a token".to_owned()))
            }
        };
    }
    let Some(path) = &downloads.hf_token_path else { return (None, None) };
    match read_token(path) {
        Ok(token) => (Some(token), None),
        Err(fault) => {
            (None, Some(format!("HF_TOKEN_PATH={}: {fault}; the hub is asked without a token", path.display())))
        }
    }
}

/// Reads the token in a file.
///
/// # Errors
/// What is wrong with the file.
fn read_token(path: &Path) -> Result<Token, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_TOKEN).read_to_string(&mut text));
    read.map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Err("the file is empty".to_owned());
    }
    let token =
        HubToken::parse(&text).map_err(|_| "the file holds no token, which is one word of visible ASCII characters")?;
    token.reveal().and_then(Token::new).ok_or_else(|| "it holds the placeholder of an example".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_usable_token_was_passed_over_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_token(&path).err()
        };
        assert_eq!(read(" hf_8Qn2mylongtokenZ\n"), None);
        for (text, fault) in [("\n", "is empty"), ("hf_8Qn2\nmore", "no token"), ("hf_8Qn2 more", "no token")] {
            let said = read(text).unwrap();
            assert!(said.contains(fault) && !said.contains("8Qn2"), "{text:?}: {said}");
        }
    }
}
