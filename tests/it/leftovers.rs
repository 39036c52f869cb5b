//! Leftovers: processes of a llama-server that has ended or of a gateway that was killed are ended, and zombies are
//! reaped.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::Command,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use serde_json::json;

use super::support::{
    gateway::{Builder, Gateway},
    process::Process,
    resources::{children, has_open, is_zombie, pid_gone, start_time},
    wait::{READY, SOON, STARTS, STOPS, eventually, eventually_some},
};

fn send_signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

fn worker(gateway: &Gateway) -> u32 {
    u32::try_from(gateway.journal().starts().pop().unwrap()["pid"].as_u64().unwrap()).unwrap()
}

/// Returns the process id of the daemon that the fake has started.
fn daemon(gateway: &Gateway) -> u32 {
    u32::try_from(gateway.journal().wait_for_event("grandchild")["grandchild"].as_u64().unwrap()).unwrap()
}

fn restarts(gateway: &Gateway) -> u64 {
    gateway.anonymous().get("/health").json()["models"][0]["restarts"].as_u64().unwrap()
}

fn with_daemon() -> Builder {
    Gateway::builder().script(json!({"daemon": "lingers"}))
}

/// Returns the command prefix that runs a program in namespaces of its own, after the shell line `script`, or `None` if
/// this machine does not allow that.
pub(super) fn namespaces(options: &[&str], script: &str) -> Option<Vec<String>> {
    let mut words = vec!["unshare", "--mount"];
    if !geteuid().is_root() {
        words.extend(["--user", "--map-root-user"]);
    }
    words.extend(options);
    words.extend(["/bin/sh", "-c"]);
    let words: Vec<String> =
        words.into_iter().map(str::to_owned).chain([format!("{script}exec \"$0\" \"$@\"")]).collect();
    let tried = Command::new(&words[0]).args(&words[1..]).arg("true").output();
    if tried.as_ref().is_ok_and(|output| output.status.success()) {
        return Some(words);
    }
    println!("skipped: this machine does not allow {}: {tried:?}", words.join(" "));
    None
}

