//! Models of the IPI queues, explored by loom:
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-lwkt --release --test loom_ipi`
//!
//! A CPU is a thread of loom, and an interrupt is a flag that it looks at. `mutations/ipi-*.patch` weaken one thing each,
//! and every one of them must make a model fail: a race is reported as such, and what never comes as too many branches.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a model fails by panicking")]

use std::cell::Cell;

use dfly_hal::{CpuId, Cpus};
use dfly_lwkt::ipi::{CpuMask, IpiQueues, IrqCx};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use loom::thread;

const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

loom::thread_local! {
    static THIS: Cell<CpuId> = Cell::new(CpuId::NONE);
}

struct Machine {
    ipis: Vec<AtomicBool>,
}

// SAFETY: each model runs a CPU in one thread, but for the one in which an interrupt handler is a thread of its own: it
// shows that this is safe.
unsafe impl Cpus for Machine {
    fn this(&self) -> CpuId {
        THIS.with(Cell::get)
    }
    fn count(&self) -> u32 {
        self.ipis.len() as u32
    }
    fn raise_ipi(&self, to: CpuId) {
        // Not a store: loom forgets that it comes after a `swap` that has not seen it.
        self.ipis[to.index()].swap(true, Release);
    }
}

type Queues<const DEPTH: usize> = Arc<IpiQueues<Machine, DEPTH>>;

/// Queues of `count` CPUs that all take part, just before their indexes wrap.
fn queues<const DEPTH: usize>(count: u32) -> Queues<DEPTH> {
    let ipis = (0..count).map(|_| AtomicBool::new(false)).collect();
    let queues = IpiQueues::starting_at(Machine { ipis }, usize::MAX).unwrap();
    for cpu in (0..count).rev().map(CpuId) {
        THIS.with(|this| this.set(cpu));
        queues.start().unwrap();
    }
    Arc::new(queues)
}

/// What the hardware does at any moment, and a CPU of a model now and then. Gives way where nothing has come.
fn take_ipi<const DEPTH: usize>(queues: &Queues<DEPTH>) {
    if THIS.with(|this| queues.machine().ipis[this.get().index()].swap(false, Acquire)) {
        queues.drain();
    } else {
        thread::yield_now();
    }
}

fn cpu<T: 'static>(id: CpuId, f: impl FnOnce() -> T + 'static) -> thread::JoinHandle<T> {
    thread::spawn(move || {
        THIS.with(|this| this.set(id));
        f()
    })
}

/// A callback that may capture as much as it likes, in a box: loom's `Arc` is two words.
fn later(f: impl FnOnce() + Send + 'static) -> impl FnOnce(&IrqCx<'_>) + Send + 'static {
    let f: Box<dyn FnOnce() + Send> = Box::new(f);
    move |_| f()
}

fn join<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    for thread in threads {
        thread.join().unwrap();
    }
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(f);
}

/// What only ordered accesses may touch: loom reports any other.
struct Plain(UnsafeCell<usize>);

// SAFETY: whether the accesses are ordered is what the models find out.
unsafe impl Sync for Plain {}
// SAFETY: as above.
unsafe impl Send for Plain {}

impl Plain {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(0)))
    }
    fn get(&self) -> usize {
        // SAFETY: see `Sync`.
        self.0.with(|n| unsafe { *n })
    }
    fn set(&self, to: usize) {
        // SAFETY: see `Sync`.
        self.0.with_mut(|n| unsafe { *n = to });
    }
}

#[test]
fn each_message_is_called_for_the_interrupt_that_it_causes() {
    model(|| {
        let queues = queues::<4>(2);
        let (called, data) = (Arc::new(AtomicUsize::new(0)), [Plain::new(), Plain::new()]);
        let sender = {
            let (queues, called) = (queues.clone(), called.clone());
            cpu(CPU1, move || {
                for (n, data) in data.into_iter().enumerate() {
                    data.set(n + 1);
                    let called = called.clone();
                    let f = move || assert_eq!(called.fetch_add(1, Relaxed) + 1, data.get());
                    queues.send(CPU0, later(move || f())).unwrap();
                }
            })
        };
        take_ipi(&queues);
        sender.join().unwrap();
        // No interrupt is to come any more, so all that has not been called is lost.
        take_ipi(&queues);
        take_ipi(&queues);
        assert_eq!(called.load(Relaxed), 2);
    });
}

#[test]
fn two_senders_are_both_heard() {
    model(|| {
        let queues = queues::<2>(3);
        let called = Arc::new(AtomicUsize::new(0));
        let senders = [CPU1, CpuId(2)].map(|id| {
            let (queues, called) = (queues.clone(), called.clone());
            cpu(id, move || {
                queues
                    .send(
                        CPU0,
                        later(move || {
                            called.fetch_add(1, Relaxed);
                        }),
                    )
                    .unwrap();
            })
        });
        take_ipi(&queues);
        join(senders);
        take_ipi(&queues);
        take_ipi(&queues);
        assert_eq!(called.load(Relaxed), 2);
    });
}

#[test]
fn a_full_queue_makes_its_sender_wait_and_no_place_is_used_twice() {
    model(|| {
        let queues = queues::<2>(2);
        let called = Arc::new(AtomicUsize::new(0));
        let sender = {
            let (queues, called) = (queues.clone(), called.clone());
            cpu(CPU1, move || {
                for n in 0..3 {
                    let called = called.clone();
                    queues.send(CPU0, later(move || assert_eq!(called.fetch_add(1, Relaxed), n))).unwrap();
                }
            })
        };
        while called.load(Relaxed) < 3 {
            take_ipi(&queues);
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_passive_message_is_found_by_the_tick() {
    model(|| {
        let queues = queues::<4>(2);
        let (called, data) = (Arc::new(AtomicUsize::new(0)), Plain::new());
        let sender = {
            let (queues, called, data) = (queues.clone(), called.clone(), data);
            cpu(CPU1, move || {
                data.set(1);
                queues
                    .send_passive(
                        CPU0,
                        later(move || {
                            called.fetch_add(data.get(), Relaxed);
                        }),
                    )
                    .unwrap();
            })
        };
        queues.tick();
        sender.join().unwrap();
        queues.tick();
        assert_eq!(called.load(Relaxed), 1);
        assert!(!queues.machine().ipis[0].load(Relaxed));
    });
}

/// Each sends more than the other's queue holds, and looks at its interrupts only when it has sent all.
#[test]
fn two_cpus_that_fill_each_others_queues_both_go_on() {
    model(|| {
        let queues = queues::<2>(2);
        let called = Arc::new(AtomicUsize::new(0));
        let work = |me: CpuId| {
            let (queues, called) = (queues.clone(), called.clone());
            move || {
                for _ in 0..3 {
                    let called = called.clone();
                    queues
                        .send(
                            CpuId(1 - me.0),
                            later(move || {
                                called.fetch_add(1, Relaxed);
                            }),
                        )
                        .unwrap();
                }
                while called.load(Relaxed) < 6 {
                    take_ipi(&queues);
                }
            }
        };
        let other = cpu(CPU1, work(CPU1));
        work(CPU0)();
        other.join().unwrap();
    });
}

#[test]
fn a_waiter_sees_what_its_message_did() {
    model(|| {
        let queues = queues::<4>(2);
        let (data, over) = (Plain::new(), Arc::new(AtomicBool::new(false)));
        let receiver = {
            let (queues, over) = (queues.clone(), over.clone());
            cpu(CPU1, move || {
                while !over.load(Relaxed) {
                    take_ipi(&queues);
                }
            })
        };
        let there = data.clone();
        let ticket = queues.send(CPU1, later(move || there.set(1))).unwrap();
        queues.wait(ticket).unwrap();
        assert_eq!(data.get(), 1);
        over.store(true, Relaxed);
        receiver.join().unwrap();
    });
}

/// An interrupt handler that sends over a half-done send, as a thread that is the same CPU.
#[test]
fn two_producers_of_one_cpu_share_a_queue() {
    model(|| {
        let queues = queues::<4>(2);
        let called = Arc::new(AtomicUsize::new(0));
        let producers = [1, 2].map(|n| {
            let (queues, called) = (queues.clone(), called.clone());
            cpu(CPU1, move || {
                queues
                    .send(
                        CPU0,
                        later(move || {
                            called.fetch_add(n, Relaxed);
                        }),
                    )
                    .unwrap();
            })
        });
        take_ipi(&queues);
        join(producers);
        take_ipi(&queues);
        take_ipi(&queues);
        assert_eq!(called.load(Relaxed), 3);
    });
}

#[test]
fn two_consumers_of_one_cpu_never_call_a_message_twice() {
    model(|| {
        let queues = queues::<4>(2);
        let (called, data) = (Arc::new(AtomicUsize::new(0)), Plain::new());
        THIS.with(|this| this.set(CPU1));
        let count = called.clone();
        queues
            .send(
                CPU0,
                later(move || {
                    count.fetch_add(1, Relaxed);
                    data.set(data.get() + 1);
                }),
            )
            .unwrap();
        let consumers = [(); 2].map(|()| {
            let queues = queues.clone();
            cpu(CPU0, move || queues.tick())
        });
        join(consumers);
        THIS.with(|this| this.set(CPU0));
        queues.tick();
        assert_eq!(called.load(Relaxed), 1);
    });
}

#[test]
fn a_function_may_be_lent() {
    model(|| {
        let queues = queues::<2>(2);
        let over = Arc::new(AtomicBool::new(false));
        let other = {
            let (queues, over) = (queues.clone(), over.clone());
            cpu(CPU1, move || {
                while !over.load(Relaxed) {
                    take_ipi(&queues);
                }
            })
        };
        for n in 1..3 {
            let data = Plain(UnsafeCell::new(n));
            queues.run_on(&CpuMask::of(CPU1), |_| data.set(data.get() + 1)).unwrap();
            assert_eq!(data.get(), n + 1);
        }
        over.store(true, Relaxed);
        other.join().unwrap();
    });
}

/// A thread's own data, which the other CPU touches only while the thread is stopped.
#[test]
fn a_stopped_cpu_does_nothing_of_its_own() {
    model(|| {
        let queues = queues::<2>(2);
        let (data, over) = (Plain::new(), Arc::new(AtomicBool::new(false)));
        let other = {
            let (queues, data, over) = (queues.clone(), data.clone(), over.clone());
            cpu(CPU1, move || {
                while !over.load(Relaxed) {
                    data.set(data.get() + 1);
                    take_ipi(&queues);
                }
                data.get()
            })
        };
        let seen = queues.interlocked(
            &CpuMask::of(CPU1),
            |_| {
                data.set(data.get() + 100);
                data.get()
            },
            |_| data.set(data.get() + 1000),
        );
        over.store(true, Relaxed);
        let end = other.join().unwrap();
        assert!((101..1000).contains(&seen.unwrap()));
        assert!(end >= 1101);
    });
}

#[test]
fn two_masters_that_aim_at_each_other_go_one_after_the_other() {
    model(|| {
        let queues = queues::<2>(2);
        let (data, left) = (Plain::new(), Arc::new(AtomicUsize::new(2)));
        let work = |me: CpuId| {
            let (queues, data, left) = (queues.clone(), data.clone(), left.clone());
            move || {
                let add = |_: &CpuMask| data.set(data.get() + 1);
                queues.interlocked(&CpuMask::of(CpuId(1 - me.0)), add, |_| ()).unwrap();
                left.fetch_sub(1, Release);
                while left.load(Acquire) != 0 {
                    take_ipi(&queues);
                }
            }
        };
        let other = cpu(CPU1, work(CPU1));
        work(CPU0)();
        other.join().unwrap();
        assert_eq!(data.get(), 2);
    });
}

/// Masters of which none is aimed at: only the lock keeps them apart.
#[test]
fn interlocks_of_nobody_exclude_each_other_too() {
    model(|| {
        let queues = queues::<2>(2);
        let data = Plain::new();
        let work = || {
            let (queues, data) = (queues.clone(), data.clone());
            move || queues.interlocked(&CpuMask::EMPTY, |_| data.set(data.get() + 1), |_| ()).unwrap()
        };
        let other = cpu(CPU1, work());
        work()();
        other.join().unwrap();
        assert_eq!(data.get(), 2);
    });
}

#[test]
fn a_cpu_that_leaves_is_not_waited_for() {
    model(|| {
        let queues = queues::<2>(2);
        let leaving = {
            let queues = queues.clone();
            cpu(CPU1, move || queues.stop().unwrap())
        };
        let ran = AtomicUsize::new(0);
        let mask = queues
            .run_on(&CpuMask::of(CPU1), |_| {
                ran.fetch_add(1, Relaxed);
            })
            .unwrap();
        assert_eq!(ran.load(Relaxed), mask.len() as usize);
        leaving.join().unwrap();
    });
}
