//! The conformance suite on the implementations that the crate has, and on some that break one promise each.
#![cfg(all(feature = "std", feature = "fake", feature = "conformance", not(loom)))]
#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests")]
#![expect(clippy::multiple_unsafe_ops_per_block, reason = "one promise, of the suite, covers them all")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use dfly_hal::conformance::{Device, Violation, check_clock, check_cpus, check_dma};
use dfly_hal::dma::{
    Bounce, CoherentMem, Constraints, DevAddr, Direction, Dma, DmaError, Mapping, Policy, Segment,
    SegmentSink,
};
use dfly_hal::fake::{Config, FakeHal, Placement};
use dfly_hal::host::{HostClock, HostCpus, HostDma};
use dfly_hal::{Clock, CpuId, Cpus, Instant};

/// Where the device's address is the CPU's.
struct Direct;

impl Device for Direct {
    fn read(&mut self, from: DevAddr, to: &mut [u8]) -> bool {
        let from = std::ptr::with_exposed_provenance::<u8>(from.0 as usize);
        // SAFETY: the suite asks for what is mapped now.
        unsafe { from.copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) };
        true
    }

    fn write(&mut self, to: DevAddr, from: &[u8]) -> bool {
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to.0 as usize);
        // SAFETY: as in `read`.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        true
    }
}

/// What Miri cannot follow it does not get: a pointer made of a number.
fn direct(device: &mut Direct) -> Option<&mut dyn Device> {
    if cfg!(miri) { None } else { Some(device) }
}

struct OfFake<'a>(&'a FakeHal);

impl Device for OfFake<'_> {
    fn read(&mut self, from: DevAddr, to: &mut [u8]) -> bool {
        self.0.device_read(from, to).is_ok()
    }

    fn write(&mut self, to: DevAddr, from: &[u8]) -> bool {
        self.0.device_write(to, from).is_ok()
    }
}

fn pages() -> Constraints {
    Constraints { align: 4096, ..Constraints::ANY }
}

fn fake(placement: Placement) -> FakeHal {
    let mut config = Config::default();
    config.placement = placement;
    FakeHal::with(config)
}

#[test]
fn host_dma_conforms() {
    assert_eq!(check_dma(&HostDma::new(), direct(&mut Direct)), Ok(()));
    assert_eq!(check_dma(&HostDma::new(), None), Ok(()));
}

#[test]
fn a_bounce_adapter_conforms_and_gives_its_slots_back() {
    for policy in [Policy::Always, Policy::WhenNeeded] {
        let dma = Bounce::new(HostDma::new(), policy, 2, 12288, &pages()).unwrap();
        assert_eq!(check_dma(&dma, direct(&mut Direct)), Ok(()), "{policy:?}");
        assert_eq!(dma.free_slots(), 2);
    }
}

#[test]
fn a_bounce_adapter_over_a_bounce_adapter_conforms() {
    let inner = Bounce::new(HostDma::new(), Policy::WhenNeeded, 2, 8192, &pages()).unwrap();
    let dma = Bounce::new(&inner, Policy::WhenNeeded, 2, 12288, &pages()).unwrap();
    assert_eq!(check_dma(&dma, direct(&mut Direct)), Ok(()));
    assert_eq!((inner.free_slots(), dma.free_slots()), (2, 2));
}

#[test]
fn the_fake_conforms_without_a_fault_or_a_leak() {
    for placement in [Placement::Scattered, Placement::Contiguous] {
        let hal = fake(placement);
        assert_eq!(check_dma(&hal, Some(&mut OfFake(&hal))), Ok(()), "{placement:?}");
        assert_eq!((hal.faults(), hal.leaks().is_empty()), (vec![], true));
    }
}

#[test]
fn a_bounce_adapter_over_the_fake_conforms() {
    let hal = FakeHal::new();
    {
        let dma = Bounce::new(&hal, Policy::Always, 4, 16384, &pages()).unwrap();
        assert_eq!(check_dma(&dma, Some(&mut OfFake(&hal))), Ok(()));
    }
    assert_eq!((hal.faults(), hal.leaks().is_empty()), (vec![], true));
}

