//! Bringing a port up, after power-on, after a reset, after an error: one state machine for all of these.
//!
//! ```text
//!               +--------------------- something failed -----------------------+
//!               v                                                              |
//!   Live --> Stopping --> Resetting --> Linking --> Settling --> Starting --> Asking .. --> Live
//!               |  ST=0     COMRESET    DET=3       BSY=DRQ=0     ST=1         IDENTIFY, log page, ..
//!               |                          |
//!               +-- nothing but a restart -+--> Starting            Linking, nobody there --> Empty
//! ```
//!
//! Each step has a deadline; when it passes, the next attempt tries harder: a COMRESET, a slower link, an HBA reset, and
//! then the port is dead until something is plugged in.

use core::ops::ControlFlow;
use core::time::Duration;

use dfly_bio::{Failure, JobList};
use dfly_hal::Instant;
use dfly_hal::dma::Dma;
use dfly_hal::regs::Window;

use super::memory::{OWN_SLOT, Own};
use super::{Env, LOOK, PassState, Port, SECTOR, Wants, ended};
use crate::device::Device;
use crate::slots::{Halted, bits};
use crate::spec::{
    AtaStatus, Capacity, Cdb, Command, D2h, Feature, HeaderFlags, Identify, PortInterrupts, ReceivedAt,
    SataControl, Sense, SenseKey, Signature, Taskfile,
};
use crate::{LinkPower, PassResult, PortFailure, Returned, Transport, Unusable};

/// The first pause between two looks; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_micros(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(1);
/// COMRESET is sent for at least so long [10.4.2].
const RESET: Duration = Duration::from_millis(1);
/// Somebody who is there shows a sign of life in this long; who comes later is told of by an interrupt.
const PRESENCE: Duration = Duration::from_millis(50);
/// How long a link takes to come up.
const LINK: Duration = Duration::from_secs(3);
/// How long a device takes to become ready after a reset: it may have to spin up.
const READY: Duration = Duration::from_secs(10);
/// How long a device takes to answer a question.
const ANSWER: Duration = Duration::from_secs(10);
/// How often a packet device may say that it is not ready yet.
const NOT_YETS: u8 = 100;
/// How long it is left alone then.
const NOT_YET: Duration = Duration::from_millis(100);
/// Steps without a pause: a device cannot keep us.
const STEPS: usize = 64;

/// What a port is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The adapter is reset, or gone, or let go: nothing is done.
    Suspended,
    /// Nobody is there.
    Empty,
    /// ST was cleared.
    Stopping,
    /// COMRESET is being sent.
    Resetting,
    /// The link comes up.
    Linking,
    /// The device becomes ready.
    Settling,
    /// The device is left alone for a while before the next question.
    Resting,
    /// The engine may be started.
    Starting,
    /// A command of the port's own is under way.
    Asking(Question),
    /// Requests are served.
    Live,
    /// Somebody is there who is of no use.
    Unusable(Unusable),
    /// Given up.
    Dead(PortFailure),
}

/// What the port itself asks a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// IDENTIFY DEVICE.
    Identify,
    /// IDENTIFY PACKET DEVICE.
    IdentifyPacket,
    /// READ CAPACITY.
    Capacity,
    /// REQUEST SENSE: about the read in this slot, or about the question before.
    Sense(Option<u8>),
    /// SET FEATURES: the device may lower the link's power.
    Power,
    /// READ LOG EXT, page 10h.
    Log,
    /// What the embedder wants.
    Pass,
}

type Flow = ControlFlow<Wants>;
const GO: Flow = ControlFlow::Continue(());
const PAUSE: Flow = ControlFlow::Break(Wants::Nothing);

impl<H: Dma + Clone> Port<H> {
    pub(super) fn enter(&mut self, step: Step, now: Instant, limit: Duration) {
        self.step = step;
        self.until = now.saturating_add(limit);
        self.pause = FIRST_PAUSE;
    }

