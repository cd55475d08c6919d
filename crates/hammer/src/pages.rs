//! The page cache: 16 KiB buffers of the media, within a budget.
//!
//! A page that nobody holds can be evicted; its memory then carries the next read, so that in the steady state nothing
//! is allocated. The lock covers a look-up or the choice of a victim, never I/O.
//!
//! A new page is on probation. If it is used again by the time its turn comes, it is kept; if not, it goes, and only its
//! address is remembered: who comes back is kept at once. So reading one large file goes round in half a mebibyte, which
//! the CPU's own caches hold, and leaves the B-tree alone; and a new working set still finds its way in.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use dfly_bio::{Buf, Frozen, SharedBuf};
use dfly_hal::sync::Lock;
use dfly_hal::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use hashbrown::HashMap;

use core::hash::BuildHasher;

use crate::error::Error;
use crate::ondisk::node::{NODE_SIZE, Node};
use crate::ondisk::{BUFFER_SIZE, Offset};

/// Pages on probation, at most, once every frame has memory; a tenth of a small cache.
const PROBATION_PAGES: usize = 32;

/// What the page cache did, and how it stands. Counts are since the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Pages that were found.
    pub hits: u64,
    /// Pages that had to be read.
    pub misses: u64,
    /// Pages that were given up for others.
    pub evictions: u64,
    /// Pages that the budget allows.
    pub capacity_pages: usize,
    /// Pages that have memory.
    pub resident_pages: usize,
}

/// A page in use. Its frame stays as long as this lives.
pub(crate) struct Page {
    memory: SharedBuf,
    frame: u32,
}

impl Page {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory
    }

    /// A handle for writing it to the device.
    pub(crate) fn freeze(&self) -> Frozen {
        self.memory.freeze()
    }

    /// The node at `at`, a multiple of the node size.
    pub(crate) fn node(&self, at: Offset) -> &Node {
        let (nodes, _) = self.memory.as_chunks::<NODE_SIZE>();
        // A page holds BUFFER_SIZE bytes: the index is below their number.
        zerocopy::transmute_ref!(&nodes[at.in_buffer() / NODE_SIZE])
    }
}

/// What is known to be right about the contents of a frame, so that it need not be checked again.
#[derive(Default)]
struct Verified {
    /// A bit for each node.
    nodes: AtomicU8,
    /// The record last found right, see [`Pages::record_mark`]; 0 is none.
    record: AtomicU64,
}

/// Memory for one page.
struct Frame {
    holds: Option<Offset>,
    /// `None` while it is being read, and before its first use.
    memory: Option<SharedBuf>,
    used: bool,
    /// Holds changes that are not on the disk: never chosen.
    pinned: bool,
}

struct Inner {
    resident: HashMap<Offset, u32>,
    frames: Vec<Frame>,
    /// Frames that never had memory, or lost it.
    vacant: Vec<u32>,
    /// Frames of new pages, oldest first, those without a page before them.
    probation: VecDeque<u32>,
    /// Frames of pages that were used again; the next victim first.
    kept: VecDeque<u32>,
    /// Pages that did not stand their probation lately, each in the place of its hash.
    gone: Vec<Option<Offset>>,
    stats: CacheStats,
}

/// The cache. Never blocks; callable from any thread, not from interrupts.
pub(crate) struct Pages {
    inner: Lock<Inner>,
    verified: Box<[Verified]>,
}

