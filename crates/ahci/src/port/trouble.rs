//! When something goes wrong: who is to blame, and what becomes of the others.
//!
//! ```text
//!   Live --recover--> the engine stops; perhaps a COMRESET --settle--> the guilty is answered, the others are recalled
//! ```
//!
//! Whoever is recalled keeps its slot and its memory, and is issued again when the port is live.

use core::ops::ControlFlow;
use core::time::Duration;

use dfly_bio::{Failure, JobList};
use dfly_hal::Instant;
use dfly_hal::dma::Dma;
use dfly_hal::regs::Window;

use super::steps::{Question, Step};
use super::{Env, Port, TRIES, Wants};
use crate::slots::{Class, bits};
use crate::spec::{AtaError, AtaStatus, PortInterrupts, QueuedError, SataError};
use crate::{LinkPower, PortFailure};

/// How long an engine takes to stop, at most [10.3.2].
const STOP: Duration = Duration::from_millis(500);
/// So many failures of queued commands without a good reason ...
pub(super) const QUEUE_TROUBLES: u8 = 3;
/// ... within this long, and they go one at a time for as long.
const QUEUE_TROUBLE_TIME: Duration = Duration::from_secs(600);

/// Why a live port is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The device says that a command failed.
    Task,
    /// The interface or the host's bus failed.
    Interface,
    /// Something came or went.
    Link,
    /// A request is late.
    Late,
    /// The adapter did what none does.
    Broken,
}

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody, or whoever is late.
    Nobody,
    /// This one; if it is `transport`, it is tried again.
    One { slot: u8, failure: Failure, transport: bool },
    /// The log page says.
    AskLog,
    /// The packet device says why.
    AskSense { slot: u8 },
    /// One of these.
    Suspects(u32),
    /// All alike.
    All,
}

impl<H: Dma + Clone> Port<H> {
    /// What is not just a completion.
    pub(super) const TROUBLE: PortInterrupts =
        PortInterrupts::LINK.or(PortInterrupts::BROKEN).or(PortInterrupts::new().with_tfes(true));

    /// The interrupts that are wanted.
    pub(super) fn mask<W>(&self, env: &Env<'_, H, W>) -> PortInterrupts {
        let all = Self::TROUBLE.or(PortInterrupts::COMPLETIONS);
        // A link that saves power loses PhyRdy each time.
        all.with_prcs(!self.saves_power(env))
    }

    pub(super) fn saves_power<W>(&self, env: &Env<'_, H, W>) -> bool {
        env.cap.salp() && env.config.link_power != LinkPower::Performance
    }

    /// Clears what made the handler mask the port's interrupts, and says whether that is a reason to stop.
    ///
    /// What the handler noted may be of a time before the port was reset or restarted. So of the link PxSERR decides, which is
    /// cleared on the way up; and nobody is blamed for a failed command unless the device's registers say that one failed.
    pub(super) fn attend<W: Window>(&mut self, env: &Env<'_, H, W>, seen: PortInterrupts) -> Option<Why> {
        let serr = self.regs.serr().read(env.window);
        self.clear_errors(env);
        let changed = serr.x() || (serr.n() && !self.saves_power(env));
        if seen.any(PortInterrupts::LINK) && (changed || !self.regs.ssts().read(env.window).is_up()) {
            return Some(Why::Link);
        }
        if seen.any(PortInterrupts::BROKEN) {
            return Some(Why::Interface);
        }
        (seen.tfes() && self.slots.issued() != 0).then_some(Why::Task)
    }

    /// Clears PxSERR, which some interrupts show, and lets all come again.
    pub(super) fn clear_errors<W: Window>(&mut self, env: &Env<'_, H, W>) {
        self.regs.serr().write(env.window, SataError::ALL);
        self.regs.ie().write(env.window, self.mask(env));
    }

