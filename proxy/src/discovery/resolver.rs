//! Asks for names: files of the system first, then name servers, in the system's order and as often as it says.
//!
//! Each server has a client of its own, made for one resolution: the library's choice among servers gives up at the first
//! that refuses, and takes the fastest instead of the first. Nothing is cached here; when to ask again is the entry's decision.

use super::entry::{Answer, HostAnswer, Lack, Lookup, Target};
use super::system::{Files, System};
use futures_util::StreamExt as _;
use futures_util::stream;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tidegate_config::model::{Dns, Families, ServerAddress};
use tidegate_traffic::pool::servers::Share;
use tokio::sync::Semaphore;

/// How long what /etc/hosts says holds: the file is looked at so often, which costs next to nothing.
const HOSTS_TTL: Duration = Duration::from_secs(5);
/// Questions that are open at a time, each with a socket of its own.
const MOST_QUESTIONS: usize = 32;
/// Hosts of one service that are asked for at a time.
const HOSTS_AT_ONCE: usize = 16;
/// SRV records of one service that count; the rest is passed over.
const MOST_HOSTS: usize = 1_000;

/// Asks for names; shared by all resolutions.
#[derive(Debug)]
pub(crate) struct Resolver {
    files: Files,
    questions: Semaphore,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { files: Files::default(), questions: Semaphore::new(MOST_QUESTIONS) }
    }
}

impl Resolver {
    /// Has the system's files read again by the next resolution.
    pub(crate) fn forget_files(&self) {
        self.files.forget();
    }

    /// Resolves the name of a server. Ends within the timeouts of its questions; dropping it gives up.
    pub(crate) async fn resolve(&self, server: &ServerAddress, dns: &Dns) -> Answer {
        let system = self.files.current().await;
        let asking = Asking::new(&system, dns, &self.questions);
        match server {
            ServerAddress::Fixed(_) => Answer::Targets(Vec::new(), dns.max_ttl),
            ServerAddress::Host { name, port } => {
                let answer = asking.host(name, dns.families).await;
                let target = Target { host: host_name(name), port: *port, share: None, answer };
                Answer::Targets(vec![target], dns.max_ttl)
            }
            ServerAddress::Service { name } => asking.service(name, dns.families).await,
        }
    }
}

/// As a certificate has it.
fn host_name(name: &str) -> Arc<str> {
    Arc::from(name.strip_suffix('.').unwrap_or(name))
}

/// What one question brought.
enum Reply {
    Records(Vec<Record>),
    Missing(ResponseCode),
    /// Servers refuse it, for this reason.
    Refused(String),
    /// No server can be reached, for this reason.
    Silent(String),
}

/// One resolution.
struct Asking<'a> {
    system: &'a System,
    clients: Vec<(SocketAddr, TokioResolver)>,
    timeout: Duration,
    questions: &'a Semaphore,
}

impl<'a> Asking<'a> {
    fn new(system: &'a System, dns: &Dns, questions: &'a Semaphore) -> Self {
        let servers = if dns.servers.is_empty() { &system.servers } else { &dns.servers };
        let timeout = dns.timeout.unwrap_or(system.timeout);
        let client = |server: &SocketAddr| Some((*server, client(*server, timeout)?));
        Self { system, clients: servers.iter().filter_map(client).collect(), timeout, questions }
    }

    /// The addresses of a host, of all families that may count.
    async fn host(&self, name: &str, families: Families) -> HostAnswer {
        if let Some(addresses) = self.system.of_host(name) {
            return of_file(&addresses);
        }
        let ipv4 = async { Some(self.addresses(name, RecordType::A).await) };
        let ipv6 = async { Some(self.addresses(name, RecordType::AAAA).await) };
        let found = |lookup: &Option<Lookup>| matches!(lookup, Some(Lookup::Found(..)));
        match families {
            Families::Ipv4 => HostAnswer { ipv4: ipv4.await, ipv6: None },
            Families::Ipv6 => HostAnswer { ipv4: None, ipv6: ipv6.await },
            Families::Both => {
                let (ipv4, ipv6) = tokio::join!(ipv4, ipv6);
                HostAnswer { ipv4, ipv6 }
            }
            Families::PreferIpv4 => {
                let ipv4 = ipv4.await;
                let ipv6 = if found(&ipv4) { None } else { ipv6.await };
                HostAnswer { ipv4, ipv6 }
            }
            Families::PreferIpv6 => {
                let ipv6 = ipv6.await;
                let ipv4 = if found(&ipv6) { None } else { ipv4.await };
                HostAnswer { ipv4, ipv6 }
            }
        }
    }

