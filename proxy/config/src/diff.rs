//! What changes from one model to the next: the plan of a reload, and the text it prints.
//!
//! Things are matched by name. The order of listeners and sites means nothing and is no change. Values that may hold
//! secrets (environment variables, the token) are named, never printed.

mod breaker;
mod canary;
mod capacity;
mod concurrency;
mod deploy;
mod dns;
mod ejection;
mod error_pages;
mod hang;
mod health_check;
mod launch;
mod recycle;
mod restart;
mod retry;
mod settings;
mod sticky;
mod timing;
mod upstream;
mod warmup;
mod worker_logs;

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::model::{
    Admin, BodyRate, Buffer, ClientTimeouts, ConnectionLimits, ForwardedHeader, HeadLimits, Http2, Listener, Logging,
    Model, ProxyProtocol, RateLimit, RateLimitUse, Route, RouteAction, Server, ShardCount, Site, TlsPolicy, Transport,
    TrustedProxies,
};
use crate::units::{format_duration, format_size};
pub use settings::Setting;
use settings::Settings;
pub use upstream::{ServerChange, UpstreamChange, WorkersChange};

/// Everything that changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Listeners, by name.
    pub listeners: Changes<ThingChange>,
    /// Sites, by name.
    pub sites: Changes<ThingChange>,
    /// Upstreams, by name.
    pub upstreams: Changes<UpstreamChange>,
    /// TLS policies, by name.
    pub tls_policies: Changes<ThingChange>,
    /// Rate limits, by name, or by place where they have none.
    pub rate_limits: Changes<ThingChange>,
    /// Limits of requests under way by name.
    pub concurrency_limits: Changes<ThingChange>,
    /// Settings of the admin endpoint.
    pub admin: Vec<Setting>,
    /// Settings of the logs.
    pub logging: Vec<Setting>,
    /// Settings of the process; some cannot change live, see [`Diff::refusals`].
    pub server: Vec<Setting>,
}

/// What became of the things of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changes<T> {
    /// Names that are new.
    pub added: Vec<String>,
    /// Names that are gone.
    pub removed: Vec<String>,
    /// The same name, other settings.
    pub changed: Vec<T>,
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self { added: Vec::new(), removed: Vec::new(), changed: Vec::new() }
    }
}

impl<T> Changes<T> {
    /// Whether nothing of this kind changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// A listener or site with other settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ThingChange {
    /// Its name.
    pub name: String,
    /// Never empty.
    pub settings: Vec<Setting>,
}

/// A setting that cannot change live, which makes a reload be refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LiveRefusal {
    /// Key path, such as `server.shards`.
    pub setting: String,
    /// What it is.
    pub from: String,
    /// What it should become.
    pub to: String,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for LiveRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, from, to, remedy } = self;
        write!(f, "{setting} cannot change live ({from} -> {to}): {remedy}")
    }
}

/// The settings of `server` that cannot change live.
const FIXED: [&str; 5] = ["shards", "user", "state_dir", "runtime_dir", "spool.dir"];

/// What changes from `old` to `new`.
#[must_use]
pub fn diff(old: &Model, new: &Model) -> Diff {
    let Model { listeners, sites, upstreams, tls_policies, rate_limits, concurrency_limits, admin, logging, server } =
        old;
    Diff {
        listeners: things(listeners, &new.listeners, |listener| &listener.name, listener),
        sites: things(sites, &new.sites, |site| &site.name, site),
        upstreams: upstream::upstreams(upstreams, &new.upstreams),
        tls_policies: by_name(tls_policies, &new.tls_policies, tls_policy),
        rate_limits: by_name(rate_limits, &new.rate_limits, rate_limit),
        concurrency_limits: by_name(concurrency_limits, &new.concurrency_limits, concurrency::concurrency_limit),
        admin: self::admin(admin, &new.admin),
        logging: self::logging(logging, &new.logging),
        server: self::server(server, &new.server),
    }
}

