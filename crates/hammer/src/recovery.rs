//! Crash recovery for a read-only mount: the UNDO records of the last flushes are applied in memory.
//!
//! A flush makes the old bytes of everything that it will change in place durable in a FIFO before it changes anything.
//! So a disk that was cut off is put back to a consistent state by writing the old bytes of all records that are still
//! needed, newest first. Here they are kept beside the disk, and every page is patched on its way into the cache; the
//! disk stays as it is. REDO records promise changes that no flush has made yet; a reader does without them.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use dfly_hal::Wait;
use zerocopy::{FromBytes, IntoBytes};

use crate::error::{Error, Structure};
use crate::media::{Media, Page};
use crate::ondisk::fifo::{
    ALIGN, FifoHead, FifoTail, HEAD_SIGNATURE, REDO_SYNC, RedoHead, SECTOR, TAIL_SIGNATURE, TYPE_PAD,
    TYPE_REDO, TYPE_UNDO, UndoHead,
};
use crate::ondisk::volume::{UNDO_BLOCKS, VolumeHeader};
use crate::ondisk::{BIG_BLOCK_SIZE, BUFFER_SIZE, Offset, VERSION_FIFO_SEQ, Zone};

/// Index of the FIFO in the blockmap.
const UNDO_INDEX: usize = 3;

/// What recovery found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The file system was not unmounted: the FIFO holds records that are still needed.
    pub crashed: bool,
    /// UNDO records that were applied, in memory.
    pub undo_records: u64,
    /// Bytes that they restore.
    pub undo_bytes: u64,
    /// REDO records that were passed over: data that programs had synced, but that no flush had made part of the tree.
    pub redo_records: u64,
    /// Whether they would have to be replayed by a writable mount.
    pub redo_pending: bool,
}

/// Old bytes, and where they belong.
#[derive(Default)]
pub(crate) struct Overlay {
    /// By buffer; in the order of the FIFO.
    patches: BTreeMap<Offset, Vec<Patch>>,
    bytes: Vec<u8>,
}

struct Patch {
    in_buffer: u16,
    len: u16,
    /// Position of the bytes in `Overlay::bytes`.
    from: usize,
}

impl Overlay {
    /// Puts the old bytes back into a buffer that was just read. The oldest record of a place counts: it comes last.
    pub(crate) fn restore(&self, buffer: Offset, memory: &mut [u8]) {
        for patch in self.patches.get(&buffer).into_iter().flatten().rev() {
            let (at, len) = (usize::from(patch.in_buffer), usize::from(patch.len));
            if let (Some(to), Some(from)) =
                (memory.get_mut(at..at + len), self.bytes.get(patch.from..patch.from + len))
            {
                to.copy_from_slice(from);
            }
        }
    }

    /// The buffers that it changes.
    pub(crate) fn buffers(&self) -> impl Iterator<Item = Offset> {
        self.patches.keys().copied()
    }

    fn add(&mut self, target: Offset, data: &[u8]) -> Result<(), Error> {
        let no_memory = |_| Error::NoMemory;
        let patch =
            Patch { in_buffer: target.in_buffer() as u16, len: data.len() as u16, from: self.bytes.len() };
        self.bytes.try_reserve(data.len()).map_err(no_memory)?;
        self.bytes.extend_from_slice(data);
        let patches = self.patches.entry(target.buffer()).or_default();
        patches.try_reserve(1).map_err(no_memory)?;
        patches.push(patch);
        Ok(())
    }
}

/// What a look at the FIFO gave.
pub(crate) struct Recovered {
    pub(crate) overlay: Overlay,
    /// The root volume's header with its old bytes back.
    pub(crate) header: VolumeHeader,
    pub(crate) found: Recovery,
    /// Behind the last record: where a writer goes on.
    pub(crate) end: u64,
    /// The number that a writer goes on with; `None` before version 4.
    pub(crate) next_seq: Option<u32>,
}

