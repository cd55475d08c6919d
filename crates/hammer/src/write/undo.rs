//! The UNDO FIFO, written: the bytes that a group's changes replace.
//!
//! Records are appended to buffers in memory; [`UndoWriter::take_buffers`] hands them out for the device. Each sector of
//! 512 bytes begins with a record that has a sequence number, so the end is found by the first number that does not fit:
//! a fresh buffer is filled with DUMMY records whose numbers never do.

use alloc::vec::Vec;

use dfly_bio::{Frozen, SharedBuf};
use dfly_hal::Wait;
use zerocopy::IntoBytes;

use crate::crc::Flavor;
use crate::error::{Error, Structure};
use crate::media::{Media, Place};
use crate::ondisk::fifo::{
    ALIGN, FifoHead, FifoTail, HEAD_SIGNATURE, SECTOR, TAIL_SIGNATURE, TYPE_DUMMY, TYPE_PAD, TYPE_UNDO,
    UndoHead,
};
use crate::ondisk::{BIG_BLOCK_SIZE, BUFFER_SIZE, Offset, Zone};
use crate::pages::page_memory;

/// Flips the numbers of fillers, so that they continue no sequence.
const FILLER: u32 = 0x4000_0000;

/// Bytes of an UNDO record beside its data.
const OVERHEAD: usize = size_of::<FifoHead>() + size_of::<UndoHead>() + size_of::<FifoTail>();

/// Unchanged bytes between two changes that are cheaper to log than another record.
const GAP: usize = OVERHEAD;

/// The most that [`UndoWriter::log_changes`] appends for changes within `bytes` bytes: all of them, the overhead of a
/// record in each sector, and what is left empty at the end of the first.
pub(crate) const fn worst_case(bytes: usize) -> u64 {
    let payload = SECTOR as usize - OVERHEAD;
    ((bytes.div_ceil(payload) + 2) * SECTOR as usize) as u64
}

/// The writing end of the FIFO.
pub(crate) struct UndoWriter {
    /// Its big-blocks, by position.
    blocks: Vec<Offset>,
    flavor: Flavor,
    /// Where the next record goes.
    append: u64,
    /// The next record's number.
    seq: u32,
    /// The buffer that `append` lies in; none where it is at the start of one.
    buffer: Option<SharedBuf>,
    /// Buffers that are full, and not handed out yet.
    full: Vec<(Offset, SharedBuf)>,
}

impl UndoWriter {
    /// Goes on at position `append` with number `seq`. May block.
    pub(crate) fn open(media: &Media, w: &mut dyn Wait, append: u64, seq: u32) -> Result<Self, Error> {
        let header = media.header();
        let size = header.vol0_blockmap.get(Zone::UNDO.0 as usize).map_or(0, |m| m.alloc_offset.get());
        let count = usize::try_from(Offset(size).long() / BIG_BLOCK_SIZE).unwrap_or(0);
        let blocks: Vec<Offset> =
            header.vol0_undo_array.iter().take(count).map(|o| Offset(o.get())).collect();
        let flavor = media.checksum().newest();
        let mut fifo = Self { blocks, flavor, append: 0, seq, buffer: None, full: Vec::new() };
        fifo.append = append.checked_rem(fifo.size()).ok_or(Error::NoSpace)?;
        if !fifo.append.is_multiple_of(BUFFER_SIZE as u64) {
            let page = media.page(w, fifo.place(fifo.append)?, Structure::Fifo)?;
            let mut buffer = page_memory()?;
            buffer.get_mut().ok_or(Error::NoMemory)?.copy_from_slice(page.bytes());
            fifo.buffer = Some(buffer);
        }
        Ok(fifo)
    }

    /// Bytes of the whole ring.
    pub(crate) fn size(&self) -> u64 {
        self.blocks.len() as u64 * BIG_BLOCK_SIZE
    }

    /// Where the next record goes.
    pub(crate) fn position(&self) -> u64 {
        self.append.checked_rem(self.size()).unwrap_or(0)
    }

    #[cfg(test)]
    /// Bytes that can be appended before the record at `first` is reached.
    pub(crate) fn room_before(&self, first: u64) -> u64 {
        let used = (self.position() + self.size() - first).checked_rem(self.size()).unwrap_or(0);
        self.size() - used
    }

    /// Logs the bytes of `old`, which lie at `at`, where `new` differs. Returns how many bytes of records that made.
    pub(crate) fn log_changes(&mut self, at: Offset, old: &[u8], new: &[u8]) -> Result<u64, Error> {
        let before = self.append;
        for range in changes(old, new) {
            let (start, bytes) = (range.start, old.get(range).unwrap_or_default());
            self.log(at.checked_add(start as u64).ok_or(Error::NoSpace)?, bytes)?;
        }
        Ok((self.append + self.size() - before).checked_rem(self.size()).unwrap_or(0))
    }

    /// The buffers that records were appended to since the last time.
    pub(crate) fn take_buffers(&mut self) -> Result<Vec<(Place, Frozen)>, Error> {
        let mut out: Vec<_> =
            self.full.drain(..).map(|(at, memory)| (Place::Buffer(at), Frozen::from(memory))).collect();
        if let Some(buffer) = &self.buffer {
            // More will be appended while this is under way.
            let mut copy = page_memory()?;
            copy.get_mut().ok_or(Error::NoMemory)?.copy_from_slice(buffer);
            out.push((Place::Buffer(self.place(self.append)?.buffer()), copy.into()));
        }
        Ok(out)
    }