impl Diff {
    /// Whether nothing changes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        let Self { listeners, sites, upstreams, tls_policies, rate_limits, concurrency_limits, admin, logging, server } =
            self;
        listeners.is_empty()
            && sites.is_empty()
            && upstreams.is_empty()
            && tls_policies.is_empty()
            && rate_limits.is_empty()
            && concurrency_limits.is_empty()
            && admin.is_empty()
            && logging.is_empty()
            && server.is_empty()
    }

    /// The changes that a running process cannot make.
    #[must_use]
    pub fn refusals(&self) -> Vec<LiveRefusal> {
        let fixed = self.server.iter().filter(|setting| FIXED.contains(&setting.name.as_str()));
        let refuse = |Setting { name, from, to }: &Setting| LiveRefusal {
            setting: format!("server.{name}"),
            from: from.clone(),
            to: to.clone(),
            remedy: "restart the program, or set it back",
        };
        fixed.map(refuse).collect()
    }
}

impl fmt::Display for Diff {
    /// A line for each change, marked `+` (added), `-` (removed) or `~` (changed); `no changes` without any.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listeners, sites, upstreams, tls_policies, rate_limits, concurrency_limits, admin, logging, server } =
            self;
        if self.is_empty() {
            return writeln!(f, "no changes");
        }
        write_names(f, "listener", listeners)?;
        for ThingChange { name, settings } in &listeners.changed {
            write_settings(f, &format!("listener {name}: "), settings)?;
        }
        write_names(f, "site", sites)?;
        for ThingChange { name, settings } in &sites.changed {
            write_settings(f, &format!("site {name}: "), settings)?;
        }
        write_names(f, "upstream", upstreams)?;
        for change in &upstreams.changed {
            write!(f, "{change}")?;
        }
        write_names(f, "tls_policy", tls_policies)?;
        for ThingChange { name, settings } in &tls_policies.changed {
            write_settings(f, &format!("tls_policy {name}: "), settings)?;
        }
        write_names(f, "rate_limit", rate_limits)?;
        for ThingChange { name, settings } in &rate_limits.changed {
            write_settings(f, &format!("rate_limit {name}: "), settings)?;
        }
        write_names(f, "concurrency_limit", concurrency_limits)?;
        for ThingChange { name, settings } in &concurrency_limits.changed {
            write_settings(f, &format!("concurrency_limit {name}: "), settings)?;
        }
        write_settings(f, "admin.", admin)?;
        write_settings(f, "logging.", logging)?;
        write_settings(f, "server.", server)
    }
}

fn write_names<T>(f: &mut fmt::Formatter<'_>, kind: &str, changes: &Changes<T>) -> fmt::Result {
    for name in &changes.added {
        writeln!(f, "+ {kind} {name}")?;
    }
    for name in &changes.removed {
        writeln!(f, "- {kind} {name}")?;
    }
    Ok(())
}

fn write_settings(f: &mut fmt::Formatter<'_>, prefix: &str, settings: &[Setting]) -> fmt::Result {
    for setting in settings {
        writeln!(f, "~ {prefix}{setting}")?;
    }
    Ok(())
}

/// Matches things by name.
fn things<T>(
    old: &[T],
    new: &[T],
    name: impl Fn(&T) -> &String,
    compare: impl Fn(&T, &T) -> Vec<Setting>,
) -> Changes<ThingChange> {
    let old: BTreeMap<&String, &T> = old.iter().map(|thing| (name(thing), thing)).collect();
    let mut changes = Changes::default();
    let names: Vec<&String> = new.iter().map(&name).collect();
    changes.removed.extend(old.keys().filter(|name| !names.contains(name)).map(|name| (*name).clone()));
    for thing in new {
        let name = name(thing).clone();
        match old.get(&name) {
            None => changes.added.push(name),
            Some(old) => {
                let settings = compare(old, thing);
                if !settings.is_empty() {
                    changes.changed.push(ThingChange { name, settings });
                }
            }
        }
    }
    changes
}

