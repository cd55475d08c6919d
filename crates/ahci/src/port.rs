//! A port: its requests, its slots, and what is to be done next.
//!
//! [`Port::tick`] is all that ever happens to it: in thread context, under the port's lock, without blocking. It looks at
//! what the interrupts told of, reaps, goes on with whatever the port is in the middle of (`steps`), and issues what waits.

mod memory;
mod steps;
mod trouble;

use alloc::vec::Vec;

use core::time::Duration;

use dfly_bio::{BioJob, Failure, JobList, Op, Status};
use dfly_hal::Instant;
use dfly_hal::dma::{Dma, DmaError};
use dfly_hal::regs::Window;

use crate::device::Device;
use crate::lend::{LendError, Slot};
use crate::prdt::{PrdtError, Table};
use crate::slots::{Back, Broken, Class, Halted, Slots, bits};
use crate::spec::{self, AtaError, AtaStatus, Cap, CommandHeader, HeaderFlags, PortInterrupts, TaskFileData};
use crate::{Config, PassResult, PassThrough, PortState, PortStats};
use memory::PortMemory;
pub(crate) use memory::{SECTOR, SECTORS, Shape};
use steps::{Question, Step};
use trouble::Verdict;

/// While something is under way, and nothing announces itself, a port is looked at this often.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// How often a request is tried that fails for no reason of its own.
const TRIES: u8 = 5;

/// What is around a port.
pub(crate) struct Env<'a, H, W> {
    pub(crate) hal: &'a H,
    pub(crate) window: &'a W,
    pub(crate) cap: Cap,
    pub(crate) config: &'a Config,
    pub(crate) now: Instant,
}

/// What a port wants of the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    Nothing,
    /// Nothing less helps.
    Reset,
    /// Its registers read as all ones.
    Gone,
}

/// A slot and its command.
struct Room {
    slot: Slot,
    /// When the request is late.
    due: Instant,
    header: CommandHeader,
    /// How often it failed for no reason of its own.
    tries: u8,
}

/// A command of the embedder's, run alone.
pub(crate) struct Pass {
    pub(crate) ticket: u64,
    pub(crate) command: PassThrough,
    /// As long as the command's transfer.
    pub(crate) data: Vec<u8>,
    pub(crate) state: PassState,
}

#[derive(Clone, Copy)]
pub(crate) enum PassState {
    Waits,
    Runs,
    Done(PassResult),
}

pub(crate) struct Port<H: Dma> {
    number: u8,
    regs: spec::Port,
    memory: PortMemory<H>,
    slots: Slots,
    rooms: Vec<Room>,
    /// What waits for a slot.
    parked: JobList,
    /// No job that is parked is late before.
    parked_due: Instant,
    /// One of these made the device fail, and nobody knows which: each is issued with nothing beside it.
    suspects: JobList,
    /// What is issued is alone.
    alone: bool,
    /// What is there, since it was identified.
    device: Option<Device>,
    /// Which device this is, counted; requests for an earlier one are not taken.
    generation: u32,
    step: Step,
    /// When the step has failed.
    until: Instant,
    /// How long to the next look at it.
    pause: Duration,
    /// Live: when to look without being told.
    look: Instant,
    /// What the interrupts told of.
    seen: PortInterrupts,
    /// Evidence that the engine does not run, since it was stopped.
    halted: Option<Halted>,
    verdict: Verdict,
    /// What the device's registers said when a command failed last.
    last_error: (AtaStatus, AtaError),
    /// A COMRESET is wanted, and not only the engine's restart.
    reset_wanted: bool,
    /// What to ask the device when the engine runs.
    ask: Option<Question>,
    /// What it is being asked.
    asked: Option<Question>,
    /// Where to when the engine has stopped, if not up again.
    fate: Option<Step>,
    /// A packet device whose disc is not known yet, and how often it was asked.
    candidate: Option<(Device, u8)>,
    /// A device came or went since the last look.
    pub(crate) changed: bool,
    /// Attempts to bring it up that failed in a row.
    attempts: u8,
    /// The fastest link speed that is allowed; 0: any.
    speed: u8,
    /// When a queued command last failed without a good reason, and how often it has.
    queue_trouble: (Instant, u8),
    pub(crate) pass: Option<Pass>,
    pub(crate) stats: PortStats,
}

