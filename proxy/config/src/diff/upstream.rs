//! Changes of upstreams: servers come and go, workers are replaced only when what they are started with changes.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::settings::{Setting, Settings, list, optional};
use super::{Changes, capacity, dns};
use crate::model::{EndpointSource, StaticServer, Upstream, UpstreamTimeouts, WorkerCount, WorkerProgram, WorkerSpec};
use crate::units::format_duration;

/// An upstream with other settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamChange {
    /// Its name.
    pub name: String,
    /// Settings of the upstream itself: all apply live.
    pub settings: Vec<Setting>,
    /// Addresses of servers that are new.
    pub servers_added: Vec<String>,
    /// Addresses of servers that are gone.
    pub servers_removed: Vec<String>,
    /// Servers with other settings.
    pub servers_changed: Vec<ServerChange>,
    /// What changes for its workers.
    pub workers: Option<WorkersChange>,
}

/// A server with other settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerChange {
    /// Its address.
    pub address: String,
    /// What differs; all of it applies live.
    pub settings: Vec<Setting>,
}

/// Workers with another specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkersChange {
    /// What they are started with: running workers cannot take it over and are replaced (command, environment, folder,
    /// account, transport, readiness).
    pub needs_new_workers: Vec<Setting>,
    /// What applies to running workers: their count and timeouts. Which variables count as secrets stands here too: it
    /// applies to the next start.
    pub live: Vec<Setting>,
}

impl fmt::Display for UpstreamChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, settings, servers_added, servers_removed, servers_changed, workers } = self;
        for setting in settings {
            writeln!(f, "~ upstream {name}: {setting}")?;
        }
        for address in servers_added {
            writeln!(f, "~ upstream {name}: server {address} added")?;
        }
        for address in servers_removed {
            writeln!(f, "~ upstream {name}: server {address} removed")?;
        }
        for ServerChange { address, settings } in servers_changed {
            for setting in settings {
                writeln!(f, "~ upstream {name}: server {address}: {setting}")?;
            }
        }
        let Some(WorkersChange { needs_new_workers, live }) = workers else { return Ok(()) };
        for setting in needs_new_workers {
            writeln!(f, "~ upstream {name}: workers.{setting} (new workers)")?;
        }
        for setting in live {
            writeln!(f, "~ upstream {name}: workers.{setting}")?;
        }
        Ok(())
    }
}

/// Matches upstreams by name.
pub(super) fn upstreams(old: &BTreeMap<String, Upstream>, new: &BTreeMap<String, Upstream>) -> Changes<UpstreamChange> {
    Changes {
        added: new.keys().filter(|name| !old.contains_key(*name)).cloned().collect(),
        removed: old.keys().filter(|name| !new.contains_key(*name)).cloned().collect(),
        changed: new.iter().filter_map(|(name, new)| upstream(old.get(name)?, new)).collect(),
    }
}

fn upstream(old: &Upstream, new: &Upstream) -> Option<UpstreamChange> {
    if old == new {
        return None;
    }
    let Upstream {
        name,
        protocol,
        tls,
        proxy_protocol,
        balance,
        sticky,
        slow_start,
        capacity,
        source,
        dns,
        timeouts,
        idle_connections,
        parsing,
        ejection,
        health_check,
        retry_budget,
        breaker,
        required,
        timing,
        worker_log,
        watch,
        cost,
    } = old;
    let mut settings = Settings::default();
    settings.debug("protocol", protocol, &new.protocol);
    settings.debug("tls", tls, &new.tls);
    settings.debug("proxy_protocol", proxy_protocol, &new.proxy_protocol);
    settings.compare("balance", balance, &new.balance, ToString::to_string);
    settings.0.extend(super::sticky::sticky(sticky.as_ref(), new.sticky.as_ref()));
    settings.time("slow_start", slow_start, &new.slow_start);
    dns::settings(dns.as_ref(), new.dns.as_ref(), &mut settings);
    capacity::capacity(capacity, &new.capacity, &mut settings);
    upstream_timeouts(timeouts, &new.timeouts, &mut settings);
    settings.compare("idle_connections", idle_connections, &new.idle_connections, ToString::to_string);
    settings.debug("parsing", parsing, &new.parsing);
    super::ejection::ejection(ejection, &new.ejection, &mut settings);
    super::health_check::health_check(health_check, &new.health_check, &mut settings);
    settings.compare("retry_budget", retry_budget, &new.retry_budget, |budget| {
        budget.map_or_else(|| "off".to_owned(), |budget| budget.to_string())
    });
    super::breaker::breaker(breaker, &new.breaker, &mut settings);
    settings.debug("required", required, &new.required);
    super::timing::timing(timing, &new.timing, &mut settings);
    settings
        .compare("workers.watch", watch, &new.watch, |paths| list(paths.iter().map(|path| path.display().to_string())));
    settings.debug("workers.cost", cost, &new.cost);
    super::worker_logs::worker_logs(worker_log.as_ref(), new.worker_log.as_ref(), &mut settings);
    let mut change = UpstreamChange {
        name: name.clone(),
        settings: Vec::new(),
        servers_added: Vec::new(),
        servers_removed: Vec::new(),
        servers_changed: Vec::new(),
        workers: None,
    };
    match (source, &new.source) {
        (EndpointSource::Servers(old), EndpointSource::Servers(new)) => servers(old, new, &mut change, &mut settings),
        (EndpointSource::Workers(old), EndpointSource::Workers(new)) => change.workers = workers(old, new),
        (EndpointSource::Servers(_), EndpointSource::Workers(_)) => settings.add("source", "servers", "workers"),
        (EndpointSource::Workers(_), EndpointSource::Servers(_)) => settings.add("source", "workers", "servers"),
    }
    change.settings = settings.0;
    Some(change)
}