fn listener(old: &Listener, new: &Listener) -> Vec<Setting> {
    let Listener {
        name: _,
        address,
        transport,
        tls_policy,
        default_site,
        max_connections,
        proxy_protocol,
        trusted_proxies,
        half_close,
        timeouts,
        head_limits,
        http2,
        parsing,
    } = old;
    let mut settings = Settings::default();
    settings.compare("address", address, &new.address, ToString::to_string);
    settings.compare("transport", transport, &new.transport, describe_transport);
    settings.compare("tls.policy", tls_policy, &new.tls_policy, String::clone);
    settings.compare("default_site", default_site, &new.default_site, settings::optional);
    settings.compare("max_connections", max_connections, &new.max_connections, |most| {
        most.map_or_else(|| "none".to_owned(), |most| most.to_string())
    });
    settings.compare("proxy_protocol", proxy_protocol, &new.proxy_protocol, describe_proxy_protocol);
    settings.compare("trusted_proxies", trusted_proxies, &new.trusted_proxies, describe_trusted_proxies);
    settings.debug("half_close", half_close, &new.half_close);
    client_timeouts(timeouts, &new.timeouts, &mut settings);
    limits(head_limits, &new.head_limits, &mut settings);
    http2_limits(http2, &new.http2, &mut settings);
    settings.debug("parsing", parsing, &new.parsing);
    settings.0
}

fn describe_transport(transport: &Transport) -> String {
    match transport {
        Transport::Plain { h2c: false } => "plaintext".to_owned(),
        Transport::Plain { h2c: true } => "plaintext with h2c".to_owned(),
        Transport::Tls => "tls".to_owned(),
    }
}

fn describe_proxy_protocol(protocol: &Option<ProxyProtocol>) -> String {
    match protocol {
        None => "none".to_owned(),
        Some(ProxyProtocol { from, timeout }) => format!("from {from} within {}", format_duration(*timeout)),
    }
}

fn describe_trusted_proxies(proxies: &Option<TrustedProxies>) -> String {
    let word = |header| match header {
        ForwardedHeader::XForwardedFor => "x_forwarded_for",
        ForwardedHeader::Forwarded => "forwarded",
    };
    match proxies {
        None => "none".to_owned(),
        Some(TrustedProxies { from, header }) => format!("{from} by {}", word(*header)),
    }
}

fn describe_body_rate(rate: &Option<BodyRate>) -> String {
    match rate {
        None => "off".to_owned(),
        Some(BodyRate { rate, over }) => format!("{}/s over {}", format_size(*rate), format_duration(*over)),
    }
}

fn client_timeouts(old: &ClientTimeouts, new: &ClientTimeouts, settings: &mut Settings) {
    let ClientTimeouts { handshake, head, idle, body_idle, body_rate, write_idle, tunnel_idle } = old;
    settings.time("timeouts.handshake", handshake, &new.handshake);
    settings.time("timeouts.head", head, &new.head);
    settings.time("timeouts.idle", idle, &new.idle);
    settings.time("timeouts.body_idle", body_idle, &new.body_idle);
    settings.compare("timeouts.body_rate", body_rate, &new.body_rate, describe_body_rate);
    settings.time("timeouts.write_idle", write_idle, &new.write_idle);
    settings.time("timeouts.tunnel_idle", tunnel_idle, &new.tunnel_idle);
}

fn http2_limits(old: &Http2, new: &Http2, settings: &mut Settings) {
    let Http2 { streams, resets, stream_window, connection_window } = old;
    settings.compare("http2.streams", streams, &new.streams, ToString::to_string);
    settings.compare("http2.resets", resets, &new.resets, ToString::to_string);
    settings.compare("http2.stream_window", stream_window, &new.stream_window, ToString::to_string);
    settings.compare("http2.connection_window", connection_window, &new.connection_window, ToString::to_string);
}

fn limits(old: &HeadLimits, new: &HeadLimits, settings: &mut Settings) {
    let HeadLimits { bytes, fields, target } = old;
    settings.compare("head_limits.bytes", bytes, &new.bytes, ToString::to_string);
    settings.compare("head_limits.fields", fields, &new.fields, ToString::to_string);
    settings.compare("head_limits.target", target, &new.target, ToString::to_string);
}

fn site(old: &Site, new: &Site) -> Vec<Setting> {
    let Site { name: _, hosts, listeners, tls, tls_policy, error_pages, routes } = old;
    let mut settings = Settings::default();
    settings.compare("hosts", hosts, &new.hosts, |hosts| {
        settings::list(hosts.iter().map(crate::model::HostPattern::to_text))
    });
    settings.compare("listeners", listeners, &new.listeners, |names| settings::list(names.iter().cloned()));
    settings.debug("tls", tls, &new.tls);
    settings.compare("tls_policy", tls_policy, &new.tls_policy, settings::optional);
    error_pages::error_pages("error_pages", error_pages, &new.error_pages, &mut settings);
    self::routes("routes", routes, &new.routes, &mut settings);
    settings.0
}