enum Started {
    Sent,
    /// No memory to map it with, now.
    Later(BioJob),
    Failed(BioJob),
}

impl<H: Dma + Clone> Port<H> {
    pub(crate) fn new(hal: &H, number: u8, cap: Cap, shape: Shape) -> Result<Self, DmaError> {
        let slots = cap.ncs_z() + 1;
        let addr_mask = if cap.s64a() { u64::MAX } else { u32::MAX.into() };
        let room = |number| Room {
            slot: Slot::new(number, shape.max_segments as usize),
            due: Instant::FAR_FUTURE,
            header: zerocopy::FromZeros::new_zeroed(),
            tries: 0,
        };
        Ok(Self {
            number,
            regs: spec::Port(number),
            memory: PortMemory::new(hal, slots, shape, addr_mask)?,
            slots: Slots::new(slots),
            rooms: (0..slots).map(room).collect(),
            parked: JobList::new(),
            parked_due: Instant::FAR_FUTURE,
            suspects: JobList::new(),
            alone: false,
            device: None,
            generation: 0,
            step: Step::Suspended,
            until: Instant::FAR_FUTURE,
            pause: Duration::ZERO,
            look: Instant::FAR_FUTURE,
            seen: PortInterrupts::new(),
            halted: None,
            verdict: Verdict::Nobody,
            last_error: (AtaStatus(0), AtaError(0)),
            reset_wanted: false,
            ask: None,
            asked: None,
            fate: None,
            candidate: None,
            changed: false,
            attempts: 0,
            speed: 0,
            queue_trouble: (Instant::from_nanos(0), 0),
            pass: None,
            stats: PortStats::default(),
        })
    }

    pub(crate) const fn number(&self) -> u8 {
        self.number
    }

    pub(crate) const fn device(&self) -> Option<&Device> {
        self.device.as_ref()
    }

    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Where it stands, for people.
    pub(crate) const fn state(&self) -> PortState {
        match (self.step, self.device.is_some()) {
            (Step::Empty, _) => PortState::Empty,
            (Step::Live, _) => PortState::Live,
            (Step::Unusable(why), _) => PortState::Unusable(why),
            (Step::Dead(why), _) => PortState::Dead(why),
            (_, true) => PortState::Recovering,
            (_, false) => PortState::Coming,
        }
    }

    /// Whether it is neither coming nor going.
    pub(crate) const fn is_settled(&self) -> bool {
        matches!(self.step, Step::Empty | Step::Live | Step::Unusable(_) | Step::Dead(_))
    }

