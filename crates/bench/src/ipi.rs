//! Messages to other CPUs: bars L10 to L12.

use std::{
    cell::Cell,
    hint::{black_box, spin_loop},
    sync::atomic::{
        AtomicBool, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_queue::ArrayQueue;
use dfly_hal::{CpuId, Cpus};
use dfly_lwkt::ipi::{IpiQueues, IrqCx};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::harness::{Bar, Effort, Group, Unit};

const DEPTH: usize = 256;
/// Messages of an operation on one CPU.
const MESSAGES: usize = 100;
const CPU0: CpuId = CpuId(0);
const CPU1: CpuId = CpuId(1);

thread_local! {
    static THIS: Cell<CpuId> = const { Cell::new(CPU0) };
}

/// Two CPUs whose threads poll, so that an IPI costs nothing.
struct Polling;

// SAFETY: a thread says which CPU it is before it uses the queues, and no two say the same at a time.
unsafe impl Cpus for Polling {
    #[inline]
    fn this(&self) -> CpuId {
        THIS.get()
    }
    fn count(&self) -> u32 {
        2
    }
    fn raise_ipi(&self, _: CpuId) {}
}

type Queues = IpiQueues<Polling, DEPTH>;

/// What the peers carry: as much as our closure of two words.
type Peer = (fn(usize), [usize; 2]);

fn note(n: usize) {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    SEEN.store(n, Relaxed);
}

pub(crate) fn bench(effort: Effort) {
    match Queues::new(Polling) {
        Ok(queues) => {
            let queues: &'static Queues = Box::leak(Box::new(queues));
            one_cpu(queues, effort);
            two_cpus(queues, effort);
        }
        Err(error) => println!("no IPI queues: {error}"),
    }
}

fn one_cpu(queues: &'static Queues, effort: Effort) {
    let array = ArrayQueue::<Peer>::new(DEPTH);
    let (mut tx, mut rx) = rtrb::RingBuffer::<Peer>::new(DEPTH);
    let on_cpu1 = |f: &dyn Fn()| {
        THIS.set(CPU1);
        f();
        THIS.set(CPU0);
    };
    let mut group = Group::new(format!("{MESSAGES} x send, then drain, on one CPU"), Unit::Operation);
    let base = group.add("crossbeam ArrayQueue", || {
        (0..MESSAGES).for_each(|n| _ = array.push((note, [n, n])));
        while let Some((f, [n, _])) = array.pop() {
            black_box(f)(n);
        }
    });
    let ring = group.add("rtrb", || {
        (0..MESSAGES).for_each(|n| _ = tx.push((note, [n, n])));
        while let Ok((f, [n, _])) = rx.pop() {
            black_box(f)(n);
        }
    });
    let passive = group.add("send_passive and tick", || {
        for n in 0..MESSAGES {
            // A quarter of the queue, then it would be an active one.
            if n % 50 == 49 {
                on_cpu1(&|| queues.tick());
            }
            _ = queues.send_passive(CPU1, move |_| note(n));
        }
        on_cpu1(&|| queues.tick());
    });
    let active = group.add("send and drain", || {
        (0..MESSAGES).for_each(|n| _ = queues.send(CPU1, move |_| note(n)));
        on_cpu1(&|| queues.drain());
    });
    group.ratio(passive, base, Bar::TimeAtMost(0.40), "L12");
    group.ratio(active, base, Bar::None, "no bar");
    group.ratio(passive, ring, Bar::None, "no bar");
    group.run(effort);
}

/// One contender between two CPUs: makes so many round trips, or sends so many messages.
pub(crate) type Run<'a> = (&'a str, Box<dyn Fn(usize) + 'a>);

fn two_cpus(queues: &'static Queues, effort: Effort) {
    let Some(other) = other_cpu() else { return };
    let array = [ArrayQueue::<Peer>::new(DEPTH), ArrayQueue::new(DEPTH)];

    let round_trips: [Run<'_>; 3] = [
        ("crossbeam ArrayQueue x2", Box::new(|n| array_round_trips(&array, other, n))),
        ("rtrb x2", Box::new(|n| rtrb_round_trips(other, n))),
        ("IPI queues", Box::new(|n| our_round_trips(queues, other, n))),
    ];
    compare("a round trip between two CPUs that poll", effort, &round_trips, &[(0, 0.60), (1, 1.25)], "L10");
    let one_way: [Run<'_>; 3] = [
        ("rtrb", Box::new(|n| rtrb_one_way(other, n))),
        ("send", Box::new(|n| our_one_way(queues, other, n, &|n| _ = queues.send(CPU1, move |_| note(n))))),
        (
            "send_passive",
            Box::new(|n| {
                our_one_way(queues, other, n, &|n| _ = queues.send_passive(CPU1, move |_| note(n)));
            }),
        ),
    ];
    compare("a message one way, pipelined", effort, &one_way, &[(0, 1.5)], "L11");
}

/// A CPU that this thread does not stay on.
pub(crate) fn other_cpu() -> Option<usize> {
    let here = sched_getaffinity(None).ok()?;
    (0..2).find(|&cpu| !here.is_set(cpu)).filter(|_| thread::available_parallelism().is_ok())
}

/// Wall time: one side waits for the other. The last contender is ours.
pub(crate) fn compare(title: &str, effort: Effort, runs: &[Run<'_>], bars: &[(usize, f64)], source: &str) {
    let (rounds, count) = if effort == Effort::Quick { (5, 2_000) } else { (31, 20_000) };
    let mut samples = vec![Vec::new(); runs.len()];
    for _ in 0..rounds {
        for ((_, run), samples) in runs.iter().zip(&mut samples) {
            let begin = Instant::now();
            run(count);
            samples.push(begin.elapsed() / count as u32);
        }
    }
    println!("\n{title}");
    let medians: Vec<Duration> = samples
        .iter_mut()
        .map(|samples| {
            samples.sort();
            samples[samples.len() / 2]
        })
        .collect();
    for ((name, _), median) in runs.iter().zip(&medians) {
        println!("  {name:32} {median:>12.0?}");
    }
    let ours = medians[runs.len() - 1].as_secs_f64();
    for &(peer, most) in bars {
        let ratio = ours / medians[peer].as_secs_f64();
        let verdict = if ratio <= most { "holds" } else { "MISSED" };
        println!(
            "  time of {} / {}: {ratio:.2}x, {source} <= {most:.2}: {verdict}",
            runs[runs.len() - 1].0,
            runs[peer].0
        );
    }
}

/// Runs `near` while `far` runs on another CPU, again and again, until `near` has returned.
pub(crate) fn beside(other: usize, mut far: impl FnMut() + Send, near: impl FnOnce()) {
    let (ready, over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let (is_ready, is_over) = (&ready, &over);
        scope.spawn(move || {
            let mut there = CpuSet::new();
            there.set(other);
            _ = sched_setaffinity(None, &there);
            is_ready.store(true, Release);
            while !is_over.load(Relaxed) {
                far();
            }
        });
        while !ready.load(Acquire) {
            spin_loop();
        }
        near();
        over.store(true, Relaxed);
    });
}

fn array_round_trips([there, back]: &[ArrayQueue<Peer>; 2], other: usize, count: usize) {
    let far = || {
        if let Some((f, [n, _])) = there.pop() {
            _ = back.push((f, [n, n]));
        }
    };
    beside(other, far, || {
        for n in 0..count {
            _ = there.push((note, [n, n]));
            while back.pop().is_none() {
                spin_loop();
            }
        }
    });
}

fn rtrb_round_trips(other: usize, count: usize) {
    let (mut there, mut rx) = rtrb::RingBuffer::<Peer>::new(DEPTH);
    let (mut tx, mut back) = rtrb::RingBuffer::<Peer>::new(DEPTH);
    let far = move || {
        if let Ok(message) = rx.pop() {
            _ = tx.push(message);
        }
    };
    beside(other, far, || {
        for n in 0..count {
            _ = there.push((note, [n, n]));
            while back.pop().is_err() {
                spin_loop();
            }
        }
    });
}

fn our_round_trips(queues: &'static Queues, other: usize, count: usize) {
    static BACK: AtomicUsize = AtomicUsize::new(0);
    // Without `start`: then a full queue would be an error, and this one never is.
    let far = || {
        THIS.set(CPU1);
        queues.drain();
    };
    beside(other, far, || {
        BACK.store(0, Relaxed);
        for n in 1..=count {
            let answer = move |cx: &IrqCx<'_>| _ = cx.send(CPU0, move |_| BACK.store(n, Relaxed));
            _ = queues.send(CPU1, answer);
            while BACK.load(Relaxed) != n {
                queues.drain();
            }
        }
    });
}

fn rtrb_one_way(other: usize, count: usize) {
    let (mut tx, mut rx) = rtrb::RingBuffer::<Peer>::new(DEPTH);
    let far = move || {
        while let Ok((f, [n, _])) = rx.pop() {
            black_box(f)(n);
        }
    };
    beside(other, far, || {
        for n in 0..count {
            while tx.push((note, [n, n])).is_err() {
                spin_loop();
            }
        }
        while tx.slots() != DEPTH {
            spin_loop();
        }
    });
}

fn our_one_way(queues: &'static Queues, other: usize, count: usize, send: &dyn Fn(usize)) {
    let far = || {
        if THIS.replace(CPU1) != CPU1 {
            _ = queues.start();
        }
        queues.tick();
    };
    beside(other, far, || {
        while !queues.online().contains(CPU1) {
            spin_loop();
        }
        (0..count).for_each(send);
        if let Ok(last) = queues.send(CPU1, |_| ()) {
            _ = queues.wait(last);
        }
    });
}