#[test]
fn handles_conform_as_what_they_point_to() {
    static DMA: HostDma = HostDma::new();
    let dma: Box<dyn Dma> = Box::new(std::sync::Arc::new(&DMA));
    assert_eq!(check_dma(&dma, None), Ok(()));
}

#[test]
fn the_host_clock_conforms() {
    let mut idle = || std::thread::sleep(Duration::from_micros(50));
    assert_eq!(check_clock(&HostClock::new(), &mut idle), Ok(()));
}

#[test]
fn the_fakes_clock_conforms() {
    let hal = FakeHal::new();
    assert_eq!(check_clock(&hal, &mut || hal.advance(Duration::from_micros(100))), Ok(()));
    assert_eq!(
        check_clock(&hal, &mut || _ = hal.advance_to_next() || {
            hal.advance(Duration::from_millis(9));
            true
        }),
        Ok(())
    );
}

#[test]
fn host_cpus_conform() {
    let cpus = HostCpus::new(3);
    let stop = AtomicBool::new(false);
    let handled = [const { AtomicBool::new(false) }; 3];
    let me = cpus.attach(CpuId(0)).unwrap();
    std::thread::scope(|s| {
        for id in 1..3 {
            let (cpus, stop, handled) = (&cpus, &stop, &handled);
            s.spawn(move || {
                let me = cpus.attach(CpuId(id)).unwrap();
                while !stop.load(Ordering::Acquire) {
                    if me.wait_for_ipi(Duration::from_millis(1)) {
                        handled[me.id().index()].store(true, Ordering::Release);
                    }
                }
            });
        }
        let result = check_cpus(&cpus, &mut |id| {
            std::thread::yield_now();
            if id == me.id() { me.take_ipi() } else { handled[id.index()].swap(false, Ordering::Acquire) }
        });
        stop.store(true, Ordering::Release);
        assert_eq!(result, Ok(()));
    });
}

// What follows breaks one promise at a time.

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    DirtyMemory,
    CrookedMemory,
    MemoryAboveTheMask,
    SameMemoryTwice,
    EmptyAccepted,
    CrookedConstraintsAccepted,
    ShortCoverage,
    OneByteTooMany,
    LongSegments,
    CountIgnored,
    InnerAlignIgnored,
    StopIgnored,
    ReportsThenFails,
    ForgetsToCopyIn,
    ForgetsToCopyOut,
    ForgetsToSyncForDevice,
    ForgetsToSyncForCpu,
    CopiesOutTooMuch,
    NeverUnmaps,
    NeverFrees,
}

/// A host implementation that copies always, done by hand and with one bug.
struct Broken {
    bug: Bug,
    /// By cookie; the bytes stay until the end, so that late accesses do no harm.
    copies: Mutex<BTreeMap<u64, (NonNull<u8>, usize)>>,
    mappings: AtomicUsize,
    shared: Mutex<Option<(NonNull<u8>, usize)>>,
}

// SAFETY: raw memory behind locks.
unsafe impl Send for Broken {}
// SAFETY: as above.
unsafe impl Sync for Broken {}

impl Broken {
    fn new(bug: Bug) -> Self {
        Self { bug, copies: Mutex::default(), mappings: AtomicUsize::new(0), shared: Mutex::new(None) }
    }

    fn copy(&self, m: &Mapping, r: Range<usize>, in_: bool) {
        let (copy, _) = self.copies.lock().unwrap()[&m.cookie];
        // SAFETY: inside both, as the suite promises.
        unsafe {
            let (cpu, copy) = (m.cpu.add(r.start), copy.add(r.start));
            if in_ {
                copy.copy_from_nonoverlapping(cpu, r.len());
            } else {
                cpu.copy_from_nonoverlapping(copy, r.len());
            }
        }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        for (at, len) in
            self.copies.get_mut().unwrap().values().copied().chain(*self.shared.get_mut().unwrap())
        {
            let layout = std::alloc::Layout::from_size_align(len, 4096).unwrap();
            // SAFETY: allocated with that layout.
            unsafe { std::alloc::dealloc(at.as_ptr(), layout) };
        }
    }
}

