//! What careless or hostile layers and originators can do from safe code, and what comes of it. Miri runs this too.

use std::mem::{forget, swap};
use std::sync::{Arc, Mutex};
use std::thread;

use dfly_bio::*;
use dfly_msgport::{Hook, Job};

use crate::common::{Held, for_ever, page, pattern};

fn read_of(memory: impl ReadTarget) -> Bio {
    let mut bio = Bio::new();
    bio.read(0, memory);
    bio
}

fn buf(len: usize) -> Buf {
    Buf::alloc(len, 1).unwrap()
}

/// Buffers of these lengths.
fn list(lens: &[usize]) -> BufVec {
    let mut list = BufVec::with_capacity(lens.len()).unwrap();
    lens.iter().for_each(|&len| list.push(buf(len)).unwrap());
    list
}

fn bytes(bio: &Bio) -> Vec<u8> {
    bio.bytes().flatten().copied().collect()
}

// Memory that is not where the length says.

#[test]
fn a_request_whose_memory_was_taken_is_refused_and_not_a_success() {
    for completion in [Completion::Inline, Completion::Queued] {
        let disk = Arc::new(MemDisk::from_bytes(512, &pattern(4096)).unwrap().completing(completion));
        let before = disk.image();
        let split = Split::new(disk.clone(), 2);
        let devices: [&dyn BlockDevice; 2] = [&*disk, &split];
        for dev in devices {
            let mut bios = [read_of(buf(1024)), Bio::new()];
            bios[1].write(0, buf(1024));
            for mut bio in bios {
                drop(bio.take());
                let pending = bio.start(dev);
                dev.poll();
                assert_eq!(pending.try_take().unwrap().status(), Err(Failure::NoMemory));
            }
        }
        assert_eq!(disk.image(), before);
    }
}

#[test]
fn a_lost_request_that_a_hook_sends_again_reaches_no_device_without_memory() {
    struct Retry(MemDisk);
    impl Hook<BioBody> for Retry {
        fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
            let job = BioJob::from(job);
            assert_eq!((job.status(), job.len(), job.segments().count()), (Err(Failure::Lost), 512, 0));
            assert_eq!(self.0.limits().check(&job), Err(Failure::NoMemory));
            self.0.submit(job.into());
            None
        }
    }
    let (mut job, pending) = read_of(Buf::from_static(for_ever(vec![0; 512]))).waitable();
    job.intercept(0, Arc::new(Retry(MemDisk::new(512, 1))), 0).unwrap();
    job.abandon();
    assert_eq!(pending.try_take().unwrap().status(), Err(Failure::Lost));
}

// Pieces.

#[test]
fn pieces_of_a_list_with_empty_parts_are_written_on_many_threads() {
    let lens = [0, 3, 0, 0, 5, 1, 0];
    for step in 1..=10 {
        let (job, pending) = read_of(list(&lens)).waitable();
        let mut carver = job.carve();
        thread::scope(|threads| {
            let mut next = 0u8;
            while carver.remaining() != 0 {
                let mut child = carver.next(Bio::new(), step, 0);
                let first = next;
                next += child.len() as u8;
                threads.spawn(move || {
                    let runs = child.data_mut().unwrap();
                    runs.flatten().enumerate().for_each(|(i, byte)| *byte = first + i as u8);
                    child.finish(Ok(()));
                });
                // Meanwhile the rest is looked at here.
                assert_eq!(carver.segments().map(|s| s.len as u64).sum::<u64>(), carver.remaining());
            }
            drop(carver);
        });
        assert_eq!(bytes(&pending.try_take().unwrap()), (0..9).collect::<Vec<u8>>());
    }
}

#[test]
fn a_piece_goes_around_with_its_job_only() {
    /// Returns the job before, and keeps this one.
    struct Swap(Mutex<Option<Job<BioBody>>>);
    impl Hook<BioBody> for Swap {
        fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
            self.0.lock().unwrap().replace(job)
        }
    }
    let swapping = Arc::new(Swap(Mutex::new(None)));
    let (one, at_one) = read_of(buf(4)).waitable();
    let (other, at_other) = read_of(buf(4)).waitable();
    let (mut carver, mut carver2) = (one.carve(), other.carve());
    swap(&mut carver, &mut carver2);
    let (mut a, mut b) = (carver.next(Bio::new(), 4, 0), carver2.next(Bio::new(), 4, 0));
    swap(&mut a, &mut b);
    drop((carver, carver2));
    a.data_mut().unwrap().fill(1, 4);
    for job in [&mut a, &mut b] {
        job.intercept(0, swapping.clone(), 0).unwrap();
    }
    a.finish(Ok(()));
    b.finish(Ok(()));
    // `a` went on when `b` came; `b`, a piece of the second, is kept, and so its parent.
    assert_eq!(bytes(&at_one.try_take().unwrap()), [1; 4]);
    assert!(!at_other.is_done());
    let mut kept = BioJob::from(swapping.0.lock().unwrap().take().unwrap());
    kept.data_mut().unwrap().fill(2, 4);
    kept.pass();
    assert_eq!(bytes(&at_other.try_take().unwrap()), [2; 4]);
}

