//! Send, drain, and what a CPU does when a queue is full.

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::compiler_fence;

use dfly_hal::sync::NoPreemption;
use dfly_hal::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use dfly_hal::sync::hint::Backoff;
use dfly_hal::{CpuId, Cpus};

use super::cx::IrqCx;
use super::error::{SendError, SetupError, SyncError};
use super::mask::{AtomicCpuMask, CpuMask, MAX_CPUS};
use super::raw::{Errand, Fifo, Line, Loan, Message};

/// How many callbacks may be inside each other on one CPU.
pub(super) const NEST_MAX: usize = 20;

/// In a word of `Cpu::pending`: the CPU has been interrupted, or soon will be.
const KICK: usize = 1 << (usize::BITS - 1);
/// Senders in a word of `Cpu::pending`.
const SENDERS: usize = usize::BITS as usize - 1;

/// One FIFO for each pair of CPUs, and what they need around it. Shared by all CPUs, usually in a static or an `Arc`.
///
/// `DEPTH` is the number of messages that a pair's queue can hold, a power of two; a queue takes 32 bytes for each, and
/// there are count * count queues.
///
/// Each CPU calls [`start`](Self::start) once, [`drain`](Self::drain) from its IPI handler, and [`tick`](Self::tick) now
/// and then, usually from its timer's handler; a CPU that is a host thread calls them at points of its choosing.
///
/// Everything here is safe to call from anywhere, at any instruction. Messages of one sender arrive in the order in which
/// they were sent where nothing else runs on a CPU while a [`NoPreemption`] lives but interrupt handlers, which return
/// first.
pub struct IpiQueues<C, const DEPTH: usize = 256> {
    machine: C,
    online: AtomicCpuMask,
    /// Somebody has CPUs stopped, or is about to.
    pub(super) interlock: AtomicBool,
    cpus: Box<[Cpu]>,
    /// The queue from `s` to `r` is at `s * count + r`: a sender's are side by side.
    fifos: Box<[Fifo<DEPTH>]>,
}

/// One CPU, as the others see it, and as it sees itself.
pub(super) struct Cpu {
    /// Who has sent to it and been told apart: a bit for each sender, and KICK.
    pending: Line<Box<[AtomicUsize]>>,
    /// Who waits for room in the queue to it.
    stalled: Box<[AtomicUsize]>,
    pub(super) own: Line<Own>,
    pub(super) errand: Errand,
    /// While it has others stopped: how many of them have not stopped yet.
    pub(super) to_stop: AtomicUsize,
    /// While it has others stopped: they may go on.
    pub(super) go: AtomicBool,
}

/// What a CPU alone writes; its interrupt handlers nest.
pub(super) struct Own {
    /// How many drains and callbacks it is in.
    nest: AtomicUsize,
    /// A drain came while it was in another one.
    deferred: AtomicBool,
    /// Who wants it stopped: the number of the CPU, plus one.
    pub(super) held_by: AtomicUsize,
    raised: AtomicU64,
    passive: AtomicU64,
    stalls: AtomicU64,
    pub(super) syncs: AtomicU64,
}

/// Whether the receiver is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    Active,
    Passive,
}

/// Which message: what [`IpiQueues::wait`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    from: CpuId,
    to: CpuId,
    filled: usize,
}

impl Ticket {
    /// The CPU that it was sent to.
    pub fn to(&self) -> CpuId {
        self.to
    }
}

/// What a CPU has done. The counts of one CPU may miss an event that an interrupt handler caused at the same moment;
/// `sent` and `received` are exact. They wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IpiStats {
    /// Messages sent to other CPUs, passive ones included (`ipiq_count`).
    pub sent: u64,
    /// Messages sent that interrupted nobody (`ipiq_passive`).
    pub passive: u64,
    /// Messages received from other CPUs.
    pub received: u64,
    /// Hardware IPIs raised, to itself included.
    pub raised: u64,
    /// How often a queue was full (`ipiq_fifofull`).
    pub stalls: u64,
    /// Functions run on other CPUs (`ipiq_cscount`).
    pub syncs: u64,
}