    /// Stops a live port.
    pub(super) fn recover<W: Window>(&mut self, env: &Env<'_, H, W>, why: Why) -> Wants {
        self.stats.recoveries += 1;
        match why {
            Why::Task => self.stats.task_errors += 1,
            Why::Interface | Why::Broken => self.stats.interface_errors += 1,
            Why::Link => self.stats.link_changes += 1,
            Why::Late => {}
        }
        let queued = self.slots.class() == Class::Queued;
        self.reset_wanted |= why != Why::Task;
        self.verdict = match why {
            Why::Task => self.judge(env),
            Why::Late => Verdict::Nobody,
            Why::Interface | Why::Link | Why::Broken => Verdict::All,
        };
        if queued && matches!(why, Why::Interface | Why::Late | Why::Broken) {
            self.note_queue_trouble(env.now);
        }
        self.stop(env)
    }

    /// Clears ST; the rest happens in steps.
    pub(super) fn stop<W: Window>(&mut self, env: &Env<'_, H, W>) -> Wants {
        let cmd = self.regs.cmd().read(env.window);
        if cmd.is_gone() {
            return Wants::Gone;
        }
        self.regs.cmd().write(env.window, cmd.with_st(false));
        self.enter(Step::Stopping, env.now, STOP);
        Wants::Nothing
    }

    /// Who made the device say that a command failed. What has completed was reaped before.
    fn judge<W: Window>(&mut self, env: &Env<'_, H, W>) -> Verdict {
        let issued = self.slots.issued();
        let tfd = self.regs.tfd().read(env.window);
        if tfd.into_bits() == u32::MAX {
            // Gone, as will be seen.
            return Verdict::Nobody;
        }
        self.last_error = (AtaStatus(tfd.status()), AtaError(tfd.error()));
        let (status, error) = self.last_error;
        let one = |this: &Self, slot| {
            let failure = this.failure_of(slot, status, error);
            Verdict::One { slot, failure, transport: may_pass(status, error) }
        };
        let Some(device) = self.device else { return Verdict::All };
        if self.slots.class() == Class::Single {
            return match bits(issued).next() {
                Some(slot) if device.is_packet() => Verdict::AskSense { slot },
                Some(slot) => one(self, slot),
                None => Verdict::Nobody,
            };
        }
        if device.logs {
            return Verdict::AskLog;
        }
        // The device may want to be asked, and does not know how to; and what else was sent may still be at work.
        self.reset_wanted = true;
        let (sact, ci) = (self.regs.sact().read(env.window), self.regs.ci().read(env.window));
        // Sent, and not finished.
        let sent = sact & !ci & issued;
        if sent.is_power_of_two() {
            return one(self, sent.trailing_zeros() as u8);
        }
        Verdict::Suspects(if sent == 0 { issued } else { sent })
    }

    /// What the device's registers say of the request in `slot`.
    fn failure_of(&self, slot: u8, status: AtaStatus, error: AtaError) -> Failure {
        let job = self.rooms.get(usize::from(slot)).and_then(|room| room.slot.job());
        match error.failure(status) {
            // It reads and writes: that it aborts one means that it could not (QEMU says so of every error).
            Failure::Unsupported if job.is_some_and(|job| job.op().has_data()) => Failure::Device,
            failure => failure,
        }
    }

    fn note_queue_trouble(&mut self, now: Instant) {
        let (since, count) = self.queue_trouble;
        let long_ago = now.saturating_since(since) > QUEUE_TROUBLE_TIME;
        self.queue_trouble =
            (if long_ago { now } else { since }, if long_ago { 1 } else { count.saturating_add(1) });
    }

    /// Forgets troubles of long ago.
    pub(super) fn forget_queue_trouble(&mut self, now: Instant) {
        if now.saturating_since(self.queue_trouble.0) > QUEUE_TROUBLE_TIME {
            self.queue_trouble = (now, 0);
        }
    }

