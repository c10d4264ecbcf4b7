//! Servers of the file and what their names resolve to: which addresses a pool has.
//!
//! Pure lists. When a name is looked up, and what becomes of its last addresses when the answer is none, is decided
//! elsewhere; here counts what is told last.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_config::model::{Address, ServerAddress, StaticServer};

use super::Expectation;

/// One address that a name resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Where it listens.
    pub address: SocketAddr,
    /// The host whose address it is, without a dot at its end; with SRV the target of the record.
    pub host: Arc<str>,
    /// What the SRV record says of it, if there is one.
    pub share: Option<Share>,
}

/// What an SRV record says of its target (RFC 2782).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its part of the requests of its tier; 0 counts as 1.
    pub weight: u32,
    /// Its tier among the records of the name: 0 comes first.
    pub tier: u32,
}

/// Servers of the file with their addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct Servers {
    configured: Vec<StaticServer>,
    /// By name; a name that was never told of is not in it.
    resolved: BTreeMap<ServerAddress, Vec<Resolved>>,
}

/// One address of a server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed<'a> {
    pub(super) server: &'a StaticServer,
    pub(super) address: Address,
    pub(super) host: Option<Arc<str>>,
    /// Weight and priority, where they are not the server's own.
    pub(super) share: Option<(u32, u32)>,
}

impl Listed<'_> {
    /// Its share and its tier.
    pub(super) fn place(&self) -> (u32, u32) {
        let (weight, priority) = self.share.unwrap_or((self.server.weight, self.server.priority));
        (weight.max(1), priority)
    }
}

impl Servers {
    /// Takes over the servers of a file, and forgets names that none of them has.
    pub(super) fn configure(&mut self, servers: &[StaticServer]) {
        self.configured = servers.to_vec();
        self.resolved.retain(|name, _| servers.iter().any(|server| server.address == *name));
    }

    /// Takes over what a name resolves to.
    pub(super) fn resolve(&mut self, name: &ServerAddress, found: Vec<Resolved>) {
        self.resolved.insert(name.clone(), found);
    }

    /// Whether the file has none.
    pub(super) fn is_empty(&self) -> bool {
        self.configured.is_empty()
    }

    /// Names that were never told of may soon have addresses.
    pub(super) fn expectation(&self) -> Expectation {
        let unknown = |server: &StaticServer| server.address.is_name() && !self.resolved.contains_key(&server.address);
        if self.configured.iter().any(unknown) { Expectation::Names } else { Expectation::Nothing }
    }

    /// Every address once, in the order of the file; the first server that has one says what holds for it.
    pub(super) fn list(&self) -> Vec<Listed<'_>> {
        let mut known = HashSet::new();
        let mut listed: Vec<Listed<'_>> = self.configured.iter().flat_map(|server| self.addresses(server)).collect();
        listed.retain(|one| known.insert(one.address.clone()));
        listed
    }

    fn addresses<'a>(&'a self, server: &'a StaticServer) -> Vec<Listed<'a>> {
        if let ServerAddress::Fixed(address) = &server.address {
            return vec![Listed { server, address: address.clone(), host: None, share: None }];
        }
        let found = self.resolved.get(&server.address).map(Vec::as_slice).unwrap_or_default();
        let list = |one: &Resolved| Listed {
            server,
            address: Address::Tcp(one.address),
            host: Some(Arc::clone(&one.host)),
            // The server's own priority is where its first tier stands.
            share: one.share.map(|share| (share.weight, server.priority.saturating_add(share.tier))),
        };
        found.iter().map(list).collect()
    }
}

#[cfg(test)]
mod tests;
