//! `serve`: a site file made of arguments, so that there is one way in.
//!
//! The text is JSON, which every YAML reader takes, so that no argument can change its structure.

use serde_json::{Value, json};

use super::ConfigSource;
use super::arguments::Serve;

/// A configuration with what was decided for the user.
#[derive(Debug)]
pub(super) struct QuickStart {
    pub(super) source: ConfigSource,
    /// Lines to tell.
    pub(super) notes: Vec<String>,
}

/// A server whose way to listen we know.
struct KnownServer {
    program: &'static str,
    /// What makes it listen where we say.
    arguments: &'static [&'static str],
    /// Options with which the user says it already.
    own: &'static [&'static str],
}

const KNOWN_SERVERS: [KnownServer; 6] = [
    KnownServer { program: "uvicorn", arguments: &["--uds", "{socket}"], own: &["--uds", "--host", "--port", "--fd"] },
    KnownServer { program: "gunicorn", arguments: &["--bind", "unix:{socket}"], own: &["--bind", "-b"] },
    KnownServer { program: "hypercorn", arguments: &["--bind", "unix:{socket}"], own: &["--bind", "-b"] },
    KnownServer {
        program: "granian",
        arguments: &["--host", "127.0.0.1", "--port", "{port}"],
        own: &["--host", "--port", "--uds"],
    },
    KnownServer {
        program: "fastapi",
        arguments: &["--host", "127.0.0.1", "--port", "{port}"],
        own: &["--host", "--port"],
    },
    KnownServer {
        program: "daphne",
        arguments: &["-u", "{socket}"],
        own: &["-u", "--unix-socket", "-b", "--bind", "-p", "--port", "-e", "--endpoint", "--fd"],
    },
];

/// Makes the configuration, or says what is wrong with the arguments.
pub(super) fn source(serve: &Serve) -> Result<QuickStart, String> {
    let Serve { domains, listen, workers, admin, command } = serve;
    let mut notes = Vec::new();
    let workers = worker_section(command, *workers, &mut notes)?;
    let tls = !domains.is_empty();
    let address = listen.as_deref().unwrap_or(if tls { ":8443" } else { "127.0.0.1:8080" });
    let mut listener = json!({ "address": verbatim(address) });
    let mut site = json!({ "name": "app", "hosts": ["*"], "routes": [{ "path": "/", "proxy": "app" }] });
    if tls {
        listener["tls"] = json!({});
        site["hosts"] = domains.iter().map(|domain| verbatim(domain)).collect();
        site["tls"] = json!("internal");
        notes.push(format!(
            "{} answers with a certificate of the local CA; browsers warn until they trust it",
            domains.join(", ")
        ));
    }
    let mut file = json!({ "listeners": [listener], "sites": [site], "upstreams": { "app": { "workers": workers } } });
    if let Some(admin) = admin {
        file["admin"] = json!({ "listen": verbatim(admin) });
    }
    let source = ConfigSource::Text { name: "serve".to_owned(), text: format!("{file:#}\n") };
    Ok(QuickStart { source, notes })
}

/// `workers:` of the upstream. What the command does not say about where it listens is added.
fn worker_section(command: &[String], count: Option<u32>, notes: &mut Vec<String>) -> Result<Value, String> {
    let mut command = command.to_vec();
    let mut section = json!({ "count": "auto" });
    if let Some(count) = count {
        section["count"] = count.into();
    }
    if template_of(&command)?.is_none() {
        match known_server(&command) {
            Some(server) => {
                refuse_own_address(&command, server)?;
                command.extend(server.arguments.iter().map(|&argument| argument.to_owned()));
                notes.push(format!("added to the command: {}", server.arguments.join(" ")));
            }
            None => {
                section["env"] = json!({ "PORT": "{port}" });
                section["transport"] = json!("port");
                notes.push(
                    "the command names neither {socket} nor {port}: it must listen on 127.0.0.1:$PORT".to_owned(),
                );
            }
        }
    }
    if let Some(template) = template_of(&command)? {
        section["transport"] = json!(if template == "{socket}" { "unix" } else { "port" });
    }
    section["command"] = command.iter().map(|argument| verbatim(argument)).collect();
    Ok(section)
}

/// Which of the two templates the command has.
fn template_of(command: &[String]) -> Result<Option<&'static str>, String> {
    let has = |template: &str| command.iter().any(|argument| argument.contains(template));
    match (has("{socket}"), has("{port}")) {
        (true, true) => Err("the command names {socket} and {port}: a worker listens on one of them".to_owned()),
        (true, false) => Ok(Some("{socket}")),
        (false, true) => Ok(Some("{port}")),
        (false, false) => Ok(None),
    }
}

/// The server that the command starts: itself, by `python -m`, or by a runner such as `uv run`.
fn known_server(command: &[String]) -> Option<&'static KnownServer> {
    let words = command.iter().take_while(|word| !word.contains(':'));
    let mut programs = words.map(|word| word.rsplit_once('/').map_or(word.as_str(), |(_, name)| name));
    programs.find_map(|program| KNOWN_SERVERS.iter().find(|server| server.program == program))
}

/// An address in the command would make all workers listen in one place.
fn refuse_own_address(command: &[String], server: &KnownServer) -> Result<(), String> {
    let says = |option: &&&str| {
        command.iter().any(|argument| {
            argument == **option || argument.strip_prefix(**option).is_some_and(|rest| rest.starts_with('='))
        })
    };
    match server.own.iter().find(says) {
        None => Ok(()),
        Some(option) => Err(format!(
            "the command says where it listens ({option}), but every worker needs a place of its own: \
             leave that out, or write {{socket}} or {{port}} there"
        )),
    }
}

/// A text that stays as it is: `$$` stands for `$` in a site file.
fn verbatim(text: &str) -> Value {
    Value::String(text.replace('$', "$$"))
}
