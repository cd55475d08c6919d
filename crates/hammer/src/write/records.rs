//! Records: an element in the tree, and its data elsewhere.

use alloc::vec;
use alloc::vec::Vec;

use dfly_hal::Wait;
use dfly_vfs::FileFlags;

use super::op::Op;
use crate::btree::Scan;
use crate::error::{Error, Structure};
use crate::ondisk::node::{BaseElement, Element, Key, LeafTail, TYPE_RECORD, Tid};
use crate::ondisk::record::{InodeData, RecType};
use crate::ondisk::{BUFFER_SIZE, Offset, SMALL_BLOCK, Zone};
use crate::record::Extent;

/// Whether what ends stays on the disk, visible as of earlier times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum History {
    Kept,
    Dropped,
}

impl History {
    /// What an object's flags say.
    pub(crate) fn of(inode: &InodeData) -> Self {
        let flags = FileFlags::from_bits_retain(inode.uflags.get());
        if flags.intersects(FileFlags::NOHISTORY) { Self::Dropped } else { Self::Kept }
    }
}

impl Op<'_, '_> {
    /// The live records with keys from `begin` to `end`, both included, at most `most`; in order. May block.
    pub(crate) fn live(
        &self,
        w: &mut dyn Wait,
        begin: &Key,
        end: &Key,
        most: usize,
    ) -> Result<Vec<Element>, Error> {
        let mut scan = Scan::new(self, w, begin, end, Tid::MAX)?;
        let mut found = Vec::new();
        while found.len() < most
            && let Some(e) = scan.next(w)?
        {
            found.push(e);
        }
        Ok(found)
    }

    /// The live record with this key, if there is one. May block.
    pub(crate) fn find(&self, w: &mut dyn Wait, key: &Key) -> Result<Option<Element>, Error> {
        crate::btree::lookup(self, w, key, Tid::MAX)
    }

    /// A record's data, checked. May block.
    pub(crate) fn data(&self, w: &mut dyn Wait, e: &Element) -> Result<Vec<u8>, Error> {
        let Extent { at, len, .. } = Extent::of(e)?;
        let mut data = vec![0; len];
        let outside = Error::OutOfRange { structure: Structure::Record, at };
        for (offset, part) in buffers_of(at, len) {
            let from = at.checked_add(offset as u64).ok_or(outside)?;
            self.read_bytes(w, from, data.get_mut(part).ok_or(outside)?)?;
        }
        let stored = e.as_leaf().data_crc.get();
        let covered = covered(e.base.rec_type.get(), &data);
        let found = if len == 0 { Some(()) } else { self.media.checksum().check(stored, covered).map(drop) };
        found.ok_or(Error::Checksum { structure: Structure::Record, at, stored })?;
        Ok(data)
    }

    /// Adds a record, created now. May block.
    pub(crate) fn put(
        &mut self,
        w: &mut dyn Wait,
        key: &Key,
        obj_type: u8,
        data: &[u8],
    ) -> Result<(), Error> {
        let at = self.store(w, RecType(key.rec_type), data)?;
        let base = BaseElement {
            obj_id: key.obj_id.into(),
            key: key.key.into(),
            create_tid: self.tid.0.into(),
            delete_tid: 0.into(),
            rec_type: key.rec_type.into(),
            obj_type,
            btype: TYPE_RECORD,
            localization: key.localization.into(),
        };
        let tail = LeafTail {
            create_ts: self.now_s().into(),
            delete_ts: 0.into(),
            data_offset: at.0.into(),
            data_len: (data.len() as i32).into(),
            data_crc: self.sum(key.rec_type, data).into(),
        };
        self.insert(w, &Element::leaf(base, tail))
    }

    /// Ends a live record. One that the open group made leaves no trace. May block.
    pub(crate) fn end(&mut self, w: &mut dyn Wait, e: &Element, history: History) -> Result<(), Error> {
        let key = e.base.key();
        let is_new = key.create_tid == self.tid;
        if !is_new {
            let (tid, now_s) = (self.tid, self.now_s());
            self.update(w, &key, |e| {
                e.base.delete_tid = tid.0.into();
                e.as_leaf_mut().delete_ts = now_s.into();
            })?;
        }
        if is_new || history == History::Dropped {
            let Extent { at, len, .. } = Extent::of(e)?;
            self.remove(w, &key)?;
            if len > 0 {
                self.free(w, at, len)?;
            }
        }
        Ok(())
    }