fn under(builder: Builder, words: &[String]) -> Builder {
    builder.under(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Returns the command prefix that mounts `folder` as /dev/shm, so that the gateways of other tests do not clean it up.
fn with_shm_at(folder: &Path) -> Option<Vec<String>> {
    namespaces(&[], &format!("mount --bind '{}' /dev/shm && ", folder.display()))
}

/// Runs a gateway whose /dev/shm has `pages` pages, one of them in use, and returns its output.
fn run_with_shm(pages: u32) -> Option<String> {
    let full = "head -c 1 /dev/zero > /dev/shm/full && ";
    let words = namespaces(&[], &format!("mount -t tmpfs -o size={}k none /dev/shm && {full}", 4 * pages))?;
    let mut gateway = under(Gateway::builder(), &words).start_ready();
    assert_eq!(gateway.journal().starts().len(), 1, "{}", gateway.output());
    assert_eq!(gateway.stop().code(), Some(0));
    Some(gateway.output())
}

#[test]
fn the_service_starts_and_serves_with_a_full_shared_memory() {
    let no_note = "no file holds the pid of this llama-server";
    let Some(output) = run_with_shm(1) else { return };
    assert!(!output.contains(no_note), "the runtime directory is in the temporary folder, with its note\n{output}");
    let output = run_with_shm(2).unwrap();
    assert!(!output.contains(no_note), "the service itself has used the last page, so the same holds\n{output}");
    let output = run_with_shm(3).unwrap();
    assert!(output.contains(no_note), "the key has used the last page\n{output}");
    let output = run_with_shm(4).unwrap();
    assert!(!output.contains(no_note), "key and note fit\n{output}");
}

#[test]
fn a_daemon_that_llama_server_started_ends_with_it() {
    let mut gateway = with_daemon().start_ready();
    let first = daemon(&gateway);
    eventually("the daemon is the gateway's child now", SOON, || gateway.child_pids().contains(&first));
    send_signal(worker(&gateway), Signal::SIGKILL);
    eventually("the daemon is gone", STOPS, || pid_gone(first));
    eventually("llama-server is back", READY, || gateway.journal().events("ready").len() == 2);
    let second = u32::try_from(gateway.journal().events("grandchild")[1]["grandchild"].as_u64().unwrap()).unwrap();
    assert!(!pid_gone(second), "the second daemon is not taken for a leftover of the first llama-server");
    assert!(gateway.output().contains(&format!("{{{first}}}")), "the log names the daemon\n{}", gateway.output());
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(pid_gone(second));
}

#[test]
fn the_leftovers_of_a_killed_gateway_are_gone_before_the_next_llama_server_starts() {
    let memory = tempfile::tempdir().unwrap();
    let Some(words) = with_shm_at(memory.path()) else { return };
    let mut killed = under(with_daemon(), &words).start_ready();
    let (left, worker) = (daemon(&killed), worker(&killed));
    killed.signal(Signal::SIGKILL);
    killed.wait_exit();
    eventually("the kernel ends llama-server", STOPS, || pid_gone(worker));
    assert!(!pid_gone(left), "the kernel does not end the daemon");
    assert_eq!(runtime_dirs(memory.path()), 1);

    let mut next = under(Gateway::builder(), &words).start();
    next.journal().wait_for_event("start");
    assert!(pid_gone(left), "the start waits for the end of the daemon");
    next.wait_ready();
    assert!(next.output().contains(&format!("{{{left}}}")), "the log names the daemon\n{}", next.output());
    assert_eq!(next.stop().code(), Some(0));
    assert_eq!(fs::read_dir(memory.path()).unwrap().count(), 0, "nothing is left, of the killed one neither");
}

/// Returns how many runtime directories there are.
fn runtime_dirs(memory: &Path) -> usize {
    let entries = fs::read_dir(memory).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("llamagate-den-")).count()
}

/// Starts a process that sleeps, and forges the runtime directory of a killed gateway whose note names that process as
/// its llama-server. `start_of` changes the start time in the note.
fn forge_runtime_dir(memory: &Path, name: &'static str, start_of: impl Fn(u64) -> u64) -> Process {
    let sleeper = Process::start(name, Command::new("sleep").arg("600").env_clear(), memory.parent().unwrap());
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let dir = memory.join(format!("llamagate-den-{name}"));
    DirBuilder::new().mode(0o700).create(&dir).unwrap();
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap();
    let (pid, start) = (sleeper.pid(), start_of(start_time(sleeper.pid())));
    fs::write(dir.join("process"), format!("{pid} {start} {} {}\n", boot.trim(), namespace.display())).unwrap();
    sleeper
}

#[test]
fn a_process_with_the_reused_pid_of_an_old_llama_server_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let memory = folder.path().join("memory");
    fs::create_dir(&memory).unwrap();
    let Some(words) = with_shm_at(&memory) else { return };
    let mut old = forge_runtime_dir(&memory, "old", |start| start);
    let mut successor = forge_runtime_dir(&memory, "successor", |start| start - 1);
    let gateway = under(Gateway::builder(), &words).start_ready();
    assert!(pid_gone(old.pid()) && old.try_exit_status().is_some(), "the process that matches its note is ended");
    assert_eq!(successor.try_exit_status(), None);
    let left = runtime_dirs(&memory);
    assert_eq!(
        (left, gateway.journal().starts().len()),
        (1, 1),
        "both forged directories are gone, the new one is there"
    );
}

#[test]
fn two_gateways_on_one_machine_leave_each_other_alone() {
    let memory = tempfile::tempdir().unwrap();
    let Some(words) = with_shm_at(memory.path()) else { return };
    let first = under(with_daemon(), &words).start_ready();
    let (first_daemon, first_worker) = (daemon(&first), worker(&first));
    let mut second = under(with_daemon(), &words).start_ready();
    let second_daemon = daemon(&second);
    send_signal(worker(&second), Signal::SIGKILL);
    eventually("the second gateway serves again", READY, || second.journal().events("ready").len() == 2);
    assert!(pid_gone(second_daemon));
    assert_eq!(second.stop().code(), Some(0));
    assert!(!pid_gone(first_daemon) && !pid_gone(first_worker));
    assert_eq!(first.journal().starts().len(), 1);
}

