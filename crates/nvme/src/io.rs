//! An I/O queue: a pair, and the requests that are under way in it or wait for it.

use alloc::vec::Vec;

use core::time::Duration;

use dfly_bio::{BioJob, Failure, JobList, Op};
use dfly_hal::Instant;
use dfly_hal::dma::{Coherent, Constraints, Dma, DmaError};
use dfly_hal::regs::Window;
use zerocopy::little_endian::U64;

use crate::controller::Halted;
use crate::lend::{Done, LendError, Slot};
use crate::pair::Pair;
use crate::prp::List;
use crate::queue::Broken;
use crate::spec::{Command, Opcode, StatusCode};
use crate::{NamespaceInfo, Stats};

/// What commands of every queue have in common.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) page_bytes: u32,
    pub(crate) max_bytes: u32,
    /// For requests that have no deadline of their own.
    pub(crate) timeout: Duration,
}

impl Shape {
    /// Pages that a transfer may touch: one more than its length says, where it starts inside one.
    pub(crate) const fn pages(self) -> usize {
        self.max_bytes as usize / self.page_bytes as usize + 1
    }

    /// Entries of the area that each command has for its PRP list: a power of two, so that an area is at one place of one
    /// page, or whole pages.
    const fn list_entries(self) -> usize {
        let in_page = self.page_bytes as usize / 8;
        let pages = self.pages();
        let links = if pages > in_page { pages / (in_page - 1) + 1 } else { 0 };
        (pages + links).next_power_of_two()
    }
}

pub(crate) struct Queue<H: Dma> {
    pub(crate) pair: Pair<H>,
    shape: Shape,
    lists: Coherent<U64, H>,
    /// Entries of each command's area in `lists`.
    list_entries: usize,
    slots: Vec<(Slot, Instant)>,
    /// Jobs that found the queue full, by namespace.
    parked: Vec<JobList>,
    /// How many these are.
    waiting: usize,
    /// No job that is parked is late before.
    parked_due: Instant,
    /// The namespace whose turn it is.
    turn: usize,
    /// The controller is being stopped: nothing more is taken or sent.
    closed: bool,
    pub(crate) stats: Stats,
}

/// The area of one command in the memory for PRP lists.
struct Area<'a, H: Dma> {
    lists: &'a mut Coherent<U64, H>,
    first: usize,
    entries: usize,
}

impl<H: Dma> List for Area<'_, H> {
    fn capacity(&self) -> usize {
        self.entries
    }
    fn addr(&self, index: usize) -> u64 {
        self.lists.device_addr(self.first + index).map_or(0, |at| at.0)
    }
    fn set(&mut self, index: usize, entry: u64) {
        // The builder stays below the capacity.
        let _ = self.lists.set(self.first + index, entry.into());
    }
}

enum Started {
    Sent,
    /// No memory to map it with, now.
    Later(BioJob),
    /// Its status says why.
    Failed(BioJob),
}

impl<H: Dma + Clone> Queue<H> {
    pub(crate) fn new(
        hal: &H,
        pair: Pair<H>,
        shape: Shape,
        slots: u16,
        namespaces: usize,
    ) -> Result<Self, DmaError> {
        let list_entries = shape.list_entries();
        let entries = list_entries.saturating_mul(slots.into());
        let constraints = Constraints { align: shape.page_bytes, ..Constraints::ANY };
        Ok(Self {
            pair,
            shape,
            lists: Coherent::alloc(hal.clone(), entries, &constraints)?,
            list_entries,
            slots: (0..slots).map(|slot| (Slot::new(slot, shape.pages()), Instant::FAR_FUTURE)).collect(),
            parked: core::iter::repeat_with(JobList::new).take(namespaces).collect(),
            waiting: 0,
            parked_due: Instant::FAR_FUTURE,
            turn: 0,
            closed: false,
            stats: Stats::default(),
        })
    }

