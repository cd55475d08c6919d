//! A token that two CPUs want, beside mutexes that two host threads want (bar L9), and what one costs whose holder blocks.
//! What tokens cost that nobody else wants is in `cargo xtask bench` (bars L4 to L7). Two idle CPUs are needed, or the
//! figures say nothing.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use dfly_hal::{CpuId, ThreadWait};
use dfly_lwkt::host::Machine;
use dfly_lwkt::token::Token;
use dfly_lwkt::{Config, Cx, RunTime};

/// Two CPUs, each with a thread that calls `turn(2 * round + cpu)` so often.
fn cpus(rounds: u64, turn: impl Fn(u64, &mut Cx<'_>) + Send + Sync + 'static) -> Duration {
    let config = Config::default().run_time(RunTime::NotMeasured);
    let Ok(machine) = Machine::start(2, config) else { return Duration::ZERO };
    let (turn, ready) = (Arc::new(turn), Arc::new(AtomicU32::new(0)));
    let begin = Arc::new(std::sync::OnceLock::new());
    let threads: Vec<_> = [0, 1]
        .into_iter()
        .flat_map(|cpu| {
            let (turn, ready, begin) = (turn.clone(), ready.clone(), begin.clone());
            machine.scheduler().spawn(CpuId(cpu), "bench".into(), move |cx| {
                ready.fetch_add(1, Ordering::SeqCst);
                while ready.load(Ordering::SeqCst) < 2 {
                    spin_loop();
                }
                begin.get_or_init(Instant::now);
                (0..rounds).for_each(|round| turn(2 * round + u64::from(cpu), cx));
            })
        })
        .collect();
    for thread in threads {
        let _ = thread.join(&mut ThreadWait::new());
    }
    begin.get().map_or(Duration::ZERO, Instant::elapsed)
}

/// Goes from `turn` to `turn + 1`; says whether it was its turn.
fn step(n: &mut u64, turn: u64) -> bool {
    let mine = *n == turn;
    *n += u64::from(mine);
    mine
}

/// One hand-over for each turn.
fn alternation(c: &mut Criterion) {
    let mut group = c.benchmark_group("strict alternation, two CPUs (L9)");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.bench_function("parking_lot Mutex", |b| {
        b.iter_custom(|rounds| {
            let lock = parking_lot::Mutex::new(0);
            cpus(rounds, move |turn, _| {
                while !step(&mut lock.lock(), turn) {
                    spin_loop();
                }
            })
        });
    });
    group.bench_function("Token", |b| {
        b.iter_custom(|rounds| {
            let token = Token::new(0);
            cpus(rounds, move |turn, cx| {
                loop {
                    let (mut cx, mut n) = cx.hold(&token);
                    if step(n.get_mut(&mut cx), turn) {
                        break;
                    }
                    drop(cx);
                    spin_loop();
                }
            })
        });
    });
    group.finish();
}

fn throughput(c: &mut Criterion) {
    let mut group = c.benchmark_group("increments by two CPUs");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    group.bench_function("std Mutex", |b| {
        b.iter_custom(|rounds| {
            let lock = std::sync::Mutex::new(0_u64);
            cpus(rounds, move |_, _| *lock.lock().unwrap_or_else(|e| e.into_inner()) += 1)
        });
    });
    group.bench_function("parking_lot Mutex", |b| {
        b.iter_custom(|rounds| {
            let lock = parking_lot::Mutex::new(0_u64);
            cpus(rounds, move |_, _| *lock.lock() += 1)
        });
    });
    group.bench_function("spin Mutex", |b| {
        b.iter_custom(|rounds| {
            let lock = spin::Mutex::<_>::new(0_u64);
            cpus(rounds, move |_, _| *lock.lock() += 1)
        });
    });
    group.bench_function("Token", |b| {
        b.iter_custom(|rounds| {
            let token = Token::new(0_u64);
            cpus(rounds, move |_, cx| {
                let (mut cx, mut n) = cx.hold(&token);
                *n.get_mut(&mut cx) += 1;
            })
        });
    });
    group.bench_function("Token, with a yield inside", |b| {
        b.iter_custom(|rounds| {
            let token = Token::new(0_u64);
            cpus(rounds, move |_, cx| {
                let (mut cx, mut n) = cx.hold(&token);
                *n.get_mut(&mut cx) += 1;
                cx.yield_now();
                *n.get_mut(&mut cx) += 1;
            })
        });
    });
    group.bench_function("Token, shared", |b| {
        b.iter_custom(|rounds| {
            let token = Token::new(0_u64);
            cpus(rounds, move |_, cx| {
                let (cx, n) = cx.hold_shared(&token);
                std::hint::black_box(*n.get(&cx));
            })
        });
    });
    group.finish();
}

criterion_group!(benches, alternation, throughput);
criterion_main!(benches);