    /// What the SRV records of a name say, with the addresses of their hosts.
    async fn service(&self, name: &str, families: Families) -> Answer {
        let records = match self.ask(name, RecordType::SRV).await {
            Reply::Records(records) => records,
            Reply::Missing(code) => return Answer::Missing(lack(code, Lack::Services)),
            Reply::Refused(reason) | Reply::Silent(reason) => return Answer::Failed(reason),
        };
        let ttl = shortest_ttl(&records);
        let services = services(&records);
        if services.is_empty() {
            return Answer::Missing(Lack::Services);
        }
        let hosts: BTreeSet<String> = services.iter().map(|service| service.host.clone()).collect();
        let answers = hosts.into_iter().map(|host| async move {
            let answer = self.host(&host, families).await;
            (host, answer)
        });
        let answers: BTreeMap<String, HostAnswer> =
            stream::iter(answers).buffer_unordered(HOSTS_AT_ONCE).collect().await;
        let target = |service: &Service| Target {
            host: host_name(&service.host),
            port: service.port,
            share: Some(service.share),
            answer: answers.get(service.host.as_str()).cloned().unwrap_or_default(),
        };
        Answer::Targets(services.iter().map(target).collect(), ttl)
    }

    async fn addresses(&self, name: &str, kind: RecordType) -> Lookup {
        match self.ask(name, kind).await {
            Reply::Records(records) => {
                let addresses: Vec<IpAddr> = records.iter().filter_map(|record| record.data.ip_addr()).collect();
                let addresses: Vec<IpAddr> = addresses.into_iter().filter(can_be_reached).collect();
                if addresses.is_empty() {
                    return Lookup::Missing(Lack::Addresses);
                }
                Lookup::Found(addresses, shortest_ttl(&records))
            }
            Reply::Missing(code) => Lookup::Missing(lack(code, Lack::Addresses)),
            Reply::Refused(reason) | Reply::Silent(reason) => Lookup::Failed(reason),
        }
    }

    /// Asks for the first of the names that are meant which has such records. A refusal on the way counts before what the
    /// others lack; where nobody answers, the next name would only take as long again.
    async fn ask(&self, name: &str, kind: RecordType) -> Reply {
        let mut reply = Reply::Missing(ResponseCode::NXDomain);
        for candidate in self.system.candidates(name) {
            match (self.ask_servers(&candidate, kind).await, &reply) {
                (end @ (Reply::Records(_) | Reply::Silent(_)), _) => return end,
                (refused @ Reply::Refused(_), _) => reply = refused,
                (Reply::Missing(ResponseCode::NoError), Reply::Missing(_)) => {
                    reply = Reply::Missing(ResponseCode::NoError);
                }
                (Reply::Missing(_), _) => {}
            }
        }
        reply
    }

    /// Asks one server after the other until one answers.
    async fn ask_servers(&self, name: &str, kind: RecordType) -> Reply {
        let name = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(error) => return Reply::Refused(format!("{name}: {error}")),
        };
        let mut reply = Reply::Silent("no name server to ask".to_owned());
        for _ in 0..self.system.attempts {
            for (server, client) in &self.clients {
                let told = |reason| format!("name server {server}: {reason}");
                reply = match self.ask_one(client, &name, kind).await {
                    answer @ (Reply::Records(_) | Reply::Missing(_)) => return answer,
                    Reply::Refused(reason) => Reply::Refused(told(reason)),
                    Reply::Silent(reason) => Reply::Silent(told(reason)),
                };
            }
        }
        reply
    }

    async fn ask_one(&self, client: &TokioResolver, name: &Name, kind: RecordType) -> Reply {
        // Never closed, and nothing is kept from who cannot have a permit.
        let _permit = self.questions.acquire().await;
        // Over UDP, and over TCP when the answer does not fit.
        let asking = tokio::time::timeout(self.timeout.saturating_mul(2), client.lookup(name.clone(), kind));
        match asking.await {
            Ok(Ok(lookup)) => {
                let records = lookup.answers().to_vec();
                let of_kind = records.iter().any(|record| record.record_type() == kind);
                if of_kind { Reply::Records(records) } else { Reply::Missing(ResponseCode::NoError) }
            }
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(missing)))) => Reply::Missing(missing.response_code),
            Ok(Err(NetError::Dns(DnsError::ResponseCode(code)))) => {
                Reply::Refused(code.to_string().to_ascii_lowercase())
            }
            Ok(Err(NetError::Timeout)) | Err(_) => Reply::Silent(format!("no answer within {:?}", self.timeout)),
            Ok(Err(NetError::Io(error))) => Reply::Silent(error.to_string()),
            Ok(Err(error)) => Reply::Refused(error.to_string()),
        }
    }
}

