//! Bounds on one message head.

/// How large a head may get before it is refused. The defaults are the ones of the site file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head, first line and the empty line at its end included; counted as they arrive.
    pub bytes: usize,
    /// Field lines.
    pub fields: usize,
    /// Bytes of the request target.
    pub target: usize,
}

impl HeadLimits {
    /// The part of `buffer` a head may take, and whether there can be no more of it.
    #[inline]
    pub(crate) fn window<'b>(&self, buffer: &'b [u8]) -> (&'b [u8], bool) {
        // Ranges hold 32 bits; no head comes near.
        let limit = self.bytes.min(u32::MAX as usize);
        (&buffer[..buffer.len().min(limit)], buffer.len() >= limit)
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { bytes: 32 * 1024, fields: 100, target: 8 * 1024 }
    }
}
