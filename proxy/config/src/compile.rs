//! Raw to model: resolves every default and every name, and keeps every fault.
//!
//! A value that is missing because it was faulty is passed over in silence: its fault is known already. Every raw
//! struct is taken apart without `..`, so a key that is read but not used does not compile.

mod balance;
mod breaker;
mod buffer;
mod canary;
mod capacity;
mod concurrency;
mod deploy;
mod dns;
mod ejection;
mod error_pages;
mod hang;
mod health_check;
mod hedge;
mod keep_alive;
mod launch;
mod listener;
mod named_limits;
mod names;
mod pre_start;
mod preset;
mod process;
mod rate_limit;
mod ready;
mod recycle;
mod request_timeout;
mod restart;
mod retry;
mod route;
mod site;
mod sticky;
mod timing;
mod tls_policy;
mod tunnels;
mod upstream;
mod variables;
mod warmup;
mod watch;
mod worker;
mod worker_logs;

use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::fault::Code;
use crate::model::{Address, EndpointSource, Model, ServerAddress, Upstream};
use crate::raw;
use crate::report::Report;
use crate::source::Span;
use crate::tree::Spot;
use crate::units::Reason;
use names::Names;

/// What compile knows besides the file.
pub(crate) struct Scene<'a> {
    /// Folder for sockets when the file names none.
    pub(crate) runtime_folder: &'a Path,
    /// Names of the environment variables the file refers to.
    pub(crate) variables: &'a [String],
    /// Where files come from.
    pub(crate) environment: &'a dyn Environment,
}

/// Compiles a whole file. The model counts only when the report is clean afterwards.
pub(crate) fn compile(raw: raw::SiteFile, spot: Spot<'_>, scene: &Scene<'_>, report: &mut Report) -> Option<Model> {
    let raw::SiteFile {
        include,
        listeners,
        sites,
        upstreams,
        tls_policies,
        rate_limits,
        concurrency_limits,
        dns,
        admin,
        logging,
        server,
    } = raw;
    // Acted on while reading.
    drop(include);
    let server = process::server(server.unwrap_or_default(), spot.key("server"), report);
    let admin = process::admin(admin.unwrap_or_default(), spot.key("admin"), server.as_ref(), scene, report);
    let logging = process::logging(logging.unwrap_or_default(), spot.key("logging"), report);

    let upstreams = upstreams.unwrap_or_default();
    let listeners = listeners.unwrap_or_default();
    let sites = sites.unwrap_or_default();
    let tls_policies = tls_policies.unwrap_or_default();
    let mut names = Names::collect(spot, &listeners, &sites, &upstreams, &tls_policies, report);
    let root_damaged = spot.is_damaged();
    names.limits.define(rate_limits, spot.key("rate_limits"), root_damaged, report);
    names.concurrency.define(concurrency_limits, spot.key("concurrency_limits"), root_damaged, report);

    names.retries = retry::of_upstreams(&upstreams, spot.key("upstreams"), report);
    let dns = dns::settings(dns.unwrap_or_default(), spot.key("dns"), report);
    let upstreams = upstream::upstreams(upstreams, spot.key("upstreams"), &dns, scene, report);
    let access = logging.as_ref().and_then(|logging| logging.access.as_ref());
    worker_logs::check_sharing(&upstreams, access, spot.key("upstreams"), report);
    let tls_policies = tls_policy::tls_policies(tls_policies, spot.key("tls_policies"), report);
    let sites = site::sites(sites, spot.key("sites"), scene, &mut names, report);
    let listeners = listener::listeners(listeners, spot.key("listeners"), &mut names, report);
    watch::check_listeners(&upstreams, &listeners, spot.key("upstreams"), report);
    tls_policy::check_client_certificates(&sites, &listeners, &tls_policies, |site| names.site_span(site), report);
    names.report_unused(spot, report);

    let model = Model {
        listeners,
        sites,
        upstreams: upstreams.into_iter().collect(),
        tls_policies,
        rate_limits: names.limits.take(),
        concurrency_limits: names.concurrency.take(),
        admin: admin?,
        logging: logging?,
        server: server?,
    };
    check_addresses(&model, spot, &names, report);
    Some(model)
}

