//! The UNDO/REDO FIFO's writer.

use dfly_hammer::crc::Flavor;
use dfly_hammer::ondisk::fifo::{
    FifoHead, FifoTail, HEAD_SIGNATURE, REDO_SYNC, REDO_TERM_TRUNC, REDO_TERM_WRITE, REDO_TRUNC, REDO_WRITE,
    RedoHead, SECTOR, TAIL_SIGNATURE, TYPE_DUMMY, TYPE_PAD, TYPE_REDO, TYPE_UNDO, UndoHead,
};
use dfly_hammer::ondisk::{BUFFER_SIZE, Offset, VERSION_FIFO_SEQ, Zone};
use zerocopy::IntoBytes;

use crate::image::Image;
use crate::objects::Object;
use crate::{Error, Result};

const HEAD: usize = size_of::<FifoHead>();
const TAIL: usize = size_of::<FifoTail>();

/// Flips a bit of the sequence number, so that preformatted sectors never continue a sequence by chance.
const PREFORMAT: u32 = 0x4000_0000;

/// What stays free: stepping into a buffer clears all of it, and a full FIFO would look like an empty one.
const SPARE: u64 = BUFFER_SIZE as u64;

/// Appends records to an image's FIFO by the original's rules.
///
/// A journal begins where the image's log ends; nothing of it counts before [`Self::finish`] has told the header.
pub struct Journal<'a> {
    image: &'a mut Image,
    flavor: Flavor,
    size: u64,
    first: u64,
    append: u64,
    seq: u32,
    hint: u64,
    left: u64,
}

/// What the header says about the FIFO's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The truth.
    Exact,
    /// What it said before: from version 4 on the end is found by sequence numbers, whatever the header says.
    Stale,
}

/// A change to a file that was promised but is not in the tree.
#[derive(Clone, Debug)]
pub enum Redo<'a> {
    /// Bytes were written at an offset.
    Write(u64, &'a [u8]),
    /// The file was cut off.
    Truncate(u64),
    /// A write of so many bytes at an offset reached the tree.
    WriteDone(u64, usize),
    /// A truncation reached the tree.
    TruncateDone(u64),
    /// The oldest unfinished record stands at this position of the FIFO.
    Sync(u64),
}

impl Image {
    /// A writer behind the last record of the FIFO.
    pub fn journal(&mut self) -> Result<Journal<'_>> {
        let header = self.header(0)?;
        let map = &header.vol0_blockmap[3];
        let size = Offset(map.alloc_offset.get()).byte();
        let append = Offset(map.next_offset.get()).byte();
        let seq = match self.last_seq_before(append, size)? {
            // In old versions the records do not continue the numbers of the formatting.
            Some((TYPE_DUMMY, _)) if header.vol_version.get() < VERSION_FIFO_SEQ => 0,
            Some((_, seq)) => seq.wrapping_add(1),
            None => return Err(Error::NotThere("record before the FIFO's end")),
        };
        let first = Offset(map.first_offset.get()).byte();
        let used = (append + size - first) % size;
        let flavor = self.flavor()?;
        let left = (size - used).saturating_sub(SPARE);
        Ok(Journal { image: self, flavor, size, first, append, seq, hint: append, left })
    }

    /// Type and sequence number of the last numbered record that ends at or before `append`.
    fn last_seq_before(&self, append: u64, size: u64) -> Result<Option<(u16, u32)>> {
        let end = if append == 0 { size } else { append };
        let sector = (end - 1) / SECTOR * SECTOR;
        let (mut at, mut last) = (sector, None);
        while at < end {
            let head: FifoHead = self.view(Offset::new(Zone::UNDO, 0, at))?;
            if head.signature.get() != HEAD_SIGNATURE || head.size.get() < TAIL as u32 {
                return Ok(None);
            }
            if head.record_type.get() != TYPE_PAD {
                last = Some((head.record_type.get(), head.seq.get()));
            }
            at += u64::from(head.size.get());
        }
        Ok(last)
    }
}

