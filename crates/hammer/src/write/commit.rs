//! Commits: what goes to the disk, and in which order.
//!
//! 1. File data and UNDO records are written.
//! 2. A flush: they are durable, and so is all that the commit before this one wrote.
//! 3. The header is written. It names the end of the group before as the first record that is still needed.
//! 4. The metadata is written, in the order of its addresses.
//!
//! So what a crash leaves is undone back to a commit, never to the middle of one: before 3 is durable, perhaps one group
//! more than after. A [`Settlement`] makes the last group permanent: a flush, a header that needs no record any more,
//! and a flush.

use alloc::vec::Vec;

use dfly_bio::{Frozen, SharedBuf};
use dfly_hal::Wait;
use zerocopy::{FromBytes, IntoBytes};

use super::Engine;
use super::group::{self, Group};
use super::op::FIRST_ALLOCATED;
use crate::error::{Error, Structure};
use crate::media::{Media, Place};
use crate::ondisk::volume::{BlockmapEntry, HEADER_SIZE, VolumeHeader};
use crate::ondisk::{BUFFER_SIZE, Offset, Zone};
use crate::pages::page_memory;

/// Bytes of the FIFO's share that a group leaves free for what cannot be counted beforehand: the operation that
/// fills it, and the header's own record.
pub(super) const UNDO_SLACK_BYTES: u64 = 512 * 1024;

/// Index of the FIFO in the blockmap.
const UNDO_INDEX: usize = Zone::UNDO.0 as usize;

/// A group on its way to the disk. It is independent of the engine: the next group can be filled meanwhile.
pub(crate) struct Commit {
    number: u64,
    pages: group::Pages,
    undo: Vec<(Place, Frozen)>,
    header: Frozen,
    /// Behind the group's last UNDO record.
    end: u64,
}

/// A group that is on the disk.
pub(crate) struct Committed {
    number: u64,
    end: u64,
    data_pages: u64,
    metadata_pages: u64,
}

/// A header that makes all commits permanent.
pub(crate) struct Settlement {
    group: u64,
    header: Frozen,
}

impl Commit {
    /// Brings the group to the disk. May block.
    pub(super) fn write(self, media: &Media, w: &mut dyn Wait) -> Result<Committed, Error> {
        let Self { number, pages, undo, header, end } = self;
        let (data_pages, metadata_pages) = (pages.data.len() as u64, pages.metadata.len() as u64);
        media.write(w, pages.data.into_iter().chain(undo))?;
        media.flush(w)?;
        media.write(w, core::iter::once((Place::Header, header)).chain(pages.metadata))?;
        Ok(Committed { number, end, data_pages, metadata_pages })
    }
}

impl Settlement {
    /// Makes all commits permanent; returns the last one. May block.
    pub(super) fn write(self, media: &Media, w: &mut dyn Wait) -> Result<u64, Error> {
        media.flush(w)?;
        media.write(w, core::iter::once((Place::Header, self.header)))?;
        media.flush(w)?;
        Ok(self.group)
    }
}

impl Engine {
    /// Closes the open group and opens the next one. Nobody reads meanwhile, and the commit before is on the disk. May
    /// block.
    pub(super) fn freeze(&mut self, media: &Media, w: &mut dyn Wait) -> Result<Option<Commit>, Error> {
        self.check()?;
        if self.group.is_empty() {
            return Ok(None);
        }
        let frozen = self.freeze_group(media, w);
        self.halted |= frozen.is_err();
        frozen.map(Some)
    }

    fn freeze_group(&mut self, media: &Media, w: &mut dyn Wait) -> Result<Commit, Error> {
        self.group.seal(media, w)?;
        let next = Group::new(self.group.number + 1, self.figures.next_tid());
        let group = core::mem::replace(&mut self.group, next);
        let number = group.number;
        let from = self.undo.position();
        let pages = group.freeze(media, w, &mut self.undo)?;

        let old = view(&self.header)?.clone();
        let mut new = old.clone();
        self.figures_into(media, &mut new);
        self.undo.log_changes(Offset::new(Zone::RAW_VOLUME, 0, 0), old.as_bytes(), new.as_bytes())?;
        let end = self.undo.position();
        let logged = (end + self.undo.size() - from) % self.undo.size().max(1);
        // Three groups' records must be there at once. Nothing is written yet: an operation was larger than any should be.
        if logged > self.undo.size() / 3 {
            let at = Offset::new(Zone::UNDO, 0, end);
            return Err(Error::corrupt(Structure::Fifo, at, "a group of changes is too large for the FIFO"));
        }
        self.stats.undo_bytes += logged;
        // From here on nothing that changes is logged.
        new.vol0_next_tid = self.figures.last_tid.0.into();
        self.put_header(media, &mut new, self.first, end)?;
        let undo = self.undo.take_buffers()?;
        Ok(Commit { number, pages, undo, header: self.header.freeze(), end })
    }