    /// Not yet; perhaps it never will.
    fn not_yet<W: Window>(&mut self, env: &Env<'_, H, W>, why: PortFailure) -> Flow {
        if env.now >= self.until {
            return self.failed(env, why);
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        PAUSE
    }

    /// Goes on until there is something to wait for.
    pub(super) fn go_on<W: Window>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) -> Wants {
        for _ in 0..STEPS {
            let flow = match self.step {
                Step::Suspended => PAUSE,
                Step::Live => match self.serve(env, done) {
                    Wants::Nothing if self.step == Step::Live => PAUSE,
                    Wants::Nothing => GO,
                    wants => ControlFlow::Break(wants),
                },
                Step::Empty | Step::Unusable(_) | Step::Dead(_) => self.watch(env, done),
                Step::Stopping => self.stopping(env, done),
                Step::Resetting => self.resetting(env, done),
                Step::Linking => self.linking(env, done),
                Step::Settling => self.settling(env),
                Step::Resting => self.resting(env),
                Step::Starting => self.starting(env),
                Step::Asking(question) => self.asking(env, question, done),
            };
            if let ControlFlow::Break(wants) = flow {
                return wants;
            }
        }
        Wants::Nothing
    }

    /// The adapter was reset: everything begins anew. What was under way is issued again if the device is still the same.
    pub(crate) fn power_up<W: Window>(&mut self, env: &Env<'_, H, W>, halted: Halted, done: &mut JobList) {
        self.halted = Some(halted);
        self.settle(env, done);
        self.forget_question(env, done);
        let (list, received) = self.memory.bases();
        self.memory.forget_received();
        self.regs.clb().write(env.window, list as u32);
        self.regs.fb().write(env.window, received as u32);
        if env.cap.s64a() {
            self.regs.clbu().write(env.window, (list >> 32) as u32);
            self.regs.fbu().write(env.window, (received >> 32) as u32);
        }
        self.regs.sctl().write(env.window, self.control(env));
        self.regs.is().write(env.window, PortInterrupts::from_bits(u32::MAX));
        self.clear_errors(env);
        self.seen = PortInterrupts::new();
        self.memory.wmb();
        let cmd = self.regs.cmd().read(env.window);
        self.regs.cmd().write(env.window, cmd.with_fre(true).with_sud(true).with_pod(true).with_icc(1));
        self.reset_wanted = false;
        self.fate = None;
        self.enter(Step::Linking, env.now, LINK);
        if self.attempts > 3 {
            self.retire(env, Step::Dead(PortFailure::NoAnswer), done);
        }
    }