    /// Nothing more is taken or sent.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Takes jobs for namespace `index`. If the queue takes no more they come back.
    pub(crate) fn park(&mut self, index: usize, batch: JobList) -> JobList {
        match self.parked.get_mut(index) {
            Some(parked) if !self.closed => {
                self.waiting += batch.len();
                for job in batch {
                    self.parked_due = self.parked_due.min(job.deadline());
                    parked.push(job);
                }
                JobList::new()
            }
            _ => batch,
        }
    }

    /// Sends what is parked as far as there is room, namespace by namespace in turn, and rings once. What failed, or waited
    /// too long, is put to `done`. Returns when to look again for the sake of what was sent or still waits.
    pub(crate) fn fill(
        &mut self,
        hal: &H,
        window: &impl Window,
        namespaces: &[NamespaceInfo],
        now: Instant,
        done: &mut JobList,
    ) -> Instant {
        self.expire(now, done);
        let mut first_due = Instant::FAR_FUTURE;
        while self.waiting != 0 && !self.closed {
            let Some((slot, cid)) = self.pair.ids.take() else { break };
            let Some((info, job)) = self.next_parked(namespaces) else {
                self.pair.ids.untake(slot);
                break;
            };
            let due = job.deadline().min(now.saturating_add(self.shape.timeout));
            match self.start(hal, info, job, (slot, cid), due) {
                Started::Sent => first_due = first_due.min(due),
                Started::Failed(job) => {
                    self.pair.ids.untake(slot);
                    done.push(job);
                }
                Started::Later(job) => {
                    self.pair.ids.untake(slot);
                    // Something that is under way comes back and gives room; if nothing is, nothing will.
                    if self.pair.ids.out() != 0 {
                        self.unpop(job);
                        break;
                    }
                    done.push(ended(job, Err(Failure::NoMemory)));
                }
            }
            self.turn += 1;
        }
        self.stats.doorbells += self.pair.ring(window);
        first_due.min(self.parked_due())
    }

