//! Precedence as nginx documents it, hosts, conditions, and size.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tidegate_config::model::{Condition, Route, RouteAction, Site, SiteTls, ValuePattern};

use super::*;
use crate::fixtures::{self, Request, get, listener, model, proxy, respond, route, site, upstream};

fn router(sites: Vec<Site>) -> Router {
    Router::new(&model(sites, vec![upstream("app", fixtures::servers(&[(1, 1)]))]), &Identities::default())
}

/// The name of the route taken, or the reason of the refusal.
fn taken(router: &Router, request: &Request) -> String {
    match request.view(|head| router.route(head).map(|route| format!("{}: {}", route.site, route.name))) {
        Ok(Ok(name)) => name,
        Ok(Err(refusal)) | Err(refusal) => refusal.reason().to_owned(),
    }
}

fn one_site(routes: Vec<Route>) -> Router {
    router(vec![site("s", &["*"], routes)])
}

fn path_taken(router: &Router, path: &str) -> String {
    let taken = taken(router, &get("h", path));
    taken.strip_prefix("s: ").unwrap_or(&taken).to_owned()
}

fn leaf(pattern: &str) -> Route {
    route(pattern, respond("x"))
}

fn frame(pattern: &str, inner: Vec<Route>) -> Route {
    route(pattern, RouteAction::Nested(inner))
}

fn when(mut route: Route, name: &str, condition: Condition) -> Route {
    route.name = name.to_owned();
    route.conditions.push(condition);
    route
}

fn exactly(value: &str) -> ValuePattern {
    ValuePattern::Exact(value.to_owned())
}

fn matching(regex: &str) -> ValuePattern {
    ValuePattern::Regex(Arc::new(regex::Regex::new(regex).unwrap()))
}

/// The example of nginx's manual for `location`, in two orders.
#[test]
fn the_example_of_the_nginx_manual() {
    let mut list = ["= /", "/", "/documents/", "^~ /images/", "~ (?i)\\.(gif|jpg|jpeg)$"];
    for _ in 0..2 {
        let router = one_site(list.iter().map(|pattern| leaf(pattern)).collect());
        let rows = [
            ("/", "= /"),
            ("/index.html", "/"),
            ("/documents/document.html", "/documents/"),
            ("/images/1.gif", "^~ /images/"),
            ("/documents/1.jpg", "~ (?i)\\.(gif|jpg|jpeg)$"),
            ("/documents/1.JPG", "~ (?i)\\.(gif|jpg|jpeg)$"),
        ];
        for (path, expected) in rows {
            assert_eq!(path_taken(&router, path), expected, "{path}");
        }
        list.reverse();
    }
}

#[test]
fn precedence() {
    let router = one_site(vec![
        leaf("/a"),
        leaf("~ ^/a/first"),
        leaf("~ ^/a"),
        leaf("^~ /a/static"),
        leaf("/a/static/deep"),
        leaf("= /a/static/one"),
        leaf("/plain"),
        leaf("^~ /stop"),
        leaf("~ page$"),
    ]);
    let rows = [
        ("/a", "~ ^/a"),
        ("/a/first", "~ ^/a/first"),
        ("/a/static", "^~ /a/static"),
        ("/a/static/x", "^~ /a/static"),
        // the longest prefix is not the one that stops, so regular expressions are tried
        ("/a/static/deep/x", "~ ^/a"),
        ("/a/static/one", "= /a/static/one"),
        ("/a/static/one/", "^~ /a/static"),
        ("/plain", "/plain"),
        ("/plain/page", "~ page$"),
        ("/stop/page", "^~ /stop"),
        ("/other/page", "~ page$"),
        ("/other", "no_route"),
        // segment boundary: neither is under the prefix
        ("/plainer", "no_route"),
        ("/stopping/page", "~ page$"),
    ];
    for (path, expected) in rows {
        assert_eq!(path_taken(&router, path), expected, "{path}");
    }
}

