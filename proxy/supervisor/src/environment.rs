//! The environment of a worker: what it inherits, what we force, what the spec sets. Pure; our own environment is a
//! value that was taken once at the start.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;

use tidegate_config::model::{EnvInherit, WorkerSpec, WorkerTransport};

use crate::template::Values;
use crate::worker::WorkerAddress;

/// Set for every worker and inherited by all that it starts: how processes that left their worker's group are found.
pub(crate) const MARKER: &str = "TIDEGATE_INSTANCE";

/// Variables that are there before we say anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// Of our own process.
    pub(crate) ours: &'a [(OsString, OsString)],
    /// Of the spec's files; later ones win.
    pub(crate) files: &'a [(OsString, OsString)],
}

/// The environment of one start. Later layers win: inherited, files, forced, the spec's own, the marker.
pub(crate) fn worker_environment(
    found: &Found<'_>,
    spec: &WorkerSpec,
    values: &Values<'_>,
    address: &WorkerAddress,
    instance: &str,
) -> BTreeMap<OsString, OsString> {
    let mut out: BTreeMap<OsString, OsString> =
        found.ours.iter().filter(|(name, _)| is_inherited(name, spec)).cloned().collect();
    // Written for a container of one program, they may say things that only we know here.
    out.extend(found.files.iter().filter(|(name, _)| !is_ours(name)).cloned());
    let mut set = |name: &str, value: String| out.insert(name.into(), value.into());
    // gunicorn, uvicorn and Puma each start their own pool when they see a larger number here.
    set("WEB_CONCURRENCY", "1".to_owned());
    set("WORKER_SLOT", values.slot.to_string());
    set("WORKER_GENERATION", values.generation.to_string());
    set("NODE_APP_INSTANCE", values.slot.to_string());
    set("PYTHONUNBUFFERED", "1".to_owned());
    set("PYTHONFAULTHANDLER", "1".to_owned());
    match address {
        // uvicorn sees no peer address on a unix socket and would ignore our forwarding headers.
        WorkerAddress::Unix(_) => {
            set("FORWARDED_ALLOW_IPS", "*".to_owned());
        }
        WorkerAddress::Tcp(address) => {
            set("PORT", address.port().to_string());
            set("HOST", address.ip().to_string());
        }
    }
    for (name, value) in &spec.env {
        set(name, values.expand(value));
    }
    set(MARKER, instance.to_owned());
    out
}

/// The environment of a command that runs once for a generation: what every worker of it would find. What differs from
/// worker to worker (its slot, its address, variables that mention them) is not in it.
pub(crate) fn hook_environment(
    found: &Found<'_>,
    spec: &WorkerSpec,
    values: &Values<'_>,
    instance: &str,
) -> BTreeMap<OsString, OsString> {
    let of_worker = |slot: u32, socket: &str, port: u16| {
        let values = Values { slot, socket, port, ..*values };
        let address = match spec.transport {
            WorkerTransport::Unix | WorkerTransport::Fd => WorkerAddress::Unix(socket.into()),
            WorkerTransport::Port => WorkerAddress::Tcp((Ipv4Addr::LOCALHOST, port).into()),
        };
        worker_environment(found, spec, &values, &address, instance)
    };
    let other = of_worker(1, "/1", 1);
    let mut all = of_worker(2, "/2", 2);
    all.retain(|name, value| other.get(name) == Some(value));
    all
}

/// Ours to set, or to leave out: a port, a service manager or an instance of somebody above us means nothing to a worker.
fn is_ours(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    matches!(bytes, b"PORT" | b"HOST" | b"FORWARDED_ALLOW_IPS" | b"NOTIFY_SOCKET")
        || bytes.starts_with(b"LISTEN_")
        || bytes.starts_with(b"WATCHDOG_")
        || bytes == MARKER.as_bytes()
}

