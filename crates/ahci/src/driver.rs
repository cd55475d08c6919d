//! The running adapter: its ports, the end of them, and who is woken.

use alloc::sync::Arc;
use alloc::vec::Vec;

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use atomic_waker::AtomicWaker;
use dfly_bio::{BlockDevice, Failure, JobList, WriteCache};
use dfly_hal::dma::Dma;
use dfly_hal::regs::Window;
use dfly_hal::sync::Lock;
use dfly_hal::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use dfly_hal::{Clock, Instant, Wait, block_on, sleep_until};

use crate::disk::Disk;
use crate::hba::{Hba, RESET};
use crate::port::{Env, Pass, PassState, Port, SECTOR, SECTORS, Shape, Wants};
use crate::spec::{Command, IS, Port as PortRegisters, PortInterrupts, Taskfile, Transport};
use crate::{
    AdapterInfo, DiskInfo, PassError, PassResult, PassThrough, PortInfo, PortStats, Returned, State, Stopped,
};

/// What the driver needs of a machine: memory for devices, and time.
pub trait AhciHal: Dma + Clock {}
impl<T: Dma + Clock + ?Sized> AhciHal for T {}

/// How often an adapter that is being reset is looked at.
const RESET_LOOK: Duration = Duration::from_millis(1);
/// Looks at an adapter that is stopped by a destructor, which cannot wait.
const DROP_LOOKS: usize = 100_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Live,
    /// An HBA reset is under way. When it is done ports come up anew, or, if there is a reason, everything is answered.
    Resetting {
        until: Instant,
        why: Option<Stopped>,
    },
    Dead(Stopped),
}

/// How long an adapter that is reset is believed to come to an end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Belief {
    UntilDeadline,
    NoLonger,
}

struct Place<H: Dma> {
    number: u8,
    /// What interrupts told of, and the port has not heard yet: [`PortInterrupts`].
    told: AtomicU32,
    port: Lock<Port<H>>,
}

/// Lock order: `phase`, then one port. No foreign code runs with either held.
pub(crate) struct Core<H: AhciHal + Clone, W: Window> {
    hba: Hba<H, W>,
    pub(crate) info: AdapterInfo,
    shape: Shape,
    places: Vec<Place<H>>,
    phase: Lock<Phase>,
    /// What the phase is not; a hint, the ports know for sure.
    live: AtomicBool,
    /// Whether disks take requests. Those that they took before and have split may still hand on pieces.
    accepts: AtomicBool,
    /// Nanoseconds; nothing needs to be looked at before.
    alarm: AtomicU64,
    interrupted: AtomicBool,
    reaper: AtomicWaker,
    /// The timer that was set last, so that an interrupt does not cost a timer.
    timer: Lock<Option<(Instant, Waker)>>,
    /// Devices that came or went, counted.
    changes: AtomicU64,
    tickets: AtomicU64,
}