    /// Puts a new version of a live record in its place. May block.
    pub(crate) fn replace(
        &mut self,
        w: &mut dyn Wait,
        e: &Element,
        data: &[u8],
        history: History,
    ) -> Result<(), Error> {
        let key = e.base.key();
        let Extent { at, len, .. } = Extent::of(e)?;
        if key.create_tid != self.tid || len != data.len() {
            // First the new, then the old, so that no big-block is empty in between.
            self.end_after(w, e, history, |op, w| op.put(w, &key, e.base.obj_type, data))
        } else {
            self.overwrite(w, at, data)?;
            let sum = self.sum(key.rec_type, data);
            self.update(w, &key, |e| e.as_leaf_mut().data_crc = sum.into())
        }
    }

    /// Ends a record after something else was put, which may have the same key.
    fn end_after(
        &mut self,
        w: &mut dyn Wait,
        e: &Element,
        history: History,
        put: impl FnOnce(&mut Self, &mut dyn Wait) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if e.base.create_tid.get() != self.tid.0 {
            put(self, w)?;
            return self.end(w, e, history);
        }
        // Both would have the same key: the old one leaves the tree first, its space later.
        let Extent { at, len, .. } = Extent::of(e)?;
        self.remove(w, &e.base.key())?;
        put(self, w)?;
        if len > 0 {
            self.free(w, at, len)?;
        }
        Ok(())
    }

    /// Allocates space for `data` and puts it there. May block.
    fn store(&mut self, w: &mut dyn Wait, rec_type: RecType, data: &[u8]) -> Result<Offset, Error> {
        if data.is_empty() {
            return Ok(Offset::NONE);
        }
        let zone = match rec_type {
            RecType::DATA | RecType::DB if data.len() as u64 >= SMALL_BLOCK => Zone::LARGE_DATA,
            RecType::DATA | RecType::DB => Zone::SMALL_DATA,
            _ => Zone::META,
        };
        let at = self.allocate(w, zone, data.len())?;
        if zone == Zone::LARGE_DATA && at.in_buffer() == 0 && data.len().is_multiple_of(BUFFER_SIZE) {
            for (i, page) in (0..).zip(data.chunks_exact(BUFFER_SIZE)) {
                let outside = Error::OutOfRange { structure: Structure::Data, at };
                let to = at.checked_add(i * BUFFER_SIZE as u64).ok_or(outside)?;
                self.new_page(to)?.copy_from_slice(page);
            }
            return Ok(at);
        }
        self.overwrite(w, at, data)?;
        Ok(at)
    }

    /// Puts `data` where space was allocated by the open group. May block.
    fn overwrite(&mut self, w: &mut dyn Wait, at: Offset, data: &[u8]) -> Result<(), Error> {
        let outside = Error::OutOfRange { structure: Structure::Record, at };
        for (offset, part) in buffers_of(at, data.len()) {
            let to = at.checked_add(offset as u64).ok_or(outside)?;
            self.write_bytes(w, to, data.get(part).ok_or(outside)?)?;
        }
        Ok(())
    }

    /// The checksum of a record's data.
    fn sum(&self, rec_type: u16, data: &[u8]) -> u32 {
        if data.is_empty() { 0 } else { self.media.checksum().newest().of(covered(rec_type, data)) }
    }
}

/// The bytes that a record's checksum covers.
fn covered(rec_type: u16, data: &[u8]) -> &[u8] {
    let inode = RecType(rec_type) == RecType::INODE;
    data.get(..InodeData::CRC_LEN).filter(|_| inode).unwrap_or(data)
}

/// How `len` bytes at `at` fall into buffers: where each part begins, and which it is.
fn buffers_of(at: Offset, len: usize) -> impl Iterator<Item = (usize, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let n = (BUFFER_SIZE - (at.in_buffer() + done) % BUFFER_SIZE).min(len - done);
        let part = done..done + n;
        done += n;
        (n > 0).then_some((part.start, part))
    })
}
