//! The last lines of every slot, for who wants to see them: bounded for each slot and in all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::line::Line;

/// Lines in memory.
#[derive(Debug, Default)]
pub struct Book {
    /// Guards the lines, for as long as it takes to add one or copy some.
    pages: Mutex<Pages>,
    news: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Pages {
    /// By upstream and slot.
    by_slot: BTreeMap<(Arc<str>, Option<u32>), Page>,
    last: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Page {
    lines: VecDeque<(u64, Line)>,
    bytes: usize,
    /// Number of the last line that was forgotten.
    forgotten: u64,
}

/// Which lines are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Of this upstream only.
    pub upstream: Option<String>,
    /// Of this slot only.
    pub slot: Option<u32>,
}

/// Some lines.
#[derive(Debug, Default)]
pub struct Found {
    /// With their numbers, in the order in which they came.
    pub lines: Vec<(u64, Line)>,
    /// Number of the last line there is, of whatever slot.
    pub last: u64,
    /// Whether lines between were forgotten.
    pub has_gap: bool,
}

impl Book {
    /// Remembers a line. Never waits.
    pub fn push(&self, line: Line) {
        let number = self.pages().push(line);
        if self.news.receiver_count() > 0 {
            self.news.send_replace(number);
        }
    }

    /// Forgets the lines of upstreams that are not among these.
    pub fn retain(&self, upstreams: &BTreeSet<String>) {
        let mut pages = self.pages();
        pages.by_slot.retain(|(upstream, _), _| upstreams.contains(upstream.as_ref()));
        pages.bytes = pages.by_slot.values().map(|page| page.bytes).sum();
    }

    /// The number after which the last `count` lines of a choice come.
    #[must_use]
    pub fn before_last(&self, choice: &Choice, count: usize) -> u64 {
        let pages = self.pages();
        let numbers = pages.chosen(choice).flat_map(|page| page.lines.iter().map(|(number, _)| *number));
        let mut numbers: Vec<u64> = numbers.collect();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        numbers.get(count).copied().unwrap_or(0)
    }

    /// What came after a number.
    #[must_use]
    pub fn after(&self, choice: &Choice, number: u64) -> Found {
        let pages = self.pages();
        let mut found = Found { last: pages.last, ..Found::default() };
        for page in pages.chosen(choice) {
            let new = page.lines.iter().rev().take_while(|(other, _)| *other > number).count();
            found.lines.extend(page.lines.range(page.lines.len() - new..).cloned());
            found.has_gap |= number > 0 && page.forgotten > number;
        }
        drop(pages);
        found.lines.sort_by_key(|(number, _)| *number);
        found
    }

    /// Changes with every line.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// No line comes any more; `last_word` wakes who waits for one.
    pub fn end(&self, last_word: u64) {
        self.news.send_replace(last_word);
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn push(&mut self, line: Line) -> u64 {
        self.last += 1;
        let page = self.by_slot.entry((line.upstream.clone(), line.slot)).or_default();
        let before = page.bytes;
        page.bytes += line.text.len();
        page.lines.push_back((self.last, line));
        while page.lines.len() > MOST_LINES || page.bytes > MOST_BYTES {
            page.forget_oldest();
        }
        self.bytes = self.bytes + page.bytes - before;
        if self.bytes > MOST_BYTES_IN_ALL {
            self.forget_quietest();
        }
        self.last
    }

    /// Of many slots with long lines the one that has been quiet for longest gives way.
    fn forget_quietest(&mut self) {
        let last = |page: &Page| page.lines.back().map_or(0, |(number, _)| *number);
        let quietest = self.by_slot.iter().filter(|(_, page)| page.bytes > 0).min_by_key(|(_, page)| last(page));
        let Some(key) = quietest.map(|(key, _)| key.clone()) else { return };
        if let Some(page) = self.by_slot.remove(&key) {
            self.bytes -= page.bytes;
        }
    }

    fn chosen(&self, choice: &Choice) -> impl Iterator<Item = &Page> {
        let is_chosen = move |(upstream, slot): &(Arc<str>, Option<u32>)| {
            choice.upstream.as_ref().is_none_or(|name| **name == **upstream)
                && choice.slot.is_none_or(|one| Some(one) == *slot)
        };
        self.by_slot.iter().filter(move |(key, _)| is_chosen(key)).map(|(_, page)| page)
    }
}

impl Page {
    fn forget_oldest(&mut self) {
        if let Some((number, line)) = self.lines.pop_front() {
            self.bytes -= line.text.len();
            self.forgotten = number;
        }
    }
}

/// Lines of a slot.
const MOST_LINES: usize = 1_000;
/// Bytes of a slot's lines.
const MOST_BYTES: usize = 1 << 20;
/// Bytes of all slots.
const MOST_BYTES_IN_ALL: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::super::line::tests::line;
    use super::*;

    fn book(lines: &[(u32, &str)]) -> Book {
        let book = Book::default();
        lines.iter().for_each(|(slot, text)| book.push(line(*slot, text)));
        book
    }

    fn texts(found: &Found) -> Vec<&str> {
        found.lines.iter().map(|(_, line)| line.text.as_ref()).collect()
    }

    fn slot(slot: u32) -> Choice {
        Choice { upstream: Some("app".to_owned()), slot: Some(slot) }
    }

    #[test]
    fn lines_of_all_slots_come_in_the_order_they_came_in() {
        let book = book(&[(1, "a"), (0, "b"), (1, "c"), (2, "d")]);
        let found = book.after(&Choice::default(), 0);
        assert_eq!((texts(&found), found.last), (vec!["a", "b", "c", "d"], 4));
        assert_eq!(texts(&book.after(&Choice::default(), 2)), ["c", "d"]);
        assert_eq!(texts(&book.after(&slot(1), 0)), ["a", "c"]);
        assert_eq!(book.before_last(&slot(1), 1), 1);
        assert_eq!(book.before_last(&Choice::default(), 3), 1);
        assert_eq!(book.before_last(&Choice::default(), 9), 0);
        let other = Choice { upstream: Some("other".to_owned()), slot: None };
        assert!(book.after(&other, 0).lines.is_empty());
        book.retain(&BTreeSet::new());
        assert!(book.after(&Choice::default(), 0).lines.is_empty());
    }

    #[test]
    fn the_last_thousand_stay_and_who_missed_some_is_told() {
        let book = Book::default();
        for number in 1..=1_500 {
            book.push(line(0, &number.to_string()));
        }
        let found = book.after(&slot(0), 0);
        assert_eq!((found.lines.len(), texts(&found)[0], found.has_gap), (1_000, "501", false));
        assert!(book.after(&slot(0), 499).has_gap);
        assert!(!book.after(&slot(0), 500).has_gap);
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let long = "x".repeat(16_000);
        let book = Book::default();
        for slot in 0..70 {
            for _ in 0..100 {
                book.push(line(slot, &long));
            }
        }
        let pages = book.pages();
        assert!(pages.bytes <= MOST_BYTES_IN_ALL && pages.bytes > MOST_BYTES_IN_ALL - (2 << 20), "{}", pages.bytes);
        assert_eq!(pages.bytes, pages.by_slot.values().map(|page| page.bytes).sum::<usize>());
        assert!(!pages.by_slot.contains_key(&(Arc::from("app"), Some(0))), "the quietest gave way");
    }
}
