use std::ops::ControlFlow;
use std::sync::atomic::{AtomicPtr, Ordering};

use dfly_hal::dma::{
    Bidirectional, Bounce, Coherent, Constraints, DevAddr, Dma, DmaError, FromDevice, OutOfRange, Policy,
    Segment, Streaming, ToDevice, Unmappable,
};
use dfly_hal::fake::FakeHal;
use dfly_hal::host::HostDma;
use proptest::prelude::*;

fn collect(list: &mut Vec<Segment>) -> impl FnMut(Segment) -> ControlFlow<()> + '_ {
    |segment| {
        list.push(segment);
        ControlFlow::Continue(())
    }
}

#[test]
fn coherent_memory_is_bounds_checked() {
    let mut ring = Coherent::<[u8; 8], _>::alloc(HostDma::new(), 4, &Constraints::ANY).unwrap();
    assert_eq!(ring.set(3, *b"abcdefgh"), Ok(()));
    assert_eq!(ring.get(3), Some(*b"abcdefgh"));
    assert_eq!(ring.set(4, *b"abcdefgh"), Err(OutOfRange { index: 4, len: 4 }));
    assert_eq!((ring.get(4), ring.device_addr(4), ring.get(usize::MAX)), (None, None, None));
    assert_eq!(ring.get_part::<u16>(3, 5), Some(u16::from_ne(*b"fg")));
    assert_eq!(ring.get_part::<u16>(3, 7), None);
    assert_eq!(ring.get_part::<u8>(3, usize::MAX), None);
    assert!(ring.set_part::<4, u32>(4, 0).is_err());
    assert_eq!(ring.set_part::<4, _>(3, *b"wxyz"), Ok(()));
    assert_eq!(ring.get(3), Some(*b"abcdwxyz"));
    assert_eq!(ring.get(2), Some([0; 8]));
}

trait FromNe {
    fn from_ne(bytes: [u8; 2]) -> Self;
}

impl FromNe for u16 {
    fn from_ne(bytes: [u8; 2]) -> Self {
        zerocopy::transmute!(bytes)
    }
}

#[test]
fn an_array_too_large_to_count_is_refused() {
    let c = Constraints::ANY;
    assert_eq!(Coherent::<u64, _>::alloc(HostDma::new(), usize::MAX, &c).unwrap_err(), DmaError::Exhausted);
    assert_eq!(Coherent::<u64, _>::alloc(HostDma::new(), 0, &c).unwrap_err(), DmaError::Empty);
    assert_eq!(Coherent::<[u8; 0], _>::alloc(HostDma::new(), 9, &c).unwrap_err(), DmaError::Empty);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 5 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn parts_of_coherent_memory_are_those_of_plain_memory(
        writes in prop::collection::vec((0..5_usize, 0..4_usize, any::<[u8; 8]>()), 1..20),
        reads in prop::collection::vec((0..5_usize, 0..18_usize), 1..20),
    ) {
        let mut plain = [[0_u8; 16]; 4];
        let mut ring = Coherent::<[u8; 16], _>::alloc(HostDma::new(), 4, &Constraints::ANY).unwrap();
        for (index, how, bytes) in writes {
            let (done, range) = match how {
                0 => (ring.set_part::<0, _>(index, bytes), 0..8),
                1 => (ring.set_part::<4, _>(index, bytes), 4..12),
                2 => (ring.set_part::<8, _>(index, bytes), 8..16),
                _ => (ring.set_part::<12, _>(index, [bytes[0], bytes[1], bytes[2], bytes[3]]), 12..16),
            };
            prop_assert_eq!(done.is_ok(), index < 4);
            if let Some(element) = plain.get_mut(index) {
                let len = range.len();
                element[range].copy_from_slice(&bytes[..len]);
            }
        }
        for (index, offset) in reads {
            let expected = |len| plain.get(index).and_then(|e| e.get(offset..offset + len)).map(<[u8]>::to_vec);
            prop_assert_eq!(ring.get_part::<[u8; 1]>(index, offset).map(|b| b.to_vec()), expected(1));
            prop_assert_eq!(ring.get_part::<[u8; 3]>(index, offset).map(|b| b.to_vec()), expected(3));
            prop_assert_eq!(ring.get_part::<[u8; 16]>(index, offset).map(|b| b.to_vec()), expected(16));
        }
    }

    #[test]
    fn a_device_may_write_any_bytes_of_coherent_memory(
        writes in prop::collection::vec((0..64_usize, prop::collection::vec(any::<u8>(), 1..20)), 1..20),
    ) {
        let hal = FakeHal::new();
        let ring = Coherent::<[u8; 16], _>::alloc(&hal, 4, &Constraints::ANY).unwrap();
        let start = ring.device_addr(0).unwrap();
        let mut plain = [0_u8; 64];
        for (at, bytes) in writes {
            let Some(expected) = plain.get_mut(at..at + bytes.len()) else { continue };
            expected.copy_from_slice(&bytes);
            hal.device_write(start.checked_add(at as u64).unwrap(), &bytes).unwrap();
            let mut back = vec![0; bytes.len()];
            hal.device_read(start.checked_add(at as u64).unwrap(), &mut back).unwrap();
            prop_assert_eq!(back, bytes);
        }
        for (i, expected) in plain.chunks(16).enumerate() {
            prop_assert_eq!(&ring.get(i).unwrap()[..], expected);
        }
    }
}