fn upstream_timeouts(old: &UpstreamTimeouts, new: &UpstreamTimeouts, settings: &mut Settings) {
    let UpstreamTimeouts { connect, total_connect, head, read, write, idle, request, abandoned_hold } = old;
    settings.time("timeouts.connect", connect, &new.connect);
    settings.time("timeouts.total_connect", total_connect, &new.total_connect);
    settings.time("timeouts.head", head, &new.head);
    settings.time("timeouts.read", read, &new.read);
    settings.time("timeouts.write", write, &new.write);
    settings.time("timeouts.idle", idle, &new.idle);
    settings.compare("workers.request_timeout", request, &new.request, super::retry::time_or_off);
    settings.time("workers.abandoned_hold", abandoned_hold, &new.abandoned_hold);
}

fn servers(old: &[StaticServer], new: &[StaticServer], change: &mut UpstreamChange, settings: &mut Settings) {
    let find = |list: &[StaticServer], server: &StaticServer| {
        list.iter().find(|known| known.address == server.address).cloned()
    };
    for server in old.iter().filter(|server| find(new, server).is_none()) {
        change.servers_removed.push(server.address.to_string());
    }
    for server in new {
        match find(old, server) {
            None => change.servers_added.push(server.address.to_string()),
            Some(from) if from != *server => {
                let address = server.address.to_string();
                change.servers_changed.push(ServerChange { address, settings: server_settings(&from, server) });
            }
            Some(_) => {}
        }
    }
    let is_same =
        change.servers_added.is_empty() && change.servers_removed.is_empty() && change.servers_changed.is_empty();
    if is_same && old != new {
        let order = |servers: &[StaticServer]| list(servers.iter().map(|server| server.address.to_string()));
        settings.add("servers order", &order(old), &order(new));
    }
}

fn server_settings(old: &StaticServer, new: &StaticServer) -> Vec<Setting> {
    let StaticServer { address: _, weight, priority, max_conns, down, max_fails, fail_timeout } = old;
    let none = || "none".to_owned();
    let mut settings = Settings::default();
    settings.compare("weight", weight, &new.weight, ToString::to_string);
    settings.compare("priority", priority, &new.priority, ToString::to_string);
    settings.debug("max_conns", max_conns, &new.max_conns);
    settings.debug("down", down, &new.down);
    settings
        .compare("max_fails", max_fails, &new.max_fails, |count| count.map_or_else(none, |count| count.to_string()));
    settings.compare("fail_timeout", fail_timeout, &new.fail_timeout, |time| time.map_or_else(none, format_duration));
    settings.0
}

fn workers(old: &WorkerSpec, new: &WorkerSpec) -> Option<WorkersChange> {
    let WorkerSpec {
        command,
        count,
        transport,
        cwd,
        env,
        env_inherit,
        env_secret,
        user,
        ready,
        ready_interval,
        warmup,
        boot_timeout,
        drain_timeout,
        stream_grace,
        stop_timeout,
        pre_start,
        deploy,
        program,
        recycle,
        restart,
        hang,
        launch,
    } = old;
    let mut replace = Settings::default();
    replace.compare("command", command, &new.command, |words| list(words.iter().cloned()));
    replace.debug("transport", transport, &new.transport);
    replace.debug("cwd", cwd, &new.cwd);
    let names: std::collections::BTreeSet<&String> = env.keys().chain(new.env.keys()).collect();
    for name in names {
        replace.secret(&format!("env.{name}"), env.get(name), new.env.get(name));
    }
    replace.debug("env_inherit", env_inherit, &new.env_inherit);
    replace.compare("user", user, &new.user, optional);
    replace.compare("ready", ready, &new.ready, ToString::to_string);
    replace.compare("ready.interval", ready_interval, &new.ready_interval, |time| {
        time.map_or_else(|| "never".to_owned(), format_duration)
    });
    super::launch::launch(launch, &new.launch, &mut replace);
    super::warmup::warmup(warmup.as_ref(), new.warmup.as_ref(), &mut replace);

    let mut live = Settings::default();
    live.compare("count", count, &new.count, |count| match count {
        WorkerCount::Auto => "auto".to_owned(),
        WorkerCount::Fixed(count) => count.to_string(),
    });
    live.compare("env_secret", env_secret, &new.env_secret, |names| list(names.iter().cloned()));
    live.time("boot_timeout", boot_timeout, &new.boot_timeout);
    live.time("drain_timeout", drain_timeout, &new.drain_timeout);
    live.time("stream_grace", stream_grace, &new.stream_grace);
    live.time("stop_timeout", stop_timeout, &new.stop_timeout);
    super::deploy::pre_start(pre_start.as_ref(), new.pre_start.as_ref(), &mut live);
    super::deploy::deploy(deploy, &new.deploy, &mut live);
    // What they make of the command is told with the command.
    let WorkerProgram { preset, keep_alive, env: _ } = program;
    live.compare("preset", preset, &new.program.preset, |preset| preset.word().to_owned());
    live.compare("keep_alive", keep_alive, &new.program.keep_alive, |time| {
        time.map_or_else(|| "not known".to_owned(), format_duration)
    });
    super::recycle::recycle(recycle, &new.recycle, &mut live);
    super::restart::restart(restart, &new.restart, &mut live);
    super::hang::hang(hang.as_ref(), new.hang.as_ref(), &mut live);
    super::hang::watchdog(hang.as_ref(), new.hang.as_ref(), &mut replace);
    let change = WorkersChange { needs_new_workers: replace.0, live: live.0 };
    (!change.needs_new_workers.is_empty() || !change.live.is_empty()).then_some(change)
}
