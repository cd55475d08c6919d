//! Time: the time-stamp counter, calibrated; timers, announced by the APIC's, which also ticks for the scheduler.
//!
//! A timer is put to a queue in thread context and is woken from there. The interrupt only says that it is time: whoever
//! runs [`serve`] (a thread), or calls [`expire`], does the rest.

use alloc::vec::Vec;
use core::arch::asm;
use core::future::poll_fn;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Poll, Waker};
use core::time::Duration;

use atomic_waker::AtomicWaker;
use dfly_hal::sync::Lock;
use dfly_hal::{Instant, Wait, block_on};
use x86_64::instructions::interrupts::without_interrupts;

use crate::port::Port;
use crate::{apic, cpu, interrupts};

/// The programmable interval timer's frequency.
const PIT_HZ: u128 = 1_193_182;
/// The counter's channel 2, set to count down from 65535 once, takes 55 ms.
const CALIBRATION_TICKS: u16 = 20_000;
/// More than fit into that time.
const MOST_SAMPLES: u32 = 10_000_000;
/// Fractions of nanoseconds, and of APIC ticks.
const SHIFT: u32 = 32;

// SAFETY: the timer's registers, which touch no memory. The same holds for the others.
const PIT_CHANNEL_2: Port = unsafe { Port::new(0x42) };
// SAFETY: see above.
const PIT_MODE: Port = unsafe { Port::new(0x43) };
// SAFETY: see above.
const PIT_GATE: Port = unsafe { Port::new(0x61) };
/// In the register of the gate: channel 2 is at zero, or was.
const PIT_OUT: u8 = 1 << 5;

static START: AtomicU64 = AtomicU64::new(0);
static NANOS_PER_TICK: AtomicU64 = AtomicU64::new(1 << SHIFT);
/// APIC ticks per nanosecond.
static APIC_TICKS_PER_NANO: AtomicU64 = AtomicU64::new(0);