    /// The engine has stopped, and nothing goes on behind it: everything is recalled, and the verdict carried out.
    pub(super) fn settle<W>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) {
        let Some(halted) = &self.halted else { return };
        self.slots.recall(halted);
        match core::mem::replace(&mut self.verdict, Verdict::Nobody) {
            Verdict::Nobody => {}
            Verdict::One { slot, failure, transport } => self.sentence(env, slot, failure, transport, done),
            Verdict::AskLog => self.ask = Some(Question::Log),
            Verdict::AskSense { slot } => self.ask = Some(Question::Sense(Some(slot))),
            Verdict::Suspects(slots) => self.suspect(env, slots),
            Verdict::All => {
                for slot in bits(self.slots.taken()) {
                    self.sentence(env, slot, Failure::Device, true, done);
                }
            }
        }
        self.expire(env, done);
    }

    /// A request failed: it is tried again, if that may help and was not done too often, or answered.
    pub(super) fn sentence<W>(
        &mut self,
        env: &Env<'_, H, W>,
        slot: u8,
        failure: Failure,
        transport: bool,
        done: &mut JobList,
    ) {
        let Some(room) = self.rooms.get_mut(usize::from(slot)) else { return };
        if transport && room.tries < TRIES {
            room.tries += 1;
            self.stats.retries += 1;
            return;
        }
        if let Some(back) = self.slots.withdraw(slot) {
            self.finish(env, back, Err(failure), done);
        }
    }

    /// Each of these is to be issued with nothing beside it.
    fn suspect<W>(&mut self, env: &Env<'_, H, W>, slots: u32) {
        for slot in bits(slots & self.slots.taken()) {
            let Some(room) = self.rooms.get_mut(usize::from(slot)) else { continue };
            let job = self.slots.withdraw(slot).and_then(|back| room.slot.take_back(env.hal, back));
            if let Some(job) = job {
                self.suspects.push(job);
            }
        }
    }

    /// A queued command failed, and there is no log page to say which.
    pub(super) fn accuse<W>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) {
        let taken = self.slots.taken();
        if taken.is_power_of_two() {
            let (status, error) = self.last_error;
            let slot = taken.trailing_zeros() as u8;
            self.sentence(env, slot, self.failure_of(slot, status, error), may_pass(status, error), done);
        } else {
            self.suspect(env, taken);
        }
    }

    /// The log page has arrived.
    pub(super) fn read_log<W>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) {
        let page: QueuedError = self.memory.answer();
        match page.failed_tag().filter(|&tag| self.slots.taken() >> tag & 1 != 0) {
            Some(slot) => {
                let error = AtaError(page.error);
                let failure = self.failure_of(slot, AtaStatus(page.status), error);
                self.sentence(env, slot, failure, error.is_transport(), done);
            }
            None => {
                self.note_queue_trouble(env.now);
                self.accuse(env, done);
            }
        }
    }

    /// An attempt to bring the port up has failed: the next one tries harder.
    pub(super) fn failed<W: Window>(&mut self, env: &Env<'_, H, W>, why: PortFailure) -> ControlFlow<Wants> {
        self.attempts += 1;
        match self.attempts {
            1 => {}
            // Slower than what was tried.
            2 => {
                let speed = self.regs.ssts().read(env.window).spd();
                self.speed = speed.saturating_sub(1).max(1);
            }
            3 => return ControlFlow::Break(Wants::Reset),
            _ => self.fate = Some(Step::Dead(why)),
        }
        self.reset_wanted = true;
        match self.stop(env) {
            Wants::Nothing => ControlFlow::Continue(()),
            wants => ControlFlow::Break(wants),
        }
    }
}

/// Whether to try again may help: it was the interface, or the registers do not say that anything failed. (With QEMU those of
/// the others, who go on and succeed, take the place of what the failed one has left there.)
const fn may_pass(status: AtaStatus, error: AtaError) -> bool {
    error.is_transport() || !status.is_error()
}
