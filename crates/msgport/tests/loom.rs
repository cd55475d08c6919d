//! Models of what two threads can do to one node.
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-msgport --release --test loom`
//!
//! Each ordering that a model relies on has a patch in `mutations/` that weakens it, and makes a model fail.
#![cfg(loom)]

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Counter;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};

use dfly_msgport::{Body, Completions, Job, Own, Pending, Pool, Sink};
use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

/// The parent's memory, of which each child writes its part.
struct Memory([UnsafeCell<u32>; 2]);

// SAFETY: loom reports an access that races.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn touch(&self, i: usize) {
        // SAFETY: loom reports an access that races.
        self.0[i].with_mut(|p| unsafe { *p += 100 });
    }
    fn sum(&self) -> u32 {
        // SAFETY: loom reports an access that races.
        self.0.iter().map(|cell| cell.with(|p| unsafe { *p })).sum()
    }
}

/// A body whose plain fields show a race, and whose drops are counted.
struct Load {
    value: u32,
    /// A child writes to its cell of the parent's memory without any order of its own.
    piece: Option<(Arc<Memory>, usize)>,
    drops: Arc<Counter>,
    resets: u32,
}

impl Load {
    fn new(drops: &Arc<Counter>) -> Self {
        Self { value: 0, piece: None, drops: drops.clone(), resets: 0 }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.drops.fetch_add(1, SeqCst);
    }
}

#[derive(Default)]
struct Sum(AtomicU32);

impl Body for Load {
    type Shared = Sum;
    type Key = ();

    fn orphaned(&mut self) {
        self.value = u32::MAX;
    }
    fn child_done(&mut self, parent: &Sum) {
        parent.0.fetch_add(self.value, Ordering::Relaxed);
    }
    fn all_children_done(&mut self, shared: &Sum) {
        self.value = shared.0.load(Ordering::Relaxed);
        if let Some((memory, _)) = &self.piece {
            self.value += memory.sum();
        }
    }
    fn reset(&mut self) {
        self.resets += 1;
        if let Some((memory, i)) = self.piece.take() {
            // The last touch of the parent's memory.
            memory.touch(i);
        }
    }
}

/// A waker that remembers, and whose drop is visible in the count.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Flag {
    fn woken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

fn poll<T: Body>(p: &mut Pending<T>, flag: &Arc<Flag>) -> Poll<Own<T>> {
    let waker = Waker::from(flag.clone());
    Future::poll(Pin::new(p), &mut Context::from_waker(&waker))
}

#[test]
fn a_waiter_that_saw_pending_is_woken_and_finds_the_body() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let (mut job, mut pending) = Own::new(Load::new(&drops)).waitable();
        let completer = thread::spawn(move || {
            job.value = 7;
            job.complete();
        });
        let flag = Arc::new(Flag::default());
        let first = poll(&mut pending, &flag);
        let own = match first {
            Poll::Ready(own) => own,
            Poll::Pending => {
                // Whoever sees the wake-up finds it done: no second wait.
                while !flag.woken() {
                    thread::yield_now();
                }
                match poll(&mut pending, &flag) {
                    Poll::Ready(own) => own,
                    Poll::Pending => panic!("woken, but not done"),
                }
            }
        };
        assert_eq!(own.value, 7);
        drop(own);
        completer.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is dropped");
    });
}

#[test]
fn a_waiter_that_changes_its_waker_is_woken_by_the_last() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let (mut job, mut pending) = Own::new(Load::new(&drops)).waitable();
        let completer = thread::spawn(move || {
            job.value = 7;
            job.complete();
        });
        let flags = [Arc::new(Flag::default()), Arc::new(Flag::default())];
        let mut got = None;
        let mut last = None;
        for flag in &flags {
            match poll(&mut pending, flag) {
                Poll::Ready(own) => {
                    got = Some(own);
                    break;
                }
                Poll::Pending => last = Some(flag),
            }
        }
        let own = got.unwrap_or_else(|| {
            while !last.unwrap().woken() {
                thread::yield_now();
            }
            pending.try_take().unwrap()
        });
        assert_eq!(own.value, 7);
        completer.join().unwrap();
        assert!(flags.iter().all(|f| Arc::strong_count(f) == 1), "no waker stays in the node");
        drop(own);
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn polling_again_with_the_same_waker_loses_nothing() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let (job, mut pending) = Own::new(Load::new(&drops)).waitable();
        let completer = thread::spawn(move || job.complete());
        let flag = Arc::new(Flag::default());
        let done = poll(&mut pending, &flag).is_ready() || poll(&mut pending, &flag).is_ready();
        completer.join().unwrap();
        assert!(done || flag.woken());
        drop(pending);
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(Arc::strong_count(&flag), 1);
    });
}

#[test]
fn try_take_sees_the_body() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let (mut job, pending) = Own::new(Load::new(&drops)).waitable();
        let completer = thread::spawn(move || {
            job.value = 7;
            job.complete();
        });
        match pending.try_take() {
            Ok(own) => assert_eq!(own.value, 7),
            Err(pending) => drop(pending),
        }
        completer.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn pending_dropped_during_completion_frees_the_node_once() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let (mut job, mut pending) = Own::new(Load::new(&drops)).waitable();
        let completer = thread::spawn(move || {
            job.value = 7;
            job.complete();
        });
        let flag = Arc::new(Flag::default());
        let _ = poll(&mut pending, &flag);
        drop(pending);
        completer.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is dropped");
    });
}

#[test]
fn pending_never_polled_and_dropped_during_completion_frees_the_node_once() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let (job, pending) = Own::new(Load::new(&drops)).waitable();
        // Careless, too: the orphan must not be freed twice either.
        let completer = thread::spawn(move || drop(job));
        drop(pending);
        completer.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn pending_forgotten_leaks_one_node_and_harms_nobody() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let (job, mut pending) = Own::new(Load::new(&drops)).waitable();
        let completer = thread::spawn(move || job.complete());
        let flag = Arc::new(Flag::default());
        let done = poll(&mut pending, &flag).is_ready();
        std::mem::forget(pending);
        completer.join().unwrap();
        assert_eq!(drops.load(SeqCst), usize::from(done));
    });
}

#[test]
fn a_pool_taken_from_while_nodes_come_home_gives_each_out_once() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let pool = Arc::new(Pool::new(2, || Load::new(&drops)));
        let (mut a, mut b) = (pool.get().unwrap(), pool.get().unwrap());
        a.value = 1;
        b.value = 2;
        let threads = [a, b].map(|own| thread::spawn(move || drop(own)));
        let mut got = pool.get();
        if let Some(own) = &mut got {
            // Whoever takes a node sees what its last user and `reset` wrote to it.
            assert!(own.resets == 2 && (own.value == 1 || own.value == 2));
            own.value += 10;
        }
        threads.into_iter().for_each(|t| t.join().unwrap());
        let next = pool.get().unwrap();
        assert!(got.is_none_or(|got| got.value - 10 != next.value));
        drop(next);
        drop(pool);
        assert_eq!(drops.load(SeqCst), 2);
    });
}

#[test]
fn two_that_take_from_a_pool_never_get_the_same_node() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let pool = Arc::new(Pool::new(2, || Load::new(&drops)));
        let other = {
            let pool = pool.clone();
            thread::spawn(move || pool.get().unwrap().value += 1)
        };
        pool.get().unwrap().value += 1;
        other.join().unwrap();
        drop(pool);
        assert_eq!(drops.load(SeqCst), 2);
    });
}

#[test]
fn a_pool_dropped_while_nodes_come_home_frees_each_once() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let pool = Pool::new(2, || Load::new(&drops));
        let threads = [pool.get(), pool.get()].map(|own| {
            thread::spawn(move || {
                own.unwrap().value += 1;
            })
        });
        drop(pool);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(drops.load(SeqCst), 2);
    });
}

/// Counts what arrives, and what it carries.
#[derive(Default)]
struct Arrivals {
    count: Counter,
    value: Counter,
}

impl Sink<Load> for Arrivals {
    fn accept(&self, done: Own<Load>) {
        self.count.fetch_add(1, SeqCst);
        self.value.fetch_add(done.value as usize, SeqCst);
    }
}

#[test]
fn the_last_child_or_the_family_completes_the_parent_once_and_sees_all_children() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let pool = Pool::new(2, || Load::new(&drops));
        let arrivals = Arc::new(Arrivals::default());
        let memory = Arc::new(Memory([UnsafeCell::new(0), UnsafeCell::new(0)]));
        let mut parent = Own::new(Load::new(&drops));
        parent.piece = Some((memory.clone(), 0));
        let mut family = parent.send_to(arrivals.clone()).split();
        let threads = [0, 1].map(|i| {
            let mut child = pool.get().unwrap();
            child.piece = Some((memory.clone(), i));
            let mut child = family.adopt(child);
            thread::spawn(move || {
                child.value = 1;
                child.complete();
            })
        });
        drop(family);
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(arrivals.count.load(SeqCst), 1);
        assert_eq!(arrivals.value.load(SeqCst), 202, "both values and both last touches are seen");
        drop(pool);
        assert_eq!(drops.load(SeqCst), 3);
    });
}

#[test]
fn completions_lose_neither_messages_nor_the_waker() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let done = Arc::new(Completions::new());
        // One thread sends both back: three that spin for one lock are too much for the model.
        let jobs = [1, 2].map(|value| {
            let mut own = Own::new(Load::new(&drops));
            own.value = value;
            own.send_to(done.clone())
        });
        let completer = thread::spawn(move || jobs.into_iter().for_each(Job::complete));
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        let first: Option<u32> = match done.poll_drain(&mut Context::from_waker(&waker)) {
            Poll::Ready(some) => Some(some.map(|own| own.value).sum()),
            Poll::Pending => None,
        };
        completer.join().unwrap();
        assert!(flag.woken() || first.is_some_and(|sum| sum > 0), "not told");
        let sum = first.unwrap_or(0) + done.drain().map(|own| own.value).sum::<u32>();
        assert_eq!(sum, 3);
        assert_eq!(drops.load(SeqCst), 2);
    });
}

#[test]
fn a_second_waiter_on_completions_wakes_the_first() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let done = Arc::new(Completions::new());
        let job = Own::new(Load::new(&drops)).send_to(done.clone());
        let first = Arc::new(Flag::default());
        let waiter = {
            let (done, first) = (done.clone(), first.clone());
            thread::spawn(move || {
                let waker = Waker::from(first);
                done.poll_drain(&mut Context::from_waker(&waker)).is_ready()
            })
        };
        let second = Arc::new(Flag::default());
        let waker = Waker::from(second.clone());
        let ready = done.poll_drain(&mut Context::from_waker(&waker)).is_ready();
        let other_ready = waiter.join().unwrap();
        job.complete();
        assert!(!ready && !other_ready);
        assert!(first.woken() && second.woken());
    });
}
