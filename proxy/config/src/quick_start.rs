//! A site file made from a command line: `tidegate serve -- COMMAND...`.
//!
//! It is text like any other, so that there is one way from a file to a model, and a user who outgrows the quick start
//! can print it and go on from there.

use serde_json::{Value, json};

/// What a command line says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuickStart {
    /// Command of the workers, with templates. A command that mentions `{socket}` is reached by unix sockets, any other
    /// by ports.
    pub command: Vec<String>,
    /// Host that is served, with a certificate of the local CA; `None` serves any host in plaintext.
    pub domain: Option<String>,
    /// Address to listen on; the default is `:8443` with a domain, else `:8080`.
    pub listen: Option<String>,
    /// Number of workers; `None` is `auto`.
    pub workers: Option<u32>,
}

impl QuickStart {
    /// The site file, for [`load_str`](crate::load_str). Nothing is checked here.
    #[must_use]
    pub fn site_file(&self) -> String {
        let Self { command, domain, listen, workers } = self;
        let has_socket = command.iter().any(|word| word.contains("{socket}"));
        let default_address = if domain.is_some() { ":8443" } else { ":8080" };
        let mut listener = json!({ "address": literal(listen.as_deref().unwrap_or(default_address)) });
        let mut site = json!({
            "name": "app",
            "hosts": [literal(domain.as_deref().unwrap_or("*"))],
            "routes": [{ "path": "/", "proxy": "app" }],
        });
        if domain.is_some() {
            listener["tls"] = json!({});
            site["tls"] = json!("internal");
        }
        let file = json!({
            "listeners": [listener],
            "sites": [site],
            "upstreams": { "app": { "workers": {
                "command": command.iter().map(|word| literal(word)).collect::<Vec<_>>(),
                "count": workers.map_or(json!("auto"), |count| json!(count)),
                "transport": if has_socket { "unix" } else { "port" },
            } } },
        });
        // JSON is YAML, and nobody has to think about quotes.
        format!("{}\n", pretty(&file))
    }
}

/// A shell has replaced variables already; what looks like one now is meant as it is.
fn literal(text: &str) -> Value {
    Value::String(text.replace('$', "$$"))
}

fn pretty(file: &Value) -> String {
    serde_json::to_string_pretty(file).unwrap_or_else(|_| file.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, EndpointSource, HostPattern, Model, SiteTls, Transport, WorkerCount, WorkerTransport};

    fn model(quick_start: &QuickStart) -> Model {
        let loaded = crate::load_str("serve", &quick_start.site_file(), &crate::System::detect());
        loaded.unwrap_or_else(|faults| panic!("{faults}")).model
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_command_alone_is_served_in_plaintext_to_any_host() {
        let command = words(&["uvicorn", "main:app", "--uds", "{socket}", "$HOME ${X} \"quoted\" # no comment"]);
        let model = model(&QuickStart { command: command.clone(), ..QuickStart::default() });
        assert_eq!(model.listeners[0].transport, Transport::Plain { h2c: false });
        assert_eq!(model.listeners[0].address.to_string(), "[::]:8080");
        assert_eq!(model.sites[0].hosts, [HostPattern::Any]);
        let EndpointSource::Workers(workers) = &model.upstreams["app"].source else { panic!("workers") };
        assert_eq!(
            (&workers.command, workers.transport, workers.count),
            (&command, WorkerTransport::Unix, WorkerCount::Auto)
        );
    }

    #[test]
    fn a_domain_brings_tls() {
        let model = model(&QuickStart {
            command: words(&["node", "server.js"]),
            domain: Some("a.example".to_owned()),
            listen: Some("127.0.0.1:4443".to_owned()),
            workers: Some(3),
        });
        assert_eq!(model.listeners[0].transport, Transport::Tls);
        assert_eq!(model.listeners[0].address, Address::Tcp("127.0.0.1:4443".parse().unwrap()));
        assert_eq!(model.sites[0].tls, Some(SiteTls::Internal));
        let EndpointSource::Workers(workers) = &model.upstreams["app"].source else { panic!("workers") };
        assert_eq!((workers.transport, workers.count), (WorkerTransport::Port, WorkerCount::Fixed(3)));
    }
}