impl Pages {
    /// A cache of at most `capacity` pages. Their memory is allocated when first needed, everything else now.
    pub(crate) fn new(capacity: usize) -> Result<Self, Error> {
        let capacity = u32::try_from(capacity).map_err(|_| Error::NoMemory)?;
        let n = capacity as usize;
        let no_memory = |_| Error::NoMemory;
        let mut resident = HashMap::new();
        // Twice as much: a table that is more than half full grows when its removed entries have used up the rest.
        resident.try_reserve(n.saturating_mul(2)).map_err(|_| Error::NoMemory)?;
        let (mut frames, mut vacant, mut verified) = (Vec::new(), Vec::new(), Vec::new());
        let (mut probation, mut kept) = (VecDeque::new(), VecDeque::new());
        probation.try_reserve_exact(n).map_err(no_memory)?;
        kept.try_reserve_exact(n).map_err(no_memory)?;
        frames.try_reserve_exact(n).map_err(no_memory)?;
        vacant.try_reserve_exact(n).map_err(no_memory)?;
        verified.try_reserve_exact(n).map_err(no_memory)?;
        let mut gone = Vec::new();
        gone.try_reserve_exact(n).map_err(no_memory)?;
        gone.resize(n, None);
        for frame in (0..capacity).rev() {
            frames.push(Frame { holds: None, memory: None, used: false, pinned: false });
            vacant.push(frame);
            verified.push(Verified::default());
        }
        let stats = CacheStats { capacity_pages: n, ..CacheStats::default() };
        let inner = Lock::new(Inner { resident, frames, vacant, probation, kept, gone, stats });
        Ok(Self { inner, verified: verified.into_boxed_slice() })
    }

    pub(crate) fn stats(&self) -> CacheStats {
        self.inner.lock().stats
    }

    /// The page at `at`, if it is there.
    pub(crate) fn get(&self, at: Offset) -> Option<Page> {
        let mut inner = self.inner.lock();
        let page = inner.page(at)?;
        inner.stats.hits += 1;
        Some(page)
    }

    /// Memory for a page that is to be read: hand it to [`Self::fill`] or [`Self::give_back`].
    pub(crate) fn take_frame(&self) -> Result<(u32, Buf), Error> {
        let (frame, memory) = match self.vacant_frame() {
            Some(frame) => match page_memory().map(SharedBuf::try_into_buf) {
                Ok(Ok(memory)) => (frame, memory),
                _ => {
                    self.give_back(frame, None);
                    return Err(Error::NoMemory);
                }
            },
            None => self.inner.lock().evict().ok_or(Error::CacheBusy)?,
        };
        if let Some(verified) = self.verified.get(frame as usize) {
            // Nobody else sees the frame: whoever finds it later does so through the lock.
            verified.nodes.store(0, Ordering::Relaxed);
            verified.record.store(0, Ordering::Relaxed);
        }
        Ok((frame, memory))
    }

    /// A frame to allocate memory for, while there are some.
    fn vacant_frame(&self) -> Option<u32> {
        let mut inner = self.inner.lock();
        inner.stats.misses += 1;
        let frame = inner.vacant.pop()?;
        inner.stats.resident_pages += 1;
        Some(frame)
    }

    /// Makes what was read the page at `at`. Where another thread was faster, its page is returned.
    pub(crate) fn fill(&self, frame: u32, at: Offset, memory: Buf) -> Result<Page, Error> {
        let Some(memory) = as_page(memory) else {
            self.give_back(frame, None);
            return Err(Error::NoMemory);
        };
        let mut inner = self.inner.lock();
        if let Some(page) = inner.page(at) {
            inner.store(frame, None, memory);
            return Ok(page);
        }
        // Not yet marked as used: what is read only once leaves first.
        inner.store(frame, Some(at), memory.clone());
        inner.resident.insert(at, frame);
        Ok(Page { memory, frame })
    }

    /// Returns a frame unused; without its memory if that was lost.
    pub(crate) fn give_back(&self, frame: u32, memory: Option<Buf>) {
        let memory = memory.and_then(as_page);
        let mut inner = self.inner.lock();
        match memory {
            Some(memory) => inner.store(frame, None, memory),
            None => {
                inner.stats.resident_pages -= 1;
                inner.vacant.push(frame);
            }
        }
    }

    /// Gives a page memory of its own, which [`Self::patch`] can change and nothing evicts; returns the memory with the
    /// bytes as they were. Nobody else may change the page meanwhile.
    pub(crate) fn pin_copy(&self, page: Page) -> Result<SharedBuf, Error> {
        let mut copy = page_memory()?;
        copy.get_mut().ok_or(Error::NoMemory)?.copy_from_slice(page.bytes());
        let mut inner = self.inner.lock();
        let frame = inner.frames.get_mut(page.frame as usize).ok_or(Error::NoMemory)?;
        frame.pinned = true;
        frame.memory = Some(copy);
        Ok(page.memory)
    }

