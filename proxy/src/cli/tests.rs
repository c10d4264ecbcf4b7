//! Tests of whole commands: arguments in, text and exit code out.

use std::path::Path;

use std::sync::atomic::Ordering;

use tidegate_config::environment::System;
use tidegate_config::model::{
    Address, EndpointSource, HostPattern, Secret, SiteTls, Transport, WorkerCount, WorkerTransport,
};

use super::*;
use crate::admin::guard::Guard;
use crate::admin::server::tests::Running;

/// What a command came to.
struct Outcome {
    exit: Exit,
    command: Option<Command>,
    out: String,
    err: String,
}

/// Runs a command with this folder as runtime folder.
fn run_in(folder: &Path, arguments: &[&str]) -> Outcome {
    let environment = System { runtime_folder: folder.to_owned() };
    let input = || Ok("listeners: [{ address: \"127.0.0.1:1\" }]\n".to_owned());
    let host = Host {
        environment: &environment,
        state_folder: |server, _| server.state_dir.clone().unwrap_or_else(|| "/nonexistent".into()),
        standard_input: &input,
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut streams = Streams { out: &mut out, err: &mut err, out_is_terminal: false, no_color: false };
    let words = std::iter::once("tidegate").chain(arguments.iter().copied()).map(OsString::from);
    let (exit, command) = match parse(words, &host, &mut streams) {
        Ok(Command::Operate(operation)) => (operation.execute(&host, &mut streams), None),
        Ok(run) => (Exit::Fine, Some(run)),
        Err(exit) => (exit, None),
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { exit, command, out: text(out), err: text(err) }
}

fn run(arguments: &[&str]) -> Outcome {
    run_in(Path::new("/nonexistent"), arguments)
}

fn source(arguments: &[&str]) -> (ConfigSource, String) {
    let outcome = run(arguments);
    let Some(Command::Run(source)) = outcome.command else { panic!("{}", outcome.err) };
    (source, outcome.err)
}

/// The model of a `serve` command line.
fn served(arguments: &[&str]) -> (tidegate_config::model::Model, String) {
    let (source, notes) = source(arguments);
    let environment = System { runtime_folder: "/run/t".into() };
    let loaded = source.load(&environment).unwrap_or_else(|faults| panic!("{faults}\n{source:?}"));
    assert_eq!(loaded.warnings, []);
    (loaded.model, notes)
}

const SITE: &str = "\
listeners: [{ address: \"127.0.0.1:0\" }]
sites: [{ hosts: [\"*\"], routes: [{ path: /, respond: { status: 200 } }] }]
";

fn file(folder: &Path, text: &str) -> String {
    let path = folder.join("site.yaml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn a_good_file_is_ok_in_every_spelling() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), SITE);
    for arguments in [
        &["check", "-c", &path][..],
        &["-t", "-c", &path],
        &["validate", "-c", &path],
        &["test", "-c", &path],
        &["-c", &path, "check"],
    ] {
        let outcome = run(arguments);
        assert_eq!(outcome.exit, Exit::Fine, "{arguments:?}: {}", outcome.err);
        assert_eq!(outcome.out, format!("{path}: ok (1 listener, 1 site, 0 upstreams)\n"));
    }
    let printed = run(&["check", "-c", &path, "--print"]).out;
    assert!(printed.ends_with(SITE), "{printed}");
    let report: serde_json::Value =
        serde_json::from_str(&run(&["check", "-c", &path, "--format", "json"]).out).unwrap();
    assert_eq!((&report["ok"], &report["sites"], &report["faults"]), (&true.into(), &1.into(), &serde_json::json!([])));
}

#[test]
fn faults_of_file_certificates_and_accounts_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path(), "listeners: [{ adress: x }]\n");
    let outcome = run(&["check", "-c", &path]);
    assert_eq!(outcome.exit, Exit::Config);
    assert!(outcome.err.contains("site.yaml:1:15: error") && outcome.out.is_empty(), "{}", outcome.err);

    let path = file(
        folder.path(),
        "listeners: [{ address: \"127.0.0.1:0\", tls: {} }]\n\
         sites: [{ hosts: [a.example], tls: { certificate: no.crt, key: no.key }, routes: [{ path: /, respond: { status: 200 } }] }]\n\
         server: { user: no-such-user }\n",
    );
    let outcome = run(&["check", "-c", &path]);
    assert_eq!(outcome.exit, Exit::Config);
    for text in ["no.crt: error: cannot be read", "no.key: error: cannot be read", "server.user: user \"no-such-user\""]
    {
        assert!(outcome.err.contains(text), "no {text:?} in {}", outcome.err);
    }
    let report: serde_json::Value =
        serde_json::from_str(&run(&["check", "-c", &path, "--format", "json"]).out).unwrap();
    assert_eq!(report["ok"], false);
    let codes: Vec<&str> =
        report["faults"].as_array().unwrap().iter().map(|fault| fault["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["certificate", "certificate", "account"]);
}

#[test]
fn commands_have_their_exit_codes() {
    let rows: [(&[&str], Exit, &str); 11] = [
        (&[], Exit::Usage, "Usage: tidegate"),
        (&["--help"], Exit::Fine, "completion"),
        (&["nonsense"], Exit::Usage, "unrecognized subcommand"),
        (&["check", "--frobnicate"], Exit::Usage, "unexpected argument"),
        (&["-t", "run"], Exit::Usage, "-t is a command of its own"),
        (&["-v"], Exit::Fine, concat!("tidegate ", env!("CARGO_PKG_VERSION"))),
        (&["-V"], Exit::Fine, "tidegate "),
        (&["version"], Exit::Fine, "tidegate "),
        (&["schema"], Exit::Fine, "\"listeners\""),
        (&["completion", "bash"], Exit::Fine, "complete -F _tidegate"),
        (&["status", "--admin", "nowhere"], Exit::Usage, "write unix:/path"),
    ];
    for (arguments, exit, text) in rows {
        let outcome = run(arguments);
        assert_eq!(outcome.exit, exit, "{arguments:?}: {}", outcome.err);
        let told = if exit == Exit::Fine { &outcome.out } else { &outcome.err };
        assert!(told.contains(text), "{arguments:?}: {told}");
    }
}

#[test]
fn without_a_running_program_commands_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let good = file(folder.path(), SITE);
    let socket = folder.path().join("admin.sock");
    for command in ["status", "reload", "stop"] {
        let outcome = run_in(folder.path(), &[command, "-c", &good]);
        assert_eq!(outcome.exit, Exit::Runtime);
        assert_eq!(outcome.err, format!("error: tidegate is not running: no socket at {}\n", socket.display()));
    }
    let bad = file(folder.path(), "listeners: 3\n");
    let outcome = run_in(folder.path(), &["stop", "-c", &bad]);
    assert!(outcome.err.contains("has faults") && outcome.err.contains("no socket at"), "{}", outcome.err);
}

#[test]
fn the_running_program_is_asked_over_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let site = file(folder.path(), SITE);
    let running = Running::start(&Address::Unix(folder.path().join("admin.sock")), Guard::unix(None));
    let run = |arguments: &[&str]| run_in(folder.path(), &[arguments, &["-c", &site]].concat());

    let status = run(&["status"]);
    assert!(
        status.out.starts_with("tidegate 0.1.0, pid 0, generation 7") && !status.out.contains('\x1b'),
        "{}",
        status.out
    );
    let status: serde_json::Value = serde_json::from_str(&run(&["status", "--format", "json"]).out).unwrap();
    assert_eq!((&status["generation"], &status["upstreams"][0]["target"]), (&7.into(), &4.into()));

    let reload = run(&["reload"]);
    assert_eq!((reload.exit, reload.out.as_str()), (Exit::Fine, "+ site new\nreload applied, generation 8\n"));
    running.fake.refuse.store(true, Ordering::Relaxed);
    let reload = run(&["reload"]);
    assert_eq!((reload.exit, reload.out.as_str()), (Exit::Config, ""));
    assert_eq!(reload.err, "site.yaml:1:1: error: broken\nreload refused, generation 7 stays in use\n");

    let stuck = run(&["stop", "--timeout", "0"]);
    assert!(running.fake.stopped.load(Ordering::Relaxed));
    assert_eq!((stuck.exit, stuck.err.as_str()), (Exit::Runtime, "error: still stopping after 0 seconds\n"));
    let begun = run(&["stop", "--no-wait"]);
    assert_eq!((begun.exit, begun.out.as_str()), (Exit::Fine, "stopping\n"));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| run(&["stop"]));
        // Whether it asks before or after this, it must notice the end.
        drop(running);
        let stopped = waiting.join().unwrap();
        assert!(
            stopped.out == "stopped\n" || stopped.err.contains("tidegate is not running"),
            "{} {}",
            stopped.out,
            stopped.err
        );
    });
}

#[test]
fn a_token_comes_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&Address::Tcp(([127, 0, 0, 1], 0).into()), Guard::tcp(Secret("t0ken".to_owned())));
    let admin = running.tcp.unwrap().to_string();
    let token = folder.path().join("token");
    std::fs::write(&token, "t0ken\n").unwrap();
    let token = token.display().to_string();
    assert_eq!(run(&["status", "--admin", &admin, "--token-file", &token]).exit, Exit::Fine);
    let refused = run(&["status", "--admin", &admin]);
    assert_eq!(refused.exit, Exit::Runtime);
    assert!(refused.err.contains("refused the token"), "{}", refused.err);
    assert_eq!(run(&["status", "--admin", &admin, "--token-file", "/nonexistent"]).exit, Exit::Usage);
}

