//! Splitting by limits, layers over each other, and where the bytes are meanwhile.

use std::sync::Arc;

use dfly_bio::*;
use proptest::prelude::*;

use crate::common::{Held, Spy, cases, page, pattern, polling};

/// Several buffers of these sizes.
fn scattered(sizes: &[usize]) -> BufVec {
    let mut list = BufVec::with_capacity(sizes.len()).unwrap();
    sizes.iter().for_each(|&n| list.push(Buf::alloc(n, 1).unwrap()).unwrap());
    list
}

fn fill(list: &mut BufVec, bytes: &[u8]) {
    let mut at = 0;
    for i in 0..list.parts().len() {
        let part = list.get_mut(i).unwrap();
        part.copy_from_slice(&bytes[at..at + part.len()]);
        at += part.len();
    }
}

proptest! {
    #![proptest_config(cases(400, 6))]

    /// A disk behind a splitter reads and writes as an array of bytes does.
    #[test]
    fn a_split_device_is_an_array_of_bytes(
        max in 1..40u64, segments in 1..5u32, boundary in 0..24u64, children in 1..5usize, queued: bool,
        ops in prop::collection::vec((any::<bool>(), 0..200u64, prop::collection::vec(0..30usize, 0..8)), 1..12),
    ) {
        let strict = |limits: &mut Limits| {
            limits.max_bytes = max;
            limits.max_segments = segments;
            limits.boundary_bytes = boundary;
        };
        let mode = if queued { Completion::Queued } else { Completion::Inline };
        let disk = Split::new(MemDisk::new(1, 400).limited(strict).completing(mode), children);
        let mut model = [0u8; 400];
        let mut next = 1u8;
        for (write, at, sizes) in ops {
            let len: usize = sizes.iter().sum();
            let range = at as usize..(at as usize + len).min(400);
            let mut list = scattered(&sizes);
            let mut bio = Bio::new();
            if write {
                let bytes: Vec<u8> = (0..len).map(|i| next.wrapping_add(i as u8)).collect();
                next = next.wrapping_add(91);
                fill(&mut list, &bytes);
                if at as usize + len <= 400 {
                    model[range.clone()].copy_from_slice(&bytes);
                }
                bio.write(at, list);
            } else {
                bio.read(at, list);
            }
            let bio = polling(&disk, |w| bio.call(&disk, w));
            if at as usize + len > 400 {
                prop_assert_eq!(bio.status(), Err(Failure::OutOfRange));
                continue;
            }
            bio.result().unwrap();
            let got: Vec<u8> = bio.bytes().flatten().copied().collect();
            prop_assert_eq!(&got[..], &model[range]);
        }
    }

    /// Carving hands out every byte once, in order, whatever the segments and the pieces.
    #[test]
    fn carved_pieces_are_the_whole(
        sizes in prop::collection::vec(0..20usize, 0..8), pieces in prop::collection::vec(0..30u64, 0..12),
    ) {
        let list = scattered(&sizes);
        let want: Vec<usize> =
            list.parts().iter().flat_map(|b| (0..b.len()).map(|i| b.as_ptr().addr() + i)).collect();
        let mut bio = Bio::new();
        bio.read(0, list);
        let (job, pending) = bio.waitable();
        let mut carver = job.carve();
        let mut jobs = Vec::new();
        for n in pieces {
            jobs.push(carver.next(Bio::new(), n, 0));
        }
        jobs.push(carver.next(Bio::new(), u64::MAX, 0));
        drop(carver);
        let got: Vec<usize> = jobs
            .iter()
            .flat_map(|j| j.segments().flat_map(|s| (0..s.len).map(move |i| s.ptr.addr().get() + i)))
            .collect();
        prop_assert_eq!(got, want);
        // Each writes its own number through safe code; nobody writes over another (Miri looks closer).
        let mut model = Vec::new();
        for (i, job) in jobs.into_iter().enumerate() {
            let mut job = job;
            let n = job.len() as usize;
            prop_assert_eq!(job.data_mut().unwrap().fill(i as u8, n), n);
            model.extend(std::iter::repeat_n(i as u8, n));
            job.finish(Ok(()));
        }
        let bio = pending.try_take().unwrap();
        prop_assert_eq!(bio.bytes().flatten().copied().collect::<Vec<_>>(), model);
    }
}

#[test]
fn the_device_sees_the_page_of_the_cache_through_a_layer_and_a_split() {
    let spy = Arc::new(Spy::new(MemDisk::new(512, 1 << 20).limited(|l| l.max_bytes = 4096)));
    let disk = Partition::new(Split::new(spy.clone(), 2), 1 << 20, 1 << 20).unwrap();
    polling(&disk, |w| {
        let page = page(16384, 7);
        let address = page.as_ptr().addr();
        let mut bio = Bio::new();
        bio.write(8192, page.freeze());
        bio = bio.call(&disk, w);
        bio.result().unwrap();
        let seen = spy.take();
        assert_eq!(seen.len(), 4);
        for (i, s) in seen.iter().enumerate() {
            assert_eq!((s.offset, s.len), ((1 << 20) + 8192 + i as u64 * 4096, 4096));
            assert_eq!(s.segments, [(address + i * 4096, 4096)]);
        }
        drop(bio.take());
        bio.read(8192, page.try_into_buf().unwrap());
        bio = bio.call(&disk, w);
        bio.result().unwrap();
        assert_eq!(spy.take()[0].segments[0].0, address);
        let page = bio.take_buf().unwrap().into_shared().unwrap();
        assert_eq!((page.as_ptr().addr(), page[16383]), (address, 7));
    });
}

