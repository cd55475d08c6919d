//! The whole walk on one thread.
#![cfg(not(loom))]

use dfly_hal::{SpinWait, block_on};
use dfly_msgport::{Body, Completions, List, Own, Pool};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Default, Debug)]
struct Msg {
    n: u32,
    orphaned: bool,
}

impl Body for Msg {
    type Shared = AtomicU32;
    type Key = ();
    fn orphaned(&mut self) {
        self.orphaned = true;
    }
    fn child_done(&mut self, parent: &AtomicU32) {
        parent.fetch_add(self.n, Ordering::Relaxed);
    }
    fn all_children_done(&mut self, shared: &AtomicU32) {
        self.n = shared.load(Ordering::Relaxed);
    }
}

#[test]
fn waiter_sink_parent_pool() {
    let (mut job, pending) = Own::new(Msg::default()).waitable();
    job.n = 7;
    job.complete();
    let back = block_on(&mut SpinWait::new(&mut || {}), pending, None).unwrap();
    assert_eq!(back.n, 7);

    let (job, pending) = back.waitable();
    drop(job);
    let back = pending.try_take().unwrap();
    assert!(back.orphaned);

    let done = Arc::new(Completions::new());
    let mut list: List<Msg> = [back, Own::new(Msg::default())].map(|m| m.send_to(done.clone())).into_iter().collect();
    assert!(list.pop().is_some());
    drop(list);
    assert_eq!(done.drain().count(), 2);

    let pool = Pool::new(2, Msg::default);
    let (job, pending) = Own::new(Msg::default()).waitable();
    let mut family = job.split();
    for _ in 0..2 {
        let mut child = family.adopt(pool.get().unwrap());
        child.n = 5;
        child.complete();
    }
    assert!(!pending.is_done());
    drop(family);
    assert_eq!(pending.try_take().unwrap().n, 10);
    assert!(pool.get().is_some());
}
