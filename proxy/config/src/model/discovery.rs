//! Where servers are, and how those that have only a name are found.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Address;

/// Where a server of the file is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServerAddress {
    /// At an address.
    Fixed(Address),
    /// At every address of a host, on one port. The name is in lower case; with a dot at its end it is absolute.
    Host {
        /// Its name.
        name: String,
        /// Never 0.
        port: u16,
    },
    /// Where the SRV records of a name say (RFC 2782). The name as for a host.
    Service {
        /// Its name.
        name: String,
    },
}

impl ServerAddress {
    /// Whether it is found by a name.
    #[must_use]
    pub const fn is_name(&self) -> bool {
        !matches!(self, Self::Fixed(_))
    }

    /// The name that is looked up.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Fixed(_) => None,
            Self::Host { name, port: _ } | Self::Service { name } => Some(name),
        }
    }
}

impl From<Address> for ServerAddress {
    fn from(address: Address) -> Self {
        Self::Fixed(address)
    }
}

/// As in the file; a service by its name alone.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address) => address.fmt(f),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
            Self::Service { name } => f.write_str(name),
        }
    }
}

/// How the names of an upstream's servers are resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dns {
    /// Whom to ask, in this order; empty is whom the system asks.
    pub servers: Vec<SocketAddr>,
    /// Shortest time between two resolutions of a name that resolves.
    pub min_ttl: Duration,
    /// Longest time between them.
    pub max_ttl: Duration,
    /// For one question to one server; `None` is the system's.
    pub timeout: Option<Duration>,
    /// Which addresses count.
    pub families: Families,
    /// How long the last addresses stay once there is no such name any more; `None` is for ever.
    pub keep_missing: Option<Duration>,
}

/// Which of a host's addresses count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Families {
    /// All.
    Both,
    /// A records only.
    Ipv4,
    /// AAAA records only.
    Ipv6,
    /// AAAA records where there is no A record.
    PreferIpv4,
    /// A records where there is no AAAA record.
    PreferIpv6,
}
