//! What CPUs do to each other: host threads.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::thread;
use std::time::Duration;

use crate::keep;
use dfly_hal::host::HostCpus;
use dfly_hal::{CpuId, Cpus};
use dfly_lwkt::ipi::{CpuMask, IpiQueues, IrqCx};

/// Rounds of a test, fewer where they are slow.
const ROUNDS: usize = if cfg!(miri) { 3 } else { 500 };

type Queues = IpiQueues<Arc<HostCpus>, 4>;

/// Runs `work` on each of `count` CPUs; each goes on draining until all have done theirs.
fn machine(count: u32, work: impl Fn(&Arc<Queues>, CpuId) + Sync) {
    let cpus = Arc::new(HostCpus::new(count));
    let queues = Arc::new(Queues::new(cpus.clone()).unwrap());
    let (ready, working) = (AtomicUsize::new(0), AtomicUsize::new(count as usize));
    thread::scope(|scope| {
        for id in (0..count).map(CpuId) {
            let (cpus, queues, work, ready, working) = (&cpus, &queues, &work, &ready, &working);
            scope.spawn(move || {
                let cpu = cpus.attach(id).unwrap();
                queues.start().unwrap();
                ready.fetch_add(1, AcqRel);
                while ready.load(Acquire) != count as usize {
                    thread::yield_now();
                }
                work(queues, id);
                working.fetch_sub(1, AcqRel);
                while working.load(Acquire) != 0 {
                    cpu.wait_for_ipi(Duration::from_millis(1));
                    queues.drain();
                }
            });
        }
    });
}

#[test]
fn two_cpus_that_fill_each_others_queues_go_on() {
    let called = keep(AtomicUsize::new(0));
    machine(2, |queues, me| {
        for _ in 0..10 * ROUNDS {
            queues
                .send(CpuId(1 - me.0), |_| {
                    called.fetch_add(1, Relaxed);
                })
                .unwrap();
        }
        while called.load(Relaxed) != 20 * ROUNDS {
            queues.drain();
            thread::yield_now();
        }
    });
}

#[test]
fn callbacks_that_answer_over_full_queues_go_on() {
    static ANSWERS: AtomicUsize = AtomicUsize::new(0);
    machine(3, |queues, me| {
        for n in 0..3 * ROUNDS as u32 {
            let to = CpuId((me.0 + 1 + n % 2) % 3);
            queues
                .send(to, |cx| {
                    cx.send(cx.from(), |_| {
                        ANSWERS.fetch_add(1, Relaxed);
                    })
                    .unwrap();
                })
                .unwrap();
        }
        while ANSWERS.load(Relaxed) != 9 * ROUNDS {
            queues.drain();
            thread::yield_now();
        }
    });
}