/// Finds the records that are still needed, and what they restore. Blocks; changes nothing on the disk.
pub(crate) fn recover(media: &Media, w: &mut dyn Wait) -> Result<Recovered, Error> {
    let fifo = Fifo::open(media)?;
    let mut found = Recovery::default();
    let mut overlay = Overlay::default();
    let mut end = fifo.first;
    let mut scan = fifo.scan(w)?;
    while let Some(record) = scan.next(w)? {
        end = scan.position;
        match record.head().record_type.get() {
            TYPE_UNDO => {
                let (target, data) = record.undo(media)?;
                overlay.add(target, data)?;
                found.undo_records += 1;
                found.undo_bytes += data.len() as u64;
            }
            TYPE_REDO => {
                found.redo_records += 1;
                found.redo_pending |= record.redo()?.flags.get() & REDO_SYNC != 0;
            }
            // Fillers, and what no version writes: the checksum was right, so it counts in the sequence.
            _ => {}
        }
    }
    found.crashed = end != fifo.first;
    let next_seq = scan.next_seq;

    let mut header = media.header().clone();
    let mut buffer = alloc::vec![0; BUFFER_SIZE];
    header.write_to_prefix(&mut buffer).map_err(|_| Error::NoMemory)?;
    overlay.restore(Offset::new(Zone::RAW_VOLUME, 0, 0), &mut buffer);
    header = VolumeHeader::read_from_prefix(&buffer).map_err(|_| Error::NoMemory)?.0;
    // The blockmap was restored with the FIFO's own pointers in it.
    if let Some(map) = header.vol0_blockmap.get_mut(UNDO_INDEX) {
        map.first_offset = Offset::new(Zone::UNDO, 0, fifo.first).0.into();
        map.next_offset = Offset::new(Zone::UNDO, 0, end).0.into();
    }
    Ok(Recovered { overlay, header, found, end, next_seq })
}

/// The FIFO of a file system: a ring of bytes in big-blocks.
struct Fifo<'m> {
    media: &'m Media,
    size: u64,
    first: u64,
    next: u64,
}

impl<'m> Fifo<'m> {
    fn open(media: &'m Media) -> Result<Self, Error> {
        let map = media.header().vol0_blockmap.get(UNDO_INDEX);
        let [first, next, alloc] = map
            .map_or([0; 3], |m| [m.first_offset.get(), m.next_offset.get(), m.alloc_offset.get()])
            .map(Offset);
        let wrong = |what, at| Error::corrupt(Structure::Fifo, at, what);
        let size = alloc.long();
        if alloc.zone() != Zone::UNDO
            || size == 0
            || !size.is_multiple_of(BIG_BLOCK_SIZE)
            || size > UNDO_BLOCKS as u64 * BIG_BLOCK_SIZE
        {
            return Err(wrong("the FIFO's size is impossible", alloc));
        }
        for (pointer, what) in
            [(first, "first record lies outside of the FIFO"), (next, "end lies outside of the FIFO")]
        {
            if pointer.zone() != Zone::UNDO || pointer.long() > size || !pointer.0.is_multiple_of(ALIGN) {
                return Err(wrong(what, pointer));
            }
        }
        Ok(Self { media, size, first: first.long() % size, next: next.long() % size })
    }

    fn at(&self, position: u64) -> Offset {
        Offset::new(Zone::UNDO, 0, position)
    }

    /// The page that holds `position`.
    fn page(&self, w: &mut dyn Wait, position: u64) -> Result<Page, Error> {
        let block = usize::try_from(position / BIG_BLOCK_SIZE).unwrap_or(UNDO_BLOCKS);
        let start = self.media.header().vol0_undo_array.get(block).map_or(0, |o| o.get());
        let at = Offset(start);
        if at.zone() != Zone::RAW_BUFFER || at.in_big_block() != 0 {
            return Err(Error::OutOfRange { structure: Structure::Fifo, at: self.at(position) });
        }
        let at = at
            .checked_add(position % BIG_BLOCK_SIZE)
            .ok_or(Error::OutOfRange { structure: Structure::Fifo, at })?;
        self.media.page(w, at, Structure::Fifo)
    }

    fn has_sequence(&self) -> bool {
        self.media.header().vol_version.get() >= VERSION_FIFO_SEQ
    }

    /// All records that are still needed, oldest first.
    fn scan(&self, w: &mut dyn Wait) -> Result<Scan<'_, 'm>, Error> {
        let next_seq = if self.has_sequence() {
            Some(self.sequence_before(w, self.first)?.wrapping_add(1))
        } else {
            None
        };
        Ok(Scan { fifo: self, page: None, position: self.first, next_seq, left: self.size })
    }

