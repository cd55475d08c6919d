//! The running controller: queues, the end of them, and who is woken.

use alloc::sync::Arc;
use alloc::vec::Vec;

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use atomic_waker::AtomicWaker;
use dfly_bio::{Failure, JobList};
use dfly_hal::regs::{Patience, Window};
use dfly_hal::sync::Lock;
use dfly_hal::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use dfly_hal::{Clock, Cpus, Instant, Wait, block_on, dma::Dma, sleep_until};

use crate::controller::{Controller, Found, LONGEST_SHUTDOWN};
use crate::io::Queue;
use crate::pair::Pair;
use crate::queue::Broken;
use crate::spec::{CC, CSTS, INTMC, INTMS};
use crate::{ControllerInfo, Interrupts, NamespaceInfo, SkippedNamespace, Stats};

/// What the driver needs of a machine: memory for devices, time, and which CPU this is.
pub trait NvmeHal: Dma + Clock + Cpus {}
impl<T: Dma + Clock + Cpus + ?Sized> NvmeHal for T {}

/// While something is under way, the controller's status is looked at this often.
const LOOK: Duration = Duration::from_secs(1);
/// How often a controller that is being stopped is looked at.
const STOP_LOOK: Duration = Duration::from_millis(1);
/// Looks at a controller that is stopped by a destructor, which cannot wait.
const DROP_LOOKS: usize = 100_000;

/// Why a controller was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// It was detached.
    #[error("detached")]
    Detached,
    /// Its registers read as all ones.
    #[error("the controller is gone")]
    Gone,
    /// It reported fatal status (CSTS.CFS).
    #[error("the controller reported fatal status")]
    Fatal,
    /// A request was not answered in time.
    #[error("a request was not answered in time")]
    Timeout,
    /// It did what no controller does.
    #[error("the controller broke the protocol: {0}")]
    Broken(#[from] Broken),
}

/// Where the controller stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Requests are served.
    Live,
    /// It was disabled and has not yet said that it stopped; requests under way are kept until it has.
    Stopping(Stopped),
    /// It is stopped and everything is answered. New requests are answered as [`Failure::Gone`].
    Dead(Stopped),
}

#[derive(Clone, Copy)]
enum Phase {
    Live,
    Stopping { until: Instant, why: Stopped },
    Dead(Stopped),
}

/// How long a stopping controller is believed to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Belief {
    UntilDeadline,
    NoLonger,
}

/// Lock order: `phase`, then one of `queues`. No foreign code runs with either held.
pub(crate) struct Core<H: NvmeHal + Clone, W: Window> {
    pub(crate) controller: Controller<H, W>,
    pub(crate) found: Found,
    pub(crate) queues: Vec<Lock<Queue<H>>>,
    phase: Lock<Phase>,
    /// What the phase is not; a hint, the queues know for sure.
    live: AtomicBool,
    /// Whether namespaces take requests. Those that they took before and have split may still hand on pieces.
    accepts: AtomicBool,
    /// Nanoseconds; nothing needs to be looked at before.
    alarm: AtomicU64,
    interrupts: Interrupts,
    interrupted: AtomicBool,
    /// The pin was masked by an interrupt, and is to be unmasked by `poll`.
    masked: AtomicBool,
    reaper: AtomicWaker,
    /// The timer that was set last, so that an interrupt does not cost a timer.
    timer: Lock<Option<(Instant, Waker)>>,
    /// The rings of the admin queue, which the controller may read as long as it runs.
    _admin: Pair<H>,
}

