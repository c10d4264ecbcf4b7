//! The text of a site file with its gaps filled in.
//!
//! Gaps stand between at signs, as in the bench's templates: `@dir@` (a directory of this test alone, with the
//! certificates in it), `@demo@` (the demo worker's path), `@port:NAME@` (a free port, the same one for the same name),
//! and what a test puts in by [`Site::with`]. `admin:` and `server:` are added where the text has none.

use std::{
    collections::{BTreeMap, HashSet, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    iter::repeat_with,
    net::{TcpListener, UdpSocket},
    ops::Range,
    path::Path,
};

use crate::binary::Binary;

/// Listeners for every client of [`crate::client::Kind`]: `plain`, `h2c` and `tls`.
pub const LISTENERS: &str = r#"
listeners:
  - { name: plain, address: "127.0.0.1:@port:plain@" }
  - { name: h2c, address: "127.0.0.1:@port:h2c@", h2c: true }
  - { name: tls, address: "127.0.0.1:@port:tls@", tls: {} }
"#;

/// The value of a site's `tls` that goes with the names the test clients ask for.
pub const CERTIFICATE: &str = r#"{ certificate: "@dir@/server.pem", key: "@dir@/server.key" }"#;

/// A site file in the making.
#[derive(Debug, Clone)]
pub struct Site {
    text: String,
    values: BTreeMap<String, String>,
}

impl Site {
    /// A file with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), values: BTreeMap::new() }
    }

    /// The usual front (all listeners, one site for the names of the test certificate) with these routes and the
    /// upstreams behind them, both as they stand in the file, unindented.
    pub fn usual(routes: &str, upstreams: &str) -> Self {
        let routes = indent(routes, 6);
        let upstreams = indent(upstreams, 2);
        Self::new(format!(
            "{LISTENERS}\nsites:\n  - name: main\n    hosts: [localhost, test.example, \"*.test.example\"]\n    \
             tls: {CERTIFICATE}\n    routes:\n{routes}\nupstreams:\n{upstreams}\n"
        ))
    }

    /// The usual front with everything going to one upstream called `app`; `app` is what stands under that name.
    pub fn proxy(app: &str) -> Self {
        Self::usual("- { path: /, proxy: app }", &format!("app:\n{}", indent(app, 2)))
    }

    /// The usual front before one server at `address`.
    pub fn proxy_to(address: impl ToString) -> Self {
        Self::proxy(&format!("servers: [{{ address: \"{}\" }}]", address.to_string()))
    }

    /// The usual front before `count` supervised demo workers, each started with `arguments` besides its socket.
    pub fn demo_workers(count: usize, arguments: &[&str]) -> Self {
        let arguments: String = arguments.iter().map(|argument| format!(", \"{argument}\"")).collect();
        Self::proxy(&format!(
            "workers:\n  command: [\"@demo@\", --uds, \"{{socket}}\"{arguments}]\n  count: {count}\n  \
             ready: {{ http: /healthz }}"
        ))
    }

    /// Fills the gap `@name@`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.values.insert(name.to_owned(), value.to_string());
        self
    }

    /// Adds text at the end.
    #[must_use]
    pub fn and(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self.text.push('\n');
        self
    }

    /// The text with `from` replaced.
    ///
    /// # Panics
    /// When `from` is not there: a test that changes nothing proves nothing.
    #[must_use]
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "nothing to replace: '{from}' is not in\n{}", self.text);
        self.text = self.text.replace(from, to);
        self
    }

    /// The finished text for a test that lives in `dir`; `ports` keeps what was handed out before.
    ///
    /// # Panics
    /// When a gap stays open.
    pub(crate) fn fill(&self, dir: &Path, ports: &mut BTreeMap<String, Port>) -> String {
        let mut text = self.text.clone();
        for (section, default) in [("admin:", ADMIN), ("server:", SERVER)] {
            if !text.lines().any(|line| line.starts_with(section)) {
                text.push_str(default);
            }
        }
        for (name, value) in &self.values {
            text = text.replace(&format!("@{name}@"), value);
        }
        text = text.replace("@dir@", &dir.display().to_string());
        if text.contains("@demo@") {
            text = text.replace("@demo@", &Binary::UpstreamDemo.path().display().to_string());
        }
        fill_ports(text, ports)
    }
}

