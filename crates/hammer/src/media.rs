//! The volumes of a mounted file system: addresses lead to pages of the cache.

use alloc::sync::Arc;
use alloc::vec::Vec;

use arrayvec::ArrayVec;
use dfly_bio::{Bio, BioError, BioPool, BlockDevice, Frozen, JobList, PendingBio};
use dfly_hal::Wait;
use dfly_hal::sync::atomic::{AtomicU64, Ordering};

use crate::crc::Checksum;
use crate::error::{Error, Structure};
use crate::ondisk::volume::VolumeHeader;
use crate::ondisk::{BUFFER_SIZE, Offset, Zone};
pub(crate) use crate::pages::Page;
use crate::pages::Pages;
use crate::recovery::Overlay;

/// Pages that are asked for at once, at most.
pub(crate) const BATCH: usize = 16;

/// Pages that are written at once, at most.
const WRITE_BATCH: usize = 64;

/// Requests that are kept for reuse: enough for some readers at once.
const POOLED_REQUESTS: usize = 4 * BATCH;

/// A volume: its device, and where on it the addressable space lies.
pub(crate) struct Volume {
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) header: VolumeHeader,
    /// Device offset of byte 0 of the raw-buffer zone.
    pub(crate) buffers_start: u64,
    /// Bytes of the raw-buffer zone.
    pub(crate) buffers_len: u64,
}

/// The volumes, their cache, and what recovery changes about them.
pub(crate) struct Media {
    /// By volume number.
    volumes: Vec<Option<Volume>>,
    header: VolumeHeader,
    /// The root of the tree, which a write moves.
    root: AtomicU64,
    checksum: Checksum,
    overlay: Overlay,
    pages: Pages,
    bios: BioPool,
}

impl Media {
    /// `volumes` by number; volume 0 is there.
    pub(crate) fn new(volumes: Vec<Option<Volume>>, header: VolumeHeader, pages: Pages) -> Self {
        let checksum = Checksum::of_version(header.vol_version.get());
        Self {
            volumes,
            root: AtomicU64::new(header.vol0_btree_root.get()),
            header,
            checksum,
            overlay: Overlay::default(),
            pages,
            bios: BioPool::new(POOLED_REQUESTS),
        }
    }

    /// From now on, reads show what `overlay` restores, and `header` is the root volume's.
    pub(crate) fn recover(&mut self, overlay: Overlay, header: VolumeHeader) {
        self.overlay = overlay;
        self.root = AtomicU64::new(header.vol0_btree_root.get());
        self.header = header;
        self.pages.clear();
    }

    /// The buffers that recovery changes, by raw address; the root volume's header is not among them.
    pub(crate) fn restored_buffers(&self) -> impl Iterator<Item = Offset> {
        self.overlay.buffers().filter(|b| b.zone() == Zone::RAW_BUFFER)
    }

    /// What recovery changes is on the disk now.
    pub(crate) fn restored(&mut self) {
        self.overlay = Overlay::default();
    }

    /// The root volume's header as it was mounted, recovered.
    pub(crate) fn header(&self) -> &VolumeHeader {
        &self.header
    }