fn client(server: SocketAddr, timeout: Duration) -> Option<TokioResolver> {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    let server = NameServerConfig::new(server.ip(), true, connections.to_vec());
    let mut options = ResolverOpts::default();
    options.timeout = timeout;
    // How often is ours to say, and whether a name is in a file.
    options.attempts = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = 0;
    options.case_randomization = false;
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    // Fails where TLS cannot be set up, and there is none.
    builder.build().ok()
}

fn lack(code: ResponseCode, of: Lack) -> Lack {
    if code == ResponseCode::NXDomain { Lack::Name } else { of }
}

fn of_file(addresses: &[IpAddr]) -> HostAnswer {
    let of = |is_of: fn(&IpAddr) -> bool| {
        let list: Vec<IpAddr> = addresses.iter().copied().filter(|ip| is_of(ip) && can_be_reached(ip)).collect();
        Some(if list.is_empty() { Lookup::Missing(Lack::Addresses) } else { Lookup::Found(list, HOSTS_TTL) })
    };
    HostAnswer { ipv4: of(IpAddr::is_ipv4), ipv6: of(IpAddr::is_ipv6) }
}

/// Names are blocked by pointing them at no address: a connection there would come back to this machine.
fn can_be_reached(ip: &IpAddr) -> bool {
    let ip = ip.to_canonical();
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::from([255, 255, 255, 255])
}

/// Those of aliases on the way count too.
fn shortest_ttl(records: &[Record]) -> Duration {
    Duration::from_secs(records.iter().map(|record| record.ttl).min().unwrap_or_default().into())
}

/// One SRV record.
#[derive(Debug, PartialEq, Eq)]
struct Service {
    host: String,
    port: u16,
    share: Share,
}

/// The services that records name, with their tiers counted from 0 in the order of their priorities. The root as host says
/// that there is none (RFC 2782).
fn services(records: &[Record]) -> Vec<Service> {
    let mut found: Vec<(u16, u16, String, u16)> = records
        .iter()
        .filter_map(|record| match &record.data {
            RData::SRV(srv) if !srv.target.is_root() && srv.port != 0 => {
                Some((srv.priority, srv.weight, srv.target.to_ascii().to_ascii_lowercase(), srv.port))
            }
            _ => None,
        })
        .collect();
    found.sort();
    found.truncate(MOST_HOSTS);
    let (mut tier, mut last) = (0, None);
    let mut services = Vec::with_capacity(found.len());
    for (priority, weight, host, port) in found {
        if last.is_some_and(|last| last != priority) {
            tier += 1;
        }
        last = Some(priority);
        // A host of a record is absolute, with or without the dot.
        let host = if host.ends_with('.') { host } else { host + "." };
        services.push(Service { host, port, share: Share { weight: weight.into(), tier } });
    }
    services
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::rdata::SRV;

    #[test]
    fn priorities_become_tiers() {
        let record = |priority, weight, port, host: &str| {
            let host = Name::from_ascii(host).unwrap();
            Record::from_rdata(Name::root(), 5, RData::SRV(SRV::new(priority, weight, port, host)))
        };
        let found = services(&[
            record(20, 1, 80, "c.example."),
            record(10, 7, 80, "B.example."),
            record(10, 0, 81, "a.example"),
            record(10, 1, 0, "port.example."),
            record(0, 0, 80, "."),
        ]);
        let seen: Vec<_> = found
            .iter()
            .map(|service| (service.host.as_str(), service.port, service.share.weight, service.share.tier))
            .collect();
        assert_eq!(seen, [("a.example.", 81, 0, 0), ("b.example.", 80, 7, 0), ("c.example.", 80, 1, 1)]);
    }

    #[test]
    fn some_addresses_are_none() {
        for (ip, expected) in [
            ("10.0.0.1", true),
            ("127.0.0.1", true),
            ("::1", true),
            ("0.0.0.0", false),
            ("::", false),
            ("::ffff:0.0.0.0", false),
            ("224.0.0.1", false),
            ("ff02::1", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(can_be_reached(&ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