    /// The raw address of a position.
    fn place(&self, position: u64) -> Result<Offset, Error> {
        let outside =
            Error::OutOfRange { structure: Structure::Fifo, at: Offset::new(Zone::UNDO, 0, position) };
        let block = usize::try_from(position / BIG_BLOCK_SIZE).ok().and_then(|b| self.blocks.get(b));
        block.and_then(|b| b.checked_add(position % BIG_BLOCK_SIZE)).ok_or(outside)
    }

    fn log(&mut self, mut at: Offset, mut old: &[u8]) -> Result<(), Error> {
        while !old.is_empty() {
            let room = self.prepare()?;
            let Some(most) = room.checked_sub(OVERHEAD).filter(|n| *n > 0) else {
                self.pad(room)?;
                self.advance(room)?;
                continue;
            };
            let (now, later) = old.split_at(most.min(old.len()));
            let size = now.len().next_multiple_of(ALIGN as usize) + OVERHEAD;
            let undo = UndoHead {
                undo_offset: at.0.into(),
                data_bytes: (now.len() as i32).into(),
                reserved01: 0.into(),
            };
            let seq = self.seq;
            self.seq = seq.wrapping_add(1);
            let flavor = self.flavor;
            let record = self.bytes(size)?;
            seal(record, flavor, TYPE_UNDO, seq, &[undo.as_bytes(), now]);
            self.advance(size)?;
            if size < room {
                self.pad(room - size)?;
            }
            at = at.checked_add(now.len() as u64).ok_or(Error::NoSpace)?;
            old = later;
        }
        Ok(())
    }

    /// Makes sure that there is a buffer at the append position; returns the bytes left in its sector.
    fn prepare(&mut self) -> Result<usize, Error> {
        self.append = self.position();
        if self.buffer.is_none() {
            let mut buffer = page_memory()?;
            let bytes = buffer.get_mut().ok_or(Error::NoMemory)?;
            for (i, sector) in (0u32..).zip(bytes.chunks_exact_mut(SECTOR as usize)) {
                seal(sector, self.flavor, TYPE_DUMMY, (self.seq ^ FILLER).wrapping_add(i), &[]);
            }
            self.buffer = Some(buffer);
        }
        Ok((SECTOR - self.append % SECTOR) as usize)
    }

    /// `len` bytes at the append position.
    fn bytes(&mut self, len: usize) -> Result<&mut [u8], Error> {
        let start = (self.append % BUFFER_SIZE as u64) as usize;
        let buffer = self.buffer.as_mut().and_then(SharedBuf::get_mut);
        buffer.and_then(|b| b.get_mut(start..start + len)).ok_or(Error::NoMemory)
    }

    /// Fills `len` bytes at the append position, a multiple of 8, with padding.
    fn pad(&mut self, len: usize) -> Result<(), Error> {
        let pad = |signature: u16| FifoTail {
            signature: signature.into(),
            record_type: TYPE_PAD.into(),
            size: (len as u32).into(),
        };
        let bytes = self.bytes(len)?;
        bytes.fill(0);
        // The smallest has one signature, the head's, for both ends.
        let _ = pad(TAIL_SIGNATURE).write_to_suffix(bytes);
        let _ = pad(HEAD_SIGNATURE).write_to_prefix(bytes);
        Ok(())
    }

    fn advance(&mut self, bytes: usize) -> Result<(), Error> {
        let start = self.append - self.append % BUFFER_SIZE as u64;
        self.append += bytes as u64;
        if self.append.is_multiple_of(BUFFER_SIZE as u64)
            && let Some(buffer) = self.buffer.take()
        {
            self.full.push((self.place(start)?, buffer));
        }
        Ok(())
    }
}

/// Makes `record` one with this body, zeros behind it, and a right checksum.
fn seal(record: &mut [u8], flavor: Flavor, record_type: u16, seq: u32, body: &[&[u8]]) {
    record.fill(0);
    let size = (record.len() as u32).into();
    let mut head = FifoHead {
        signature: HEAD_SIGNATURE.into(),
        record_type: record_type.into(),
        size,
        seq: seq.into(),
        crc: 0.into(),
    };
    let tail = FifoTail { signature: TAIL_SIGNATURE.into(), record_type: record_type.into(), size };
    let _ = tail.write_to_suffix(record);
    let mut at = size_of::<FifoHead>();
    for part in body {
        if let Some(to) = record.get_mut(at..at + part.len()) {
            to.copy_from_slice(part);
        }
        at += part.len();
    }
    let before = head.as_bytes().get(..12).unwrap_or_default();
    head.crc = (flavor.of(before) ^ flavor.of(record.get(16..).unwrap_or_default())).into();
    let _ = head.write_to_prefix(record);
}

/// The ranges in which two pieces of equal length differ, in words of 8 bytes; those with little between them as one.
fn changes(old: &[u8], new: &[u8]) -> impl Iterator<Item = core::ops::Range<usize>> {
    const WORD: usize = 8;
    let mut words = old.chunks(WORD).zip(new.chunks(WORD)).enumerate();
    let mut pending: Option<core::ops::Range<usize>> = None;
    core::iter::from_fn(move || {
        for (i, _) in words.by_ref().filter(|(_, (a, b))| a != b) {
            let (start, end) = (i * WORD, (i + 1) * WORD);
            match &mut pending {
                Some(run) if start - run.end < GAP => run.end = end,
                _ => {
                    if let Some(done) = pending.replace(start..end) {
                        return Some(done);
                    }
                }
            }
        }
        pending.take()
    })
    .map(|run| run.start..run.end.min(old.len()))
}
