//! [`PowerCut`]: a write cache that forgets, and every disk that a power cut could leave.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use dfly_hal::sync::Lock;
use dfly_msgport::{Hook, HookRef, Job};

use super::rng::XorShift;
use crate::{
    BioBody, BioJob, BlockDevice, Buf, Failure, Frozen, Image, JobList, Limits, MemDisk, Op, SharedBuf,
    WriteCache,
};

/// When the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Not by itself; see [`PowerCut::cut_now`].
    Never,
    /// At the n-th write (discards and write-zeroes count), from zero: it is under way when the power goes.
    AtWrite(u64),
    /// At the n-th flush, from zero: it has no effect.
    AtFlush(u64),
}

/// What was written and not yet flushed: power may or may not take it.
#[derive(Clone, Debug)]
pub struct Unflushed {
    /// Where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub len: u64,
    /// Which write it was, from zero, in the order of submission.
    pub number: u64,
    /// The bytes; zeroes if `None`.
    data: Option<Frozen>,
    fate: Fate,
    /// The first flush that covers it, while that is under way.
    covered_by: Option<u64>,
    /// It was written with FUA: it survives. It is still here because older writes below it may not.
    fua: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    UnderWay,
    Completed,
    Failed,
}

/// How much of an unflushed write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// All.
    All,
    /// Each sector of it or not, as coins fall that are drawn from this seed.
    Torn(u64),
}

/// What a [`PowerCut`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PowerStats {
    /// Writes, discards and write-zeroes so far: cut points of a sweep.
    pub writes: u64,
    /// Flushes so far: cut points of a sweep.
    pub flushes: u64,
    /// Writes that are not durable now.
    pub unflushed: u64,
}

/// A disk with a volatile write cache in front of it, and a plug to pull.
///
/// It keeps the *live* contents (the device below) and the *durable* ones, and every write in between. A flush makes
/// durable what completed before the flush was submitted; a FUA write is durable when it completes. A write that the
/// device below failed may survive in part, until a flush after it settles that it did not. After the cut
/// every request fails as [`Failure::Gone`], also those under way, and [`Self::survivors`] gives a disk that the cut
/// could have left. Copies what is written; for tests.
pub struct PowerCut<D> {
    lower: D,
    sector_bytes: u32,
    shared: Arc<Shared>,
    hook: HookRef<BioBody>,
}

struct Shared {
    state: Lock<State>,
}

struct State {
    durable: Image,
    unflushed: Vec<Unflushed>,
    cut: Cut,
    off: bool,
    writes: u64,
    flushes: u64,
}

impl PowerCut<MemDisk> {
    /// A plug on a memory disk; what the disk holds now is durable.
    pub fn new(disk: MemDisk, cut: Cut) -> Self {
        let durable = disk.image();
        Self::over(disk, durable, cut)
    }
}

impl<D: BlockDevice> PowerCut<D> {
    /// A plug on any device, whose contents now are those of `durable`.
    pub fn over(lower: D, durable: Image, cut: Cut) -> Self {
        let state = State { durable, unflushed: Vec::new(), cut, off: false, writes: 0, flushes: 0 };
        let shared = Arc::new(Shared { state: Lock::new(state) });
        let sector_bytes = lower.limits().block_bytes.max(1);
        Self { lower, sector_bytes, hook: HookRef::from(shared.clone()), shared }
    }

    /// Tears writes at multiples of `bytes` (at least one) instead of at blocks.
    pub fn tearing_at(mut self, bytes: u32) -> Self {
        self.sector_bytes = bytes.max(1);
        self
    }

    /// Pulls the plug.
    pub fn cut_now(&self) {
        self.shared.state.lock().off = true;
    }

    /// Whether the power is gone.
    pub fn is_cut(&self) -> bool {
        self.shared.state.lock().off
    }

    /// What it has seen so far.
    pub fn stats(&self) -> PowerStats {
        let s = self.shared.state.lock();
        PowerStats {
            writes: s.writes,
            flushes: s.flushes,
            unflushed: s.unflushed.iter().filter(|w| !w.fua).count() as u64,
        }
    }

    /// The disk if nothing survives but what must.
    pub fn durable(&self) -> Result<Image, Failure> {
        self.survivors(|_| Keep::Nothing)
    }

    /// A disk that a cut at this moment could leave: of each unflushed write, in the order of submission, what `keep`
    /// says survives, over what is durable. Writes that keep different sectors are, seen from the medium, reordered.
    ///
    /// # Errors
    /// [`Failure::NoMemory`].
    pub fn survivors(&self, mut keep: impl FnMut(&Unflushed) -> Keep) -> Result<Image, Failure> {
        let (mut image, unflushed) = {
            let s = self.shared.state.lock();
            (s.durable.clone(), s.unflushed.clone())
        };
        for w in &unflushed {
            match if w.fua { Keep::All } else { keep(w) } {
                Keep::Nothing => {}
                Keep::All => w.apply(&mut image, 0, w.len)?,
                Keep::Torn(seed) => w.tear(&mut image, self.sector_bytes, seed)?,
            }
        }
        Ok(image)
    }

    /// [`Self::survivors`] drawn from `seed`: most writes survive or not as a whole, some are torn. As a disk.
    ///
    /// # Errors
    /// [`Failure::NoMemory`].
    pub fn survivor_disk(&self, seed: u64) -> Result<MemDisk, Failure> {
        let mut rng = XorShift::new(seed);
        let image = self.survivors(|_| match rng.below(8) {
            0..3 => Keep::Nothing,
            3..6 => Keep::All,
            _ => Keep::Torn(rng.next()),
        })?;
        Ok(MemDisk::from_image(self.lower.limits().block_bytes, image))
    }

