//! The paths about workers, asked from the command line.

use std::io;
use std::time::Duration;

use http::{Method, StatusCode};

use super::{AdminClient, ClientError};
use crate::admin::order::{Order, Scale};
use crate::admin::view::{Costs, Deploys, Event, Ordered, Plans, Workers};

impl AdminClient {
    /// `GET /workers`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn workers(&self, upstream: Option<&str>, deadline: Duration) -> Result<Workers, ClientError> {
        let path = path("/workers", &[("upstream", upstream.map(str::to_owned))]);
        self.ask(Method::GET, &path, deadline, &[StatusCode::OK])
    }

    /// `GET /workers/cost`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn costs(&self, upstream: Option<&str>, deadline: Duration) -> Result<Costs, ClientError> {
        let path = path("/workers/cost", &[("upstream", upstream.map(str::to_owned))]);
        self.ask(Method::GET, &path, deadline, &[StatusCode::OK])
    }

    /// `POST /workers/...`; returns when the order is taken.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn order(&self, order: &Order, deadline: Duration) -> Result<Ordered, ClientError> {
        self.ask(Method::POST, &order_path(order), deadline, &[StatusCode::ACCEPTED])
    }

    /// `GET /workers/deploys`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn deploys(&self, upstream: Option<&str>, deadline: Duration) -> Result<Deploys, ClientError> {
        let path = path("/workers/deploys", &[("upstream", upstream.map(str::to_owned))]);
        self.ask(Method::GET, &path, deadline, &[StatusCode::OK])
    }

    /// `GET /workers/plan`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn plans(&self, upstream: Option<&str>, deadline: Duration) -> Result<Plans, ClientError> {
        let path = path("/workers/plan", &[("upstream", upstream.map(str::to_owned))]);
        self.ask(Method::GET, &path, deadline, &[StatusCode::OK])
    }

    /// `GET /events`: those after that number.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn events_after(&self, upstream: &str, number: u64, deadline: Duration) -> Result<Vec<Event>, ClientError> {
        let path = path("/events", &[("upstream", Some(upstream.to_owned())), ("after", Some(number.to_string()))]);
        let lines = self.fetch(Method::GET, &path, deadline, &[StatusCode::OK])?;
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| self.read(StatusCode::OK, line)).collect()
    }

    /// `GET /events`, line by line, with `follow` until the program ends.
    ///
    /// # Errors
    /// See [`ClientError`]; the inner result is that of `each`.
    pub fn events(
        &self,
        upstream: Option<&str>,
        last: Option<usize>,
        follow: bool,
        deadline: Duration,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, ClientError> {
        let last = last.map(|count| count.to_string());
        let follow = follow.then(|| "true".to_owned());
        let path = path("/events", &[("upstream", upstream.map(str::to_owned)), ("last", last), ("follow", follow)]);
        self.lines(&path, deadline, each)
    }
}

/// Which lines are asked for.
#[derive(Debug, Clone, Copy)]
pub struct WhichLines<'a> {
    /// Of this upstream only.
    pub upstream: Option<&'a str>,
    /// Of this slot only.
    pub slot: Option<u32>,
    /// Only the last ones.
    pub last: Option<usize>,
    /// Those that come from now on, too.
    pub follow: bool,
}

impl AdminClient {
    /// `GET /logs`, line by line, with `follow` until the program ends.
    ///
    /// # Errors
    /// See [`ClientError`]; the inner result is that of `each`.
    pub fn logs(
        &self,
        which: WhichLines<'_>,
        deadline: Duration,
        each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<io::Result<()>, ClientError> {
        let WhichLines { upstream, slot, last, follow } = which;
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let parameters = [
            ("upstream", upstream.map(str::to_owned)),
            ("slot", number(slot.map(u64::from))),
            ("last", number(last.map(|last| last as u64))),
            ("follow", follow.then(|| "true".to_owned())),
        ];
        self.lines(&path("/logs", &parameters), deadline, each)
    }
}

fn order_path(order: &Order) -> String {
    match order {
        Order::Restart { upstream, slot } => {
            let slot = slot.map(|slot| slot.to_string());
            path("/workers/restart", &[("upstream", Some(upstream.clone())), ("slot", slot)])
        }
        Order::Drain { upstream, slot } => {
            path("/workers/drain", &[("upstream", Some(upstream.clone())), ("slot", Some(slot.to_string()))])
        }
        Order::Deploy { upstream } => path("/workers/deploy", &[("upstream", Some(upstream.clone()))]),
        Order::Scale { upstream, to } => {
            let to = match to {
                Scale::To(count) => ("count", Some(count.to_string())),
                Scale::By(by) => ("by", Some(by.to_string())),
                Scale::File => ("count", Some("auto".to_owned())),
            };
            path("/workers/scale", &[("upstream", Some(upstream.clone())), to])
        }
    }
}

/// A path with those parameters that have a value.
fn path(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    let query: Vec<String> = given.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

fn escaped(value: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_have_their_paths() {
        let upstream = || "a b&c/\u{e9}".to_owned();
        let rows = [
            (Order::Restart { upstream: upstream(), slot: None }, "/workers/restart?upstream=a%20b%26c%2F%C3%A9"),
            (Order::Restart { upstream: "app".to_owned(), slot: Some(2) }, "/workers/restart?upstream=app&slot=2"),
            (Order::Drain { upstream: "app".to_owned(), slot: 0 }, "/workers/drain?upstream=app&slot=0"),
            (Order::Deploy { upstream: "app".to_owned() }, "/workers/deploy?upstream=app"),
            (Order::Scale { upstream: "app".to_owned(), to: Scale::To(3) }, "/workers/scale?upstream=app&count=3"),
            (Order::Scale { upstream: "app".to_owned(), to: Scale::By(-1) }, "/workers/scale?upstream=app&by=-1"),
            (Order::Scale { upstream: "app".to_owned(), to: Scale::File }, "/workers/scale?upstream=app&count=auto"),
        ];
        for (order, path) in rows {
            assert_eq!(order_path(&order), path);
        }
    }
}
