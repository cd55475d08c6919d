//! Who has a request, and what becomes of it: drops, hooks, children, loss.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dfly_bio::*;
use dfly_hal::{ThreadWait, block_on};
use dfly_msgport::{Completions, Hook, Job};

use crate::common::{Held, for_ever, page};

fn read_of(len: usize) -> Bio {
    let mut bio = Bio::new();
    bio.read(0, Buf::alloc(len, 1).unwrap());
    bio
}

#[test]
fn everything_may_change_threads_and_a_request_is_one_pointer() {
    fn shared<T: Send + Sync>() {}
    shared::<(Bio, BioJob, JobList, BioPool, PendingBio, Carver)>();
    shared::<(Buf, SharedBuf, Frozen, Payload, Limits)>();
    shared::<(MemDisk, Split<MemDisk>, Tracer<MemDisk>, FaultInjector<MemDisk>, PowerCut<MemDisk>)>();
    assert_eq!(size_of::<Option<BioJob>>(), size_of::<usize>());
}

#[test]
fn a_request_is_awaited() {
    let disk = MemDisk::from_bytes(512, &[3; 1024]).unwrap().completing(Completion::Queued);
    let read_both = async {
        let (first, second) = (read_of(512).start(&disk), read_of(1024).start(&disk));
        (first.await, second.await)
    };
    let (first, second) = crate::common::polling(&disk, |w| block_on(w, read_both, None)).unwrap();
    assert_eq!((first.result(), second.result()), (Ok(()), Ok(())));
    assert!(first.bytes().chain(second.bytes()).flatten().all(|&b| b == 3));
}

#[test]
fn a_job_that_a_device_drops_wakes_its_waiter_as_orphaned() {
    struct Careless;
    impl BlockDevice for Careless {
        fn limits(&self) -> Limits {
            Limits::new(512, 1)
        }
        fn submit(&self, batch: JobList) {
            // On another thread, so that somebody really waits.
            std::thread::spawn(move || drop(batch));
        }
    }
    let mut bio = read_of(512).call(&Careless, &mut ThreadWait::new());
    assert_eq!(bio.status(), Err(Failure::Orphaned));
    assert_eq!(bio.take_buf().unwrap().len(), 512, "the memory comes back");
}

#[test]
fn a_waiter_that_gives_up_keeps_its_request() {
    let held = Held::default();
    let mut pending = read_of(512).start(&held);
    let mut w = ThreadWait::new();
    let now = dfly_hal::Instant::from_nanos(0);
    assert!(block_on(&mut w, &mut pending, Some(now)).is_err());
    assert!(!pending.is_done());
    held.pop().unwrap().finish(Ok(()));
    let bio = pending.wait(&mut w);
    bio.result().unwrap();
}

#[test]
fn a_waiter_that_goes_away_leaves_the_memory_to_the_device() {
    let held = Held::default();
    drop(read_of(512).start(&held));
    let mut job = held.pop().unwrap();
    job.data_mut().unwrap().fill(1, 512);
    job.finish(Ok(()));
}

#[test]
fn many_requests_come_back_to_one_queue() {
    let held = Held::default();
    let done = Arc::new(Completions::new());
    let pool = BioPool::new(3);
    let mut batch = JobList::new();
    for tag in 0..3 {
        let mut bio = pool.get().unwrap();
        bio.flush().set_tag(tag);
        batch.push(bio.send_to(done.clone()));
    }
    assert!(pool.get().is_none());
    held.submit(batch);
    while let Some(job) = held.pop() {
        job.finish(Ok(()));
    }
    let tags: Vec<u64> = done.drain().map(|own| Bio::from(own).tag()).collect();
    assert_eq!(tags, [0, 1, 2]);
    assert!(pool.get().is_some(), "dropped requests are home again");
}

#[test]
fn layers_see_a_job_on_its_way_back_nearest_to_the_device_first() {
    #[derive(Default)]
    struct Trail(Mutex<Vec<(u64, u64, Status)>>);
    impl Hook<BioBody> for Trail {
        fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
            let job = BioJob::from(job);
            self.0.lock().unwrap().push((job.cookie(), job.offset(), job.status()));
            Some(job.into())
        }
    }
    let trail = Arc::new(Trail::default());
    let (mut job, pending) = read_of(512).waitable();
    job.intercept(100, trail.clone(), 1).unwrap();
    job.remap(200).unwrap();
    job.intercept(300, trail.clone(), 3).unwrap();
    job.remap(400).unwrap();
    assert_eq!((job.remap(500), job.offset()), (Err(Failure::TooDeep), 400));
    job.finish(Err(Failure::Media));
    let bio = pending.try_take().unwrap();
    assert_eq!((bio.offset(), bio.status()), (0, Err(Failure::Media)));
    let want = [(3, 200, Err(Failure::Media)), (1, 0, Err(Failure::Media))];
    assert_eq!(*trail.0.lock().unwrap(), want);
}