#[test]
fn paths_are_matched_in_their_canonical_form_and_with_case() {
    let router = one_site(vec![leaf("/"), leaf("/admin"), leaf("/@team"), leaf("= /über")]);
    for path in ["/admin", "//admin", "/x/../admin", "/%61dmin/", "/./admin/x", "/x/%2e%2e/admin"] {
        assert_eq!(path_taken(&router, path), "/admin", "{path}");
    }
    for path in ["/administrator", "/Admin", "/admin;x", "/x/admin", "/%2561dmin"] {
        assert_eq!(path_taken(&router, path), "/", "{path}");
    }
    assert_eq!(path_taken(&router, "/%40team"), "/@team");
    assert_eq!(path_taken(&router, "/%c3%bcber"), "= /über");
    assert_eq!(path_taken(&router, "/..;/admin"), "bad_request");
}

#[test]
fn nested_routes_follow_nested_locations() {
    let router = one_site(vec![
        frame("/api", vec![leaf("/api/v1"), leaf("= /api/v1/one"), leaf("~ \\.json$"), leaf("^~ /api/raw")]),
        frame("^~ /kept", vec![leaf("/kept/a")]),
        frame("= /door", vec![leaf("= /door")]),
        frame("/outer", vec![frame("/outer/inner", vec![leaf("/outer/inner/x")])]),
        frame("~ ^/r", vec![leaf("/r/a"), leaf("~ b$")]),
        leaf("~ \\.php$"),
    ]);
    let rows = [
        ("/api/v1", "/api > /api/v1"),
        ("/api/v1/one", "/api > = /api/v1/one"),
        ("/api/x.json", "/api > ~ \\.json$"),
        ("/api/raw/x.json", "/api > ^~ /api/raw"),
        // an inner prefix gives way to an outer regular expression, even if it stops the inner ones
        ("/api/v1/x.php", "~ \\.php$"),
        ("/api/raw/x.php", "~ \\.php$"),
        ("/kept/a/x.php", "^~ /kept > /kept/a"),
        ("/kept/x.php", "no_route"),
        ("/api/unknown", "no_route"),
        ("/door", "= /door > = /door"),
        ("/outer/inner/x/y", "/outer > /outer/inner > /outer/inner/x"),
        ("/outer/inner", "no_route"),
        ("/r/a/x", "~ ^/r > /r/a"),
        ("/r/b", "~ ^/r > ~ b$"),
        ("/r/c", "no_route"),
    ];
    for (path, expected) in rows {
        assert_eq!(path_taken(&router, path), expected, "{path}");
    }
}

#[test]
fn a_route_whose_conditions_fail_is_as_if_absent() {
    let post = || Condition::Method(vec!["POST".to_owned(), "PUT".to_owned()]);
    let router = one_site(vec![
        leaf("/"),
        when(leaf("= /a"), "exact post", post()),
        when(leaf("/a"), "prefix beta", Condition::Header("x-beta".into(), exactly("1"))),
        leaf("/a"),
        when(leaf("^~ /a/b"), "stop post", post()),
        when(leaf("~ ^/a/b"), "regex gold", Condition::Cookie("tier".into(), exactly("gold"))),
        leaf("~ ^/a/b/c"),
    ]);
    let rows = [
        (get("h", "/a").method("POST"), "s: exact post"),
        (get("h", "/a").method("post"), "s: /a"),
        (get("h", "/a"), "s: /a"),
        (get("h", "/a").with("X-Beta", "1"), "s: prefix beta"),
        (get("h", "/a").with("X-Beta", "2").with("X-Beta", "1"), "s: prefix beta"),
        (get("h", "/a/b").method("POST"), "s: stop post"),
        (get("h", "/a/b"), "s: /a"),
        (get("h", "/a/b").with("Cookie", "x=1; tier=gold"), "s: regex gold"),
        (get("h", "/a/b/c"), "s: ~ ^/a/b/c"),
        (get("h", "/a/b/c").with("Cookie", "tier=gold"), "s: regex gold"),
        (get("h", "/z").with("Cookie", "tier=gold"), "s: /"),
    ];
    for (request, expected) in rows {
        assert_eq!(taken(&router, &request), expected, "{} {}", request.method, request.target);
    }
}

