//! Detects where the program runs: RunPod, Vast.ai, another container or a plain machine.
//!
//! Owns the detection and the defaults that follow from it. Does not talk to any platform.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// The kinds of platform that this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatformKind {
    /// A RunPod serverless worker, load-balanced or fed from a queue.
    RunpodServerless,
    /// A RunPod pod.
    RunpodPod,
    /// A Vast.ai instance.
    Vast,
    /// Any other container.
    Docker,
    /// A plain machine.
    Local,
}

impl fmt::Display for PlatformKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RunpodServerless => "runpod-serverless",
            Self::RunpodPod => "runpod-pod",
            Self::Vast => "vast",
            Self::Docker => "docker",
            Self::Local => "local",
        })
    }
}

/// The detected platform and its defaults.
#[derive(Debug, Clone)]
pub struct Platform {
    /// The kind of platform.
    pub kind: PlatformKind,
    /// Default of `DATA_DIR`.
    pub data_dir: PathBuf,
    /// Which rule chose [`Self::data_dir`], for `llamagate check`.
    pub data_dir_rule: String,
    /// Default of `INSTANCE_ID`.
    pub instance_id: String,
}

impl Platform {
    /// Returns the names under which clients reach this machine: its own, and those that the platform's proxies have. One
    /// that begins with a dot stands for all names that end so.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        // Only the platform's name servers answer for these names, and no page of theirs is on this machine.
        let of_platform: &[&str] = match self.kind {
            PlatformKind::RunpodServerless | PlatformKind::RunpodPod => &[".runpod.net", ".runpod.ai", ".runpod.io"],
            PlatformKind::Vast => &[".trycloudflare.com", ".vast.ai"],
            PlatformKind::Docker | PlatformKind::Local => &[],
        };
        host_name().into_iter().chain(of_platform.iter().map(ToString::to_string)).collect()
    }
}

/// Returns the name of this machine.
fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok();
    name.filter(|name| !name.is_empty())
}

#[cfg(any(test, feature = "test-support"))]
impl Platform {
    /// Returns a plain machine with its data in this folder, for tests and fuzzing.
    pub(crate) fn plain(data_dir: &Path) -> Self {
        let (data_dir_rule, instance_id) = ("a test".to_owned(), "host".to_owned());
        Self { kind: PlatformKind::Local, data_dir: data_dir.to_owned(), data_dir_rule, instance_id }
    }
}

/// Detects the platform from environment variables and from folders below `root` (which is `/` outside tests).
pub fn detect<'a>(variable: impl Fn(&str) -> Option<&'a str>, root: &Path) -> Platform {
    let set = |name: &str| variable(name).is_some();
    // A serverless worker has the variables of a pod too, so it is checked first.
    let kind = if set("RUNPOD_WEBHOOK_GET_JOB") || set("RUNPOD_ENDPOINT_ID") {
        PlatformKind::RunpodServerless
    } else if set("RUNPOD_POD_ID") {
        PlatformKind::RunpodPod
    } else if set("VAST_CONTAINERLABEL") || (set("CONTAINER_ID") && set("PUBLIC_IPADDR")) {
        PlatformKind::Vast
    // Docker creates the first file, Podman the second.
    } else if root.join(".dockerenv").exists() || root.join("run/.containerenv").exists() {
        PlatformKind::Docker
    } else {
        PlatformKind::Local
    };

    // RunPod mounts a network volume at /runpod-volume (serverless) or /workspace (pods), Vast.ai at /workspace.
    let mounted =
        ["runpod-volume", "workspace", "data"].into_iter().map(|name| root.join(name)).find(|dir| dir.is_dir());
    let (data_dir, data_dir_rule) = match mounted {
        Some(dir) => {
            let rule = format!("{} is a folder", dir.display());
            (dir, rule)
        }
        None => users_data_dir(&variable),
    };

    let instance_id = variable("RUNPOD_POD_ID")
        .or_else(|| variable("CONTAINER_ID"))
        .map(str::to_owned)
        .or_else(host_name)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned());

    Platform { kind, data_dir, data_dir_rule, instance_id }
}

/// Returns the address at which clients outside reach this port, on platforms that map ports: Vast.ai and RunPod pods.
/// `None` if the platform's variables are missing or hold no address.
pub fn public_address<'a>(variable: impl Fn(&str) -> Option<&'a str>, port: u16) -> Option<SocketAddr> {
    let mapped = |(host, prefix): (&str, &str)| {
        let host: IpAddr = variable(host)?.parse().ok()?;
        let mapped_port: u16 = variable(&format!("{prefix}{port}"))?.parse().ok()?;
        (mapped_port > 0).then_some(SocketAddr::new(host, mapped_port))
    };
    [("PUBLIC_IPADDR", "VAST_TCP_PORT_"), ("RUNPOD_PUBLIC_IP", "RUNPOD_TCP_PORT_")].into_iter().find_map(mapped)
}

/// Returns the address of this machine as clients outside see it, if the platform tells: Vast.ai and RunPod pods.
pub fn public_ip<'a>(variable: impl Fn(&str) -> Option<&'a str>) -> Option<IpAddr> {
    ["PUBLIC_IPADDR", "RUNPOD_PUBLIC_IP"].into_iter().find_map(|name| variable(name)?.parse().ok())
}