#[test]
fn no_zombies_are_left_after_five_restarts() {
    let gateway = Gateway::builder().script(json!({"daemon": "ends"})).set("RESTART_WINDOW", "1ms").start();
    for restart in 0..5 {
        eventually("llama-server is ready", READY, || gateway.journal().events("ready").len() == restart + 1);
        send_signal(worker(&gateway), Signal::SIGKILL);
    }
    eventually("llama-server is ready for the last time", READY, || gateway.journal().events("ready").len() == 6);
    assert_eq!(gateway.journal().events("grandchild").len(), 6);
    let current = worker(&gateway);
    eventually("llama-server is the only child", SOON, || gateway.child_pids() == [current]);
    assert!(!is_zombie(current));
    assert_eq!(restarts(&gateway), 5);
}

/// Returns the command prefix that makes a gateway process 1 of a PID namespace, as in a container.
fn as_first_process() -> Option<Vec<String>> {
    namespaces(&["--pid", "--fork", "--mount-proc", "--kill-child"], "")
}

/// Returns the process id of the gateway that `unshare` has started as process 1.
fn first_process_of(unshare: u32) -> u32 {
    let first = eventually_some("the first process runs", STARTS, || children(unshare).into_iter().next());
    let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    assert!(
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")),
        "the gateway is process 1\n{status}"
    );
    first
}

#[test]
fn a_gateway_as_process_1_reaps_orphans_and_stops_on_sigterm() {
    let Some(words) = as_first_process() else { return };
    let mut gateway = under(Gateway::builder().script(json!({"daemon": "ends"})), &words).start_ready();
    let first = first_process_of(gateway.pid());
    gateway.journal().wait_for_event("grandchild");
    eventually("llama-server is the only child", SOON, || children(first).len() == 1);
    assert!(!is_zombie(children(first)[0]));
    send_signal(first, Signal::SIGTERM);
    assert_eq!(gateway.wait_exit().code(), Some(0), "{}", gateway.output());
    assert_eq!(gateway.journal().events("sigterm").len(), 1, "llama-server gets SIGTERM too");
}

#[test]
fn sigquit_stops_the_service_as_sigterm_does() {
    let mut gateway = Gateway::builder().start_ready();
    let worker = worker(&gateway);
    gateway.signal(Signal::SIGQUIT);
    assert_eq!(gateway.wait_exit().code(), Some(0));
    assert!(gateway.output().contains("SIGQUIT received"));
    assert!(pid_gone(worker));
    assert_eq!(gateway.journal().events("sigterm").len(), 1);
}

#[test]
fn a_signal_while_process_1_still_waits_for_its_key_file_is_not_lost() {
    let Some(words) = as_first_process() else { return };
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    fs::write(&keys, "admin:admin-secret-0123456789:100000\n").unwrap();
    let writer = fs::File::open(&keys).unwrap();
    writer.lock().unwrap();
    let (mut unshare, _data) = under(Gateway::builder().set("AUTH_KEYS_FILE", keys.display()), &words).launch();
    let first = first_process_of(unshare.pid());
    eventually("the gateway waits for the lock on its key file", STARTS, || has_open(first, &keys));
    send_signal(first, Signal::SIGTERM);
    drop(writer);
    assert_eq!(unshare.wait_exit().code(), Some(0), "{}", unshare.output());
    assert!(unshare.output().contains("SIGTERM received"));
}

#[test]
fn a_debug_shell_as_process_1_ends_on_sigterm() {
    let Some(words) = as_first_process() else { return };
    let (mut unshare, _data) = under(Gateway::builder().set("DEBUG_SHELL", true), &words).launch();
    unshare.wait_for_line("waiting for a signal");
    send_signal(first_process_of(unshare.pid()), Signal::SIGTERM);
    assert_eq!(unshare.wait_exit().code(), Some(0));
}