#[test]
fn a_configuration_comes_from_where_it_was_asked_for() {
    assert_eq!(source(&["run", "-c", "x.yaml"]).0, ConfigSource::File("x.yaml".into()));
    assert_eq!(source(&["-c", "x.yaml", "run"]).0, ConfigSource::File("x.yaml".into()));
    let (ConfigSource::Text { name, text }, _) = source(&["run", "-c", "-"]) else { panic!("text") };
    assert!(name == "standard input" && text.starts_with("listeners:"), "{name}: {text}");
}

#[test]
fn serve_finds_out_how_workers_listen() {
    use WorkerTransport::{Port, Unix};
    let rows: [(&[&str], WorkerTransport, &[&str], &str); 9] = [
        (&["app", "--sock={socket}"], Unix, &["app", "--sock={socket}"], ""),
        (&["app", "-p", "{port}"], Port, &["app", "-p", "{port}"], ""),
        (
            &["uvicorn", "main:app"],
            Unix,
            &["uvicorn", "main:app", "--uds", "{socket}"],
            "added to the command: --uds {socket}",
        ),
        (
            &["python", "-m", "gunicorn", "main:app"],
            Unix,
            &["python", "-m", "gunicorn", "main:app", "--bind", "unix:{socket}"],
            "--bind",
        ),
        (
            &["/opt/venv/bin/hypercorn", "main:app"],
            Unix,
            &["/opt/venv/bin/hypercorn", "main:app", "--bind", "unix:{socket}"],
            "--bind",
        ),
        (
            &["uv", "run", "fastapi", "run", "main.py"],
            Port,
            &["uv", "run", "fastapi", "run", "main.py", "--host", "127.0.0.1", "--port", "{port}"],
            "--port {port}",
        ),
        (
            &["granian", "main:app"],
            Port,
            &["granian", "main:app", "--host", "127.0.0.1", "--port", "{port}"],
            "--port {port}",
        ),
        (
            &["node", "server.js", "$X", "${HOME}", "$$"],
            Port,
            &["node", "server.js", "$X", "${HOME}", "$$"],
            "127.0.0.1:$PORT",
        ),
        (&["uvicorn", "main:app", "--port", "{port}"], Port, &["uvicorn", "main:app", "--port", "{port}"], ""),
    ];
    for (command, transport, wanted, note) in rows {
        let (model, notes) = served(&[&["serve", "--"], command].concat());
        let EndpointSource::Workers(workers) = &model.upstreams["app"].source else { panic!("workers") };
        assert_eq!(
            (workers.transport, workers.command.iter().map(String::as_str).collect::<Vec<_>>()),
            (transport, wanted.to_vec())
        );
        assert_eq!(workers.count, WorkerCount::Auto);
        assert!(notes.contains(note) && notes.is_empty() == note.is_empty(), "{notes}");
        assert_eq!(workers.env.get("PORT").map(String::as_str), (command[0] == "node").then_some("{port}"));
    }
    for (command, text) in [
        (&["uvicorn", "main:app", "--port=8000"][..], "(--port)"),
        (&["gunicorn", "-b", ":80", "main:app"], "(-b)"),
        (&["app", "{socket}", "{port}"], "one of them"),
    ] {
        let outcome = run(&[&["serve", "--"], command].concat());
        assert_eq!(outcome.exit, Exit::Usage);
        assert!(outcome.err.contains(text), "{}", outcome.err);
    }
}

