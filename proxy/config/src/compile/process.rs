//! What concerns the process as a whole: admin endpoint, logs and server.

use std::path::PathBuf;
use std::time::Duration;

use super::{Scene, absolute_path, account, keep};
use crate::access::parse_format;
use crate::address::{Use, parse_address};
use crate::fault::Code;
use crate::model::{
    AccessFormat, AccessLog, Address, Admin, ConnectionLimits, LogFormat, LogLevel, LogTarget, Logging, Secret, Server,
    ShardCount, SpoolSettings,
};
use crate::raw;
use crate::report::Report;
use crate::suggest::did_you_mean;
use crate::tree::Spot;
use crate::units::{Reason, format_duration};

/// Compiles the admin endpoint; its default depends on the runtime directory.
pub(crate) fn admin(
    raw: raw::Admin,
    spot: Spot<'_>,
    server: Option<&Server>,
    scene: &Scene<'_>,
    report: &mut Report,
) -> Option<Admin> {
    let raw::Admin { listen, token } = raw;
    let listen_spot = spot.key("listen");
    let has_token = spot.has("token") || spot.is_damaged();
    let token = token.map(|token| secret(token, spot.key("token"), report));
    let listen = match listen {
        Some(text) => keep(parse_address(&text, Use::Listen), &text, listen_spot, report)?,
        None => {
            let folder = server.and_then(|server| server.runtime_dir.as_deref()).unwrap_or(scene.runtime_folder);
            Address::Unix(folder.join("admin.sock"))
        }
    };
    check_exposure(&listen, has_token, listen_spot, report);
    match token {
        None => Some(Admin { listen, token: None }),
        Some(token) => Some(Admin { listen, token: Some(token?) }),
    }
}

/// Over TCP, other users of the machine can connect: never without a token, never from outside.
fn check_exposure(listen: &Address, has_token: bool, spot: Spot<'_>, report: &mut Report) {
    let Address::Tcp(address) = listen else { return };
    if !address.ip().is_loopback() {
        let problem = format!("the admin endpoint would be reachable from outside at {address}");
        let hint = format!("write 127.0.0.1:{}, or use a unix socket", address.port());
        report.fault(spot.span(), Code::Conflict, problem).hint(hint);
    }
    if !has_token {
        let problem = "the admin endpoint needs a token when it listens on a port";
        let hint = "add token: \"${file:/etc/tidegate/admin.token}\", or use a unix socket";
        report.fault(spot.span(), Code::MissingKey, problem).hint(hint);
    }
}

fn secret(token: String, spot: Spot<'_>, report: &mut Report) -> Option<Secret> {
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Some(Secret(token));
    }
    // The value is not repeated.
    let problem = "the token has characters that no HTTP header can carry";
    report
        .fault(spot.span(), Code::BadValue, problem)
        .hint("use letters and digits; openssl rand -hex 32 makes a good one");
    None
}

/// Compiles both logs.
pub(crate) fn logging(raw: raw::Logging, spot: Spot<'_>, report: &mut Report) -> Option<Logging> {
    let raw::Logging { level, format, access } = raw;
    let access = match access {
        Some(raw::Access::Word(raw::AccessWord::Off)) => None,
        Some(raw::Access::Log(log)) => Some(access_log(log, spot.key("access"), report)?),
        None => Some(AccessLog { to: LogTarget::Stdout, format: AccessFormat::Combined }),
    };
    Some(Logging {
        level: level.map_or(LogLevel::Info, LogLevel::from),
        format: format.map_or(LogFormat::Auto, LogFormat::from),
        access,
    })
}

fn access_log(raw: raw::AccessLog, spot: Spot<'_>, report: &mut Report) -> Option<AccessLog> {
    let raw::AccessLog { to, format } = raw;
    let to = match to {
        None => Some(LogTarget::Stdout),
        Some(text) => log_target(&text, spot.key("to"), report),
    };
    let format = match format {
        None => Some(AccessFormat::Combined),
        Some(text) => keep(parse_format(&text), &text, spot.key("format"), report),
    };
    Some(AccessLog { to: to?, format: format? })
}