/// Returns the user's own data folder and the rule that chose it, following the XDG base directory specification.
fn users_data_dir<'a>(variable: &impl Fn(&str) -> Option<&'a str>) -> (PathBuf, String) {
    // The specification says that a relative path must be ignored.
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(dir) = absolute("XDG_DATA_HOME") {
        return (dir.join("llamagate"), "XDG_DATA_HOME".to_owned());
    }
    if let Some(home) = absolute("HOME") {
        return (home.join(".local/share/llamagate"), "the user's data folder".to_owned());
    }
    let uid = nix::unistd::getuid();
    (PathBuf::from(format!("/var/tmp/llamagate-{uid}")), "neither XDG_DATA_HOME nor HOME is set".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect_with(
        variables: &'static [(&'static str, &'static str)],
        folders: &[&str],
    ) -> (Platform, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        (detect(lookup, root.path()), root)
    }

    #[test]
    fn the_kind_follows_from_the_platforms_own_variables() {
        for (variables, kind) in [
            (&[("RUNPOD_WEBHOOK_GET_JOB", "u"), ("RUNPOD_POD_ID", "p")][..], PlatformKind::RunpodServerless),
            (&[("RUNPOD_ENDPOINT_ID", "e")][..], PlatformKind::RunpodServerless),
            (&[("RUNPOD_POD_ID", "p")][..], PlatformKind::RunpodPod),
            (&[("VAST_CONTAINERLABEL", "C.1")][..], PlatformKind::Vast),
            (&[("CONTAINER_ID", "1"), ("PUBLIC_IPADDR", "1.2.3.4")][..], PlatformKind::Vast),
            (&[("CONTAINER_ID", "1")][..], PlatformKind::Local),
        ] {
            assert_eq!(detect_with(variables, &[]).0.kind, kind, "{variables:?}");
        }
    }

    #[test]
    fn the_data_folder_is_the_first_mounted_one() {
        for (folders, expected) in [
            (&["data", "workspace", "runpod-volume"][..], "runpod-volume"),
            (&["data", "workspace"][..], "workspace"),
            (&["data"][..], "data"),
        ] {
            let (platform, root) = detect_with(&[], folders);
            assert_eq!(platform.data_dir, root.path().join(expected));
            assert!(platform.data_dir_rule.contains(expected));
        }
    }

    #[test]
    fn without_a_mounted_folder_the_data_folder_is_the_users_own() {
        let (platform, _root) = detect_with(&[("XDG_DATA_HOME", "/x"), ("HOME", "/home/u")], &[]);
        assert_eq!(platform.data_dir, Path::new("/x/llamagate"));
        let (platform, _root) = detect_with(&[("XDG_DATA_HOME", "relative"), ("HOME", "/home/u")], &[]);
        assert_eq!(platform.data_dir, Path::new("/home/u/.local/share/llamagate"));
        let (platform, _root) = detect_with(&[], &[]);
        assert!(platform.data_dir.is_absolute());
    }

    #[test]
    fn the_public_address_is_returned_only_if_it_is_valid() {
        for (variables, address) in [
            (&[("PUBLIC_IPADDR", "1.2.3.4"), ("VAST_TCP_PORT_8000", "40001")][..], Some("1.2.3.4:40001")),
            (&[("RUNPOD_PUBLIC_IP", "1.2.3.4"), ("RUNPOD_TCP_PORT_8000", "40001")], Some("1.2.3.4:40001")),
            (&[("PUBLIC_IPADDR", "2001:db8::1"), ("VAST_TCP_PORT_8000", "1")], Some("[2001:db8::1]:1")),
            (&[("PUBLIC_IPADDR", "1.2.3.4"), ("VAST_TCP_PORT_8001", "40001")], None),
            (&[("PUBLIC_IPADDR", "1.2.3.4"), ("RUNPOD_TCP_PORT_8000", "40001")], None),
            (&[("PUBLIC_IPADDR", "1.2.3.4"), ("VAST_TCP_PORT_8000", "0")], None),
            (&[("PUBLIC_IPADDR", "1.2.3.4"), ("VAST_TCP_PORT_8000", "65536")], None),
            (&[("PUBLIC_IPADDR", "host\nfatal: "), ("VAST_TCP_PORT_8000", "1")], None),
            (&[("VAST_TCP_PORT_8000", "1")], None),
        ] {
            let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
            let found = public_address(lookup, 8000).map(|address| address.to_string());
            assert_eq!(found.as_deref(), address, "{variables:?}");
        }
    }

    #[test]
    fn the_names_of_a_platforms_proxies_belong_to_the_machine_on_that_platform_only() {
        for (variables, ending, is_there) in [
            (&[("RUNPOD_POD_ID", "p")][..], ".runpod.net", true),
            (&[("RUNPOD_ENDPOINT_ID", "e")], ".runpod.ai", true),
            (&[("VAST_CONTAINERLABEL", "C.1")], ".trycloudflare.com", true),
            (&[("VAST_CONTAINERLABEL", "C.1")], ".runpod.net", false),
            (&[], ".runpod.net", false),
        ] {
            let hosts = detect_with(variables, &[]).0.hosts();
            assert_eq!(hosts.iter().any(|host| host == ending), is_there, "{variables:?} {hosts:?}");
        }
    }

    #[test]
    fn the_instance_id_comes_from_the_platform_before_the_host_name() {
        let (platform, _root) = detect_with(&[("RUNPOD_POD_ID", "pod7"), ("CONTAINER_ID", "9")], &[]);
        assert_eq!(platform.instance_id, "pod7");
    }
}
