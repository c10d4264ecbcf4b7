//! What a person sees when the program has started: where to point a browser.

use crate::app::Program;
use crate::edge::bind;
use crate::status::host;
use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use tidegate_config::model::{Address, HostPattern, Listener, Site, Transport};

/// Prints the addresses of every site to standard error. Nobody reading it is no failure.
pub(crate) fn print(program: &Program) {
    let snapshot = program.reloader().serving.load_full();
    let running = program.reloader().plane.listeners();
    let mut text = format!("tidegate {} is serving\n", crate::VERSION);
    for listener in &snapshot.model.listeners {
        let Some(bound) = running.iter().find(|running| running.is_for(listener)) else { continue };
        let sites = snapshot.model.sites.iter().filter(|site| site.listeners.contains(&listener.name));
        match &bound.actual {
            Address::Unix(_) => text.push_str(&format!("  {}\n", bind::display(&bound.actual))),
            Address::Tcp(address) => sites.for_each(|site| urls(&mut text, listener, *address, site)),
        }
    }
    text.push_str(&format!("  admin {}\n", bind::display(&snapshot.model.admin.listen)));
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn urls(text: &mut String, listener: &Listener, address: SocketAddr, site: &Site) {
    let (scheme, usual) = match listener.transport {
        Transport::Tls => ("https", 443),
        Transport::Plain { .. } => ("http", 80),
    };
    let port = if address.port() == usual { String::new() } else { format!(":{}", address.port()) };
    for pattern in &site.hosts {
        let name = match pattern {
            // No browser can go there.
            HostPattern::Wildcard(_) => {
                text.push_str(&format!("  {}{port}  site {}\n", host(pattern), site.name));
                continue;
            }
            HostPattern::Any => reachable(address.ip()),
            HostPattern::Exact(name) if name.parse::<Ipv6Addr>().is_ok() => format!("[{name}]"),
            other => host(other),
        };
        text.push_str(&format!("  {scheme}://{name}{port}/  site {}\n", site.name));
    }
}

/// A name under which a listening address answers on this machine.
fn reachable(address: IpAddr) -> String {
    match address {
        address if address.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}
