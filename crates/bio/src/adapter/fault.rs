//! [`FaultInjector`]: what devices do on bad days, on command.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use dfly_hal::sync::Lock;
use dfly_msgport::{Hook, HookRef, Job, Own, Sink};

use super::rng::XorShift;
use crate::{Bio, BioBody, BioJob, BlockDevice, Buf, Failure, JobList, Limits, Op, Status};

/// What happens to a request that a [`Rule`] matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails without reaching the device below.
    Fail(Failure),
    /// It reaches the device below, and then is said to have failed: the acknowledgement was lost.
    FailAfter(Failure),
    /// It is not answered until [`FaultInjector::release`], as by a device that hangs.
    Hang,
    /// It goes down after so many calls of `poll`.
    Delay {
        /// How many.
        polls: u32,
    },
    /// So many bits of it are flipped: in what a read gives, or in what a write leaves on the medium.
    Corrupt {
        /// How many; the same bit may be flipped twice.
        bits: u32,
    },
    /// Only the first bytes of a write reach the medium, and it is said to have ended with `status`.
    Torn {
        /// How many bytes, rounded down to a block.
        bytes: u64,
        /// What the submitter is told.
        status: Status,
    },
    /// The device is gone for this request and the ones that follow it.
    Vanish {
        /// How many requests fail as [`Failure::Gone`], this one included; `u32::MAX`: all from now on.
        requests: u32,
    },
}

/// Which requests a fault happens to.
///
/// A request matches if operation and range fit; then it is counted, and the fault happens to matches `skip` to
/// `skip + times`, each with the probability `chance` in 65536.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    op: Option<Op>,
    range: Range<u64>,
    skip: u64,
    times: u64,
    chance: u32,
    fault: Fault,
}

impl Rule {
    /// `fault` happens to every request.
    pub const fn always(fault: Fault) -> Self {
        Self { op: None, range: 0..u64::MAX, skip: 0, times: u64::MAX, chance: 1 << 16, fault }
    }

    /// Only to requests of this kind.
    pub const fn on(mut self, op: Op) -> Self {
        self.op = Some(op);
        self
    }

    /// Only to requests that touch these bytes. Flushes touch none.
    pub const fn within(mut self, bytes: Range<u64>) -> Self {
        self.range = bytes;
        self
    }

    /// Not to the first `n` that match.
    pub const fn after(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// To `n` matches only.
    pub const fn times(mut self, n: u64) -> Self {
        self.times = n;
        self
    }

    /// To each match with a probability of `chance` in 65536, drawn from the injector's seed.
    pub const fn with_chance(mut self, chance: u32) -> Self {
        self.chance = chance;
        self
    }

    fn matches(&self, job: &BioJob) -> bool {
        if self.op.is_some_and(|op| op != job.op()) {
            return false;
        }
        let everywhere = self.range == (0..u64::MAX);
        let end = job.offset().saturating_add(job.len());
        everywhere || (job.offset() < self.range.end && self.range.start < end)
    }
}

/// What a [`FaultInjector`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultStats {
    /// Requests that came.
    pub requests: u64,
    /// Faults that happened.
    pub faults: u64,
    /// Requests that failed because the device was gone.
    pub gone: u64,
    /// Requests that hang now.
    pub hanging: u64,
    /// Requests that are delayed now.
    pub delayed: u64,
}

/// Does to requests what its rules say, and passes the others on. The first rule that matches counts.
///
/// With the same seed and the same requests in the same order the same faults happen. Allocates where a fault needs a
/// copy of the data; for tests.
pub struct FaultInjector<D> {
    lower: D,
    rewrite: HookRef<BioBody>,
    state: Lock<State>,
}

struct State {
    rules: Vec<(Rule, u64)>,
    rng: XorShift,
    gone: u32,
    hanging: JobList,
    delayed: Vec<(u32, BioJob)>,
    stats: FaultStats,
}

/// What is done on the way back; the cookie says what.
struct Rewrite;

const CORRUPT: u64 = 1 << 63;