/// Names the routes that differ; inner routes by the way to them.
fn routes(path: &str, old: &[Route], new: &[Route], settings: &mut Settings) {
    if old == new {
        return;
    }
    let before = settings.0.len();
    let named = |routes: &[Route], name: &str| routes.iter().find(|route| route.name == name).cloned();
    for route in old.iter().filter(|route| named(new, &route.name).is_none()) {
        settings.add(&format!("{path}[{}]", route.name), "present", "absent");
    }
    for route in new {
        let path = format!("{path}[{}]", route.name);
        match named(old, &route.name) {
            None => settings.add(&path, "absent", "present"),
            Some(old) => self::route(&path, &old, route, settings),
        }
    }
    if settings.0.len() == before {
        settings.add(&format!("{path} order"), &order(old), &order(new));
    }
}

fn order(routes: &[Route]) -> String {
    settings::list(routes.iter().map(|route| route.name.clone()))
}

fn route(path: &str, old: &Route, new: &Route, settings: &mut Settings) {
    let Route {
        name: _,
        path: pattern,
        conditions,
        action,
        max_body,
        buffer,
        rate_limits,
        concurrency,
        retry,
        deadline,
        forward_path,
        error_pages,
    } = old;
    settings.debug(&format!("{path}.path"), pattern, &new.path);
    settings.debug(&format!("{path}.conditions"), conditions, &new.conditions);
    match (action, &new.action) {
        (RouteAction::Nested(old), RouteAction::Nested(new)) => routes(&format!("{path}.routes"), old, new, settings),
        (old, new) => settings.compare(&format!("{path}.action"), old, new, describe_action),
    }
    settings.compare(&format!("{path}.max_body"), max_body, &new.max_body, |&size| crate::units::format_size(size));
    let Buffer { request, response } = buffer;
    settings.compare(&format!("{path}.buffer.request"), request, &new.buffer.request, held);
    settings.compare(&format!("{path}.buffer.response"), response, &new.buffer.response, held);
    settings.compare(&format!("{path}.rate_limit"), rate_limits, &new.rate_limits, |uses| describe_limits(uses));
    let names = |names: &Vec<String>| concurrency::names(names);
    settings.compare(&format!("{path}.concurrency"), concurrency, &new.concurrency, names);
    retry::retry(&format!("{path}.retry"), retry, &new.retry, settings);
    settings.compare(&format!("{path}.deadline"), deadline, &new.deadline, retry::time_or_off);
    settings.debug(&format!("{path}.forward_path"), forward_path, &new.forward_path);
    error_pages::error_pages(&format!("{path}.error_pages"), error_pages, &new.error_pages, settings);
}

fn describe_limits(uses: &[RateLimitUse]) -> String {
    match uses {
        [] => "off".to_owned(),
        [RateLimitUse { limit, cost: 1 }] => limit.clone(),
        uses => settings::list(uses.iter().map(|RateLimitUse { limit, cost }| match cost {
            1 => limit.clone(),
            cost => format!("{limit} at {cost}"),
        })),
    }
}

fn held(bytes: &u64) -> String {
    if *bytes == 0 { "off".to_owned() } else { crate::units::format_size(*bytes) }
}

fn describe_action(action: &RouteAction) -> String {
    match action {
        RouteAction::Proxy(upstream) => format!("proxy {upstream}"),
        RouteAction::Respond(response) => format!("respond {} ({} bytes)", response.status, response.body.len()),
        RouteAction::Nested(routes) => format!("{} inner routes", routes.len()),
    }
}

/// Matches things that stand under their names.
fn by_name<T>(
    old: &BTreeMap<String, T>,
    new: &BTreeMap<String, T>,
    compare: impl Fn(&T, &T) -> Vec<Setting>,
) -> Changes<ThingChange> {
    let change = |(name, new): (&String, &T)| {
        let settings = compare(old.get(name)?, new);
        (!settings.is_empty()).then(|| ThingChange { name: name.clone(), settings })
    };
    Changes {
        added: new.keys().filter(|name| !old.contains_key(*name)).cloned().collect(),
        removed: old.keys().filter(|name| !new.contains_key(*name)).cloned().collect(),
        changed: new.iter().filter_map(change).collect(),
    }
}