impl<H: AhciHal + Clone, W: Window> Core<H, W> {
    pub(crate) fn new(hba: Hba<H, W>, info: AdapterInfo, shape: Shape, ports: Vec<Port<H>>) -> Self {
        let place =
            |port: Port<H>| Place { number: port.number(), told: AtomicU32::new(0), port: Lock::new(port) };
        Self {
            hba,
            info,
            shape,
            places: ports.into_iter().map(place).collect(),
            phase: Lock::new(Phase::Live),
            live: AtomicBool::new(true),
            accepts: AtomicBool::new(true),
            alarm: AtomicU64::new(u64::MAX),
            interrupted: AtomicBool::new(false),
            reaper: AtomicWaker::new(),
            timer: Lock::new(None),
            changes: AtomicU64::new(0),
            tickets: AtomicU64::new(0),
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn accepts(&self) -> bool {
        self.accepts.load(Ordering::Relaxed)
    }

    fn hal(&self) -> &H {
        &self.hba.hal
    }

    fn env(&self, now: Instant) -> Env<'_, H, W> {
        let Hba { window, hal, cap, config } = &self.hba;
        Env { hal, window, cap: *cap, config, now }
    }

    pub(crate) fn submit(&self, index: usize, generation: u32, batch: JobList) {
        if batch.is_empty() {
            return;
        }
        let now = self.hal().now();
        let mut done = JobList::new();
        let (rejected, wants) = match self.places.get(index) {
            Some(place) => {
                let mut port = place.port.lock();
                let rejected = port.park(generation, batch);
                let (next, wants) = port.tick(&self.env(now), PortInterrupts::new(), &mut done);
                drop(port);
                self.alarm_at(next);
                (rejected, wants)
            }
            None => (batch, Wants::Nothing),
        };
        self.heed(wants);
        done.for_each(|job| job.pass());
        rejected.finish_all(Err(Failure::Gone));
    }

    /// Sees to it that somebody looks at `at`, or before.
    fn alarm_at(&self, at: Instant) {
        if at == Instant::FAR_FUTURE {
            return;
        }
        // Release: the reaper that sees it (Acquire in `Work`) sees what it is for; the port's lock orders the rest.
        if self.alarm.fetch_min(at.as_nanos(), Ordering::Release) > at.as_nanos() {
            self.reaper.wake();
        }
    }

    /// Brings all ports up, the adapter having been reset.
    pub(crate) fn power_up(&self) {
        let now = self.hal().now();
        let mut done = JobList::new();
        for place in &self.places {
            place.told.store(0, Ordering::Relaxed);
            place.port.lock().power_up(&self.env(now), crate::slots::Halted::seen(), &mut done);
        }
        self.alarm_at(now);
        done.for_each(|job| job.pass());
    }

    /// Acknowledges what the adapter announces, and notes it for the ports. Whether there was anything. Takes no lock.
    fn acknowledge(&self) -> bool {
        let window = &self.hba.window;
        let is = IS.read(window);
        if is == 0 || is == u32::MAX {
            return false;
        }
        for place in self.places.iter().filter(|place| is >> place.number & 1 != 0) {
            let regs = PortRegisters(place.number);
            let told = regs.is().read(window);
            // First this, then IS, and only later, by the port, PxSACT and PxCI: what completes after those are read
            // announces itself anew.
            regs.is().write(window, told);
            let stays = PortInterrupts::LINK.or(PortInterrupts::new().with_ufs(true));
            if told.any(stays) {
                // Cleared through PxSERR only, which is the port's: until then it is silent.
                regs.ie().write(window, PortInterrupts::new());
            }
            // Release: pairs with the Acquire in `poll`, so that what is read there is read after the acknowledgement.
            place.told.fetch_or(told.into_bits(), Ordering::Release);
        }
        IS.write(window, is);
        true
    }

    pub(crate) fn poll(self: &Arc<Self>) -> usize {
        if !self.is_live() || !matches!(*self.phase.lock(), Phase::Live) {
            return self.reset_on(Belief::UntilDeadline);
        }
        // A handler may not be there, or not have been called.
        if self.places.iter().all(|place| place.told.load(Ordering::Relaxed) == 0) {
            self.acknowledge();
        }
        let now = self.hal().now();
        if self.alarm.load(Ordering::Acquire) <= now.as_nanos() {
            // Every port says below when it wants to be looked at.
            self.alarm.store(u64::MAX, Ordering::Relaxed);
        }
        let mut done = JobList::new();
        let (mut next, mut wants) = (Instant::FAR_FUTURE, Wants::Nothing);
        for place in &self.places {
            let mut port = place.port.lock();
            let told = PortInterrupts::from_bits(place.told.swap(0, Ordering::Acquire));
            let (look, wanted) = port.tick(&self.env(now), told, &mut done);
            if core::mem::take(&mut port.changed) {
                self.changes.fetch_add(1, Ordering::Release);
            }
            drop(port);
            next = next.min(look);
            wants = match (wants, wanted) {
                (Wants::Gone, _) | (_, Wants::Gone) => Wants::Gone,
                (Wants::Reset, _) | (_, Wants::Reset) => Wants::Reset,
                _ => Wants::Nothing,
            };
        }
        self.alarm_at(next);
        let mut count = done.len();
        done.for_each(|job| job.pass());
        self.heed(wants);
        if wants != Wants::Nothing {
            count += self.reset_on(Belief::UntilDeadline);
        }
        count
    }

    fn heed(&self, wants: Wants) {
        match wants {
            Wants::Nothing => {}
            Wants::Reset => self.reset(None),
            Wants::Gone => self.reset(Some(Stopped::Gone)),
        }
    }

    /// Resets the adapter. What is under way stays until it has stopped: see [`Self::reset_on`].
    fn reset(&self, why: Option<Stopped>) {
        let mut phase = self.phase.lock();
        match *phase {
            Phase::Live => {}
            // To the end, and not only to a new beginning.
            Phase::Resetting { until, why: None } if why.is_some() => {
                *phase = Phase::Resetting { until, why };
                self.live.store(false, Ordering::Relaxed);
                return;
            }
            _ => return,
        }
        let until = self.hal().now().saturating_add(RESET);
        *phase = Phase::Resetting { until, why };
        if why.is_some() {
            self.live.store(false, Ordering::Relaxed);
        }
        for place in &self.places {
            place.port.lock().suspend();
        }
        self.hba.reset();
        drop(phase);
        self.alarm_at(self.hal().now());
    }

    /// Goes on with a reset: ports come up anew, or everything is answered once the adapter has stopped, or is no longer
    /// believed to.
    fn reset_on(self: &Arc<Self>, belief: Belief) -> usize {
        let now = self.hal().now();
        let mut phase = self.phase.lock();
        let Phase::Resetting { until, why } = *phase else { return 0 };
        let halted = self.hba.halted();
        let why = match &halted {
            None if belief == Belief::UntilDeadline && now < until => {
                self.alarm.store(now.saturating_add(RESET_LOOK).as_nanos(), Ordering::Release);
                drop(phase);
                return 0;
            }
            None => why.unwrap_or(Stopped::Stuck),
            Some((ghc, _)) if ghc.is_gone() => Stopped::Gone,
            Some(_) => match why {
                Some(why) => why,
                None => {
                    *phase = Phase::Live;
                    self.hba.enable();
                    drop(phase);
                    self.power_up();
                    return 0;
                }
            },
        };
        *phase = Phase::Dead(why);
        self.live.store(false, Ordering::Relaxed);
        drop(phase);
        self.alarm.store(u64::MAX, Ordering::Release);
        let failure = if why == Stopped::Gone { Failure::Gone } else { Failure::Aborted };
        if halted.is_none() {
            // It may read its command lists and write what it receives for ever.
            core::mem::forget(self.clone());
        }
        let mut count = 0;
        for place in &self.places {
            let mut done = JobList::new();
            let mut port = place.port.lock();
            let lost = match &halted {
                Some((_, halted)) => {
                    port.end_stopped(&self.env(now), halted, failure, &mut done);
                    Vec::new()
                }
                None => port.end_unstopped(&self.env(now), failure, &mut done),
            };
            drop(port);
            count += done.len();
            done.for_each(|job| job.pass());
            for mut slot in lost {
                count += usize::from(slot.job().is_some());
                slot.abandon();
            }
        }
        // So that the reaper learns that there is nothing more to do.
        self.ring();
        count
    }

    /// Wakes the reaper. Callable from every context.
    fn ring(&self) {
        // Release: pairs with the Acquire in `Work`.
        self.interrupted.store(true, Ordering::Release);
        self.reaper.wake();
    }

    /// Sees to it that `waker` is woken at `alarm`, unless a timer will do so anyhow.
    fn set_timer(&self, alarm: Instant, waker: &Waker) {
        let now = self.hal().now();
        let mut timer = self.timer.lock();
        let stands = timer.as_ref().is_some_and(|(at, whose)| {
            let in_time = *at > now && *at <= alarm;
            // Who cannot be woken only looks.
            in_time && (whose.will_wake(waker) || waker.will_wake(Waker::noop()))
        });
        if stands {
            return;
        }
        let old = timer.replace((alarm, waker.clone()));
        drop(timer);
        drop(old);
        self.hal().wake_at(alarm, waker);
    }

    /// Lets some time go by before the adapter is looked at again.
    fn pause(&self, w: &mut dyn Wait) {
        let soon = self.hal().now().saturating_add(RESET_LOOK);
        let _ = block_on(w, sleep_until(self.hal(), soon), Some(soon));
    }

    fn place(&self, number: u8) -> Option<(usize, &Place<H>)> {
        self.places.iter().enumerate().find(|(_, place)| place.number == number)
    }
}

/// The block device of a port, and which device it is for.
type Published = Option<(u32, Arc<dyn BlockDevice>)>;

/// An adapter that is attached. Dropping it stops the adapter and answers every request; disks that outlive it answer
/// [`Failure::Gone`].
pub struct Ahci<H: AhciHal + Clone + 'static, W: Window + 'static> {
    core: Arc<Core<H, W>>,
    /// By port, in the order of `places`.
    disks: Vec<Lock<Published>>,
}

impl<H: AhciHal + Clone, W: Window> Ahci<H, W> {
    pub(crate) fn over(core: Core<H, W>) -> Self {
        let disks = core.places.iter().map(|_| Lock::new(None)).collect();
        Self { core: Arc::new(core), disks }
    }