impl<D: BlockDevice> FaultInjector<D> {
    /// No faults yet.
    pub fn new(lower: D, seed: u64) -> Self {
        let state = State {
            rules: Vec::new(),
            rng: XorShift::new(seed),
            gone: 0,
            hanging: JobList::new(),
            delayed: Vec::new(),
            stats: FaultStats::default(),
        };
        Self { lower, rewrite: HookRef::from(&Rewrite), state: Lock::new(state) }
    }

    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) {
        self.state.lock().rules.push((rule, 0));
    }

    /// Forgets all rules, and brings a vanished device back.
    pub fn clear(&self) {
        let mut state = self.state.lock();
        state.rules.clear();
        state.gone = 0;
    }

    /// Answers what hangs, with `status`. Returns how many there were.
    pub fn release(&self, status: Status) -> usize {
        let hanging = core::mem::take(&mut self.state.lock().hanging);
        let n = hanging.len();
        hanging.finish_all(status);
        n
    }

    /// What it did so far.
    pub fn stats(&self) -> FaultStats {
        let state = self.state.lock();
        FaultStats { hanging: state.hanging.len() as u64, delayed: state.delayed.len() as u64, ..state.stats }
    }

    /// The device below.
    pub fn lower(&self) -> &D {
        &self.lower
    }

    fn inflict(&self, fault: Fault, job: BioJob, down: &mut JobList) {
        let at = job.offset();
        let hooked = |mut job: BioJob, cookie, down: &mut JobList| match job.intercept(
            at,
            self.rewrite.clone(),
            cookie,
        ) {
            Ok(()) => down.push(job),
            Err(failure) => job.finish(Err(failure)),
        };
        match fault {
            Fault::Fail(failure) => job.finish(Err(failure)),
            Fault::FailAfter(failure) => hooked(job, u64::from(failure.code()), down),
            Fault::Hang => self.state.lock().hanging.push(job),
            Fault::Delay { polls } => self.state.lock().delayed.push((polls, job)),
            Fault::Vanish { requests } => {
                self.state.lock().gone = requests.saturating_sub(u32::from(requests != u32::MAX));
                job.finish(Err(Failure::Gone));
            }
            Fault::Corrupt { bits } => {
                let seed = self.state.lock().rng.next() & 0xffff_ffff;
                let cookie = CORRUPT | u64::from(bits & 0x7fff_ffff) << 32 | seed;
                match job.op() {
                    Op::Read => hooked(job, cookie, down),
                    Op::Write => match copy_of(&job, job.len()) {
                        Ok(mut data) => {
                            flip(&mut [&mut data], u64::from(bits), seed);
                            self.write_instead(job, data, Ok(()), down);
                        }
                        Err(failure) => job.finish(Err(failure)),
                    },
                    _ => down.push(job),
                }
            }
            Fault::Torn { bytes, status } if job.op() == Op::Write => {
                let block = u64::from(self.lower.limits().block_bytes.max(1));
                let keep = bytes.min(job.len());
                match copy_of(&job, keep - keep % block) {
                    Ok(data) if data.is_empty() => job.finish(status),
                    Ok(data) => self.write_instead(job, data, status, down),
                    Err(failure) => job.finish(Err(failure)),
                }
            }
            Fault::Torn { .. } => down.push(job),
        }
    }

    /// Sends `data` down in place of the data of `job`, which ends with the write's failure or with `status`.
    fn write_instead(&self, job: BioJob, data: Buf, status: Status, down: &mut JobList) {
        let mut bio = Bio::new();
        bio.write(job.offset(), data).deadline(job.deadline());
        if job.is_fua() {
            bio.fua();
        }
        down.push(bio.send_to(Arc::new(Relay { status, job: Lock::new(Some(job)) })));
    }
}

impl<D: BlockDevice> BlockDevice for FaultInjector<D> {
    fn limits(&self) -> Limits {
        self.lower.limits()
    }

    fn submit(&self, batch: JobList) {
        let mut down = JobList::new();
        for job in batch {
            let fate = self.state.lock().decide(&job);
            match fate {
                Some(fault) => self.inflict(fault, job, &mut down),
                None => down.push(job),
            }
        }
        if !down.is_empty() {
            self.lower.submit(down);
        }
    }

    fn poll(&self) -> usize {
        let mut due = JobList::new();
        {
            let mut state = self.state.lock();
            let mut i = 0;
            while let Some((polls, _)) = state.delayed.get_mut(i) {
                if *polls == 0 {
                    due.push(state.delayed.remove(i).1);
                } else {
                    *polls -= 1;
                    i += 1;
                }
            }
        }
        if !due.is_empty() {
            self.lower.submit(due);
        }
        self.lower.poll()
    }
}

impl State {
    fn decide(&mut self, job: &BioJob) -> Option<Fault> {
        self.stats.requests += 1;
        if self.gone != 0 {
            if self.gone != u32::MAX {
                self.gone -= 1;
            }
            self.stats.gone += 1;
            return Some(Fault::Fail(Failure::Gone));
        }
        for (rule, seen) in &mut self.rules {
            if !rule.matches(job) {
                continue;
            }
            let nth = *seen;
            *seen += 1;
            let due = nth >= rule.skip && nth - rule.skip < rule.times;
            if due && self.rng.below(1 << 16) < u64::from(rule.chance) {
                self.stats.faults += 1;
                if matches!(rule.fault, Fault::Vanish { .. }) {
                    self.stats.gone += 1;
                }
                return Some(rule.fault);
            }
        }
        None
    }
}

impl Hook<BioBody> for Rewrite {
    fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
        let mut job = BioJob::from(job);
        let cookie = job.cookie();
        if cookie & CORRUPT == 0 {
            job.set_status(Failure::status_of(cookie as u8));
        } else if job.status().is_ok()
            && let Some(bytes) = job.data_mut()
        {
            let (bits, seed) = ((cookie & !CORRUPT) >> 32, cookie & 0xffff_ffff);
            flip(&mut bytes.collect::<Vec<_>>(), bits, seed);
        }
        Some(job.into())
    }
}

/// Flips so many bits somewhere in `runs`.
fn flip(runs: &mut [&mut [u8]], bits: u64, seed: u64) {
    let mut rng = XorShift::new(seed);
    let total: u64 = runs.iter().map(|run| run.len() as u64 * 8).sum();
    for _ in 0..bits {
        let mut at = rng.below(total);
        for run in runs.iter_mut() {
            let room = run.len() as u64 * 8;
            if at < room {
                if let Some(byte) = run.get_mut((at / 8) as usize) {
                    *byte ^= 1 << (at % 8);
                }
                break;
            }
            at -= room;
        }
    }
}

fn copy_of(job: &BioJob, len: u64) -> Result<Buf, Failure> {
    let len = usize::try_from(len).map_err(|_| Failure::NoMemory)?;
    let mut copy = Buf::alloc(len, 4096)?;
    job.data().copy_to(&mut copy);
    Ok(copy)
}

/// Answers a job when the write that went down in its place is done.
struct Relay {
    status: Status,
    job: Lock<Option<BioJob>>,
}

impl Sink<BioBody> for Relay {
    fn accept(&self, done: Own<BioBody>) {
        let job = self.job.lock().take();
        if let Some(job) = job {
            job.finish(Bio::from(done).status().and(self.status));
        }
    }
}

impl<D> fmt::Debug for FaultInjector<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultInjector").finish_non_exhaustive()
    }
}