#[test]
fn a_buffer_that_is_lent_comes_back_with_what_the_device_wrote() {
    let hal = FakeHal::new();
    let mut list = Vec::new();
    let buf = vec![1_u8; 6000].into_boxed_slice();
    let at = buf.as_ptr();
    let lent =
        Streaming::<FromDevice, _, _>::map(&hal, buf, &Constraints::ANY, &mut collect(&mut list)).unwrap();
    for segment in &list {
        hal.device_write(segment.addr, &vec![7; segment.len as usize]).unwrap();
    }
    // SAFETY: the device has done all it will do.
    let buf = unsafe { lent.unmap() };
    assert!(buf.iter().all(|&b| b == 7));
    assert_eq!(buf.as_ptr(), at, "the buffer was copied for its owner");
    assert_eq!((hal.faults(), hal.leaks().is_empty()), (vec![], true));
}

#[test]
fn a_lent_buffer_can_be_looked_at_and_changed_by_range() {
    let hal = FakeHal::new();
    let mut list = Vec::new();
    let contiguous = Constraints { max_segments: 1, ..Constraints::ANY };
    let buf = vec![1_u8; 8192];
    let mut lent =
        Streaming::<Bidirectional, _, _>::map(&hal, buf, &contiguous, &mut collect(&mut list)).unwrap();
    let base = list[0].addr;
    let at = |i| base.checked_add(i).unwrap();
    hal.device_write(at(100), &[9; 10]).unwrap();
    // SAFETY: the device does nothing of its own accord.
    unsafe {
        assert_eq!(lent.peek(98..102), Some(&[1, 1, 9, 9][..]));
        assert_eq!(lent.poke(105..120, |b| b[14] = 4), Some(()));
        assert_eq!(lent.peek(8190..8193), None);
        #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
        let reversed = lent.peek(5..4);
        assert_eq!(reversed, None);
        assert_eq!(lent.poke(usize::MAX..usize::MAX, |_| ()), None);
    }
    let mut seen = [0; 12];
    hal.device_read(at(108), &mut seen).unwrap();
    assert_eq!(seen, [9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4], "what the device wrote was undone");
    // SAFETY: the device has done all it will do.
    let buf = unsafe { lent.unmap() };
    assert_eq!((buf[104], buf[109], buf[110], buf[119]), (9, 9, 1, 4));
}

#[test]
fn constant_memory_can_be_read_by_a_device() {
    static TEXT: &[u8] = b"constant";
    let hal = FakeHal::new();
    let mut list = Vec::new();
    let lent =
        Streaming::<ToDevice, _, _>::map(&hal, TEXT, &Constraints::ANY, &mut collect(&mut list)).unwrap();
    let mut seen = [0; 8];
    hal.device_read(list[0].addr, &mut seen).unwrap();
    assert_eq!(&seen, b"constant");
    assert!(hal.device_write(list[0].addr, b"!").is_err());
    // SAFETY: the device has done all it will do.
    assert_eq!(unsafe { lent.unmap() }, TEXT);
}

