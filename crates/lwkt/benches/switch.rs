//! What a switch and a wake cost, beside what the host's threads take for the same.
#![expect(clippy::unwrap_used, reason = "a bench may panic")]

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use dfly_hal::{CpuId, ThreadWait, Wait};
use dfly_lwkt::host::Machine;
use dfly_lwkt::{Config, Cx, RunTime};

/// Whose turn it is, and how to wake them.
#[derive(Default)]
struct Turns {
    turn: AtomicU32,
    wakers: [Mutex<Option<Waker>>; 2],
}

impl Turns {
    fn wait(&self, me: usize, cx: &mut Cx<'_>) {
        let wait = poll_fn(|cx| {
            if self.turn.load(Ordering::Acquire) == me as u32 {
                return Poll::Ready(());
            }
            self.wakers[me].lock().unwrap().get_or_insert_with(|| cx.waker().clone());
            // Once more: it may have come before the waker was there.
            if self.turn.load(Ordering::Acquire) == me as u32 { Poll::Ready(()) } else { Poll::Pending }
        });
        cx.wait(pin!(wait), None).unwrap();
    }

    fn pass(&self, me: usize) {
        self.turn.store(1 - me as u32, Ordering::Release);
        if let Some(waker) = &*self.wakers[1 - me].lock().unwrap() {
            waker.wake_by_ref();
        }
    }
}

/// The time that `f` takes as a thread.
fn timed(machine: &Machine, f: impl FnOnce(&mut Cx<'_>) + Send + 'static) -> Duration {
    let took = Arc::new(Mutex::new(Duration::ZERO));
    let theirs = took.clone();
    let thread = machine.scheduler().spawn(CpuId(0), "bench".into(), move |cx| {
        let begin = Instant::now();
        f(cx);
        *theirs.lock().unwrap() = begin.elapsed();
    });
    thread.unwrap().join(&mut ThreadWait::new()).unwrap();
    *took.lock().unwrap()
}

fn machine(run_time: RunTime) -> Machine {
    Machine::start(2, Config::default().run_time(run_time)).unwrap()
}

/// Two threads of one CPU that yield to each other: two switches to and fro.
fn yields(c: &mut Criterion) {
    for (name, run_time) in
        [("yield, to and fro", RunTime::NotMeasured), ("the same, measured", RunTime::Measured)]
    {
        let machine = machine(run_time);
        c.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                timed(&machine, move |cx| {
                    let other = cx.scheduler().spawn(cx.cpu(), "other".into(), move |cx| {
                        (0..rounds).for_each(|_| cx.yield_now());
                    });
                    (0..rounds).for_each(|_| cx.yield_now());
                    other.unwrap().join(cx).unwrap();
                })
            });
        });
    }
}

/// Two threads that wake each other and wait.
fn wakes(c: &mut Criterion) {
    for (name, cpu) in [("wake and wait, to and fro, one CPU", 0), ("the same, two CPUs", 1)] {
        let machine = machine(RunTime::NotMeasured);
        c.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                timed(&machine, move |cx| {
                    let turns = Arc::new(Turns::default());
                    let theirs = turns.clone();
                    let other = cx.scheduler().spawn(CpuId(cpu), "other".into(), move |cx| {
                        for _ in 0..rounds {
                            theirs.wait(1, cx);
                            theirs.pass(1);
                        }
                    });
                    for _ in 0..rounds {
                        turns.pass(0);
                        turns.wait(0, cx);
                    }
                    other.unwrap().join(cx).unwrap();
                })
            });
        });
    }
}

/// A thread that is spawned and joined.
fn spawns(c: &mut Criterion) {
    let machine = machine(RunTime::NotMeasured);
    c.bench_function("spawn and join, one CPU, 16 KiB of stack", |b| {
        b.iter_custom(|rounds| {
            timed(&machine, move |cx| {
                for _ in 0..rounds {
                    let spec = dfly_lwkt::Spec::new("brief").stack_bytes(16 << 10);
                    cx.scheduler().spawn(cx.cpu(), spec, |_| ()).unwrap().join(cx).unwrap();
                }
            })
        });
    });
}

/// The peer: two host threads that park and unpark.
fn host_threads(c: &mut Criterion) {
    c.bench_function("host threads: park and unpark, to and fro", |b| {
        b.iter_custom(|rounds| {
            let turn = Arc::new(AtomicU32::new(0));
            let (theirs, main) = (turn.clone(), thread::current());
            let wait = |turn: &AtomicU32, me| {
                while turn.load(Ordering::Acquire) != me {
                    thread::park();
                }
            };
            let other = thread::spawn(move || {
                for _ in 0..rounds {
                    wait(&theirs, 1);
                    theirs.store(0, Ordering::Release);
                    main.unpark();
                }
            });
            let begin = Instant::now();
            for _ in 0..rounds {
                turn.store(1, Ordering::Release);
                other.thread().unpark();
                wait(&turn, 0);
            }
            let took = begin.elapsed();
            other.join().unwrap();
            took
        });
    });
}

criterion_group!(benches, yields, wakes, spawns, host_threads);
criterion_main!(benches);