    /// Makes `memory`, of a frame that was taken, the pinned page at `at`, whatever the cache held there.
    pub(crate) fn pin_new(&self, frame: u32, at: Offset, memory: Buf) -> Result<(), Error> {
        let Some(memory) = as_page(memory) else {
            self.give_back(frame, None);
            return Err(Error::NoMemory);
        };
        let mut inner = self.inner.lock();
        if let Some(old) = inner.resident.insert(at, frame)
            && let Some(f) = inner.frames.get_mut(old as usize)
        {
            (f.holds, f.pinned) = (None, false);
        }
        inner.store(frame, Some(at), memory);
        if let Some(f) = inner.frames.get_mut(frame as usize) {
            f.pinned = true;
        }
        Ok(())
    }

    /// Changes bytes of a pinned page. `None` if it is not pinned, or its memory is shared: then nothing was changed.
    pub(crate) fn patch(&self, at: Offset, in_buffer: usize, bytes: &[u8]) -> Option<()> {
        let mut inner = self.inner.lock();
        let frame = *inner.resident.get(&at)?;
        let f = inner.frames.get_mut(frame as usize).filter(|f| f.pinned)?;
        let to = f.memory.as_mut()?.get_mut()?.get_mut(in_buffer..in_buffer.checked_add(bytes.len())?)?;
        to.copy_from_slice(bytes);
        Some(())
    }

    /// The memory of a pinned page for writing it out; the page is no longer pinned, but stays while the handle lives.
    pub(crate) fn unpin(&self, at: Offset) -> Option<Frozen> {
        let mut inner = self.inner.lock();
        let frame = *inner.resident.get(&at)?;
        let f = inner.frames.get_mut(frame as usize)?;
        f.pinned = false;
        f.memory.as_ref().map(SharedBuf::freeze)
    }

    /// Forgets all contents.
    pub(crate) fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.resident.clear();
        inner.frames.iter_mut().for_each(|f| f.holds = None);
    }

    fn verified(&self, page: &Page) -> Option<&Verified> {
        self.verified.get(page.frame as usize)
    }

    // Relaxed throughout: a mark says something of bytes that the marker and the reader of the mark both got through the
    // lock, and that do not change while a `Page` lives.

    pub(crate) fn node_is_verified(&self, page: &Page, at: Offset) -> bool {
        self.verified(page).is_some_and(|v| v.nodes.load(Ordering::Relaxed) & node_bit(at) != 0)
    }

    pub(crate) fn set_node_verified(&self, page: &Page, at: Offset) {
        if let Some(v) = self.verified(page) {
            v.nodes.fetch_or(node_bit(at), Ordering::Relaxed);
        }
    }

    /// Like [`Self::set_node_verified`], of a page that stays because it is pinned.
    pub(crate) fn set_pinned_node_verified(&self, at: Offset) {
        let frame = self.inner.lock().resident.get(&at.buffer()).copied();
        if let Some(v) = frame.and_then(|f| self.verified.get(f as usize)) {
            v.nodes.fetch_or(node_bit(at), Ordering::Relaxed);
        }
    }

    /// A number that stands for exactly one record that begins in a given buffer: position, length and checksum.
    pub(crate) fn record_mark(at: Offset, len: usize, crc: u32) -> u64 {
        1 << 63 | (at.in_buffer() as u64) << 49 | (len as u64 & 0x1_ffff) << 32 | u64::from(crc)
    }

    pub(crate) fn record_is_verified(&self, pages: &[Page], mark: u64) -> bool {
        pages.iter().all(|p| self.verified(p).is_some_and(|v| v.record.load(Ordering::Relaxed) == mark))
    }

    pub(crate) fn set_record_verified(&self, pages: &[Page], mark: u64) {
        for v in pages.iter().filter_map(|p| self.verified(p)) {
            v.record.store(mark, Ordering::Relaxed);
        }
    }
}