/// How many messages may be queued before a sender waits.
struct Marks;

impl Marks {
    /// A passive send of one more becomes an active one: far below `most`, so that a queue of which nobody was told makes
    /// nobody wait.
    const fn passive(depth: usize) -> usize {
        depth / 4 - (depth >= 4) as usize
    }

    /// A sender waits above the first, until there are no more than the second. One inside a callback may use nearly all
    /// of the queue, so that it seldom has to wait, which nests.
    const fn most(depth: usize, nested: bool) -> (usize, usize) {
        let reserve = if depth >= 32 { 2 } else { 0 };
        let top = depth - 1 - reserve;
        if nested { (top, top - reserve) } else { (depth / 2, depth / 4) }
    }
}

impl<C: Cpus, const DEPTH: usize> IpiQueues<C, DEPTH> {
    /// Queues for the CPUs of a machine, of which none takes part yet. The only place that allocates.
    pub fn new(machine: C) -> Result<Self, SetupError> {
        Self::starting_at(machine, 0)
    }

    /// Queues whose indexes begin with `first`: for tests of what happens when they wrap. Their statistics begin there, too.
    #[doc(hidden)]
    pub fn starting_at(machine: C, first: usize) -> Result<Self, SetupError> {
        let count = machine.count();
        match count as usize {
            0 => return Err(SetupError::NoCpu),
            1..=MAX_CPUS => {}
            _ => return Err(SetupError::TooManyCpus(count)),
        }
        let count = count as usize;
        Ok(Self {
            machine,
            online: AtomicCpuMask::default(),
            interlock: AtomicBool::new(false),
            cpus: (0..count).map(|_| Cpu::new(count.div_ceil(SENDERS))).collect(),
            fifos: (0..count * count).map(|_| Fifo::starting_at(first)).collect(),
        })
    }

    /// The calling CPU takes part from now on: it handles its IPIs. What was sent to it before is called now.
    pub fn start(&self) -> Result<(), SendError> {
        let _here = NoPreemption::new();
        let (me, _) = self.this().ok_or(SendError::NotACpu)?;
        self.online.insert(me, Ordering::AcqRel);
        self.tick();
        Ok(())
    }

    /// The calling CPU takes no part from now on: nobody waits for it. Functions that others are about to run here are run
    /// first. What is sent to it afterwards waits for its next [`start`](Self::start).
    ///
    /// Thread context; spins until the others do not need it any more.
    pub fn stop(&self) -> Result<(), SyncError> {
        let _here = NoPreemption::new();
        let (me, cpu) = self.this().ok_or(SyncError::NotACpu)?;
        if cpu.is_nested() {
            return Err(SyncError::InCallback);
        }
        self.online.remove(me, Ordering::AcqRel);
        // With the fence in `take_errand`: either who takes an errand sees this CPU offline, or it is waited for here.
        fence(Ordering::SeqCst);
        let backoff = Backoff::new();
        while self.cpus.iter().any(|other| other.errand.is_taken()) {
            self.drain();
            backoff.snooze();
        }
        self.tick();
        Ok(())
    }

    /// The CPUs that take part.
    pub fn online(&self) -> CpuMask {
        self.online.load(Ordering::Acquire)
    }

