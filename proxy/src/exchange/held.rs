//! What a client has not taken yet of a response body: first in, first out.
//!
//! Memory stands in front, a file behind it: bytes go to the file only while memory is full, and come back through
//! memory. The file is a ring, so a long body never makes it larger than what is held at once.

use super::spool::{Denied, Spool, SpoolFile};
use bytes::{Buf, BytesMut};
use std::io;
use std::sync::Arc;

/// Bytes of memory that a body may always have: what comes back from the file needs some.
const LEAST_MEMORY: usize = 16 * 1024;
/// Bytes that are written to the file at once.
const PIECE: usize = 128 * 1024;

/// Bytes of one body that wait for its client.
#[derive(Debug)]
pub(crate) struct Held {
    spool: Arc<Spool>,
    most: u64,
    /// Most bytes in `memory`.
    most_memory: usize,
    memory: BytesMut,
    file: Option<SpoolFile>,
    /// Bytes ever read from and written to the file since it was last empty.
    read: u64,
    written: u64,
    denied: Option<Denied>,
}

impl Held {
    /// Nothing yet, and never more than `most` bytes, of which `memory` (or very few) need no file.
    pub(crate) fn new(spool: &Arc<Spool>, most: u64, memory: usize) -> Self {
        Self {
            spool: spool.clone(),
            most,
            most_memory: memory.max(LEAST_MEMORY),
            memory: BytesMut::new(),
            file: None,
            read: 0,
            written: 0,
            denied: None,
        }
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> u64 {
        self.memory.len() as u64 + self.written - self.read
    }

    /// Takes bytes from the front of `data`, as many as there is room for; the rest stays with the caller.
    pub(crate) fn push(&mut self, data: &[u8]) -> usize {
        let room = usize::try_from(self.most.saturating_sub(self.len())).unwrap_or(usize::MAX);
        let data = &data[..data.len().min(room)];
        let mut taken = 0;
        if self.read == self.written {
            taken = data.len().min(self.most_memory.saturating_sub(self.memory.len()));
            self.remember(&data[..taken]);
        }
        while taken < data.len() {
            match self.write(&data[taken..]) {
                Ok(count) => taken += count,
                Err(denied) => {
                    self.deny(denied);
                    break;
                }
            }
        }
        taken
    }

    /// The bytes at the front, empty when none wait.
    ///
    /// # Errors
    ///
    /// When the file cannot be read: the rest of the body is lost.
    pub(crate) fn front(&mut self) -> io::Result<&[u8]> {
        if self.memory.is_empty() && self.read < self.written {
            self.load()?;
        }
        Ok(&self.memory)
    }

    /// Drops bytes from the front.
    pub(crate) fn consume(&mut self, count: usize) {
        self.memory.advance(count);
    }

    /// Appends to memory, whose allocation never exceeds its limit: growing by itself it would double.
    fn remember(&mut self, data: &[u8]) {
        let length = self.memory.len() + data.len();
        if length > self.memory.capacity() && !self.memory.try_reclaim(data.len()) {
            let mut larger = BytesMut::with_capacity(length.next_power_of_two().min(self.most_memory));
            larger.extend_from_slice(&self.memory);
            self.memory = larger;
        }
        self.memory.extend_from_slice(data);
    }

    fn write(&mut self, data: &[u8]) -> Result<usize, Denied> {
        // A file that failed once is not tried again; a full spool may have room later.
        if self.denied.is_some_and(|denied| denied != Denied::Total) {
            return Err(Denied::Disk);
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(SpoolFile::create(&self.spool)?),
        };
        let at = self.written % self.most;
        let data = &data[..data.len().min(usize::try_from(self.most - at).unwrap_or(usize::MAX)).min(PIECE)];
        let count = file.write(data, at)?;
        self.written += count as u64;
        Ok(count)
    }

    fn deny(&mut self, denied: Denied) {
        if self.denied.is_none() {
            self.spool.count_fallback(denied);
            self.denied = Some(denied);
        }
    }

    fn load(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let at = self.read % self.most;
        let length = (self.written - self.read).min(self.most - at).min(self.most_memory as u64);
        let length = usize::try_from(length).unwrap_or(self.most_memory);
        if !self.memory.try_reclaim(length) {
            self.memory = BytesMut::with_capacity(length);
        }
        self.memory.resize(length, 0);
        file.read(&mut self.memory, at)?;
        self.read += length as u64;
        if self.read == self.written {
            (self.read, self.written) = (0, 0);
            file.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::spool::tests::spool;
    use super::*;
    use proptest::prelude::*;
    use tidegate_traffic::body::MEMORY;

    fn take(held: &mut Held, most: usize) -> Vec<u8> {
        let front = held.front().unwrap();
        let taken = front[..front.len().min(most)].to_vec();
        held.consume(taken.len());
        taken
    }

    #[test]
    fn more_than_memory_goes_through_a_file() {
        let (spool, _dir) = spool(1 << 20);
        let mut held = Held::new(&spool, 300_000, MEMORY);
        let data: Vec<u8> = (0..400_000_u32).map(|number| number as u8).collect();
        assert_eq!(held.push(&data), 300_000);
        assert_eq!((held.len(), held.push(&data[300_000..])), (300_000, 0));
        let mut out = take(&mut held, 100_000);
        assert_eq!(held.push(&data[300_000..]), 100_000, "the file is a ring");
        while held.len() > 0 {
            out.extend(take(&mut held, 77_777));
        }
        assert!(out == data);
    }

    #[test]
    fn without_room_on_disk_what_was_taken_is_whole() {
        for total in [0, 50_000] {
            let (spool, _dir) = spool(total);
            let mut held = Held::new(&spool, 1 << 20, MEMORY);
            let taken = held.push(&[7; 300_000]);
            assert_eq!(taken, MEMORY, "a piece goes to the file whole or not at all");
            assert_eq!(held.push(&[8; 1000]), if total == 0 { 0 } else { 1000 });
            assert!(take(&mut held, MEMORY) == [7; MEMORY]);
        }
    }

    #[test]
    fn a_folder_that_is_gone_costs_no_bytes() {
        let (spool, dir) = spool(1 << 20);
        drop(dir);
        let mut held = Held::new(&spool, 1 << 20, MEMORY);
        assert_eq!(held.push(&[7; 300_000]), MEMORY);
        assert_eq!(held.push(&[7; 1]), 0);
        assert_eq!(take(&mut held, usize::MAX).len(), MEMORY);
        assert_eq!(held.push(&[7; 1]), 1, "memory has room again");
    }

    proptest! {
        /// Whatever is pushed and taken in turn: bytes come out as they went in, and no more than `most` wait.
        #[test]
        fn bytes_keep_their_order(
            most in 1..600_000_u64,
            memory in prop_oneof![Just(0_usize), Just(50_000), Just(MEMORY)],
            total in prop_oneof![Just(0_u64), Just(200_000), Just(10_000_000)],
            turns in proptest::collection::vec((0..300_000_usize, 0..300_000_usize), 1..12),
        ) {
            let (spool, _dir) = spool(total);
            let mut held = Held::new(&spool, most, memory);
            let (mut put, mut got) = (0_u32, 0_u32);
            let byte = |number: u32| (number.wrapping_mul(2_654_435_761) >> 24) as u8;
            for (push, take_most) in turns {
                let data: Vec<u8> = (put..put + push as u32).map(byte).collect();
                put += held.push(&data) as u32;
                prop_assert!(held.len() <= most);
                prop_assert!(held.memory.capacity() <= memory.max(LEAST_MEMORY));
                let out = take(&mut held, take_most);
                prop_assert!(out.iter().enumerate().all(|(index, found)| *found == byte(got + index as u32)));
                got += out.len() as u32;
                prop_assert_eq!(u64::from(put - got), held.len());
            }
        }
    }
}
