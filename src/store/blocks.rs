//! Bytes on their way to the disk in whole blocks, as direct I/O wants them: their number, their place in the
//! file and their address in memory are multiples of [`BLOCK_SIZE`].

/// What direct I/O counts in. Disks have blocks of 512 or 4096 bytes.
pub(super) const BLOCK_SIZE: usize = 4096;

/// A buffer whose first byte is at a multiple of [`BLOCK_SIZE`] in memory.
#[derive(Default)]
pub(super) struct Blocks {
    /// With unused bytes before the first one.
    bytes: Vec<u8>,
    start: usize,
}

impl Blocks {
    /// So many zeros.
    pub(super) fn zeros(size: usize) -> Blocks {
        let mut blocks = Blocks::default();
        blocks.reserve(size).resize(size, 0);
        blocks.pad();
        blocks
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// To append at most so many bytes to.
    pub(super) fn reserve(&mut self, additional: usize) -> &mut Vec<u8> {
        let size = (self.len() + additional).next_multiple_of(BLOCK_SIZE);
        if self.bytes.capacity() - self.start < size {
            self.move_to(Vec::with_capacity(size + BLOCK_SIZE));
        }
        &mut self.bytes
    }

    /// Appends zeros up to the end of a block.
    pub(super) fn pad(&mut self) {
        let size = self.len().next_multiple_of(BLOCK_SIZE);
        self.reserve(size - self.len());
        self.bytes.resize(self.start + size, 0);
        if self.bytes.as_ptr().align_offset(BLOCK_SIZE) != self.start % BLOCK_SIZE {
            // More was appended than was reserved.
            self.move_to(Vec::with_capacity(size + BLOCK_SIZE));
        }
    }

    /// Keeps these bytes only, as the first ones.
    pub(super) fn keep(&mut self, range: std::ops::Range<usize>) {
        self.bytes.copy_within(self.start + range.start..self.start + range.end, self.start);
        self.bytes.truncate(self.start + range.len());
    }

    fn move_to(&mut self, mut bytes: Vec<u8>) {
        let start = bytes.as_ptr().align_offset(BLOCK_SIZE);
        bytes.resize(start, 0);
        bytes.extend_from_slice(self.as_slice());
        (self.bytes, self.start) = (bytes, start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_aligned(blocks: &Blocks) -> bool {
        blocks.as_slice().as_ptr().align_offset(BLOCK_SIZE) == 0
    }

    #[test]
    fn blocks_stay_aligned_however_they_grow() {
        let mut blocks = Blocks::default();
        let mut expected = Vec::new();
        for size in [1, 4095, 4096, 4097, 100_000, 0] {
            let bytes = vec![size as u8; size];
            blocks.reserve(size).extend_from_slice(&bytes);
            expected.extend_from_slice(&bytes);
            assert!(is_aligned(&blocks));
            assert_eq!(blocks.as_slice(), expected);
        }
        blocks.pad();
        expected.resize(expected.len().next_multiple_of(BLOCK_SIZE), 0);
        assert_eq!(blocks.as_slice(), expected);
        blocks.keep(4096..5000);
        assert_eq!(blocks.as_slice(), &expected[4096..5000]);
        assert!(is_aligned(&blocks));
    }

    #[test]
    fn blocks_are_aligned_even_if_more_was_appended_than_reserved() {
        for size in [1, BLOCK_SIZE, 3 * BLOCK_SIZE, 1 << 20] {
            let mut blocks = Blocks::default();
            blocks.reserve(0).resize(size, 7);
            blocks.pad();
            assert!(is_aligned(&blocks) && blocks.len().is_multiple_of(BLOCK_SIZE));
            assert!(blocks.as_slice()[..size].iter().all(|byte| *byte == 7), "{size}");
        }
    }
}
