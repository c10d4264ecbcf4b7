//! gunicorn with UvicornWorkers behind nginx, as gunicorn's pages about deployment put them together.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
    time::Duration,
};

use tempfile::TempDir;
use tidegate_tests::{
    process::{Process, Signal},
    python,
    site::Port,
    wait::wait_until,
};
use tokio::{
    net::{TcpStream, UnixStream},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);

/// The two of them, running.
pub(super) struct Peer {
    pub(super) dir: TempDir,
    port: Port,
    nginx: Process,
    gunicorn: Process,
}

impl Peer {
    /// With so many workers and `options` of gunicorn besides; `app.py` is in the folder.
    pub(super) async fn start(dir: TempDir, workers: usize, options: &[&str]) -> Self {
        let gunicorn = Process::start(gunicorn(dir.path(), workers, options));
        let socket = dir.path().join("app.sock");
        wait_until("gunicorn", SOON, async || UnixStream::connect(&socket).await.ok().map(drop)).await;
        let port = Port::free();
        let nginx = Process::start(nginx(dir.path(), port.number));
        let peer = Self { dir, port, nginx, gunicorn };
        let address = peer.address();
        wait_until("nginx", SOON, async || TcpStream::connect(address).await.ok().map(drop)).await;
        wait_until("the workers", SOON, async || (peer.workers().len() == workers).then_some(())).await;
        peer
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number).into()
    }

    /// The worker processes that there are.
    pub(super) fn workers(&self) -> BTreeSet<i32> {
        let pid = self.gunicorn.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Has the release that is in the folder taken by all workers; false when they do not within `limit`.
    pub(super) async fn reload(&mut self, limit: Duration) -> bool {
        let before = self.workers();
        self.gunicorn.signal(Signal::SIGHUP);
        let taken = async || {
            let now = self.workers();
            (now.len() == before.len() && now.is_disjoint(&before)).then_some(())
        };
        timeout(limit, wait_until("new workers", 2 * limit, taken)).await.is_ok()
    }

    /// Whether both still run.
    pub(super) fn is_running(&mut self) -> bool {
        self.gunicorn.status().is_none() && self.nginx.status().is_none()
    }
}

fn gunicorn(dir: &Path, workers: usize, options: &[&str]) -> Command {
    let mut command = Command::new(python::program("gunicorn"));
    command.args(["app:app", "--worker-class", "uvicorn_worker.UvicornWorker", "--workers", &workers.to_string()]);
    command.args(["--no-control-socket", "--log-level", "warning", "--bind"]);
    command.arg(format!("unix:{}", dir.join("app.sock").display())).args(options);
    command.current_dir(dir).env("PYTHONDONTWRITEBYTECODE", "1").env_remove("WEB_CONCURRENCY");
    command
}

fn nginx(dir: &Path, port: u16) -> Command {
    let at = dir.display();
    let text = format!(
        "daemon off; worker_processes 2; pid {at}/nginx.pid; error_log {at}/nginx.log;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;\n  \
         uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n  keepalive_requests 1000000;\n  \
         upstream app {{ server unix:{at}/app.sock fail_timeout=0; }}\n  \
         server {{\n    listen 127.0.0.1:{port} backlog=4096;\n    location / {{\n      \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      proxy_set_header X-Forwarded-Proto $scheme;\n      \
         proxy_set_header Host $http_host;\n      proxy_redirect off;\n      proxy_pass http://app;\n    }}\n  }}\n}}\n"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, text).expect("the directory is ours");
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-c").arg(file).arg("-e").arg(dir.join("nginx.log"));
    command
}
