use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use dfly_hal::dma::{
    Coherent, Constraints, DevAddr, Dma, DmaError, FromDevice, Segment, Streaming, ToDevice,
};
use dfly_hal::fake::{Config, FRESH, FakeHal, Fault, POISON};
use dfly_hal::{Clock, CpuId, Cpus};

fn lend<'a, X>(
    hal: &'a FakeHal,
    len: usize,
    c: &Constraints,
) -> (Streaming<X, Vec<u8>, &'a FakeHal>, Vec<Segment>)
where
    X: dfly_hal::dma::StreamingDirection<Vec<u8>>,
{
    let mut list = Vec::new();
    let lent = Streaming::map(hal, vec![1; len], c, &mut |segment| {
        list.push(segment);
        ControlFlow::Continue(())
    });
    (lent.unwrap(), list)
}

#[test]
fn a_buffer_is_copied_so_that_what_is_done_without_a_sync_is_seen() {
    let hal = FakeHal::new();
    let (lent, list) = lend::<ToDevice>(&hal, 64, &Constraints::ANY);
    let mut seen = [0; 64];
    hal.device_read(list[0].addr, &mut seen).unwrap();
    assert_eq!(seen, [1; 64]);
    // SAFETY: the device has done all it will do.
    unsafe { lent.unmap() };
}

#[test]
fn bytes_that_the_device_did_not_write_come_back_as_filler() {
    let hal = FakeHal::new();
    let (lent, list) = lend::<FromDevice>(&hal, 64, &Constraints::ANY);
    hal.device_write(list[0].addr, &[9; 32]).unwrap();
    // SAFETY: the device has done all it will do.
    let buf = unsafe { lent.unmap() };
    assert_eq!((&buf[..32], &buf[32..]), (&[9; 32][..], &[FRESH; 32][..]));
}

#[test]
fn device_addresses_are_used_once_and_keep_their_distance() {
    let hal = FakeHal::new();
    let mut seen: Vec<(u64, u64)> = Vec::new();
    for _ in 0..if cfg!(miri) { 3 } else { 100 } {
        let (lent, list) = lend::<ToDevice>(&hal, 10_000, &Constraints::ANY);
        for s in list {
            let (start, end) = (s.addr.0, s.addr.0 + u64::from(s.len));
            assert!(
                seen.iter().all(|&(a, b)| end + 4096 <= a || b + 4096 <= start),
                "{start:#x} is used again"
            );
            seen.push((start, end));
        }
        // SAFETY: no device was told.
        unsafe { lent.unmap() };
    }
}

#[test]
fn a_buffer_is_scattered_where_the_device_takes_it() {
    let hal = FakeHal::new();
    let (lent, list) = lend::<ToDevice>(&hal, 3 * 4096, &Constraints::ANY);
    assert!(list.len() >= 3);
    // SAFETY: no device was told.
    unsafe { lent.unmap() };
    let one = Constraints { max_segments: 1, ..Constraints::ANY };
    let (lent, list) = lend::<ToDevice>(&hal, 3 * 4096, &one);
    assert_eq!(list.len(), 1);
    // SAFETY: as above.
    unsafe { lent.unmap() };
}

#[test]
fn addresses_for_a_32_bit_device_come_round_again_when_they_run_out() {
    let hal = FakeHal::new();
    let c = Constraints { addr_mask: (4 << 20) - 1, ..Constraints::ANY };
    let keep = Coherent::<u32, _>::alloc(&hal, 1024, &c).unwrap();
    for _ in 0..if cfg!(miri) { 3 } else { 2000 } {
        let mem = Coherent::<u32, _>::alloc(&hal, 25_000, &c).unwrap();
        let (at, kept) = (mem.device_addr(0).unwrap().0, keep.device_addr(0).unwrap().0);
        assert!(at + 100_000 <= c.addr_mask && (at + 100_000 < kept || at > kept + 4096));
    }
    let too_long = Coherent::<u32, _>::alloc(&hal, 5 << 18, &c).unwrap_err();
    assert_eq!(too_long, DmaError::Exhausted);
}

#[test]
fn an_access_outside_what_is_mapped_is_a_fault_and_does_nothing() {
    let hal = FakeHal::new();
    let (lent, list) = lend::<FromDevice>(&hal, 64, &Constraints::ANY);
    let at = |n: u64| DevAddr(list[0].addr.0.wrapping_add(n));
    let before = DevAddr(list[0].addr.0 - 1);
    assert_eq!(hal.device_write(at(60), &[2; 5]), Err(Fault::WriteUnmapped { addr: at(60), len: 5 }));
    assert_eq!(hal.device_write(before, &[2; 2]), Err(Fault::WriteUnmapped { addr: before, len: 2 }));
    let null = DevAddr(0);
    assert_eq!(hal.device_read(null, &mut [0; 4]), Err(Fault::ReadUnmapped { addr: null, len: 4 }));
    assert_eq!(hal.device_read(at(0), &mut [0; 4]), Err(Fault::ReadDenied { addr: at(0) }));
    assert!(hal.device_read(DevAddr(u64::MAX), &mut [0; 4]).is_err());
    // SAFETY: the device has done all it will do.
    let buf = unsafe { lent.unmap() };
    assert!(!buf.contains(&2));
    assert_eq!(hal.device_write(at(0), &[2]), Err(Fault::WriteUnmapped { addr: at(0), len: 1 }));
    assert_eq!(hal.faults().len(), 6);
}

#[test]
fn what_is_not_given_back_is_reported() {
    let hal = FakeHal::new();
    let ring = Coherent::<u64, _>::alloc(&hal, 8, &Constraints::ANY).unwrap();
    let (lent, list) = lend::<ToDevice>(&hal, 64, &Constraints::ANY);
    let leaks = hal.leaks();
    assert_eq!(leaks.coherent, [(ring.device_addr(0).unwrap(), 64)]);
    assert_eq!(leaks.mappings, [(list[0].addr, 64)]);
    drop(ring);
    // SAFETY: no device was told.
    unsafe { lent.unmap() };
    assert!(hal.leaks().is_empty());
}

#[test]
fn freed_memory_is_poisoned_and_watched() {
    let hal = FakeHal::new();
    let mem = hal.alloc_coherent(64, &Constraints::ANY).unwrap();
    let (stale, addr) = (mem.cpu, mem.device);
    // SAFETY: it came just now.
    unsafe { hal.free_coherent(mem) };
    // SAFETY: the fake keeps what was freed for a while, for this very test.
    unsafe {
        assert_eq!(stale.read(), POISON);
        stale.add(63).write(0);
    }
    assert_eq!(hal.faults(), [Fault::LateWrite { addr }]);
}

#[test]
fn misuse_of_the_raw_calls_is_a_fault_and_harms_nobody() {
    let hal = FakeHal::new();
    let mem = hal.alloc_coherent(64, &Constraints::ANY).unwrap();
    let (cpu, device, cookie) = (mem.cpu, mem.device, mem.cookie);
    let again = |len| dfly_hal::dma::CoherentMem { cpu, device, len, cookie };
    // SAFETY: it is not, and the fake says so.
    unsafe {
        hal.free_coherent(again(32));
        hal.free_coherent(mem);
        hal.free_coherent(again(64));
    }
    assert_eq!(hal.faults(), [Fault::BadFree { cookie }; 2]);
}

#[test]
fn a_budget_can_be_used_up() {
    let mut config = Config::default();
    config.budget = 8192;
    let hal = FakeHal::with(config);
    let half = Coherent::<u32, _>::alloc(&hal, 1024, &Constraints::ANY).unwrap();
    assert_eq!(Coherent::<u32, _>::alloc(&hal, 1025, &Constraints::ANY).unwrap_err(), DmaError::Exhausted);
    drop(half);
    assert!(Coherent::<u32, _>::alloc(&hal, 2048, &Constraints::ANY).is_ok());
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn time_stands_still_until_it_is_moved() {
    let hal = FakeHal::new();
    let start = hal.now();
    let counts = [1, 2, 3].map(|ms| {
        let count = Arc::new(Count::default());
        hal.wake_at(start.saturating_add(Duration::from_millis(ms)), &Waker::from(count.clone()));
        count
    });
    let woken = || counts.each_ref().map(|c| c.0.load(Ordering::Relaxed));
    assert_eq!((hal.now(), woken()), (start, [0, 0, 0]));
    assert!(hal.advance_to_next());
    assert_eq!((hal.now().saturating_since(start), woken()), (Duration::from_millis(1), [1, 0, 0]));
    hal.advance(Duration::from_secs(1));
    assert_eq!(woken(), [1, 1, 1]);
    assert!(!hal.advance_to_next());
}

#[test]
fn threads_are_its_cpus() {
    let mut config = Config::default();
    config.cpus = 2;
    let hal = FakeHal::with(config);
    assert_eq!((hal.this(), hal.count()), (CpuId::NONE, 2));
    let me = hal.attach(CpuId(1)).unwrap();
    assert_eq!(hal.this(), CpuId(1));
    hal.raise_ipi(CpuId(1));
    assert!(me.take_ipi() && !me.take_ipi());
}