#[test]
fn a_buffer_that_cannot_be_lent_comes_back() {
    let picky = Constraints { align: 4096, ..Constraints::ANY };
    let mut buf = vec![5_u8; 9000];
    // One of these two begins crooked.
    if buf.as_ptr().addr().is_multiple_of(4096) {
        buf = vec![5_u8; 9000];
    }
    let failed =
        Streaming::<ToDevice, _, _>::map(HostDma::new(), buf, &picky, &mut |_| ControlFlow::Continue(()))
            .unwrap_err();
    assert!(matches!(failed.error, DmaError::Unmappable(Unmappable::Misaligned(_))));
    assert_eq!(failed.buf, [5; 9000]);
    let refused =
        Streaming::<ToDevice, _, _>::map(HostDma::new(), failed.buf, &Constraints::ANY, &mut |_| {
            ControlFlow::Break(())
        });
    assert_eq!(refused.unwrap_err().error, DmaError::Refused);
}

#[test]
fn a_mapping_that_is_dropped_leaks_rather_than_dangles() {
    let hal = FakeHal::new();
    let mut list = Vec::new();
    let buf: &'static mut [u8] = Box::leak(Box::new([0_u8; 64]));
    // A leak on purpose: known to a static, so that a leak checker does not mind.
    static KEPT: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
    KEPT.store(buf.as_mut_ptr(), Ordering::Relaxed);
    drop(Streaming::<FromDevice, _, _>::map(&hal, buf, &Constraints::ANY, &mut collect(&mut list)).unwrap());
    // The device is late, and still harms nobody.
    hal.device_write(list[0].addr, &[1; 64]).unwrap();
    assert_eq!(hal.leaks().mappings, [(list[0].addr, 64)]);
}

#[test]
fn a_bounce_adapter_copies_only_what_cannot_be_lent() {
    let pages = Constraints { align: 4096, ..Constraints::ANY };
    let dma = Bounce::new(HostDma::new(), Policy::WhenNeeded, 1, 8192, &pages).unwrap();
    let buf = vec![3_u8; 8192 + 1];
    let at = DevAddr(buf.as_ptr().addr() as u64);
    let mut list = Vec::new();
    let lent =
        Streaming::<ToDevice, _, _>::map(&dma, buf, &Constraints::ANY, &mut collect(&mut list)).unwrap();
    assert_eq!((list[0].addr, dma.free_slots()), (at, 1));
    // SAFETY: no device was told.
    let buf = unsafe { lent.unmap() };

    // Two that begin crooked and a slot for one.
    let crooked = |v: &Vec<u8>| !v.as_ptr().addr().is_multiple_of(4096);
    let small = [vec![3_u8; 100], vec![3_u8; 100]];
    let small = if small.iter().all(crooked) { small } else { [vec![3_u8; 101], vec![3_u8; 102]] };
    let [first, second] = small;
    let mut sink = |_| ControlFlow::Continue(());
    let lent = Streaming::<ToDevice, _, _>::map(&dma, first, &pages, &mut sink).unwrap();
    assert_eq!(dma.free_slots(), 0);
    let failed = Streaming::<ToDevice, _, _>::map(&dma, second, &pages, &mut sink).unwrap_err();
    assert_eq!(failed.error, DmaError::Exhausted);
    // SAFETY: no device was told.
    unsafe { lent.unmap() };
    assert_eq!(dma.free_slots(), 1);
    if crooked(&buf) {
        let failed = Streaming::<ToDevice, _, _>::map(&dma, buf, &pages, &mut sink).unwrap_err();
        assert_eq!(failed.error, Unmappable::TooLong(8192).into());
    }
}

#[test]
fn a_bounce_adapter_gives_everything_back_when_it_cannot_be_made() {
    let mut config = dfly_hal::fake::Config::default();
    config.budget = 10_000;
    let hal = FakeHal::with(config);
    let made = Bounce::new(&hal, Policy::Always, 3, 4096, &Constraints::ANY);
    assert_eq!(made.unwrap_err(), DmaError::Exhausted);
    assert!(hal.leaks().is_empty());
}

#[test]
fn constraints_that_contradict_themselves_are_named() {
    let any = Constraints::ANY;
    for bad in [
        Constraints { addr_mask: 0xf0f, ..any },
        Constraints { align: 0, ..any },
        Constraints { inner_align: 24, ..any },
        Constraints { boundary: 100, ..any },
        Constraints { boundary: 512, align: 4096, ..any },
        Constraints { max_segment: 0, ..any },
        Constraints { max_segment: 100, inner_align: 512, ..any },
        Constraints { max_segments: 0, ..any },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
        assert!(
            matches!(HostDma::new().alloc_coherent(64, &bad), Err(DmaError::BadConstraints(_))),
            "{bad:?}"
        );
    }
}