fn log_target(text: &str, spot: Spot<'_>, report: &mut Report) -> Option<LogTarget> {
    match text {
        "stdout" => Some(LogTarget::Stdout),
        "stderr" => Some(LogTarget::Stderr),
        path if path.starts_with('/') => absolute_path(path, spot, report).map(LogTarget::File),
        other => {
            let hint = did_you_mean(other, ["stdout", "stderr"]);
            let hint = hint.unwrap_or_else(|| "write stdout, stderr or an absolute path".to_owned());
            keep(Err(Reason::new("is nowhere a log can go", hint)), other, spot, report)
        }
    }
}

/// Bytes of temporary files where nothing is said.
const DEFAULT_SPOOL: u64 = 1 << 30;

/// Compiles the settings of the process.
pub(crate) fn server(raw: raw::Server, spot: Spot<'_>, report: &mut Report) -> Option<Server> {
    let raw::Server {
        shards,
        user,
        state_dir,
        runtime_dir,
        connections,
        spool,
        drain_timeout,
        shutdown_timeout,
        fail_fast,
    } = raw;
    let user = user.map(|name| account(name, spot.key("user"), report));
    let mut folder = |path: Option<String>, key: &str| -> Option<Option<PathBuf>> {
        path.map_or(Some(None), |path| absolute_path(&path, spot.key(key), report).map(Some))
    };
    let state_dir = folder(state_dir, "state_dir");
    let runtime_dir = folder(runtime_dir, "runtime_dir");
    let raw::Spool { dir: spool_dir, total: spool_total } = spool.unwrap_or_default();
    let spool_dir = match spool_dir {
        None => Some(None),
        Some(path) => absolute_path(&path, spot.key("spool").key("dir"), report).map(Some),
    };
    let drain_timeout = drain_timeout.map_or(Duration::from_secs(30), |time| time.0);
    let shutdown_timeout = shutdown_timeout.map_or(Duration::from_secs(60), |time| time.0);
    if drain_timeout > shutdown_timeout {
        let total = format_duration(shutdown_timeout);
        let problem = format!("draining may not take longer than the whole stop: shutdown_timeout is {total}");
        let key = if spot.has("drain_timeout") { "drain_timeout" } else { "shutdown_timeout" };
        let hint = "raise shutdown_timeout, or lower drain_timeout";
        report.fault(spot.key(key).span(), Code::Conflict, problem).hint(hint);
    }
    Some(Server {
        shards: shard_count(shards),
        user: user.map_or(Some(None), |name| name.map(Some))?,
        state_dir: state_dir?,
        runtime_dir: runtime_dir?,
        connections: connection_limits(connections.unwrap_or_default()),
        spool: SpoolSettings { dir: spool_dir?, total: spool_total.map_or(DEFAULT_SPOOL, |size| size.0) },
        drain_timeout,
        shutdown_timeout,
        fail_fast,
    })
}

fn shard_count(raw: Option<raw::ShardCount>) -> ShardCount {
    match raw {
        None | Some(raw::ShardCount::Word(raw::AutoWord::Auto)) => ShardCount::Auto,
        Some(raw::ShardCount::Number(count)) => ShardCount::Fixed(count),
    }
}

fn connection_limits(raw: raw::Connections) -> ConnectionLimits {
    let raw::Connections { total, per_address, handshakes, fd_reserve } = raw;
    ConnectionLimits {
        total,
        per_address: per_address.unwrap_or(1024),
        handshakes: handshakes.unwrap_or(4096),
        fd_reserve: fd_reserve.unwrap_or(128),
    }
}

impl From<raw::LogLevel> for LogLevel {
    fn from(raw: raw::LogLevel) -> Self {
        match raw {
            raw::LogLevel::Error => Self::Error,
            raw::LogLevel::Warn => Self::Warn,
            raw::LogLevel::Info => Self::Info,
            raw::LogLevel::Debug => Self::Debug,
            raw::LogLevel::Trace => Self::Trace,
        }
    }
}

impl From<raw::LogFormat> for LogFormat {
    fn from(raw: raw::LogFormat) -> Self {
        match raw {
            raw::LogFormat::Auto => Self::Auto,
            raw::LogFormat::Text => Self::Text,
            raw::LogFormat::Json => Self::Json,
        }
    }
}
