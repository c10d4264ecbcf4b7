//! Origins that other people wrote, and the demo worker, on free ports.

use std::{collections::HashSet, fs, path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;
use tidegate_tests::{binary::Binary, connect, process::Process, python, site::free_port, wait::wait_until};

use super::lanes::Canary;

/// A running origin.
pub(crate) struct Origin {
    pub(super) name: &'static str,
    pub(crate) address: String,
    pub(super) canary: Canary,
    _process: Process,
    _folder: TempDir,
}

/// The command of an origin that has this folder and listens on this port.
type Start = fn(&TempDir, u16) -> Command;

/// One of each kind, listening.
pub(super) async fn all() -> Vec<Origin> {
    let mut taken = HashSet::new();
    let mut origins = Vec::new();
    let kinds: [(&'static str, Canary, Start); 4] = [
        ("upstream-demo", Canary { target: "/?canary=#", body: "\"canary=#\"" }, demo),
        ("uvicorn", Canary { target: "/items/#", body: "\"item_id\":#," }, uvicorn),
        ("nginx", Canary { target: "/canary/#", body: "/canary/# " }, nginx),
        ("haproxy", Canary { target: "/canary/#", body: "/canary/# " }, haproxy),
    ];
    for (name, canary, command) in kinds {
        let port = free_port(&taken);
        taken.insert(port);
        origins.push(start(name, canary, command, port).await);
    }
    origins
}

async fn start(
    name: &'static str,
    canary: Canary,
    command: impl FnOnce(&TempDir, u16) -> Command,
    port: u16,
) -> Origin {
    let folder = tempfile::Builder::new().prefix("tg").tempdir().expect("the system has a temporary directory");
    let process = Process::start(command(&folder, port));
    let address = format!("127.0.0.1:{port}");
    let output = process.output();
    let to = address.parse().expect("an address");
    let listening = async || connect::tcp(to).await.is_ok().then_some(());
    let waiting = tokio::time::timeout(READY_LIMIT, wait_until(name, 2 * READY_LIMIT, listening));
    waiting.await.unwrap_or_else(|_| panic!("{name} does not listen\n{}", output.both()));
    Origin { name, address, canary, _process: process, _folder: folder }
}

/// nginx with a zone and limits as its users write them; `/file` is there.
pub(crate) async fn nginx_limiting(zone: &str, limits: &str) -> Origin {
    let location = |folder: &TempDir| {
        fs::write(folder.path().join("file"), "ok\n").expect("the directory is ours");
        format!("root {}; {limits}", folder.path().display())
    };
    let command = |folder: &TempDir, port| nginx_with(folder, port, zone, &location(folder));
    start("nginx", Canary { target: "/file", body: "ok" }, command, free_port(&HashSet::new())).await
}

fn demo(_: &TempDir, port: u16) -> Command {
    let mut command = Binary::UpstreamDemo.command();
    command.args(["--port", &port.to_string()]);
    command
}

fn uvicorn(_: &TempDir, port: u16) -> Command {
    let mut command = Command::new(python::program("uvicorn"));
    command.args(["main:app", "--no-access-log", "--log-level", "warning", "--port", &port.to_string()]);
    command.current_dir(python::fastapi_app()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn nginx(folder: &TempDir, port: u16) -> Command {
    nginx_with(folder, port, "", "default_type text/plain; return 200 \"$request_uri \\n\";")
}

/// `http` and `location` are lines of those blocks.
fn nginx_with(folder: &TempDir, port: u16, http: &str, location: &str) -> Command {
    let dir = folder.path().display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.iter().map(|kind| format!("{kind}_temp_path {dir}/{kind}; ")).collect();
    let text = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log stderr crit; events {{}}\nhttp {{ access_log off; \
         keepalive_timeout 60s; {temporary}\n{http}\nserver {{ listen 127.0.0.1:{port} default_server; location / {{ \
         {location} }} }} }}\n"
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, text).expect("the directory is ours");
    let mut command = Command::new(program("nginx"));
    command.arg("-p").arg(folder.path()).arg("-e").arg("stderr").arg("-c").arg(file);
    command
}

fn haproxy(folder: &TempDir, port: u16) -> Command {
    let text = format!(
        "global\n  maxconn 512\ndefaults\n  mode http\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\n\
         frontend origin\n  bind 127.0.0.1:{port}\n  http-request wait-for-body time 5s if {{ req.body_size gt 0 }}\n  \
         http-request return status 200 content-type text/plain lf-string \"%[path] \\n\"\n"
    );
    let file = folder.path().join("haproxy.cfg");
    fs::write(&file, text).expect("the directory is ours");
    let mut command = Command::new(program("haproxy"));
    command.arg("-f").arg(file).arg("-db");
    command
}

/// A server program, which Debian puts where an account's PATH does not lead.
fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    let found = folders.map(|folder| PathBuf::from(folder).join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("'{name}' is missing; run: scripts/system-packages.sh {name}"))
}

const READY_LIMIT: Duration = Duration::from_secs(20);