fn raw(len: usize) -> NonNull<u8> {
    let layout = std::alloc::Layout::from_size_align(len, 4096).unwrap();
    // SAFETY: not of size 0.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).unwrap()
}

fn addr(at: NonNull<u8>) -> DevAddr {
    DevAddr(at.as_ptr().expose_provenance() as u64)
}

// SAFETY: broken on purpose, in ways that the suite survives.
unsafe impl Dma for Broken {
    fn alloc_coherent(&self, len: usize, c: &Constraints) -> Result<CoherentMem, DmaError> {
        if len == 0 && self.bug == Bug::EmptyAccepted {
            return Ok(CoherentMem { cpu: NonNull::dangling(), device: DevAddr(0), len, cookie: u64::MAX });
        }
        if self.bug == Bug::NeverFrees && self.mappings.fetch_add(1, Ordering::Relaxed) > 40 {
            return Err(DmaError::Exhausted);
        }
        let c = match self.bug {
            Bug::CrookedConstraintsAccepted if c.align == 3 => Constraints::ANY,
            Bug::MemoryAboveTheMask => Constraints { addr_mask: u64::MAX, ..*c },
            _ => *c,
        };
        if self.bug == Bug::SameMemoryTwice && len == 64 && c.check().is_ok() {
            let (cpu, len) = *self.shared.lock().unwrap().get_or_insert_with(|| (raw(4096), 4096));
            return Ok(CoherentMem { cpu, device: addr(cpu), len: len.min(64), cookie: u64::MAX });
        }
        if self.bug == Bug::SameMemoryTwice && len == 96 {
            let cpu = self.shared.lock().unwrap().unwrap().0;
            return Ok(CoherentMem { cpu, device: addr(cpu), len, cookie: u64::MAX });
        }
        let mut mem = HostDma::new().alloc_coherent(len, &c)?;
        match self.bug {
            // SAFETY: the last byte.
            Bug::DirtyMemory => unsafe { mem.cpu.add(len - 1).write(1) },
            Bug::CrookedMemory => mem.device = DevAddr(mem.device.0 + 1),
            _ => {}
        }
        Ok(mem)
    }

    unsafe fn free_coherent(&self, mut mem: CoherentMem) {
        if mem.cookie != u64::MAX {
            mem.device = addr(mem.cpu);
            // SAFETY: the host's own.
            unsafe { HostDma::new().free_coherent(mem) };
        }
    }

    unsafe fn map(
        &self,
        cpu: NonNull<u8>,
        len: usize,
        direction: Direction,
        c: &Constraints,
        sink: &mut SegmentSink<'_>,
    ) -> Result<Mapping, DmaError> {
        let any = Constraints { coherent: c.coherent, ..Constraints::ANY };
        let c = match self.bug {
            Bug::CrookedConstraintsAccepted if c.align == 3 => any,
            Bug::LongSegments => Constraints { max_segment: u32::MAX, ..*c },
            Bug::CountIgnored => Constraints { max_segments: u16::MAX, ..*c },
            Bug::InnerAlignIgnored if c.inner_align > 1 => {
                Constraints { inner_align: 1, max_segment: 1000, ..*c }
            }
            _ => *c,
        };
        if self.bug == Bug::NeverUnmaps && self.mappings.load(Ordering::Relaxed) > 300 {
            return Err(DmaError::Exhausted);
        }
        if len == 0 {
            return Err(DmaError::Empty);
        }
        let copy = raw(len);
        let list: Result<Vec<Segment>, DmaError> =
            dfly_hal::dma::segments([(addr(copy), len as u64)], &c).map(Iterator::collect);
        let cookie = self.mappings.fetch_add(1, Ordering::Relaxed) as u64;
        self.copies.lock().unwrap().insert(cookie, (copy, len));
        if self.bug == Bug::ReportsThenFails && list.is_err() {
            let _ = sink(Segment { addr: addr(copy), len: 1 });
        }
        let mut list = list?;
        match self.bug {
            Bug::ShortCoverage if len > 1 => list.last_mut().unwrap().len -= 1,
            Bug::OneByteTooMany => list.last_mut().unwrap().len += 1,
            _ => {}
        }
        for segment in list {
            if sink(segment).is_break() && self.bug != Bug::StopIgnored {
                return Err(DmaError::Refused);
            }
        }
        let mapping = Mapping { cpu, len, direction, cookie, adapter: 0 };
        if self.bug != Bug::ForgetsToCopyIn {
            self.copy(&mapping, 0..len, true);
        }
        Ok(mapping)
    }