    /// Whether nothing is under way or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.slots.is_idle() && self.parked.is_empty() && self.suspects.is_empty() && self.pass.is_none()
    }

    /// Takes jobs for the device of that generation. If it is not there they come back.
    pub(crate) fn park(&mut self, generation: u32, batch: JobList) -> JobList {
        if self.generation != generation || self.device.is_none() {
            return batch;
        }
        for job in batch {
            self.parked_due = self.parked_due.min(job.deadline());
            self.parked.push(job);
        }
        JobList::new()
    }

    /// Does what there is to do. `told`: what interrupts said since the last time. What ended is put to `done`; the instant is
    /// when to look again.
    pub(crate) fn tick<W: Window>(
        &mut self,
        env: &Env<'_, H, W>,
        told: PortInterrupts,
        done: &mut JobList,
    ) -> (Instant, Wants) {
        self.seen = self.seen.or(told);
        self.expire(env, done);
        let wants = match self.go_on(env, done) {
            Wants::Nothing => Wants::Nothing,
            wants => {
                // Until the adapter is reset, or answered for.
                self.step = Step::Suspended;
                wants
            }
        };
        (self.next_look(env.now), wants)
    }

    fn next_look(&self, now: Instant) -> Instant {
        let waiting = if self.parked.is_empty() { Instant::FAR_FUTURE } else { self.parked_due };
        match self.step {
            Step::Suspended | Step::Empty | Step::Unusable(_) | Step::Dead(_) => waiting,
            Step::Live if self.slots.is_idle() => waiting,
            Step::Live => waiting.min(self.first_due()).min(self.look),
            _ => waiting.min(self.until).min(now.saturating_add(self.pause)).min(self.first_due()),
        }
    }

    /// When the first of what is taken is late.
    fn first_due(&self) -> Instant {
        let due = bits(self.slots.taken()).filter_map(|slot| self.rooms.get(usize::from(slot)));
        due.map(|room| room.due).min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Reaps, and issues what waits.
    fn serve<W: Window>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) -> Wants {
        let mut seen = core::mem::take(&mut self.seen);
        let issued = self.slots.issued() != 0;
        let look = issued && env.now >= self.look;
        if look {
            self.look = env.now.saturating_add(LOOK);
            if self.regs.cmd().read(env.window).is_gone() {
                return Wants::Gone;
            }
            // Perhaps nobody was told.
            let untold = self.regs.is().read(env.window);
            self.regs.is().write(env.window, untold);
            seen = seen.or(untold);
        }
        if issued && (look || seen.into_bits() != 0) {
            match self.reap(env, done) {
                Ok(Wants::Nothing) => {}
                Ok(wants) => return wants,
                Err(_) => return self.recover(env, trouble::Why::Broken),
            }
        }
        if seen.any(Self::TROUBLE)
            && let Some(why) = self.attend(env, seen)
        {
            return self.recover(env, why);
        }
        if issued && self.first_due() <= env.now {
            return self.recover(env, trouble::Why::Late);
        }
        if self.pass.as_ref().is_some_and(|pass| matches!(pass.state, PassState::Waits)) {
            if self.slots.is_idle() {
                return self.begin_pass(env);
            }
            return Wants::Nothing;
        }
        self.fill(env, done);
        Wants::Nothing
    }

    /// Puts what completed to `done`.
    fn reap<W: Window>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) -> Result<Wants, Broken> {
        let queued = self.slots.class() == Class::Queued;
        let issued = self.slots.issued();
        let sact = if queued { self.regs.sact().read(env.window) } else { 0 };
        if queued && sact & issued == issued && sact == issued {
            return Ok(Wants::Nothing);
        }
        let ci = self.regs.ci().read(env.window);
        if (sact | ci) == u32::MAX && self.regs.cmd().read(env.window).is_gone() {
            return Ok(Wants::Gone);
        }
        // Of what was not queued, the device's registers say how it ended.
        let ended = !queued && ci & issued == 0;
        let tfd = if ended { self.regs.tfd().read(env.window) } else { TaskFileData::new() };
        if tfd.into_bits() == u32::MAX {
            return Ok(Wants::Gone);
        }
        for back in self.slots.arrived(sact, ci)? {
            // The data before whoever wants it.
            env.hal.rmb();
            let status = if queued { Ok(()) } else { self.status_of(tfd, back.slot()) };
            self.finish(env, back, status, done);
            self.stats.completed += 1;
        }
        Ok(Wants::Nothing)
    }

    /// How a command ended that was not queued, and did not stop the port.
    fn status_of(&self, tfd: TaskFileData, slot: u8) -> Status {
        let status = AtaStatus(tfd.status());
        if status.is_error() {
            return Err(AtaError(tfd.error()).failure(status));
        }
        let job = self.rooms.get(usize::from(slot)).and_then(|room| room.slot.job());
        let short = job
            .is_some_and(|job| job.op().has_data() && u64::from(self.memory.transferred(slot)) != job.len());
        if short { Err(Failure::Device) } else { Ok(()) }
    }

    /// Takes a request back and puts it to `done`.
    fn finish<W>(&mut self, env: &Env<'_, H, W>, back: Back, status: Status, done: &mut JobList) {
        let Some(room) = self.rooms.get_mut(usize::from(back.slot())) else { return };
        room.tries = 0;
        if let Some(job) = room.slot.take_back(env.hal, back) {
            self.stats.errors += u64::from(status.is_err());
            done.push(ended(job, status));
        }
    }

    /// Ends what is not in the adapter's hands and late.
    fn expire<W>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) {
        let now = env.now;
        if self.parked_due <= now {
            self.parked_due = Instant::FAR_FUTURE;
            for job in core::mem::take(&mut self.parked) {
                if job.deadline() <= now {
                    done.push(ended(job, Err(Failure::Timeout)));
                } else {
                    self.parked_due = self.parked_due.min(job.deadline());
                    self.parked.push(job);
                }
            }
        }
        // What was recalled, while the port recovers.
        for slot in bits(self.slots.taken() & !self.slots.issued()) {
            let late = self.rooms.get(usize::from(slot)).is_some_and(|room| room.due <= now);
            if late && let Some(back) = self.slots.withdraw(slot) {
                self.stats.timeouts += 1;
                self.finish(env, back, Err(Failure::Timeout), done);
            }
        }
    }

    /// Issues what waits, as far as there is room: one write for a batch, two if it is queued.
    fn fill<W: Window>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) {
        let Some(device) = self.device else { return };
        let depth = self.depth(&device);
        self.alone &= !self.slots.is_idle();
        while !self.alone {
            let alone = !self.suspects.is_empty();
            if alone && !self.slots.is_idle() {
                break;
            }
            let from = if alone { &mut self.suspects } else { &mut self.parked };
            let Some(job) = from.pop() else { break };
            let class = device.class_of(&job);
            let Some(slot) = self.slots.take(class, depth) else {
                unpop(from, job);
                break;
            };
            match self.start(env, &device, job, slot) {
                Started::Sent => self.alone = alone,
                Started::Failed(job) => done.push(job),
                Started::Later(job) => {
                    // Something that is under way comes back and gives room; if nothing is, nothing will.
                    if self.slots.is_idle() {
                        done.push(ended(job, Err(Failure::NoMemory)));
                        continue;
                    }
                    unpop(if alone { &mut self.suspects } else { &mut self.parked }, job);
                    break;
                }
            }
        }
        self.issue(env);
    }

    /// Tells the adapter of what is taken and not issued.
    fn issue<W: Window>(&mut self, env: &Env<'_, H, W>) {
        let was_idle = self.slots.issued() == 0;
        let new = self.slots.issue();
        if new == 0 {
            return;
        }
        if was_idle {
            self.look = env.now.saturating_add(LOOK);
        }
        self.stats.issued += u64::from(new.count_ones());
        self.stats.batches += 1;
        // Tables and headers before the registers.
        self.memory.wmb();
        if self.slots.class() == Class::Queued {
            self.stats.queued += u64::from(new.count_ones());
            self.regs.sact().write(env.window, new);
        }
        self.regs.ci().write(env.window, new);
    }

    /// How many queued commands are sent at a time.
    fn depth(&self, device: &Device) -> u8 {
        // A device that fails them again and again gets one at a time, for a while.
        if self.queue_trouble.1 >= trouble::QUEUE_TROUBLES { 1 } else { device.info.queue_depth }
    }

    fn start<W: Window>(&mut self, env: &Env<'_, H, W>, device: &Device, job: BioJob, slot: u8) -> Started {
        let (op, offset, len) = (job.op(), job.offset(), job.len());
        let timeout = if op.has_data() { env.config.io_timeout } else { env.config.flush_timeout };
        let due = job.deadline().min(env.now.saturating_add(timeout));
        let composed = device.command(&job, slot);
        let Some(room) = self.rooms.get_mut(usize::from(slot)) else {
            return Started::Failed(ended(job, Err(Failure::Device)));
        };
        let mut table = self.memory.prdt(slot);
        let addr_mask = if env.cap.s64a() { u64::MAX } else { u32::MAX.into() };
        let lent = room.slot.lend(env.hal, job, &mut table, addr_mask);
        let (failure, retry) = match (composed, lent) {
            (Ok((taskfile, cdb)), Ok(mut entries)) => {
                if op == Op::Discard {
                    let shift = device.info.block_shift;
                    let entry = self.memory.set_ranges(offset >> shift, len >> shift);
                    self.memory.prdt(slot).set(0, entry);
                    entries = 1;
                }
                let flags = HeaderFlags::new().with_w(matches!(op, Op::Write | Op::Discard));
                let header = self.memory.command(slot, &taskfile, cdb, flags, entries);
                self.memory.set_header(slot, header);
                (room.due, room.header, room.tries) = (due, header, 0);
                return Started::Sent;
            }
            (Err(failure), _) => (failure, false),
            (_, Err(LendError::Dma(DmaError::Exhausted))) => (Failure::NoMemory, true),
            (_, Err(LendError::Dma(DmaError::Unmappable(_)) | LendError::Prdt(PrdtError::Odd { .. }))) => {
                (Failure::Misaligned, false)
            }
            (_, Err(LendError::Prdt(_))) => (Failure::TooLong, false),
            (_, Err(LendError::Dma(_) | LendError::InUse)) => (Failure::Device, false),
        };
        let job = self.slots.withdraw(slot).and_then(|back| room.slot.take_back(env.hal, back));
        match job {
            Some(job) if retry => Started::Later(job),
            Some(job) => Started::Failed(ended(job, Err(failure))),
            // It was in use, which the slots' own account rules out; what is there ends with its own command.
            None => Started::Sent,
        }
    }

    /// Everything that is not in the adapter's hands, with this end.
    fn end_all<W>(&mut self, env: &Env<'_, H, W>, failure: Failure, done: &mut JobList) {
        for slot in bits(self.slots.taken()) {
            if let Some(back) = self.slots.withdraw(slot) {
                self.finish(env, back, Err(failure), done);
            }
        }
        let waiting = [core::mem::take(&mut self.suspects), core::mem::take(&mut self.parked)];
        done.extend(waiting.into_iter().flatten().map(|job| ended(job, Err(failure))));
        if let Some(pass) = &mut self.pass {
            pass.state = PassState::Done(PassResult::Gone);
        }
    }

    /// Everything, of an adapter that was seen stopped: what is late has timed out, the rest ends as `failure`.
    pub(crate) fn end_stopped<W>(
        &mut self,
        env: &Env<'_, H, W>,
        halted: &Halted,
        failure: Failure,
        done: &mut JobList,
    ) {
        self.slots.recall(halted);
        self.expire(env, done);
        self.end_all(env, failure, done);
        self.close();
    }

    /// What waits; and the slots, which an adapter that does not stop may use for ever, to be abandoned without the lock.
    pub(crate) fn end_unstopped<W>(
        &mut self,
        env: &Env<'_, H, W>,
        failure: Failure,
        done: &mut JobList,
    ) -> Vec<Slot> {
        self.end_all(env, failure, done);
        self.close();
        core::mem::take(&mut self.rooms).into_iter().map(|room| room.slot).collect()
    }

    /// The adapter is being reset: nothing is done until it is.
    pub(crate) fn suspend(&mut self) {
        self.step = Step::Suspended;
    }

    /// Nothing more is taken.
    fn close(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.device = None;
        self.step = Step::Suspended;
    }
}

/// `job`, with its end written down; whoever has no lock passes it on.
pub(crate) fn ended(mut job: BioJob, status: Status) -> BioJob {
    job.set_status(status);
    job
}

/// Puts `job` back to the front.
fn unpop(list: &mut JobList, job: BioJob) {
    let mut front = JobList::from(job);
    front.append(list);
    *list = front;
}