fn fill_ports(mut text: String, ports: &mut BTreeMap<String, Port>) -> String {
    while let Some(start) = text.find("@port:") {
        let rest = &text[start + "@port:".len()..];
        let name = rest.split('@').next().unwrap_or_default().to_owned();
        let number = ports.entry(name.clone()).or_insert_with(Port::free).number;
        text = text.replace(&format!("@port:{name}@"), &number.to_string());
    }
    text
}

/// A loopback port for the program under test, kept from other tests until this is dropped.
#[derive(Debug)]
pub struct Port {
    /// The TCP port.
    pub number: u16,
    /// Whoever holds the UDP port of the same number has the TCP port among the tests of this machine; between the look
    /// for a free one and the edge that binds it there would be room for another test.
    _claim: UdpSocket,
}

impl Port {
    /// One that nobody listens on. It is none the kernel hands out to clients, so that no connection of another test
    /// sits on it when the edge binds it.
    ///
    /// # Panics
    /// When there is none.
    pub fn free() -> Self {
        // The standard library's keys for hash maps are random and differ each time.
        let start = RandomState::new().build_hasher().finish() as usize;
        let mut ports = PORTS.cycle().skip(start % PORTS.len()).take(PORTS.len());
        let free = ports.find_map(|number| {
            let claim = UdpSocket::bind(("127.0.0.1", number)).ok()?;
            TcpListener::bind(("127.0.0.1", number)).is_ok().then_some(Self { number, _claim: claim })
        });
        free.expect("loopback has free ports")
    }
}

/// The number of a port nobody listens on, other than those `taken`; for a test in which nobody binds it, or at once.
///
/// # Panics
/// When there is none.
pub fn free_port(taken: &HashSet<u16>) -> u16 {
    let mut free = repeat_with(|| Port::free().number).filter(|port| !taken.contains(port));
    free.next().expect("it goes on for ever")
}

fn indent(text: &str, by: usize) -> String {
    text.trim_matches('\n').lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}

/// Below Linux' own range for clients, which begins at 32768.
const PORTS: Range<u16> = 12_000..32_000;

const ADMIN: &str = "\nadmin: { listen: \"unix:@dir@/admin.sock\" }\n";
const SERVER: &str = "\nserver: { state_dir: \"@dir@/state\", runtime_dir: \"@dir@/run\" }\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled_and_sections_added() {
        let mut ports = BTreeMap::from([("b".to_owned(), Port::free())]);
        let text =
            Site::new("x: @dir@/f @port:a@ @port:b@ @port:a@ @to@").with("to", 5).fill(Path::new("/t"), &mut ports);
        let (a, b) = (ports["a"].number, ports["b"].number);
        assert!(text.starts_with(&format!("x: /t/f {a} {b} {a} 5\n")), "{text}");
        assert!(text.contains("unix:/t/admin.sock") && text.contains("/t/state"), "{text}");
    }

    #[test]
    fn own_sections_stay_alone() {
        let text = Site::new("server: { shards: 1 }\nadmin: {}\n").fill(Path::new("/t"), &mut BTreeMap::new());
        assert_eq!(text, "server: { shards: 1 }\nadmin: {}\n");
    }

    #[test]
    fn the_usual_site_nests_what_it_is_given() {
        let site = Site::proxy("servers:\n  - { address: \"1.2.3.4:5\" }\nbalance: least_conn");
        assert!(site.text.contains("\n      - { path: /, proxy: app }\n"), "{}", site.text);
        assert!(site.text.contains("upstreams:\n  app:\n    servers:\n      - { address"), "{}", site.text);
    }
}