/// Memory for a page, zeroed.
pub(crate) fn page_memory() -> Result<SharedBuf, Error> {
    SharedBuf::alloc(BUFFER_SIZE, NODE_SIZE).map_err(|_| Error::NoMemory)
}

/// What came back from a device, if it is the memory of a page. A device could have put other memory into the request.
fn as_page(memory: Buf) -> Option<SharedBuf> {
    memory.into_shared().ok().filter(|m| m.len() == BUFFER_SIZE)
}

fn node_bit(at: Offset) -> u8 {
    1 << (at.in_buffer() / NODE_SIZE)
}

impl Inner {
    fn page(&mut self, at: Offset) -> Option<Page> {
        let frame = *self.resident.get(&at)?;
        let f = self.frames.get_mut(frame as usize)?;
        f.used = true;
        Some(Page { memory: f.memory.clone()?, frame })
    }

    fn store(&mut self, frame: u32, holds: Option<Offset>, memory: SharedBuf) {
        let came_back =
            holds.is_some_and(|at| self.remembered(at).is_some_and(|r| r.take_if(|r| *r == at).is_some()));
        let Some(f) = self.frames.get_mut(frame as usize) else { return };
        *f = Frame { holds, memory: Some(memory), used: false, pinned: false };
        match holds {
            Some(_) if came_back => self.kept.push_back(frame),
            Some(_) => self.probation.push_back(frame),
            None => self.probation.push_front(frame),
        }
    }

    /// Where the address of a page that went would be remembered.
    fn remembered(&mut self, at: Offset) -> Option<&mut Option<Offset>> {
        let hash = self.resident.hasher().hash_one(at) as usize;
        let places = self.gone.len();
        self.gone.get_mut(hash.checked_rem(places)?)
    }