/// The CPU's counter: the same on every CPU, as on every PC of today.
///
/// It is read after every load before it: else what another CPU did by then could seem to be in the future.
fn counter() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: every CPU in 64-bit mode has the counter and the fence, and nobody forbade either. (Not `nomem`: the
    // compiler, too, moves no load behind it.)
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Calibrates both counters. Once, on the boot CPU, with interrupts off. Time begins.
pub fn init() {
    apic::set_timer(u32::MAX);
    let (start, end) = measure();
    apic::set_timer(0);

    let nanos = start.until(&end).as_nanos();
    let ticks = u128::from(end.tsc.wrapping_sub(start.tsc)).max(1);
    let apic_ticks = u128::from(start.apic.wrapping_sub(end.apic));
    NANOS_PER_TICK.store(((nanos << SHIFT) / ticks) as u64, Ordering::Relaxed);
    APIC_TICKS_PER_NANO.store(((apic_ticks << SHIFT) / nanos.max(1)) as u64, Ordering::Relaxed);
    START.store(counter(), Ordering::Relaxed);
}

/// How much time passes by the clock, and by the timer that it was calibrated with.
pub fn compare() -> (Duration, Duration) {
    let (start, end) = measure();
    (instant(end.tsc).saturating_since(instant(start.tsc)), start.until(&end))
}

/// The counters now, and at least [`CALIBRATION_TICKS`] later.
fn measure() -> (Sample, Sample) {
    /// A hypervisor is elsewhere now and then, not always.
    const ATTEMPTS: u32 = 8;
    (0..ATTEMPTS).find_map(|_| try_to_measure()).expect("the interval timer runs out before it is looked at")
}

/// The same; `None` when the timer, which then begins again, ran out meanwhile.
fn try_to_measure() -> Option<(Sample, Sample)> {
    PIT_GATE.write8(PIT_GATE.read8() & !2 | 1);
    // Channel 2, both bytes, mode 0, binary.
    PIT_MODE.write8(0xb0);
    PIT_CHANNEL_2.write8(0xff);
    PIT_CHANNEL_2.write8(0xff);
    let start = Sample::best();
    let has_run_out = || PIT_GATE.read8() & PIT_OUT != 0;
    let is_enough = |_| has_run_out() || start.pit.wrapping_sub(Sample::take().pit) >= CALIBRATION_TICKS;
    assert!((0..MOST_SAMPLES).any(is_enough), "the interval timer stands still");
    let end = Sample::best();
    (!has_run_out()).then_some((start, end))
}

/// What the counters showed at one moment.
#[derive(Clone, Copy)]
struct Sample {
    pit: u16,
    tsc: u64,
    apic: u32,
    /// How long that moment was.
    width: u64,
}

impl Sample {
    fn take() -> Self {
        let before = counter();
        // Latch channel 2.
        PIT_MODE.write8(0x80);
        let apic = apic::timer_left();
        let after = counter();
        let pit = u16::from_le_bytes([PIT_CHANNEL_2.read8(), PIT_CHANNEL_2.read8()]);
        Self { pit, tsc: before + (after - before) / 2, apic, width: after - before }
    }

    fn until(&self, end: &Self) -> Duration {
        let nanos = u128::from(self.pit.wrapping_sub(end.pit)) * 1_000_000_000 / PIT_HZ;
        Duration::from_nanos(nanos as u64)
    }

    /// The sharpest of some: a hypervisor may have been elsewhere meanwhile.
    fn best() -> Self {
        let mut best = Self::take();
        for _ in 0..16 {
            let other = Self::take();
            if other.width < best.width {
                best = other;
            }
        }
        best
    }
}

/// The current instant, on whichever CPU.
pub fn now() -> Instant {
    instant(counter())
}

/// The instant at which the counter was at `count`.
fn instant(count: u64) -> Instant {
    let ticks = count.saturating_sub(START.load(Ordering::Relaxed));
    Instant::from_nanos(
        ((u128::from(ticks) * u128::from(NANOS_PER_TICK.load(Ordering::Relaxed))) >> SHIFT) as u64,
    )
}

/// Waits without giving up the CPU.
pub fn spin(time: Duration) {
    let end = now().saturating_add(time);
    while now() < end {
        spin_loop();
    }
}

/// Timers that are not due, in no order: there are about as many as there are threads.
static TIMERS: Lock<Vec<(Instant, Waker)>> = Lock::new(Vec::new());
static IS_DUE: AtomicBool = AtomicBool::new(false);
static SERVER: AtomicWaker = AtomicWaker::new();

/// Wakes `waker` at `at`. Thread context: a timer may need memory.
pub fn wake_at(at: Instant, waker: &Waker) {
    if at <= now() {
        return waker.wake_by_ref();
    }
    // Before the lock: a waker is somebody else's code.
    let waker = waker.clone();
    let mut timers = TIMERS.lock();
    // Asked twice for the same, which waiters do that are polled again: one timer.
    if !timers.iter().any(|(other, its)| *other == at && its.will_wake(&waker)) {
        let is_first = timers.iter().all(|(other, _)| at < *other);
        timers.push((at, waker));
        if is_first {
            arm(at);
        }
    }
}

/// Wakes the timers that are due. Thread context.
pub fn expire() {
    loop {
        let mut timers = TIMERS.lock();
        let now = now();
        match timers.iter().position(|(at, _)| *at <= now) {
            Some(due) => {
                let (_, waker) = timers.swap_remove(due);
                // A waker is somebody else's code.
                drop(timers);
                waker.wake();
            }
            None => {
                if let Some(first) = timers.iter().map(|(at, _)| *at).min() {
                    arm(first);
                }
                return;
            }
        }
    }
}

/// Wakes timers for ever: the work of one thread.
pub fn serve(w: &mut dyn Wait) -> ! {
    loop {
        let due = poll_fn(|cx| {
            SERVER.register(cx.waker());
            // After the registration, so that an interrupt between the two is not missed. Acquire: see `interrupt`.
            if IS_DUE.swap(false, Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        });
        // Without a deadline it does not time out.
        let _ = block_on(w, due, None);
        expire();
    }
}

/// The scheduler clock.
const TICK: Duration = Duration::from_millis(10);

/// What the timer of a CPU is set for. Written by that CPU, with interrupts off.
struct Alarm {
    /// The first timer that was left to this CPU, in nanoseconds.
    due: AtomicU64,
    /// The next tick.
    tick: AtomicU64,
}

const NEVER: u64 = u64::MAX;
static ALARMS: [Alarm; cpu::MOST] =
    [const { Alarm { due: AtomicU64::new(NEVER), tick: AtomicU64::new(NEVER) } }; cpu::MOST];

impl Alarm {
    /// Lets the calling CPU change its own.
    fn change(change: impl FnOnce(&Self)) {
        without_interrupts(|| {
            if let Some(alarm) = ALARMS.get(cpu::this().index()) {
                change(alarm);
                alarm.set_timer();
            }
        });
    }

    fn set_timer(&self) {
        let first = self.due.load(Ordering::Relaxed).min(self.tick.load(Ordering::Relaxed));
        if first == NEVER {
            return;
        }
        let nanos = Instant::from_nanos(first).saturating_since(now()).as_nanos().min(u32::MAX.into());
        let ticks = (nanos * u128::from(APIC_TICKS_PER_NANO.load(Ordering::Relaxed))) >> SHIFT;
        // Too far away: it fires early, and is set again.
        apic::set_timer(u32::try_from(ticks).unwrap_or(u32::MAX).saturating_add(1));
    }
}

/// Sets this CPU's timer. That the thread is on another CPU when it fires does not matter.
fn arm(at: Instant) {
    Alarm::change(|alarm| alarm.due.store(at.as_nanos(), Ordering::Relaxed));
}

/// The scheduler's clock ticks on this CPU from now on.
pub fn start_ticking() {
    let at = now().saturating_add(TICK);
    Alarm::change(|alarm| alarm.tick.store(at.as_nanos(), Ordering::Relaxed));
}

/// The interrupt handler.
pub fn interrupt() {
    let now = now();
    let is_due = |at: &AtomicU64, next| {
        let is_due = at.load(Ordering::Relaxed) <= now.as_nanos();
        if is_due {
            at.store(next, Ordering::Relaxed);
        }
        is_due
    };
    Alarm::change(|alarm| {
        if is_due(&alarm.due, NEVER) {
            IS_DUE.store(true, Ordering::Release);
            SERVER.wake();
        }
        if is_due(&alarm.tick, now.saturating_add(TICK).as_nanos())
            && let Some(scheduler) = interrupts::scheduler()
        {
            scheduler.tick();
        }
    });
}