    /// Nobody is in the middle of a question any more, and what depended on its answer is found out one by one.
    fn forget_question<W>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) {
        let asked = self.asked.take();
        match asked.or(self.ask.take()) {
            Some(Question::Log) => self.accuse(env, done),
            Some(Question::Sense(Some(slot))) => self.sentence(env, slot, Failure::Device, true, done),
            _ => {}
        }
        self.ask = None;
        self.candidate = None;
        if let Some(pass) = &mut self.pass
            && matches!(pass.state, PassState::Runs)
        {
            pass.state = PassState::Done(PassResult::TimedOut);
        }
    }

    /// The link's speed and what it may do to save power.
    fn control<W>(&self, env: &Env<'_, H, W>) -> SataControl {
        // Device sleep stays forbidden; it needs a wire that few boards have.
        let forbidden = match env.config.link_power {
            _ if !env.cap.salp() => 7,
            LinkPower::Performance => 7,
            LinkPower::Partial => 6,
            LinkPower::Slumber => 4,
        };
        SataControl::new().with_ipm(forbidden).with_spd(self.speed)
    }

    fn stopping<W: Window>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) -> Flow {
        let cmd = self.regs.cmd().read(env.window);
        if cmd.is_gone() {
            return ControlFlow::Break(Wants::Gone);
        }
        if cmd.cr() {
            if env.now < self.until {
                return self.not_yet(env, PortFailure::NotStopped);
            }
            self.attempts = self.attempts.max(2) + 1;
            return ControlFlow::Break(Wants::Reset);
        }
        self.halted = Some(Halted::seen());
        if let Some(fate) = self.fate.take() {
            self.retire(env, fate, done);
            return GO;
        }
        if self.reset_wanted {
            self.begin_reset(env);
            return GO;
        }
        self.settle(env, done);
        if self.regs.tfd().read(env.window).is_busy() {
            self.begin_reset(env);
        } else {
            self.enter(Step::Starting, env.now, ANSWER);
        }
        GO
    }

    fn begin_reset<W: Window>(&mut self, env: &Env<'_, H, W>) {
        self.stats.resets += 1;
        self.reset_wanted = false;
        self.regs.sctl().write(env.window, self.control(env).with_det(1));
        self.enter(Step::Resetting, env.now, RESET);
        self.pause = RESET;
    }

    fn resetting<W: Window>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) -> Flow {
        if env.now < self.until {
            return PAUSE;
        }
        self.memory.forget_received();
        self.regs.sctl().write(env.window, self.control(env));
        // Only now: there are adapters that go on moving data when their engine has stopped.
        self.settle(env, done);
        self.forget_question(env, done);
        self.enter(Step::Linking, env.now, LINK);
        GO
    }

    fn linking<W: Window>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) -> Flow {
        let ssts = self.regs.ssts().read(env.window);
        if ssts.is_up() {
            self.clear_errors(env);
            self.enter(Step::Settling, env.now, READY);
            return GO;
        }
        if ssts.into_bits() == u32::MAX {
            return ControlFlow::Break(Wants::Gone);
        }
        let begun = LINK.saturating_sub(self.until.saturating_since(env.now));
        if matches!(ssts.det(), 0 | 4) && begun >= PRESENCE {
            self.clear_errors(env);
            // Who came in the meantime has been seen just now, or will be told of.
            self.retire(env, Step::Empty, done);
            return GO;
        }
        self.not_yet(env, PortFailure::NoLink)
    }

    fn settling<W: Window>(&mut self, env: &Env<'_, H, W>) -> Flow {
        let tfd = self.regs.tfd().read(env.window);
        if tfd.into_bits() == u32::MAX && self.regs.cmd().read(env.window).is_gone() {
            return ControlFlow::Break(Wants::Gone);
        }
        if !tfd.is_busy() {
            // Whatever was known of it is to be found out again.
            self.ask = Some(match Signature(self.regs.sig().read(env.window)) {
                Signature::ATAPI => Question::IdentifyPacket,
                Signature::MULTIPLIER => return self.useless(env, Unusable::Multiplier),
                Signature::ENCLOSURE => return self.useless(env, Unusable::Enclosure),
                // Of a disk, or of nobody that is known: its answer says.
                _ => Question::Identify,
            });
            self.enter(Step::Starting, env.now, ANSWER);
            return GO;
        }
        if !self.regs.ssts().read(env.window).is_up() {
            return self.failed(env, PortFailure::NoLink);
        }
        self.not_yet(env, PortFailure::Busy)
    }

    fn resting<W: Window>(&mut self, env: &Env<'_, H, W>) -> Flow {
        if env.now < self.until {
            self.pause = NOT_YET;
            return PAUSE;
        }
        self.enter(Step::Starting, env.now, ANSWER);
        GO
    }

    /// Starts the engine: nothing is issued, FISes are received, the device is not busy [10.3.1].
    fn starting<W: Window>(&mut self, env: &Env<'_, H, W>) -> Flow {
        let cmd = self.regs.cmd().read(env.window);
        if cmd.is_gone() {
            return ControlFlow::Break(Wants::Gone);
        }
        if !cmd.st() {
            self.halted = None;
            self.seen = PortInterrupts::new();
            self.regs.is().write(env.window, PortInterrupts::from_bits(u32::MAX));
            self.clear_errors(env);
            self.regs.cmd().write(env.window, cmd.with_st(true));
        }
        self.next(env)
    }

    /// The engine runs, and nothing is issued: the next question, or requests.
    fn next<W: Window>(&mut self, env: &Env<'_, H, W>) -> Flow {
        if let Some(question) = self.ask.take() {
            return self.put(env, question);
        }
        if self.device.is_none() {
            return self.failed(env, PortFailure::NoAnswer);
        }
        for slot in bits(self.slots.taken()) {
            if let Some(room) = self.rooms.get(usize::from(slot)) {
                self.memory.set_header(slot, room.header);
            }
        }
        self.save_power(env);
        self.forget_queue_trouble(env.now);
        self.attempts = 0;
        self.look = env.now.saturating_add(LOOK);
        self.enter(Step::Live, env.now, LOOK);
        GO
    }

    /// Tells the adapter how the link is to save power.
    fn save_power<W: Window>(&mut self, env: &Env<'_, H, W>) {
        if !env.cap.salp() {
            return;
        }
        let (alpe, asp) = match env.config.link_power {
            LinkPower::Performance => (false, false),
            LinkPower::Partial => (env.cap.psc(), false),
            LinkPower::Slumber => (env.cap.psc() || env.cap.ssc(), env.cap.ssc()),
        };
        let cmd = self.regs.cmd().read(env.window);
        if (cmd.alpe(), cmd.asp()) != (alpe, asp) {
            self.regs.cmd().write(env.window, cmd.with_alpe(alpe).with_asp(asp));
        }
    }

    /// Asks the device, by a command in a slot that is nobody's now.
    fn put<W: Window>(&mut self, env: &Env<'_, H, W>, question: Question) -> Flow {
        let packet = |cdb: Cdb, len| Own {
            taskfile: Taskfile::packet(),
            flags: HeaderFlags::new(),
            cdb: Some(cdb.0),
            len,
        };
        let plain = |taskfile, len| Own { taskfile, flags: HeaderFlags::new(), cdb: None, len };
        self.memory.clear_sectors();
        let mut limit = ANSWER;
        let own = match question {
            Question::Identify => plain(Taskfile::plain(Command::IDENTIFY_DEVICE), SECTOR as u32),
            Question::IdentifyPacket => {
                plain(Taskfile::plain(Command::IDENTIFY_PACKET_DEVICE), SECTOR as u32)
            }
            Question::Capacity => packet(Cdb::read_capacity(), size_of::<Capacity>() as u32),
            Question::Sense(_) => packet(Cdb::request_sense(), Sense::BYTES as u32),
            Question::Power => {
                let what = Feature::DEVICE_INITIATED_POWER.0;
                plain(Taskfile::set_features(Feature::ENABLE_SATA, what), 0)
            }
            Question::Log => plain(Taskfile::queued_error_log(), SECTOR as u32),
            Question::Pass => {
                let Some(pass) = &mut self.pass else { return self.next(env) };
                pass.state = PassState::Runs;
                limit = pass.command.timeout;
                let out = pass.command.transport == Transport::Out;
                for (index, bytes) in pass.data.chunks(SECTOR).enumerate() {
                    let mut sector = [0; SECTOR];
                    if let Some(front) = sector.get_mut(..bytes.len()) {
                        front.copy_from_slice(bytes);
                    }
                    self.memory.set_sector(index, sector);
                }
                let len = pass.data.len() as u32;
                let flags = HeaderFlags::new().with_w(out);
                Own { taskfile: pass.command.taskfile, flags, cdb: pass.command.cdb, len }
            }
        };
        self.memory.set_own(&own);
        self.memory.wmb();
        self.regs.ci().write(env.window, 1 << OWN_SLOT);
        self.asked = Some(question);
        self.enter(Step::Asking(question), env.now, limit);
        GO
    }

    fn asking<W: Window>(&mut self, env: &Env<'_, H, W>, question: Question, done: &mut JobList) -> Flow {
        let ci = self.regs.ci().read(env.window);
        let tfd = self.regs.tfd().read(env.window);
        if ci == u32::MAX && self.regs.cmd().read(env.window).is_gone() {
            return ControlFlow::Break(Wants::Gone);
        }
        if ci & 1 << OWN_SLOT == 0 {
            return match AtaStatus(tfd.status()).is_error() {
                true => self.refused(env, question, done),
                false => self.answered(env, question, done),
            };
        }
        // What the handler has seen, or would have.
        let seen = self.seen.or(self.regs.is().read(env.window));
        self.regs.is().write(env.window, seen);
        self.seen = seen;
        if seen.tfes() && !tfd.is_busy() {
            return self.refused(env, question, done);
        }
        if seen.any(PortInterrupts::BROKEN) {
            return self.failed(env, PortFailure::Interface);
        }
        if !self.regs.ssts().read(env.window).is_up() {
            return self.failed(env, PortFailure::NoLink);
        }
        self.not_yet(env, PortFailure::NoAnswer)
    }

    fn answered<W: Window>(&mut self, env: &Env<'_, H, W>, question: Question, done: &mut JobList) -> Flow {
        self.asked = None;
        match question {
            Question::Identify => {
                let id: Identify = self.memory.answer();
                let found = Device::disk(&id, env.cap.ncs_z() + 1, env.cap.sncq());
                return self.found(env, found, done);
            }
            Question::IdentifyPacket => {
                let id: Identify = self.memory.answer();
                self.candidate = Some((Device::reader(&id), 0));
                self.ask = Some(Question::Capacity);
            }
            Question::Capacity => match self.candidate.take() {
                Some((reader, _)) => {
                    let found = reader.with_disc(&self.memory.answer());
                    return self.found(env, found, done);
                }
                None => return self.failed(env, PortFailure::NoAnswer),
            },
            Question::Sense(None) => {
                let sense: Sense = self.memory.answer();
                return self.not_ready(env, &sense);
            }
            Question::Sense(Some(slot)) => {
                let sense: Sense = self.memory.answer();
                let attention = sense.key() == SenseKey::UNIT_ATTENTION;
                self.sentence(env, slot, sense.failure(), attention, done);
                if attention {
                    // Perhaps there is another disc in it.
                    self.ask = Some(Question::IdentifyPacket);
                }
            }
            Question::Log => self.read_log(env, done),
            Question::Power => {}
            Question::Pass => self.end_pass(env, PassResult::Done),
        }
        self.next(env)
    }

    /// The device does not do it. The engine has to be restarted after that.
    fn refused<W: Window>(&mut self, env: &Env<'_, H, W>, question: Question, done: &mut JobList) -> Flow {
        let tfd = self.regs.tfd().read(env.window);
        self.asked = None;
        match question {
            Question::Identify => self.ask = Some(Question::IdentifyPacket),
            Question::IdentifyPacket | Question::Sense(None) => {
                return self.useless(env, Unusable::Refused { status: tfd.status(), error: tfd.error() });
            }
            Question::Capacity => self.ask = Some(Question::Sense(None)),
            Question::Sense(Some(slot)) => self.sentence(env, slot, Failure::Device, false, done),
            // It cannot be asked, so each is to be tried.
            Question::Log => {
                self.accuse(env, done);
                self.reset_wanted = true;
            }
            Question::Power => {}
            Question::Pass => self.end_pass(env, PassResult::Failed),
        }
        match self.stop(env) {
            Wants::Nothing => GO,
            wants => ControlFlow::Break(wants),
        }
    }

    /// A packet device was asked for its disc's size and had a reason not to say it.
    fn not_ready<W: Window>(&mut self, env: &Env<'_, H, W>, sense: &Sense) -> Flow {
        let Some((reader, times)) = self.candidate.take() else {
            return self.failed(env, PortFailure::NoAnswer);
        };
        let again = match sense.key() {
            SenseKey::UNIT_ATTENTION => true,
            SenseKey::NOT_READY => sense.asc != Sense::NO_MEDIUM,
            _ => false,
        };
        if !again || times >= NOT_YETS {
            return self.useless(env, Unusable::NoMedium { key: sense.key().0, asc: sense.asc });
        }
        self.candidate = Some((reader, times + 1));
        self.ask = Some(Question::Capacity);
        if sense.key() == SenseKey::NOT_READY {
            self.enter(Step::Resting, env.now, NOT_YET);
            return GO;
        }
        self.next(env)
    }

    /// Somebody has said what it is.
    fn found<W: Window>(
        &mut self,
        env: &Env<'_, H, W>,
        found: Result<Device, Unusable>,
        done: &mut JobList,
    ) -> Flow {
        match found {
            Ok(device) if device.info.block_bytes() > self.memory.max_bytes() => {
                self.useless(env, Unusable::BlockBytes { bytes: device.info.block_bytes() })
            }
            Ok(device) => {
                self.adopt(env, device, done);
                self.next(env)
            }
            Err(why) => self.useless(env, why),
        }
    }

    /// Somebody was identified. Whoever was there before keeps what was asked of it only if it is the same.
    fn adopt<W>(&mut self, env: &Env<'_, H, W>, device: Device, done: &mut JobList) {
        let same = self.device.as_ref().is_some_and(|old| old.is_same_as(&device));
        if !same {
            self.leave(env, done);
            self.generation = self.generation.wrapping_add(1);
            self.stats.inserted += 1;
            self.changed = true;
        }
        self.device = Some(device);
        if device.device_initiated_power && env.cap.salp() && env.config.link_power == LinkPower::Slumber {
            self.ask = Some(Question::Power);
        }
    }

    /// Whoever was there is gone.
    fn leave<W>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) {
        if self.device.take().is_some() {
            self.generation = self.generation.wrapping_add(1);
            self.stats.removed += 1;
            self.changed = true;
        }
        self.queue_trouble.1 = 0;
        self.end_all(env, Failure::Gone, done);
    }

    /// What is there cannot be used.
    fn useless<W: Window>(&mut self, env: &Env<'_, H, W>, why: Unusable) -> Flow {
        self.fate = Some(Step::Unusable(why));
        match self.stop(env) {
            Wants::Nothing => GO,
            wants => ControlFlow::Break(wants),
        }
    }

    /// The engine is stopped and stays so.
    fn retire<W>(&mut self, env: &Env<'_, H, W>, to: Step, done: &mut JobList) {
        self.settle(env, done);
        self.forget_question(env, done);
        self.leave(env, done);
        if to == Step::Empty {
            (self.attempts, self.speed) = (0, 0);
        }
        self.enter(to, env.now, LOOK);
    }

    /// Nothing to do but to see who comes.
    fn watch<W: Window>(&mut self, env: &Env<'_, H, W>, done: &mut JobList) -> Flow {
        // Nobody should ask, and whoever does is answered.
        for job in core::mem::take(&mut self.parked) {
            done.push(ended(job, Err(Failure::Gone)));
        }
        if let Some(pass) = self.pass.as_mut().filter(|pass| !matches!(pass.state, PassState::Done(_))) {
            pass.state = PassState::Done(PassResult::Gone);
        }
        let seen = core::mem::take(&mut self.seen);
        if !seen.any(Self::TROUBLE) {
            return PAUSE;
        }
        self.clear_errors(env);
        if !seen.any(PortInterrupts::LINK) {
            return PAUSE;
        }
        let ssts = self.regs.ssts().read(env.window);
        if ssts.into_bits() == u32::MAX {
            return ControlFlow::Break(Wants::Gone);
        }
        if ssts.det() == 0 {
            self.enter(Step::Empty, env.now, LOOK);
            return PAUSE;
        }
        self.stats.link_changes += 1;
        (self.attempts, self.speed) = (0, 0);
        self.begin_reset(env);
        GO
    }

    /// Runs what the embedder wants; nothing else is under way.
    pub(super) fn begin_pass<W: Window>(&mut self, env: &Env<'_, H, W>) -> Wants {
        self.ask = Some(Question::Pass);
        match self.next(env) {
            ControlFlow::Break(wants) => wants,
            ControlFlow::Continue(()) => Wants::Nothing,
        }
    }

    fn end_pass<W: Window>(&mut self, env: &Env<'_, H, W>, how: fn(Returned) -> PassResult) {
        let tfd = self.regs.tfd().read(env.window);
        let fis: D2h = self.memory.received(ReceivedAt::D2h);
        let Some(pass) = &mut self.pass else { return };
        if pass.command.transport == Transport::In {
            for (index, bytes) in pass.data.chunks_mut(SECTOR).enumerate() {
                let sector = self.memory.sector(index);
                bytes.copy_from_slice(sector.get(..bytes.len()).unwrap_or_default());
            }
        }
        pass.state = PassState::Done(how(Returned {
            status: tfd.status(),
            error: tfd.error(),
            lba: fis.lba(),
            count: fis.count(),
            device: fis.device,
        }));
    }
}