    /// Takes the memory of a page that nobody uses. Each frame gets two looks at most: one to lose its mark, and one.
    fn evict(&mut self) -> Option<(u32, Buf)> {
        let share = PROBATION_PAGES.min(self.frames.len() / 10);
        for _ in 0..2 * self.frames.len() {
            let from_probation = self.probation.len() > share || self.kept.is_empty();
            let frame = if from_probation { self.probation.pop_front() } else { self.kept.pop_front() }?;
            let f = self.frames.get_mut(frame as usize)?;
            let (used, memory) = (core::mem::take(&mut f.used), f.memory.take());
            let keep = used || f.pinned;
            let memory = match memory.map(|m| if keep { Err(m) } else { m.try_into_buf() }) {
                Some(Ok(memory)) => {
                    if let Some(at) = f.holds.take() {
                        self.resident.remove(&at);
                        self.stats.evictions += 1;
                        if from_probation && let Some(place) = self.remembered(at) {
                            *place = Some(at);
                        }
                    }
                    return Some((frame, memory));
                }
                Some(Err(kept)) => Some(kept),
                None => None,
            };
            f.memory = memory;
            self.kept.push_back(frame);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u64) -> Offset {
        Offset(n * BUFFER_SIZE as u64)
    }

    fn load(pages: &Pages, n: u64) -> Page {
        let (frame, mut memory) = pages.take_frame().unwrap();
        memory.fill(n as u8);
        pages.fill(frame, at(n), memory).unwrap()
    }

    #[test]
    fn a_page_is_found_until_it_is_evicted_and_memory_stays_within_the_budget() {
        let pages = Pages::new(4).unwrap();
        for n in 0..20 {
            assert_eq!(load(&pages, n).bytes()[0], n as u8);
            assert_eq!(pages.get(at(n)).unwrap().bytes()[0], n as u8);
        }
        let s = pages.stats();
        assert_eq!((s.resident_pages, s.evictions, s.misses), (4, 16, 20));
        assert!(pages.get(at(0)).is_none());
    }

    #[test]
    fn pages_in_use_are_not_evicted_and_a_full_cache_says_so() {
        let pages = Pages::new(2).unwrap();
        let held = [load(&pages, 0), load(&pages, 1)];
        assert_eq!(pages.take_frame().err(), Some(Error::CacheBusy));
        drop(held);
        assert!(pages.take_frame().is_ok());
    }

    #[test]
    fn pages_that_were_used_again_outlive_a_long_read() {
        let pages = Pages::new(100).unwrap();
        for n in 0..50 {
            load(&pages, n);
            pages.get(at(n));
        }
        for n in 1000..3000 {
            load(&pages, n);
        }
        assert!((0..50).all(|n| pages.get(at(n)).is_some()));
        // What is no longer used makes room in the end.
        for n in 5000..5200 {
            load(&pages, n);
            pages.get(at(n));
        }
        for n in 6000..6200 {
            load(&pages, n);
            pages.get(at(n));
        }
        assert!((5000..5100).all(|n| pages.get(at(n)).is_none()));
        assert_eq!(pages.stats().resident_pages, 100);
    }

    #[test]
    fn a_page_that_comes_back_soon_after_it_went_is_kept() {
        let pages = Pages::new(100).unwrap();
        // The second stretch pushes out the beginning of the first.
        for n in (0..100).chain(200..240).chain(0..40) {
            load(&pages, n);
        }
        for n in 1000..2000 {
            load(&pages, n);
        }
        // Two addresses may have the same place in the memory of what went.
        assert!((0..40).filter(|n| pages.get(at(*n)).is_some()).count() > 20);
    }

    #[test]
    fn the_slower_of_two_readers_gets_the_page_of_the_faster() {
        let pages = Pages::new(2).unwrap();
        let (slow, mut memory) = pages.take_frame().unwrap();
        let fast = load(&pages, 7);
        memory.fill(9);
        let page = pages.fill(slow, at(7), memory).unwrap();
        assert!(page.memory.ptr_eq(&fast.memory));
    }

    #[test]
    fn what_was_verified_is_forgotten_with_the_contents() {
        let pages = Pages::new(1).unwrap();
        let page = load(&pages, 0);
        let mark = Pages::record_mark(at(0), 100, 0);
        pages.set_node_verified(&page, at(0));
        pages.set_record_verified(core::slice::from_ref(&page), mark);
        assert!(pages.node_is_verified(&page, at(0)) && !pages.node_is_verified(&page, Offset(4096)));
        assert!(pages.record_is_verified(core::slice::from_ref(&page), mark));
        drop(page);
        let page = load(&pages, 1);
        assert!(!pages.node_is_verified(&page, at(0)));
        assert!(!pages.record_is_verified(core::slice::from_ref(&page), mark));
    }

    #[test]
    fn other_memory_is_no_page_and_its_frame_is_not_lost() {
        let pages = Pages::new(1).unwrap();
        for other in [
            Buf::alloc(BUFFER_SIZE, NODE_SIZE).unwrap(),
            SharedBuf::alloc(NODE_SIZE, NODE_SIZE).unwrap().try_into_buf().unwrap(),
        ] {
            let (frame, _) = pages.take_frame().unwrap();
            assert_eq!(pages.fill(frame, at(0), other).err(), Some(Error::NoMemory));
            assert_eq!(pages.stats().resident_pages, 0);
        }
        assert_eq!(load(&pages, 3).bytes()[0], 3);
    }

    #[test]
    fn the_table_never_grows() {
        let pages = Pages::new(448).unwrap();
        let before = pages.inner.lock().resident.allocation_size();
        for n in 0..20_000 {
            load(&pages, n * 37);
        }
        assert_eq!(pages.inner.lock().resident.allocation_size(), before);
    }

    #[test]
    fn lost_memory_is_replaced() {
        let pages = Pages::new(1).unwrap();
        let (frame, memory) = pages.take_frame().unwrap();
        core::mem::forget(memory);
        pages.give_back(frame, None);
        assert_eq!(pages.stats().resident_pages, 0);
        assert!(pages.take_frame().is_ok());
    }
}
