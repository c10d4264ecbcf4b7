//! What the system says of names: /etc/resolv.conf and /etc/hosts, read again when they have changed.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The port that name servers listen on.
const PORT: u16 = 53;
/// As the C library does: more servers and longer searches are not used.
const MOST_SERVERS: usize = 3;

/// What the files say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct System {
    /// Whom to ask, in this order.
    pub(crate) servers: Vec<SocketAddr>,
    /// Domains that a name may be short of.
    pub(crate) search: Vec<String>,
    /// Dots from which on a name is tried as it is first.
    pub(crate) ndots: usize,
    /// For one question to one server.
    pub(crate) timeout: Duration,
    /// How often all servers are asked.
    pub(crate) attempts: usize,
    hosts: HashMap<String, Vec<IpAddr>>,
}

impl System {
    /// What the texts of both files say. What is no address or no option is passed over, as the C library does.
    pub(crate) fn parse(resolv_conf: &[u8], hosts: &str) -> Self {
        let (config, _) = resolv_conf::Config::parse_with_errors(resolv_conf);
        let servers = config.get_nameservers_or_local().into_iter().take(MOST_SERVERS);
        Self {
            servers: servers.map(|server| SocketAddr::new(server.into(), PORT)).collect(),
            search: config
                .get_last_search_or_domain()
                .map(|domain| normal(domain))
                .filter(|domain| !domain.is_empty())
                .collect(),
            ndots: config.ndots as usize,
            timeout: Duration::from_secs(config.timeout.clamp(1, 30).into()),
            attempts: config.attempts.clamp(1, 5) as usize,
            hosts: parse_hosts(hosts),
        }
    }

    /// The addresses that /etc/hosts has for a name. `localhost` and names below it need no file (RFC 6761 section 6.3).
    pub(crate) fn of_host(&self, name: &str) -> Option<Vec<IpAddr>> {
        let name = normal(name);
        if let Some(addresses) = self.hosts.get(&name) {
            return Some(addresses.clone());
        }
        let is_local = name == "localhost" || name.ends_with(".localhost");
        is_local.then(|| vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])])
    }

    /// The absolute names that a name may mean, in the order in which they are tried.
    pub(crate) fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let itself = format!("{name}.");
        let mut searched: Vec<String> = self.search.iter().map(|domain| format!("{name}.{domain}.")).collect();
        let place = if name.matches('.').count() >= self.ndots { 0 } else { searched.len() };
        searched.insert(place, itself);
        searched
    }
}

/// In lower case, without a dot at its end.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn parse_hosts(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        // Scoped addresses, fe80::1%lo0, are none that can be connected to here.
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        for name in words {
            let known = hosts.entry(normal(name)).or_default();
            if !known.contains(&address) {
                known.push(address);
            }
        }
    }
    hosts
}

/// Tells one state of a file from another.
type Stamp = Option<(SystemTime, u64)>;

/// The two files.
#[derive(Debug)]
pub(crate) struct Files {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    /// Guards what was read last; held for a comparison or a copy.
    last: Mutex<Option<([Stamp; 2], Arc<System>)>>,
}

impl Default for Files {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into(), last: Mutex::default() }
    }
}

impl Files {
    /// Reads both files anew next time, whatever their times say.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    /// What the files say now. A file that cannot be read says nothing.
    pub(crate) async fn current(&self) -> Arc<System> {
        let stamps = [stamp(&self.resolv_conf).await, stamp(&self.hosts).await];
        if let Some((known, system)) = &*self.lock()
            && *known == stamps
        {
            return Arc::clone(system);
        }
        let resolv_conf = tokio::fs::read(&self.resolv_conf).await.unwrap_or_default();
        let hosts = tokio::fs::read(&self.hosts).await.unwrap_or_default();
        let system = Arc::new(System::parse(&resolv_conf, &String::from_utf8_lossy(&hosts)));
        *self.lock() = Some((stamps, Arc::clone(&system)));
        system
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<([Stamp; 2], Arc<System>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn stamp(path: &PathBuf) -> Stamp {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(resolv_conf: &str, hosts: &str) -> System {
        System::parse(resolv_conf.as_bytes(), hosts)
    }

    #[test]
    fn whom_to_ask() {
        let text = "# c\nsearch a.example. b.example\nnameserver 10.0.0.1\nnameserver fd00::1\nnonsense\n\
                    nameserver 10.0.0.3\nnameserver 10.0.0.4\noptions ndots:2 timeout:3 attempts:9 edns0 trust-ad\n";
        let parsed = system(text, "");
        let servers: Vec<String> = parsed.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[fd00::1]:53", "10.0.0.3:53"]);
        assert_eq!(
            (parsed.search.as_slice(), parsed.ndots),
            (&["a.example".to_owned(), "b.example".to_owned()][..], 2)
        );
        assert_eq!((parsed.timeout, parsed.attempts), (Duration::from_secs(3), 5));
        let nothing = system("", "");
        assert_eq!((nothing.ndots, nothing.timeout, nothing.attempts), (1, Duration::from_secs(5), 2));
        assert!(nothing.servers.iter().all(|server| server.ip().is_loopback()) && !nothing.servers.is_empty());
    }

    #[test]
    fn names_are_tried_as_the_system_does() {
        let parsed = system("search a.example b.example\noptions ndots:2\n", "");
        for (name, expected) in [
            ("api", &["api.a.example.", "api.b.example.", "api."][..]),
            ("api.x", &["api.x.a.example.", "api.x.b.example.", "api.x."]),
            ("api.x.y", &["api.x.y.", "api.x.y.a.example.", "api.x.y.b.example."]),
            ("api.", &["api."]),
        ] {
            assert_eq!(parsed.candidates(name), expected, "{name}");
        }
    }

    #[test]
    fn hosts_have_addresses_of_both_families() {
        let parsed = system(
            "",
            "127.0.0.1 localhost\n10.0.0.1\tAPI api.internal # x\n::2 api\n10.0.0.1 api\nfe80::1%lo x\n# y\n",
        );
        let of = |name| parsed.of_host(name).map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>());
        let some = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect());
        assert_eq!(of("api"), some(&["10.0.0.1", "::2"]));
        assert_eq!(of("Api.Internal."), some(&["10.0.0.1"]));
        assert_eq!(of("localhost"), some(&["127.0.0.1"]));
        assert_eq!(of("a.localhost"), some(&["127.0.0.1", "::1"]));
        assert_eq!((of("x"), of("y")), (None, None));
    }

    #[tokio::test]
    async fn a_file_that_changes_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { resolv_conf: dir.path().join("r"), hosts: dir.path().join("h"), last: Mutex::default() };
        assert_eq!(files.current().await.of_host("api"), None);
        std::fs::write(&files.hosts, "10.0.0.1 api\n").unwrap();
        assert!(files.current().await.of_host("api").is_some());
        std::fs::write(&files.hosts, "10.0.0.1 other\n").unwrap();
        assert_eq!(files.current().await.of_host("api"), None);
        std::fs::write(&files.resolv_conf, "search x\n").unwrap();
        assert_eq!(files.current().await.search, ["x"]);
    }
}