    pub(crate) fn hal(&self) -> &H {
        self.core.hal()
    }

    pub(crate) fn now(&self) -> Instant {
        self.core.hal().now()
    }

    pub(crate) fn enable_interrupts(&self) {
        let phase = self.core.phase.lock();
        // A reset that is under way does it at its end.
        if matches!(*phase, Phase::Live) {
            self.core.hba.enable();
        }
    }

    pub(crate) fn is_gone(&self) -> bool {
        matches!(*self.core.phase.lock(), Phase::Dead(_))
    }

    pub(crate) fn is_settled(&self) -> bool {
        let live = matches!(*self.core.phase.lock(), Phase::Live);
        live && self.core.places.iter().all(|place| place.port.lock().is_settled())
    }

    /// What the adapter says of itself.
    pub fn info(&self) -> &AdapterInfo {
        &self.core.info
    }

    /// Where the adapter stands.
    pub fn state(&self) -> State {
        match *self.core.phase.lock() {
            Phase::Live => State::Live,
            Phase::Resetting { why: None, .. } => State::Resetting,
            Phase::Resetting { why: Some(why), .. } => State::Stopping(why),
            Phase::Dead(why) => State::Dead(why),
        }
    }

    /// The numbers of the ports that are there, rising.
    pub fn ports(&self) -> impl Iterator<Item = u8> {
        self.core.places.iter().map(|place| place.number)
    }

