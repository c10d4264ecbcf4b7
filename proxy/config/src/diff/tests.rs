//! Rows of before, after, and the printed difference.

use std::path::{Path, PathBuf};

use super::*;
use crate::environment::ReadError;

struct Nothing;

impl crate::Environment for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        Some("value".to_owned())
    }

    fn read(&self, _: &Path, _: u64) -> Result<String, ReadError> {
        Err(ReadError::NotRegular("nothing"))
    }

    fn matches(&self, _: &str) -> Vec<PathBuf> {
        Vec::new()
    }

    fn current_folder(&self) -> PathBuf {
        PathBuf::from("/etc/tidegate")
    }

    fn runtime_folder(&self) -> PathBuf {
        PathBuf::from("/run/tidegate")
    }
}

const BASE: &str = r#"
listeners:
  - { name: web, address: ":80" }
  - { name: alt, address: ":81" }
sites:
  - name: api
    hosts: [api.example]
    routes:
      - { path: /, proxy: app }
      - { path: /hello, respond: { body: hi } }
      - path: /in/
        routes: [{ path: /in/a, proxy: app }]
upstreams:
  app:
    servers: [{ address: "10.0.0.1:80" }, { address: "10.0.0.2:80", weight: 2 }]
  pool:
    workers: { command: [app, "{socket}"], env: { A: one }, count: 2 }
"#;

fn model(text: &str) -> Model {
    match crate::load_str("test", text, &Nothing) {
        Ok(loaded) => loaded.model,
        Err(faults) => panic!("{faults}"),
    }
}

/// The difference that replacing a piece of the base makes.
fn change(from: &str, to: &str) -> Diff {
    assert!(BASE.contains(from), "{from}");
    diff(&model(BASE), &model(&BASE.replacen(from, to, 1)))
}

#[test]
fn the_same_model_has_no_changes() {
    let difference = diff(&model(BASE), &model(BASE));
    assert!(difference.is_empty());
    assert_eq!(difference.to_string(), "no changes\n");
}

#[test]
fn the_order_of_listeners_is_no_change() {
    let swapped = change(
        "  - { name: web, address: \":80\" }\n  - { name: alt, address: \":81\" }\n",
        "  - { name: alt, address: \":81\" }\n  - { name: web, address: \":80\" }\n",
    );
    // The site is on all listeners, which the model spells out in the order of the file.
    assert_eq!(swapped.to_string(), "~ site api: listeners: [web, alt] -> [alt, web]\n");
}

