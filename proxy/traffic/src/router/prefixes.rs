//! Path prefixes in a tree of segments.
//!
//! A path is walked one segment at a time as far as the tree knows it, and then back towards the root, so that
//! longer prefixes come first. The cost follows the path's length, not the number of routes: 10,000 siblings are one
//! binary search. Prefixes end at segment boundaries: `/admin` is a prefix of `/admin` and `/admin/x`, `/admin/` of
//! `/admin/` and `/admin/x`, neither of `/administrator`.

/// Entries by prefix; an entry is a number of the caller.
#[derive(Debug)]
pub(super) struct Prefixes {
    /// The first one is the root, which is the slash that every path begins with.
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    parent: usize,
    /// Sorted by segment.
    children: Vec<(Box<str>, usize)>,
    /// Entries of the prefix that ends with this segment.
    bare: Vec<u32>,
    /// Entries of the prefix that ends with the slash after this segment.
    with_slash: Vec<u32>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Prefixes {
    /// Adds an entry; those of the same prefix keep their order. `prefix` is a canonical path.
    pub(super) fn insert(&mut self, prefix: &str, entry: u32) {
        let prefix = prefix.strip_prefix('/').unwrap_or(prefix);
        let mut node = 0;
        let mut segments = prefix.split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_none() {
                self.nodes[node].with_slash.push(entry);
                return;
            }
            node = self.child(node, segment);
        }
        self.nodes[node].bare.push(entry);
    }

    /// The first entry that the caller accepts, longest prefix first.
    pub(super) fn find<T>(&self, path: &str, mut accept: impl FnMut(u32) -> Option<T>) -> Option<T> {
        let (mut node, mut slash) = self.deepest(path.strip_prefix('/')?);
        loop {
            let current = &self.nodes[node];
            let with_slash = if slash { current.with_slash.as_slice() } else { &[] };
            if let Some(found) = with_slash.iter().chain(&current.bare).find_map(|entry| accept(*entry)) {
                return Some(found);
            }
            if node == 0 {
                return None;
            }
            node = current.parent;
            slash = true;
        }
    }

    /// The last node of the path that exists, and whether the path goes on with a slash after it.
    fn deepest(&self, path: &str) -> (usize, bool) {
        let mut node = 0;
        let mut rest = path;
        loop {
            let (segment, after) = match rest.split_once('/') {
                Some((segment, after)) => (segment, Some(after)),
                None => (rest, None),
            };
            let children = &self.nodes[node].children;
            let Ok(place) = children.binary_search_by(|(name, _)| name.as_ref().cmp(segment)) else {
                return (node, true);
            };
            node = children[place].1;
            match after {
                Some(after) => rest = after,
                None => return (node, false),
            }
        }
    }

    fn child(&mut self, parent: usize, segment: &str) -> usize {
        match self.nodes[parent].children.binary_search_by(|(name, _)| name.as_ref().cmp(segment)) {
            Ok(place) => self.nodes[parent].children[place].1,
            Err(place) => {
                let node = self.nodes.len();
                self.nodes.push(Node { parent, ..Node::default() });
                self.nodes[parent].children.insert(place, (segment.into(), node));
                node
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn takes(prefix: &str, path: &str) -> bool {
        match path.strip_prefix(prefix) {
            Some(rest) => prefix.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    #[test]
    fn prefixes_end_at_segments() {
        let mut prefixes = Prefixes::default();
        for (entry, prefix) in ["/", "/admin", "/admin/", "/pki/prod"].into_iter().enumerate() {
            prefixes.insert(prefix, u32::try_from(entry).unwrap());
        }
        let rows = [
            ("/", 0),
            ("/admin", 1),
            ("/admin/", 2),
            ("/admin/x", 2),
            ("/administrator", 0),
            ("/pki", 0),
            ("/pki/prod", 3),
            ("/pki/prod/", 3),
            ("/pki/prod/key", 3),
            ("/pki/prod-backup", 0),
        ];
        for (path, expected) in rows {
            assert_eq!(prefixes.find(path, Some), Some(expected), "{path}");
        }
        assert_eq!(prefixes.find("*", Some), None);
    }

    proptest! {
        #[test]
        fn every_prefix_comes_up_longest_first(
            list in proptest::collection::vec("(/[ab]{1,2}){0,3}/?", 1..12),
            path in "(/[ab]{1,2}){0,4}/?",
        ) {
            prop_assume!(path.starts_with('/'));
            let list: Vec<String> = list.into_iter().filter(|prefix| prefix.starts_with('/')).collect();
            let mut prefixes = Prefixes::default();
            for (entry, prefix) in list.iter().enumerate() {
                prefixes.insert(prefix, u32::try_from(entry).unwrap());
            }
            let mut seen = Vec::new();
            prefixes.find::<()>(&path, |entry| { seen.push(entry); None });
            let mut expected: Vec<u32> = (0..u32::try_from(list.len()).unwrap()).filter(|entry| takes(&list[*entry as usize], &path)).collect();
            expected.sort_by_key(|entry| std::cmp::Reverse(list[*entry as usize].len()));
            prop_assert_eq!(seen, expected);
        }
    }
}