impl Journal<'_> {
    /// The position of the next record, as an address in the FIFO.
    pub fn position(&self) -> Offset {
        Offset::new(Zone::UNDO, 0, self.append)
    }

    /// Makes the next record the first that counts: what was written up to here belongs to the past.
    pub fn begin_here(&mut self) {
        self.first = self.append;
        self.left = self.size - SPARE;
    }

    /// Fills the FIFO up to a sector with harmless records of the past, and begins there.
    pub fn skip_to(&mut self, position: u64) -> Result<()> {
        if !position.is_multiple_of(SECTOR) || position >= self.size {
            return Err(Error::BadOffset(Offset::new(Zone::UNDO, 0, position)));
        }
        // Restoring the first bytes of the freemap to what they are.
        let target = Offset::new(Zone::RAW_BUFFER, 0, 0);
        let frame = HEAD + size_of::<UndoHead>() + TAIL;
        let old = self.image.read(target, SECTOR as usize - frame)?;
        while self.append % self.size != position {
            self.left = self.size;
            match (SECTOR - self.append % SECTOR) as usize {
                room if room > frame => self.undo(target, &old[..room - frame])?,
                room => {
                    self.pad(room)?;
                    self.advance(room)?;
                }
            }
        }
        self.begin_here();
        Ok(())
    }

    /// Logs that `old` stood at `target`, an address of zone 1 or 2 within one buffer.
    pub fn undo(&mut self, target: Offset, old: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < old.len() {
            let room = self.room(HEAD + size_of::<UndoHead>() + TAIL)?;
            let piece = &old[done..old.len().min(done + room)];
            let head = UndoHead {
                undo_offset: (target.0 + done as u64).into(),
                data_bytes: (piece.len() as i32).into(),
                reserved01: 0.into(),
            };
            self.append(TYPE_UNDO, head.as_bytes(), piece)?;
            done += piece.len();
        }
        Ok(())
    }

    /// Logs what stands at `target` and puts `new` there: a change that a crash caught on its way.
    pub fn overwrite(&mut self, target: Offset, new: &[u8]) -> Result<()> {
        let raw = if target.zone() == Zone::RAW_VOLUME { target } else { target.in_zone(Zone::RAW_BUFFER) };
        let old = self.image.read(raw, new.len())?;
        self.undo(raw, &old)?;
        self.image.write(raw, new)
    }

    /// Logs a change to a file, split as the original splits it. Returns the position of its first record.
    pub fn redo(&mut self, file: Object, change: &Redo<'_>) -> Result<Offset> {
        let (flags, offset, covered, payload) = match *change {
            Redo::Write(offset, bytes) => (REDO_WRITE, offset, bytes.len(), bytes),
            Redo::Truncate(size) => (REDO_TRUNC, size, 0, &[][..]),
            Redo::WriteDone(offset, len) => (REDO_TERM_WRITE, offset, len, &[][..]),
            Redo::TruncateDone(size) => (REDO_TERM_TRUNC, size, 0, &[][..]),
            Redo::Sync(position) => (REDO_SYNC, Offset::new(Zone::UNDO, 0, position).0, 0, &[][..]),
        };
        let mut first = None;
        let mut done = 0;
        loop {
            let room = self.room(HEAD + size_of::<RedoHead>() + TAIL)?;
            let piece = &payload[done..payload.len().min(done + room)];
            let head = RedoHead {
                obj_id: file.id.into(),
                offset: (offset + done as u64).into(),
                data_bytes: (if payload.is_empty() { covered } else { piece.len() } as i32).into(),
                flags: flags.into(),
                localization: (u32::from(file.pfs) << 16).into(),
                reserved01: 0.into(),
                reserved02: 0.into(),
            };
            first.get_or_insert(self.position());
            self.append(TYPE_REDO, head.as_bytes(), piece)?;
            done += piece.len();
            if done == payload.len() {
                return Ok(first.unwrap_or(self.position()));
            }
        }
    }

    /// Writes the FIFO's borders to the header.
    pub fn finish(self, hint: Hint) -> Result<()> {
        let mut header = self.image.header(0)?;
        let map = &mut header.vol0_blockmap[3];
        map.first_offset = Offset::new(Zone::UNDO, 0, self.first).0.into();
        let next = if hint == Hint::Exact { self.append } else { self.hint };
        map.next_offset = Offset::new(Zone::UNDO, 0, next).0.into();
        map.entry_crc = self.flavor.of(&map.as_bytes()[..36]).into();
        self.image.put_header(0, &header)
    }

    /// Bytes of payload that fit beside `frame` bytes in this sector, after stepping to one where some do.
    fn room(&mut self, frame: usize) -> Result<usize> {
        loop {
            self.append %= self.size;
            if self.append.is_multiple_of(BUFFER_SIZE as u64) {
                // Nothing of the last round may look like a continuation.
                let sectors = dummies(self.flavor, self.seq ^ PREFORMAT);
                self.image.write(self.position(), &sectors)?;
            }
            let room = (SECTOR - self.append % SECTOR) as usize;
            if room > frame {
                return Ok(room - frame);
            }
            self.pad(room)?;
            self.advance(room)?;
        }
    }

    /// Writes one record, which fits, and a PAD over the rest of its sector.
    fn append(&mut self, record_type: u16, head: &[u8], payload: &[u8]) -> Result<()> {
        let size = HEAD + head.len() + payload.len().next_multiple_of(8) + TAIL;
        let mut body = [head, payload].concat();
        body.resize(size - HEAD - TAIL, 0);
        let bytes = record(self.flavor, record_type, self.seq, &body);
        self.image.write(self.position(), &bytes)?;
        self.seq = self.seq.wrapping_add(1);
        self.advance(size)?;
        if !self.append.is_multiple_of(SECTOR) {
            self.pad((SECTOR - self.append % SECTOR) as usize)?;
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) -> Result<()> {
        self.append += bytes as u64;
        self.left = self.left.checked_sub(bytes as u64).ok_or(Error::FifoFull)?;
        Ok(())
    }

    fn pad(&mut self, size: usize) -> Result<()> {
        let mut bytes = vec![0; size];
        let tail = FifoTail {
            signature: TAIL_SIGNATURE.into(),
            record_type: TYPE_PAD.into(),
            size: (size as u32).into(),
        };
        bytes[size - TAIL..].copy_from_slice(tail.as_bytes());
        // A PAD of 8 bytes is head and tail at once.
        let head = FifoTail { signature: HEAD_SIGNATURE.into(), ..tail };
        bytes[..TAIL].copy_from_slice(head.as_bytes());
        self.image.write(self.position(), &bytes)
    }
}

/// A buffer of empty records, one for each sector, numbered from `seq` on.
pub(crate) fn dummies(flavor: Flavor, seq: u32) -> Vec<u8> {
    let body = [0; SECTOR as usize - HEAD - TAIL];
    let sectors = (BUFFER_SIZE as u64 / SECTOR) as u32;
    (0..sectors).flat_map(|n| record(flavor, TYPE_DUMMY, seq.wrapping_add(n), &body)).collect()
}

fn record(flavor: Flavor, record_type: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    let size = ((HEAD + body.len() + TAIL) as u32).into();
    let mut head = FifoHead {
        signature: HEAD_SIGNATURE.into(),
        record_type: record_type.into(),
        size,
        seq: seq.into(),
        crc: 0.into(),
    };
    let tail = FifoTail { signature: TAIL_SIGNATURE.into(), record_type: record_type.into(), size };
    let behind = [body, tail.as_bytes()].concat();
    head.crc = (flavor.of(&head.as_bytes()[..12]) ^ flavor.of(&behind)).into();
    [head.as_bytes(), &behind].concat()
}
