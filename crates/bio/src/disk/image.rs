//! [`Image`]: the bytes of a disk, sparse, and cheap to copy.

use alloc::collections::BTreeMap;

use crate::{AllocError, Buf, SharedBuf};

/// Bytes of a chunk; a power of two, and a multiple of every block size in use.
const CHUNK: usize = 64 << 10;

/// The bytes of a disk. What was never written is zero and takes no memory.
///
/// A clone shares the chunks until one side writes to them, so a test can keep a thousand states of a disk. Every
/// offset is in bytes; what reaches beyond the image is cut off, so check ranges before.
#[derive(Clone, Debug, Default)]
pub struct Image {
    chunks: BTreeMap<u64, SharedBuf>,
    len: u64,
}

impl Image {
    /// `len` zero bytes.
    pub const fn new(len: u64) -> Self {
        Self { chunks: BTreeMap::new(), len }
    }

    /// The bytes of `from`, in chunks of its own.
    pub fn from_bytes(from: &[u8]) -> Result<Self, AllocError> {
        let mut image = Self::new(from.len() as u64);
        image.write(0, from)?;
        Ok(image)
    }

    /// Bytes in it.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that it takes, those that it shares with clones included.
    pub fn resident_bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK as u64
    }

    /// Copies the bytes from `at` on into `to`.
    pub fn read(&self, at: u64, to: &mut [u8]) {
        let mut rest = to;
        for part in parts(at, rest.len() as u64, self.len) {
            let (now, later) = rest.split_at_mut(part.len);
            match self.chunks.get(&part.chunk).and_then(|c| c.get(part.start..part.start + part.len)) {
                Some(bytes) => now.copy_from_slice(bytes),
                None => now.fill(0),
            }
            rest = later;
        }
    }

    /// Writes `from` at `at`.
    ///
    /// # Errors
    /// No memory for a chunk; the chunks before it are written.
    pub fn write(&mut self, at: u64, from: &[u8]) -> Result<(), AllocError> {
        let mut rest = from;
        for part in parts(at, rest.len() as u64, self.len) {
            let (now, later) = rest.split_at(part.len);
            if let Some(bytes) = self.chunk_mut(part.chunk)?.get_mut(part.start..part.start + part.len) {
                bytes.copy_from_slice(now);
            }
            rest = later;
        }
        Ok(())
    }

    /// Makes `len` bytes from `at` on zero, and gives the memory of whole chunks back.
    ///
    /// # Errors
    /// No memory for a chunk of its own, where one is shared with a clone.
    pub fn zero(&mut self, at: u64, len: u64) -> Result<(), AllocError> {
        let end = at.saturating_add(len).min(self.len);
        // Only chunks that exist: a range may be far longer than what was ever written.
        let mut from = at / CHUNK as u64;
        while let Some((&number, _)) = self.chunks.range(from..).next() {
            let begin = number.saturating_mul(CHUNK as u64);
            if begin >= end {
                break;
            }
            let (lo, hi) = (at.saturating_sub(begin), (end - begin).min(CHUNK as u64));
            if lo == 0 && hi == CHUNK as u64 {
                self.chunks.remove(&number);
            } else if let Some(bytes) = self.chunk_mut(number)?.get_mut(lo as usize..hi as usize) {
                bytes.fill(0);
            }
            from = number + 1;
        }
        Ok(())
    }

    /// The bytes of a chunk, made now if it has none, and its own if it shared them.
    fn chunk_mut(&mut self, number: u64) -> Result<&mut [u8], AllocError> {
        use alloc::collections::btree_map::Entry;
        let chunk = match self.chunks.entry(number) {
            Entry::Occupied(e) => e.into_mut(),
            Entry::Vacant(e) => e.insert(SharedBuf::alloc(CHUNK, 4096)?),
        };
        if chunk.get_mut().is_none() {
            let mut own = Buf::alloc(CHUNK, 4096)?;
            own.copy_from_slice(chunk);
            *chunk = SharedBuf::new(own)?;
        }
        Ok(chunk.get_mut().unwrap_or_default())
    }
}

impl PartialEq for Image {
    /// Whether they read the same everywhere.
    fn eq(&self, other: &Self) -> bool {
        let zero = |c: &SharedBuf| c.iter().all(|&b| b == 0);
        let same = |a: &Self, b: &Self| {
            a.chunks.iter().all(|(n, mine)| match b.chunks.get(n) {
                Some(theirs) => mine.ptr_eq(theirs) || **mine == **theirs,
                None => zero(mine),
            })
        };
        self.len == other.len && same(self, other) && same(other, self)
    }
}

impl Eq for Image {}

struct InChunk {
    chunk: u64,
    start: usize,
    len: usize,
}

/// The range chunk by chunk, cut off at `end`.
fn parts(at: u64, len: u64, end: u64) -> impl Iterator<Item = InChunk> {
    let stop = at.saturating_add(len).min(end);
    let mut pos = at;
    core::iter::from_fn(move || {
        let left = stop.checked_sub(pos).filter(|&n| n != 0)?;
        let start = (pos % CHUNK as u64) as usize;
        let len = left.min((CHUNK - start) as u64) as usize;
        let part = InChunk { chunk: pos / CHUNK as u64, start, len };
        pos += len as u64;
        Some(part)
    })
}