    unsafe fn unmap(&self, m: Mapping) {
        if m.direction.device_writes() && self.bug != Bug::ForgetsToCopyOut {
            self.copy(&m, 0..m.len, false);
        }
        if self.bug == Bug::CopiesOutTooMuch {
            // SAFETY: the suite leaves room around its buffers.
            unsafe { m.cpu.add(m.len).write(0) };
        }
    }

    unsafe fn sync_for_device(&self, m: &Mapping, r: Range<usize>) {
        if self.bug != Bug::ForgetsToSyncForDevice {
            self.copy(m, r, true);
        }
    }

    unsafe fn sync_for_cpu(&self, m: &Mapping, r: Range<usize>) {
        if self.bug != Bug::ForgetsToSyncForCpu {
            self.copy(m, r, false);
        }
    }

    fn wmb(&self) {}
    fn rmb(&self) {}
}

fn verdict(bug: Bug) -> Violation {
    check_dma(&Broken::new(bug), Some(&mut Direct)).expect_err("the bug was not found")
}

#[test]
#[cfg_attr(miri, ignore = "its device makes pointers of numbers")]
fn each_broken_promise_of_a_dma_is_found_and_named() {
    use Violation as V;
    type Right = fn(&Violation) -> bool;
    let cases: &[(Bug, Right)] = &[
        (Bug::DirtyMemory, |v| matches!(v, V::NotZeroed { .. })),
        (Bug::CrookedMemory, |v| matches!(v, V::Constraint { constraint: "align", .. } | V::Lost { .. })),
        (Bug::MemoryAboveTheMask, |v| matches!(v, V::Constraint { constraint: "addr_mask", .. })),
        (Bug::SameMemoryTwice, |v| matches!(v, V::Overlap { .. })),
        (Bug::EmptyAccepted, |v| matches!(v, V::Accepted { what: "a length of 0", .. })),
        (Bug::CrookedConstraintsAccepted, |v| matches!(v, V::Accepted { what: "an alignment of 3", .. })),
        (Bug::ShortCoverage, |v| matches!(v, V::Coverage { .. })),
        (Bug::OneByteTooMany, |v| matches!(v, V::Coverage { .. })),
        (Bug::LongSegments, |v| {
            matches!(v, V::Accepted { .. } | V::Constraint { constraint: "max_segment", .. })
        }),
        (Bug::CountIgnored, |v| matches!(v, V::Accepted { what: "more segments than allowed", .. })),
        (
            Bug::InnerAlignIgnored,
            |v| matches!(v, V::Constraint { constraint, .. } if constraint.starts_with("inner")),
        ),
        (Bug::StopIgnored, |v| matches!(v, V::StopIgnored)),
        (Bug::ReportsThenFails, |v| matches!(v, V::ReportedThenFailed { .. })),
        (Bug::ForgetsToCopyIn, |v| matches!(v, V::Lost { call: "Dma::map", .. })),
        (Bug::ForgetsToCopyOut, |v| matches!(v, V::Lost { call: "Dma::unmap", .. })),
        (Bug::ForgetsToSyncForDevice, |v| matches!(v, V::Lost { call: "Dma::sync_for_device", .. })),
        (Bug::ForgetsToSyncForCpu, |v| matches!(v, V::Lost { call: "Dma::sync_for_cpu", .. })),
        (Bug::CopiesOutTooMuch, |v| matches!(v, V::Overwritten { .. })),
        (Bug::NeverUnmaps, |v| matches!(v, V::Leak { call: "Dma::map", .. })),
        (Bug::NeverFrees, |v| matches!(v, V::Leak { call: "Dma::alloc_coherent", .. })),
    ];
    for (bug, right) in cases {
        let v = verdict(*bug);
        assert!(right(&v), "{bug:?} was found, but as: {v}");
    }
}

