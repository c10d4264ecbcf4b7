//! Addresses as they are written: to listen on, and to connect to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::model::Address;
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
        return Err(Reason::new("has port 0, which nobody can connect to", "write the port the server listens on"));
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
        Use::Connect => "write \"127.0.0.1:8000\", \"[::1]:8000\" or unix:/path",
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
        Some(("localhost", port)) => {
            Reason::new("is a host name: names are not resolved in this version", format!("write 127.0.0.1:{port}"))
        }
        Some((host, _)) if is_name(host) => Reason::new(
            "is a host name: names are not resolved in this version",
            format!("write the IP address; {forms}"),
        ),
        None if is_name(text) => {
            Reason::new("is a host name without a port: names are not resolved in this version", forms)
        }
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
            ("localhost:80", Use::Listen, "write 127.0.0.1:80"),
            ("localhost:8000", Use::Connect, "write 127.0.0.1:8000"),
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