#[test]
fn a_waiter_sees_what_its_message_did() {
    machine(2, |queues, me| {
        let done = keep((0..ROUNDS).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
        for round in done {
            let passive = me == CpuId(1);
            let f = |_: &IrqCx<'_>| round.store(1, Relaxed);
            let ticket = if passive { queues.send_passive(CpuId(0), f) } else { queues.send(CpuId(1), f) };
            queues.wait(ticket.unwrap()).unwrap();
            assert_eq!(round.load(Relaxed), 1);
        }
    });
}

#[test]
fn a_function_runs_once_on_each_cpu_and_may_borrow() {
    machine(3, |queues, _| {
        for _ in 0..ROUNDS {
            let ran: [AtomicUsize; 3] = Default::default();
            let mask = queues.run_on(&CpuMask::first(3), |cx| {
                ran[cx.cpu().index()].fetch_add(1, Relaxed);
            });
            assert_eq!(mask, Ok(CpuMask::first(3)));
            assert!(ran.iter().all(|n| n.load(Relaxed) == 1));
        }
    });
}

#[test]
fn nothing_runs_elsewhere_between_interlock_and_its_end() {
    // Not atomic on purpose: a load and a store, which only an interlock makes one step.
    static SHARED: AtomicUsize = AtomicUsize::new(0);
    static AFTER: AtomicUsize = AtomicUsize::new(0);
    machine(3, |queues, me| {
        for _ in 0..ROUNDS {
            let others = CpuMask::first(3) - CpuMask::of(me);
            queues
                .interlocked(
                    &others,
                    |mask| {
                        assert_eq!(*mask, others);
                        let seen = SHARED.load(Relaxed);
                        thread::yield_now();
                        SHARED.store(seen + 1, Relaxed);
                    },
                    |_| {
                        AFTER.fetch_add(1, Relaxed);
                    },
                )
                .unwrap();
        }
    });
    assert_eq!((SHARED.load(Relaxed), AFTER.load(Relaxed)), (3 * ROUNDS, 6 * ROUNDS));
}

#[test]
fn a_stopped_cpu_still_calls_what_is_sent_to_it() {
    machine(2, |queues, me| {
        if me == CpuId(0) {
            for _ in 0..ROUNDS.min(50) {
                let waited = queues.interlocked(
                    &CpuMask::of(CpuId(1)),
                    |_| queues.wait(queues.send(CpuId(1), |_| ()).unwrap()),
                    |_| (),
                );
                assert_eq!(waited, Ok(Ok(())));
            }
        }
    });
}

#[test]
fn cpus_come_and_go_while_others_synchronise() {
    static RAN: AtomicUsize = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let expected = AtomicUsize::new(0);
    machine(2, |queues, me| {
        if me == CpuId(0) {
            for _ in 0..2 * ROUNDS {
                let mask = queues.run_together(&CpuMask::first(2), |_| {
                    RAN.fetch_add(1, Relaxed);
                });
                expected.fetch_add(mask.unwrap().len() as usize, Relaxed);
            }
            over.store(true, Release);
        } else {
            while !over.load(Acquire) {
                queues.stop().unwrap();
                thread::yield_now();
                queues.start().unwrap();
                queues.drain();
            }
        }
    });
    assert_eq!(RAN.load(Relaxed), expected.load(Relaxed));
}

#[test]
fn queues_take_any_cpus() {
    let cpus: Arc<dyn Cpus> = Arc::new(HostCpus::new(1));
    assert!(IpiQueues::<_, 8>::new(cpus).is_ok());
}

/// CPU 1 is sent what panics while it is stopped, CPU 2 stops late: until both have stopped the body does not run, and while it
/// runs neither works.
#[test]
fn a_callback_that_panics_does_not_let_a_stopped_cpu_go() {
    let cpus = Arc::new(HostCpus::new(4));
    let queues = Arc::new(Queues::new(cpus.clone()).unwrap());
    let (ready, over, late) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let worked: [AtomicUsize; 4] = Default::default();
    thread::scope(|scope| {
        for id in 1..4 {
            let (cpus, queues, ready, over, late, worked) = (&cpus, &queues, &ready, &over, &late, &worked);
            scope.spawn(move || {
                let _cpu = cpus.attach(CpuId(id)).unwrap();
                queues.start().unwrap();
                ready.fetch_add(1, AcqRel);
                while !over.load(Acquire) {
                    match id {
                        // Its own panics are caught here, outside the drain.
                        1 => drop(catch_unwind(AssertUnwindSafe(|| queues.drain()))),
                        2 if late.load(Acquire) => queues.drain(),
                        3 => {
                            // A full queue or an ended CPU refuses, and then there is one panic less.
                            let _ = queues.send_passive(CpuId(1), |_| resume_unwind(Box::new("as it must")));
                            queues.drain();
                            queues.tick();
                        }
                        _ => {}
                    }
                    worked[id as usize].fetch_add(1, AcqRel);
                    thread::yield_now();
                }
                // Who sends to it is refused from now on, instead of waiting for room; what is left may panic once more.
                drop(catch_unwind(AssertUnwindSafe(|| queues.stop())));
            });
        }
        let _cpu = cpus.attach(CpuId(0)).unwrap();
        queues.start().unwrap();
        while ready.load(Acquire) != 3 {
            thread::yield_now();
        }
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            late.store(true, Release);
        });
        let both: CpuMask = [CpuId(1), CpuId(2)].into_iter().collect();
        let work = || [1, 2].map(|id: usize| worked[id].load(Acquire));
        let body = |_: &CpuMask| {
            let (had_stopped, before) = (late.load(Acquire), work());
            thread::sleep(Duration::from_millis(50));
            (had_stopped, before, work())
        };
        let found = queues.interlocked(&both, body, |_| ());
        over.store(true, Release);
        let (had_stopped, before, after) = found.unwrap();
        assert!(had_stopped, "the body ran before CPU 2 had stopped");
        assert_eq!(before, after, "a stopped CPU worked");
    });
}

/// Three CPUs, of which the others drain only as far as they are let: CPU n from the stage n on.
#[test]
fn a_message_of_a_function_that_panicked_takes_no_place_of_the_next_one() {
    let cpus = Arc::new(HostCpus::new(3));
    let queues = Arc::new(Queues::new(cpus.clone()).unwrap());
    let (ready, stage, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        for id in 1..3 {
            let (cpus, queues, ready, stage, over) = (&cpus, &queues, &ready, &stage, &over);
            scope.spawn(move || {
                let _cpu = cpus.attach(CpuId(id)).unwrap();
                queues.start().unwrap();
                ready.fetch_add(1, AcqRel);
                while !over.load(Acquire) {
                    if stage.load(Acquire) >= id as usize {
                        queues.drain();
                    }
                    thread::yield_now();
                }
            });
        }
        let _cpu = cpus.attach(CpuId(0)).unwrap();
        queues.start().unwrap();
        while ready.load(Acquire) != 2 {
            thread::yield_now();
        }
        let ran: [AtomicUsize; 3] = Default::default();
        let count = || ran.each_ref().map(|n| n.swap(0, Relaxed));
        let let_in = |id| {
            let stage = &stage;
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(30));
                stage.store(id, Release);
            });
        };
        let_in(1);
        let first = catch_unwind(AssertUnwindSafe(|| {
            queues.run_on(&CpuMask::first(2), |cx| {
                ran[cx.cpu().index()].fetch_add(1, Relaxed);
                if cx.cpu() == CpuId(0) {
                    // At once, with nothing printed.
                    resume_unwind(Box::new("as it must"));
                }
            })
        }));
        // It has been waited for, although the function panicked here.
        let first = (first.is_err(), count());
        let_in(2);
        let two = CpuMask::of(CpuId(2));
        let second = queues.run_on(&two, |cx| {
            ran[cx.cpu().index()].fetch_add(1, Relaxed);
        });
        let second = (second, count());
        over.store(true, Release);
        assert_eq!(first, (true, [1, 1, 0]));
        assert_eq!(second, (Ok(two), [0, 0, 1]));
    });
}
