//! Makes the downloader that settings describe.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::bounds::LONGEST_TOKEN;
use super::downloader::Downloader;
use super::hub::{Hub, Token};
use super::transfer::DownloadLimits;
use crate::settings::options::{Downloads, Settings};

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
        Ok(token) => (token, None),
        Err(error) => {
            (None, Some(format!("HF_TOKEN_PATH={}: {error}; the hub is asked without a token", path.display())))
        }
    }
}

fn read_token(path: &Path) -> io::Result<Option<Token>> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_TOKEN).read_to_string(&mut text)?;
    Ok(Token::new(&text))
}