#[derive(Clone, Copy)]
enum ClockBug {
    Backwards,
    Stands,
    LosesTimers,
    WakesTwice,
}

struct BrokenClock {
    bug: ClockBug,
    ticks: AtomicU64,
}

impl Clock for BrokenClock {
    fn now(&self) -> Instant {
        let n = self.ticks.fetch_add(1, Ordering::Relaxed);
        Instant::from_nanos(match self.bug {
            ClockBug::Backwards if n == 500 => 1,
            ClockBug::Stands => 7,
            // Some hours in a few million looks.
            _ => n * 10_000_000,
        })
    }

    fn wake_at(&self, _: Instant, waker: &Waker) {
        match self.bug {
            ClockBug::LosesTimers => {}
            ClockBug::WakesTwice => {
                waker.wake_by_ref();
                waker.wake_by_ref();
            }
            _ => waker.wake_by_ref(),
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "a million looks at a clock that stands")]
fn each_broken_promise_of_a_clock_is_found_and_named() {
    let verdict = |bug| check_clock(&BrokenClock { bug, ticks: AtomicU64::new(0) }, &mut || {}).unwrap_err();
    assert!(matches!(verdict(ClockBug::Backwards), Violation::ClockWentBack { .. }));
    assert!(matches!(verdict(ClockBug::Stands), Violation::ClockStands { .. }));
    assert!(matches!(verdict(ClockBug::LosesTimers), Violation::TimerLost { .. }));
    assert!(matches!(verdict(ClockBug::WakesTwice), Violation::WokenAgain { times: 2 }));
}

#[derive(Clone, Copy, PartialEq)]
enum CpuBug {
    None,
    Nowhere,
    Wanders,
    CountChanges,
    LosesIpis,
}

struct BrokenCpus {
    bug: CpuBug,
    calls: AtomicU32,
    ipi: AtomicBool,
}

// SAFETY: broken on purpose; nothing relies on it.
unsafe impl Cpus for BrokenCpus {
    fn this(&self) -> CpuId {
        match self.bug {
            CpuBug::Nowhere => CpuId(2),
            CpuBug::Wanders => CpuId(self.calls.fetch_add(1, Ordering::Relaxed) / 100 % 2),
            _ => CpuId(0),
        }
    }

    fn count(&self) -> u32 {
        if self.bug == CpuBug::CountChanges {
            2 + self.calls.fetch_add(1, Ordering::Relaxed) / 100
        } else {
            2
        }
    }

    fn raise_ipi(&self, to: CpuId) {
        if self.bug != CpuBug::LosesIpis && to.0 < 2 {
            self.ipi.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "ten million looks for an IPI")]
fn each_broken_promise_of_cpus_is_found_and_named() {
    let verdict = |bug| {
        let cpus = BrokenCpus { bug, calls: AtomicU32::new(0), ipi: AtomicBool::new(false) };
        check_cpus(&cpus, &mut |_| cpus.ipi.swap(false, Ordering::Relaxed))
    };
    assert_eq!(verdict(CpuBug::None), Ok(()));
    assert!(matches!(verdict(CpuBug::Nowhere), Err(Violation::WrongCpu { this: CpuId(2), .. })));
    assert!(matches!(verdict(CpuBug::Wanders), Err(Violation::WrongCpu { expected: Some(_), .. })));
    assert!(matches!(verdict(CpuBug::CountChanges), Err(Violation::CpuCount { .. })));
    assert!(matches!(verdict(CpuBug::LosesIpis), Err(Violation::IpiLost { to: CpuId(0) })));
}