    /// Where port `number` stands, and who is there.
    pub fn port(&self, number: u8) -> Option<PortInfo> {
        let (_, place) = self.core.place(number)?;
        let port = place.port.lock();
        Some(PortInfo {
            number,
            state: port.state(),
            disk: port.device().map(|device| device.info),
            stats: port.stats,
        })
    }

    /// The disk at port `number` as a block device, if one is there and usable: the same value until it is replaced. For
    /// one that was inserted since the last call it allocates. Its requests are answered as [`Failure::Gone`] when it was
    /// removed.
    pub fn disk(&self, number: u8) -> Option<Arc<dyn BlockDevice>> {
        let (index, place) = self.core.place(number)?;
        let (generation, limits) = {
            let port = place.port.lock();
            (port.generation(), port.device()?.limits(self.core.shape))
        };
        let published = self.disks.get(index)?;
        let current = |published: &Published| {
            published.as_ref().filter(|(of, _)| *of == generation).map(|(_, disk)| disk.clone())
        };
        if let Some(disk) = current(&published.lock()) {
            return Some(disk);
        }
        let disk: Arc<dyn BlockDevice> = Arc::new(Disk::new(&self.core, index, generation, limits));
        let mut published = published.lock();
        if let Some(disk) = current(&published) {
            return Some(disk);
        }
        let old = published.replace((generation, disk.clone()));
        drop(published);
        drop(old);
        Some(disk)
    }

