//! The arguments for what goes with a model, as one llama-server knows them: adapters, a draft model, a chat template,
//! other machines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::help::LlamaHelp;
use super::own_flags::may_take;
use crate::settings::catalogue::{CompanionSettings, SpeculativeSetting};
use crate::settings::values::GpuLayers;
use crate::worker::plan::{ChatTemplate, CompanionFiles};

const ADAPTERS: &str = "--lora-scaled";
const DRAFT_MODEL: &str = "--model-draft";
const DRAFT_KIND: &str = "--spec-type";
const TEMPLATE: &str = "--chat-template";
const TEMPLATE_FILE: &str = "--chat-template-file";
/// With Jinja, llama-server takes the name of a template for the template itself.
const NO_JINJA: &str = "--no-jinja";
/// The only name that it knows then too.
const KNOWN_TO_JINJA: &str = "chatml";
const RPC: &str = "--rpc";
/// The way to draft with a model, which builds that have several must be told.
const BY_MODEL: &str = "draft-simple";
/// The sizes of drafts, each with the names of its flag, the one of newer builds first.
const SIZES: [(&str, [&str; 2]); 5] = [
    ("max", ["--spec-draft-n-max", "--draft-max"]),
    ("min", ["--spec-draft-n-min", "--draft-min"]),
    ("p_min", ["--spec-draft-p-min", "--draft-p-min"]),
    ("ctx", ["--ctx-size-draft", "-cd"]),
    ("ngl", ["--spec-draft-ngl", "--gpu-layers-draft"]),
];
/// Keeps each slot's prompt only as long as the slot does, and reads what it keeps only where a request asks for that.
/// llama-server does not note with which adapters it computed what it keeps (`server_prompt` in its source): with the
/// others it would answer from the wrong numbers. The gateway's requests name their adapters, and then it compares.
const NO_SHARED_PROMPTS: [&[&str]; 2] = [&["--cache-ram", "0"], &["--no-cache-prompt"]];

/// A key of a model that a llama-server cannot obey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownCompanion {
    /// The key.
    pub key: &'static str,
    /// Why.
    pub fault: String,
}

/// Returns whether a path can be passed as that of an adapter: llama-server lists them with commas and colons.
pub fn is_adapter_path(path: &Path) -> bool {
    !path.as_os_str().as_encoded_bytes().iter().any(|byte| b",:\"\n".contains(byte))
}

impl CompanionFiles {
    /// Returns the arguments.
    pub(crate) fn arguments(&self, help: Option<&LlamaHelp>) -> Vec<OsString> {
        let Self { adapters, draft, speculative, chat_template, rpc } = self;
        let mut arguments: Vec<OsString> = adapter_arguments(help, adapters);
        let mut add = |flag: &str, value: OsString| arguments.extend([OsString::from(flag), value]);
        if let Some(path) = draft {
            add(DRAFT_MODEL, path.into());
        }
        let by_model = draft.as_ref().filter(|_| help.is_some_and(|help| help.takes(DRAFT_KIND))).map(|_| BY_MODEL);
        if let Some(kind) = speculative.kind.as_deref().or(by_model) {
            add(DRAFT_KIND, kind.into());
        }
        for (key, value) in sizes_of(speculative) {
            add(size_flag(help, key), value.into());
        }
        match chat_template {
            Some(ChatTemplate::File(path)) => add(TEMPLATE_FILE, path.into()),
            Some(ChatTemplate::BuiltIn(name)) => add(TEMPLATE, name.into()),
            None => {}
        }
        let is_built_in = matches!(chat_template, Some(ChatTemplate::BuiltIn(name)) if name != KNOWN_TO_JINJA);
        if is_built_in && may_take(help, NO_JINJA) {
            arguments.push(NO_JINJA.into());
        }
        let mut add = |flag: &str, value: OsString| arguments.extend([OsString::from(flag), value]);
        if !rpc.is_empty() {
            add(RPC, rpc.join(",").into());
        }
        arguments
    }
}

