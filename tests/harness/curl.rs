//! curl, as a client nobody here wrote.

use std::{process::Command, time::Duration};

use crate::{certificates, client::DEFAULT_HOST, edge::Edge, process::run_to_end};

/// What curl got.
#[derive(Debug, Clone)]
pub struct Got {
    /// The status, 0 when there was no answer.
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    /// The body.
    pub body: String,
    /// curl's own exit code: 18 is a body cut short, 92 a stream that was reset.
    pub code: i32,
}

/// Runs curl against a listener (`plain`, `h2c` or `tls`) of the edge, as `test.example`, with more arguments.
///
/// # Panics
/// When curl is not installed, or takes longer than half a minute.
pub async fn curl(edge: &Edge, listener: &str, path: &str, more: &[&str]) -> Got {
    let address = edge.address(listener);
    let scheme = if listener == "tls" { "https" } else { "http" };
    let mut command = Command::new("curl");
    command.args(["--silent", "--no-progress-meter", "--noproxy", "*", "--max-time", "20"]);
    command.args(["--write-out", "\n%{http_code} %{http_version}"]);
    command.arg("--cacert").arg(certificates::file("ca.pem"));
    command.arg("--resolve").arg(format!("{DEFAULT_HOST}:{}:{}", address.port(), address.ip()));
    if listener == "h2c" {
        command.arg("--http2-prior-knowledge");
    }
    command.args(more).arg(format!("{scheme}://{DEFAULT_HOST}:{}{path}", address.port()));
    let finished = run_to_end(command, Duration::from_secs(30)).await;
    let (body, facts) = finished.stdout.rsplit_once('\n').unwrap_or(("", &finished.stdout));
    let (status, version) = facts.split_once(' ').unwrap_or((facts, ""));
    Got {
        status: status.parse().unwrap_or(0),
        version: version.to_owned(),
        body: body.to_owned(),
        code: finished.status.code().unwrap_or(-1),
    }
}
