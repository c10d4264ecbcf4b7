//! The routes of one level (a site, or a route with inner routes) and nginx's precedence among them.
//!
//! Exact paths win. Else the longest prefix is remembered, and unless it stops them, the regular expressions are
//! tried in the file's order; the first that matches wins over the remembered prefix. A route whose conditions fail
//! is as if it were absent at every one of these steps.
//!
//! Inner routes follow nginx's nested `location`: within a remembered prefix an exact path or a regular expression
//! decides at once, but an inner prefix still gives way to an outer regular expression.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use regex::Regex;
use tidegate_config::model::{PathPattern, Route};

use super::RouteId;
use super::condition::Conditions;
use super::prefixes::Prefixes;
use crate::head::HeadView;
use crate::target::canonical_pattern;

/// What an entry leads to.
#[derive(Debug)]
pub(super) enum Target {
    /// A route that acts.
    Leaf(RouteId),
    /// A frame; a request that matches nothing in it has no route.
    Nested(Box<Table>),
}

/// The routes of one level.
#[derive(Debug)]
pub(super) struct Table {
    entries: Vec<Entry>,
    exact: HashMap<Box<str>, Vec<u32>, BuildHasherDefault<DefaultHasher>>,
    prefixes: Prefixes,
    /// In the order of the file.
    regexes: Vec<(Arc<Regex>, u32)>,
}

#[derive(Debug)]
struct Entry {
    conditions: Conditions,
    target: Target,
    /// A prefix that keeps regular expressions from being tried.
    stops: bool,
}

/// How a route was found, which says whether an outer regular expression may still win.
#[derive(Clone, Copy)]
enum Found {
    Decided(Option<RouteId>),
    Remembered(Option<RouteId>),
}

impl Table {
    /// The route of a request, if there is one.
    pub(super) fn find(&self, head: &HeadView<'_>) -> Option<RouteId> {
        match self.search(head) {
            Found::Decided(route) | Found::Remembered(route) => route,
        }
    }

    fn search(&self, head: &HeadView<'_>) -> Found {
        let path = head.target.path();
        if let Some(entry) = self.exact_entry(path, head) {
            return Found::Decided(entry.route(head));
        }
        let remembered = self.prefixes.find(path, |number| self.accepted(number, head));
        let inner = match remembered {
            Some(entry) => match entry.search(head) {
                decided @ Found::Decided(_) => return decided,
                Found::Remembered(route) if entry.stops => return Found::Remembered(route),
                Found::Remembered(route) => route,
            },
            None => None,
        };
        match self.regex_entry(path, head) {
            Some(entry) => Found::Decided(entry.route(head)),
            None => Found::Remembered(inner),
        }
    }

    fn exact_entry(&self, path: &str, head: &HeadView<'_>) -> Option<&Entry> {
        if self.exact.is_empty() {
            return None;
        }
        self.exact.get(path)?.iter().find_map(|number| self.accepted(*number, head))
    }

    fn regex_entry(&self, path: &str, head: &HeadView<'_>) -> Option<&Entry> {
        self.regexes
            .iter()
            .filter(|(regex, _)| regex.is_match(path))
            .find_map(|(_, number)| self.accepted(*number, head))
    }

    fn accepted(&self, number: u32, head: &HeadView<'_>) -> Option<&Entry> {
        self.entries.get(number as usize).filter(|entry| entry.conditions.hold(head))
    }
}

impl Entry {
    fn route(&self, head: &HeadView<'_>) -> Option<RouteId> {
        match &self.target {
            Target::Leaf(route) => Some(*route),
            Target::Nested(table) => table.find(head),
        }
    }

    fn search(&self, head: &HeadView<'_>) -> Found {
        match &self.target {
            Target::Leaf(route) => Found::Remembered(Some(*route)),
            Target::Nested(table) => table.search(head),
        }
    }
}

/// Collects the routes of a level in the order of the file.
#[derive(Default)]
pub(super) struct Builder {
    entries: Vec<Entry>,
    exact: HashMap<Box<str>, Vec<u32>, BuildHasherDefault<DefaultHasher>>,
    prefixes: Prefixes,
    regexes: Vec<(Arc<Regex>, u32)>,
}

impl Builder {
    /// Adds the next route.
    pub(super) fn push(&mut self, route: &Route, target: Target) {
        let number = u32::try_from(self.entries.len()).unwrap_or(u32::MAX);
        let mut stops = false;
        match &route.path {
            PathPattern::Exact(path) => self.exact.entry(canonical_pattern(path).into()).or_default().push(number),
            PathPattern::Prefix(path) => self.prefixes.insert(&canonical_pattern(path), number),
            PathPattern::PrefixStop(path) => {
                stops = true;
                self.prefixes.insert(&canonical_pattern(path), number);
            }
            PathPattern::Regex(regex) => self.regexes.push((Arc::clone(regex), number)),
        }
        self.entries.push(Entry { conditions: Conditions::new(&route.conditions), target, stops });
    }

    /// The finished level.
    pub(super) fn build(self) -> Table {
        Table { entries: self.entries, exact: self.exact, prefixes: self.prefixes, regexes: self.regexes }
    }
}