    /// The sequence number of the last record before `position`, behind which padding may lie. Records do not cross
    /// sectors, and each sector begins with a record that has a number, so one sector's worth of steps suffices.
    fn sequence_before(&self, w: &mut dyn Wait, position: u64) -> Result<u32, Error> {
        let mut position = if position == 0 { self.size } else { position };
        for _ in 0..=SECTOR / ALIGN {
            let end = self.at(position);
            let wrong = |what| Error::corrupt(Structure::Fifo, end, what);
            let tail_at = position - ALIGN;
            let page = self.page(w, tail_at)?;
            let in_page = (tail_at % BUFFER_SIZE as u64) as usize;
            let (tail, _) = page
                .bytes()
                .get(in_page..)
                .and_then(|b| FifoTail::read_from_prefix(b).ok())
                .ok_or(wrong("a record's tail lies outside of its buffer"))?;
            let size = u64::from(tail.size.get());
            // The eight bytes of the smallest padding are head and tail in one.
            let pad_of_8 = tail.signature.get() == HEAD_SIGNATURE && tail.record_type.get() == TYPE_PAD;
            if tail.signature.get() != TAIL_SIGNATURE && !pad_of_8 {
                return Err(wrong("the record before has no tail"));
            }
            if size < ALIGN || !size.is_multiple_of(ALIGN) || size > tail_at % BUFFER_SIZE as u64 + ALIGN {
                return Err(wrong("the record before has an impossible size"));
            }
            position -= size;
            let record = Record::parse(self, page, position)?;
            if record.head().record_type.get() != TYPE_PAD {
                return Ok(record.head().seq.get());
            }
            if position.is_multiple_of(SECTOR) {
                return Err(wrong("a sector begins with padding"));
            }
        }
        Err(Error::corrupt(Structure::Fifo, self.at(position), "no record before the first one"))
    }
}

/// Hands out what is wrong with the records of the whole FIFO, needed or not. A sector that cannot be understood is
/// skipped. May block.
pub(crate) fn survey(media: &Media, w: &mut dyn Wait, out: &mut dyn FnMut(Error)) {
    let fifo = match Fifo::open(media) {
        Ok(fifo) => fifo,
        Err(e) => return out(e),
    };
    let mut position = 0;
    while position < fifo.size {
        let record = fifo.page(w, position).map(|page| Record::parse(&fifo, page, position));
        // Before version 4 records do not keep to sectors.
        let step = match (&record, fifo.has_sequence()) {
            (Ok(_), true) => SECTOR,
            _ => BUFFER_SIZE as u64,
        };
        match record.and_then(|r| r) {
            Ok(record) => position += record.size as u64,
            Err(e) => {
                out(e);
                position = (position + 1).next_multiple_of(step);
            }
        }
    }
}

struct Scan<'f, 'm> {
    fifo: &'f Fifo<'m>,
    page: Option<(u64, Page)>,
    /// Behind the record that was returned last.
    position: u64,
    /// What the next record must carry; `None` before version 4, when the header tells the end.
    next_seq: Option<u32>,
    /// Bytes until the scan has been round.
    left: u64,
}

impl<'m> Scan<'_, 'm> {
    fn next(&mut self, w: &mut dyn Wait) -> Result<Option<Record>, Error> {
        let mut position = self.position;
        let mut left = self.left;
        loop {
            if left == 0 || (self.next_seq.is_none() && position == self.fifo.next) {
                return Ok(None);
            }
            let number = position / BUFFER_SIZE as u64;
            let page = match self.page.take() {
                Some((n, page)) if n == number => page,
                _ => self.fifo.page(w, position)?,
            };
            let record = Record::parse(self.fifo, page, position)?;
            let size = record.size as u64;
            left = left.saturating_sub(size);
            position = (position + size) % self.fifo.size;
            if record.head().record_type.get() == TYPE_PAD {
                self.page = Some((number, record.page));
                continue;
            }
            if let Some(expected) = &mut self.next_seq {
                if record.head().seq.get() != *expected {
                    return Ok(None);
                }
                *expected = expected.wrapping_add(1);
            }
            (self.position, self.left) = (position, left);
            return Ok(Some(record));
        }
    }
}

/// A record that was checked, in its page.
struct Record {
    page: Page,
    at: Offset,
    start: usize,
    size: usize,
    head: FifoHead,
}

