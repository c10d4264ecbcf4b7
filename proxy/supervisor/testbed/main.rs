//! A supervising process for the tests, so that each test has one of its own to kill: the runtime folder is its
//! argument, commands come in on standard input and events and output go out on standard output, one JSON value a line.
//! The end of its input is a shutdown.
//!
//! As `supervisor-testbed notify <text>` it sends the text to `NOTIFY_SOCKET` and waits until it was taken, as
//! `systemd-notify` does.
//!
//! As `supervisor-testbed dump <socket path>` it prints what it finds around itself, and is a worker then.
//!
//! As `supervisor-testbed worker <socket path | port | fd> [status file]` it is a worker: it answers every request with the
//! status in the file, 200 without one, and prints a line for each.

mod dump;

use std::ffi::OsString;
use std::io::{BufRead, IoSlice, Read, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tidegate_supervisor::{
    Command, Event, Progress, ProgressBySpawn, Reexec, Roots, SupervisorOptions, guardian_main, shim_main, start,
};

fn main() -> ExitCode {
    let reexec = Reexec::default();
    let argument = std::env::args_os().nth(1).unwrap_or_default();
    if argument == reexec.shim_arg {
        return shim_main();
    }
    if argument == reexec.guardian_arg {
        return guardian_main();
    }
    if argument == "worker" {
        return work(&std::env::args_os().skip(2).collect::<Vec<_>>());
    }
    if argument == "dump" {
        tell(&dump::everything());
        return work(&std::env::args_os().skip(2).collect::<Vec<_>>());
    }
    if argument == "notify" {
        return ExitCode::from(u8::from(notify(&std::env::args().nth(2).unwrap_or_default()).is_err()));
    }
    // A sink with a defect, for the test that the supervisor outlives one.
    let mut panics = std::env::var_os("PANIC_ONCE").is_some();
    let events = move |event: Event| {
        if matches!(event, Event::Ready { .. }) && std::mem::take(&mut panics) {
            panic!("a defect of the sink");
        }
        tell(&json!({ "event": event }));
    };
    let progress: Arc<Mutex<ProgressBySpawn>> = Arc::default();
    let theirs = progress.clone();
    let options = SupervisorOptions {
        runtime_dir: argument.into(),
        reexec,
        environment: std::env::vars_os().collect(),
        events: Box::new(events),
        output: Box::new(|line| tell(&json!({ "output": line }))),
        progress: Box::new(move || theirs.lock().map(|figures| figures.clone()).unwrap_or_default()),
        cpus: 2.0,
        roots: Roots::default(),
    };
    let handle = match start(options) {
        Ok(handle) => handle,
        Err(error) => {
            tell(&json!({ "error": format!("{error}: {:?}", std::error::Error::source(&error)) }));
            return ExitCode::FAILURE;
        }
    };
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if line == "status" {
            tell(&json!({ "status": &*handle.status() }));
            continue;
        }
        // What the data plane of this bed knows: `progress <spawn> <requests>`.
        if let Some(figures) = line.strip_prefix("progress ").and_then(figures) {
            progress.lock().unwrap_or_else(PoisonError::into_inner).extend([figures]);
            continue;
        }
        match serde_json::from_str::<Command>(&line) {
            // From a thread that ends a moment later, as those of a pool do: who asks for a worker must not be its parent.
            Ok(command) => {
                let handle = handle.clone();
                let (told, sent) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    handle.send(command);
                    let _ = told.send(());
                    std::thread::sleep(Duration::from_millis(300));
                });
                let _ = sent.recv();
            }
            Err(error) => tell(&json!({ "error": error.to_string() })),
        }
    }
    handle.send(Command::Shutdown { deadline: Duration::from_secs(5) });
    ExitCode::from(u8::from(!handle.join_stopped(Duration::from_secs(10))))
}

fn figures(words: &str) -> Option<(u64, Progress)> {
    let (spawn, requests) = words.split_once(' ')?;
    Some((spawn.parse().ok()?, Progress { requests: requests.parse().ok()?, ..Progress::default() }))
}

fn work(arguments: &[OsString]) -> ExitCode {
    let [address, rest @ ..] = arguments else { return ExitCode::from(2) };
    let port = address.to_str().and_then(|text| text.parse().ok());
    if address == "fd" {
        let listener = inherited();
        let served = listener
            .map(|listener| listener.incoming().flatten().for_each(|connection| answer(connection, rest.first())));
        return ExitCode::from(u8::from(served.is_err()));
    }
    let served = match port {
        Some(port) => TcpListener::bind(("127.0.0.1", port))
            .map(|listener| listener.incoming().flatten().for_each(|connection| answer(connection, rest.first()))),
        None => UnixListener::bind(address)
            .map(|listener| listener.incoming().flatten().for_each(|connection| answer(connection, rest.first()))),
    };
    ExitCode::from(u8::from(served.is_err()))
}

/// The socket that was handed to us by systemd's protocol, as its own library takes it: only if it is meant for us.
fn inherited() -> std::io::Result<UnixListener> {
    let own = rustix::process::getpid();
    let meant_for = std::env::var("LISTEN_PID").unwrap_or_default();
    if meant_for != own.as_raw_nonzero().to_string() || std::env::var("LISTEN_FDS").as_deref() != Ok("1") {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    let itself = rustix::process::pidfd_open(own, rustix::process::PidfdFlags::empty())?;
    // A duplicate: nothing owns the number that was inherited.
    let listener = rustix::process::pidfd_getfd(itself, 3, rustix::process::PidfdGetfdFlags::empty())?;
    Ok(UnixListener::from(listener))
}

/// A descriptor goes along with the second datagram; its other end is closed when that has been read.
fn notify(text: &str) -> std::io::Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.send(text.as_bytes())?;
    let (reader, writer) = rustix::pipe::pipe()?;
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [writer.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(&socket, &[IoSlice::new(b"BARRIER=1")], &mut ancillary, SendFlags::empty())?;
    drop(writer);
    rustix::io::read(&reader, &mut [0; 1])?;
    Ok(())
}

fn answer(mut connection: impl Read + Write, status_file: Option<&OsString>) {
    let mut request = [0; 4096];
    let Ok(length @ 1..) = connection.read(&mut request) else { return };
    let line = String::from_utf8_lossy(&request[..length]).lines().next().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stdout(), "asked {line}");
    let status = status_file.and_then(|file| std::fs::read_to_string(file).ok());
    let status = status.as_deref().unwrap_or("200").trim();
    let pid = std::process::id().to_string();
    let length = pid.len();
    let _ = write!(connection, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{pid}");
}

fn tell(value: &Value) {
    let mut out = std::io::stdout().lock();
    // A test that reads no more has seen enough.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}
