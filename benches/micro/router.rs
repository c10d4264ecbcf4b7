//! Time to find the route of a request: by number of sites, by number of routes, and by kind of pattern.

use std::{fmt::Write, net::IpAddr};

use divan::{Bencher, black_box};
use tidegate_config::{System, load_str};
use tidegate_traffic::{BodyLength, Client, Fields, HeadView, Host, HttpVersion, ListenerId, Target, Traffic};

fn main() {
    divan::main();
}

/// The canonical form of a target, which every decision starts from.
#[divan::bench(args = ["/", "/api/v1/users/42?fields=name", "/a/./b/../c//d%2De/f"])]
fn canonical_target(bencher: Bencher<'_, '_>, raw: &str) {
    bencher.bench(|| Target::parse(black_box(raw)).is_ok());
}

/// The last of so many sites with one route each.
#[divan::bench(args = [1, 100, 10_000])]
fn site_of_many(bencher: Bencher<'_, '_>, sites: usize) {
    let mut text = String::from(BEFORE_SITES);
    for site in 0..sites {
        let _ = writeln!(text, "  - hosts: [s{site}.test]\n    routes: [{{ path: /, proxy: app }}]");
    }
    route(bencher, &traffic(&text), &format!("s{}.test", sites - 1), "/index.html");
}

/// The last of so many prefixes in one site.
#[divan::bench(args = [1, 100, 10_000])]
fn prefix_of_many(bencher: Bencher<'_, '_>, routes: usize) {
    let mut text = format!("{BEFORE_SITES}  - hosts: [bench.test]\n    routes:\n");
    for route in 0..routes {
        let _ = writeln!(text, "      - {{ path: /area{route}/, proxy: app }}");
    }
    route(bencher, &traffic(&text), "bench.test", &format!("/area{}/items/42", routes - 1));
}

/// An exact path, a prefix below three others, and a wildcard host.
#[divan::bench(args = [("bench.test", "/healthz"), ("bench.test", "/api/v1/users/7"), ("a.b.wild.test", "/")])]
fn kind_of_match(bencher: Bencher<'_, '_>, (host, path): (&str, &str)) {
    let text = format!(
        "{BEFORE_SITES}
  - hosts: [bench.test]
    routes:
      - {{ path: =/healthz, proxy: app }}
      - {{ path: /api/v1/users/, proxy: app }}
      - {{ path: /api/v1/, proxy: app }}
      - {{ path: /api/, proxy: app }}
      - {{ path: /, proxy: app }}
  - hosts: ['*.wild.test']
    routes: [{{ path: /, proxy: app }}]
"
    );
    route(bencher, &traffic(&text), host, path);
}

fn route(bencher: Bencher<'_, '_>, traffic: &Traffic, host: &str, path: &str) {
    let client = Client::new(IpAddr::from([127, 0, 0, 1]), 4000, ListenerId(0), None);
    let target = Target::parse(path).expect("a sound target");
    let host = Host::parse(host.as_bytes()).expect("a sound host");
    let head = HeadView {
        method: "GET",
        raw_target: path,
        target: &target,
        host: Some(&host),
        version: HttpVersion::Http11,
        fields: &NoFields,
        upgrade: false,
        body: BodyLength::None,
        client: &client,
    };
    traffic.router.route(&head).expect("the site file has a route for it");
    bencher.bench(|| traffic.router.route(black_box(&head)).is_ok());
}

fn traffic(text: &str) -> Traffic {
    let loaded = load_str("bench", text, &System::detect()).unwrap_or_else(|faults| panic!("{faults:?}"));
    Traffic::build(&loaded.model, None, &tidegate_traffic::Identities::default())
}

struct NoFields;

impl Fields for NoFields {
    fn first(&self, _: &str) -> Option<&[u8]> {
        None
    }

    fn all(&self, _: &str, _: &mut dyn FnMut(&[u8])) {}

    fn each(&self, _: &mut dyn FnMut(&str, &[u8])) {}
}

const BEFORE_SITES: &str = "\
listeners: [{ name: plain, address: '127.0.0.1:8080' }]
upstreams: { app: { servers: [{ address: '127.0.0.1:9000' }] } }
sites:
";
