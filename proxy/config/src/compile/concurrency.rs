//! Limits of requests under way: those with a name, and those that stand where they are used.

use std::collections::{BTreeMap, BTreeSet};

use super::rate_limit::{OFF, Place, allowed};
use super::{check_name, names, variables};
use crate::fault::Code;
use crate::model::{ConcurrencyLimit, Variable};
use crate::raw;
use crate::report::Report;
use crate::source::Span;
use crate::tree::Spot;

const STATUS: u16 = 503;

/// The limits of a file, and who uses them.
#[derive(Default)]
pub(crate) struct ConcurrencyLimits {
    compiled: BTreeMap<String, ConcurrencyLimit>,
    named: Vec<(String, Span)>,
    used: BTreeSet<String>,
    /// Some entries were faulty and are missing here, so that an unknown name is no news.
    damaged: bool,
}

impl ConcurrencyLimits {
    /// Compiles the limits that have names.
    pub(super) fn define(
        &mut self,
        raw: raw::Named<raw::ConcurrencyLimit>,
        spot: Spot<'_>,
        root_damaged: bool,
        report: &mut Report,
    ) {
        self.damaged = root_damaged || spot.is_damaged();
        for (name, raw) in raw.0 {
            let spot = spot.key(&name);
            check_name(&name, "a concurrency limit", spot, report);
            if name == OFF {
                let problem = "\"off\" cannot be the name of a concurrency limit: it switches limits off";
                report.fault(spot.key_span(), Code::BadValue, problem).hint("give it another name");
            }
            self.named.push((name.clone(), spot.key_span()));
            if let Some(limit) = concurrency_limit(raw, name.clone(), spot, report) {
                self.compiled.insert(name, limit);
            }
        }
    }

    /// The names of the limits that a site or route asks for; `None` when it says nothing.
    pub(super) fn chosen(
        &mut self,
        raw: Option<Box<raw::ConcurrencyChoice>>,
        place: &Place<'_>,
        spot: Spot<'_>,
        report: &mut Report,
    ) -> Option<Vec<String>> {
        match *raw? {
            raw::ConcurrencyChoice::Name(name) if name == OFF => Some(Vec::new()),
            raw::ConcurrencyChoice::Name(name) => Some(vec![self.one(name, spot, report)]),
            raw::ConcurrencyChoice::Own(raw) => {
                let limit = concurrency_limit(raw, place.name(), spot, report);
                let used = limit.as_ref().map(|limit| limit.name.clone());
                self.compiled.extend(limit.map(|limit| (limit.name.clone(), limit)));
                Some(used.into_iter().collect())
            }
            raw::ConcurrencyChoice::Several(list) => Some(self.several(list, spot, report)),
        }
    }

    fn several(&mut self, list: Vec<String>, spot: Spot<'_>, report: &mut Report) -> Vec<String> {
        let mut unique = names::Unique::default();
        super::each(list, spot, report, |name, spot, report| {
            if let Some(first) = unique.first(name.clone(), spot.span()) {
                let problem = format!("the concurrency limit \"{name}\" stands here twice");
                let finding = report.fault(spot.span(), Code::Duplicate, problem);
                finding.related(first, "the first one is here").hint("remove one of them");
                return None;
            }
            Some(self.one(name, spot, report))
        })
    }

    fn one(&mut self, name: String, spot: Spot<'_>, report: &mut Report) -> String {
        let known: Vec<&str> = self.named.iter().map(|(name, _)| name.as_str()).collect();
        if name == OFF {
            let problem = "\"off\" stands alone: it switches all limits off";
            let hint = "write concurrency: off, or remove it from the list";
            report.fault(spot.span(), Code::Conflict, problem).hint(hint);
        } else if name.parse::<u32>().is_ok() {
            let problem = format!("\"{name}\" is a number, and here stands the name of a limit, or a mapping");
            let hint = format!("write concurrency: {{ max: {name} }}");
            report.fault(spot.span(), Code::BadValue, problem).hint(hint);
        } else if !known.contains(&name.as_str()) && !self.damaged {
            names::unknown("concurrency limit", &name, &known, spot, report);
        }
        self.used.insert(name.clone());
        name
    }

    /// Warns of what is defined and never used.
    pub(super) fn report_unused(&self, report: &mut Report) {
        for (name, span) in self.named.iter().filter(|(name, _)| !self.used.contains(name)) {
            let problem = format!("no site or route uses the concurrency limit \"{name}\"");
            report.warning(*span, Code::Unused, problem).hint("write concurrency in a site or route, or remove it");
        }
    }

    /// All of them.
    pub(super) fn take(&mut self) -> BTreeMap<String, ConcurrencyLimit> {
        std::mem::take(&mut self.compiled)
    }
}

fn concurrency_limit(
    raw: raw::ConcurrencyLimit,
    name: String,
    spot: Spot<'_>,
    report: &mut Report,
) -> Option<ConcurrencyLimit> {
    let raw::ConcurrencyLimit { max, key, status, dry_run, allow } = raw;
    let key = match key {
        Some(key) => variables::variables(key, spot.key("key"), report),
        None => Some(vec![Variable::ClientAddress]),
    };
    let allow = allowed(allow, spot.key("allow"), report);
    Some(ConcurrencyLimit {
        name,
        max: max?,
        key: key?,
        status: status.unwrap_or(STATUS),
        dry_run: dry_run.unwrap_or(false),
        allow: allow?,
    })
}