    /// Calls `f` on the CPU `to`, soon: interrupts it, unless it has been interrupted already and has not looked yet.
    /// Messages of one CPU to another are called in order. To the calling CPU itself it is a function call, before
    /// this returns.
    ///
    /// `f` captures at most two words (checked by the compiler) and runs as an interrupt handler does. It must be short,
    /// for its CPU does nothing else meanwhile.
    ///
    /// From any context. While the queue is full this waits for `to`, and calls what waiting CPUs have sent here
    /// meanwhile, so two CPUs that fill each other's queues go on. An interrupt handler may send a quarter of `DEPTH`
    /// to each CPU without ever waiting for what it interrupted.
    pub fn send(&self, to: CpuId, f: impl FnOnce(&IrqCx<'_>) + Send + 'static) -> Result<Ticket, SendError> {
        self.post(to, Message::new(f), Urgency::Active)
    }

    /// Calls `f` on the CPU `to` when that CPU next takes what this one has sent: at its next [`tick`](Self::tick), or with
    /// the next [`send`](Self::send). Interrupts nobody, unless a quarter of the queue is taken. Otherwise as `send`.
    pub fn send_passive(
        &self,
        to: CpuId,
        f: impl FnOnce(&IrqCx<'_>) + Send + 'static,
    ) -> Result<Ticket, SendError> {
        self.post(to, Message::new(f), Urgency::Passive)
    }

    /// Sends `f` to each CPU of a mask that takes part, the calling one included, and returns how many these are. The
    /// round begins with the calling CPU. An error ends it, and does not say how many were sent before.
    pub fn send_mask(
        &self,
        to: &CpuMask,
        f: impl FnOnce(&IrqCx<'_>) + Clone + Send + 'static,
    ) -> Result<u32, SendError> {
        let _here = NoPreemption::new();
        let (me, _) = self.this().ok_or(SendError::NotACpu)?;
        let mut sent = 0;
        for to in (*to & self.online()).iter_from(me) {
            self.send(to, f.clone())?;
            sent += 1;
        }
        Ok(sent)
    }

    /// Whether a message has been called, and has returned. It may be late by the length of the callbacks around it.
    pub fn is_done(&self, ticket: Ticket) -> bool {
        ticket.from == ticket.to
            || self.fifo(ticket.from, ticket.to).is_some_and(|fifo| fifo.is_done(ticket.filled))
    }

    /// Waits until a message has been called and has returned, and drains meanwhile. What it did is seen.
    ///
    /// Thread context; spins.
    pub fn wait(&self, ticket: Ticket) -> Result<(), SyncError> {
        let _here = NoPreemption::new();
        let (_, cpu) = self.this().ok_or(SyncError::NotACpu)?;
        if cpu.is_nested() {
            return Err(SyncError::InCallback);
        }
        if self.is_done(ticket) {
            return Ok(());
        }
        // It may be a passive one.
        self.flag(ticket.to, ticket.from);
        let backoff = Backoff::new();
        while !self.is_done(ticket) {
            if !self.is_online(ticket.to) {
                return Err(SyncError::Offline(ticket.to));
            }
            self.drain();
            backoff.snooze();
        }
        Ok(())
    }

    /// Calls what other CPUs have sent to the calling CPU and interrupted it for: what an IPI handler does, and every loop
    /// that waits for another CPU. From any context; on no CPU it does nothing. Inside a callback, or in an interrupt
    /// over one, it is put off until that is over.
    ///
    /// Each sender gets at most `DEPTH` calls; if there are more, the CPU interrupts itself again. If another CPU
    /// [wants this one stopped](Self::interlocked), here is where it stops.
    #[inline]
    pub fn drain(&self) {
        let _here = NoPreemption::new();
        let Some((me, cpu)) = self.this() else { return };
        if cpu.is_idle() {
            return;
        }
        if cpu.is_nested() {
            cpu.own.0.deferred.store(true, Ordering::Relaxed);
            return;
        }
        let _nest = self.enter(me, cpu);
        // Of a drain that a callback's panic has ended: a CPU whose callbacks always panic stops, too.
        self.stay_stopped(me, cpu);
        self.pass(me, cpu);
        self.stay_stopped(me, cpu);
    }

    /// As [`drain`](Self::drain), and calls what was sent passively, too: looks at the queue of each CPU. For the timer's
    /// handler.
    pub fn tick(&self) {
        let _here = NoPreemption::new();
        let Some((me, cpu)) = self.this() else { return };
        if !cpu.is_nested() {
            let _nest = self.enter(me, cpu);
            for from in (0..self.machine.count()).map(CpuId) {
                self.empty(me, from);
            }
        }
        self.drain();
    }

    /// Whether the calling CPU has been interrupted for something that it has not looked at: not to halt now.
    #[inline]
    pub fn is_pending(&self) -> bool {
        self.this().is_some_and(|(_, cpu)| !cpu.is_idle())
    }

    /// What a CPU has done. From any context.
    pub fn stats(&self, cpu: CpuId) -> Option<IpiStats> {
        let own = &self.cpu(cpu)?.own.0;
        let sum = |part: &dyn Fn(CpuId) -> Option<usize>| {
            (0..self.machine.count()).map(CpuId).filter_map(part).fold(0, usize::wrapping_add) as u64
        };
        Some(IpiStats {
            sent: sum(&|to| Some(self.fifo(cpu, to)?.indexes().0)),
            passive: own.passive.load(Ordering::Relaxed),
            received: sum(&|from| Some(self.fifo(from, cpu)?.indexes().1)),
            raised: own.raised.load(Ordering::Relaxed),
            stalls: own.stalls.load(Ordering::Relaxed),
            syncs: own.syncs.load(Ordering::Relaxed),
        })
    }

    /// The machine whose CPUs these are.
    pub fn machine(&self) -> &C {
        &self.machine
    }

    // What follows is for callers with preemption off.

    #[inline]
    pub(super) fn this(&self) -> Option<(CpuId, &Cpu)> {
        let me = self.machine.this();
        Some((me, self.cpu(me)?))
    }

    #[inline]
    pub(super) fn cpu(&self, cpu: CpuId) -> Option<&Cpu> {
        self.cpus.get(cpu.index())
    }

    pub(super) fn is_online(&self, cpu: CpuId) -> bool {
        self.online.contains(cpu, Ordering::Acquire)
    }

    #[inline]
    fn fifo(&self, from: CpuId, to: CpuId) -> Option<&Fifo<DEPTH>> {
        let count = self.cpus.len();
        if from.index() >= count || to.index() >= count {
            return None;
        }
        self.fifos.get(from.index() * count + to.index())
    }

    pub(super) fn enter<'a>(&'a self, me: CpuId, cpu: &'a Cpu) -> Nest<'a, C, DEPTH> {
        let nest = &cpu.own.0.nest;
        nest.store(nest.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // From here on an interrupt handler sees it.
        compiler_fence(Ordering::SeqCst);
        Nest { queues: self, me, cpu }
    }

    /// (3) Tells `to` that `from` has sent, and interrupts it unless somebody has.
    #[inline]
    fn flag(&self, to: CpuId, from: CpuId) {
        let Some(cpu) = self.cpu(to) else { return };
        let Some(word) = cpu.pending.0.get(from.index() / SENDERS) else { return };
        // Release: whoever takes the bit sees the message (pairs with the Acquire in `pass`).
        if word.fetch_or(KICK | 1 << (from.index() % SENDERS), Ordering::Release) & KICK == 0 {
            self.raise(to);
        }
    }

    #[cold]
    fn raise(&self, to: CpuId) {
        if let Some((_, cpu)) = self.this() {
            add(&cpu.own.0.raised);
        }
        self.machine.raise_ipi(to);
    }

    /// (4) Takes the bits, with KICK in the same step, and *then* empties the queues: a message that comes too late for this
    /// pass sets a new bit, and a new KICK.
    pub(super) fn pass(&self, me: CpuId, cpu: &Cpu) {
        for (at, word) in cpu.pending.0.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // Acquire: see `flag`.
            let mut taken = Taken { bits: word.swap(0, Ordering::Acquire) & !KICK, word, own: &cpu.own.0 };
            while taken.bits != 0 {
                let from = CpuId((at * SENDERS) as u32 + taken.bits.trailing_zeros());
                self.empty(me, from);
                taken.bits &= taken.bits - 1;
            }
        }
    }

    /// Calls what `from` has sent, as much as its queue can hold. If there is more, tells itself.
    fn empty(&self, me: CpuId, from: CpuId) {
        let Some(fifo) = self.fifo(from, me) else { return };
        let cx = IrqCx::new(self, me, from);
        for _ in 0..DEPTH {
            let Some((message, _running)) = fifo.pop() else { return };
            message.call(&cx);
        }
        if fifo.is_ready() {
            self.flag(me, from);
        }
    }

    fn call_here(&self, me: CpuId, cpu: &Cpu, message: Message) -> Result<Ticket, SendError> {
        if cpu.own.0.nest.load(Ordering::Relaxed) >= NEST_MAX {
            return Err(SendError::TooDeep);
        }
        let _nest = self.enter(me, cpu);
        message.call(&IrqCx::new(self, me, me));
        Ok(Ticket { from: me, to: me, filled: 0 })
    }

    /// (5) Waits until no more than `low` messages are queued. Meanwhile calls, one at a time, what CPUs have sent that
    /// wait as well.
    #[cold]
    fn push_when_low(
        &self,
        (me, cpu): (CpuId, &Cpu),
        (to, fifo): (CpuId, &Fifo<DEPTH>),
        mut message: Message,
        low: usize,
    ) -> Result<usize, SendError> {
        if cpu.own.0.nest.load(Ordering::Relaxed) >= NEST_MAX {
            return Err(SendError::TooDeep);
        }
        add(&cpu.own.0.stalls);
        // Room will be made only if it is told.
        self.flag(to, me);
        let backoff = Backoff::new();
        let result = loop {
            match fifo.push(message, low) {
                Ok(filled) => break Ok(filled),
                Err(back) => message = back,
            }
            if fifo.is_stuck() {
                break Err(SendError::Interrupted(to));
            }
            if !self.is_online(to) {
                break Err(SendError::Offline(to));
            }
            self.stall(me, to, Stall::Begin);
            self.relieve(me, cpu);
            backoff.snooze();
        };
        self.stall(me, to, Stall::End);
        result
    }

    /// Whether `me` waits for room in the queue to `to`.
    fn stall(&self, me: CpuId, to: CpuId, stall: Stall) {
        let word = self.cpu(to).and_then(|cpu| cpu.stalled.get(me.index() / SENDERS));
        let (Some(word), bit) = (word, 1 << (me.index() % SENDERS)) else { return };
        // It publishes nothing: what `relieve` looks at is the queue.
        match stall {
            Stall::Begin if word.load(Ordering::Relaxed) & bit == 0 => word.fetch_or(bit, Ordering::Relaxed),
            Stall::Begin => bit,
            Stall::End => word.fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// Calls one message of each CPU that waits for room in its queue to this one.
    fn relieve(&self, me: CpuId, cpu: &Cpu) {
        let _nest = self.enter(me, cpu);
        for (at, word) in cpu.stalled.iter().enumerate() {
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                let from = CpuId((at * SENDERS) as u32 + bits.trailing_zeros());
                bits &= bits - 1;
                if let Some((message, _running)) = self.fifo(from, me).and_then(Fifo::pop) {
                    message.call(&IrqCx::new(self, me, from));
                }
            }
        }
    }
}

enum Stall {
    Begin,
    End,
}

/// What a callback's context can reach: the queues, without their type parameters.
pub(super) trait Post {
    /// Sends.
    fn post(&self, to: CpuId, message: Message, urgency: Urgency) -> Result<Ticket, SendError>;

    /// The calling CPU is to stop for `master` before it goes back to its threads.
    fn hold(&self, me: CpuId, master: CpuId);

    /// Runs what `master` lends, if it still does.
    fn run_errand(&self, cx: &IrqCx<'_>, master: CpuId, loan: Loan);
}

impl<C: Cpus, const DEPTH: usize> Post for IpiQueues<C, DEPTH> {
    #[inline]
    fn post(&self, to: CpuId, message: Message, urgency: Urgency) -> Result<Ticket, SendError> {
        let _here = NoPreemption::new();
        let (me, cpu) = self.this().ok_or(SendError::NotACpu)?;
        if me == to {
            return self.call_here(me, cpu, message);
        }
        let fifo = self.fifo(me, to).ok_or(SendError::NoSuchCpu(to))?;
        let ticket = |filled| Ticket { from: me, to, filled };
        let message = match urgency {
            Urgency::Active => message,
            Urgency::Passive => match fifo.push(message, const { Marks::passive(DEPTH) }) {
                Ok(filled) => {
                    add(&cpu.own.0.passive);
                    return Ok(ticket(filled));
                }
                Err(message) => message,
            },
        };
        let (high, low) = if cpu.is_nested() {
            const { Marks::most(DEPTH, true) }
        } else {
            const { Marks::most(DEPTH, false) }
        };
        let filled = match fifo.push(message, high) {
            Ok(filled) => filled,
            Err(message) => self.push_when_low((me, cpu), (to, fifo), message, low)?,
        };
        self.flag(to, me);
        // Waiting may have run a request to stop.
        if cpu.is_held() && !cpu.is_nested() {
            self.drain();
        }
        Ok(ticket(filled))
    }

    fn hold(&self, me: CpuId, master: CpuId) {
        self.hold_here(me, master);
    }

    fn run_errand(&self, cx: &IrqCx<'_>, master: CpuId, loan: Loan) {
        if let Some(master) = self.cpu(master) {
            master.errand.run(loan, cx);
        }
    }
}

impl Cpu {
    fn new(words: usize) -> Self {
        let zeros = || (0..words).map(|_| AtomicUsize::new(0)).collect();
        Self {
            pending: Line(zeros()),
            stalled: zeros(),
            own: Line(Own {
                nest: AtomicUsize::new(0),
                deferred: AtomicBool::new(false),
                held_by: AtomicUsize::new(0),
                raised: AtomicU64::new(0),
                passive: AtomicU64::new(0),
                stalls: AtomicU64::new(0),
                syncs: AtomicU64::new(0),
            }),
            errand: Errand::new(),
            to_stop: AtomicUsize::new(0),
            go: AtomicBool::new(false),
        }
    }

    #[inline]
    fn is_idle(&self) -> bool {
        self.pending.0.iter().all(|word| word.load(Ordering::Relaxed) == 0) && !self.is_held()
    }

    #[inline]
    pub(super) fn is_held(&self) -> bool {
        self.own.0.held_by.load(Ordering::Relaxed) != 0
    }

    #[inline]
    pub(super) fn is_nested(&self) -> bool {
        self.own.0.nest.load(Ordering::Relaxed) != 0
    }
}

/// One more. Neither a read-modify-write nor needed to be exact.
pub(super) fn add(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

/// This CPU is in a drain or a callback, until this is dropped.
pub(super) struct Nest<'a, C: Cpus, const DEPTH: usize> {
    queues: &'a IpiQueues<C, DEPTH>,
    me: CpuId,
    cpu: &'a Cpu,
}

impl<C: Cpus, const DEPTH: usize> Drop for Nest<'_, C, DEPTH> {
    fn drop(&mut self) {
        let own = &self.cpu.own.0;
        compiler_fence(Ordering::SeqCst);
        let left = own.nest.load(Ordering::Relaxed) - 1;
        own.nest.store(left, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // The interrupt that was put off.
        if left == 0 && own.deferred.load(Ordering::Relaxed) {
            own.deferred.store(false, Ordering::Relaxed);
            self.queues.raise(self.me);
        }
    }
}

/// Bits that were taken and whose queues are not empty yet. A callback that panics leaves them to the next drain.
struct Taken<'a> {
    bits: usize,
    word: &'a AtomicUsize,
    own: &'a Own,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.bits != 0 {
            self.word.fetch_or(self.bits | KICK, Ordering::Release);
            self.own.deferred.store(true, Ordering::Relaxed);
        }
    }
}

impl<C: Cpus, const DEPTH: usize> fmt::Debug for IpiQueues<C, DEPTH> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpiQueues")
            .field("cpus", &self.cpus.len())
            .field("depth", &DEPTH)
            .field("online", &self.online())
            .finish_non_exhaustive()
    }
}
