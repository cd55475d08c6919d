use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dfly_hal::fake::FakeHal;
use dfly_hal::regs::{
    Halves, MmioWindow, NotYet, Patience, ReadOnly, ReadWrite, Reg, Traced, Window, WriteOnly,
};
use dfly_hal::sync::Lock;
use dfly_hal::{Clock, SpinWait, reg_value};

#[derive(Clone, Copy, Debug, PartialEq)]
struct Status(u32);

impl Status {
    fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
    fn into_bits(self) -> u32 {
        self.0
    }
    fn ready(self) -> bool {
        self.0 & 1 != 0
    }
}

reg_value!(Status: u32);

const CAP: Reg<u64, ReadOnly> = Reg::at(0x00);
const CC: Reg<u32, ReadWrite> = Reg::at(0x08);
const STATUS: Reg<Status, ReadWrite> = Reg::at(0x0c);
const DOORBELL: Reg<u32, WriteOnly> = Reg::at(0x10);

/// Ordinary memory as registers.
fn memory() -> (MmioWindow, NonNull<[u64]>) {
    let block = NonNull::from(Box::leak(vec![0_u64; 4].into_boxed_slice()));
    // SAFETY: 32 bytes of memory that only the window uses until `free`.
    (unsafe { MmioWindow::new(block.cast(), 32) }, block)
}

fn free(block: NonNull<[u64]>) {
    // SAFETY: from `memory`, and the window is not used any more.
    drop(unsafe { Box::from_raw(block.as_ptr()) });
}

#[test]
fn registers_are_little_endian_and_of_their_own_width() {
    let (window, block) = memory();
    CC.write(&window, 0x1122_3344);
    STATUS.write(&window, Status(0x5566_7788));
    assert_eq!((CC.read(&window), STATUS.read(&window)), (0x1122_3344, Status(0x5566_7788)));
    assert_eq!(window.read64(8), 0x5566_7788_1122_3344);
    window.write64(0, 0x0102_0304_0506_0708);
    assert_eq!((CAP.read(&window), window.read32(0)), (0x0102_0304_0506_0708, 0x0506_0708));
    CC.update(&window, |cc| cc | 1);
    assert_eq!(CC.read(&window), 0x1122_3345);
    free(block);
}

#[test]
fn what_lies_outside_the_window_reads_as_all_ones_and_swallows_writes() {
    let (window, block) = memory();
    for offset in [32, 30, 29, 2, usize::MAX, usize::MAX - 3] {
        window.write32(offset, 0);
        assert_eq!(window.read32(offset), u32::MAX, "{offset:#x}");
    }
    for offset in [28, 4, usize::MAX - 7] {
        window.write64(offset, 0);
        assert_eq!(window.read64(offset), u64::MAX, "{offset:#x}");
    }
    DOORBELL.plus(usize::MAX).write(&window, 1);
    assert_eq!((window.read64(0), window.read64(24)), (0, 0));
    assert_eq!((window.len(), window.is_empty()), (32, false));
    free(block);
}

#[test]
fn a_window_can_be_shared_boxed_and_erased() {
    let (window, block) = memory();
    let boxed: Box<dyn Window> = Box::new(&window);
    let shared: std::sync::Arc<dyn Window> = std::sync::Arc::new(&boxed);
    CC.write(&*shared, 9);
    assert_eq!(CC.read(&shared), 9);
    free(block);
}

#[test]
fn halves_reach_a_wide_register_low_half_first() {
    let (window, block) = memory();
    let log = Lock::new(Vec::new());
    let window = Halves(Traced::new(window, |access| log.lock().push(access.to_string())));
    window.write64(8, 0x1_0000_0002);
    assert_eq!(window.read64(8), 0x1_0000_0002);
    let log = log.lock().clone();
    assert_eq!(log, ["write32 0x8 = 0x2", "write32 0xc = 0x1", "read32 0x8 = 0x2", "read32 0xc = 0x1"]);
    free(block);
}

/// Becomes ready at the n-th look; each look takes a microsecond.
struct Slow<'a> {
    hal: &'a FakeHal,
    looks: AtomicU32,
    ready_at: u32,
    value: u32,
}

impl Window for Slow<'_> {
    fn read32(&self, _: usize) -> u32 {
        self.hal.advance(Duration::from_micros(1));
        if self.looks.fetch_add(1, Ordering::Relaxed) + 1 >= self.ready_at { self.value } else { 0 }
    }
    fn write32(&self, _: usize, _: u32) {}
}

fn poll(ready_at: u32, value: u32, patience: Duration) -> (Result<Status, NotYet<Status>>, u32) {
    let hal = FakeHal::new();
    let slow = Slow { hal: &hal, looks: AtomicU32::new(0), ready_at, value };
    let mut idle = || {
        hal.advance_to_next();
    };
    let clock = || hal.now();
    let mut wait = SpinWait::with_clock(&mut idle, &clock);
    let deadline = hal.now().saturating_add(patience);
    let result = STATUS.poll_until(&slow, Patience { clock: &hal, wait: &mut wait, deadline }, Status::ready);
    (result, slow.looks.load(Ordering::Relaxed))
}

#[test]
fn polling_ends_with_the_value_that_convinced() {
    assert_eq!(poll(1, 5, Duration::ZERO), (Ok(Status(5)), 1));
    assert_eq!(poll(4, 7, Duration::from_secs(1)), (Ok(Status(7)), 4));
}

#[test]
fn polling_gives_up_after_the_deadline_with_the_last_value() {
    let (result, looks) = poll(u32::MAX, 1, Duration::from_millis(100));
    assert_eq!(result, Err(NotYet { last: Status(0) }));
    // Pauses grow to a millisecond: some hundred looks, not a hundred thousand.
    assert!((50..200).contains(&looks), "{looks}");
}

#[test]
fn all_ones_is_a_value_like_any_other() {
    assert_eq!(poll(3, u32::MAX, Duration::from_secs(1)).0, Ok(Status(u32::MAX)));
}

#[test]
fn a_late_poller_looks_once_more_after_the_deadline() {
    // The first pause takes us far beyond the deadline, as if the thread had been off its CPU.
    let hal = FakeHal::new();
    let slow = Slow { hal: &hal, looks: AtomicU32::new(0), ready_at: 2, value: 1 };
    let slept = Cell::new(false);
    let mut idle = || {
        slept.set(true);
        hal.advance(Duration::from_secs(60));
    };
    let clock = || hal.now();
    let mut wait = SpinWait::with_clock(&mut idle, &clock);
    let deadline = hal.now().saturating_add(Duration::from_millis(1));
    let result = STATUS.poll_until(&slow, Patience { clock: &hal, wait: &mut wait, deadline }, Status::ready);
    assert!(slept.get() && hal.now() > deadline);
    assert_eq!(result, Ok(Status(1)));
}
