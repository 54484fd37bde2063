//! What the targets share: drawing structured input from the bytes that libFuzzer makes up.
//!
//! Invariant: once the bytes are used up everything is drawn as zero or empty, so that whatever draws in a loop comes to its end.

/// Bytes that decide what is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Draws<'d>(pub &'d [u8]);

impl<'d> Draws<'d> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    /// Below `end`, which is 256 at most.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    /// Once in so many times; never once the bytes are used up.
    pub fn once_in(&mut self, times: usize) -> bool {
        !self.0.is_empty() && self.below(times) == times - 1
    }

    pub fn number<const BYTES: usize>(&mut self) -> [u8; BYTES] {
        std::array::from_fn(|_| self.byte())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.number())
    }

    pub fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.number())
    }

    /// Up to `most` bytes, 255 at most.
    pub fn bytes(&mut self, most: usize) -> &'d [u8] {
        let length = self.below(most + 1).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// A text of up to `most` bytes; what is not UTF-8 of them stands for nothing.
    pub fn text(&mut self, most: usize) -> &'d str {
        std::str::from_utf8(self.bytes(most)).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
