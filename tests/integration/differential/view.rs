//! What the two sides of the edge saw of one request, in words that both protocols share.

use std::{collections::BTreeMap, fmt};

use anyhow::Result;
use http::HeaderMap;
use tidegate_tests::{client::Answer, h2_origin::H2Seen, pattern::hash, recorder::Seen};

/// Both sides of one request.
#[derive(Debug, Default)]
pub(super) struct View {
    client: Facts,
    /// One for each time it arrived.
    origin: Vec<Facts>,
}

/// Names of facts, and what was seen of each: pseudo names in angle brackets, and fields.
type Facts = BTreeMap<String, String>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Origin,
}

/// A fact that two views do not share.
pub(super) struct Difference {
    pub(super) side: Side,
    pub(super) what: String,
    pub(super) values: [Option<String>; 2],
}

impl View {
    pub(super) fn of_client(answer: &Result<Answer>) -> Self {
        let mut facts = Facts::new();
        match answer {
            Err(error) => add(&mut facts, "<answer>", &format!("none: {error:#}")),
            Ok(answer) => {
                add(&mut facts, "<status>", answer.status.as_str());
                // What we say ourselves names the request; the field with the id is a fact of its own.
                let id = answer.header("x-request-id").unwrap_or_default();
                match answer.header("x-tidegate-reason") {
                    Some(_) => add(&mut facts, "<body>", &answer.text().replace(id, "ID")),
                    None => add(&mut facts, "<body>", &told(&answer.body)),
                }
                add(&mut facts, "<ending>", if answer.is_complete() { "complete" } else { "cut" });
                add_fields(&mut facts, &answer.headers);
                if let Some(trailers) = answer.trailers.as_ref().filter(|trailers| !trailers.is_empty()) {
                    add(&mut facts, "<trailers>", &format!("{trailers:?}"));
                }
                // The time may differ by a second; that there is one, and one only, may not.
                if let Some(date) = facts.get_mut("date").filter(|date| date.len() == 29 && date.ends_with(" GMT")) {
                    "a date".clone_into(date);
                }
                // How a body of unknown length ends is up to the protocol.
                facts.remove("transfer-encoding");
            }
        }
        Self { client: facts, origin: Vec::new() }
    }

    pub(super) fn add_http1(&mut self, seen: &Seen) {
        let mut facts = Facts::new();
        let mut line = seen.line().split(' ');
        add(&mut facts, "<method>", line.next().unwrap_or_default());
        add(&mut facts, "<target>", line.next().unwrap_or_default());
        for (name, value) in seen.head.lines().skip(1).filter_map(|line| line.split_once(':')) {
            let name = name.to_ascii_lowercase();
            add(&mut facts, if name == "host" { "<authority>" } else { &name }, value.trim_matches([' ', '\t']));
        }
        let length = facts.remove("content-length");
        let chunked = facts.remove("transfer-encoding").is_some();
        self.finish(facts, length, chunked, &seen.body);
    }

    pub(super) fn add_h2(&mut self, seen: &H2Seen) {
        let mut facts = Facts::new();
        add(&mut facts, "<method>", &seen.method);
        add(&mut facts, "<target>", &seen.path);
        add(&mut facts, "<authority>", seen.authority.as_deref().unwrap_or("none"));
        add_fields(&mut facts, &seen.headers);
        let length = facts.remove("content-length");
        let unknown = length.is_none() && !seen.body.is_empty();
        self.finish(facts, length, unknown, &seen.body);
    }

    fn finish(&mut self, mut facts: Facts, length: Option<String>, unknown: bool, body: &[u8]) {
        let framing = match (length, unknown) {
            (Some(length), _) => format!("length {length}"),
            (None, true) => "unknown length".to_owned(),
            (None, false) => "none".to_owned(),
        };
        add(&mut facts, "<framing>", &framing);
        add(&mut facts, "<body>", &told(body));
        facts.remove("x-case");
        self.origin.push(facts);
    }

    /// Whether the request never arrived.
    pub(super) fn is_refused(&self) -> bool {
        self.origin.is_empty()
    }

    pub(super) fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = differences(Side::Client, &self.client, &other.client);
        if self.origin.len() != other.origin.len() {
            let values = [self, other].map(|view| Some(format!("{} times", view.origin.len())));
            found.push(Difference { side: Side::Origin, what: "<arrived>".to_owned(), values });
        }
        for (one, other) in self.origin.iter().zip(&other.origin) {
            found.extend(differences(Side::Origin, one, other));
        }
        found
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short =
            self.values.each_ref().map(|value| value.as_ref().map(|value| value.chars().take(80).collect::<String>()));
        write!(f, "{} as the {:?} saw it: {short:?}", self.what, self.side)
    }
}

fn differences(side: Side, one: &Facts, other: &Facts) -> Vec<Difference> {
    let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
    names
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| Difference { side, what: name.clone(), values: [one.get(name).cloned(), other.get(name).cloned()] })
        .collect()
}

/// Values of one name keep their order; between names HTTP gives it no meaning.
fn add(facts: &mut Facts, name: &str, value: &str) {
    facts
        .entry(name.to_owned())
        .and_modify(|all| all.push_str(&format!("{APART}{value}")))
        .or_insert_with(|| value.to_owned());
}

fn add_fields(facts: &mut Facts, fields: &HeaderMap) {
    for (name, value) in fields {
        add(facts, name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
}

fn told(body: &[u8]) -> String {
    format!("{} bytes, hash {:x}", body.len(), hash(body))
}

/// Between values of one name.
pub(super) const APART: &str = " | ";
