//! A request body, or its beginning, that is held so that it can be sent, and sent again.

use super::spool::{Denied, Spool, SpoolFile};
use bytes::BytesMut;
use std::io;
use std::sync::Arc;
use tidegate_traffic::body::MEMORY;

/// Bytes that are handed out of the file at once.
const PIECE: usize = 64 * 1024;

/// What has come of a request body; see the module's text.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    memory: BytesMut,
    /// What memory was too small for.
    more: Option<Box<More>>,
    /// Bytes handed out since the last [`Self::rewind`].
    passed: u64,
    /// Nothing follows what is held.
    pub(crate) complete: bool,
}

#[derive(Debug)]
struct More {
    /// Shared with copies, once there are any.
    file: Option<Arc<SpoolFile>>,
    in_file: u64,
    /// What the file did not take.
    tail: BytesMut,
    /// A piece of the file, and where it stands there.
    piece: Vec<u8>,
    piece_at: u64,
}

impl Collected {
    /// What came with the head; `complete` if that is all.
    pub(crate) fn ready(memory: BytesMut, complete: bool) -> Self {
        Self { memory, complete, ..Self::default() }
    }

    /// Bytes held.
    pub(crate) fn len(&self) -> u64 {
        let more = self.more.as_ref().map_or(0, |more| more.in_file + more.tail.len() as u64);
        self.memory.len() as u64 + more
    }

    /// Holds all of `data`. Whether more may be pushed: not over `most` bytes, and not when the spool takes no more.
    pub(crate) fn push(&mut self, data: &[u8], spool: &Arc<Spool>, most: u64) -> bool {
        let fits = data.len().min(MEMORY.saturating_sub(self.memory.len()));
        let fits = if self.more.is_some() { 0 } else { fits };
        self.memory.extend_from_slice(&data[..fits]);
        let rest = &data[fits..];
        let mut room = true;
        if !rest.is_empty() {
            let more = self.more.get_or_insert_with(|| Box::new(More::new(spool)));
            if let Err(denied) = more.push(rest) {
                spool.count_fallback(denied);
                room = false;
            }
        }
        room && self.len() < most
    }

    /// Begins again at the front.
    pub(crate) fn rewind(&mut self) {
        self.passed = 0;
    }

    /// The same bytes, to be handed out a second time beside this. What is in the file stays there; the rest is copied, which is
    /// about as much as [`MEMORY`].
    pub(crate) fn copy(&self) -> Self {
        let more = self.more.as_ref().map(|more| {
            let More { file, in_file, tail, piece: _, piece_at: _ } = &**more;
            let (file, tail) = (file.clone(), tail.clone());
            Box::new(More { file, in_file: *in_file, tail, piece: Vec::new(), piece_at: 0 })
        });
        Self { memory: self.memory.clone(), more, passed: 0, complete: self.complete }
    }

    /// The next bytes; empty when all have been handed out.
    ///
    /// # Errors
    ///
    /// When the file cannot be read: the request cannot be sent.
    pub(crate) fn next(&mut self) -> io::Result<&[u8]> {
        let memory = self.memory.len() as u64;
        if self.passed < memory {
            let from = usize::try_from(self.passed).unwrap_or(usize::MAX);
            return Ok(&self.memory[from..]);
        }
        match &mut self.more {
            Some(more) => more.at(self.passed - memory),
            None => Ok(&[]),
        }
    }

    /// So many bytes of [`Self::next`] were used.
    pub(crate) fn advance(&mut self, count: usize) {
        self.passed += count as u64;
    }

    /// Whether all that is held was handed out.
    pub(crate) fn is_passed(&self) -> bool {
        self.passed >= self.len()
    }
}

impl More {
    fn new(spool: &Arc<Spool>) -> Self {
        let file = SpoolFile::create(spool).map_err(|denied| spool.count_fallback(denied)).ok();
        Self { file: file.map(Arc::new), in_file: 0, tail: BytesMut::new(), piece: Vec::new(), piece_at: 0 }
    }

    /// Takes everything; an error says that the file takes no more.
    fn push(&mut self, data: &[u8]) -> Result<(), Denied> {
        let mut rest = data;
        let mut denied = None;
        while !rest.is_empty() && self.tail.is_empty() {
            let Some(file) = self.file.as_mut().and_then(Arc::get_mut) else {
                denied = Some(Denied::Disk);
                break;
            };
            match file.write(rest, self.in_file) {
                Ok(count) => {
                    self.in_file += count as u64;
                    rest = &rest[count..];
                }
                Err(reason) => {
                    denied = Some(reason);
                    break;
                }
            }
        }
        self.tail.extend_from_slice(rest);
        denied.map_or(Ok(()), Err)
    }

    fn at(&mut self, at: u64) -> io::Result<&[u8]> {
        let index = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        if at >= self.in_file {
            return Ok(self.tail.get(index(at - self.in_file)..).unwrap_or_default());
        }
        let end = self.piece_at + self.piece.len() as u64;
        if !(self.piece_at..end).contains(&at)
            && let Some(file) = &self.file
        {
            self.piece.resize(index(self.in_file - at).min(PIECE), 0);
            self.piece_at = at;
            file.read(&mut self.piece, at)?;
        }
        Ok(&self.piece[index(at - self.piece_at)..])
    }
}

#[cfg(test)]
mod tests {
    use super::super::spool::tests::spool;
    use super::*;

    fn all(collected: &mut Collected) -> Vec<u8> {
        collected.rewind();
        let mut out = Vec::new();
        while !collected.is_passed() {
            let next = collected.next().unwrap();
            let count = next.len().min(50_000);
            out.extend_from_slice(&next[..count]);
            collected.advance(count);
        }
        out
    }

    #[test]
    fn what_is_held_can_be_sent_again_and_again() {
        let body: Vec<u8> = (0..700_000_u32).map(|number| (number / 7) as u8).collect();
        // Room for all, for a part, for nothing in files.
        for (total, taken) in [(1 << 20, 700_000), (200_000, 390_000), (0, 150_000)] {
            let (spool, _dir) = spool(total);
            let mut collected = Collected::default();
            let mut sent = 0;
            for piece in body.chunks(30_000) {
                sent += piece.len();
                if !collected.push(piece, &spool, u64::MAX) {
                    break;
                }
            }
            assert!((sent as u64).abs_diff(taken) <= 60_000, "{total}: {sent}");
            assert_eq!(collected.len(), sent as u64, "every byte that was pushed is there");
            assert!(all(&mut collected) == body[..sent] && all(&mut collected) == body[..sent]);
            // Two at a time, each in its own time.
            collected.rewind();
            collected.advance(1_000);
            let mut copy = collected.copy();
            assert!(all(&mut copy) == body[..sent]);
            assert!(collected.next().unwrap().starts_with(&body[1_000..2_000]));
            drop(collected);
            assert!(all(&mut copy) == body[..sent], "whichever is there longer");
        }
    }

    #[test]
    fn it_says_when_it_holds_enough() {
        let (spool, _dir) = spool(1 << 20);
        let mut collected = Collected::ready(BytesMut::from(&b"abc"[..]), false);
        assert!(collected.push(b"defg", &spool, 8));
        assert!(!collected.push(b"hij", &spool, 8));
        assert_eq!(all(&mut collected), b"abcdefghij");
    }
}