/// Compares addresses across the sections of the file.
fn check_addresses(model: &Model, spot: Spot<'_>, names: &Names, report: &mut Report) {
    let admin = &model.admin.listen;
    let admin_span = spot.key("admin").key("listen").key_span();
    for listener in model.listeners.iter().filter(|listener| crate::address::overlap(&listener.address, admin)) {
        let problem = format!("the listener \"{}\" and the admin endpoint listen on the same address", listener.name);
        let span = names.listener_span(&listener.name).unwrap_or(admin_span);
        report.fault(span, Code::Conflict, problem).hint("give admin.listen an address of its own");
    }
    for upstream in model.upstreams.values() {
        for (address, span) in server_spots(upstream, spot) {
            if address == admin {
                let problem = "this server is our own admin endpoint";
                let hint = "the admin endpoint is not for clients: remove it from the upstream";
                report.fault(span, Code::Conflict, problem).hint(hint);
            } else if model.listeners.iter().any(|listener| listener.address == *address) {
                let problem = "this server is one of our own listeners: requests may run in circles";
                report.warning(span, Code::Suspicious, problem);
            }
        }
    }
}

fn server_spots<'m>(upstream: &'m Upstream, spot: Spot<'_>) -> Vec<(&'m Address, Span)> {
    let EndpointSource::Servers(servers) = &upstream.source else { return Vec::new() };
    let servers_spot = spot.key("upstreams").key(&upstream.name).key("servers");
    let place = |index| servers_spot.item(index).key("address").span();
    let fixed = servers.iter().enumerate().filter_map(|(index, server)| match &server.address {
        ServerAddress::Fixed(address) => Some((address, place(index))),
        // What it resolves to is not known before the program runs.
        ServerAddress::Host { .. } | ServerAddress::Service { .. } => None,
    });
    fixed.collect()
}

/// Names of the file's own choice become folders of sockets and labels of metrics; `what` is `an upstream`, say.
fn check_name(name: &str, what: &str, spot: Spot<'_>, report: &mut Report) {
    let is_name = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && !name.starts_with('.');
    if !is_name {
        let problem = format!("\"{}\" cannot be the name of {what}", crate::walk::shorten(name));
        let hint = "names have 1 to 64 letters, digits, \"_\", \".\" and \"-\", and do not start with a dot";
        report.fault(spot.key_span(), Code::BadValue, problem).hint(hint);
    }
}

/// Keeps the value, or reports why the text at `spot` is none.
fn keep<T>(parsed: Result<T, Reason>, text: &str, spot: Spot<'_>, report: &mut Report) -> Option<T> {
    match parsed {
        Ok(value) => Some(value),
        Err(Reason { problem, hint }) => {
            let problem = format!("\"{}\" {problem}", spot.shown(text));
            // The hint may repeat the value.
            let hint = hint.filter(|_| !spot.is_expanded());
            report.fault(spot.span(), Code::BadValue, problem).maybe_hint(hint);
            None
        }
    }
}

/// A path that may be relative to the folder of the file it stands in.
fn file_path(written: &str, spot: Spot<'_>, report: &Report) -> PathBuf {
    let folder = report.sources.file(spot.node.span.file).map(|source| source.folder.as_path());
    folder.unwrap_or(Path::new("/")).join(written)
}

/// A path that must be absolute.
fn absolute_path(written: &str, spot: Spot<'_>, report: &mut Report) -> Option<PathBuf> {
    if written.starts_with('/') && !written.contains('\0') {
        return Some(PathBuf::from(written));
    }
    let problem = format!("\"{}\" is not an absolute path", spot.shown(written));
    report.fault(spot.span(), Code::BadValue, problem).hint("write the whole path, starting with \"/\"");
    None
}

/// The name of an account.
fn account(name: String, spot: Spot<'_>, report: &mut Report) -> Option<String> {
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.$".contains(&byte)) && name.len() <= 32;
    if is_name && !name.starts_with('-') {
        return Some(name);
    }
    let problem = format!("\"{}\" is not the name of an account", spot.shown(&name));
    report.fault(spot.span(), Code::BadValue, problem).hint("write a user name such as www-data");
    None
}

/// Checks every element with what it may hold: `check` gets the element, its place and the report.
fn each<T, U>(
    items: Vec<T>,
    spot: Spot<'_>,
    report: &mut Report,
    mut check: impl FnMut(T, Spot<'_>, &mut Report) -> Option<U>,
) -> Vec<U> {
    let items = items.into_iter().enumerate();
    items.filter_map(|(index, item)| check(item, spot.item(index), report)).collect()
}