impl<H: NvmeHal + Clone, W: Window> Core<H, W> {
    pub(crate) fn new(
        controller: Controller<H, W>,
        admin: Pair<H>,
        found: Found,
        interrupts: Interrupts,
        queues: Vec<Queue<H>>,
    ) -> Self {
        Self {
            controller,
            found,
            queues: queues.into_iter().map(Lock::new).collect(),
            phase: Lock::new(Phase::Live),
            live: AtomicBool::new(true),
            accepts: AtomicBool::new(true),
            alarm: AtomicU64::new(u64::MAX),
            interrupts,
            interrupted: AtomicBool::new(false),
            masked: AtomicBool::new(false),
            reaper: AtomicWaker::new(),
            timer: Lock::new(None),
            _admin: admin,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn accepts(&self) -> bool {
        self.accepts.load(Ordering::Relaxed)
    }

    fn hal(&self) -> &H {
        &self.controller.hal
    }

    fn window(&self) -> &W {
        &self.controller.window
    }

    pub(crate) fn submit(&self, namespace: usize, batch: JobList) {
        if batch.is_empty() {
            return;
        }
        let mine = self.hal().this().0 as usize % self.queues.len().max(1);
        let now = self.hal().now();
        let mut done = JobList::new();
        let rejected = match self.queues.get(mine) {
            Some(queue) => {
                let mut queue = queue.lock();
                let rejected = queue.park(namespace, batch);
                let due = queue.fill(self.hal(), self.window(), &self.found.namespaces, now, &mut done);
                drop(queue);
                if due != Instant::FAR_FUTURE {
                    self.alarm_at(due.min(now.saturating_add(LOOK)));
                }
                rejected
            }
            None => batch,
        };
        done.for_each(|job| job.pass());
        rejected.finish_all(Err(Failure::Gone));
    }

    /// Sees to it that somebody looks at `at`, or before.
    fn alarm_at(&self, at: Instant) {
        // Release: the reaper that sees it (Acquire in `Work`) sees what it is for; the queue's lock orders the rest.
        if self.alarm.fetch_min(at.as_nanos(), Ordering::Release) > at.as_nanos() {
            self.reaper.wake();
        }
    }

    pub(crate) fn poll(self: &Arc<Self>) -> usize {
        if !self.is_live() {
            return self.stop_on(Belief::UntilDeadline);
        }
        let now = self.hal().now();
        let mut done = JobList::new();
        let mut why = None;
        for queue in &self.queues {
            let mut queue = queue.lock();
            if let Err(broken) = queue.reap(self.hal(), self.window(), &mut done) {
                why = Some(broken.into());
                continue;
            }
            let due = queue.fill(self.hal(), self.window(), &self.found.namespaces, now, &mut done);
            drop(queue);
            if due != Instant::FAR_FUTURE {
                self.alarm_at(due.min(now.saturating_add(LOOK)));
            }
        }
        // What arrived since it was looked for announces itself now. Acquire: pairs with `interrupt`, so that the mask is
        // cleared after it was set.
        if self.masked.swap(false, Ordering::Acquire) {
            INTMC.write(self.window(), 1);
        }
        if self.alarm.load(Ordering::Acquire) <= now.as_nanos() {
            why = why.or(self.look(now));
        }
        let mut count = done.len();
        done.for_each(|job| job.pass());
        if let Some(why) = why {
            self.stop(why);
            count += self.stop_on(Belief::UntilDeadline);
        }
        count
    }

    /// Looks whether the controller is well and nothing is late, and when to look again.
    fn look(&self, now: Instant) -> Option<Stopped> {
        self.alarm.store(u64::MAX, Ordering::Relaxed);
        let csts = CSTS.read(self.window());
        if csts.is_gone() {
            return Some(Stopped::Gone);
        }
        if csts.cfs() {
            return Some(Stopped::Fatal);
        }
        let (mut first_due, mut parked_due) = (Instant::FAR_FUTURE, Instant::FAR_FUTURE);
        for queue in &self.queues {
            let queue = queue.lock();
            first_due = first_due.min(queue.first_due());
            parked_due = parked_due.min(queue.parked_due());
        }
        if first_due <= now {
            return Some(Stopped::Timeout);
        }
        let first = first_due.min(parked_due);
        if first != Instant::FAR_FUTURE {
            self.alarm_at(first.min(now.saturating_add(LOOK)));
        }
        None
    }

    /// Disables the controller. What is under way stays until it has stopped: see [`Self::stop_on`].
    fn stop(&self, why: Stopped) {
        let mut phase = self.phase.lock();
        if !matches!(*phase, Phase::Live) {
            return;
        }
        let until = self.hal().now().saturating_add(self.controller.timeout());
        *phase = Phase::Stopping { until, why };
        self.live.store(false, Ordering::Relaxed);
        for queue in &self.queues {
            queue.lock().close();
        }
        CC.update(self.window(), |cc| cc.with_en(false));
        drop(phase);
        self.alarm_at(self.hal().now());
    }

    /// The orderly end of an idle controller: it writes down what it has cached.
    fn shut_down(&self, w: &mut dyn Wait) -> Result<(), Stopped> {
        self.queues.iter().for_each(|queue| queue.lock().close());
        CC.update(self.window(), |cc| cc.with_shn(1));
        let deadline = self.hal().now().saturating_add(LONGEST_SHUTDOWN);
        let patience = Patience { clock: self.hal(), wait: w, deadline };
        match CSTS.poll_until(self.window(), patience, |csts| csts.shst() == 2 || csts.is_gone()) {
            Ok(csts) if csts.is_gone() => Err(Stopped::Gone),
            Ok(_) => Ok(()),
            Err(_) => Err(Stopped::Timeout),
        }
    }

    /// Lets some time go by before the controller is looked at again.
    fn pause(&self, w: &mut dyn Wait) {
        let soon = self.hal().now().saturating_add(STOP_LOOK);
        let _ = block_on(w, sleep_until(self.hal(), soon), Some(soon));
    }

    /// Goes on with stopping, and answers everything once the controller has stopped, or is no longer believed to.
    fn stop_on(self: &Arc<Self>, belief: Belief) -> usize {
        let now = self.hal().now();
        let mut phase = self.phase.lock();
        let Phase::Stopping { until, why } = *phase else { return 0 };
        let halted = self.controller.halted();
        if halted.is_none() && belief == Belief::UntilDeadline && now < until {
            self.alarm.store(now.saturating_add(STOP_LOOK).as_nanos(), Ordering::Release);
            return 0;
        }
        *phase = Phase::Dead(why);
        drop(phase);
        self.alarm.store(u64::MAX, Ordering::Release);
        let failure = if why == Stopped::Gone { Failure::Gone } else { Failure::Aborted };
        let mut count = 0;
        if halted.is_none() {
            // It may read its rings and write completions for ever.
            core::mem::forget(self.clone());
        }
        for queue in &self.queues {
            let mut done = JobList::new();
            let mut queue = queue.lock();
            let lost = match &halted {
                Some(halted) => {
                    queue.take_all(self.hal(), halted, now, failure, &mut done);
                    Vec::new()
                }
                None => {
                    queue.take_parked(failure, &mut done);
                    queue.take_slots()
                }
            };
            drop(queue);
            count += done.len();
            done.for_each(|job| job.pass());
            for (mut slot, _) in lost {
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
}

/// A controller that is attached. Dropping it stops the controller and answers every request; namespaces that outlive it
/// answer [`Failure::Gone`].
pub struct Nvme<H: NvmeHal + Clone + 'static, W: Window + 'static> {
    core: Arc<Core<H, W>>,
    devices: Vec<Arc<dyn dfly_bio::BlockDevice>>,
}

impl<H: NvmeHal + Clone, W: Window> Nvme<H, W> {
    pub(crate) fn over(core: Core<H, W>) -> Self {
        let core = Arc::new(core);
        let device = |(index, info)| {
            Arc::new(crate::namespace::Namespace::new(&core, index, info)) as Arc<dyn dfly_bio::BlockDevice>
        };
        let devices = core.found.namespaces.iter().enumerate().map(device).collect();
        Self { core, devices }
    }

    /// The namespace `nsid` as a block device, if it is there and usable.
    pub fn namespace(&self, nsid: u32) -> Option<Arc<dyn dfly_bio::BlockDevice>> {
        let index = self.core.found.namespaces.iter().position(|info| info.nsid == nsid)?;
        self.devices.get(index).cloned()
    }

    /// The usable namespaces.
    pub fn namespaces(&self) -> &[NamespaceInfo] {
        &self.core.found.namespaces
    }

    /// The namespaces that are listed and not usable, and why.
    pub fn skipped(&self) -> &[SkippedNamespace] {
        &self.core.found.skipped
    }

    /// What the controller says of itself, and what was agreed.
    pub fn info(&self) -> &ControllerInfo {
        &self.core.found.info
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        match *self.core.phase.lock() {
            Phase::Live => State::Live,
            Phase::Stopping { why, .. } => State::Stopping(why),
            Phase::Dead(why) => State::Dead(why),
        }
    }

    /// What all queues did so far.
    pub fn stats(&self) -> Stats {
        self.core.queues.iter().fold(Stats::default(), |sum, queue| sum.plus(queue.lock().stats))
    }

    /// To be called by the interrupt handler, of any vector, also when nothing was announced. Masks the interrupt if it is
    /// pin-based, and wakes whoever waits for [`work`](Self::work). Takes no lock, allocates nothing, frees nothing of its
    /// own.
    pub fn interrupt(&self) {
        if self.core.interrupts == Interrupts::Pin {
            INTMS.write(&self.core.controller.window, 1);
            // Release: pairs with the Acquire in `poll`.
            self.core.masked.store(true, Ordering::Release);
        }
        self.core.ring();
    }

    /// Reaps completions, sends what was parked, keeps deadlines. Returns how many requests it answered. Thread context;
    /// never blocks. The namespaces' `poll` does the same.
    pub fn poll(&self) -> usize {
        self.core.poll()
    }

    /// Completes when there is a reason to [`poll`](Self::poll): an interrupt, a deadline, each second while something is
    /// under way (so an interrupt that is lost costs time and nothing else), and once when the controller is dead. For one
    /// waiter, the reaper:
    ///
    /// ```text
    /// while !matches!(nvme.state(), State::Dead(_)) {
    ///     block_on(w, nvme.work(), None);
    ///     nvme.poll();
    /// }
    /// ```
    ///
    /// [`interrupt`](Self::interrupt) wakes the waiter's waker and drops it. So where that is a handler of real interrupts,
    /// the waker must be one that takes no lock and frees nothing in either: of a thread that outlives it, as `lwkt`'s are.
    pub fn work(&self) -> Work<'_, H, W> {
        Work { core: &self.core }
    }

    /// Waits for what is under way, shuts the controller down in order, and lets it go: the state is then
    /// [`State::Dead`], and requests that come are answered as [`Failure::Gone`]. May block, for at most the deadlines of
    /// requests, ten seconds, and the controller's own time to stop. Once is enough: a second call says why it is dead.
    pub fn detach(&self, w: &mut dyn Wait) -> Result<(), Stopped> {
        let core = &self.core;
        core.accepts.store(false, Ordering::Relaxed);
        while core.is_live() && !core.queues.iter().all(|queue| queue.lock().is_idle()) {
            core.poll();
            core.pause(w);
        }
        let ended = match self.state() {
            State::Live => core.shut_down(w),
            State::Stopping(why) | State::Dead(why) => Err(why),
        };
        core.stop(Stopped::Detached);
        while matches!(self.state(), State::Stopping(_)) {
            core.stop_on(Belief::UntilDeadline);
            core.pause(w);
        }
        ended
    }
}

impl<H: NvmeHal + Clone, W: Window> Drop for Nvme<H, W> {
    fn drop(&mut self) {
        self.core.stop(Stopped::Detached);
        for _ in 0..DROP_LOOKS {
            self.core.stop_on(Belief::UntilDeadline);
            if matches!(*self.core.phase.lock(), Phase::Dead(_)) {
                return;
            }
            dfly_hal::sync::hint::spin_loop();
        }
        self.core.stop_on(Belief::NoLonger);
    }
}

/// See [`Nvme::work`].
#[must_use = "a future does nothing until it is polled"]
pub struct Work<'a, H: NvmeHal + Clone, W: Window> {
    core: &'a Core<H, W>,
}

impl<H: NvmeHal + Clone, W: Window> Future for Work<'_, H, W> {
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