    pub(crate) fn volume(&self, number: u8) -> Option<&Volume> {
        self.volumes.get(usize::from(number))?.as_ref()
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = &Volume> {
        self.volumes.iter().flatten()
    }

    pub(crate) fn checksum(&self) -> Checksum {
        self.checksum
    }

    pub(crate) fn btree_root(&self) -> Offset {
        // Relaxed: who changes it keeps readers out meanwhile, by a lock that orders everything.
        Offset(self.root.load(Ordering::Relaxed))
    }

    pub(crate) fn set_btree_root(&self, root: Offset) {
        self.root.store(root.0, Ordering::Relaxed);
    }

    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    pub(crate) fn node_is_verified(&self, page: &Page, at: Offset) -> bool {
        self.pages.node_is_verified(page, at)
    }

    pub(crate) fn set_node_verified(&self, page: &Page, at: Offset) {
        self.pages.set_node_verified(page, at);
    }

    /// The buffer that holds `at`, as a raw-buffer address, if it lies within its volume.
    pub(crate) fn buffer(&self, at: Offset, structure: Structure) -> Result<Offset, Error> {
        let outside = Error::OutOfRange { structure, at };
        let volume = self.volume(at.volume()).filter(|_| at.zone().is_direct()).ok_or(outside)?;
        let buffer = at.in_zone(Zone::RAW_BUFFER).buffer();
        if buffer.byte().saturating_add(BUFFER_SIZE as u64) > volume.buffers_len {
            return Err(outside);
        }
        Ok(buffer)
    }

    /// The page that holds `at`. May block.
    pub(crate) fn page(&self, w: &mut dyn Wait, at: Offset, structure: Structure) -> Result<Page, Error> {
        let buffer = self.buffer(at, structure)?;
        if let Some(page) = self.pages.get(buffer) {
            return Ok(page);
        }
        let mut read = Reads::new(self);
        read.start(0, buffer)?;
        let mut page = None;
        read.finish(w, |_, p| page = Some(p))?;
        page.ok_or(Error::CacheBusy)
    }

    /// The pages of `buffers` (raw-buffer addresses, at most [`BATCH`]), in order: what is missing is read in one batch.
    /// May block.
    pub(crate) fn read_pages<const N: usize>(
        &self,
        w: &mut dyn Wait,
        buffers: impl Iterator<Item = Offset>,
        out: &mut ArrayVec<Page, N>,
    ) -> Result<(), Error> {
        let mut buffers = buffers.take(N.min(BATCH));
        // Mostly all are there, and nothing more is to be done.
        let missing = loop {
            let Some(buffer) = buffers.next() else { return Ok(()) };
            match self.pages.get(buffer) {
                Some(page) => out.push(page),
                None => break buffer,
            }
        };
        let mut slots: ArrayVec<Option<Page>, N> = ArrayVec::new();
        let mut reads = Reads::new(self);
        let mut started = Ok(());
        for buffer in core::iter::once(missing).chain(buffers) {
            let page = self.pages.get(buffer);
            if page.is_none() {
                started = reads.start(slots.len(), buffer);
                if started.is_err() {
                    break;
                }
            }
            slots.push(page);
        }
        // What is under way must be waited for in any case: its memory belongs to the cache.
        reads.finish(w, |slot, page| {
            if let Some(s) = slots.get_mut(slot) {
                *s = Some(page);
            }
        })?;
        started?;
        out.extend(slots.into_iter().flatten());
        Ok(())
    }
}

/// Where a page belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The root volume's header.
    Header,
    /// A buffer, by its raw address.
    Buffer(Offset),
}

impl Media {
    /// Writes pages, in order of submission, and waits for all of them. The first failure is returned. May block.
    pub(crate) fn write(
        &self,
        w: &mut dyn Wait,
        pages: impl IntoIterator<Item = (Place, Frozen)>,
    ) -> Result<(), Error> {
        let mut pages = pages.into_iter();
        let mut result = Ok(());
        while result.is_ok() {
            let mut under_way: ArrayVec<(u8, PendingBio), WRITE_BATCH> = ArrayVec::new();
            let mut unsent = JobList::new();
            let mut unsent_volume = 0;
            for (place, page) in pages.by_ref().take(WRITE_BATCH) {
                let (number, byte) = match place {
                    Place::Header => (0, 0),
                    Place::Buffer(at) => (at.volume(), at.byte()),
                };
                let Some(volume) = self.volume(number) else {
                    let Place::Buffer(at) = place else { continue };
                    result = Err(Error::OutOfRange { structure: Structure::Record, at });
                    break;
                };
                let start = if place == Place::Header { 0 } else { volume.buffers_start };
                let mut bio = self.bios.get().unwrap_or_else(Bio::new);
                bio.write(start + byte, page);
                let (job, pending) = bio.waitable();
                if unsent_volume != number {
                    self.submit(unsent_volume, &mut unsent);
                    unsent_volume = number;
                }
                unsent.push(job);
                under_way.push((number, pending));
            }
            self.submit(unsent_volume, &mut unsent);
            if under_way.is_empty() {
                break;
            }
            for (volume, pending) in under_way {
                result = result.and(outcome(volume, pending.wait(w).result()));
            }
        }
        result
    }