fn adapter_arguments(help: Option<&LlamaHelp>, adapters: &[(PathBuf, f32)]) -> Vec<OsString> {
    if adapters.is_empty() {
        return Vec::new();
    }
    let mut arguments: Vec<OsString> = Vec::new();
    // Older builds take path and scale as two words.
    if help.and_then(|help| help.value_count(ADAPTERS)) == Some(2) {
        for (path, scale) in adapters {
            arguments.extend([ADAPTERS.into(), path.into(), scale.to_string().into()]);
        }
    } else {
        let mut list = OsString::new();
        for (path, scale) in adapters {
            if !list.is_empty() {
                list.push(",");
            }
            list.push(path);
            list.push(format!(":{scale}"));
        }
        arguments.extend([ADAPTERS.into(), list]);
    }
    for words in NO_SHARED_PROMPTS {
        if words.first().is_some_and(|flag| may_take(help, flag)) {
            arguments.extend(words.iter().map(OsString::from));
        }
    }
    arguments
}

/// Returns the sizes of drafts that are set, as texts.
fn sizes_of(speculative: &SpeculativeSetting) -> impl Iterator<Item = (&'static str, String)> {
    let SpeculativeSetting { kind: _, max, min, p_min, ctx, ngl } = speculative;
    let layers = ngl.map(|layers| match layers {
        GpuLayers::Count(layers) => layers.to_string(),
        GpuLayers::Auto => "auto".to_owned(),
    });
    let text = |number: &Option<u32>| number.map(|number| number.to_string());
    let probability = p_min.map(|number| number.to_string());
    let sizes = [("max", text(max)), ("min", text(min)), ("p_min", probability), ("ctx", text(ctx)), ("ngl", layers)];
    sizes.into_iter().filter_map(|(key, value)| Some((key, value?)))
}

/// Returns the flag for a size, by the name that this llama-server knows.
fn size_flag(help: Option<&LlamaHelp>, key: &str) -> &'static str {
    let names = SIZES.iter().find(|(known, _)| *known == key).map_or(["", ""], |(_, names)| *names);
    let known = names.into_iter().find(|name| help.is_some_and(|help| help.takes(name)));
    known.unwrap_or(names[0])
}

impl LlamaHelp {
    /// Returns the keys of what goes with a model that this llama-server cannot obey.
    pub fn unknown_companions(&self, companions: &CompanionSettings) -> Vec<UnknownCompanion> {
        let CompanionSettings { adapters, draft, speculative, chat_template, rpc } = companions;
        let mut unknown = Vec::new();
        let mut needs = |key, is_set: bool, flag: &str| {
            if is_set && !self.takes(flag) {
                unknown.push(UnknownCompanion { key, fault: format!("this llama-server does not know {flag}") });
            }
        };
        needs("lora", !adapters.is_empty(), ADAPTERS);
        needs("draft", draft.is_some(), DRAFT_MODEL);
        needs("speculative", speculative.kind.is_some(), DRAFT_KIND);
        for (key, _) in sizes_of(speculative) {
            needs("speculative", true, size_flag(Some(self), key));
        }
        needs("chat_template", chat_template.is_some(), TEMPLATE_FILE);
        needs("rpc", !rpc.is_empty(), RPC);
        let listed = self.listed_values(DRAFT_KIND);
        for kind in speculative.kind.iter().flat_map(|kind| kind.split(',')) {
            if !listed.is_empty() && !listed.contains(&kind) {
                let fault = format!("this llama-server does not know the way {kind}; it has {}", listed.join(", "));
                unknown.push(UnknownCompanion { key: "speculative", fault });
            }
        }
        unknown
    }

