//! Finds the admin endpoint of the running program.
//!
//! A site file with faults must not keep anybody from stopping the program that runs with the version before: then its
//! default socket is tried.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use tidegate_config::Faults;
use tidegate_config::model::{Address, Secret};

use super::arguments::Endpoint;
use super::{Host, Streams, locate};
use crate::admin::client::AdminClient;

/// Largest token file that is read.
const LARGEST_TOKEN: u64 = 4_096;

/// The client for the endpoint that was named, else that of the site file, else the default one.
pub(super) fn client(endpoint: &Endpoint, host: &Host<'_>, streams: &mut Streams<'_>) -> Result<AdminClient, String> {
    let given_token = endpoint.token_file.as_ref().map(|path| read_token(path, host)).transpose()?;
    if let Some(text) = &endpoint.admin {
        return Ok(AdminClient::new(parse_address(text)?, given_token));
    }
    let default = Address::Unix(host.environment.runtime_folder().join("admin.sock"));
    let source = match locate::source(endpoint.config.config.as_deref(), host) {
        Ok(source) => source,
        // Started by `serve`, there is none.
        Err(_) => return Ok(AdminClient::new(default, given_token)),
    };
    match source.load(host.environment) {
        Ok(loaded) => Ok(AdminClient::new(loaded.model.admin.listen, given_token.or(loaded.model.admin.token))),
        Err(faults) => {
            let Address::Unix(path) = &default else { return Err(faults.to_string()) };
            let count = faults.count();
            let _ = writeln!(
                streams.err,
                "warning: {} has faults ({count}), so its admin endpoint is unknown; trying {}",
                source.name(),
                path.display()
            );
            Ok(AdminClient::new(default, given_token))
        }
    }
}

/// The faults of the site file that leads to the endpoint; `None` when it has none or another way was named.
pub(super) fn faults(endpoint: &Endpoint, host: &Host<'_>) -> Option<Faults> {
    if endpoint.admin.is_some() {
        return None;
    }
    locate::source(endpoint.config.config.as_deref(), host).ok()?.load(host.environment).err()
}

/// Whether a program listens at the default socket.
pub(super) fn default_answers(host: &Host<'_>) -> bool {
    std::os::unix::net::UnixStream::connect(host.environment.runtime_folder().join("admin.sock")).is_ok()
}

fn read_token(path: &Path, host: &Host<'_>) -> Result<Secret, String> {
    let text = host.environment.read(path, LARGEST_TOKEN).map_err(|error| format!("{}: {error}", path.display()))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(format!("{}: there is no token in the file", path.display()));
    }
    Ok(Secret(token.to_owned()))
}

/// `unix:/path`, `/path`, `127.0.0.1:9000`, `[::1]:9000`, `localhost:9000` or `:9000`.
fn parse_address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
        return Ok(Address::Unix(path.into()));
    }
    let local = text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':')).and_then(|port| port.parse().ok());
    local
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .or_else(|| text.parse().ok())
        .map(Address::Tcp)
        .ok_or_else(|| format!("admin address \"{text}\" is none: write unix:/path or 127.0.0.1:PORT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let tcp = |text: &str| Ok(Address::Tcp(text.parse().unwrap()));
        let rows = [
            ("unix:/run/a.sock", Ok(Address::Unix("/run/a.sock".into()))),
            ("/run/a.sock", Ok(Address::Unix("/run/a.sock".into()))),
            ("127.0.0.1:9000", tcp("127.0.0.1:9000")),
            ("[::1]:9000", tcp("[::1]:9000")),
            ("localhost:9000", tcp("127.0.0.1:9000")),
            (":9000", tcp("127.0.0.1:9000")),
        ];
        for (text, wanted) in rows {
            assert_eq!(parse_address(text), wanted, "{text}");
        }
        for text in ["", "9000", "example.com:1", ":x", "localhost:99999"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
    }
}
