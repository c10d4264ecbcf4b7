//! The bytes of `/bytes`: at each place other ones, so that a lost, doubled or swapped piece shows in a hash, and
//! a glance at the wreck says which offset it is from.
//!
//! The body is cut in lines of 16 bytes: the line's own offset as 15 hexadecimal digits and a line feed.

use bytes::Bytes;

/// The `length` bytes that start at `offset`.
pub(crate) fn block(offset: u64, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 2 * LINE);
    let skipped = (offset % LINE as u64) as usize;
    let mut line = offset - skipped as u64;
    while bytes.len() < skipped + length {
        write_line(&mut bytes, line);
        line += LINE as u64;
    }
    Bytes::from(bytes).slice(skipped..skipped + length)
}

fn write_line(bytes: &mut Vec<u8>, offset: u64) {
    for digit in (0..LINE - 1).rev() {
        bytes.push(b"0123456789abcdef"[(offset >> (4 * digit)) as usize & 15]);
    }
    bytes.push(b'\n');
}

const LINE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_their_offset() {
        assert_eq!(&block(0, 40)[..], b"000000000000000\n000000000000010\n00000000");
        assert_eq!(&block(0xabc0, 16)[..], b"00000000000abc0\n");
        assert_eq!(block(5, 0).len(), 0);
    }

    #[test]
    fn any_cut_gives_the_same_bytes() {
        let whole = block(0, 200);
        for cut in 0..200 {
            let joined = [block(0, cut), block(cut as u64, 200 - cut)].concat();
            assert_eq!(whole, joined, "cut at {cut}");
        }
    }
}