    /// What is known of the disk at port `number`.
    pub fn disk_info(&self, number: u8) -> Option<DiskInfo> {
        self.port(number)?.disk
    }

    /// How often a device came or went so far. Whoever sees another number looks at [`port`](Self::port)s anew.
    pub fn changes(&self) -> u64 {
        self.core.changes.load(Ordering::Acquire)
    }

    /// What all ports did so far.
    pub fn stats(&self) -> PortStats {
        self.core.places.iter().fold(PortStats::default(), |sum, place| sum.plus(place.port.lock().stats))
    }

    /// To be called by the interrupt handler, also when nothing was announced: `false` means that it was somebody else's.
    /// Acknowledges and wakes whoever waits for [`work`](Self::work). Takes no lock, allocates nothing, frees nothing of its
    /// own.
    pub fn interrupt(&self) -> bool {
        let mine = self.core.acknowledge();
        if mine {
            self.core.ring();
        }
        mine
    }

    /// Completes [`work`](Self::work), for a reason of the caller's. Callable from every context.
    pub fn wake(&self) {
        self.core.ring();
    }

    /// Reaps completions, sends what was parked, keeps deadlines, goes on with whatever a port is in the middle of. Returns
    /// how many requests it answered. Thread context; never blocks. The disks' `poll` does the same.
    pub fn poll(&self) -> usize {
        self.core.poll()
    }

    /// Completes when there is a reason to [`poll`](Self::poll): an interrupt, a deadline, each second while something is
    /// under way (so an interrupt that is lost costs time and nothing else), and once when the adapter is dead. For one
    /// waiter, the reaper:
    ///
    /// ```text
    /// while !matches!(ahci.state(), State::Dead(_)) {
    ///     block_on(w, ahci.work(), None);
    ///     ahci.poll();
    /// }
    /// ```
    ///
    /// [`interrupt`](Self::interrupt) wakes the waiter's waker and drops it. So where that is a handler of real interrupts,
    /// the waker must be one that takes no lock and frees nothing in either: of a thread that outlives it, as `lwkt`'s are.
    pub fn work(&self) -> Work<'_, H, W> {
        Work { core: &self.core }
    }

    /// Runs a command of the caller's at port `number`, with nothing beside it: what is under way ends first. `data` is what
    /// is sent, or where to put what arrives. May block, for at most the command's own time and that of those before it;
    /// allocates. What it changes of the device (its write cache, its password) the driver does not know of.
    ///
    /// # Errors
    /// See [`PassError`]; one that the device has refused says how.
    pub fn pass_through(
        &self,
        number: u8,
        command: PassThrough,
        data: &mut [u8],
        w: &mut dyn Wait,
    ) -> Result<Returned, PassError> {
        let (_, place) = self.core.place(number).ok_or(PassError::Gone)?;
        let none = command.transport == Transport::None;
        if data.len() > SECTOR * SECTORS || !data.len().is_multiple_of(2) || none != data.is_empty() {
            return Err(PassError::Length { len: data.len() });
        }
        if matches!(command.taskfile.command, Command::READ_FPDMA_QUEUED | Command::WRITE_FPDMA_QUEUED) {
            return Err(PassError::Queued);
        }
        let ticket = self.core.tickets.fetch_add(1, Ordering::Relaxed);
        loop {
            let mut port = place.port.lock();
            if port.device().is_none() {
                return Err(PassError::Gone);
            }
            if port.pass.is_none() {
                port.pass = Some(Pass { ticket, command, data: data.to_vec(), state: PassState::Waits });
                break;
            }
            drop(port);
            self.core.poll();
            self.core.pause(w);
        }
        loop {
            self.core.poll();
            let mut port = place.port.lock();
            match &port.pass {
                Some(Pass { ticket: whose, state: PassState::Done(result), data: read, .. })
                    if *whose == ticket =>
                {
                    let result = *result;
                    if command.transport == Transport::In && read.len() == data.len() {
                        data.copy_from_slice(read);
                    }
                    let old = port.pass.take();
                    drop(port);
                    drop(old);
                    return match result {
                        PassResult::Done(returned) => Ok(returned),
                        PassResult::Failed(returned) => Err(PassError::Failed(returned)),
                        PassResult::TimedOut => Err(PassError::Timeout),
                        PassResult::Gone => Err(PassError::Gone),
                    };
                }
                _ => drop(port),
            }
            self.core.pause(w);
        }
    }