#[test]
fn conditions_on_values() {
    let check = |condition: Condition, request: Request| {
        taken(&one_site(vec![when(leaf("/"), "held", condition)]), &request) == "s: held"
    };
    let query = |name: &str, pattern| Condition::Query(name.to_owned(), pattern);
    let rows = [
        ("present, empty", query("a", ValuePattern::Present), "/?a", true),
        ("present, value", query("a", ValuePattern::Present), "/?b=1&a=2", true),
        ("no query", query("a", ValuePattern::Present), "/", false),
        ("other name", query("a", ValuePattern::Present), "/?aa=1&b=a", false),
        ("exact", query("a", exactly("x y")), "/?a=x+y", true),
        ("exact, escaped", query("a", exactly("x y")), "/?%61=x%20y", true),
        ("second of the name", query("a", exactly("2")), "/?a=1&a=2", true),
        ("not exact", query("a", exactly("2")), "/?a=22", false),
        ("broken escape is text", query("a", exactly("5%")), "/?a=5%", true),
        ("regex", query("a", matching("^v[0-9]$")), "/?a=v1", true),
        ("regex on decoded", query("a", matching("^a b$")), "/?a=a%20b", true),
        ("regex fails", query("a", matching("^v$")), "/?a=w", false),
        ("empty parameter has no name", query("", ValuePattern::Present), "/?&", false),
    ];
    for (what, condition, target, expected) in rows {
        assert_eq!(check(condition, get("h", target)), expected, "{what}");
    }
    let cookie = |name: &str, pattern| Condition::Cookie(name.to_owned(), pattern);
    let rows = [
        ("present", cookie("a", ValuePattern::Present), "b=1;a=2", true),
        ("name has case", cookie("a", ValuePattern::Present), "A=2", false),
        ("value with equals", cookie("a", exactly("x=y")), "a=x=y", true),
        ("value is whole", cookie("a", exactly("x")), "a=xy", false),
        ("regex", cookie("a", matching("^x")), "c=1; a=xyz", true),
    ];
    for (what, condition, line, expected) in rows {
        assert_eq!(check(condition, get("h", "/").with("cookie", line)), expected, "{what}");
    }
    let header = Condition::Header("x-a".into(), matching("^\\d+$"));
    assert!(check(header.clone(), get("h", "/").with("X-A", "12")));
    assert!(!check(header, get("h", "/").with("X-A", "12b")));
}

#[test]
fn hosts_are_chosen_by_their_form_and_precedence() {
    let router = router(vec![
        site("first", &["first.example"], vec![leaf("/")]),
        site("exact", &["www.example.com", "[2001:DB8::1]"], vec![leaf("/")]),
        site("wide", &["*.example.com"], vec![leaf("/")]),
        site("wider", &["*.com"], vec![leaf("/")]),
        site("deep", &["*.b.example.com"], vec![leaf("/")]),
    ]);
    let rows = [
        ("www.example.com", "exact: /"),
        ("WWW.Example.COM.", "exact: /"),
        ("www.example.com:8080", "exact: /"),
        ("[2001:db8:0::1]:443", "exact: /"),
        ("a.example.com", "wide: /"),
        ("x.y.example.com", "wide: /"),
        ("a.b.example.com", "deep: /"),
        // the wildcard needs one more label
        ("b.example.com", "wide: /"),
        ("example.com", "wider: /"),
        ("com", "unknown_host"),
        ("first.example.org", "unknown_host"),
        ("evil", "unknown_host"),
        ("127.0.0.1", "unknown_host"),
        ("a..b", "bad_request"),
    ];
    for (host, expected) in rows {
        assert_eq!(taken(&router, &get(host, "/")), expected, "{host}");
    }
}