fn is_inherited(name: &OsStr, spec: &WorkerSpec) -> bool {
    let bytes = name.as_bytes();
    let is_secret = spec.env_secret.iter().any(|secret| secret.as_bytes() == bytes);
    if is_secret || is_ours(name) {
        return false;
    }
    match &spec.env_inherit {
        EnvInherit::All => true,
        EnvInherit::Clean => {
            matches!(bytes, b"PATH" | b"HOME" | b"LANG" | b"TZ" | b"USER") || bytes.starts_with(b"LC_")
        }
        EnvInherit::Only(names) => bytes == b"PATH" || names.iter().any(|name| name.as_bytes() == bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> WorkerSpec {
        WorkerSpec::new(vec!["app".into()])
    }

    fn environment(spec: &WorkerSpec, address: &WorkerAddress) -> Vec<String> {
        let ours = [
            ("PATH", "/bin"),
            ("HOME", "/root"),
            ("LC_ALL", "C"),
            ("DATABASE_URL", "db"),
            ("TOKEN", "secret"),
            ("WEB_CONCURRENCY", "9"),
            ("PORT", "80"),
            ("NOTIFY_SOCKET", "/run/notify"),
            ("LISTEN_FDS", "2"),
            ("WATCHDOG_USEC", "1"),
            ("TIDEGATE_INSTANCE", "outer"),
        ];
        let ours: Vec<_> = ours.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let values = Values { pool: "app", slot: 2, generation: 5, socket: "/s", port: 4000, pid: 7 };
        let files = [("WEB_CONCURRENCY", "8"), ("PORT", "81"), ("LISTEN_PID", "1"), ("IN_FILE", "1"), ("LC_ALL", "de")];
        let files = files.map(|(name, value)| (name.into(), value.into()));
        let files = if spec.launch.env_files.is_empty() { &[][..] } else { &files[..] };
        let all = worker_environment(&Found { ours: &ours, files }, spec, &values, address, "me");
        all.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect()
    }

    const FORCED: [&str; 6] = [
        "NODE_APP_INSTANCE=2",
        "PYTHONFAULTHANDLER=1",
        "PYTHONUNBUFFERED=1",
        "WEB_CONCURRENCY=1",
        "WORKER_GENERATION=5",
        "WORKER_SLOT=2",
    ];

    #[track_caller]
    fn check(spec: &WorkerSpec, address: &WorkerAddress, others: &[&str]) {
        let mut expected: Vec<&str> = FORCED.into_iter().chain(["TIDEGATE_INSTANCE=me"]).collect();
        expected.retain(|one| !others.iter().any(|other| other.split('=').next() == one.split('=').next()));
        expected.extend(others);
        expected.sort_unstable();
        assert_eq!(environment(spec, address), expected);
    }

    #[test]
    fn everything_but_secrets_and_service_manager_variables_is_inherited() {
        let spec = WorkerSpec { env_secret: vec!["TOKEN".into()], ..spec() };
        let expected = ["DATABASE_URL=db", "FORWARDED_ALLOW_IPS=*", "HOME=/root", "LC_ALL=C", "PATH=/bin"];
        check(&spec, &WorkerAddress::Unix("/s".into()), &expected);
    }

    #[test]
    fn clean_and_listed_inheritance_are_narrow() {
        let port = WorkerAddress::Tcp(([127, 0, 0, 1], 4000).into());
        let clean = WorkerSpec { env_inherit: EnvInherit::Clean, ..spec() };
        check(&clean, &port, &["HOME=/root", "HOST=127.0.0.1", "LC_ALL=C", "PATH=/bin", "PORT=4000"]);
        let only = WorkerSpec { env_inherit: EnvInherit::Only(vec!["DATABASE_URL".into()]), ..spec() };
        check(&only, &port, &["DATABASE_URL=db", "HOST=127.0.0.1", "PATH=/bin", "PORT=4000"]);
    }

    #[test]
    fn files_win_over_what_is_inherited_and_nothing_else() {
        let port = WorkerAddress::Tcp(([127, 0, 0, 1], 4000).into());
        let env = [("LC_ALL".to_owned(), "C.UTF-8".to_owned())].into();
        let mut spec = WorkerSpec { env_inherit: EnvInherit::Clean, ..spec() };
        spec.launch.env_files = vec!["/env".into()];
        check(&spec, &port, &["HOME=/root", "HOST=127.0.0.1", "IN_FILE=1", "LC_ALL=de", "PATH=/bin", "PORT=4000"]);
        let spec = WorkerSpec { env, ..spec };
        check(&spec, &port, &["HOME=/root", "HOST=127.0.0.1", "IN_FILE=1", "LC_ALL=C.UTF-8", "PATH=/bin", "PORT=4000"]);
    }

    #[test]
    fn the_spec_overrides_all_but_the_marker() {
        let env = [("WEB_CONCURRENCY", "4"), ("TIDEGATE_INSTANCE", "fake"), ("ADDRESS", "{host}:{port}")];
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let spec = WorkerSpec { env, env_inherit: EnvInherit::Only(Vec::new()), ..spec() };
        let expected = ["ADDRESS=127.0.0.1:4000", "FORWARDED_ALLOW_IPS=*", "PATH=/bin", "WEB_CONCURRENCY=4"];
        check(&spec, &WorkerAddress::Unix("/s".into()), &expected);
    }
}
