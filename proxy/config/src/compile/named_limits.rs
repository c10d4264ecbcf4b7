//! Limits by client: those that sites and routes share by name, and those that stand where they are used.

use std::collections::{BTreeMap, BTreeSet};

use super::{check_name, listener, names, variables};
use crate::Networks;
use crate::fault::Code;
use crate::model::Variable;
use crate::raw;
use crate::report::Report;
use crate::source::Span;
use crate::tree::Spot;

/// The word that switches an inherited limit off, so no name.
const OFF: &str = "off";

/// A kind of limit.
pub(super) trait Limit: Sized {
    type Raw;
    /// One of several, as it is written.
    type Listed;
    /// One, as a route goes by it.
    type Use;
    /// What it is called.
    const NOUN: &'static str;
    /// The key that sites and routes use it by.
    const KEY: &'static str;
    /// What to do about one that is listed twice.
    const TWICE: &'static str;

    fn compile(raw: Self::Raw, place: &Place<'_>, spot: Spot<'_>, report: &mut Report) -> Option<Self>;

    /// The name, where it is written, and what a request counts.
    fn listed(raw: Self::Listed, spot: Spot<'_>) -> Option<(String, Spot<'_>, u32)>;

    fn used(name: String, cost: u32) -> Self::Use;

    /// If this belongs into a limit rather than being the name of one: what it is, and its key there.
    fn part(text: &str) -> Option<(&'static str, &'static str)>;
}

/// Where a limit stands.
pub(super) enum Place<'a> {
    Named(&'a str),
    Site(&'a str),
    Route { site: &'a str, way: &'a str },
}

impl Place<'_> {
    /// What it is known by: where it has no name, something with a space, which no name of a file has.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Named(name) => (*name).to_owned(),
            Self::Site(site) => format!("site {site}"),
            Self::Route { site, way } => format!("site {site}, route {way}"),
        }
    }
}

/// The limits of a kind that a file has, and who uses them.
pub(super) struct NamedLimits<L> {
    compiled: BTreeMap<String, L>,
    named: Vec<(String, Span)>,
    used: BTreeSet<String>,
    /// Some entries were faulty and are missing here, so that an unknown name is no news.
    damaged: bool,
}

impl<L> Default for NamedLimits<L> {
    fn default() -> Self {
        Self { compiled: BTreeMap::new(), named: Vec::new(), used: BTreeSet::new(), damaged: false }
    }
}

impl<L: Limit> NamedLimits<L> {
    /// Compiles the limits that have names.
    pub(super) fn define(
        &mut self,
        raw: Option<raw::Named<L::Raw>>,
        spot: Spot<'_>,
        root_damaged: bool,
        report: &mut Report,
    ) {
        self.damaged = root_damaged || spot.is_damaged();
        for (name, raw) in raw.unwrap_or_default().0 {
            let spot = spot.key(&name);
            check_name(&name, &format!("a {}", L::NOUN), spot, report);
            if name == OFF {
                let problem = format!("\"off\" cannot be the name of a {}: it switches limits off", L::NOUN);
                report.fault(spot.key_span(), Code::BadValue, problem).hint("give it another name");
            }
            self.named.push((name.clone(), spot.key_span()));
            self.add(raw, &Place::Named(&name), spot, report);
        }
    }

    /// What a site or route says; `None` when it says nothing.
    pub(super) fn chosen(
        &mut self,
        raw: Option<Box<raw::LimitChoice<L::Raw, L::Listed>>>,
        place: &Place<'_>,
        spot: Spot<'_>,
        report: &mut Report,
    ) -> Option<Vec<L::Use>> {
        match *raw? {
            raw::LimitChoice::Name(name) if name == OFF => Some(Vec::new()),
            raw::LimitChoice::Name(name) => Some(vec![self.one(name, 1, spot, report)]),
            raw::LimitChoice::Own(raw) => {
                let name = self.add(raw, place, spot, report);
                Some(name.map(|name| L::used(name, 1)).into_iter().collect())
            }
            raw::LimitChoice::Several(list) => Some(self.several(list, spot, report)),
        }
    }

    fn add(&mut self, raw: L::Raw, place: &Place<'_>, spot: Spot<'_>, report: &mut Report) -> Option<String> {
        let limit = L::compile(raw, place, spot, report)?;
        self.compiled.insert(place.name(), limit);
        Some(place.name())
    }

    fn several(&mut self, list: Vec<L::Listed>, spot: Spot<'_>, report: &mut Report) -> Vec<L::Use> {
        let mut unique = names::Unique::default();
        super::each(list, spot, report, |raw, spot, report| {
            let (name, spot, cost) = L::listed(raw, spot)?;
            if let Some(first) = unique.first(name.clone(), spot.span()) {
                let problem = format!("the {} \"{name}\" stands here twice", L::NOUN);
                let finding = report.fault(spot.span(), Code::Duplicate, problem);
                finding.related(first, "the first one is here").hint(L::TWICE);
                return None;
            }
            Some(self.one(name, cost, spot, report))
        })
    }

    fn one(&mut self, name: String, cost: u32, spot: Spot<'_>, report: &mut Report) -> L::Use {
        let known: Vec<&str> = self.named.iter().map(|(name, _)| name.as_str()).collect();
        if name == OFF {
            let problem = "\"off\" stands alone: it switches all limits off";
            let hint = format!("write {}: off, or remove it from the list", L::KEY);
            report.fault(spot.span(), Code::Conflict, problem).hint(hint);
        } else if let Some((part, key)) = L::part(&name) {
            let problem = format!("\"{name}\" is {part}, and here stands the name of a limit, or a mapping");
            let hint = format!("write {}: {{ {key}: {name} }}", L::KEY);
            report.fault(spot.span(), Code::BadValue, problem).hint(hint);
        } else if !known.contains(&name.as_str()) && !self.damaged {
            names::unknown(L::NOUN, &name, &known, spot, report);
        }
        self.used.insert(name.clone());
        L::used(name, cost)
    }

    /// Warns of what is defined and never used.
    pub(super) fn report_unused(&self, report: &mut Report) {
        for (name, span) in self.named.iter().filter(|(name, _)| !self.used.contains(name)) {
            let problem = format!("no site or route uses the {} \"{name}\"", L::NOUN);
            let hint = format!("write {} in a site or route, or remove it", L::KEY);
            report.warning(*span, Code::Unused, problem).hint(hint);
        }
    }

    /// All of them.
    pub(super) fn take(&mut self) -> BTreeMap<String, L> {
        std::mem::take(&mut self.compiled)
    }
}

/// What clients are told apart by.
pub(super) fn key(raw: Option<raw::Variables>, spot: Spot<'_>, report: &mut Report) -> Option<Vec<Variable>> {
    match raw {
        Some(key) => variables::variables(key, spot, report),
        None => Some(vec![Variable::ClientAddress]),
    }
}

/// Clients that are never limited.
pub(super) fn allowed(raw: Option<Vec<String>>, spot: Spot<'_>, report: &mut Report) -> Option<Networks> {
    let allow = raw.unwrap_or_default();
    for (index, _) in allow.iter().enumerate().filter(|(_, text)| *text == "unix") {
        let problem = "clients of unix sockets cannot be told apart here: they count as 127.0.0.1";
        report.fault(spot.item(index).span(), Code::BadValue, problem).hint("write loopback");
    }
    listener::networks(allow, spot, report)
}