#[test]
fn a_connection_made_for_one_certificate_serves_no_site_with_another() {
    let files = |name: &str| Some(SiteTls::Files { certificate: name.into(), key: name.into() });
    let with = |name: &str, host: &str, tls| Site { tls, ..site(name, &[host], vec![leaf("/")]) };
    let router = router(vec![
        with("a", "a.com", files("one")),
        with("b", "b.com", files("one")),
        with("c", "c.com", files("two")),
        with("d", "d.com", Some(SiteTls::Internal)),
        with("e", "e.com", Some(SiteTls::Internal)),
    ]);
    let named = |host: &str, server_name| Request { server_name: Some(server_name), ..get(host, "/") };
    for (host, server_name, expected) in [
        ("a.com", "A.com.", "a: /"),
        ("b.com", "a.com", "b: /"),
        ("c.com", "a.com", "misdirected"),
        ("a.com", "c.com", "misdirected"),
        ("d.com", "d.com", "d: /"),
        ("e.com", "d.com", "misdirected"),
        ("c.com", "nobody.com", "c: /"),
    ] {
        assert_eq!(taken(&router, &named(host, server_name)), expected, "{host} over {server_name}");
    }
}

#[test]
fn a_host_that_nobody_has_never_meets_the_first_site() {
    let sites = || vec![site("first", &["a.com"], vec![leaf("/")]), site("last", &["b.com"], vec![leaf("/")])];
    let bare = router(sites());
    let mut with_default = model(sites(), Vec::new());
    with_default.listeners = vec![listener("main", Some("last")), listener("other", None)];
    let with_default = Router::new(&with_default, &Identities::default());
    let named = |host: &str, server_name| Request { server_name, ..get(host, "/") };
    let no_host = |version| Request { host: None, version, ..get("", "/") };

    assert_eq!(taken(&bare, &get("x.com", "/")), "unknown_host");
    assert_eq!(taken(&bare, &named("x.com", Some("a.com"))), "misdirected");
    assert_eq!(taken(&bare, &named("x.com", Some("X.com."))), "unknown_host");
    assert_eq!(taken(&bare, &named("a.com", Some("b.com"))), "first: /");
    assert_eq!(taken(&bare, &no_host(HttpVersion::Http10)), "bad_request");
    assert_eq!(taken(&with_default, &get("x.com", "/")), "last: /");
    assert_eq!(taken(&with_default, &named("x.com", Some("a.com"))), "last: /");
    assert_eq!(taken(&with_default, &no_host(HttpVersion::Http10)), "last: /");
    assert_eq!(taken(&with_default, &no_host(HttpVersion::Http11)), "bad_request");
    assert_eq!(taken(&with_default, &no_host(HttpVersion::Http2)), "bad_request");
    // a site answers only where it is said to listen
    assert_eq!(taken(&with_default, &Request { listener: 1, ..get("a.com", "/") }), "unknown_host");
    assert_eq!(taken(&with_default, &Request { listener: 9, ..get("a.com", "/") }), "misdirected");
}

#[test]
fn routes_are_numbered_in_the_order_of_the_file() {
    let router = router(vec![
        site("a", &["a"], vec![frame("/n", vec![leaf("/n/1"), leaf("/n/2")]), route("/", proxy("app"))]),
        site("b", &["b.example", "c.example"], vec![route("/", proxy("gone"))]),
    ]);
    let rows: Vec<_> = router.routes().iter().map(|info| (&*info.site, &*info.name, info.upstream)).collect();
    assert_eq!(
        rows,
        [
            ("a", "/n > /n/1", None),
            ("a", "/n > /n/2", None),
            ("a", "/", Some(PoolId(0))),
            ("b", "/", Some(PoolId(u32::MAX))),
        ]
    );
    assert!(router.routes().iter().enumerate().all(|(place, info)| info.id.0 as usize == place));
    assert_eq!(router.routes()[3].default_host.as_deref(), Some("b.example"));
}