    /// Returns the chat templates that this llama-server has by name.
    pub fn built_in_templates(&self) -> Vec<&str> {
        let listed = self.listed_values(TEMPLATE);
        if listed.len() > 1 { listed } else { Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "--host H\n--port N\n-c, --ctx-size N\n-m, --model F\n";
    const CURRENT: &str = "\
--rpc SERVERS                           comma-separated list of RPC servers (host:port)
--lora-scaled FNAME:SCALE,...           path to LoRA adapter with user defined scaling
-cram, --cache-ram N                    set the maximum cache size in MiB
--cache-prompt, --no-cache-prompt       whether to enable prompt caching
--spec-draft-n-max N                    number of tokens to draft (default: 3)
--spec-draft-model, -md, --model-draft FNAME
                                        draft model for speculative decoding
--spec-type none,draft-simple,ngram-simple
                                        comma-separated list of types of speculative decoding to use
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max
--chat-template JINJA_TEMPLATE          set custom jinja chat template
                                        list of built-in templates:
                                        bailing, chatml,
                                        zephyr
                                        (env: LLAMA_ARG_CHAT_TEMPLATE)
--jinja, --no-jinja                     whether to use jinja template engine for chat (default: enabled)
--chat-template-file FILE               set custom jinja chat template file
";
    const OLDER: &str = "\
--lora-scaled FNAME SCALE               path to LoRA adapter with user defined scaling
--draft-max, --draft, --draft-n N       number of tokens to draft
-md, --model-draft FNAME                draft model
";

    fn help(text: &str) -> LlamaHelp {
        LlamaHelp::parse(&format!("{WORDS}{text}")).unwrap()
    }

    fn files() -> CompanionFiles {
        CompanionFiles {
            adapters: vec![("/a.gguf".into(), 1.0), ("/b.gguf".into(), 0.0)],
            draft: Some("/d.gguf".into()),
            speculative: SpeculativeSetting { max: Some(8), ..SpeculativeSetting::default() },
            chat_template: Some(ChatTemplate::BuiltIn("zephyr".to_owned())),
            rpc: vec!["one:1".to_owned(), "two:2".to_owned()],
        }
    }

    #[test]
    fn each_build_gets_the_arguments_that_it_knows() {
        let line = |help: Option<&LlamaHelp>| {
            let words: Vec<String> =
                files().arguments(help).into_iter().map(|word| word.into_string().unwrap()).collect();
            words.join(" ")
        };
        let end = "--chat-template zephyr --no-jinja --rpc one:1,two:2";
        assert_eq!(
            line(Some(&help(CURRENT))),
            format!(
                "--lora-scaled /a.gguf:1,/b.gguf:0 --cache-ram 0 --no-cache-prompt --model-draft /d.gguf \
                 --spec-type draft-simple --spec-draft-n-max 8 {end}"
            )
        );
        assert_eq!(
            line(Some(&help(OLDER))),
            "--lora-scaled /a.gguf 1 --lora-scaled /b.gguf 0 --model-draft /d.gguf --draft-max 8 --chat-template zephyr \
             --rpc one:1,two:2"
        );
    }

    #[test]
    fn what_a_build_cannot_obey_is_named() {
        let speculative = |kind: &str, ctx| SpeculativeSetting {
            kind: Some(kind.to_owned()),
            max: Some(2),
            ctx,
            ..SpeculativeSetting::default()
        };
        let companions = CompanionSettings {
            draft: Some("d".to_owned()),
            speculative: speculative("draft-simple", None),
            rpc: vec!["one:1".to_owned()],
            ..CompanionSettings::default()
        };
        let (current, older) = (help(CURRENT), help(OLDER));
        assert_eq!(current.unknown_companions(&companions), []);
        let keys = |help: &LlamaHelp, companions: &CompanionSettings| {
            help.unknown_companions(companions).into_iter().map(|unknown| unknown.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&older, &companions), ["speculative", "rpc"]);
        let companions = CompanionSettings { speculative: speculative("draft-new", Some(512)), ..companions };
        let found = current.unknown_companions(&companions);
        assert_eq!(found[0].fault, "this llama-server does not know --ctx-size-draft");
        let listed = "does not know the way draft-new; it has none, draft-simple, ngram-simple";
        assert!(found[1].fault.ends_with(listed), "{found:?}");
        assert_eq!(current.built_in_templates(), ["bailing", "chatml", "zephyr"]);
        assert!(older.built_in_templates().is_empty());
    }

    #[test]
    fn a_path_that_a_list_would_divide_is_none_for_an_adapter() {
        for (path, is_good) in [("/m/a.gguf", true), ("/m/a b.gguf", true), ("/m/a,b.gguf", false), ("/m:1/a", false)] {
            assert_eq!(is_adapter_path(Path::new(path)), is_good, "{path}");
        }
    }
}