#[test]
fn serve_listens_as_asked() {
    let (model, _) = served(&["serve", "--", "app", "{socket}"]);
    assert_eq!(model.listeners[0].address, Address::Tcp("127.0.0.1:8080".parse().unwrap()));
    assert!(matches!(model.listeners[0].transport, Transport::Plain { .. }));
    assert_eq!(model.sites[0].hosts, [HostPattern::Any]);

    let (model, notes) = served(&[
        "serve",
        "--domain",
        "a.example",
        "--domain",
        "*.b.example",
        "--workers",
        "3",
        "--admin",
        "unix:/run/t/a.sock",
        "--",
        "app",
        "{socket}",
    ]);
    assert_eq!(model.listeners.len(), 1);
    assert_eq!(model.listeners[0].address, Address::Tcp("[::]:8443".parse().unwrap()));
    assert_eq!(model.listeners[0].transport, Transport::Tls);
    let hosts = [HostPattern::Exact("a.example".to_owned()), HostPattern::Wildcard("b.example".to_owned())];
    assert_eq!((&model.sites[0].hosts[..], &model.sites[0].tls), (&hosts[..], &Some(SiteTls::Internal)));
    assert_eq!(model.admin.listen, Address::Unix("/run/t/a.sock".into()));
    let EndpointSource::Workers(workers) = &model.upstreams["app"].source else { panic!("workers") };
    assert_eq!(workers.count, WorkerCount::Fixed(3));
    assert!(notes.contains("local CA"), "{notes}");

    let (model, _) = served(&["serve", "--listen", "127.0.0.1:9000", "--domain", "a.example", "--", "app", "{socket}"]);
    assert_eq!(model.listeners[0].address, Address::Tcp("127.0.0.1:9000".parse().unwrap()));
    assert_eq!(run(&["serve"]).exit, Exit::Usage);
    assert_eq!(run(&["serve", "--workers", "0", "--", "app"]).exit, Exit::Usage);
}