/// 10,000 hosts and 10,000 routes: right, and a lookup does not walk them.
#[test]
fn ten_thousand_of_each() {
    let routes = (0..10_000).map(|n| leaf(&format!("/tenant-{n}/api"))).collect();
    let mut sites = vec![site("s", &["big.example"], routes)];
    sites.extend((0..10_000).map(|n| site(&format!("s{n}"), &[&format!("h{n}.example.com")], vec![leaf("/")])));
    let router = router(sites);
    for n in [0, 1, 100, 101, 4_999, 9_999] {
        assert_eq!(taken(&router, &get(&format!("H{n}.Example.com.:80"), "/x")), format!("s{n}: /"));
        let expected = format!("s: /tenant-{n}/api");
        assert_eq!(taken(&router, &get("big.example", &format!("/tenant-{n}/api/x"))), expected);
        assert_eq!(taken(&router, &get("big.example", &format!("/tenant-{n}/apix"))), "no_route");
    }
    let few = one_site((0..10).map(|n| leaf(&format!("/tenant-{n}/api"))).collect());
    let (many, few) = (time_of(&router, "/tenant-7/api/v1/things"), time_of(&few, "/tenant-7/api/v1/things"));
    // A walk over the routes would be a thousand times slower with a thousand times as many; the rest is for noise.
    assert!(many < few * 50 + Duration::from_millis(100), "{many:?} against {few:?}");
}

fn time_of(router: &Router, path: &str) -> Duration {
    let lookups = |head: &HeadView<'_>| {
        let began = Instant::now();
        for _ in 0..2_000 {
            assert!(router.route(head).is_ok());
        }
        began.elapsed()
    };
    get("big.example", path).view(lookups).unwrap()
}

/// What nginx's rules say, written the slow way.
fn by_the_rules(patterns: &[String], path: &str) -> Option<usize> {
    let under = |prefix: &str| {
        path.strip_prefix(prefix).is_some_and(|rest| prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'))
    };
    let exact = patterns.iter().position(|pattern| pattern.strip_prefix("= ") == Some(path));
    let prefix = |pattern: &String| pattern.strip_prefix("^~ ").unwrap_or(pattern).to_owned();
    let longest = (0..patterns.len())
        .filter(|place| !patterns[*place].starts_with(['=', '~']) && under(&prefix(&patterns[*place])))
        .max_by_key(|place| (prefix(&patterns[*place]).len(), std::cmp::Reverse(*place)));
    let stops = longest.is_some_and(|place| patterns[place].starts_with("^~"));
    let regex = || {
        let matches = |pattern: &String| {
            pattern.strip_prefix("~ ").is_some_and(|regex| regex::Regex::new(regex).unwrap().is_match(path))
        };
        patterns.iter().position(matches)
    };
    exact.or_else(|| if stops { longest } else { regex().or(longest) })
}

proptest! {
    #[test]
    fn the_rules_hold_for_any_table(
        patterns in proptest::collection::vec(
            prop_oneof!["= (/[ab]){1,2}", "(/[ab]){1,3}/?", "\\^~ (/[ab]){1,3}/?", "~ \\^/[ab]", "~ [ab]\\$"], 1..8),
        path in "(/[ab]){1,4}/?",
    ) {
        let router = one_site(patterns.iter().map(|pattern| leaf(pattern)).collect());
        let expected = by_the_rules(&patterns, &path);
        let found = get("h", &path).view(|head| router.route(head).ok().map(|route| route.id.0 as usize)).unwrap();
        prop_assert_eq!(found, expected, "{:?} {}", patterns, path);
    }
}
