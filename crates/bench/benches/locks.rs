//! Locks that two threads want, beside their peers in the same run (bar L9 and, for information, throughput). What they
//! cost uncontended is in `cargo xtask bench` (bar L8). Two idle CPUs are needed, or the figures say nothing.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use dfly_hal::ThreadWait;
use dfly_hal::sync::WaitLock;
use dfly_lwkt::lock::{Mtx, Spinlock};

/// Two threads, each of which does `with` on the counter `rounds` times, through its own waiter.
fn both(rounds: u64, turn: impl Fn(u64, &mut ThreadWait) + Sync) -> Duration {
    let start = AtomicBool::new(false);
    std::thread::scope(|s| {
        let other = s.spawn(|| {
            let mut w = ThreadWait::new();
            start.store(true, Relaxed);
            (0..rounds).for_each(|round| turn(2 * round + 1, &mut w));
        });
        let mut w = ThreadWait::new();
        while !start.load(Relaxed) {
            spin_loop();
        }
        let begin = Instant::now();
        (0..rounds).for_each(|round| turn(2 * round, &mut w));
        drop(other.join());
        begin.elapsed()
    })
}

/// The counter may only go from `turn` to `turn + 1`; looks until it is its turn.
fn step(n: &mut u64, turn: u64) -> bool {
    let mine = *n == turn;
    *n += u64::from(mine);
    mine
}

/// A polls until the counter is even, B until it is odd: one hand-over for each turn.
fn alternation(c: &mut Criterion) {
    let mut group = c.benchmark_group("strict alternation, two threads (L9)");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.bench_function("parking_lot Mutex", |b| {
        b.iter_custom(|rounds| {
            let lock = parking_lot::Mutex::new(0);
            both(rounds, |turn, _| {
                while !step(&mut lock.lock(), turn) {
                    spin_loop();
                }
            })
        });
    });
    group.bench_function("spin Mutex", |b| {
        b.iter_custom(|rounds| {
            let lock = spin::Mutex::<_>::new(0);
            both(rounds, |turn, _| {
                while !step(&mut lock.lock(), turn) {
                    spin_loop();
                }
            })
        });
    });
    group.bench_function("Spinlock", |b| {
        b.iter_custom(|rounds| {
            let lock = Spinlock::new(0);
            both(rounds, |turn, _| {
                while !step(&mut lock.lock(), turn) {
                    spin_loop();
                }
            })
        });
    });
    group.finish();
}

fn throughput(c: &mut Criterion) {
    let mut group = c.benchmark_group("increments by two threads");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    macro_rules! row {
        ($name:literal, $lock:expr, |$l:ident, $w:ident| $add:expr) => {
            group.bench_function($name, |b| {
                b.iter_custom(|rounds| {
                    let $l = $lock;
                    both(rounds, |_, $w| {
                        let _ = &$w;
                        $add
                    })
                });
            });
        };
    }
    row!("std Mutex", std::sync::Mutex::new(0_u64), |l, w| *l.lock().unwrap_or_else(|e| e.into_inner()) += 1);
    row!("parking_lot Mutex", parking_lot::Mutex::new(0_u64), |l, w| *l.lock() += 1);
    row!("spin Mutex", spin::Mutex::<_>::new(0_u64), |l, w| *l.lock() += 1);
    row!("Spinlock", Spinlock::new(0_u64), |l, w| *l.lock() += 1);
    row!("parking_lot FairMutex", parking_lot::FairMutex::new(0_u64), |l, w| *l.lock() += 1);
    row!("hal WaitLock", WaitLock::new(0_u64), |l, w| *l.lock(w) += 1);
    row!("Mtx", Mtx::new(0_u64), |l, w| *l.lock(w) += 1);
    row!("parking_lot RwLock, read", parking_lot::RwLock::new(0_u64), |l, w| {
        std::hint::black_box(*l.read());
    });
    row!("Spinlock, shared", Spinlock::new(0_u64), |l, w| {
        std::hint::black_box(*l.lock_shared());
    });
    row!("Mtx, shared", Mtx::new(0_u64), |l, w| {
        std::hint::black_box(*l.lock_shared(w));
    });
    group.finish();
}

criterion_group!(benches, alternation, throughput);
criterion_main!(benches);
