//! After set-up a request allocates nothing and copies nothing, on whichever way it goes.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::hint::black_box;
use std::sync::Arc;
use std::task::Waker;

use dfly_alloc_count::allocator_calls;
use dfly_bio::*;
use dfly_hal::{Clock, Instant, SpinWait, ThreadWait};
use dfly_msgport::Completions;

struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }
    fn wake_at(&self, _: Instant, waker: &Waker) {
        waker.wake_by_ref();
    }
}

/// Reads and writes cache pages, one at a time and scattered, waiting and by a queue.
fn exercise(dev: &dyn BlockDevice, rounds: usize) {
    let mut poll = || {
        dev.poll();
    };
    let mut w = SpinWait::new(&mut poll);
    let pool = BioPool::new(8);
    let done = Arc::new(Completions::new());
    let mut page = Some(SharedBuf::alloc(16384, 4096).unwrap());
    let mut cluster = Some(FrozenVec::with_capacity(4).unwrap());
    let mut round = || {
        // Write-back of a frozen page, then of a cluster of it, then a read into it.
        let p = page.take().unwrap();
        let address = p.as_ptr();
        let mut bio = pool.get().unwrap();
        bio.write(0, p.freeze());
        bio = bio.call(dev, &mut w);
        bio.result().unwrap();
        let mut list = cluster.take().unwrap();
        for _ in 0..4 {
            list.push(p.freeze()).unwrap();
        }
        bio.write(65536, list);
        bio = bio.call(dev, &mut w);
        bio.result().unwrap();
        let Payload::ManyFrozen(mut list) = bio.take() else { panic!("the list comes back") };
        list.drain().for_each(drop);
        cluster = Some(list);
        bio.read(65536, p.try_into_buf().unwrap());
        bio = bio.call(dev, &mut w);
        bio.result().unwrap();
        let p = bio.take_buf().unwrap().into_shared().unwrap();
        assert_eq!(p.as_ptr(), address);
        page = Some(p);
        drop(bio);
        // A batch to a queue.
        let mut batch = JobList::new();
        while let Some(mut bio) = pool.get() {
            bio.flush();
            batch.push(bio.send_to(done.clone()));
        }
        dev.submit(batch);
        let mut back = 0;
        while back < pool.capacity() {
            dev.poll();
            back += done.drain().count();
        }
    };
    round();
    assert_eq!(allocator_calls(|| (0..rounds).for_each(|_| round())), 0);
}

#[test]
fn a_request_allocates_nothing_on_any_way() {
    assert!(allocator_calls(|| drop(black_box(Box::new(1)))) == 2, "the counter counts");
    let rounds = if cfg!(miri) { 2 } else { 50 };
    for mode in [Completion::Inline, Completion::Queued] {
        let disk = || MemDisk::new(512, 4096).completing(mode);
        let short = || disk().limited(|l| l.max_bytes = 4096);
        exercise(&disk(), rounds);
        exercise(
            &Partition::new(Partition::new(disk(), 512, 1 << 20).unwrap(), 512, 1 << 19).unwrap(),
            rounds,
        );
        exercise(&Split::new(short(), 2), rounds);
        exercise(&Tracer::new(disk(), Still, 16), rounds);
        exercise(&Tracer::new(Split::new(Tracer::new(short(), Still, 4), 3), Still, 16), rounds);
        exercise(&FaultInjector::new(disk(), 1), rounds);
    }
    let (server, behind) = DiskServer::new(MemDisk::new(512, 4096), 4, Reap::Elsewhere);
    let server = std::thread::spawn(move || server.run(&mut ThreadWait::new()));
    exercise(&behind, rounds);
    drop(behind);
    server.join().unwrap();
}

#[test]
fn page_to_buffer_to_page_and_freezing_allocate_nothing() {
    let page = SharedBuf::alloc(4096, 4096).unwrap();
    let mut kept = None;
    let calls = allocator_calls(|| {
        let mut page = Some(page);
        for _ in 0..10 {
            page = page.map(|p| {
                drop(p.freeze());
                p.try_into_buf().unwrap().into_shared().unwrap()
            });
        }
        kept = page;
    });
    assert_eq!((calls, kept.is_some()), (0, true));
}