    /// Takes note of what became of a commit.
    pub(super) fn committed(&mut self, outcome: Result<Committed, Error>) -> Result<(), Error> {
        self.halted |= outcome.is_err();
        let done = outcome?;
        // The flush in it was one for the header of the commit before.
        self.fences.lift(self.settled);
        self.settled = done.number - 1;
        self.first = done.end;
        self.stats.commits += 1;
        self.stats.flushes += 1;
        self.stats.data_pages += done.data_pages;
        self.stats.metadata_pages += done.metadata_pages;
        Ok(())
    }

    /// What is left to do so that no crash undoes a commit. All commits are on the disk.
    pub(super) fn settlement(&mut self, media: &Media) -> Result<Option<Settlement>, Error> {
        self.check()?;
        let group = self.group.number - 1;
        if self.settled == group {
            return Ok(None);
        }
        Ok(Some(Settlement { group, header: self.settled_header(media)? }))
    }

    /// Takes note of what became of it.
    pub(super) fn settled(&mut self, outcome: Result<u64, Error>) -> Result<(), Error> {
        self.halted |= outcome.is_err();
        self.settled = outcome?;
        self.fences.lift(self.settled);
        self.stats.flushes += 2;
        Ok(())
    }

    /// A header that needs no record of the FIFO.
    fn settled_header(&mut self, media: &Media) -> Result<Frozen, Error> {
        let mut header = view(&self.header)?.clone();
        self.put_header(media, &mut header, self.first, self.first)?;
        Ok(self.header.freeze())
    }

    /// After a crash: writes what the UNDO records restore, and then a header that does not need them any more. A crash
    /// in between finds the same records again.
    pub(super) fn write_restored(&mut self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        let mut buffers = media.restored_buffers();
        loop {
            let mut batch: Vec<(Place, Frozen)> = Vec::new();
            for buffer in buffers.by_ref().take(crate::media::BATCH) {
                let page = media.page(w, buffer, Structure::Record)?;
                batch.push((Place::Buffer(buffer), page.freeze()));
            }
            if batch.is_empty() {
                break;
            }
            media.write(w, batch)?;
        }
        media.flush(w)?;
        let header = self.settled_header(media)?;
        media.write(w, core::iter::once((Place::Header, header)))?;
        media.flush(w)
    }

    /// Puts what operations changed into a header.
    fn figures_into(&self, media: &Media, header: &mut VolumeHeader) {
        let figures = &self.figures;
        header.vol0_btree_root = figures.root.0.into();
        header.vol0_stat_freebigblocks = figures.free_big_blocks.into();
        header.vol0_stat_inodes = figures.inodes.into();
        let zones = header.vol0_blockmap.iter_mut().skip(usize::from(FIRST_ALLOCATED));
        for (entry, rotor) in zones.zip(&figures.rotors) {
            entry.next_offset = rotor.0.into();
            sum_entry(media, entry);
        }
    }

    /// Makes `header` the one to be written, with the FIFO's pointers and right checksums.
    fn put_header(
        &mut self,
        media: &Media,
        header: &mut VolumeHeader,
        first: u64,
        next: u64,
    ) -> Result<(), Error> {
        if let Some(entry) = header.vol0_blockmap.get_mut(UNDO_INDEX) {
            entry.first_offset = Offset::new(Zone::UNDO, 0, first).0.into();
            entry.next_offset = Offset::new(Zone::UNDO, 0, next).0.into();
            sum_entry(media, entry);
        }
        let flavor = media.checksum().newest();
        let field = core::mem::offset_of!(VolumeHeader, vol_crc);
        let bytes = header.as_bytes();
        let before = flavor.of(bytes.get(..field).unwrap_or_default());
        let behind = flavor.of(bytes.get(field + 4..HEADER_SIZE).unwrap_or_default());
        header.vol_crc = (before ^ behind).into();
        // The last one may still be under way.
        let mut page = page_memory()?;
        let to = page.get_mut().ok_or(Error::NoMemory)?;
        to.copy_from_slice(&self.header);
        header.write_to_prefix(to).map_err(|_| Error::NoMemory)?;
        self.header = page;
        Ok(())
    }
}

fn sum_entry(media: &Media, entry: &mut BlockmapEntry) {
    let field = core::mem::offset_of!(BlockmapEntry, entry_crc);
    let sum = media.checksum().newest().of(entry.as_bytes().get(..field).unwrap_or_default());
    entry.entry_crc = sum.into();
}

fn view(page: &SharedBuf) -> Result<&VolumeHeader, Error> {
    VolumeHeader::ref_from_prefix(page).map(|(header, _)| header).map_err(|_| Error::NoMemory)
}

/// The buffer around the root volume's header, with what recovery restored in it. May block.
pub(super) fn read_header(media: &Media, w: &mut dyn Wait) -> Result<SharedBuf, Error> {
    let outside = Error::OutOfRange { structure: Structure::VolumeHeader, at: Offset::NONE };
    let root = media.volume(0).ok_or(outside)?;
    let mut page = page_memory()?;
    let bytes = page.get_mut().filter(|b| b.len() == BUFFER_SIZE).ok_or(Error::NoMemory)?;
    dfly_bio::read_at(&*root.device, w, 0, bytes).map_err(|error| Error::Device { volume: 0, error })?;
    media.header().write_to_prefix(bytes).map_err(|_| Error::NoMemory)?;
    Ok(page)
}
