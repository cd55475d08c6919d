//! An I/O queue: a pair, and the requests that are under way in it or wait for it.

use alloc::vec::Vec;

use core::time::Duration;

use dfly_bio::{BioJob, Failure, JobList, Op};
use dfly_hal::Instant;
use dfly_hal::dma::{Coherent, Constraints, Dma, DmaError};
use dfly_hal::regs::Window;
use zerocopy::little_endian::U64;

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
    slots: Vec<(Slot, Instant)>,
    /// Jobs that found the queue full, by namespace.
    parked: Vec<JobList>,
    /// The namespace whose turn it is.
    turn: usize,
    /// Nothing more is taken.
    refuses: bool,
    /// The controller is being stopped: nothing more is sent either.
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
        let entries = shape.list_entries().saturating_mul(slots.into());
        let constraints = Constraints { align: shape.page_bytes, ..Constraints::ANY };
        Ok(Self {
            pair,
            shape,
            lists: Coherent::alloc(hal.clone(), entries, &constraints)?,
            slots: (0..slots).map(|_| (Slot::new(shape.pages()), Instant::FAR_FUTURE)).collect(),
            parked: core::iter::repeat_with(JobList::new).take(namespaces).collect(),
            turn: 0,
            refuses: false,
            closed: false,
            stats: Stats::default(),
        })
    }

    /// Nothing more is taken; what is here is still sent.
    pub(crate) fn refuse(&mut self) {
        self.refuses = true;
    }

    /// Nothing more is taken or sent.
    pub(crate) fn close(&mut self) {
        self.refuses = true;
        self.closed = true;
    }

    /// Takes jobs for namespace `index`. If the queue takes no more they come back.
    pub(crate) fn park(&mut self, index: usize, batch: JobList) -> JobList {
        match self.parked.get_mut(index) {
            Some(parked) if !self.refuses => {
                let mut batch = batch;
                parked.append(&mut batch);
                batch
            }
            _ => batch,
        }
    }

    /// Sends what is parked as far as there is room, and rings once. What failed is put to `done`. Returns when the first
    /// of what was sent is due.
    pub(crate) fn fill(
        &mut self,
        hal: &H,
        window: &impl Window,
        namespaces: &[NamespaceInfo],
        now: Instant,
        done: &mut JobList,
    ) -> Instant {
        let mut first_due = Instant::FAR_FUTURE;
        let mut empty = 0;
        while empty < namespaces.len() && !self.closed {
            self.turn = if self.turn + 1 < namespaces.len() { self.turn + 1 } else { 0 };
            let (Some(info), Some(parked)) = (namespaces.get(self.turn), self.parked.get_mut(self.turn))
            else {
                break;
            };
            let Some(job) = parked.pop() else {
                empty += 1;
                continue;
            };
            empty = 0;
            let Some((slot, cid)) = self.pair.ids.take() else {
                self.unpop(job);
                break;
            };
            let due = job.deadline().min(now.saturating_add(self.shape.timeout));
            match self.start(hal, info, job, (slot, cid), due, now) {
                Started::Sent => first_due = first_due.min(due),
                Started::Failed(job) => {
                    self.pair.ids.untake(slot);
                    done.push(job);
                }
                Started::Later(job) => {
                    self.pair.ids.untake(slot);
                    // Something that is under way comes back and gives room; if nothing is, nothing will.
                    if self.pair.ids.out() == 0 {
                        done.push(ended(job, Err(Failure::NoMemory)));
                        continue;
                    }
                    self.unpop(job);
                    break;
                }
            }
        }
        self.stats.doorbells += self.pair.ring(window);
        first_due
    }

    /// Puts `job` back to the front of its list.
    fn unpop(&mut self, job: BioJob) {
        if let Some(parked) = self.parked.get_mut(self.turn) {
            let mut front = JobList::from(job);
            front.append(parked);
            *parked = front;
        }
    }

    fn start(
        &mut self,
        hal: &H,
        info: &NamespaceInfo,
        job: BioJob,
        (slot, cid): (u16, u16),
        due: Instant,
        now: Instant,
    ) -> Started {
        if job.deadline() <= now {
            return Started::Failed(ended(job, Err(Failure::Timeout)));
        }
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
        let entries = self.shape.list_entries();
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
            Err((job, LendError::Dma(_))) => return Started::Failed(ended(job, Err(Failure::Device))),
        }
        *slot_due = due;
        if !self.pair.push(cid, command) {
            // Cannot be: there are as many identifiers as there is room. The controller knows nothing of it.
            return match room.take_back(hal, Done::Stopped) {
                Some(job) => Started::Later(job),
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
            let (slot, entry) = match self.pair.next() {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(broken) => {
                    result = Err(broken);
                    break;
                }
            };
            let room = self.slots.get_mut(usize::from(slot));
            let Some(job) = room.and_then(|(room, _)| room.take_back(hal, Done::Completed)) else { continue };
            let failure = StatusCode::from(entry.status()).failure();
            self.stats.completed += 1;
            self.stats.errors += u64::from(failure.is_some());
            done.push(ended(job, failure.map_or(Ok(()), Err)));
        }
        self.pair.acknowledge(window);
        result
    }

    /// When the first of what is under way is due.
    pub(crate) fn first_due(&self) -> Option<Instant> {
        self.slots.iter().filter(|(room, _)| room.job().is_some()).map(|&(_, due)| due).min()
    }

    /// Whether nothing is under way or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.pair.ids.out() == 0 && self.parked.iter().all(JobList::is_empty)
    }

    /// What waits, and was never shown to the controller.
    pub(crate) fn take_parked(&mut self, failure: Failure, done: &mut JobList) {
        for parked in &mut self.parked {
            done.extend(core::mem::take(parked).map(|job| ended(job, Err(failure))));
        }
    }

    /// Everything, of a controller that was seen stopped. What is late has timed out; the rest ends as `failure`.
    pub(crate) fn take_all(&mut self, hal: &H, now: Instant, failure: Failure, done: &mut JobList) {
        for (room, due) in &mut self.slots {
            if let Some(job) = room.take_back(hal, Done::Stopped) {
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