fn rate_limit(old: &RateLimit, new: &RateLimit) -> Vec<Setting> {
    let RateLimit { name: _, named: _, rate, burst, delay, key, status, headers, dry_run, allow, entries } = old;
    let mut settings = Settings::default();
    settings.compare("rate", rate, &new.rate, ToString::to_string);
    settings.compare("burst", burst, &new.burst, ToString::to_string);
    settings.compare("delay", delay, &new.delay, |delay| {
        delay.map_or_else(|| "nodelay".to_owned(), |delay| delay.to_string())
    });
    settings.compare("key", key, &new.key, |key| settings::list(key.iter().map(ToString::to_string)));
    settings.compare("status", status, &new.status, ToString::to_string);
    settings.debug("headers", headers, &new.headers);
    settings.compare("dry_run", dry_run, &new.dry_run, ToString::to_string);
    settings.compare("allow", allow, &new.allow, ToString::to_string);
    settings.compare("entries", entries, &new.entries, ToString::to_string);
    settings.0
}

fn tls_policy(old: &TlsPolicy, new: &TlsPolicy) -> Vec<Setting> {
    let TlsPolicy { min_version, cipher_suites, key_exchange, alpn, client_certificates, tickets, session_cache } = old;
    let mut settings = Settings::default();
    settings.debug("min_version", min_version, &new.min_version);
    settings.debug("cipher_suites", cipher_suites, &new.cipher_suites);
    settings.debug("key_exchange", key_exchange, &new.key_exchange);
    settings.debug("alpn", alpn, &new.alpn);
    settings.debug("client_certificates", client_certificates, &new.client_certificates);
    settings.debug("tickets", tickets, &new.tickets);
    settings.compare("session_cache", session_cache, &new.session_cache, ToString::to_string);
    settings.0
}

fn admin(old: &Admin, new: &Admin) -> Vec<Setting> {
    let Admin { listen, token } = old;
    let mut settings = Settings::default();
    settings.compare("listen", listen, &new.listen, ToString::to_string);
    settings.secret("token", token.as_ref(), new.token.as_ref());
    settings.0
}

fn logging(old: &Logging, new: &Logging) -> Vec<Setting> {
    let Logging { level, format, access } = old;
    let mut settings = Settings::default();
    settings.debug("level", level, &new.level);
    settings.debug("format", format, &new.format);
    settings.debug("access", access, &new.access);
    settings.0
}

fn server(old: &Server, new: &Server) -> Vec<Setting> {
    let Server { shards, user, state_dir, runtime_dir, connections, spool, drain_timeout, shutdown_timeout, fail_fast } =
        old;
    let mut settings = Settings::default();
    let folder = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map_or("default".to_owned(), |path| path.display().to_string())
    };
    settings.compare("shards", shards, &new.shards, |shards| match shards {
        ShardCount::Auto => "auto".to_owned(),
        ShardCount::Fixed(count) => count.to_string(),
    });
    settings.compare("user", user, &new.user, settings::optional);
    settings.compare("state_dir", state_dir, &new.state_dir, folder);
    settings.compare("runtime_dir", runtime_dir, &new.runtime_dir, folder);
    let ConnectionLimits { total, per_address, handshakes, fd_reserve } = connections;
    let new_limits = &new.connections;
    settings.compare("connections.total", total, &new_limits.total, |total| {
        total.map_or("descriptor limit".to_owned(), |total| total.to_string())
    });
    settings.compare("connections.per_address", per_address, &new_limits.per_address, ToString::to_string);
    settings.compare("connections.handshakes", handshakes, &new_limits.handshakes, ToString::to_string);
    settings.compare("connections.fd_reserve", fd_reserve, &new_limits.fd_reserve, ToString::to_string);
    settings.compare("spool.dir", &spool.dir, &new.spool.dir, folder);
    settings.compare("spool.total", &spool.total, &new.spool.total, |&size| crate::units::format_size(size));
    settings.time("drain_timeout", drain_timeout, &new.drain_timeout);
    settings.time("shutdown_timeout", shutdown_timeout, &new.shutdown_timeout);
    settings.debug("fail_fast", fail_fast, &new.fail_fast);
    settings.0
}

#[cfg(test)]
mod tests;
