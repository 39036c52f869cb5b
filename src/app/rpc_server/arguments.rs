//! What an rpc-server is told, checked against its own help: its flags differ from build to build.

use std::path::PathBuf;

use super::address::RpcAddress;
use crate::settings::values::{ByteSize, Value as _};
use crate::worker::RpcServerProgram;

/// Flags of rpc-server that `llamagate rpc` sets itself, each with what to use in its place.
const OWN_FLAGS: &[(&[&str], &str)] = &[
    (&["-H", "--host", "-p", "--port"], "--bind"),
    (&["-d", "--device"], "--device before `--`"),
    (&["-m", "--mem"], "--memory"),
    (&["-c", "--cache"], "--cache before `--`"),
    (&["-t", "--threads"], "THREADS"),
];

/// Bytes of the unit of rpc-server's `--mem`.
const MEMORY_UNIT: u64 = 1 << 20;

/// What an rpc-server is told besides its address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RpcArguments {
    /// The devices that compute.
    pub devices: Option<String>,
    /// The memory of each device, in MiB.
    memory: Option<String>,
    /// Whether it keeps large tensors on the disk.
    pub keeps_cache: bool,
    /// Further arguments.
    words: Vec<String>,
}

/// Why an argument is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRpcArgument {
    /// `--memory` is no list of sizes.
    #[error("--memory: expected a size for each device, such as 20GiB or 20GiB,8GiB, found {0:?}")]
    Memory(String),
    /// An argument after `--` is one that `llamagate rpc` sets.
    #[error("{flag} after `--`: llamagate sets it itself; use {instead}")]
    Own {
        /// The flag.
        flag: String,
        /// What to use in its place.
        instead: &'static str,
    },
    /// This rpc-server does not know a flag.
    #[error("this rpc-server does not know {flag}, which {given} needs: {hint}")]
    Unknown {
        /// The flag of rpc-server.
        flag: &'static str,
        /// The argument that was given.
        given: &'static str,
        /// What to do.
        hint: &'static str,
    },
}

impl RpcArguments {
    /// Reads the arguments of `llamagate rpc`.
    ///
    /// # Errors
    ///
    /// [`BadRpcArgument`] says which one is wrong.
    pub fn read(
        devices: Option<String>,
        memory: Option<&str>,
        keeps_cache: bool,
        words: Vec<String>,
    ) -> Result<Self, BadRpcArgument> {
        for word in &words {
            let flag = word.split('=').next().unwrap_or_default();
            if let Some((_, instead)) = OWN_FLAGS.iter().find(|(flags, _)| flags.contains(&flag)) {
                return Err(BadRpcArgument::Own { flag: flag.to_owned(), instead });
            }
        }
        Ok(Self { devices, memory: memory.map(mebibytes).transpose()?, keeps_cache, words })
    }

    /// Returns the program with these arguments. `help` is what the rpc-server says of itself; without it, nothing is
    /// checked, and nothing set that was not asked for.
    ///
    /// # Errors
    ///
    /// [`BadRpcArgument::Unknown`] if it does not know a flag that is needed.
    pub(super) fn program(
        self,
        binary: PathBuf,
        address: RpcAddress,
        help: Option<&str>,
    ) -> Result<RpcServerProgram, BadRpcArgument> {
        let Self { devices, memory, keeps_cache, words } = self;
        let knows = |flag: &str| help.is_none_or(|text| text.contains(flag));
        let newer = "take a newer llama.cpp, or leave it out";
        let offered = "it offers the memory that is free by itself; leave it out";
        for (is_given, flag, given, hint) in [
            (devices.is_some(), "--device", "--device", newer),
            (memory.is_some(), "--mem", "--memory", offered),
            (keeps_cache, "--cache", "--cache", newer),
        ] {
            if is_given && !knows(flag) {
                return Err(BadRpcArgument::Unknown { flag, given, hint });
            }
        }
        // It is set without being asked for where CPUs are limited, so only for one that says that it takes it.
        let takes_threads = help.is_some_and(|text| text.contains("--threads"));
        let address = address.socket();
        Ok(RpcServerProgram { binary, address, devices, memory, keeps_cache, takes_threads, arguments: words })
    }
}

/// Reads sizes, separated by commas, and returns them in rpc-server's unit.
fn mebibytes(text: &str) -> Result<String, BadRpcArgument> {
    let sizes = text.split(',').map(|size| ByteSize::parse(size.trim()).ok().map(|size| size.0 as u64 / MEMORY_UNIT));
    let sizes: Option<Vec<String>> = sizes.map(|size| Some(size.filter(|size| *size > 0)?.to_string())).collect();
    sizes.map(|sizes| sizes.join(",")).ok_or_else(|| BadRpcArgument::Memory(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDER: &str = "  -d, --device DEV\n  -H, --host HOST\n  -p, --port PORT\n  -m, --mem MEM\n";
    const CURRENT: &str =
        "  -t, --threads N\n  -d, --device <dev1>\n  -H, --host HOST\n  -p, --port PORT\n  -c, --cache\n";

    fn program(arguments: RpcArguments, help: &str) -> Result<RpcServerProgram, String> {
        let address = RpcAddress::parse("127.0.0.1:50052", false).unwrap();
        arguments.program("rpc-server".into(), address, Some(help)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_flag_that_this_rpc_server_lacks_is_named_before_the_start() {
        let memory = RpcArguments::read(None, Some("20GiB, 512MiB"), false, Vec::new()).unwrap();
        let told = program(memory.clone(), OLDER).unwrap();
        assert_eq!((told.memory.as_deref(), told.takes_threads), (Some("20480,512"), false));
        let fault = program(memory, CURRENT).unwrap_err();
        assert!(fault.starts_with("this rpc-server does not know --mem, which --memory needs"), "{fault}");
        let cache = RpcArguments::read(Some("CUDA0".to_owned()), None, true, Vec::new()).unwrap();
        assert!(program(cache.clone(), OLDER).unwrap_err().contains("--cache"));
        let told = program(cache, CURRENT).unwrap();
        assert_eq!((told.devices.as_deref(), told.keeps_cache, told.takes_threads), (Some("CUDA0"), true, true));
    }

    #[test]
    fn an_rpc_server_without_a_help_was_given_threads_that_it_may_not_know() {
        let address = RpcAddress::parse("127.0.0.1:50052", false).unwrap();
        let told = RpcArguments::default().program("rpc-server".into(), address, None).unwrap();
        assert!(!told.takes_threads);
    }

    #[test]
    fn each_mistake_is_named() {
        for text in ["", "lots", "1GiB,", "0", "1KiB", "-1"] {
            let fault = RpcArguments::read(None, Some(text), false, Vec::new()).unwrap_err();
            assert_eq!(fault, BadRpcArgument::Memory(text.to_owned()));
        }
        for (word, instead) in
            [("-p", "--bind"), ("--host=0.0.0.0", "--bind"), ("--mem", "--memory"), ("-t", "THREADS")]
        {
            let fault = RpcArguments::read(None, None, false, vec![word.to_owned()]).unwrap_err().to_string();
            assert!(fault.ends_with(&format!("use {instead}")), "{word}: {fault}");
        }
    }
}
