//! What people read about what goes with a model: its line in `llamagate check`, and warnings.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::checked::{CheckedModel, file_name};
use crate::settings::catalogue::AdapterSetting;
use crate::worker::{ChatTemplate, CompanionFiles};

/// Returns a warning about each fallback of a model that is the model itself, under another name or with an adapter.
pub(super) fn own_fallbacks(models: &[CheckedModel], fallbacks: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let is_own = |name: &str, other: &str| models.iter().any(|model| model.id == *name && model.has_name(other));
    let pairs = fallbacks.iter().flat_map(|(name, others)| others.iter().map(move |other| (name, other)));
    let own = pairs.filter(|(name, other)| is_own(name, other));
    own.map(|(name, other)| format!("fallbacks.{name}: {other} never takes over: it is the same model")).collect()
}

/// Returns warnings about what goes with these models.
pub(super) fn companion_warnings(models: &[CheckedModel]) -> Vec<String> {
    let mut warnings = Vec::new();
    // The workers that use each rpc-server.
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for model in models {
        let Some(local) = &model.settings.local else { continue };
        let addresses = &local.companions.rpc;
        if !addresses.iter().all(|address| is_loopback(address)) {
            warnings.push(format!(
                "models.{}.rpc: llama.cpp's protocol between machines has neither keys nor encryption: a program that \
                 reaches these ports can run code there; keep them in a private network",
                model.id
            ));
        }
        // Of an address that is named twice, llama-server opens one connection.
        for address in BTreeSet::from_iter(addresses) {
            let replicas = std::iter::repeat_n(model.id.as_str(), local.replicas as usize);
            users.entry(address).or_default().extend(replicas);
        }
    }
    for (address, mut models) in users {
        if models.len() > 1 {
            models.dedup();
            warnings.push(format!(
                "rpc: {address} computes for one llama-server at a time, so these can only be loaded one after the other: {}",
                models.join(", ")
            ));
        }
    }
    warnings
}

/// Whether `HOST:PORT` is on this machine.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
}

impl CheckedModel {
    /// Returns what goes with the model, for people: file names and no paths. Empty if there is nothing.
    pub fn companion_names(&self) -> Vec<String> {
        let Some(file) = &self.file else { return Vec::new() };
        let CompanionFiles { adapters, draft, speculative, chat_template, rpc } = &file.companions.files;
        let configured = self.settings.local.iter().flat_map(|local| &local.companions.adapters);
        let adapter = |((path, _), set): (&(PathBuf, f32), &AdapterSetting)| {
            let name = set.name.as_ref().map_or_else(String::new, |name| format!(" as {}:{name}", self.id));
            format!("lora {} at {}{name}", file_name(path), set.scale)
        };
        let mut names: Vec<String> = adapters.iter().zip(configured).map(adapter).collect();
        names.extend(draft.iter().map(|path| format!("draft {}", file_name(path))));
        names.extend(speculative.kind.iter().map(|kind| format!("drafts by {kind}")));
        names.extend(chat_template.iter().map(|template| match template {
            ChatTemplate::File(path) => format!("chat template {}", file_name(path)),
            ChatTemplate::BuiltIn(name) => format!("chat template {name} of llama-server"),
        }));
        if !rpc.is_empty() {
            names.push(format!("rpc {}", rpc.join(", ")));
        }
        names
    }
}