#[test]
fn a_piece_outlives_the_pending_the_pools_and_the_carver_of_its_parent() {
    let (parents, children) = (BioPool::new(1), BioPool::new(2));
    let mut bio = parents.get().unwrap();
    bio.read(0, page(16, 0).try_into_buf().unwrap());
    let (job, pending) = bio.waitable();
    let mut carver = job.carve();
    let mut outer = carver.next(children.get().unwrap(), 16, 0).carve();
    let mut piece = outer.next(children.get().unwrap(), 8, 0);
    drop((pending, parents, children, carver, outer));
    piece.data_mut().unwrap().fill(9, 8);
    assert_eq!(piece.data().flatten().count(), 8);
    drop(piece);
}

#[test]
fn a_family_made_without_a_carver_has_only_what_its_children_brought() {
    let (job, pending) = read_of(buf(4)).waitable();
    let mut family = Job::from(job).split();
    let (child, at_child) = read_of(buf(2)).waitable();
    let mut job = BioJob::from(family.adopt(read_of(buf(3)).into()));
    drop(family);
    assert!(!pending.is_done());
    job.data_mut().unwrap().fill(1, 3);
    job.finish(Ok(()));
    assert_eq!(bytes(&pending.try_take().unwrap()), [0; 4]);
    drop(child);
    assert_eq!(at_child.try_take().unwrap().status(), Err(Failure::Orphaned));
}

// Buffers.

#[test]
fn memory_of_no_bytes_is_memory_too() {
    let kinds = [
        Buf::from_box(Box::default()),
        buf(0),
        Buf::alloc(0, 1 << 20).unwrap(),
        Buf::from_static(&mut []),
        SharedBuf::alloc(0, 4096).unwrap().try_into_buf().unwrap(),
    ];
    let disk = MemDisk::new(512, 8);
    for mut kind in kinds {
        assert!(kind.is_empty() && kind.iter_mut().next().is_none());
        let (mut job, pending) = read_of(kind).waitable();
        assert_eq!((job.segments().count(), job.data_mut().unwrap().remaining()), (0, 0));
        disk.submit(job.into());
        let mut bio = pending.try_take().unwrap();
        bio.result().unwrap();
        let mut shared = SharedBuf::new(bio.take_buf().unwrap()).unwrap();
        assert_eq!(shared.get_mut(), Some(&mut [][..]));
        assert!(shared.freeze().is_empty());
    }
}

#[test]
fn a_page_within_a_page_comes_apart_in_order() {
    let inner = page(8, 4).try_into_buf().unwrap();
    let mut outer = SharedBuf::new(inner).unwrap();
    let frozen = outer.freeze();
    assert!(outer.get_mut().is_none());
    let outer = outer.try_into_buf().unwrap_err();
    drop(outer);
    let outer = frozen.into_shared().try_into_buf().unwrap();
    let mut again = outer.into_shared().unwrap();
    again.get_mut().unwrap().fill(5);
    assert_eq!(*again, [5; 8]);
    assert!(buf(1).into_shared().is_err());
}

#[test]
fn a_list_whose_drain_is_forgotten_is_empty() {
    let mut list = list(&[3, 4]);
    // Static memory, so that Miri does not call it a leak.
    drop(list.drain());
    list.push(Buf::from_static(for_ever(vec![1; 5]))).unwrap();
    forget(list.drain());
    assert_eq!((list.bytes(), list.parts().len()), (0, 0));
    list.push(buf(2)).unwrap();
    let held = Held::default();
    let pending = read_of(list).start(&held);
    let mut job = held.pop().unwrap();
    assert_eq!(job.data_mut().unwrap().fill(7, 99), 2);
    job.finish(Ok(()));
    assert_eq!(bytes(&pending.try_take().unwrap()), [7, 7]);
}
