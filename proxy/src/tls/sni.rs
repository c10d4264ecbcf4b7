//! Chooses what a handshake presents by server name, the way requests choose their site by host.

use std::borrow::Cow;
use std::collections::HashMap;

use tidegate_config::model::HostPattern;

/// The TLS record of a fatal `unrecognized_name` alert (RFC 6066 section 3, RFC 8446 section 6.2).
///
/// Written by an edge that has read the client hello and finds nobody who serves the name, before it closes.
pub const UNRECOGNIZED_NAME_ALERT: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70];

/// Values by server name: immutable, built from the sites that answer on one listener.
#[derive(Debug)]
pub struct ServerNames<T> {
    exact: HashMap<String, T>,
    /// By the name after `*.`.
    wildcard: HashMap<String, T>,
    /// For a name that matches nothing.
    unknown_name: Option<T>,
    /// For a client that sends no name.
    no_name: Option<T>,
}

impl<T: Clone> ServerNames<T> {
    /// Hosts with their values, in the order of the file: the first site of two equal hosts wins, as with requests.
    /// `same` tells whether two values are one.
    pub(crate) fn new<'a>(
        hosts: impl IntoIterator<Item = (&'a HostPattern, T)>,
        default: Option<T>,
        same: fn(&T, &T) -> bool,
    ) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        let (mut any, mut first, mut several) = (None, None, false);
        for (host, value) in hosts {
            match &first {
                None => first = Some(value.clone()),
                Some(first) => several |= !same(first, &value),
            }
            match host {
                HostPattern::Exact(name) => drop(exact.entry(name.clone()).or_insert(value)),
                HostPattern::Wildcard(parent) => drop(wildcard.entry(parent.clone()).or_insert(value)),
                HostPattern::Any => any = any.or(Some(value)),
            }
        }
        let only = first.filter(|_| !several);
        let unknown_name = any.clone().or_else(|| default.clone());
        Self { exact, wildcard, unknown_name, no_name: default.or(any).or(only) }
    }

    /// The value for a server name; for `None` that of the default site, or the only one there is.
    ///
    /// An exact host wins over the longest wildcard, that over `*`, that over the default site. `None` when nobody
    /// serves that name.
    #[must_use]
    pub fn find(&self, server_name: Option<&str>) -> Option<&T> {
        let Some(server_name) = server_name else { return self.no_name.as_ref() };
        let name = canonical(server_name);
        self.exact.get(&*name).or_else(|| self.longest_wildcard(&name)).or(self.unknown_name.as_ref())
    }

    fn longest_wildcard(&self, name: &str) -> Option<&T> {
        if self.wildcard.is_empty() {
            return None;
        }
        let parents = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]);
        parents.filter(|parent| parent.len() + 1 < name.len()).find_map(|parent| self.wildcard.get(parent))
    }
}

/// Lower case and without a trailing dot, as hosts are in the model; only odd clients cost an allocation.
fn canonical(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(name: &str) -> HostPattern {
        HostPattern::Exact(name.to_owned())
    }

    fn wildcard(parent: &str) -> HostPattern {
        HostPattern::Wildcard(parent.to_owned())
    }

    fn names(hosts: &[(&HostPattern, char)], default: Option<char>) -> ServerNames<char> {
        ServerNames::new(hosts.iter().copied(), default, |a, b| a == b)
    }

    #[test]
    fn names_choose_as_hosts_do() {
        let hosts = [
            (&exact("a.example.com"), 'a'),
            (&wildcard("example.com"), 'b'),
            (&wildcard("deep.example.com"), 'c'),
            (&exact("a.example.com"), 'd'),
        ];
        let view = names(&hosts, None);
        let rows = [
            (Some("a.example.com"), Some('a')),
            (Some("A.Example.COM."), Some('a')),
            (Some("x.example.com"), Some('b')),
            (Some("x.y.example.com"), Some('b')),
            (Some("x.deep.example.com"), Some('c')),
            (Some("example.com"), None),
            (Some(".example.com"), None),
            (Some("other"), None),
            (Some(""), None),
            (None, None),
        ];
        for (name, wanted) in rows {
            assert_eq!(view.find(name).copied(), wanted, "{name:?}");
        }
    }

    #[test]
    fn unknown_and_missing_names_get_the_default_the_any_site_or_the_only_one() {
        let (one, any) = (exact("a"), HostPattern::Any);
        type Row<'a> = (&'a [(&'a HostPattern, char)], Option<char>, Option<&'a str>, Option<char>);
        let rows: [Row<'_>; 8] = [
            (&[(&one, 'a')], None, Some("x"), None),
            (&[(&one, 'a')], None, None, Some('a')),
            (&[(&one, 'a')], Some('b'), Some("x"), Some('b')),
            (&[(&one, 'a')], Some('b'), None, Some('b')),
            (&[(&one, 'a'), (&any, 'b')], None, Some("x"), Some('b')),
            (&[(&one, 'a'), (&any, 'b')], None, None, Some('b')),
            (&[(&any, 'b')], Some('a'), Some("x"), Some('b')),
            (&[(&one, 'a'), (&wildcard("b"), 'b')], None, None, None),
        ];
        for (hosts, default, name, wanted) in rows {
            assert_eq!(names(hosts, default).find(name).copied(), wanted, "{hosts:?} {default:?} {name:?}");
        }
    }
}
