//! Addresses as they are written: to listen on, and to connect to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::host::parse_name;
use crate::model::{Address, ServerAddress};
use crate::units::Reason;

/// Longest path of a unix socket: `sun_path` less its final zero.
pub const LONGEST_SOCKET_PATH: usize = 107;

/// Where an address is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Listen,
    Connect,
}

impl fmt::Display for Address {
    /// As it is written in a site file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Reads `127.0.0.1:80`, `[::1]:80`, `unix:/path` and, to listen on, `:80`.
pub(crate) fn parse_address(text: &str, usage: Use) -> Result<Address, Reason> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(path);
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return tcp(address, usage);
    }
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")) {
        return wildcard(text, port, usage);
    }
    Err(not_an_address(text, usage))
}

/// Reads where a server is: an address, or a name with a port.
pub(crate) fn parse_server(text: &str) -> Result<ServerAddress, Reason> {
    let of_name = text.rsplit_once(':').filter(|(host, _)| may_be_name(host));
    let Some((host, port)) = of_name else { return parse_address(text, Use::Connect).map(ServerAddress::Fixed) };
    match port.parse() {
        Ok(0) => Err(port_zero()),
        Ok(port) => Ok(ServerAddress::Host { name: absolute_or_not(host)?, port }),
        Err(_) => Err(not_an_address(text, Use::Connect)),
    }
}

/// Reads the name of SRV records.
pub(crate) fn parse_service(text: &str) -> Result<ServerAddress, Reason> {
    match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(Reason::new("names a port, and SRV records have their own", format!("write {name}")))
        }
        _ if text.parse::<IpAddr>().is_ok() => {
            Err(Reason::new("is an address, and SRV records have a name", "write it as address, with its port"))
        }
        _ => Ok(ServerAddress::Service { name: absolute_or_not(text)? }),
    }
}

/// A name in lower case; a dot at its end stays, because no search list is tried for it then.
fn absolute_or_not(text: &str) -> Result<String, Reason> {
    let name = parse_name(text)?;
    Ok(if text.ends_with('.') { name + "." } else { name })
}

/// Whether the part before a port is meant as a name; not when it is part of something else that has colons.
fn may_be_name(host: &str) -> bool {
    let is_other = host == "unix" || host.contains([':', '/', '*', '[']);
    !is_other && host.chars().any(|letter| letter.is_ascii_alphabetic() || !letter.is_ascii())
}

fn port_zero() -> Reason {
    Reason::new("has port 0, which nobody can connect to", "write the port the server listens on")
}

fn unix(path: &str) -> Result<Address, Reason> {
    if !path.starts_with('/') {
        let absolute = path.trim_start_matches('/');
        return Err(Reason::new(
            "is not an address: a socket needs an absolute path",
            format!("write unix:/run/{}", if absolute.is_empty() { "app.sock" } else { absolute }),
        ));
    }
    if path.len() > LONGEST_SOCKET_PATH {
        return Err(Reason::new(
            format!("is {} bytes long, but the path of a socket has at most {LONGEST_SOCKET_PATH}", path.len()),
            "choose a shorter path, for instance below /run",
        ));
    }
    if path.contains('\0') || path.ends_with('/') {
        return Err(Reason::new("is not the path of a socket", "write unix:/run/app.sock"));
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn tcp(address: SocketAddr, usage: Use) -> Result<Address, Reason> {
    if usage == Use::Connect && address.port() == 0 {
        return Err(port_zero());
    }
    if usage == Use::Connect && address.ip().is_unspecified() {
        let hint = format!("write 127.0.0.1:{}", address.port());
        return Err(Reason::new("names all addresses of this machine, and a connection needs one", hint));
    }
    Ok(Address::Tcp(address))
}

fn wildcard(text: &str, port: &str, usage: Use) -> Result<Address, Reason> {
    let Ok(number) = port.parse::<u16>() else { return Err(not_an_address(text, usage)) };
    match usage {
        Use::Connect => Err(Reason::new("names no host", format!("write 127.0.0.1:{number}"))),
        Use::Listen if text.starts_with('*') => {
            Err(Reason::new("is not an address", format!("write \":{number}\" for all addresses")))
        }
        Use::Listen => Ok(Address::Tcp(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), number))),
    }
}

