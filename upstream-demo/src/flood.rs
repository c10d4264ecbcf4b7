//! Lines at a steady rate on standard output, as a program with too much to say prints them.

use std::{
    io::{self, Write},
    thread,
    time::{Duration, Instant},
};

/// What came of it.
pub(crate) struct Flood {
    /// Lines printed.
    pub(crate) lines: u64,
    /// How long that took; longer than asked for when the reader held it up.
    pub(crate) elapsed: Duration,
}

/// Prints `mib` MiB of lines each second for this long. Blocks the thread.
pub(crate) fn print(mib: u64, time: Duration) -> Flood {
    let line = [b"x".repeat(LINE - 1).as_slice(), b"\n"].concat();
    let begun = Instant::now();
    let mut lines = 0;
    while begun.elapsed() < time {
        let due = (begun.elapsed().as_millis() as u64 + TICK) * mib * (1 << 20) / 1_000 / LINE as u64;
        let portion = due.saturating_sub(lines);
        // A reader that is gone is nobody to print for.
        if io::stdout().lock().write_all(&line.repeat(portion as usize)).is_err() {
            break;
        }
        lines += portion;
        thread::sleep(Duration::from_millis(TICK));
    }
    Flood { lines, elapsed: begun.elapsed() }
}

const LINE: usize = 100;
/// Milliseconds between two portions.
const TICK: u64 = 5;
