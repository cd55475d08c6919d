//! What a request costs in atomic read-modify-writes: the figures of DESIGN.md, part "Cost".
// Under Miri a weak exchange fails now and then, which costs one more.
#![cfg(not(miri))]

use dfly_bio::*;
use dfly_hal::sync::count::measure;
use dfly_msgport::{Hook, HookRef, Job};

/// Completes inside `submit`.
struct Null;

impl BlockDevice for Null {
    fn limits(&self) -> Limits {
        Limits::new(512, 1 << 20)
    }
    fn submit(&self, batch: JobList) {
        batch.finish_all(Ok(()));
    }
}

/// As [`Null`], a block at a time.
struct Short;

impl BlockDevice for Short {
    fn limits(&self) -> Limits {
        let mut limits = Limits::new(512, 1 << 20);
        limits.max_bytes = 512;
        limits
    }
    fn submit(&self, batch: JobList) {
        batch.finish_all(Ok(()));
    }
}

struct Pass;

impl Hook<BioBody> for Pass {
    fn passing(&self, job: Job<BioBody>) -> Option<Job<BioBody>> {
        Some(job)
    }
}

fn rmws<R>(f: impl FnOnce() -> R) -> (u64, R) {
    let (result, counts) = measure(f);
    (counts.rmws, result)
}

fn flush() -> Bio {
    let mut bio = Bio::new();
    bio.flush();
    bio
}

#[test]
fn a_request_that_somebody_waits_for_costs_one() {
    let bio = flush();
    let (n, bio) = rmws(|| bio.start(&Null).try_take().unwrap());
    assert_eq!((n, bio.status()), (1, Ok(())));
}

#[test]
fn a_layer_costs_none_and_neither_does_a_static_hook() {
    let disk = Partition::new(Partition::new(Null, 0, 1 << 20).unwrap(), 0, 1 << 20).unwrap();
    let bio = flush();
    assert_eq!(rmws(|| bio.start(&disk).try_take().unwrap()).0, 1);
    let bio = flush();
    let (n, ()) = rmws(|| {
        let (mut job, _pending) = bio.waitable();
        job.intercept(0, HookRef::from(&Pass), 0).unwrap();
        job.finish(Ok(()));
    });
    assert_eq!(n, 1);
}

#[test]
fn a_page_costs_one_to_freeze_and_one_to_let_go_and_none_to_become_a_buffer() {
    let page = SharedBuf::alloc(512, 512).unwrap();
    assert_eq!(rmws(|| drop(page.freeze())).0, 2);
    let (n, page) = rmws(|| page.try_into_buf().unwrap().into_shared().unwrap());
    assert_eq!((n, page.len()), (0, 512));
}

#[test]
fn a_split_costs_so_much_a_child_and_so_much_a_request() {
    let cost = |pieces: u64| {
        let disk = Split::new(Short, 64);
        let mut bio = Bio::new();
        bio.read(0, Buf::alloc(512 * pieces as usize, 512).unwrap());
        rmws(|| bio.start(&disk).try_take().unwrap().result().unwrap()).0
    };
    let (two, three) = (cost(2), cost(3));
    assert_eq!((three - two, two), (CHILD, FAMILY + 2 * CHILD));
}

/// Out of the pool and home, and the family's count.
const CHILD: u64 = 3;
/// The waiter, the pool's refill, the family's end, two short locks of the splitter.
const FAMILY: u64 = 5;