fn not_an_address(text: &str, usage: Use) -> Reason {
    let forms = match usage {
        Use::Listen => "write \":80\", \"127.0.0.1:80\", \"[::1]:80\" or unix:/path",
        Use::Connect => "write \"127.0.0.1:8000\", \"[::1]:8000\", \"api.internal:8000\" or unix:/path",
    };
    if let Some(hint) = scheme_hint(text) {
        return Reason::new("is a URL, not an address", hint);
    }
    if text.starts_with('/') {
        return Reason::new("is not an address", format!("write unix:{text} for a socket"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let hint = if usage == Use::Listen { format!("write \":{text}\"") } else { format!("write 127.0.0.1:{text}") };
        return Reason::new("is not an address", hint);
    }
    if text.parse::<IpAddr>().is_ok() {
        let example = if text.contains(':') { format!("[{text}]:80") } else { format!("{text}:80") };
        return Reason::new("has no port", format!("write \"{example}\""));
    }
    match text.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_err() => Reason::new(
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !port.is_empty() {
                "has no possible port: ports go up to 65535"
            } else {
                "is not an address: the port is no number"
            },
            forms,
        ),
        Some((host, port)) if is_name(host) => Reason::new(
            "is a host name, and a listener needs an address",
            format!("write \":{port}\" for all addresses"),
        ),
        None if is_name(text) => Reason::new("has no port", format!("write \"{text}:8000\"")),
        _ => Reason::new("is not an address", forms),
    }
}

fn scheme_hint(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("://")?;
    let address = rest.split('/').next().unwrap_or_default();
    Some(format!("write only address and port: {address}"))
}

fn is_name(text: &str) -> bool {
    let is_name = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_name && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

/// Whether two addresses cannot be listened on at the same time: they are equal, or one takes all addresses of a port,
/// including the other.
pub(crate) fn overlap(a: &Address, b: &Address) -> bool {
    let (Address::Tcp(a), Address::Tcp(b)) = (a, b) else { return a == b };
    // Port 0 is another free port each time.
    if a.port() != b.port() || a.port() == 0 {
        return false;
    }
    // [::] is opened for IPv4 too; 0.0.0.0 is not opened for IPv6.
    let takes = |wide: &SocketAddr, other: &SocketAddr| match wide.ip() {
        IpAddr::V6(ip) => ip.is_unspecified() && other.ip().is_unspecified(),
        IpAddr::V4(_) => false,
    };
    a == b || takes(a, b) || takes(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses() {
        for (text, usage, expected) in [
            (":8443", Use::Listen, "[::]:8443"),
            ("127.0.0.1:80", Use::Listen, "127.0.0.1:80"),
            ("127.0.0.1:0", Use::Listen, "127.0.0.1:0"),
            ("[::1]:80", Use::Connect, "[::1]:80"),
            ("unix:/run/x.sock", Use::Connect, "unix:/run/x.sock"),
        ] {
            assert_eq!(parse_address(text, usage).map(|address| address.to_string()), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn refuses_with_a_remedy() {
        for (text, usage, remedy) in [
            ("8080", Use::Listen, "write \":8080\""),
            ("*:80", Use::Listen, "write \":80\" for all addresses"),
            ("localhost:80", Use::Listen, "write \":80\" for all addresses"),
            ("api.internal", Use::Connect, "write \"api.internal:8000\""),
            (":8000", Use::Connect, "write 127.0.0.1:8000"),
            ("0.0.0.0:8000", Use::Connect, "write 127.0.0.1:8000"),
            ("http://10.0.0.1:8000/x", Use::Connect, "write only address and port: 10.0.0.1:8000"),
            ("/run/x.sock", Use::Connect, "write unix:/run/x.sock for a socket"),
            ("unix:run/x.sock", Use::Listen, "write unix:/run/run/x.sock"),
            ("10.0.0.1", Use::Connect, "write \"10.0.0.1:80\""),
            ("::1", Use::Listen, "write \"[::1]:80\""),
        ] {
            assert_eq!(parse_address(text, usage).unwrap_err().hint.as_deref(), Some(remedy), "{text}");
        }
        for text in ["", ":", ":x", "1.2.3.4:99999", "a b:1", "unix:", "unix:/a/", "app:8000", "[::1]"] {
            assert!(parse_address(text, Use::Listen).is_err(), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(LONGEST_SOCKET_PATH));
        assert!(parse_address(&long, Use::Listen).is_err());
        assert!(parse_address(&long[..long.len() - 1], Use::Listen).is_ok());
    }

    #[test]
    fn servers_have_addresses_or_names() {
        let host = |name: &str, port| Ok(ServerAddress::Host { name: name.to_owned(), port });
        assert_eq!(parse_server("API.Internal:8000"), host("api.internal", 8000));
        assert_eq!(parse_server("api.internal.:80"), host("api.internal.", 80));
        assert_eq!(parse_server("my_app:1"), host("my_app", 1));
        assert_eq!(parse_server("xn--bcher-kva.example:65535"), host("xn--bcher-kva.example", 65535));
        for address in ["10.0.0.1:80", "[::1]:80", "unix:/run/x.sock"] {
            let parsed = parse_server(address).map(|server| (server.is_name(), server.to_string()));
            assert_eq!(parsed, Ok((false, address.to_owned())));
        }
        for text in [
            "api.internal",
            "api:http",
            "api:65536",
            "api:-1",
            "api: 80",
            "api:0",
            "a b:80",
            "-a:80",
            "a..b:80",
            "a:80 ",
            "1.2.3:80",
            "a/b:80",
            "*.a:80",
            "a:80:80",
            "[a]:80",
            "bücher.example:80",
            ".:80",
            "a..:80",
            "http://a:80",
            "a.example:80/",
            "a.256:80",
        ] {
            assert!(parse_server(text).is_err(), "{text}");
        }
        let hint = parse_server("bücher.example:80").unwrap_err().hint;
        assert_eq!(hint.as_deref(), Some("write its punycode form: xn--..."));
        assert!(parse_server(&format!("{}:80", ["a"; 128].join("."))).is_err());
    }

    #[test]
    fn services_have_names() {
        let service = |name: &str| Ok(ServerAddress::Service { name: name.to_owned() });
        assert_eq!(parse_service("_HTTP._tcp.api.internal"), service("_http._tcp.api.internal"));
        assert_eq!(parse_service("web.service.consul."), service("web.service.consul."));
        for text in ["", "a:80", "10.0.0.1", "a b", "_http._tcp.", "*"] {
            let parsed = parse_service(text);
            assert_eq!(parsed.is_ok(), text == "_http._tcp.", "{text}");
        }
        assert_eq!(parse_service("a.b:80").unwrap_err().hint.as_deref(), Some("write a.b"));
    }

    #[test]
    fn overlapping_addresses() {
        let address = |text: &str| parse_address(text, Use::Listen).unwrap();
        for (a, b, expected) in [
            (":80", ":80", true),
            (":80", "0.0.0.0:80", true),
            (":80", "127.0.0.1:80", false),
            (":80", ":81", false),
            (":0", ":0", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", ":80", false),
        ] {
            assert_eq!(overlap(&address(a), &address(b)), expected, "{a} {b}");
        }
    }
}