#[test]
fn each_change_is_one_line() {
    for (from, to, expected) in [
        ("address: \":81\"", "address: \":82\"", "~ listener alt: address: [::]:81 -> [::]:82\n"),
        (
            "{ name: alt, address: \":81\" }",
            "{ name: web2, address: \":81\" }",
            "+ listener web2\n- listener alt\n~ site api: listeners: [web, alt] -> [web, web2]\n",
        ),
        (
            "address: \":81\"",
            "address: \":81\", h2c: true",
            "~ listener alt: transport: plaintext -> plaintext with h2c\n",
        ),
        ("name: api", "name: api2", "+ site api2\n- site api\n"),
        ("hosts: [api.example]", "hosts: [\"*.example\"]", "~ site api: hosts: [api.example] -> [*.example]\n"),
        (
            "{ body: hi }",
            "{ body: hello }",
            "~ site api: routes[/hello].action: respond 200 (2 bytes) -> respond 200 (5 bytes)\n",
        ),
        (
            "{ path: /hello, respond: { body: hi } }",
            "{ path: /new, proxy: app }",
            "~ site api: routes[/hello]: present -> absent\n~ site api: routes[/new]: absent -> present\n",
        ),
        (
            "path: /in/a, proxy: app",
            "path: /in/a, proxy: pool",
            // Requests to workers are held unless the file says otherwise.
            "~ site api: routes[/in/].routes[/in/a].action: proxy app -> proxy pool\n\
             ~ site api: routes[/in/].routes[/in/a].buffer.request: off -> 1MiB\n\
             ~ site api: routes[/in/].routes[/in/a].retry.try_timeout: 2s -> off\n",
        ),
        (
            "{ path: /, proxy: app }",
            "{ path: /, max_body: 2m, proxy: app }",
            "~ site api: routes[/].max_body: 1MiB -> 2MiB\n",
        ),
        (
            "{ path: /, proxy: app }",
            "{ path: /, retry: { tries: 3, on: [connect, 503], hedge: 50ms, backoff: {}, respect_retry_after: 2s }, deadline: 5s, proxy: app }",
            "~ site api: routes[/].retry.tries: 2 -> 3\n\
             ~ site api: routes[/].retry.on: [connect, closed, timeout] -> [connect, 503]\n\
             ~ site api: routes[/].retry.hedge: off -> 50ms\n\
             ~ site api: routes[/].retry.backoff: absent -> present\n\
             ~ site api: routes[/].retry.respect_retry_after: off -> 2s\n\
             ~ site api: routes[/].deadline: off -> 5s\n",
        ),
        (
            "{ path: /, proxy: app }",
            "{ path: /, buffer: { response: off }, proxy: app }",
            "~ site api: routes[/].buffer.response: 16MiB -> off\n",
        ),
        (
            "10.0.0.1:80",
            "10.0.0.3:80",
            "~ upstream app: server 10.0.0.3:80 added\n~ upstream app: server 10.0.0.1:80 removed\n",
        ),
        ("weight: 2", "weight: 5", "~ upstream app: server 10.0.0.2:80: weight: 2 -> 5\n"),
        ("  app:\n", "  app:\n    ejection: { max_fails: 5 }\n", "~ upstream app: ejection.max_fails: 3 -> 5\n"),
        ("  app:\n", "  app:\n    health_check: {}\n", "~ upstream app: health_check: off -> on\n"),
        ("  app:\n", "  app:\n    breaker: {}\n", "~ upstream app: breaker: off -> on\n"),
        ("  app:\n", "  app:\n    required: false\n", "~ upstream app: required: true -> false\n"),
        ("  app:\n", "  app:\n    server_timing: true\n", "~ upstream app: server_timing: false -> true\n"),
        ("  app:\n", "  app:\n    ejection: off\n", "~ upstream app: ejection: on -> off\n"),
        ("weight: 2", "weight: 2, max_fails: 1", "~ upstream app: server 10.0.0.2:80: max_fails: none -> 1\n"),
        ("  app:\n", "  app:\n    balance: least_conn\n", "~ upstream app: balance: round_robin -> least_conn\n"),
        ("count: 2", "count: 3", "~ upstream pool: workers.count: 2 -> 3\n"),
        ("A: one", "A: two", "~ upstream pool: workers.env.A: (hidden) -> (hidden, another one) (new workers)\n"),
        ("[app, ", "[app2, ", "~ upstream pool: workers.command: [app, {socket}] -> [app2, {socket}] (new workers)\n"),
        ("upstreams:\n", "admin: { token: abc }\nupstreams:\n", "~ admin.token: none -> (hidden)\n"),
        (
            "upstreams:\n",
            "tls_policies: { default: { tickets: false } }\nupstreams:\n",
            "~ tls_policy default: tickets: true -> false\n",
        ),
        (
            "{ path: /, proxy: app }",
            "{ path: /, rate_limit: { rate: 10/s }, proxy: app }",
            "~ site api: routes[/].rate_limit: off -> site api, route /\n+ rate_limit site api, route /\n",
        ),
        (
            "{ path: /, proxy: app }",
            "{ path: /, concurrency: { max: 2 }, proxy: app }",
            "~ site api: routes[/].concurrency: off -> site api, route /\n+ concurrency_limit site api, route /\n",
        ),
        ("upstreams:\n", "logging: { level: debug }\nupstreams:\n", "~ logging.level: info -> debug\n"),
        ("upstreams:\n", "server: { spool: { total: 2GiB } }\nupstreams:\n", "~ server.spool.total: 1GiB -> 2GiB\n"),
        ("upstreams:\n", "server: { drain_timeout: 1s }\nupstreams:\n", "~ server.drain_timeout: 30s -> 1s\n"),
    ] {
        let difference = change(from, to);
        assert_eq!(difference.to_string(), expected, "{to}");
        assert!(difference.refusals().is_empty(), "{to}");
        assert!(!difference.is_empty(), "{to}");
    }
}

