//! The shim: our own program, started again to become a worker. It prepares itself with one thread and ordinary code,
//! then executes the command in its place.
//!
//! Why not prepare between fork and exec: in a program with threads almost nothing may be called there, a failure there
//! has no voice, and the quick way to start a process (without copying page tables) is lost.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::unistd::{User, initgroups, setgid, setuid};
use rustix::fs::{Access, access};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::process::Signal;
use tidegate_config::model::LISTENER;

use crate::launch::{Account, Launch};
use crate::process;

/// Becomes the worker whose launch comes in on standard input; returns only if that fails. The failure's text goes back
/// the same way.
///
/// To be called first thing in `main`, with no other thread running, when the first argument is
/// [`crate::Reexec::shim_arg`].
pub fn shim_main() -> ExitCode {
    if let Ok(mut link) = take_link()
        && let Err(problem) = run(&mut link)
    {
        // Nobody to tell is no reason to do anything else: the supervisor is gone then.
        let _ = link.write_all(problem.as_bytes());
    }
    ExitCode::from(FAILED)
}

/// Moves the link from standard input to a descriptor that the command does not get.
fn take_link() -> std::io::Result<File> {
    // First of all, so that from the moment the launch is here there is a group for the guardian to kill.
    rustix::process::setsid()?;
    // High enough to leave room for what the command inherits.
    let link = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 16)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(File::from(link))
}

fn run(link: &mut File) -> Result<(), String> {
    let mut text = Vec::new();
    link.read_to_end(&mut text).map_err(|error| format!("launch: {error}"))?;
    let launch: Launch = serde_json::from_slice(&text).map_err(|error| format!("launch: {error}"))?;
    launch.limits.take_on()?;
    let mut environment = launch.environment.clone();
    if let Some(account) = &launch.account {
        become_user(account, &mut environment)?;
    }
    // Capabilities that we kept across a change of user are not for workers.
    let _ = rustix::thread::clear_ambient_capability_set();
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("no_new_privs: {error}"))?;
    if let Some(folder) = &launch.socket_folder {
        check_socket_folder(folder)?;
    }
    if let Some(cwd) = &launch.cwd {
        rustix::process::chdir(cwd.as_os_str()).map_err(|error| format!("cwd {}: {error}", quoted(cwd)))?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(launch.umask));
    process::reset_signals();
    process::close_others(link);
    // Bound by the process that becomes the worker, under its account: so the kernel tells whoever connects that this is
    // the one, as with a socket that the worker makes itself.
    let _listener = launch.listener.as_deref().map(listen).transpose()?;
    if launch.listen_fds {
        environment.push(("LISTEN_FDS".into(), "1".into()));
        environment.push(("LISTEN_PID".into(), std::process::id().to_string().into()));
    }
    if let Some(time) = launch.watchdog_usec {
        environment.retain(|(name, _)| name != "WATCHDOG_USEC" && name != "WATCHDOG_PID");
        environment.push(("WATCHDOG_USEC".into(), time.to_string().into()));
        environment.push(("WATCHDOG_PID".into(), std::process::id().to_string().into()));
    }
    let name = launch.argv.first().ok_or_else(|| "command: empty".to_owned())?;
    let command = find_command(name, &environment)?;
    die_with_parent(launch.parent)?;
    Err(execute(&command, &launch.argv, &environment))
}

fn become_user(account: &Account, environment: &mut Vec<(OsString, OsString)>) -> Result<(), String> {
    let name = &account.user;
    let failed = |what: &str, error: nix::Error| format!("user \"{name}\": {what}: {}", error.desc());
    let user = User::from_name(name).map_err(|error| failed("look-up", error))?;
    let user = user.ok_or_else(|| format!("user \"{name}\": not found"))?;
    let name_bytes = CString::new(name.as_str()).map_err(|_| format!("user \"{name}\": not found"))?;
    initgroups(&name_bytes, user.gid).map_err(|error| failed("initgroups", error))?;
    setgid(user.gid).map_err(|error| failed("setgid", error))?;
    setuid(user.uid).map_err(|error| failed("setuid", error))?;
    let facts: [(&str, OsString); 3] =
        [("HOME", user.dir.into_os_string()), ("USER", name.into()), ("LOGNAME", name.into())];
    for (variable, value) in facts {
        if !account.kept.iter().any(|kept| kept == variable) {
            environment.retain(|(other, _)| other != variable);
            environment.push((variable.into(), value));
        }
    }
    Ok(())
}

fn check_socket_folder(folder: &OsStr) -> Result<(), String> {
    access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        format!("socket folder {}: {error}; the folders above it must let the worker's user through", quoted(folder))
    })
}

/// A listening socket at the place where the command looks for it.
fn listen(path: &OsStr) -> Result<OwnedFd, String> {
    let failed = |error: rustix::io::Errno| format!("socket {}: {error}", quoted(path));
    // No descriptor of ours is between standard error and the link, so the lowest free one is the right one.
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None).map_err(failed)?;
    if socket.as_raw_fd().cast_unsigned() != LISTENER {
        return Err(format!("socket {}: descriptor {LISTENER} is taken", quoted(path)));
    }
    bind(&socket, &SocketAddrUnix::new(path.as_bytes()).map_err(failed)?).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
    Ok(socket)
}

/// The file to execute: argv's own path, or the first executable of that name in the worker's PATH.
fn find_command(name: &str, environment: &[(OsString, OsString)]) -> Result<PathBuf, String> {
    if name.contains('/') {
        return Ok(name.into());
    }
    let path = environment.iter().find(|(variable, _)| variable == "PATH").map(|(_, value)| value.as_os_str());
    let folders = std::env::split_paths(path.unwrap_or(OsStr::new(DEFAULT_PATH)));
    let is_executable = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    let mut files = folders.map(|folder| folder.join(name));
    files.find(is_executable).ok_or_else(|| format!("command \"{name}\": not found in PATH"))
}

/// Last of all, because a change of user clears it. Between our start and this call the parent may have ended already.
fn die_with_parent(parent: i32) -> Result<(), String> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| format!("parent-death signal: {error}"))?;
    let present = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if present == parent { Ok(()) } else { Err("the supervisor is gone".to_owned()) }
}

/// Returns only if it fails.
fn execute(command: &Path, argv: &[String], environment: &[(OsString, OsString)]) -> String {
    let named = |problem: &str| format!("command \"{}\": {problem}", command.display());
    let variable = |(name, value): &(OsString, OsString)| {
        let mut text = name.clone().into_vec();
        text.push(b'=');
        text.extend_from_slice(value.as_bytes());
        CString::new(text)
    };
    let file = CString::new(command.as_os_str().as_bytes());
    let argv: Result<Vec<CString>, _> = argv.iter().map(|word| CString::new(word.as_str())).collect();
    let environment: Result<Vec<CString>, _> = environment.iter().map(variable).collect();
    match (file, argv, environment) {
        (Ok(file), Ok(argv), Ok(environment)) => match nix::unistd::execve(&file, &argv, &environment) {
            Err(nix::Error::ENOEXEC) => named("neither a program nor a script with a first line like \"#!/bin/sh\""),
            Err(error) => named(error.desc()),
        },
        _ => named("a NUL byte in the command or the environment"),
    }
}

fn quoted(text: &OsStr) -> String {
    format!("\"{}\"", text.display())
}

/// What shells report when a command could not be run.
const FAILED: u8 = 127;
/// The kernel takes less where `net.core.somaxconn` says so.
const BACKLOG: i32 = 4_096;
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