    /// The first job of the namespace whose turn it is, or of the next one that has any.
    fn next_parked<'a>(&mut self, namespaces: &'a [NamespaceInfo]) -> Option<(&'a NamespaceInfo, BioJob)> {
        for _ in 0..namespaces.len() {
            if self.turn >= namespaces.len() {
                self.turn = 0;
            }
            let (info, parked) = (namespaces.get(self.turn)?, self.parked.get_mut(self.turn)?);
            if let Some(job) = parked.pop() {
                self.waiting -= 1;
                return Some((info, job));
            }
            self.turn += 1;
        }
        None
    }

    /// Puts `job` back to the front of its list: it is still its namespace's turn.
    fn unpop(&mut self, job: BioJob) {
        if let Some(parked) = self.parked.get_mut(self.turn) {
            let mut front = JobList::from(job);
            front.append(parked);
            *parked = front;
            self.waiting += 1;
        }
    }

    /// Ends what is parked and late: the controller never saw it, so nothing has to stop.
    fn expire(&mut self, now: Instant, done: &mut JobList) {
        if self.parked_due > now {
            return;
        }
        self.parked_due = Instant::FAR_FUTURE;
        for parked in &mut self.parked {
            for job in core::mem::take(parked) {
                if job.deadline() <= now {
                    self.waiting -= 1;
                    done.push(ended(job, Err(Failure::Timeout)));
                } else {
                    self.parked_due = self.parked_due.min(job.deadline());
                    parked.push(job);
                }
            }
        }
    }

    /// When the first of what is parked is late, or before.
    pub(crate) fn parked_due(&self) -> Instant {
        if self.waiting == 0 { Instant::FAR_FUTURE } else { self.parked_due }
    }

    fn start(
        &mut self,
        hal: &H,
        info: &NamespaceInfo,
        job: BioJob,
        (slot, cid): (u16, u16),
        due: Instant,
    ) -> Started {
        let lba = job.offset() >> info.block_shift;
        let blocks_z = (job.len() >> info.block_shift).saturating_sub(1) as u16;
        let mut command = match job.op() {
            Op::Read => Command::transfer(Opcode::READ, info.nsid, lba, blocks_z),
            Op::Write => Command::transfer(Opcode::WRITE, info.nsid, lba, blocks_z),
            Op::Flush => Command::flush(info.nsid),
            _ => return Started::Failed(ended(job, Err(Failure::Unsupported))),
        };
        if job.op() == Op::Write && job.is_fua() {
            command = command.with_fua();
        }
        let entries = self.list_entries;
        let mut area = Area { lists: &mut self.lists, first: usize::from(slot) * entries, entries };
        let Some((room, slot_due)) = self.slots.get_mut(usize::from(slot)) else {
            return Started::Failed(ended(job, Err(Failure::Device)));
        };
        match room.lend(hal, job, &mut area, self.shape.page_bytes) {
            Ok(prps) => {
                command.prp1 = prps.prp1.into();
                command.prp2 = prps.prp2.into();
            }
            Err((job, LendError::Dma(DmaError::Exhausted))) => return Started::Later(job),
            Err((job, LendError::Dma(DmaError::Unmappable(_)) | LendError::Prp(_))) => {
                return Started::Failed(ended(job, Err(Failure::Misaligned)));
            }
            Err((job, LendError::Dma(_) | LendError::InUse)) => {
                return Started::Failed(ended(job, Err(Failure::Device)));
            }
        }
        *slot_due = due;
        if !self.pair.push(cid, command) {
            // There are as many identifiers as there is room, so the controller completes commands and does not say that
            // it has read them.
            return match room.take_back(hal, Done::NeverShown) {
                Some(job) => Started::Failed(ended(job, Err(Failure::Device))),
                None => Started::Sent,
            };
        }
        self.stats.submitted += 1;
        Started::Sent
    }

    /// Puts what completed to `done`, with its status.
    pub(crate) fn reap(&mut self, hal: &H, window: &impl Window, done: &mut JobList) -> Result<(), Broken> {
        let mut result = Ok(());
        // No more than the ring holds: a controller cannot keep us here.
        for _ in 0..=self.slots.len() {
            let (arrived, entry) = match self.pair.next() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(broken) => {
                    result = Err(broken);
                    break;
                }
            };
            let room = self.slots.get_mut(usize::from(arrived.slot()));
            let back = room.and_then(|(room, _)| room.take_back(hal, Done::Completed(arrived)));
            let Some(job) = back else { continue };
            let failure = StatusCode::from(entry.status()).failure();
            self.stats.completed += 1;
            self.stats.errors += u64::from(failure.is_some());
            done.push(ended(job, failure.map_or(Ok(()), Err)));
        }
        self.pair.acknowledge(window);
        result
    }

    /// When the first of what is under way is due.
    pub(crate) fn first_due(&self) -> Instant {
        let out = self.slots.iter().filter(|(room, _)| room.job().is_some());
        out.map(|&(_, due)| due).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Whether nothing is under way or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.pair.ids.out() == 0 && self.waiting == 0
    }

    /// What waits, and was never shown to the controller.
    pub(crate) fn take_parked(&mut self, failure: Failure, done: &mut JobList) {
        self.waiting = 0;
        for parked in &mut self.parked {
            done.extend(core::mem::take(parked).map(|job| ended(job, Err(failure))));
        }
    }

    /// Everything, of a controller that was seen stopped. What is late has timed out; the rest ends as `failure`.
    pub(crate) fn take_all(
        &mut self,
        hal: &H,
        halted: &Halted,
        now: Instant,
        failure: Failure,
        done: &mut JobList,
    ) {
        for (room, due) in &mut self.slots {
            if let Some(job) = room.take_back(hal, Done::Stopped(halted)) {
                let failure = if *due <= now { Failure::Timeout } else { failure };
                done.push(ended(job, Err(failure)));
            }
        }
        self.take_parked(failure, done);
    }

    /// The slots, to be abandoned without the lock.
    pub(crate) fn take_slots(&mut self) -> Vec<(Slot, Instant)> {
        core::mem::take(&mut self.slots)
    }
}

/// `job`, with its end written down; whoever has no lock passes it on.
pub(crate) fn ended(mut job: BioJob, status: dfly_bio::Status) -> BioJob {
    job.set_status(status);
    job
}
