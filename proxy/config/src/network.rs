//! Networks of addresses: who is trusted to speak for others.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::suggest::did_you_mean;
use crate::units::Reason;

/// All addresses with the same first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A set of networks, and perhaps everybody on unix sockets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    ranges: Vec<Network>,
    unix: bool,
    words: Vec<String>,
}

/// Words for networks (RFC 1918, RFC 4193, RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
const WORDS: [(&str, &[&str]); 2] = [
    ("private", &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
    ("loopback", &["127.0.0.0/8", "::1/128"]),
];

/// Clients of unix sockets, which have no address.
const UNIX: &str = "unix";

impl Network {
    /// Whether the address is one of it. An IPv4 address that was mapped into IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix);
                let bits = |address: Ipv4Addr| u32::from(address).checked_shr(shift).unwrap_or(0);
                bits(network) == bits(address)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix);
                let bits = |address: Ipv6Addr| u128::from(address).checked_shr(shift).unwrap_or(0);
                bits(network) == bits(address)
            }
            _ => false,
        }
    }

    /// Whether it is every address of its family.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.prefix == 0
    }

    fn first(address: IpAddr, prefix: u8) -> IpAddr {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
        }
    }
}

impl Networks {
    /// Whether one of them has the address; `None` is the client of a unix socket.
    #[must_use]
    pub fn contain(&self, address: Option<IpAddr>) -> bool {
        match address {
            Some(address) => self.ranges.iter().any(|network| network.contains(address)),
            None => self.unix,
        }
    }

    /// Whether every address of a family is in it.
    #[must_use]
    pub fn hold_everybody(&self) -> bool {
        self.ranges.iter().any(Network::is_everything)
    }

    /// Adds what an entry of the file names.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), Reason> {
        self.words.push(text.to_owned());
        if text == UNIX {
            self.unix = true;
            return Ok(());
        }
        if let Some((_, ranges)) = WORDS.iter().find(|(word, _)| *word == text) {
            for range in *ranges {
                self.ranges.push(Network::parse(range)?);
            }
            return Ok(());
        }
        self.ranges.push(Network::parse(text)?);
        Ok(())
    }
}

impl FromStr for Networks {
    /// What is wrong with an entry.
    type Err = String;

    /// Entries between commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut networks = Self::default();
        let added = text.split(',').try_for_each(|entry| networks.add(entry.trim()));
        added.map(|()| networks).map_err(|Reason { problem, .. }| problem)
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}]", self.words.join(", "))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    /// `10.0.0.0/8`, `fd00::/8`, or one address.
    fn parse(text: &str) -> Result<Self, Reason> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| no_network(text))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits = prefix.is_none_or(|prefix| prefix.bytes().all(|byte| byte.is_ascii_digit()));
        let prefix = match prefix {
            None => most,
            Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= most && digits).ok_or_else(|| {
                Reason::new("is not a network", format!("the length behind \"/\" is a number from 0 to {most}"))
            })?,
        };
        if address.to_canonical() != address {
            let hint = format!("write it as IPv4, for instance {}", address.to_canonical());
            return Err(Reason::new("is IPv4 inside IPv6", hint));
        }
        let first = Self::first(address, prefix);
        if first != address {
            let hint = format!("write {first}/{prefix}, or {address} for this address alone");
            return Err(Reason::new(format!("has bits set behind the first {prefix}"), hint));
        }
        Ok(Self { address, prefix })
    }
}

fn no_network(text: &str) -> Reason {
    let hint = did_you_mean(text, WORDS.iter().map(|(word, _)| *word).chain([UNIX]));
    let hint = hint.unwrap_or_else(|| {
        "write a network (10.0.0.0/8, fd00::/8), an address, or private, loopback or unix".to_owned()
    });
    Reason::new("is not a network", hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_inside_or_not() {
        let rows = [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.1.1", true),
            ("10.0.0.0/8", "::10.1.1.1", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.8", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "::ffff:1.2.3.4", false),
            ("private", "172.31.0.1", true),
            ("private", "172.32.0.1", false),
            ("loopback", "127.9.9.9", true),
            ("loopback, 192.0.2.0/24", "192.0.2.200", true),
        ];
        for (networks, address, inside) in rows {
            let networks: Networks = networks.parse().unwrap();
            assert_eq!(networks.contain(Some(address.parse().unwrap())), inside, "{networks} {address}");
            assert!(!networks.contain(None));
        }
        assert!("unix".parse::<Networks>().unwrap().contain(None));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in
            ["", "x", "10.0.0.0/33", "10.0.0.1/8", "::ffff:10.0.0.0/104", "10.0.0.0/+8", "10/8", "fd00::/129", "privat"]
        {
            assert!(text.parse::<Networks>().is_err(), "{text}");
        }
        assert_eq!(Network::parse("10.0.0.1/8").unwrap_err().problem, "has bits set behind the first 8");
    }
}