#[test]
fn new_workers_are_needed_only_for_what_they_are_started_with() {
    let workers = |from, to| change(from, to).upstreams.changed.remove(0).workers.unwrap();
    for to in ["A: two", "A: one, B: two"] {
        assert_eq!(workers("A: one", to).needs_new_workers.len(), 1, "{to}");
    }
    for to in ["count: auto", "count: 2, stop_timeout: 1s", "count: 2, drain_timeout: 1s", "count: 2, boot_timeout: 1s"]
    {
        let change = workers("count: 2", to);
        assert_eq!((change.needs_new_workers.len(), change.live.len()), (0, 1), "{to}");
    }
    for to in ["count: 2, cwd: x", "count: 2, user: www-data", "count: 2, env_inherit: clean"] {
        let change = workers("count: 2", to);
        assert_eq!((change.needs_new_workers.len(), change.live.len()), (1, 0), "{to}");
    }
    let change = workers("count: 2", "count: 2, ready: { http: /h }");
    assert_eq!((change.needs_new_workers.len(), change.live.len()), (1, 1), "who hangs is asked for the same path");
}

#[test]
fn a_new_variable_elsewhere_does_not_replace_workers() {
    let difference = change("body: hi", "body: \"${SOMETHING}\"");
    let workers = difference.upstreams.changed.iter().find_map(|change| change.workers.clone()).unwrap();
    assert!(workers.needs_new_workers.is_empty());
    assert_eq!(workers.live[0].name, "env_secret");
}

#[test]
fn what_cannot_change_live_is_refused_by_name() {
    for (setting, value) in [("shards", "3"), ("user", "www-data"), ("state_dir", "/s"), ("runtime_dir", "/r")] {
        let difference = change("upstreams:\n", &format!("server: {{ {setting}: {value} }}\nupstreams:\n"));
        let refusals = difference.refusals();
        assert_eq!(refusals.len(), 1, "{setting}");
        assert_eq!(refusals[0].setting, format!("server.{setting}"));
        assert!(refusals[0].to_string().contains("restart"), "{}", refusals[0]);
    }
}

#[test]
fn secrets_are_not_printed() {
    let difference = change("A: one", "A: topsecret");
    let json = serde_json::to_string(&difference).unwrap();
    assert!(!json.contains("topsecret") && !difference.to_string().contains("topsecret"), "{json}");
}

#[test]
fn concurrency_limits_differ_by_name() {
    let with = |limits: &str| {
        let text = BASE.replace("upstreams:\n", &format!("concurrency_limits: {limits}\nupstreams:\n"));
        model(&text)
    };
    let old = with("{ a: { max: 10 }, b: { max: 1 } }");
    let new = with("{ a: { max: 20, key: [host, header:x-user], status: 429, dry_run: true, allow: [private] } }");
    assert_eq!(
        diff(&old, &new).to_string(),
        "- concurrency_limit b\n~ concurrency_limit a: max: 10 -> 20\n\
         ~ concurrency_limit a: key: [client_address] -> [host, header:x-user]\n\
         ~ concurrency_limit a: status: 503 -> 429\n~ concurrency_limit a: dry_run: false -> true\n\
         ~ concurrency_limit a: allow: [] -> [private]\n"
    );
}

#[test]
fn rate_limits_differ_by_name() {
    let with = |limits: &str| model(&BASE.replace("upstreams:\n", &format!("rate_limits: {limits}\nupstreams:\n")));
    let old = with("{ a: { rate: 10/s, burst: 5, delay: 2 }, b: { rate: 1/h } }");
    let new = with("{ a: { rate: 20 per 1s, burst: 6, nodelay: true, key: [host, header:x-user], allow: [private] } }");
    assert_eq!(
        diff(&old, &new).to_string(),
        "- rate_limit b\n~ rate_limit a: rate: 10/s -> 20/s\n~ rate_limit a: burst: 5 -> 6\n\
         ~ rate_limit a: delay: 2 -> nodelay\n~ rate_limit a: key: [client_address] -> [host, header:x-user]\n\
         ~ rate_limit a: allow: [] -> [private]\n"
    );
}