    /// The device below, with the live contents.
    pub fn lower(&self) -> &D {
        &self.lower
    }

    /// Takes note of a job on its way down.
    fn admit(&self, job: &mut BioJob) -> Result<(), Failure> {
        self.limits().admit(job)?;
        let copy = if job.op() == Op::Write { Some(frozen_copy(job)?) } else { None };
        let cookie = self.shared.state.lock().admit(job, copy)?;
        job.intercept(job.offset(), self.hook.clone(), cookie)
    }
}

impl<D: BlockDevice> BlockDevice for PowerCut<D> {
    fn limits(&self) -> Limits {
        let mut limits = self.lower.limits();
        limits.write_cache = WriteCache::Volatile;
        limits
    }

    fn submit(&self, batch: JobList) {
        let mut down = JobList::new();
        for mut job in batch {
            match self.admit(&mut job) {
                Ok(()) => down.push(job),
                Err(failure) => job.finish(Err(failure)),
            }
        }
        if !down.is_empty() {
            self.lower.submit(down);
        }
    }

    fn poll(&self) -> usize {
        self.lower.poll()
    }
}

impl State {
    /// Returns the number by which [`Self::done`] knows the job again.
    fn admit(&mut self, job: &BioJob, data: Option<Frozen>) -> Result<u64, Failure> {
        if self.off {
            return Err(Failure::Gone);
        }
        match job.op() {
            Op::Read => Ok(0),
            Op::Flush => {
                let number = self.flushes;
                self.flushes += 1;
                if self.cut == Cut::AtFlush(number) {
                    self.off = true;
                    return Err(Failure::Gone);
                }
                for w in &mut self.unflushed {
                    if w.fate != Fate::UnderWay && w.covered_by.is_none() {
                        w.covered_by = Some(number);
                    }
                }
                Ok(number)
            }
            Op::Write | Op::Discard | Op::WriteZeroes => {
                let number = self.writes;
                self.writes += 1;
                self.unflushed.push(Unflushed {
                    offset: job.offset(),
                    len: job.len(),
                    number,
                    data,
                    fate: Fate::UnderWay,
                    covered_by: None,
                    fua: false,
                });
                if self.cut == Cut::AtWrite(number) {
                    self.off = true;
                    return Err(Failure::Gone);
                }
                Ok(number)
            }
        }
    }

    /// A job came back from below.
    fn done(&mut self, job: &BioJob) -> Result<(), Failure> {
        if self.off {
            return Err(Failure::Gone);
        }
        match job.op() {
            Op::Read => job.status(),
            Op::Flush => {
                job.status()?;
                self.settle(job.cookie())
            }
            Op::Write | Op::Discard | Op::WriteZeroes => {
                if let Some(w) = self.unflushed.iter_mut().find(|w| w.number == job.cookie()) {
                    w.fate = if job.status().is_ok() { Fate::Completed } else { Fate::Failed };
                    w.fua = w.is_completed() && job.is_fua();
                }
                job.status()
            }
        }
    }

    /// Makes durable what flush `number` covers.
    fn settle(&mut self, number: u64) -> Result<(), Failure> {
        let Self { durable, unflushed, .. } = self;
        let mut result = Ok(());
        unflushed.retain(|w| {
            let covered = result.is_ok() && w.covered_by.is_some_and(|by| by <= number);
            if covered && w.is_completed() {
                result = w.apply(durable, 0, w.len);
            }
            !covered || result.is_err()
        });
        result
    }
}

impl Unflushed {
    /// Whether its submitter was told that it is complete.
    pub fn is_completed(&self) -> bool {
        self.fate == Fate::Completed
    }

    /// Writes the part of it from `skip` on into `image`.
    fn apply(&self, image: &mut Image, skip: u64, len: u64) -> Result<(), Failure> {
        let at = self.offset.saturating_add(skip);
        match &self.data {
            None => image.zero(at, len)?,
            Some(data) => {
                let (skip, len) = (skip as usize, len as usize);
                image.write(at, data.get(skip..skip.saturating_add(len)).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    fn tear(&self, image: &mut Image, sector_bytes: u32, seed: u64) -> Result<(), Failure> {
        let mut rng = XorShift::new(seed);
        // A range without data may be of any length: it is torn in a bounded number of places.
        let sector = u64::from(sector_bytes);
        let step = (self.len / 4096).next_multiple_of(sector).max(sector);
        let mut skip = 0;
        while skip < self.len {
            let len = step.min(self.len - skip);
            if rng.next() & 1 == 0 {
                self.apply(image, skip, len)?;
            }
            skip += len;
        }
        Ok(())
    }
}

impl Hook<BioBody> for Shared {
    fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
        let mut job = BioJob::from(job);
        let status = self.state.lock().done(&job);
        job.set_status(status);
        Some(job.into())
    }
}

fn frozen_copy(job: &BioJob) -> Result<Frozen, Failure> {
    let len = usize::try_from(job.len()).map_err(|_| Failure::NoMemory)?;
    let mut copy = Buf::alloc(len, 1)?;
    job.data().copy_to(&mut copy);
    Ok(SharedBuf::new(copy)?.into())
}

impl<D> fmt::Debug for PowerCut<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PowerCut").finish_non_exhaustive()
    }
}
