//! What a file holds.

use std::ops::Range;
use std::sync::Arc;

use dfly_hammer::ondisk::{BLOCK_DEMARC, LARGE_BLOCK, SMALL_BLOCK};

use crate::record::{Data, Source};

/// Files up to this size are one short record.
const SHORT_FILE: u64 = 8192;

/// The content of a file: a size, and ranges that hold data. All else is holes.
#[derive(Clone, Default)]
pub struct Content {
    size: u64,
    parts: Vec<(Range<u64>, Source)>,
}

impl Content {
    /// A file of `size` bytes that is one hole.
    pub fn hole(size: u64) -> Self {
        Self { size, parts: Vec::new() }
    }

    /// These bytes.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::hole(bytes.len() as u64).with_bytes(0, bytes)
    }

    /// `size` bytes that `fill` makes: it gets the offset in the file, and the buffer to fill.
    pub fn made(size: u64, fill: impl Fn(u64, &mut [u8]) + Send + Sync + 'static) -> Self {
        Self::try_made(size, move |offset, buf| {
            fill(offset, buf);
            Ok(())
        })
    }

    /// As [`Self::made`], from a source that can fail. The error comes from [`Builder::finish`](crate::Builder::finish).
    pub fn try_made(
        size: u64,
        fill: impl Fn(u64, &mut [u8]) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { size, parts: vec![(0..size, Arc::new(fill))] }
    }

    /// `size` bytes in which each 8-byte word tells its offset and `seed`: any misplaced byte shows.
    pub fn pattern(seed: u64, size: u64) -> Self {
        Self::made(size, move |offset, buf| {
            for (at, byte) in (offset..).zip(buf) {
                let word = (at / 8).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed;
                *byte = word.to_le_bytes()[(at % 8) as usize];
            }
        })
    }

    /// Puts data at `offset`, over what earlier parts say. Extends the file if needed.
    #[must_use]
    pub fn with_bytes(self, offset: u64, bytes: impl Into<Vec<u8>>) -> Self {
        let bytes: Vec<u8> = bytes.into();
        let range = offset..offset.saturating_add(bytes.len() as u64);
        self.with(range, move |at, buf| {
            let from = (at - offset) as usize;
            buf.copy_from_slice(&bytes[from..from + buf.len()]);
        })
    }

    /// Lets `fill` make the data of `range`, over what earlier parts say. Extends the file if needed.
    #[must_use]
    pub fn with(mut self, range: Range<u64>, fill: impl Fn(u64, &mut [u8]) + Send + Sync + 'static) -> Self {
        self.size = self.size.max(range.end);
        self.parts.push((
            range,
            Arc::new(move |offset, buf: &mut [u8]| {
                fill(offset, buf);
                Ok(())
            }),
        ));
        self
    }

    /// Its size, in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The records that hold it: the file offset behind each, and its data.
    pub(crate) fn blocks(&self) -> Vec<(u64, Data)> {
        let mut starts: Vec<u64> = Vec::new();
        for (range, _) in &self.parts {
            let mut at = range.start;
            while at < range.end.min(self.size) {
                let block = block_at(at, self.size);
                starts.push(block.start);
                at = block.end;
            }
        }
        starts.sort_unstable();
        starts.dedup();
        starts.into_iter().map(|start| self.block(block_at(start, self.size))).collect()
    }

    fn block(&self, block: Range<u64>) -> (u64, Data) {
        let filled = block.start..block.end.min(self.size);
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|(range, source)| (range.start.max(filled.start)..range.end.min(filled.end), source.clone()))
            .filter(|(range, _)| !range.is_empty())
            .collect();
        let source: Source = Arc::new(move |offset, buf| {
            parts.iter().try_for_each(|(range, source)| {
                let within = (range.start - offset) as usize..(range.end - offset) as usize;
                source(range.start, &mut buf[within])
            })
        });
        let len = (block.end - block.start) as usize;
        (block.end, Data::made(source, block.start, (filled.end - filled.start) as usize, len))
    }
}

/// The record that holds byte `at` of a file of `size` bytes.
pub(crate) fn block_at(at: u64, size: u64) -> Range<u64> {
    if size <= SHORT_FILE && at < SHORT_FILE {
        return 0..size.max(1).next_multiple_of(16);
    }
    let unit = if at < BLOCK_DEMARC { SMALL_BLOCK } else { LARGE_BLOCK };
    let start = at - at % unit;
    start..start.saturating_add(unit)
}
