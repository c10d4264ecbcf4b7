//! Lines of one worker that wait to be written: bounded, and the oldest give way. Pure.

use std::collections::VecDeque;

use super::line::Line;

/// Lines that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Lines that the next one taken tells of.
    dropped: u64,
}

impl Queue {
    /// Adds a line; returns how many of the worker's had to go for it.
    pub(super) fn push(&mut self, line: Line) -> u64 {
        self.bytes += weight(&line);
        self.lines.push_back(line);
        let mut lost = 0;
        while self.bytes > MOST_BYTES {
            lost += self.drop_oldest();
        }
        lost
    }

    /// Takes some lines, oldest first, and in front of them what was lost before.
    pub(super) fn take(&mut self) -> Vec<Line> {
        let mut taken = Vec::new();
        let mut room = BATCH;
        while let Some(line) = self.lines.pop_front() {
            self.bytes -= weight(&line);
            if self.dropped > 0 {
                taken.push(line.about_losses(std::mem::take(&mut self.dropped)));
            }
            room = room.saturating_sub(weight(&line));
            taken.push(line);
            if room == 0 {
                break;
            }
        }
        taken
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn drop_oldest(&mut self) -> u64 {
        let Some(oldest) = self.lines.pop_front() else { return 0 };
        self.bytes -= weight(&oldest);
        // One that told of losses stands for those, which were counted when it came.
        self.dropped += oldest.dropped.max(1);
        u64::from(oldest.dropped == 0)
    }
}

/// Bytes that a line holds.
fn weight(line: &Line) -> usize {
    line.text.len() + size_of::<Line>()
}

/// Bytes of one worker that may wait.
const MOST_BYTES: usize = 1 << 20;
/// Bytes of one worker that are written before it is another one's turn.
const BATCH: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::super::line::tests::line;
    use super::*;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_ref()).collect()
    }

    #[test]
    fn lines_are_taken_in_order_and_in_batches() {
        let mut queue = Queue::default();
        for number in 0..10 {
            assert_eq!(queue.push(line(0, &format!("{number}{}", "x".repeat(15_000)))), 0);
        }
        let first = queue.take();
        assert_eq!(first.len(), 5, "the one that makes it full is the last");
        let second = queue.take();
        assert!(texts(&second)[0].starts_with('5') && queue.is_empty() && queue.bytes == 0);
    }

    #[test]
    fn the_oldest_give_way_and_are_counted_once() {
        let mut queue = Queue::default();
        let mut dropped = 0;
        for number in 0..200 {
            dropped += queue.push(line(0, &format!("{number} {}", "x".repeat(16_000))));
        }
        assert!(queue.bytes <= MOST_BYTES && queue.bytes > MOST_BYTES - 17_000);
        assert_eq!(dropped + queue.lines.len() as u64, 200);
        let taken = queue.take();
        let notice = &taken[0];
        assert_eq!((notice.dropped, notice.stream), (dropped, "stderr"));
        assert!(notice.text.starts_with(&format!("dropped {dropped} lines")), "{notice:?}");
        assert!(taken[1].text.starts_with(&format!("{dropped} ")), "the oldest that is left");
        assert_eq!(queue.take()[0].dropped, 0, "told once");
    }

    #[test]
    fn a_notice_that_is_lost_counts_for_what_it_told() {
        let mut queue = Queue::default();
        queue.push(Line { dropped: 500, ..line(0, "dropped 500 lines") });
        let lost: u64 = (0..100).map(|_| queue.push(line(0, &"x".repeat(16_000)))).sum();
        assert_eq!(lost, 100 - queue.lines.len() as u64, "the notice is none of the worker's lines");
        assert_eq!(queue.take()[0].dropped, 500 + lost);
    }
}
