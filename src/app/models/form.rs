//! What tells the configuration of a model from all others, in every run of the service: an answer of one form is none of
//! another.

use sha2::{Digest as _, Sha256};

use crate::preflight::CheckedModel;
use crate::settings::Config;

/// Returns the form of a model, as its configuration and the headers of its files give it. Everything counts that answers
/// may depend on, and a little more, so that no setting can be forgotten. The files of its workers are not part of it.
pub(super) fn form_of(model: &CheckedModel, config: &Config) -> u64 {
    // No `..`: a new field does not compile until it is decided here whether answers depend on it.
    let CheckedModel {
        id,
        kind,
        settings,
        file,
        files: _,
        heads,
        passed_over_projectors: _,
        tied_projectors: _,
        unused_projectors: _,
        broken_projectors: _,
    } = model;
    let limits = &config.settings.limits;
    let mut settings = settings.clone();
    if let Some(local) = &mut settings.local {
        // Where a worker listens says nothing about what it answers.
        local.engine.port_backend = 0;
    }
    // Another version of this program may answer otherwise, as may other limits.
    let program = (env!("CARGO_PKG_VERSION"), limits.strict_parameters, limits.max_rerank_documents);
    let mut hash = Sha256::new();
    hash.update(format!("{program:?} {id:?} {kind:?} {settings:?} {file:?}"));
    // Secrets are not shown, but a backend may answer by them.
    for remote in &settings.remotes {
        for secret in remote.api_key.iter().chain(remote.headers.iter().map(|(_, value)| value)) {
            hash.update((secret.0.len() as u64).to_be_bytes());
            hash.update(&secret.0);
        }
    }
    if let Some(heads) = heads {
        heads.hash_into(&mut hash);
    }
    let digest = hash.finalize();
    u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::Platform;
    use crate::preflight;
    use crate::settings::{Environment, Inputs, resolve_text};

    #[test]
    fn the_form_of_a_model_is_the_same_in_every_run_and_changes_with_its_settings_and_secrets() {
        let form = |text: &str| {
            let platform = Platform::plain("/nowhere".as_ref());
            let config = resolve_text(&Inputs::default(), &platform, text).unwrap().config;
            let found = preflight::models(&config, &Environment::default(), None, &mut Default::default());
            form_of(&found.unwrap_or_else(|_| panic!("{text}")).named[0], &config)
        };
        let of = |params: &str| form(&format!("model_list: [{{model_name: m, litellm_params: {{{params}}}}}]"));
        let given = "model: openai/x, api_base: http://h/v1, api_key: one";
        let first = of(given);
        assert_eq!(of(given), first);
        for other in [
            "model: openai/x, api_base: http://h/v1, api_key: two",
            "model: openai/x, api_base: http://other/v1, api_key: one",
            "model: openai/y, api_base: http://h/v1, api_key: one",
        ] {
            assert_ne!(of(other), first, "{other}");
        }
    }
}