impl Record {
    /// Checks the record at `position`: signatures, sizes, checksum.
    fn parse(fifo: &Fifo<'_>, page: Page, position: u64) -> Result<Self, Error> {
        let at = fifo.at(position);
        let wrong = |what| Error::corrupt(Structure::Fifo, at, what);
        let start = (position % BUFFER_SIZE as u64) as usize;
        let rest = page.bytes().get(start..).unwrap_or_default();
        // The smallest padding is shorter than a head: look at its first eight bytes only.
        let (short, _) =
            FifoTail::read_from_prefix(rest).map_err(|_| wrong("record lies outside of its buffer"))?;
        if short.signature.get() != HEAD_SIGNATURE {
            return Err(wrong("record has no signature"));
        }
        let record_type = short.record_type.get();
        let smallest = if record_type == TYPE_PAD {
            size_of::<FifoTail>()
        } else {
            size_of::<FifoHead>() + size_of::<FifoTail>()
        };
        let size = usize::try_from(short.size.get()).unwrap_or(usize::MAX);
        let bytes = rest.get(..size).ok_or(wrong("record reaches out of its buffer"))?;
        if size < smallest || !size.is_multiple_of(ALIGN as usize) {
            return Err(wrong("record has an impossible size"));
        }
        if fifo.has_sequence() && position % SECTOR + size as u64 > SECTOR {
            return Err(wrong("record crosses a sector"));
        }
        if size > smallest || record_type != TYPE_PAD {
            let (_, tail) = FifoTail::read_from_suffix(bytes).map_err(|_| wrong("record has no tail"))?;
            if (tail.signature.get(), tail.record_type.get(), tail.size.get())
                != (TAIL_SIGNATURE, record_type, short.size.get())
            {
                return Err(wrong("record's tail does not match its head"));
            }
        }
        let mut head = FifoHead {
            signature: short.signature,
            record_type: short.record_type,
            size: short.size,
            seq: 0.into(),
            crc: 0.into(),
        };
        if record_type != TYPE_PAD {
            head = FifoHead::read_from_prefix(bytes).map_err(|_| wrong("record has no head"))?.0;
            let (before, after) = (bytes.get(..12).unwrap_or_default(), bytes.get(16..).unwrap_or_default());
            let stored = head.crc.get();
            fifo.media
                .checksum()
                .matching(stored, |flavor| flavor.of(before) ^ flavor.of(after))
                .ok_or(Error::Checksum { structure: Structure::Fifo, at, stored })?;
        }
        Ok(Self { page, at, start, size, head })
    }

    fn head(&self) -> &FifoHead {
        &self.head
    }

    /// The bytes between head and tail.
    fn body(&self) -> &[u8] {
        let end = self.start + self.size - size_of::<FifoTail>();
        self.page.bytes().get(self.start + size_of::<FifoHead>()..end).unwrap_or_default()
    }

    /// Where the old bytes belong, and the bytes.
    fn undo(&self, media: &Media) -> Result<(Offset, &[u8]), Error> {
        let wrong = |what| Error::corrupt(Structure::Fifo, self.at, what);
        let (undo, rest) =
            UndoHead::ref_from_prefix(self.body()).map_err(|_| wrong("UNDO record is too short"))?;
        let target = Offset(undo.undo_offset.get());
        let len =
            usize::try_from(undo.data_bytes.get()).map_err(|_| wrong("UNDO record has a negative length"))?;
        let data = rest.get(..len).ok_or(wrong("UNDO record is shorter than its data"))?;
        if target.in_buffer() + len > BUFFER_SIZE {
            return Err(wrong("UNDO record crosses a buffer"));
        }
        match target.zone() {
            Zone::RAW_VOLUME
                if target.byte() < BUFFER_SIZE as u64 && media.volume(target.volume()).is_some() => {}
            Zone::RAW_BUFFER => {
                media.buffer(target, Structure::Fifo)?;
            }
            _ => return Err(wrong("UNDO record leads out of the file system")),
        }
        Ok((target, data))
    }

    fn redo(&self) -> Result<&RedoHead, Error> {
        RedoHead::ref_from_prefix(self.body())
            .map(|(redo, _)| redo)
            .map_err(|_| Error::corrupt(Structure::Fifo, self.at, "REDO record is too short"))
    }
}
