//! Commits: what goes to the disk, and in which order.
//!
//! 1. File data and UNDO records are written.
//! 2. A flush: they are durable, and so is all that the commit before this one wrote.
//! 3. The header is written. It names the end of the group before as the first record that is still needed.
//! 4. The metadata is written, in the order of its addresses.
//!
//! So what a crash leaves is undone back to a commit, never to the middle of one: before 3 is durable, perhaps one group
//! more than after. [`Engine::settle`] makes the last group permanent: a flush, a header that needs no record any more,
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

impl Engine {
    /// Makes the open group part of what a crash leaves, though perhaps undone (see [`Self::settle`]). May block.
    pub(crate) fn commit(&mut self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        if self.halted {
            return Err(Error::Halted);
        }
        if self.group.is_empty() {
            return Ok(());
        }
        let done = self.freeze(media, w).and_then(|commit| self.write_out(media, w, commit));
        self.halted |= done.is_err();
        done
    }

    /// Makes everything that was done durable for good. May block.
    pub(crate) fn sync(&mut self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        self.commit(media, w)?;
        if self.settled < self.group.number - 1 {
            let done = self.settle(media, w);
            self.halted |= done.is_err();
            done?;
        }
        Ok(())
    }

    /// Closes the open group and opens the next one.
    fn freeze(&mut self, media: &Media, w: &mut dyn Wait) -> Result<Commit, Error> {
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
        self.stats.undo_bytes += (end + self.undo.size() - from) % self.undo.size().max(1);
        // From here on nothing that changes is logged.
        new.vol0_next_tid = self.figures.last_tid.0.into();
        self.put_header(media, &mut new, self.first, end)?;
        let header = self.header.freeze();
        let undo = self.undo.take_buffers()?;
        Ok(Commit { number, pages, undo, header, end })
    }

    /// Brings a group to the disk.
    fn write_out(&mut self, media: &Media, w: &mut dyn Wait, commit: Commit) -> Result<(), Error> {
        let Commit { number, pages, undo, header, end } = commit;
        self.stats.data_pages += pages.data.len() as u64;
        self.stats.metadata_pages += pages.metadata.len() as u64;
        media.write(w, pages.data.into_iter().chain(undo))?;
        media.flush(w)?;
        // The header of the commit before is durable now.
        self.fences.lift(self.settled);
        media.write(w, core::iter::once((Place::Header, header)).chain(pages.metadata))?;
        self.first = end;
        self.settled = number - 1;
        self.stats.flushes += 1;
        self.stats.commits += 1;
        Ok(())
    }

    /// Makes all commits permanent.
    fn settle(&mut self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        media.flush(w)?;
        self.write_settled_header(media, w)?;
        media.flush(w)?;
        self.stats.flushes += 2;
        self.settled = self.group.number - 1;
        self.fences.lift(self.settled);
        Ok(())
    }

    /// Writes a header that needs no record of the FIFO.
    fn write_settled_header(&mut self, media: &Media, w: &mut dyn Wait) -> Result<(), Error> {
        let mut header = view(&self.header)?.clone();
        self.put_header(media, &mut header, self.first, self.first)?;
        let header = self.header.freeze();
        media.write(w, core::iter::once((Place::Header, header)))
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
        self.write_settled_header(media, w)?;
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