    /// Waits for what is under way, has disks write down what they have cached, stops the adapter and lets it go: the state is
    /// then [`State::Dead`], and requests that come are answered as [`Failure::Gone`]. May block, for at most the deadlines
    /// of requests, the flush, and a second. Once is enough: a second call says why it is dead.
    ///
    /// # Errors
    /// Why it was dead before, or that a disk could not write everything down.
    pub fn detach(&self, w: &mut dyn Wait) -> Result<(), Stopped> {
        let core = &self.core;
        core.accepts.store(false, Ordering::Relaxed);
        while core.is_live() && !core.places.iter().all(|place| place.port.lock().is_idle()) {
            core.poll();
            core.pause(w);
        }
        let mut ended = match self.state() {
            State::Live | State::Resetting => Ok(()),
            State::Stopping(why) | State::Dead(why) => Err(why),
        };
        if ended.is_ok() {
            for number in self.ports() {
                let Some(device) =
                    core.place(number).and_then(|(_, place)| place.port.lock().device().copied())
                else {
                    continue;
                };
                let flush = PassThrough {
                    taskfile: Taskfile::plain(device.flush),
                    cdb: None,
                    transport: Transport::None,
                    timeout: core.hba.config.flush_timeout,
                };
                let cached = device.info.write_cache == WriteCache::Volatile;
                if cached && self.pass_through(number, flush, &mut [], w).is_err() {
                    ended = Err(Stopped::NotFlushed);
                }
            }
        }
        core.reset(Some(Stopped::Detached));
        while !matches!(self.state(), State::Dead(_)) {
            core.reset_on(Belief::UntilDeadline);
            core.pause(w);
        }
        ended
    }
}

impl<H: AhciHal + Clone, W: Window> Drop for Ahci<H, W> {
    fn drop(&mut self) {
        self.core.reset(Some(Stopped::Detached));
        for _ in 0..DROP_LOOKS {
            self.core.reset_on(Belief::UntilDeadline);
            if self.is_gone() {
                return;
            }
            dfly_hal::sync::hint::spin_loop();
        }
        self.core.reset_on(Belief::NoLonger);
    }
}

/// See [`Ahci::work`].
#[must_use = "a future does nothing until it is polled"]
pub struct Work<'a, H: AhciHal + Clone, W: Window> {
    core: &'a Core<H, W>,
}

impl<H: AhciHal + Clone, W: Window> Future for Work<'_, H, W> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let core = self.core;
        core.reaper.register(cx.waker());
        // After the registration, so that an interrupt between the two wakes us. Acquire: pairs with `interrupt`.
        if core.interrupted.swap(false, Ordering::Acquire) {
            return Poll::Ready(());
        }
        let alarm = Instant::from_nanos(core.alarm.load(Ordering::Acquire));
        if core.hal().now() >= alarm {
            return Poll::Ready(());
        }
        if alarm != Instant::FAR_FUTURE {
            core.set_timer(alarm, cx.waker());
        }
        Poll::Pending
    }
}
