//! [`Tracer`]: what went through a device, and how long it took.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use dfly_hal::sync::Lock;
use dfly_hal::{Clock, Instant};
use dfly_msgport::{Hook, HookRef, Job};

use crate::{BioBody, BioJob, BlockDevice, JobList, Limits, Op, Status};

/// One request that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceRecord {
    /// What was asked.
    pub op: Op,
    /// Where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub len: u64,
    /// How it ended.
    pub status: Status,
    /// When it went down.
    pub submitted: Instant,
    /// How long it was below.
    pub latency: Duration,
}

/// What requests of one kind added up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpStats {
    /// Requests that came back.
    pub requests: u64,
    /// Of these, failed ones.
    pub failed: u64,
    /// Bytes of those that succeeded.
    pub bytes: u64,
    /// Time that all of them were below, added up.
    pub total_latency: Duration,
    /// The longest time.
    pub max_latency: Duration,
}

/// What a [`Tracer`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceStats {
    /// Reads.
    pub reads: OpStats,
    /// Writes.
    pub writes: OpStats,
    /// Flushes.
    pub flushes: OpStats,
    /// Discards and write-zeroes.
    pub ranges: OpStats,
    /// Batches that were submitted.
    pub batches: u64,
    /// Requests below now.
    pub in_flight: u64,
    /// The most that ever were.
    pub max_in_flight: u64,
    /// Records that the ring had no room for any more: the oldest ones went.
    pub overwritten: u64,
}

/// Records every request of the device below in a ring of fixed size. Allocates nothing per request.
pub struct Tracer<D> {
    lower: D,
    log: Arc<dyn Log>,
    hook: HookRef<BioBody>,
}

/// [`Shared`] with its clock's type forgotten.
trait Log: Send + Sync {
    fn now(&self) -> Instant;
    fn state(&self) -> &Lock<State>;
}

struct Shared<C> {
    clock: C,
    state: Lock<State>,
}

struct State {
    ring: VecDeque<TraceRecord>,
    capacity: usize,
    stats: TraceStats,
}

impl<C: Clock> Log for Shared<C> {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn state(&self) -> &Lock<State> {
        &self.state
    }
}

impl<D: BlockDevice> Tracer<D> {
    /// Traces `lower` by `clock`, and keeps the last `capacity` records. Allocates the ring.
    pub fn new(lower: D, clock: impl Clock + 'static, capacity: usize) -> Self {
        let state = State { ring: VecDeque::with_capacity(capacity), capacity, stats: TraceStats::default() };
        let shared = Arc::new(Shared { clock, state: Lock::new(state) });
        Self { lower, hook: HookRef::from(shared.clone()), log: shared }
    }

    /// What it has seen so far.
    pub fn stats(&self) -> TraceStats {
        self.log.state().lock().stats
    }

    /// Takes the records out, oldest first.
    pub fn drain(&self) -> Vec<TraceRecord> {
        self.log.state().lock().ring.drain(..).collect()
    }

    /// The device below.
    pub fn lower(&self) -> &D {
        &self.lower
    }
}

impl<D: BlockDevice> BlockDevice for Tracer<D> {
    fn limits(&self) -> Limits {
        self.lower.limits()
    }

    fn submit(&self, batch: JobList) {
        let now = self.log.now().as_nanos();
        let mut out = JobList::new();
        for mut job in batch {
            match job.intercept(job.offset(), self.hook.clone(), now) {
                Ok(()) => out.push(job),
                Err(failure) => job.finish(Err(failure)),
            }
        }
        {
            let mut state = self.log.state().lock();
            let stats = &mut state.stats;
            stats.batches += 1;
            stats.in_flight += out.len() as u64;
            stats.max_in_flight = stats.max_in_flight.max(stats.in_flight);
        }
        if !out.is_empty() {
            self.lower.submit(out);
        }
    }

    fn poll(&self) -> usize {
        self.lower.poll()
    }
}

impl<C: Clock> Hook<BioBody> for Shared<C> {
    fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
        let job = BioJob::from(job);
        let submitted = Instant::from_nanos(job.cookie());
        let record = TraceRecord {
            op: job.op(),
            offset: job.offset(),
            len: job.len(),
            status: job.status(),
            submitted,
            latency: self.clock.now().saturating_since(submitted),
        };
        self.state.lock().add(record);
        Some(job.into())
    }
}

impl State {
    fn add(&mut self, r: TraceRecord) {
        let stats = match r.op {
            Op::Read => &mut self.stats.reads,
            Op::Write => &mut self.stats.writes,
            Op::Flush => &mut self.stats.flushes,
            Op::Discard | Op::WriteZeroes => &mut self.stats.ranges,
        };
        stats.requests += 1;
        match r.status {
            Ok(()) => stats.bytes = stats.bytes.saturating_add(r.len),
            Err(_) => stats.failed += 1,
        }
        stats.total_latency = stats.total_latency.saturating_add(r.latency);
        stats.max_latency = stats.max_latency.max(r.latency);
        self.stats.in_flight = self.stats.in_flight.saturating_sub(1);
        if self.ring.len() == self.capacity {
            self.stats.overwritten += 1;
            self.ring.pop_front();
        }
        if self.capacity != 0 {
            self.ring.push_back(r);
        }
    }
}

impl<D> fmt::Debug for Tracer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}