#[test]
fn a_hook_can_retry_on_another_leg() {
    struct Retry(Arc<MemDisk>);
    impl Hook<BioBody> for Retry {
        fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
            let mut job = BioJob::from(job);
            if job.status().is_ok() {
                return Some(job.into());
            }
            job.remap(job.offset()).unwrap();
            self.0.submit(job.into());
            None
        }
    }
    let good = Arc::new(MemDisk::from_bytes(512, &[8; 512]).unwrap());
    let (mut job, pending) = read_of(512).waitable();
    job.intercept(0, Arc::new(Retry(good)), 0).unwrap();
    job.finish(Err(Failure::Media));
    let bio = pending.try_take().unwrap();
    bio.result().unwrap();
    assert!(bio.bytes().flatten().all(|&b| b == 8));
}

#[test]
fn pieces_are_disjoint_and_come_front_to_back() {
    let (job, pending) = read_of(10).waitable();
    let whole = job.segments().next().unwrap().ptr.addr().get();
    let mut carver = job.carve();
    let mut a = carver.next(Bio::new(), 4, 1000);
    let mut b = carver.next(Bio::new(), 100, 2000);
    assert_eq!((carver.remaining(), carver.offset()), (0, 10));
    drop(carver);
    let spans: Vec<_> = [&a, &b]
        .iter()
        .map(|j| j.segments().map(|s| (s.ptr.addr().get() - whole, s.len)).collect::<Vec<_>>())
        .collect();
    assert_eq!(spans, [vec![(0, 4)], vec![(4, 6)]]);
    assert_eq!((a.offset(), b.offset(), a.len(), b.len()), (1000, 2000, 4, 6));
    // On two threads at once, in any order.
    std::thread::scope(|s| {
        s.spawn(|| {
            a.data_mut().unwrap().fill(1, 4);
            a.finish(Ok(()));
        });
        s.spawn(|| {
            b.data_mut().unwrap().fill(2, 6);
            b.finish(Ok(()));
        });
    });
    let bio = pending.try_take().unwrap();
    bio.result().unwrap();
    assert_eq!(bio.bytes().flatten().copied().collect::<Vec<_>>(), [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
}

#[test]
fn a_child_has_nothing_to_take_when_it_is_home() {
    let pool = BioPool::new(1);
    let (job, pending) = read_of(8).waitable();
    let mut carver = job.carve();
    carver.next(pool.get().unwrap(), 8, 0).finish(Ok(()));
    drop(carver);
    drop(pending);
    let mut child = pool.get().unwrap();
    assert_eq!(child.bytes().remaining(), 0);
    assert!(matches!(child.take(), Payload::None));
}

#[test]
fn the_first_failure_of_a_child_is_the_parents() {
    let (job, pending) = read_of(9).waitable();
    let mut carver = job.carve();
    let children: Vec<_> = (0..3).map(|_| carver.next(Bio::new(), 3, 0)).collect();
    drop(carver);
    for (child, status) in children.into_iter().zip([Ok(()), Err(Failure::Media), Err(Failure::Timeout)]) {
        assert!(!pending.is_done());
        child.finish(status);
    }
    let mut bio = pending.try_take().unwrap();
    assert_eq!(bio.status(), Err(Failure::Media));
    assert_eq!(bio.take_buf().unwrap().len(), 9);
}

#[test]
fn what_was_not_handed_out_fails_the_parent() {
    let (job, pending) = read_of(8).waitable();
    let mut carver = job.carve();
    carver.next(Bio::new(), 4, 0).finish(Ok(()));
    drop(carver);
    assert_eq!(pending.try_take().unwrap().status(), Err(Failure::Orphaned));

    let (job, pending) = read_of(8).waitable();
    job.carve().fail(Failure::NoSpace);
    assert_eq!(pending.try_take().unwrap().status(), Err(Failure::NoSpace));
}

#[test]
fn a_mirror_shows_one_memory_to_every_leg_of_a_write_and_to_none_of_a_read() {
    let p = page(512, 5);
    let mut bio = Bio::new();
    bio.write(0, p.freeze()).fua();
    let (job, pending) = bio.waitable();
    let mut carver = job.carve();
    let a = carver.mirror(Bio::new(), 0).unwrap();
    let mut b = carver.mirror(Bio::new(), 4096).unwrap();
    carver.done();
    assert_eq!(a.segments().next(), b.segments().next());
    assert!(a.is_fua() && b.is_fua() && b.data_mut().is_none());
    a.finish(Ok(()));
    b.finish(Ok(()));
    pending.try_take().unwrap().result().unwrap();

    let (job, _pending) = read_of(8).waitable();
    assert!(job.carve().mirror(Bio::new(), 0).is_err());

    let mut bio = Bio::new();
    bio.flush();
    let (job, pending) = bio.waitable();
    let mut carver = job.carve();
    let legs = [carver.mirror(Bio::new(), 0).unwrap(), carver.mirror(Bio::new(), 0).unwrap()];
    carver.done();
    legs.into_iter().for_each(|leg| leg.finish(Ok(())));
    pending.try_take().unwrap().result().unwrap();
}

#[test]
fn children_of_children_fold_to_the_top() {
    let (job, pending) = read_of(8).waitable();
    let mut outer = job.carve();
    let child = outer.next(Bio::new(), 8, 0);
    drop(outer);
    let mut inner = child.carve();
    let mut a = inner.next(Bio::new(), 5, 0);
    let b = inner.next(Bio::new(), 3, 0);
    drop(inner);
    a.data_mut().unwrap().fill(3, 5);
    a.finish(Ok(()));
    assert_eq!(b.segments().map(|s| s.len).sum::<usize>(), 3);
    b.finish(Err(Failure::Media));
    let bio = pending.try_take().unwrap();
    assert_eq!(bio.status(), Err(Failure::Media));
    assert_eq!(bio.bytes().flatten().copied().collect::<Vec<_>>(), [3, 3, 3, 3, 3, 0, 0, 0]);
}

static FREED: AtomicUsize = AtomicUsize::new(0);

/// Memory that counts when it is given back.
fn counted(len: usize) -> Buf {
    unsafe fn free(_: *mut (), _: std::ptr::NonNull<u8>, _: usize) {
        FREED.fetch_add(1, Ordering::Relaxed);
    }
    static OWNER: BufVtable = BufVtable::new(free);
    let memory = std::ptr::NonNull::from(for_ever(vec![0; len])).cast();
    // SAFETY: these bytes are nobody else's, for ever.
    unsafe { Buf::from_owner(memory, len, std::ptr::null_mut(), &OWNER) }
}

#[test]
fn a_lost_child_loses_the_memory_of_its_parent_whatever_a_hook_says() {
    struct Liar;
    impl Hook<BioBody> for Liar {
        fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
            let mut job = BioJob::from(job);
            assert_eq!(job.segments().count(), 0);
            job.set_status(Ok(()));
            Some(job.into())
        }
    }
    let mut bio = Bio::new();
    bio.read(0, counted(8));
    let (mut job, pending) = bio.waitable();
    job.intercept(0, &Liar, 0).unwrap();
    let mut carver = job.carve();
    let mut lost = carver.next(Bio::new(), 4, 0);
    let failed = carver.next(Bio::new(), 4, 0);
    drop(carver);
    lost.intercept(0, &Liar, 0).unwrap();
    failed.finish(Err(Failure::Media));
    lost.abandon();
    let mut bio = pending.try_take().unwrap();
    assert_eq!(bio.status(), Err(Failure::Lost));
    assert!(matches!(bio.take(), Payload::None));
    bio.flush();
    assert_eq!(bio.status(), Ok(()), "the request itself can be used again");
    drop(bio);
    assert_eq!(FREED.load(Ordering::Relaxed), 0, "leaked, because the device may still write to it");
}

#[test]
fn a_request_sent_again_without_its_memory_is_no_success() {
    let disk = MemDisk::new(512, 8);
    let mut bio = Bio::new();
    bio.write(0, Buf::alloc(512, 1).unwrap());
    let mut bio = bio.start(&disk).try_take().unwrap();
    bio = bio.start(&disk).try_take().unwrap();
    assert_eq!(bio.status(), Ok(()), "again, with its memory: fine");
    drop(bio.take());
    let part = Partition::new(&disk, 0, 512).unwrap();
    assert_eq!(bio.start(&part).try_take().unwrap().status(), Err(Failure::NoMemory));
}

#[test]
fn readers_go_on_while_a_page_is_written_back() {
    let held = Held::default();
    let mut p = page(512, 1);
    let mut bio = Bio::new();
    bio.write(0, p.freeze());
    let pending = bio.start(&held);
    assert_eq!(p[0], 1);
    assert!(p.get_mut().is_none());
    held.pop().unwrap().finish(Ok(()));
    let mut bio = pending.try_take().unwrap();
    assert!(p.get_mut().is_none(), "the request still has it");
    drop(bio.take());
    assert!(p.get_mut().is_some());
}