#[test]
fn long_requests_park_until_children_come_home() {
    let mut limits = Limits::new(512, 1 << 20);
    limits.max_bytes = 512;
    struct Short(Arc<Held>, Limits);
    impl BlockDevice for Short {
        fn limits(&self) -> Limits {
            self.1
        }
        fn submit(&self, batch: JobList) {
            self.0.submit(batch);
        }
    }
    let held = Arc::new(Held::default());
    let disk = Split::new(Short(held.clone(), limits), 2);
    let mut pending = Vec::new();
    for _ in 0..3 {
        let mut bio = Bio::new();
        bio.read(0, Buf::alloc(2048, 1).unwrap());
        pending.push(bio.start(&disk));
    }
    let mut children = 0;
    while let Some(child) = held.pop() {
        assert!(held.0.lock().unwrap().len() <= 1, "two children in all");
        children += 1;
        child.finish(Ok(()));
    }
    assert_eq!(children, 12);
    pending.into_iter().for_each(|p| p.try_take().unwrap().result().unwrap());
}

#[test]
fn children_complete_on_other_threads() {
    struct Threads(Limits);
    impl BlockDevice for Threads {
        fn limits(&self) -> Limits {
            self.0
        }
        fn submit(&self, batch: JobList) {
            for mut job in batch {
                std::thread::spawn(move || {
                    let n = job.len() as usize;
                    let byte = (job.offset() / 512) as u8;
                    job.data_mut().unwrap().fill(byte, n);
                    job.finish(Ok(()));
                });
            }
        }
    }
    let mut limits = Limits::new(512, 1 << 20);
    limits.max_bytes = 512;
    let disk = Split::new(Threads(limits), 2);
    let blocks = if cfg!(miri) { 6 } else { 64 };
    let mut w = dfly_hal::ThreadWait::new();
    let mut two = [Bio::new(), Bio::new()].map(|mut bio| {
        bio.read(0, Buf::alloc(512 * blocks, 1).unwrap());
        Some(bio.start(&disk))
    });
    for p in &mut two {
        let bio = p.take().unwrap().wait(&mut w);
        bio.result().unwrap();
        let bytes: Vec<u8> = bio.bytes().flatten().copied().collect();
        assert!(bytes.iter().enumerate().all(|(i, &b)| b == (i / 512) as u8));
    }
}

#[test]
fn a_request_that_no_split_helps_fails_by_its_name() {
    let strict = |limits: &mut Limits| {
        limits.max_segments = 1;
        limits.discard = Some(RangeLimits { granularity_bytes: 512, max_bytes: 1024 });
    };
    let disk = Split::new(MemDisk::new(512, 64).limited(strict), 1);
    polling(&disk, |w| {
        let mut bio = Bio::new();
        // The first segment is less than a block.
        bio.write(0, scattered(&[100, 412]));
        assert_eq!(bio.call(&disk, w).status(), Err(Failure::TooLong));
        let mut bio = Bio::new();
        bio.write(0, scattered(&[512, 1024, 512]));
        bio.call(&disk, w).result().unwrap();
        let mut bio = Bio::new();
        bio.discard(0, 512 * 64);
        bio.call(&disk, w).result().unwrap();
    });
}

#[test]
fn a_partition_keeps_to_its_range() {
    let disk = Arc::new(MemDisk::from_bytes(512, &pattern(8192)).unwrap());
    assert_eq!(Partition::new(disk.clone(), 1, 512).unwrap_err(), Failure::Misaligned);
    assert_eq!(Partition::new(disk.clone(), 0, 8704).unwrap_err(), Failure::OutOfRange);
    assert_eq!(Partition::new(disk.clone(), u64::MAX - 511, 512).unwrap_err(), Failure::OutOfRange);
    let part = Partition::new(disk.clone(), 1024, 2048).unwrap();
    polling(&part, |w| {
        let mut got = [0; 2048];
        read_at(&part, w, 0, &mut got).unwrap();
        assert_eq!(got[..], pattern(8192)[1024..3072]);
        write_at(&part, w, 512, &[1; 512]).unwrap();
        flush(&part, w).unwrap();
        let mut bio = Bio::new();
        bio.read(1536, Buf::alloc(1024, 1).unwrap());
        let bio = bio.call(&part, w);
        assert_eq!(bio.result().unwrap_err().to_string(), "read of 1024 bytes at 1536: out of range");
        let part = Partition::new(&part, 0, 512).unwrap().read_only();
        assert_eq!(write_at(&part, w, 0, &[0; 512]).unwrap_err().failure, Failure::WriteProtected);
    });
    let mut byte = [0];
    disk.image().read(1024 + 512, &mut byte);
    assert_eq!(byte, [1]);
}
