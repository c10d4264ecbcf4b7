//! Which site a host belongs to, on one listener.
//!
//! One hash of the canonical host for an exact match; for wildcards one more for each label that could begin a
//! known suffix. The hash has fixed keys: the table is filled from the site file only, so a client cannot make it
//! collide with itself.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

use tidegate_config::model::{HostPattern, Listener, Site};

use crate::host::canonical_pattern;

type ByHost = HashMap<Box<str>, usize, BuildHasherDefault<DefaultHasher>>;

/// Sites of one listener; values are places in the model's list of sites.
#[derive(Debug, Default)]
pub(super) struct SiteIndex {
    exact: ByHost,
    /// By what follows `*.`.
    wildcard: ByHost,
    longest_suffix: usize,
    any: Option<usize>,
    default: Option<usize>,
}

impl SiteIndex {
    /// Where two sites name the same host on this listener, the first one keeps it.
    pub(super) fn new(listener: &Listener, sites: &[Site]) -> Self {
        let mut index = Self::default();
        for (place, site) in sites.iter().enumerate() {
            if listener.default_site.as_ref() == Some(&site.name) {
                index.default = Some(place);
            }
            if site.listeners.contains(&listener.name) {
                site.hosts.iter().for_each(|host| index.insert(host, place));
            }
        }
        index
    }

    /// Exact, then the longest wildcard, then `*`, then the listener's default.
    pub(super) fn by_host(&self, host: &str) -> Option<usize> {
        self.exact.get(host).copied().or_else(|| self.by_suffix(host)).or_else(|| self.without_host())
    }

    /// `*`, then the listener's default.
    pub(super) fn without_host(&self) -> Option<usize> {
        self.any.or(self.default)
    }

    fn insert(&mut self, host: &HostPattern, place: usize) {
        match host {
            HostPattern::Exact(name) => {
                self.exact.entry(canonical_pattern(name).into()).or_insert(place);
            }
            HostPattern::Wildcard(suffix) => {
                let suffix = canonical_pattern(suffix);
                self.longest_suffix = self.longest_suffix.max(suffix.len());
                self.wildcard.entry(suffix.into()).or_insert(place);
            }
            HostPattern::Any => self.any = self.any.or(Some(place)),
        }
    }

    fn by_suffix(&self, host: &str) -> Option<usize> {
        if self.wildcard.is_empty() {
            return None;
        }
        let mut rest = host;
        while let Some((_, suffix)) = rest.split_once('.') {
            rest = suffix;
            if suffix.len() <= self.longest_suffix
                && let Some(place) = self.wildcard.get(suffix)
            {
                return Some(*place);
            }
        }
        None
    }
}