    /// Makes everything that was written durable, on all volumes. May block.
    pub(crate) fn flush(&self, w: &mut dyn Wait) -> Result<(), Error> {
        let mut result = Ok(());
        let mut volumes = self.volumes.iter().enumerate().filter_map(|(n, v)| Some((n as u8, v.as_ref()?)));
        loop {
            let under_way: ArrayVec<(u8, PendingBio), BATCH> = volumes
                .by_ref()
                .take(BATCH)
                .map(|(number, volume)| {
                    let mut bio = self.bios.get().unwrap_or_else(Bio::new);
                    bio.flush();
                    (number, bio.start(&*volume.device))
                })
                .collect();
            if under_way.is_empty() {
                return result;
            }
            for (volume, pending) in under_way {
                result = result.and(outcome(volume, pending.wait(w).result()));
            }
        }
    }

    fn submit(&self, volume: u8, unsent: &mut JobList) {
        if let Some(volume) = self.volume(volume) {
            volume.device.submit(core::mem::take(unsent));
        }
    }
}

fn outcome(volume: u8, result: Result<(), BioError>) -> Result<(), Error> {
    result.map_err(|error| Error::Device { volume, error })
}

/// A read under way.
struct Read {
    slot: usize,
    frame: u32,
    buffer: Offset,
    pending: PendingBio,
}

/// A batch of reads: started one by one, submitted by runs of one volume, waited for together.
struct Reads<'m> {
    media: &'m Media,
    under_way: ArrayVec<Read, BATCH>,
    unsent: JobList,
    unsent_volume: u8,
}

impl<'m> Reads<'m> {
    fn new(media: &'m Media) -> Self {
        Self { media, under_way: ArrayVec::new(), unsent: JobList::new(), unsent_volume: 0 }
    }

    fn start(&mut self, slot: usize, buffer: Offset) -> Result<(), Error> {
        let media = self.media;
        let structure = Structure::Record;
        let volume = media.volume(buffer.volume()).ok_or(Error::OutOfRange { structure, at: buffer })?;
        let (frame, memory) = media.pages.take_frame()?;
        // More readers at once than the pool was made for cost an allocation.
        let mut bio = media.bios.get().unwrap_or_else(Bio::new);
        bio.read(volume.buffers_start + buffer.byte(), memory);
        let (job, pending) = bio.waitable();
        if self.unsent_volume != buffer.volume() {
            self.submit();
            self.unsent_volume = buffer.volume();
        }
        self.unsent.push(job);
        self.under_way.push(Read { slot, frame, buffer, pending });
        Ok(())
    }

    fn submit(&mut self) {
        self.media.submit(self.unsent_volume, &mut self.unsent);
    }

    /// Waits for all, and hands out those that succeeded. The first failure is returned.
    fn finish(mut self, w: &mut dyn Wait, mut done: impl FnMut(usize, Page)) -> Result<(), Error> {
        self.submit();
        let media = self.media;
        let mut result = Ok(());
        for read in self.under_way {
            let mut bio = read.pending.wait(w);
            let outcome = bio.result();
            let memory = bio.take_buf();
            let page = match (outcome, memory) {
                (Ok(()), Some(mut memory)) => {
                    media.overlay.restore(read.buffer, &mut memory);
                    media.pages.fill(read.frame, read.buffer, memory)
                }
                (outcome, memory) => {
                    media.pages.give_back(read.frame, memory);
                    Err(outcome.map_or_else(
                        |error| Error::Device { volume: read.buffer.volume(), error },
                        |()| Error::NoMemory,
                    ))
                }
            };
            match page {
                Ok(page) => done(read.slot, page),
                Err(e) => result = result.and(Err(e)),
            }
        }
        result
    }
}
